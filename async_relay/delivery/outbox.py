"""Entries for the queues, and the batch items that go back if a queue does not take them.

Rules
- An entry travels with the items whose messages it holds (``PendingSend``): an item is acknowledged
  only if the queues took every entry it is in.
- Without the queue an entry would go to, its items go back. Whether there is a
  queue is asked of ``Queues`` alone.
- A continuation of a FIFO group goes back to its group, everything else that is requeued to the retry
  queue. Without a retry queue nothing is continued either.
- Time is kept back for the queues: as much as they took before, with a margin.

Items and positions are those of ``deliveries``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple

from ..errors import QueueUnavailable
from ..wire.jobs import MAX_QUEUE_BODY_BYTES, DeadLetter, Job
from .deliveries import Delivery
from .protocols import Entry, Queue
from .settlement import Requeued, Settlement

_log = logging.getLogger("async_relay")

# Seconds kept back before the queues were ever used: a connection to SQS has to be opened first.
_FIRST_RESERVE = 1.0
# Seconds kept back at least: one slow call among many fast ones must not lose what it carries.
_LEAST_RESERVE = 0.3
# What a dead letter adds to its job: the detail of 2,000 characters, of which few take 3 bytes, its reason and its ids.
_LETTER_ROOM = MAX_QUEUE_BODY_BYTES - 6_000


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues there are; each may be missing."""

    retry: Queue | None = None
    dead_letters: Queue | None = None
    fanout: Queue | None = None


class PendingSend(NamedTuple):
    """An entry for a queue, and the items that go back if the queue does not take it.

    ``wait``: for how many seconds it should not be sent yet.
    """

    queue: Queue
    entry: Entry
    at_stake: frozenset[int]
    wait: int = 0


class Outgoing(NamedTuple):
    """The entries to send, and the items that go back whether they are sent or not."""

    pending: tuple[PendingSend, ...] = ()
    back: frozenset[int] = frozenset()

    @classmethod
    def joined(cls, parts: Iterable[Outgoing]) -> Outgoing:
        """All of them as one."""
        parts = tuple(parts)
        pending = tuple(chain.from_iterable(part.pending for part in parts))
        return cls(pending, frozenset(chain.from_iterable(part.back for part in parts)))


class Outbox:
    """Addresses and sends entries; ``reserve`` is how many seconds the next send needs at most."""

    def __init__(self, queues: Queues) -> None:
        self.queues = queues
        self.reserve = _FIRST_RESERVE

    def settled(self, settlement: Settlement, delivery: Delivery) -> Outgoing:
        """The entries of a settlement."""
        requeued = [self._requeue(each, delivery) for each in settlement.requeued]
        letters = [
            self.dead_letter(each.letter, delivery.at_stake(each.positions)) for each in settlement.dead_lettered
        ]
        return Outgoing.joined([*requeued, *letters, Outgoing(back=delivery.at_stake(settlement.back))])

    def dead_letter(self, letter: DeadLetter, at_stake: frozenset[int]) -> Outgoing:
        """The entries of a dead letter."""
        queue = self.queues.dead_letters
        if queue is None:
            return Outgoing(back=at_stake)
        return Outgoing(tuple(PendingSend(queue, entry, at_stake) for entry in _letter_entries(letter)))

    async def send(self, pending: Sequence[PendingSend], end: float) -> frozenset[int]:
        """Send all, the queues side by side; returns the items that go back."""
        if not pending:
            return frozenset()
        loop = asyncio.get_running_loop()
        start = loop.time()
        queues: dict[int, list[PendingSend]] = {}
        for each in pending:
            queues.setdefault(id(each.queue), []).append(each)
        refused = await asyncio.gather(*(_send_to(sends[0].queue, sends, end) for sends in queues.values()))
        # Twice as long as it took: the next send may be larger, or meet a busier queue.
        self.reserve = max(_LEAST_RESERVE, 2 * (loop.time() - start))
        return frozenset().union(*(send.at_stake for sends in refused for send in sends))

    def _requeue(self, requeued: Requeued, delivery: Delivery) -> Outgoing:
        at_stake = delivery.at_stake(requeued.positions)
        if self.queues.retry is None:
            return Outgoing(back=at_stake)
        fanout = self.queues.fanout if delivery.group and requeued.job.shard is not None else None
        if fanout is not None:
            entries = group_entries(requeued.job, delivery.group)
            return Outgoing(tuple(PendingSend(fanout, entry, at_stake, requeued.delay) for entry in entries))
        entries = (Entry(part.encode(), requeued.delay) for part in requeued.job.split())
        return Outgoing(tuple(PendingSend(self.queues.retry, entry, at_stake) for entry in entries))


def group_entries(job: Job, group: str) -> Iterator[Entry]:
    """The entries of a job for a group of the FIFO queue, in order."""
    for part, each in enumerate(job.split()):
        yield Entry(each.encode(), group=group, deduplication_id=each.deduplication_id(part))


def _letter_entries(letter: DeadLetter) -> Iterator[Entry]:
    contents = letter.content.split(_LETTER_ROOM) if isinstance(letter.content, Job) else [letter.content]
    for content in contents:
        yield Entry(replace(letter, content=content).encode())


async def _send_to(queue: Queue, sends: list[PendingSend], end: float) -> list[PendingSend]:
    """Send to one queue; returns those it did not take."""
    try:
        async with asyncio.timeout_at(end):
            await queue.send([each.entry for each in sends])
    except QueueUnavailable as error:
        _log.error("%s", error)
        return [sends[at] for at in sorted(error.failed)]
    except TimeoutError:
        _log.error("a queue did not answer in time")
        return sends
    return []
