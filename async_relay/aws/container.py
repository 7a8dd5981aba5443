"""Credentials from the container endpoint, which Lambda names in place of keys for a restored snapshot (SnapStart).

The SDK can read it too, but takes some hundred milliseconds to load, which is what the snapshot was to save.

Rules
- Where there is an endpoint that we may ask, ``environment.container`` says, each time: a restored sandbox may find
  another one than the sandbox that was snapshotted.
- One GET, with the token as its header Authorization, on a socket of its own, tried once and given two seconds.
- The credentials are kept until 15 minutes before their end: a broadcast signs with those it began with. New ones
  are then asked for, twice a minute at most; where none come, the old ones serve to their end.
- One caller asks, and all who come meanwhile wait for the answer. If that caller is cancelled, the next one asks.
- Where no good credentials are left, the SDK finds them, and goes on finding them: it is loaded by then, and has
  retries of its own.
- Nothing of an answer is logged or put into an error: one that refuses may quote the token.

Source: AWS SDKs and Tools Reference Guide, "Container credential provider". The two seconds and the fifteen minutes
are botocore's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from math import inf
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import PostError
from ..http.opening import Endpoint
from ..http.pool import SignedPool
from ..http.sigv4 import Credentials
from . import environment
from .calls import Call

_log = logging.getLogger("async_relay")

# Seconds for the socket, the request and the whole answer.
_TIMEOUT = 2.0
# Seconds before the end of credentials at which new ones are asked for: as long as a Lambda may run (Lambda quotas).
_EARLY = 900.0
# Seconds between two requests where the credentials at hand are good, but end soon.
_PAUSE = 30.0
_FIELDS = ("AccessKeyId", "SecretAccessKey", "Token", "Expiration")
# What becomes part of a header must not begin another one.
_VISIBLE = re.compile(r"[!-~]+").fullmatch


class _Held(NamedTuple):
    """What came of asking ``source``: it is asked again from ``ask_at`` on, which is at ``expires`` or before it.

    Times are seconds since 1970. Without ``credentials`` the SDK finds them, and the source is never asked again.
    """

    source: environment.Container
    credentials: Credentials | None
    expires: float
    ask_at: float


class ContainerCredentials:
    """Asks the container endpoint of the environment, and keeps what it hands out."""

    def __init__(self, environ: Mapping[str, str], wall_clock: Callable[[], float] = time.time) -> None:
        self._environ = environ
        self._wall_clock = wall_clock
        self._held: _Held | None = None
        self._asks = asyncio.Lock()

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<credentials of {self._held.source.url if self._held else 'no container so far'}>"

    async def current(self) -> Credentials | None:
        """The credentials; None where there is no endpoint that we may ask, or it gives none that are good."""
        source = environment.container(self._environ)
        if source is None:
            return None
        held = self._fresh(source)
        if held is None:
            async with self._asks:
                held = self._fresh(source) or await self._ask(source)
        return held.credentials

    def _fresh(self, source: environment.Container) -> _Held | None:
        """What is held of the source; None where it must be asked."""
        held = self._held
        return held if held is not None and held.source == source and self._wall_clock() < held.ask_at else None

    async def _ask(self, source: environment.Container) -> _Held:
        before = self._held
        self._held = await self._asked(source)
        now = self._wall_clock()
        if self._held is None and before is not None and before.source == source and before.expires > now:
            _log.warning("the credentials at hand are used on, for %d s at most", before.expires - now)
            self._held = before._replace(ask_at=min(before.expires, now + _PAUSE))
        elif self._held is None:
            _log.warning("credentials are left to the SDK")
            self._held = _Held(source, None, inf, inf)
        return self._held

    async def _asked(self, source: environment.Container) -> _Held | None:
        """What the source hands out; None, after a line in the log, where that is nothing good."""
        call = Call("GET")
        error = await _get(source, call)
        if error is not None:
            _log.warning("the container endpoint gives no credentials: %s", error.reason)
            return None
        found = _read(call.content)
        now = self._wall_clock()
        if found is None or found[1] <= now:
            _log.warning("the container endpoint gives credentials that %s", "have expired" if found else "are none")
            return None
        credentials, expires = found
        return _Held(source, credentials, expires, min(expires, max(expires - _EARLY, now + _PAUSE)))


class _Documents:
    """The requests of a pool that signs nothing: each asks for the document at the pool's URL."""

    #: Bytes: credentials take some 2,000.
    most_read = most_kept = 65_536

    def __init__(self, source: environment.Container) -> None:
        parts = urlsplit(source.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        authorization = "" if source.token is None else f"Authorization: {source.token}\r\n"
        lines = f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n{authorization}\r\n"
        self._request = lines.encode()

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Nothing is signed."""

    def request(self, _recipient: Call, _body: bytes, _digest: str) -> bytes:
        """The bytes of the request."""
        return self._request

    def accept(self, recipient: Call, body: bytes) -> PostError | None:
        """See ``Call.read``."""
        recipient.read(body)
        return None


async def _get(source: environment.Container, call: Call) -> PostError | None:
    """Ask for the document, into ``call``; returns what went wrong."""
    where = Endpoint.of(source.url, None)
    pool = SignedPool(where, _Documents(source), credentials=_no_credentials, max_sockets=1, timeout=_TIMEOUT)
    await pool.begin()
    try:
        pool.send(call, b"", "", Call.settle)
        return await call.answer
    finally:
        await pool.close()


async def _no_credentials() -> Credentials:
    return Credentials("", "")


def _read(content: Any) -> tuple[Credentials, float] | None:
    """The credentials of an answer, and when they end; None where any field is not as it must be."""
    fields = [content.get(name) for name in _FIELDS]
    if not all(isinstance(each, str) and _VISIBLE(each) for each in fields):
        return None
    access_key, secret_key, token, expiration = fields
    try:
        expires = datetime.fromisoformat(expiration)
    except ValueError:
        return None
    return (Credentials(access_key, secret_key, token), expires.timestamp()) if expires.tzinfo else None
