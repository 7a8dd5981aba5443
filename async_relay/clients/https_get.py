"""A JSON document by HTTPS from the issuer of tokens: bounded in time and size, whatever the other end does.

Rules
- Certificates are verified against the authorities that ``http.tls`` names for the host.
- No redirect is followed, no proxy asked and nothing unpacked: what is said there is said there, or not at all.
- Every failure is ``KeysUnavailable``.
- A socket is for one document: there are two in ten minutes, and a sandbox may be frozen between them.

This is our own because aiohttp takes 250 ms of CPU and 12 MB to load, which is twice what all the rest of an
authorizer's cold start takes; what it is made of is what the direct transport is made of.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from ..http.opening import Endpoint, open_socket
from ..http.tls import certificate_authorities, trust
from .refusals import KeysUnavailable

#: Seconds for one document, name look-up, handshake and all: a client waits for it.
TIMEOUT = 3.0
#: Bytes of one answer: a key takes one or two thousand.
LARGEST = 1_048_576
_SENDABLE = re.compile(r"[!-~]+", re.ASCII)


async def get_json(url: str, *, timeout: float = TIMEOUT, largest: int = LARGEST) -> Any:
    """What the document at ``url`` says; raises ``KeysUnavailable``."""
    try:
        async with asyncio.timeout(timeout):
            body = await _get(url, timeout, largest)
    except TimeoutError:
        raise KeysUnavailable(f"{url} did not answer within {timeout:g} s") from None
    except (OSError, UnicodeError) as error:
        raise KeysUnavailable(f"{url} cannot be reached: {type(error).__name__}") from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise KeysUnavailable(f"{url} answers with something that is no JSON") from None


async def _get(url: str, timeout: float, largest: int) -> bytes:
    target = urlsplit(url)
    if not _SENDABLE.fullmatch(url) or target.hostname is None:
        raise KeysUnavailable("the URL of the keys is none that can be asked")
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    lines = (f"GET {path} HTTP/1.1", f"Host: {target.netloc}", "Accept: application/json", "Connection: close")
    request = "".join(f"{line}\r\n" for line in (*lines, "Accept-Encoding: identity", "")).encode()
    endpoint = Endpoint.of(url, _tls(url))
    document = await open_socket(endpoint, lambda: _Document(url, largest), timeout, _NoPool())
    try:
        document.transport.write(request)
        return await document.whole
    finally:
        document.transport.abort()


def _tls(url: str) -> ssl.SSLContext | None:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    return _trust(certificate_authorities(url, bundle), bool(bundle)) if url.startswith("https:") else None


@lru_cache(maxsize=4)
def _trust(ca_file: str | None, is_bundle: bool) -> ssl.SSLContext:  # noqa: FBT001 - lru_cache keys it
    """The authorities to trust; reading the system's takes 40 ms."""
    return trust(ca_file, falls_back=ca_file is not None and not is_bundle)


class _NoPool:
    """Holds no socket to give back, and waits for no descriptor."""

    loop: asyncio.AbstractEventLoop | None = None
    serving = True

    def give_back(self) -> int:
        """Nothing to close."""
        return 0


class _Document(asyncio.Protocol):
    """One answer: ``whole`` is its body."""

    def __init__(self, url: str, largest: int) -> None:
        self.whole: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._url = url
        self._left = largest
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)
        self._ends_with_the_socket = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the connection is open, TLS included."""
        # uvloop's transports do what asyncio's do without descending from them.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._left -= len(data)
        if self._left < 0:
            self._fail("answers with more than we read")
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail("answers with something that is no HTTP/1.1")

    def on_headers_complete(self) -> None:
        """Called by the parser: an answer that gives no length ends with the socket."""
        status = self._parser.get_status_code()
        self._ends_with_the_socket = status == 200
        if status >= 200 and status != 200:
            self._fail(f"answers with status {status}")

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser at the end of each answer, of which a 1xx is none."""
        if self._parser.get_status_code() >= 200:
            self._succeed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop: JSON that was cut off is no JSON."""
        if self._ends_with_the_socket and exc is None:
            self._succeed()
        self._fail("closes the connection before its answer is whole")

    def _succeed(self) -> None:
        if not self.whole.done():
            self.whole.set_result(bytes(self._body))

    def _fail(self, reason: str) -> None:
        if not self.whole.done():
            self.whole.set_exception(KeysUnavailable(f"{self._url} {reason}"))
            # Whoever was to read it may have been cut off.
            self.whole.exception()
