"""Opens one socket to an endpoint: TCP, TLS, and another try where no file descriptor is left.

Rules
- While a pool has other sockets, a missing descriptor is an error like any other: posts go on over those.
- A certificate that Amazon's roots do not vouch for is checked once more, against the system's CAs (``tls``).
- A pool without a socket has the idle sockets of every pool of its loop closed, and tries again until its
  timeout, since all pools share the process's descriptors.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from socket import gaierror
from typing import Protocol, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet

from .descriptors import exhausted, lacks_descriptors
from .dialling import TcpSocket, dial
from .tls import context_for, fallback, replace_for

_log = logging.getLogger("async_relay")

P = TypeVar("P", bound=asyncio.BaseProtocol)

# Seconds until sockets that were aborted have given their descriptors back: some turns of the loop, more under TLS.
_CLOSING = 0.01
# Without a descriptor the resolver knows no name, and one may be free again by the time we look. So many look-ups: a
# wrong name is told some hundredths of a second later.
_LOOK_UPS = 5
_HTTPS_PORT, _HTTP_PORT = 443, 80


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL taken apart; ``tls`` is None for plain HTTP, ``path`` has no slash at its end."""

    host: str
    port: int
    netloc: str
    path: str
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, tls: ssl.SSLContext | None) -> Endpoint:
        """The endpoint at ``url``; plain HTTP ignores ``tls``."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        port = parts.port or (_HTTPS_PORT if secure else _HTTP_PORT)
        return cls(parts.hostname, port, parts.netloc, parts.path.rstrip("/"), tls if secure else None)


class Holder(Protocol):
    """A pool, as a holder of file descriptors."""

    loop: asyncio.AbstractEventLoop | None

    @property
    def serving(self) -> bool:
        """Whether it has a socket, busy or idle."""

    def give_back(self) -> int:
        """Close the idle sockets; returns how many."""


#: Every pool of the process.
holders: WeakSet[Holder] = WeakSet()


async def open_socket(endpoint: Endpoint, make: Callable[[], P], timeout: float, holder: Holder) -> P:
    """A connection to ``endpoint``, served by ``make()``; raises ``OSError``.

    The caller bounds the time. ``timeout`` (s) ends a TLS handshake that was cancelled, which otherwise holds its
    300 KB for asyncio's default of a minute.
    """
    context = context_for(endpoint.tls, endpoint.host)
    try:
        return await _open(replace(endpoint, tls=context), make(), timeout, holder)
    except ssl.SSLCertVerificationError as error:
        wider = await asyncio.to_thread(fallback, context, error)
        if wider is None:
            raise
        opened = await _open(replace(endpoint, tls=wider), make(), timeout, holder)
        if replace_for(endpoint.host, context, wider):
            _log.error(
                "Amazon's roots do not vouch for %s; the system's CAs do, and are trusted: %s", endpoint.host, error
            )
        return opened


async def _open(endpoint: Endpoint, protocol: P, timeout: float, holder: Holder) -> P:
    connection = await _dial(endpoint, holder)
    try:
        await asyncio.get_running_loop().create_connection(
            lambda: protocol,
            sock=connection,
            ssl=endpoint.tls,
            server_hostname=endpoint.host if endpoint.tls else None,
            ssl_handshake_timeout=timeout if endpoint.tls else None,
        )
    except BaseException:
        # Cancelled just as the handshake ended, uvloop would take leave of the server in the background.
        if (transport := getattr(protocol, "transport", None)) is not None:
            transport.abort()
        raise
    return protocol


async def _dial(endpoint: Endpoint, holder: Holder) -> TcpSocket:
    loop = asyncio.get_running_loop()
    unknown = 0
    while True:
        try:
            return await dial(endpoint.host, endpoint.port)
        except OSError as error:
            unknown += isinstance(error, gaierror)
            lacking = lacks_descriptors(error) or exhausted()
            if holder.serving or not (lacking or 0 < unknown < _LOOK_UPS):
                raise
        if lacking and (given_back := sum(each.give_back() for each in tuple(holders) if each.loop is loop)):
            _log.warning("no file descriptor is left for %s: %d idle sockets are closed", endpoint.netloc, given_back)
        await asyncio.sleep(_CLOSING)
