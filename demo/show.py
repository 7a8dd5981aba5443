"""Plays the demo on a deployed stack: one full round, or until it is stopped.

The round
1. Every dashboard is connected; one change starts the function, then changes are written in a burst.
2. One dashboard leaves and one drops dead: ``$disconnect`` takes their rows out of the table. The
   dead one's row is put back, as if its ``$disconnect`` had never come: the relay must find that
   nobody is there (410) and take it out.
3. One item is deleted, which nobody may hear of; then changes are written with pauses.
4. The verdict: every message at every dashboard that was there, once, in order; the rows gone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from . import page
from .clients import Crowd
from .feed import Change
from .ledger import Ledger
from .tables import Tables
from .verdict import complaints

BURST, PACED = 24, 24
_PAUSE_SECONDS = 0.15
_PATIENCE_SECONDS = 20.0
_LIVE_PAUSE_SECONDS = 0.8


@dataclass(slots=True)
class Show:
    """What it takes to play; ``tell`` hears of each thing that happens, in words."""

    feed: Iterator[Change]
    tables: Tables
    crowd: Crowd
    ledger: Ledger
    tell: Callable[[str], None]

    async def one_round(self) -> list[str]:
        """Play the round; its complaints."""
        changed = await self._first_change()
        self.tell(f"{BURST} changes follow in one burst")
        await self._write_all(BURST, 0)
        if not await self._settled():
            return complaints(self.ledger)
        problems = await self._lose_two()
        await self.tables.remove(changed)
        self.tell(f"One item deleted, which nobody may hear of; {PACED} changes follow, one after the other")
        await self._write_all(PACED, _PAUSE_SECONDS)
        await self._settled()
        return problems + await self._misplaced_rows() + complaints(self.ledger)

    async def until_stopped(self) -> None:
        """Write changes for as long as somebody watches."""
        await self._first_change()
        self.tell("Changes follow until Ctrl-C")
        while True:
            await self._write_all(1, _LIVE_PAUSE_SECONDS)

    async def _first_change(self) -> Change:
        """The one that starts the function cold: the others wait for it, or their times would say little."""
        self.tell(f"{len(self.crowd.present)} dashboards are connected; the first change starts the function cold")
        await self._write_all(1, 0)
        await self._settled()
        return self.ledger.writes[0].change

    async def _write_all(self, count: int, pause: float) -> None:
        for change in islice(self.feed, count):
            self.ledger.wrote(change, self.crowd.present, time.perf_counter())
            await self.tables.write(change)
            await asyncio.sleep(pause)

    async def _settled(self) -> bool:
        """Wait until everybody has everything; False where something never comes."""

        async def complete() -> bool:
            return self.ledger.complete

        return await _until(complete)

    async def _lose_two(self) -> list[str]:
        *_, dead, leaving = self.crowd.present
        rows = await self.tables.connections()
        await self.crowd.leave(leaving)
        await self.crowd.die(dead)
        self.tell(f"{leaving} left, {dead} dropped dead")
        problems = await self._misplaced_rows()
        if dead in rows:
            await self.tables.restore(rows[dead])
            self.tell(f"{dead}'s row is back, as if its $disconnect had never come")
        return problems

    async def _misplaced_rows(self) -> list[str]:
        """Who is in the connections table and not connected, or the other way round."""
        present, rows = set(self.crowd.present), set[str]()

        async def settled() -> bool:
            nonlocal rows
            rows = {name for name in await self.tables.connections() if name != page.CLIENT_ID}
            return rows == present

        if await _until(settled):
            self.tell(f"The connections table has {len(rows)} rows, one for each dashboard connected")
            return []
        return [f"{name} is gone but still in the connections table" for name in sorted(rows - present)] + [
            f"{name} is connected but not in the connections table" for name in sorted(present - rows)
        ]


async def _until(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Wait for ``condition``; False where patience ran out."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True
