"""A TCP connection to the first of a host's addresses that answers ("Happy Eyeballs", RFC 8305).

Rules
- Addresses are tried in the resolver's order, with the address families taking turns. Each address has a head
  start of a quarter of a second over the next, or less if it fails sooner. So a dead address costs that much
  and not the whole timeout.
- The first connection wins; all other attempts are closed, also when the caller is cancelled.

This is our own because uvloop's ``create_connection`` has no ``happy_eyeballs_delay``: it waits for one address
to fail before it tries the next.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection, Iterable, Sequence
from errno import EMFILE
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
    """Connect a non-blocking socket; raises ``OSError`` with the failure of each address."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        if isinstance(error, socket.gaierror):
            raise
        # EAI_SYSTEM (RFC 3493, section 6.1). Without a descriptor its errno is any, and one may be free again by now.
        raise OSError(EMFILE, f"{host} cannot be looked up: {error}") from error
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
    """Wait until an attempt ends, and remove it from ``attempts``; returns its socket, if it succeeded."""
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
