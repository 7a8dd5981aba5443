"""A TCP connection to the first of a host's addresses that answers ("Happy Eyeballs", RFC 8305).

Rules
- Addresses are tried in the resolver's order, but the families in turn; each has a head start of a quarter of
  a second, less if it fails sooner, so an address that is dead costs that and not the whole timeout.
- The first connection wins; all others are closed, however this ends.

uvloop's ``create_connection`` tries one address after the other, each to its end, and has no
``happy_eyeballs_delay``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any, NamedTuple

from .descriptors import lacks_descriptors

TcpSocket = socket.socket

# Seconds, as RFC 8305 recommends ("Connection Attempt Delay").
_HEAD_START = 0.25


class _Address(NamedTuple):
    family: int
    type: int
    proto: int
    canonical_name: str
    address: Any


async def dial(host: str, port: int) -> socket.socket:
    """A connected socket that does not block; raises ``OSError`` with what each address came to."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _families_in_turn(_Address(*each) for each in found)
    return await (_attempt(addresses[0]) if len(addresses) == 1 else _race(addresses))


async def _race(addresses: Sequence[_Address]) -> socket.socket:
    loop = asyncio.get_running_loop()
    attempts: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    winner: socket.socket | None = None
    try:
        for address in addresses:
            attempts.add(loop.create_task(_attempt(address)))
            winner = await _first(attempts, failures, _HEAD_START)
            if winner is not None:
                break
        while attempts and winner is None:
            winner = await _first(attempts, failures, None)
        await _close(attempts)
    except BaseException:
        if winner is not None:
            winner.close()
        await _close(attempts)
        raise
    if winner is None:
        for failure in filter(lacks_descriptors, failures):
            raise failure
        raise OSError("; ".join(dict.fromkeys(map(str, failures))) or "the name has no address")
    return winner


async def _first(
    attempts: set[asyncio.Task[socket.socket]], failures: list[OSError], seconds: float | None
) -> socket.socket | None:
    """Wait for an attempt to end; the socket of one that succeeded. Those that ended are attempts no more."""
    done, _ = await asyncio.wait(attempts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for attempt in done:
        attempts.remove(attempt)
        try:
            return attempt.result()
        except OSError as error:
            failures.append(error)
    return None


async def _attempt(address: _Address) -> socket.socket:
    connection = socket.socket(address.family, address.type, address.proto)
    try:
        connection.settimeout(0)
        await asyncio.get_running_loop().sock_connect(connection, address.address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _close(attempts: Collection[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for late in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(late, socket.socket):
            late.close()


def _families_in_turn(addresses: Iterable[_Address]) -> list[_Address]:
    families: dict[int, list[_Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    return [each for each in chain.from_iterable(zip_longest(*families.values())) if each is not None]
