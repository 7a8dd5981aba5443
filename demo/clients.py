"""Dashboards: real WebSocket clients of the deployed API, that note what they receive and when.

Each has a token of its own. In turn they may have everybody's messages, the first tenant's, the second's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from itertools import cycle

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from .door import address
from .errors import DemoError
from .feed import EVERY_TENANT, TENANTS
from .issuer import Issuer
from .ledger import Ledger

# The local AWS starts one more process for an authorizer that is asked while it is busy, and each takes seconds.
_HANDSHAKES_AT_ONCE = 1
# Two functions are started cold for the first one, on a machine that may be busy with more.
_HANDSHAKE_SECONDS = 90


class Dashboard:
    """One client."""

    def __init__(self, name: str, tenant: str, socket: ClientConnection, ledger: Ledger) -> None:
        self.name = name
        self.tenant = tenant
        self._socket = socket
        self._reading = asyncio.create_task(self._read(ledger))

    async def _read(self, ledger: Ledger) -> None:
        with suppress(ConnectionClosed):  # however it ends: the verdict says what is missing
            async for frame in self._socket:
                ledger.got(self.name, json.loads(frame), time.perf_counter())

    def may_have(self, tenant: str) -> bool:
        """Whether that tenant's messages are for it."""
        return self.tenant in (tenant, EVERY_TENANT)

    async def is_closed(self, within: float) -> bool:
        """Whether the other side closes the connection within so many seconds."""
        done, _ = await asyncio.wait([self._reading], timeout=within)
        return bool(done)

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

    def __init__(self, url: str, issuer: Issuer, ledger: Ledger) -> None:
        self._url = url
        self._issuer = issuer
        self._ledger = ledger
        self._handshakes = asyncio.Semaphore(_HANDSHAKES_AT_ONCE)
        self.present: dict[str, Dashboard] = {}

    async def join(self, name: str, tenant: str) -> None:
        """Connect one more."""
        self.present[name] = await self.visit(name, tenant)

    async def visit(self, name: str, tenant: str, *, seconds: int = 3_600) -> Dashboard:
        """Connect one that is not to be counted, with a token for so many seconds."""
        where = address(self._url, name, self._issuer.token(name, [tenant], seconds=seconds))
        try:
            async with self._handshakes:
                socket = await connect(where, proxy=None, open_timeout=_HANDSHAKE_SECONDS, compression=None)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise DemoError(f"{name} could not connect to {self._url}: {error}") from error
        return Dashboard(name, tenant, socket, self._ledger)

    def audience(self, tenant: str) -> Collection[str]:
        """Who of those present may have that tenant's messages."""
        return [name for name, dashboard in self.present.items() if dashboard.may_have(tenant)]

    async def leave(self, name: str) -> None:
        """Disconnect one properly."""
        await self.present.pop(name).leave()

    async def die(self, name: str) -> None:
        """Cut one off."""
        await self.present.pop(name).die()


@asynccontextmanager
async def joined(members: Crowd, size: int) -> AsyncIterator[None]:
    """``size`` dashboards, named in order; those still there at the end leave."""
    names = [f"dashboard-{number:02d}" for number in range(1, size + 1)]
    try:
        await asyncio.gather(*map(members.join, names, cycle((EVERY_TENANT, *TENANTS))))
        members.present = dict(sorted(members.present.items()))
        yield
    finally:
        await asyncio.gather(*map(members.leave, list(members.present)))
