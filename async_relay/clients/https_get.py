"""A JSON document by HTTPS from the issuer of tokens: bounded in time and size, whatever the other end does.

Rules
- Certificates are verified against the system's authorities, or those of ``AWS_CA_BUNDLE`` where it is set.
- No redirect is followed, no proxy asked and nothing unpacked: what is said there is said there, or not at all.
- Every failure is ``KeysUnavailable``.

aiohttp is there because the SDK needs it. It takes 250 ms of CPU to load, so only a first fetch loads it.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from functools import lru_cache
from typing import Any

from ..http.tls import trust
from .refusals import KeysUnavailable

#: Seconds for one document, name look-up, handshake and all: a client waits for it.
TIMEOUT = 3.0
#: Bytes of one answer: a key takes one or two thousand.
LARGEST = 1_048_576
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


async def get_json(url: str, *, timeout: float = TIMEOUT, largest: int = LARGEST) -> Any:
    """What the document at ``url`` says; raises ``KeysUnavailable``."""
    import aiohttp

    try:
        async with asyncio.timeout(timeout):
            body = await _get(url, largest)
    except TimeoutError:
        raise KeysUnavailable(f"{url} did not answer within {timeout:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # ValueError: a URL that cannot be asked. The error's text may quote what the other end said.
        raise KeysUnavailable(f"{url} cannot be read: {type(error).__name__}") from None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise KeysUnavailable(f"{url} answers with something that is no JSON") from None


async def _get(url: str, largest: int) -> bytes:
    import aiohttp

    # A thread reads the CAs, which takes 40 ms in which the loop would stand still.
    context = await asyncio.to_thread(_trust, os.environ.get("AWS_CA_BUNDLE")) if url.startswith("https:") else True
    async with (
        aiohttp.ClientSession(headers=_HEADERS, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(url, ssl=context, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise KeysUnavailable(f"{url} answers with status {answer.status}")
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > largest:
                raise KeysUnavailable(f"{url} answers with more than we read")
        return bytes(body)


@lru_cache(maxsize=1)
def _trust(ca_bundle: str | None) -> ssl.SSLContext:
    return trust(ca_bundle or None)
