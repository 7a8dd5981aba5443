"""Queues in SQS.

Rules
- An entry counts as sent when the answer names its Id in ``Successful`` and not in ``Failed``. An entry that the
  answer does not mention has failed: sending it again may repeat a message, but believing it sent may lose one.
- A SendMessageBatch has ten entries at most (SQS quotas), and 256 KiB of bodies.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..delivery.protocols import Entry
from ..errors import QueueUnavailable, Unavailable
from ..wire.jobs import MAX_QUEUE_BODY_BYTES
from .session import Service

_log = logging.getLogger("async_relay")

# Entries in one SendMessageBatch (SQS quotas).
_BATCH_SEND = 10


class SqsQueue:
    """A queue in SQS, standard or FIFO."""

    def __init__(self, sqs: Service, url: str) -> None:
        self._sqs = sqs
        self._url = url

    async def send(self, entries: Sequence[Entry]) -> None:
        """Send in batches, in order; raises ``QueueUnavailable`` with the positions of the entries that failed."""
        failed: set[int] = set()
        reason = ""
        for batch in _batches(entries):
            sent, problem = await self._send_batch({str(at): entries[at] for at in batch})
            missing = [at for at in batch if str(at) not in sent]
            failed.update(missing)
            if missing:
                reason = problem
        if failed:
            raise QueueUnavailable(
                f"the queue {self._url} did not take {len(failed)} of {len(entries)}: {reason}", frozenset(failed)
            )

    async def _send_batch(self, entries: Mapping[str, Entry]) -> tuple[set[str], str]:
        """Send one batch; returns the Ids that were sent, and the reason why the others were not."""
        request = {"QueueUrl": self._url, "Entries": [_entry(name, entry) for name, entry in entries.items()]}
        try:
            answer = await self._sqs.call("SendMessageBatch", request)
            return _named(answer, "Successful").keys() - _named(answer, "Failed").keys(), _reason(answer)
        except Unavailable as error:
            return set(), str(error)
        except Exception as error:  # noqa: BLE001 - the boundary: no caller knows the errors an odd answer causes
            _log.exception("a batch for the queue %s failed unexpectedly", self._url)
            return set(), f"{type(error).__name__}: {error}"


def _named(answer: Any, field: str) -> dict[str, Mapping[str, Any]]:
    """The results in a field of the answer by their Ids; results of another shape are left out."""
    results = answer.get(field) if isinstance(answer, Mapping) else None
    if not isinstance(results, list):
        return {}
    named = [each for each in results if isinstance(each, Mapping) and isinstance(each.get("Id"), str)]
    return {each["Id"]: each for each in named}


def _reason(answer: Any) -> str:
    for failure in _named(answer, "Failed").values():
        return f"{failure.get('Code')}: {failure.get('Message', '')}"
    return "the answer does not say that they were sent"


def _batches(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """Positions of consecutive entries that fit in one call."""
    batch: list[int] = []
    size = 0
    for at, entry in enumerate(entries):
        need = len(entry.body.encode(errors="surrogatepass"))
        if batch and (len(batch) == _BATCH_SEND or size + need > MAX_QUEUE_BODY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(at)
        size += need
    if batch:
        yield batch


def _entry(name: str, entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"Id": name, "MessageBody": entry.body}
    if entry.delay:
        fields["DelaySeconds"] = entry.delay
    if entry.group:
        fields["MessageGroupId"] = entry.group
        fields["MessageDeduplicationId"] = entry.deduplication_id
    return fields
