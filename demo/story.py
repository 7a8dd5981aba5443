"""What happens where somebody watches: hours of incidents before, then a quiet base, bursts and attacks, in a loop.

It begins before the dashboards are connected, so that the page is full and alive as soon as it can be opened.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count, islice

from . import feed
from .feed import Change
from .ledger import Ledger
from .tables import Tables

INCIDENTS = 200
_BASE_SECONDS = 1.5
_QUIET_SECONDS = 15.0
_BURST = 24
_WAVE_SECONDS = 1.5
_NEXT_STATE_SECONDS = 2.0
_TOLD = 8


class Story:
    """Writes; ``told`` has what happened of late, in words, and ``tell`` hears of it too."""

    def __init__(self, tables: Tables, ledger: Ledger, audience: Callable[[str], Collection[str]], seed: int) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        self.told: deque[tuple[str, str]] = deque(maxlen=_TOLD)
        self._tables = tables
        self._ledger = ledger
        self._audience = audience
        self._chance = random.Random(seed)
        self._seed = seed
        self._clock = feed.Clock()
        self._ids = feed.numbers(seed)
        self._changes = feed.changes(seed, self._clock, self._ids)
        self._one_at_a_time = asyncio.Lock()
        self._going_on: set[asyncio.Task[None]] = set()

    async def past(self) -> None:
        """Write what happened before anybody was there."""
        await self._tables.write_all(feed.history(self._seed, INCIDENTS, datetime.now(UTC), self._ids))

    async def burst(self, size: int = _BURST) -> None:
        """Write many changes at once."""
        # Two states of one incident must not overtake each other on their way to the table.
        async with self._one_at_a_time:
            for change in islice(self._changes, size):
                await self._write(change)

    async def incident(self) -> str:
        """Write a CRITICAL incident now, and what becomes of it in the next seconds; its id."""
        story = feed.one(self._chance.getrandbits(32), self._clock, self._ids)
        first = next(story)
        await self._write(first)
        going_on = asyncio.create_task(self._go_on(story))
        self._going_on.add(going_on)
        going_on.add_done_callback(self._going_on.discard)
        return first.marker.subject

    def say(self, words: str) -> None:
        """Tell whoever listens."""
        self.told.append((datetime.now(UTC).isoformat(timespec="seconds"), words))
        self.tell(words)

    async def _go_on(self, story: Iterator[Change]) -> None:
        for change in story:
            await asyncio.sleep(_NEXT_STATE_SECONDS)
            await self._write(change)

    async def _write(self, change: Change) -> None:
        self._ledger.wrote(change, self._audience(change.tenant), time.perf_counter())
        await self._tables.write(change)

    async def _play(self) -> None:
        await asyncio.gather(self._base(), self._events())

    async def _base(self) -> None:
        while True:
            await self.burst(1)
            await asyncio.sleep(self._chance.expovariate(1 / _BASE_SECONDS))

    async def _events(self) -> None:
        for number in count(self._seed):
            await asyncio.sleep(_QUIET_SECONDS)
            self.say(f"A burst: {_BURST} changes at once")
            await self.burst()
            await asyncio.sleep(_QUIET_SECONDS)
            self.say("An attack: a key has leaked, and its thief is everywhere; watch the automatic responses")
            for wave in feed.attack(number, self._clock, self._ids):
                await asyncio.gather(*map(self._write, wave))
                await asyncio.sleep(_WAVE_SECONDS)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[asyncio.Future[None]]:
        """Play for as long as the block lasts; what it yields ends with an error or never."""
        playing = asyncio.ensure_future(self._play())
        try:
            yield playing
        finally:
            tasks = [playing, *self._going_on]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
