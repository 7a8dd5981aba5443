"""The heartbeat: a ping to everybody, so that sockets stay open and quiet clients' positions do not age.

    {"type": "ping", "timestamp": ms, "position": P}      position: only where there is a feed

Rules
- It is a broadcast like any other, so rows of clients that are gone go, and who has expired is closed. But a ping is
  for everybody, whatever their tenants and interest.
- A ping that was not delivered is lost, since the next one says the same: nothing goes to the feed or to a queue, and
  no failure is anybody's but the log's.
- The table is read part by part, round and round, and a heartbeat goes on where the last one of its sandbox stopped.
  Clients that were read and had no turn come first in the next one. A new sandbox begins at a part chosen at random.
  So a table too large for one invocation has no tail that is never reached.
- While those left over are many, nothing more is read: they never pile up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from random import Random

from ..wire.feed import settled_at
from ..wire.jobs import Client, Cursor, Job, Shard
from ..wire.messages import Message
from ..wire.rows import Row
from .admission import Admission
from .broadcaster import Broadcaster
from .protocols import ConnectionStore, Page
from .report import Report

_log = logging.getLogger("async_relay")

#: A ping is everybody's; who has no row any more needs none.
FOR_EVERYBODY = Admission(needs_row=True, for_all=True)
# Parts of the table. With a share of the rate as small as 100 posts a second one of them may hold 5,000 clients and is
# still read to its end by a sandbox that beats only once; and each costs a small table one short Scan.
_PARTS = 64
# Clients left over from which on no more are read.
_MOST_LEFT = 1_000
# Seconds, or a quarter of the time where that is less, for the log and the metrics.
_LAST_WORDS = 0.3

EmitMetrics = Callable[[Mapping[str, float]], None]


class Round:
    """A connections table as one shard, read part by part from any part on; its other methods are the table's own."""

    def __init__(self, store: ConnectionStore, parts: int = _PARTS) -> None:
        self._store = store
        self.parts = parts

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{self._store!r} in {self.parts} parts>"

    def begin(self, part: int, key: Cursor | None = None) -> Cursor:
        """The cursor of a round from this part on, or from behind a key in it."""
        return {"part": part, "left": self.parts, "key": key}

    async def read(self, _shard: Shard, cursor: Cursor | None) -> Page:
        """The next page of the round."""
        part, left, key = (cursor or self.begin(0)).values()
        page = await self._store.read(Shard(part, self.parts), key)
        if page.cursor is not None:
            return Page(page.clients, {"part": part, "left": left, "key": page.cursor})
        following = {"part": (part + 1) % self.parts, "left": left - 1, "key": None}
        return Page(page.clients, following if left > 1 else None)

    async def count(self, enough: int) -> int:
        """How many rows there are."""
        return await self._store.count(enough)

    async def look_up(self, connection_ids: Sequence[str]) -> Mapping[str, Client]:
        """The clients of these rows."""
        return await self._store.look_up(connection_ids)

    async def put(self, row: Row) -> None:
        """Write a row."""
        await self._store.put(row)

    async def refresh(
        self, connection_id: str, principal: str, expires_at: int, tenants: frozenset[str] | None
    ) -> None:
        """Give a row a new end and new tenants."""
        await self._store.refresh(connection_id, principal, expires_at, tenants)

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows."""
        await self._store.delete(connection_ids)


class Heartbeat:
    """Pings everybody, and knows where the last one stopped."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        table: Round,
        *,
        wall_clock: Callable[[], float],
        random: Random,
        has_feed: bool,
        emit_metrics: EmitMetrics = lambda _figures: None,
    ) -> None:
        """``broadcaster`` reads ``table`` and admits ``FOR_EVERYBODY``; ``has_feed``: a ping has a position."""
        self._broadcaster = broadcaster
        self._table = table
        self._wall_clock = wall_clock
        self._has_feed = has_feed
        self._emit = emit_metrics
        self._next = table.begin(random.randrange(table.parts))
        self._left: tuple[Client, ...] = ()

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<goes on in part {self._next['part']} of {self._table.parts}, with {len(self._left)} left over>"

    async def beat(self, seconds: float) -> None:
        """Ping as many as can be pinged within ``seconds``; what does not succeed is in the log alone."""
        messages = (self._ping(),)
        jobs = [Job(messages, self._left)] if self._left else []
        if len(self._left) <= _MOST_LEFT:
            jobs.append(Job(messages, shard=Shard(), cursor=self._next))
        report = await self._broadcaster.broadcast(jobs, seconds - min(_LAST_WORDS, seconds / 4))
        figures = report.figures()
        _log.debug("heartbeat", extra=figures)
        if report.systemic is not None:
            _log.error("nobody can be pinged: %s", report.systemic)
        else:
            self._note(report)
        self._emit(figures)

    def _ping(self) -> Message:
        now = self._wall_clock()
        position = {"position": settled_at(now)} if self._has_feed else {}
        return Message.encode({"type": "ping", "timestamp": int(now * 1000)} | position)

    def _note(self, report: Report) -> None:
        """Keep who had no turn, and where to go on."""
        self._left = tuple(
            each.client for outcome in report.outcomes for each in outcome.undelivered if each.error is None
        )
        for outcome in report.outcomes:
            if outcome.failure is not None:
                _log.warning("the table stopped answering after %d pages: %s", outcome.pages, outcome.failure)
            if outcome.unread and outcome.cursor is not None:
                self._next = self._table.begin(outcome.cursor["part"], outcome.cursor["key"])
            elif outcome.job.shard is not None:
                # A round that began within a part has left the head of that part for the next one.
                self._next = self._table.begin(self._next["part"])
