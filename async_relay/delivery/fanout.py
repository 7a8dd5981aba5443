"""The fan-out: when a batch is served by workers instead of this invocation, and its dispatch to them.

Rules
- Without a FIFO queue nothing is fanned out. With one, every batch is, or only while there are many
  clients (``ClientThreshold``).
- A dispatch is one job per shard of the connections table, in the group named after the shard.
- A batch too large for one queue message is several parts per shard. A later part is sent only once
  all shards have the earlier one, because a group keeps the order in which it was sent to.
- Every shard gets its job of a part, also where the queue refused another shard's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from ..errors import StoreUnavailable
from ..wire.jobs import Job, Shard
from .deliveries import Delivery
from .outbox import Outbox, PendingSend
from .protocols import ConnectionStore, Entry, Queue

_log = logging.getLogger("async_relay")

# Jobs encoded at a time: with 256 KiB each, some 13 MB of memory however many shards there are.
_SHARDS_AT_ONCE = 50
# Seconds a count of the clients holds: it reads the table, and a minute changes little about how many there are.
_COUNT_HOLDS = 60.0


class ClientThreshold:
    """Whether there are at least so many clients; once there are, only half as many turn it back."""

    def __init__(self, store: ConnectionStore, clients: int) -> None:
        self._store = store
        self._clients = clients
        self._reached = True
        self._counted_at: float | None = None

    async def reached(self, end: float) -> bool:
        """Count the clients if it is time to; if that fails the answer stays the one before, at first yes."""
        now = asyncio.get_running_loop().time()
        if self._counted_at is None or now - self._counted_at > _COUNT_HOLDS:
            enough = self._clients // 2 if self._reached and self._counted_at is not None else self._clients
            try:
                async with asyncio.timeout((end - now) / 4):
                    self._reached = await self._store.count(enough) >= enough
                self._counted_at = now
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("the clients cannot be counted: %s", str(error) or "no answer in time")
        return self._reached


class Fanout:
    """Dispatches batches to the workers of ``shards``, from ``threshold`` on (None: always)."""

    def __init__(self, outbox: Outbox, shards: Sequence[Shard], threshold: ClientThreshold | None) -> None:
        self._outbox = outbox
        self._shards = shards
        self._threshold = threshold

    async def wanted(self, end: float) -> bool:
        """Whether the next batch is to be dispatched."""
        if self._outbox.queues.fanout is None:
            return False
        return self._threshold is None or await self._threshold.reached(end)

    async def dispatch(self, delivery: Delivery, end: float, now: int) -> frozenset[int]:
        """Send the messages of ``delivery`` to every shard; returns the items that go back."""
        queue = self._outbox.queues.fanout
        assert queue is not None
        messages = delivery.job.messages
        position = 0
        # Split for the shard whose number is longest: the others' jobs fit as well.
        whole = replace(delivery.job, shard=self._shards[-1], first_at=now)
        for number, part in enumerate(whole.split()):
            at_stake = delivery.at_stake(range(position, len(messages)))
            back = await self._dispatch_part(queue, part, number, at_stake, end)
            if back:
                return back
            position += len(part.messages)
        return frozenset()

    async def _dispatch_part(
        self, queue: Queue, part: Job, number: int, at_stake: frozenset[int], end: float
    ) -> frozenset[int]:
        back: frozenset[int] = frozenset()
        for first in range(0, len(self._shards), _SHARDS_AT_ONCE):
            pending = []
            for shard in self._shards[first : first + _SHARDS_AT_ONCE]:
                job = replace(part, shard=shard)
                entry = Entry(job.encode(), group=str(shard.index), deduplication_id=job.deduplication_id(number))
                pending.append(PendingSend(queue, entry, at_stake))
            back |= await self._outbox.send(pending, end)
        return back
