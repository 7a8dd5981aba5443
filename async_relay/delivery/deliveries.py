"""From an event to the jobs to serve, and to dead letters for the items nobody can be sent. Does no I/O.

Rules
- The messages of a batch of records are one job for everybody.
- Jobs of a FIFO group are served in order. Consecutive ones that the same read of the table serves are one
  run, and share it.

An item is a stream record or a queue message of the event, by its index there. A position is a message's
index in its job.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..errors import UnreadableJob
from ..wire.incidents import latest
from ..wire.jobs import DeadLetter, Job, Shard
from ..wire.messages import MAX_POST_BYTES, Message
from ..wire.streams import Record

_log = logging.getLogger("async_relay")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job to serve, and the item each of its messages came with; ``group`` is empty outside a FIFO queue."""

    job: Job
    items: tuple[int, ...]
    group: str = ""

    def at_stake(self, positions: Iterable[int]) -> frozenset[int]:
        """The items that go back if these messages are lost; of a group, also all behind the first of them."""
        if self.group:
            return frozenset(self.items[min(positions, default=len(self.items)) :])
        return frozenset(self.items[position] for position in positions)


class Received(NamedTuple):
    """A job as it came from a queue; ``group`` is empty on a standard one."""

    item: int
    group: str
    job: Job


Groups = dict[str, deque[Received]]


def delivery_of(records: Sequence[Record], *, coalesce: bool, added: int = 0) -> Delivery | None:
    """The messages of a batch for everybody, or None where it has none that can be posted.

    ``added``: how many bytes each of them is going to grow by before it is posted.
    """
    found = [
        (item, record.message)
        for item, record in enumerate(records)
        if record.message is not None and not _oversized(record.message, added)
    ]
    if coalesce:
        found = [found[position] for position in latest([message for _, message in found])]
    if not found:
        return None
    items, messages = zip(*found, strict=True)
    written = [records[item].written_at for item in items if records[item].written_at]
    return Delivery(Job(messages, shard=Shard(), written_at=min(written, default=0)), items)


def _oversized(message: Message, added: int) -> bool:
    return len(message.body) + added > MAX_POST_BYTES


def dead_letters_of(
    records: Sequence[Record], now: int, tenant_attribute: str | None = None, *, added: int = 0
) -> Iterator[tuple[int, DeadLetter]]:
    """A dead letter for each record that can never be posted to anybody; it says where its tenant stands.

    ``added`` is as for ``delivery_of``.
    """
    for item, record in enumerate(records):
        if record.problem is not None:
            reason, detail = "undecodable", record.problem
            _log.error("record %s cannot be decoded: %s", record.event_id, detail)
        elif record.message and _oversized(record.message, added):
            reason = "too_large"
            detail = f"the message has {len(record.message.body) + added:,} bytes; API Gateway takes {MAX_POST_BYTES:,}"
            _log.error("record %s is not posted: %s", record.event_id, detail)
        else:
            continue
        named = (record.event_id, record.sequence, record.keys)
        yield item, DeadLetter(reason, detail, record.raw, now, *named, tenant_attribute)


def read_jobs(records: Sequence[Any], now: int) -> tuple[Groups, list[tuple[int, DeadLetter]]]:
    """The jobs by group, each standard one a group of its own; and a dead letter for each item that is no job."""
    groups: Groups = {}
    letters: list[tuple[int, DeadLetter]] = []
    for item, record in enumerate(records):
        message_id, group = record["messageId"], _group_of(record)
        try:
            received = Received(item, group, Job.decode(record["body"]))
            groups.setdefault(group or message_id, deque()).append(received)
        except UnreadableJob as error:
            _log.error("message %s is not a job: %s", message_id, error)
            letters.append((item, DeadLetter("unreadable_job", str(error), record["body"], now)))
    return groups, letters


def stop_behind(groups: Groups, records: Sequence[Any], back: Iterable[int]) -> frozenset[int]:
    """Take the jobs behind items that go back out of their groups; returns their items, which go back too."""
    behind: set[int] = set()
    for item in back:
        name = _group_of(records[item])
        waiting = groups.pop(name, None) if name else None
        if waiting is not None:
            behind.update(each.item for each in waiting if each.item > item)
            if before := deque(each for each in waiting if each.item < item):
                groups[name] = before
    return frozenset(behind)


def _group_of(record: Any) -> str:
    group: str = record.get("attributes", {}).get("MessageGroupId", "")
    return group


def next_run(waiting: deque[Received]) -> Delivery:
    """Take the next job of a group, and those behind it that the same read of the table serves."""
    taken = [waiting.popleft()]
    first = taken[0].job
    while waiting and first.shard is not None and first.cursor is None and _same_read(waiting[0].job, first):
        taken.append(waiting.popleft())
    messages = tuple(message for each in taken for message in each.job.messages)
    written = [each.job.written_at for each in taken if each.job.written_at]
    job = replace(
        first,
        messages=messages,
        continuation=max(each.job.continuation for each in taken),
        written_at=min(written, default=0),
    )
    return Delivery(job, tuple(each.item for each in taken for _ in each.job.messages), taken[0].group)


def _same_read(job: Job, first: Job) -> bool:
    return job.shard == first.shard and job.cursor is None and job.attempt == first.attempt
