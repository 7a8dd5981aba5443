"""Dashboards: real WebSocket clients of the deployed API, that note what they receive and when."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .errors import DemoError
from .ledger import Ledger

_HANDSHAKES_AT_ONCE = 8


class Dashboard:
    """One client."""

    def __init__(self, name: str, socket: ClientConnection, ledger: Ledger) -> None:
        self.name = name
        self._socket = socket
        self._reading = asyncio.create_task(self._read(ledger))

    async def _read(self, ledger: Ledger) -> None:
        with suppress(ConnectionClosed):  # however it ends: the verdict says what is missing
            async for frame in self._socket:
                ledger.got(self.name, json.loads(frame), time.perf_counter())

    async def leave(self) -> None:
        """Say goodbye, as a browser does when its tab is closed."""
        await self._socket.close()
        await asyncio.wait([self._reading])

    async def die(self) -> None:
        """Drop dead, as a laptop does whose lid is closed."""
        self._socket.transport.abort()
        await asyncio.wait([self._reading])


class Crowd:
    """The dashboards that are connected, by name."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self._url = url
        self._ledger = ledger
        self._handshakes = asyncio.Semaphore(_HANDSHAKES_AT_ONCE)
        self.present: dict[str, Dashboard] = {}

    async def join(self, name: str) -> None:
        """Connect one more."""
        try:
            async with self._handshakes:
                socket = await connect(f"{self._url}?clientId={name}", proxy=None, open_timeout=30, compression=None)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise DemoError(f"{name} could not connect to {self._url}: {error}") from error
        self.present[name] = Dashboard(name, socket, self._ledger)

    async def leave(self, name: str) -> None:
        """Disconnect one properly."""
        await self.present.pop(name).leave()

    async def die(self, name: str) -> None:
        """Cut one off."""
        await self.present.pop(name).die()


@asynccontextmanager
async def crowd(url: str, size: int, ledger: Ledger) -> AsyncIterator[Crowd]:
    """``size`` dashboards, named in order; those still there at the end leave."""
    members = Crowd(url, ledger)
    try:
        await asyncio.gather(*(members.join(f"dashboard-{number:02d}") for number in range(1, size + 1)))
        members.present = dict(sorted(members.present.items()))
        yield members
    finally:
        await asyncio.gather(*map(members.leave, list(members.present)))
