r"""Reads what Lambda keeps of a batch of records it gave up, and says which of them are chosen. Pure.

    aws/lambda/{mapping}/{shard}/2025/01/31/2025-01-31T12.00.05-{uuid}        the object's key
    {"requestContext": {"condition": "RetryAttemptsExhausted", …}, "DDBStreamBatchInfo": {…}, …,
     "payload": "{\"Records\": […]}"}                                           the event as text

Rules
- An object's time is when Lambda gave its batch up, which its key says in UTC; else when it was written.
- Anything may lie in a bucket: reading gives a batch or raises ``NoBatch`` with what is wrong, and nothing but that.

Source: Lambda Developer Guide, "Retain discarded records for a DynamoDB event source".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from async_relay.errors import UndecodableRecord
from async_relay.wire.messages import compact_json
from async_relay.wire.streams import Record, read_records

from .parsing import parse_json, record_event

_KEY = re.compile(r"(?:.*/)?(\d{4}-\d{2}-\d{2}T\d{2}\.\d{2}\.\d{2})-[^/]*")
#: An event has 6 MB at most, and as text in JSON every character of it may take two. This is no such object.
_MOST_BYTES = 32_000_000


class NoBatch(Exception):
    """Why an object is none of Lambda's batches."""


class Stored(NamedTuple):
    """An object of the bucket: its key, its time in milliseconds since 1970, and its size in bytes."""

    key: str
    at: int
    size: int = 0

    @property
    def name(self) -> str:
        """The last part of its key."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Choice:
    """The records that are meant; None: any. ``since`` and ``until`` look at the object's time."""

    incident: str | None = None
    event_id: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def narrow(self) -> bool:
        """Whether it may leave out records of an object."""
        return self.incident is not None or self.event_id is not None

    def has_time(self, stored: Stored) -> bool:
        """Whether the object's time is meant."""
        return (self.since is None or stored.at >= self.since) and (self.until is None or stored.at < self.until)

    def records(self, records: Sequence[Record]) -> list[Record]:
        """Those that are meant, in their order."""
        return [each for each in records if self._means(each)]

    def _means(self, record: Record) -> bool:
        return (self.event_id is None or record.event_id == self.event_id) and (
            self.incident is None or record_event(record.raw).incident == self.incident
        )


def time_of(key: str, written: datetime) -> int:
    """The time of an object in milliseconds since 1970, whole seconds."""
    match = _KEY.fullmatch(key)
    try:
        at = datetime.strptime(match[1], "%Y-%m-%dT%H.%M.%S").replace(tzinfo=UTC) if match else written
    except ValueError:
        at = written
    return int(at.timestamp()) * 1_000


def check_size(stored: Stored) -> None:
    """Raise ``NoBatch`` for an object that is larger than Lambda's can be."""
    if stored.size > _MOST_BYTES:
        raise NoBatch(f"it has {stored.size:,} bytes: no batch of Lambda's is as large")


def read_batch(body: bytes) -> list[Record]:
    """The records of an object, in stream order; raises ``NoBatch``."""
    fields = _json(body)
    if not isinstance(fields, dict) or not isinstance(fields.get("DDBStreamBatchInfo"), dict):
        raise NoBatch("it is not what Lambda writes about a batch of a DynamoDB Stream")
    payload = fields.get("payload")
    if payload is None:
        raise NoBatch("it has no payload: it only says where in the stream the records were")
    event = parse_json(payload) if isinstance(payload, str) else payload
    try:
        records = read_records(event)
    except UndecodableRecord as error:
        raise NoBatch(f"its payload cannot be read: {error}") from None
    if not records:
        raise NoBatch("its payload has no records")
    try:
        event_of(records)
    except (ValueError, RecursionError):
        raise NoBatch("its payload cannot be sent: it has what JSON in UTF-8 has not") from None
    return records


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise NoBatch("it is not JSON") from None


def order(records: Sequence[Record]) -> int:
    """What batches of one second are sorted by: the SequenceNumbers of an item grow from change to change."""
    sequence = records[0].sequence
    return int(sequence) if re.fullmatch("[0-9]{1,60}", sequence) else 0


def item_of(record: Record) -> bytes:
    """The item that a record is a change of: the same for all its records."""
    return compact_json([[name, record.keys[name]] for name in sorted(record.keys)])


def event_of(records: Sequence[Record]) -> bytes:
    """The event that hands these records to a function, as Lambda would."""
    return compact_json({"Records": [each.raw for each in records]})
