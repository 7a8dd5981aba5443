"""Plays what is checked on a deployed stack: one full round, or a soak.

The round
1. Every dashboard is connected, and a visitor whose token lasts for seconds. Strangers knock, without a token, with one
   that has expired and with one that somebody else signed: all are refused.
2. Once the visitor's token has ended one change starts the function, which sends the visitor nothing and closes its
   connection. Then changes are written in a burst. From here on a client of the library is cut every few seconds, and
   another one never is.
3. One dashboard leaves and one drops dead: ``$disconnect`` takes their rows out of the table. The
   dead one's row is put back, as if its ``$disconnect`` had never come: the relay must find that
   nobody is there (410) and take it out.
4. One item is deleted, which nobody may hear of; then changes are written with pauses.
5. The verdict: every message at every dashboard that was there and may have its tenant's, once, in order, and at no
   other; the rows gone; and the client that was cut has the same picture as the one that never was.

The soak: changes for as long as one says, in bursts and one by one, to dashboards and to more clients that are cut; and
the same verdict.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from . import page
from .clients import Crowd, Dashboard
from .comparison import Comparison
from .feed import EVERY_TENANT, TENANTS, Change
from .ledger import Ledger
from .tables import Tables
from .verdict import complaints

BURST, PACED = 24, 24
_PAUSE_SECONDS = 0.15
_PATIENCE_SECONDS = 20.0
_LIVE_PAUSE_SECONDS = 0.8
_LARGEST_BURST = 5
# Longer than a handshake takes, which is all the time the visitor needs.
_VISITOR, _VISIT_SECONDS = "visitor", 5


@dataclass(slots=True)
class Show:
    """What it takes to play; ``tell`` hears of each thing that happens, in words."""

    feed: Iterator[Change]
    tables: Tables
    crowd: Crowd
    comparison: Comparison
    ledger: Ledger
    tell: Callable[[str], None]
    knock: Callable[[Callable[[str], None]], Awaitable[list[str]]]
    chance: random.Random

    async def one_round(self) -> list[str]:
        """Play the round; its complaints."""
        visitor = await self.crowd.visit(_VISITOR, EVERY_TENANT, seconds=_VISIT_SECONDS)
        came_at = time.monotonic()
        problems = await self.knock(self.tell)
        await asyncio.sleep(came_at + _VISIT_SECONDS - time.monotonic())
        await self._first_change()
        problems += await self._has_outstayed(visitor)
        async with self.comparison.being_cut():
            problems += await self._many_changes()
        problems += complaints(self.ledger) + await self._compared()
        if not problems:
            self._tell_shares()
        return problems

    async def _many_changes(self) -> list[str]:
        """In a burst; then with pauses, when two dashboards are gone. Each time a client is cut, in any case."""
        self.tell(
            f"A client of the library is cut, as it will be every few seconds; {BURST} changes follow in one burst"
        )
        self.comparison.cut_all()
        await self._write_all(BURST, 0)
        if not await self._settled():
            return []  # the verdict says what is missing
        problems = await self._lose_two()
        await self.tables.remove(self._finished_change())
        self.tell(f"One item deleted, which nobody may hear of; {PACED} changes follow, one after the other")
        await self._write_all(PACED // 2, _PAUSE_SECONDS)
        self.comparison.cut_all()
        await self._write_all(PACED - PACED // 2, _PAUSE_SECONDS)
        await self._settled()
        return problems + await self._misplaced_rows()

    async def soak(self, seconds: float) -> list[str]:
        """Write changes for so long, while clients are cut; the complaints."""
        await self._first_change()
        self.tell(f"For {seconds:g} s changes follow, and clients are cut at random")
        until = time.monotonic() + seconds
        async with self.comparison.being_cut():
            self.comparison.cut_all()
            while time.monotonic() < until:
                await self._write_all(self.chance.randint(1, _LARGEST_BURST), 0)
                await asyncio.sleep(self.chance.expovariate(1 / _LIVE_PAUSE_SECONDS))
            await self._settled()
        return complaints(self.ledger) + await self._misplaced_rows() + await self._compared()

    async def _first_change(self) -> None:
        """The one that starts the function cold: the others wait for it, or their times would say little."""
        self.tell(f"{len(self.crowd.present)} dashboards are connected; the first change starts the function cold")
        await self._write_all(1, 0)
        await self._settled()

    def _finished_change(self) -> Change:
        """One whose item nothing follows: an update would bring a deleted one back, as a stump."""
        return next(write.change for write in self.ledger.writes if "incident_id" not in write.change.item)

    async def _write_all(self, count: int, pause: float) -> None:
        for change in islice(self.feed, count):
            self.ledger.wrote(change, self.crowd.audience(change.tenant), time.perf_counter())
            await self.tables.write(change)
            await asyncio.sleep(pause)

    async def _settled(self) -> bool:
        """Wait until everybody has everything; False where something never comes."""

        async def complete() -> bool:
            return self.ledger.complete

        return await _until(complete)

    async def _has_outstayed(self, visitor: Dashboard) -> list[str]:
        """Whether a visitor is disconnected, whose token has ended."""
        if await visitor.is_closed(_PATIENCE_SECONDS):
            self.tell(f"The {_VISITOR}'s token ended after {_VISIT_SECONDS} s: it got nothing, and was disconnected")
            return []
        await visitor.leave()
        return [f"the {_VISITOR} was not disconnected when its token ended"]

    async def _compared(self) -> list[str]:
        """Whether those that were cut have what the one has that never was."""
        problems = await self.comparison.complaints(self.ledger)
        if not problems:
            self.tell(self.comparison.in_one_sentence())
        return problems

    def _tell_shares(self) -> None:
        """Say who got whose."""
        counts = Counter(write.change.tenant for write in self.ledger.writes)
        shares = ", ".join(f"{counts[tenant]} changes were {tenant}'s" for tenant in TENANTS)
        self.tell(f"{shares}: each went to the dashboards of that tenant and of {EVERY_TENANT}, to no other")

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
        others = {page.CLIENT_ID, *self.comparison.names}

        async def settled() -> bool:
            nonlocal rows
            rows = {name for name in await self.tables.connections() if name not in others}
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
