"""Queues in SQS. A SendMessageBatch takes ten entries (SQS quotas), and we give it 256 KiB at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import QueueUnavailable, Unavailable
from ..jobs import MAX_BODY_BYTES
from ..protocols import Entry
from .session import Service

_BATCH_SEND = 10


class SqsQueue:
    """A queue in SQS, standard or FIFO."""

    def __init__(self, sqs: Service, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def send(self, entries: Sequence[Entry]) -> None:
        """Send in batches, in order; raises ``QueueUnavailable`` with what was not taken."""
        failed: set[int] = set()
        reason = ""
        for batch in _batches(entries):
            try:
                answer = await self._sqs.call(
                    "SendMessageBatch",
                    {"QueueUrl": self._url, "Entries": [_entry(at, entries[at]) for at in batch]},
                )
            except Unavailable as error:
                failed.update(batch)
                reason = str(error)
                continue
            for failure in answer.get("Failed", ()):
                failed.add(int(failure["Id"]))
                reason = f"{failure.get('Code')}: {failure.get('Message', '')}"
        if failed:
            raise QueueUnavailable(
                f"the queue {self._url} did not take {len(failed)} of {len(entries)}: {reason}", frozenset(failed)
            )


def _batches(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """Positions of consecutive entries that fit in one call."""
    batch: list[int] = []
    size = 0
    for at, entry in enumerate(entries):
        need = len(entry.body.encode())
        if batch and (len(batch) == _BATCH_SEND or size + need > MAX_BODY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(at)
        size += need
    if batch:
        yield batch


def _entry(at: int, entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"Id": str(at), "MessageBody": entry.body}
    if entry.delay:
        fields["DelaySeconds"] = entry.delay
    if entry.group:
        fields["MessageGroupId"] = entry.group
        fields["MessageDeduplicationId"] = entry.deduplication_id
    return fields
