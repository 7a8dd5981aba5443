"""A sandbox's copy of the recent feed: what one client's question has read serves the next client's too.

Rules
- The copy is one piece: every entry from ``since`` on that was in the feed when the last look at it began, at
  ``bound``. A look reads the newest entries first, down to those that cannot change any more.
- A look that began after a client's row was written finds what the client does not get live: whoever publishes reads
  the rows after writing the feed. So a look serves the clients whose rows are older than it, for a second.
- A look reads until a time it is given, and at least a page. Where that is not all, the copy begins anew: a sandbox
  that slept would otherwise read for longer than anybody waits, again and again.
- The copy grows back only as far as somebody asks, and to three quarters of its room, so that a full one is not read
  again and again. A full one forgets its oldest entries; what is older is read from the feed page by page.

``SETTLED_SECONDS`` and the times of positions are explained in ``wire.feed``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..delivery.protocols import Feed
from ..errors import StoreUnavailable
from ..wire.feed import SETTLED_SECONDS, FeedEntry, FeedPage, position_at
from ..wire.messages import compact_json
from .kept import Kept, Labels
from .lateness import came_before

_log = logging.getLogger("async_relay")

#: Bytes of the copy, as ``KeptEntry.size`` counts them.
ROOM = 32 * 1024 * 1024
# Seconds for which a look serves clients that came before it.
_FRESH = 1.0
# Seconds: entries this much older than a look are all in it; clocks may differ by what is more than settling takes.
_UNSETTLED = SETTLED_SECONDS + 5.0
# Seconds that a publishing clock may be ahead; more than anybody's is.
_AHEAD = 3600.0
# Seconds that entries stay in the table beyond FEED_HOURS, so that what precedes the last of them is there.
_BEYOND = 3600.0
# Bytes that Python takes for an entry beside its messages.
_PER_ENTRY = 300

_position = attrgetter("position")


@dataclass(frozen=True, slots=True)
class KeptEntry:
    """An entry of the feed; its ``size`` is about what it takes of memory."""

    bucket: str
    position: str
    messages: tuple[Kept, ...]
    size: int


class FeedCopy:
    """The newest entries of the feed; every method that reads raises ``StoreUnavailable``."""

    def __init__(
        self,
        open_feed: Callable[[], Awaitable[Feed | None]],
        clock: Callable[[], float],
        hours: float,
        *,
        room: int = ROOM,
    ) -> None:
        """``clock`` gives seconds since 1970, ``hours`` is FEED_HOURS, ``room`` how many bytes are kept."""
        self._open_feed = open_feed
        self._clock = clock
        self._hours = hours
        self._room = room
        self._feed: Feed | None = None
        self._looks = asyncio.Lock()
        self._began: float | None = None
        self._begun = self._done = 0
        self._since = ""
        self._size = 0
        self._entries: list[KeptEntry] = []
        self._labels = Labels()

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._entries)} entries of some {self._size:,} bytes>"

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._size

    @property
    def bound(self) -> str:
        """The position at which the last look began; nothing later is promised to be in the copy."""
        return _at(self._began or 0.0)

    @property
    def since(self) -> str:
        """Every entry from here on is in the copy."""
        return self._since

    @property
    def oldest(self) -> str:
        """What is published before this may be gone from the feed."""
        return _at(self._clock() - self._hours * 3600 - _BEYOND)

    def covers(self, after: str) -> bool:
        """Whether everything behind this position is in the copy."""
        return self._began is not None and self._since <= _next(after)

    def after(self, position: str) -> Sequence[KeptEntry]:
        """The entries behind this position, in order."""
        return self._entries[bisect_left(self._entries, _next(position), key=_position) :]

    def newest_first(self, before: str) -> Iterator[KeptEntry]:
        """The entries before this position."""
        return reversed(self._entries[: bisect_left(self._entries, before, key=_position)])

    async def look(self, created_at: int | None, until: float = math.inf) -> None:
        """See to it that everything is there that a client does not get live whose row is from ``created_at`` (ms).

        What can be read later is read until then of the loop's clock.
        """
        begun = self._begun
        async with self._looks:
            # A look that began since the question is after the row, whoever wrote it and whatever the time was.
            if self._done <= begun and not self._serves(created_at):
                await self._look(until)

    def _serves(self, created_at: int | None) -> bool:
        """Whether the last look is fresh, and began when the row was there."""
        if self._began is None or not 0 <= self._clock() - self._began <= _FRESH:
            return False
        return came_before(created_at, self._began)

    async def _look(self, until: float) -> None:
        self._begun += 1
        began, number = self._clock(), self._begun
        joins = self.oldest if self._began is None else max(self.oldest, _at(self._began - _UNSETTLED))
        before = _at(began + _AHEAD)
        found: list[KeptEntry] = []
        while True:
            page = await self._read(joins, before, newest_first=True)
            found += self._keep(page.entries)
            if not page.more:
                break
            before = page.entries[-1].position
            late = asyncio.get_running_loop().time() >= until
            if self._began is None or late or sum(each.size for each in found) > self._room * 3 / 4:
                break
        if page.more:
            self._entries, self._since, self._size = [], before, 0
        elif self._began is None:
            self._since = _next(joins)
        self._began, self._done = began, number
        self._merge(found)
        self._forget()

    async def reach(self, after: str) -> bool:
        """Read a page more of what is behind this position, unless the copy has it or is full; whether that helped."""
        async with self._looks:
            if self._began is None or self.covers(after) or self._size > self._room * 3 / 4:
                return False
            since, oldest = self._since, self.oldest
            # A whole page: the next to ask wants a little more.
            page = await self._read(oldest, since, newest_first=True)
            self._since = page.entries[-1].position if page.more else _next(oldest)
            self._merge(self._keep(page.entries))
            self._forget()
            return self._since < since

    async def read(self, after: str, before: str) -> tuple[Sequence[KeptEntry], bool]:
        """A page of the feed itself, and whether there is more of it."""
        page = await self._read(after, before, newest_first=False)
        return self._keep(page.entries), page.more

    async def _read(self, after: str, before: str, *, newest_first: bool) -> FeedPage:
        if self._feed is None:
            self._feed = await self._open_feed()
            if self._feed is None:
                raise StoreUnavailable("there is no feed")
        if before <= _next(after):
            return FeedPage((), more=False)
        return await self._feed.read(after, before, newest_first=newest_first)

    def _merge(self, found: Sequence[KeptEntry]) -> None:
        """Put entries to those that are there; an entry that is there already stays."""
        if not found:
            return
        first = bisect_left(self._entries, min(each.position for each in found), key=_position)
        known = {(each.position, each.bucket): each for each in self._entries[first:]}
        new = [each for each in found if (each.position, each.bucket) not in known]
        known |= {(each.position, each.bucket): each for each in new}
        self._entries[first:] = [known[key] for key in sorted(known)]
        self._size += sum(each.size for each in new)

    def _forget(self) -> None:
        """Let go of what is too old, and of the oldest where there is no room."""
        stays = bisect_left(self._entries, self.oldest, key=_position)
        excess = self._size - sum(each.size for each in self._entries[:stays]) - self._room
        while stays < len(self._entries) and excess > 0:
            excess -= self._entries[stays].size
            stays += 1
        # Entries of one position stay or go together: the copy begins at a position.
        while 0 < stays < len(self._entries) and self._entries[stays].position == self._entries[stays - 1].position:
            stays += 1
        if stays:
            self._since = max(self._since, _next(self._entries[stays - 1].position))
            self._size -= sum(each.size for each in self._entries[:stays])
            del self._entries[:stays]

    def _keep(self, entries: Sequence[FeedEntry]) -> list[KeptEntry]:
        return [self._kept(each) for each in entries]

    def _kept(self, entry: FeedEntry) -> KeptEntry:
        try:
            messages = tuple(self._kept_message(payload) for payload in entry.payloads)
        except (ValueError, RecursionError):
            # Nobody of ours wrote it. One entry must not keep all clients from all others.
            _log.error("the entry %s of bucket %s of the feed cannot be sent", entry.position, entry.bucket)
            messages = ()
        return KeptEntry(entry.bucket, entry.position, messages, sum(each.size for each in messages) + _PER_ENTRY)

    def _kept_message(self, payload: Mapping[str, Any]) -> Kept:
        event_id = payload.get("event_id")
        named = event_id if isinstance(event_id, str) else ""
        return Kept(compact_json(payload), self._labels.of(payload), named, _state_of(payload))


def _at(seconds: float) -> str:
    return position_at(int(seconds * 1000))


def _next(position: str) -> str:
    """The text that follows a position: every later position is behind it, since all have one length."""
    return position + "0"


def _state_of(payload: Mapping[str, Any]) -> bytes | None:
    """The incident and the tenant, as ``wire.incidents`` tells states apart; None where it is no state."""
    incident_id = payload.get("incident_id")
    if payload.get("kind") != "incident_update" or incident_id is None or incident_id in ("", [], {}):
        return None
    return compact_json([incident_id, payload.get("tenant")])
