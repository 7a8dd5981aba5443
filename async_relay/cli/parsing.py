"""Parses the bodies of the dead-letter queue and says which form each has. Pure.

    job         {"deadLetter": …, "job": 1, …}        a job of ours that was given up or refused
    record      {"deadLetter": …, "record": …}        a stream record nobody could decode
    body        {"deadLetter": …, "body": "…"}        a queue message that was not a job
    truncated   {"deadLetter": …, "truncated": true}  any of these, too large to be kept whole
    moved       {"job": 1, …}                         a job SQS moved here after maxReceiveCount
    lambda      {"DDBStreamBatchInfo": …}             Lambda's on-failure note: a range, no records
    other       anything else

``parse_dead_letter`` takes any text and never raises: a body may be damaged or hostile.
Times are milliseconds since 1970.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from async_relay.wire.jobs import is_job

#: The last millisecond a calendar can show; anything later is no time.
_END_OF_TIME = 253_402_300_799_999


class Form(StrEnum):
    """Which of the shapes above a dead letter has."""

    JOB = "job"
    RECORD = "record"
    BODY = "body"
    TRUNCATED = "truncated"
    MOVED = "moved"
    LAMBDA = "lambda"
    OTHER = "other"


class Event(NamedTuple):
    """One message or record inside a dead letter, as far as it says."""

    kind: str = ""
    incident: str = ""
    action: str = ""
    event_id: str = ""
    sequence: str = ""

    @property
    def subject(self) -> str:
        """The incident, or the action of a remediation."""
        return self.incident or self.action


@dataclass(frozen=True, slots=True)
class ParsedDeadLetter:
    """A message of the dead-letter queue; a field that it lacks is None or empty."""

    message_id: str
    body: str
    sent_at: int | None
    form: Form
    reason: str
    detail: str = ""
    events: tuple[Event, ...] = ()
    clients: tuple[str, ...] = ()
    shard: str = ""
    first_at: int | None = None
    last_at: int | None = None
    attempt: int | None = None

    @property
    def addressee(self) -> str:
        """Its recipients: a connection id, a number of them, or a shard."""
        if self.shard:
            return self.shard
        return self.clients[0] if len(self.clients) == 1 else f"{len(self.clients)} clients" if self.clients else ""


def parse_json(body: str) -> Any:
    """The JSON of a body, or None."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def parse_dead_letter(message_id: str, body: str, sent_at: int | None = None) -> ParsedDeadLetter:
    """The dead letter in a queue message; a body of no known form is ``Form.OTHER``."""
    fields = parse_json(body)
    if not isinstance(fields, dict):
        return ParsedDeadLetter(
            message_id, body, sent_at, Form.OTHER, "unknown", "the body is not a JSON map", last_at=sent_at
        )
    if isinstance(fields.get("deadLetter"), dict):
        return _ours(message_id, body, sent_at, fields)
    if is_job(fields):
        return _moved(message_id, body, sent_at, fields)
    if isinstance(fields.get("DDBStreamBatchInfo"), dict):
        return _lambda(message_id, body, sent_at, fields)
    detail = "neither a dead letter, nor a job, nor a note of Lambda's"
    return ParsedDeadLetter(message_id, body, sent_at, Form.OTHER, "unknown", detail, last_at=sent_at)


def _ours(message_id: str, body: str, sent_at: int | None, fields: dict[str, Any]) -> ParsedDeadLetter:
    envelope = fields["deadLetter"]
    record = fields.get("record")
    named = Event(event_id=_text(envelope, "eventID"), sequence=_text(envelope, "sequence"))
    form = _form(fields)
    events = (
        (tuple(_messages(fields)) or (Event(),)) if form is Form.JOB else (record_event(record, envelope.get("keys")),)
    )
    return ParsedDeadLetter(
        message_id,
        body,
        sent_at,
        form,
        reason=_text(envelope, "reason") or "unknown",
        detail=_text(envelope, "detail"),
        events=tuple(_filled(event, named) for event in events) if len(events) == 1 else events,
        clients=tuple(_clients(fields)),
        shard=_shard(fields),
        first_at=_time(fields.get("firstAt")) or _created(record),
        last_at=_time(envelope.get("lastAt")) or sent_at,
        attempt=_whole(fields.get("attempt")),
    )


def _form(fields: dict[str, Any]) -> Form:
    if fields.get("truncated") is True:
        return Form.TRUNCATED
    if is_job(fields):
        return Form.JOB
    if "record" in fields:
        return Form.RECORD
    return Form.BODY if isinstance(fields.get("body"), str) else Form.OTHER


def _moved(message_id: str, body: str, sent_at: int | None, fields: dict[str, Any]) -> ParsedDeadLetter:
    last = _text(fields, "reason")
    detail = "SQS moved this job here: the function failed or ran out of time on it again and again"
    return ParsedDeadLetter(
        message_id,
        body,
        sent_at,
        Form.MOVED,
        reason="max_receives",
        detail=f"{detail}; the last error before: {last}" if last else detail,
        events=tuple(_messages(fields)),
        clients=tuple(_clients(fields)),
        shard=_shard(fields),
        first_at=_time(fields.get("firstAt")),
        last_at=sent_at,
        attempt=_whole(fields.get("attempt")),
    )


def _lambda(message_id: str, body: str, sent_at: int | None, fields: dict[str, Any]) -> ParsedDeadLetter:
    batch = fields["DDBStreamBatchInfo"]
    context = fields.get("requestContext")
    first, last = _text(batch, "startSequenceNumber"), _text(batch, "endSequenceNumber")
    count = _whole(batch.get("batchSize"))
    detail = (
        f"Lambda gave up on {'an unknown number of' if count is None else count} stream records "
        f"({_text(context, 'condition') or 'no condition named'}): shard {_text(batch, 'shardId') or '?'}, "
        f"sequence {first or '?'} to {last or '?'}"
    )
    sequence = first if first == last else f"{first}..{last}"
    return ParsedDeadLetter(
        message_id,
        body,
        sent_at,
        Form.LAMBDA,
        reason="stream_batch_failed",
        detail=detail,
        events=(Event(sequence=sequence),),
        last_at=sent_at,
        attempt=_whole(context.get("approximateInvokeCount")) if isinstance(context, dict) else None,
    )


def _messages(fields: dict[str, Any]) -> Iterator[Event]:
    messages = fields.get("messages")
    for payload in messages if isinstance(messages, list) else ():
        yield Event(
            _text(payload, "kind"),
            _text(payload, "incident_id"),
            _text(payload, "action"),
            _text(payload, "event_id"),
            _text(payload, "sequence"),
        )


def record_event(record: Any, keys: Any = None) -> Event:
    """The event of a stream record, or of the keys that a truncated dead letter kept of one."""
    change = record.get("dynamodb") if isinstance(record, dict) else None
    images = [change.get(name) for name in ("NewImage", "Keys", "OldImage")] if isinstance(change, dict) else []
    incident = next(filter(None, (_attribute(image, "incident_id") for image in [*images, keys])), "")
    action = next(filter(None, (_attribute(image, "action") for image in [*images, keys])), "")
    kind = _text(record, "eventName")
    return Event(kind, incident, "" if incident else action, _text(record, "eventID"), _text(change, "SequenceNumber"))


def _filled(event: Event, named: Event) -> Event:
    """The event, with the ids the dead letter names where the event has none."""
    return event._replace(event_id=event.event_id or named.event_id, sequence=event.sequence or named.sequence)


def _attribute(image: Any, name: str) -> str:
    """An attribute as text, typed like ``{"S": "i-1"}`` or plain."""
    value = image.get(name) if isinstance(image, dict) else None
    if isinstance(value, dict) and len(value) == 1:
        (value,) = value.values()
    return value if isinstance(value, str) else ""


def _clients(fields: dict[str, Any]) -> Iterator[str]:
    clients = fields.get("clients")
    for client in clients if isinstance(clients, list) else ():
        if connection_id := _text(client, "connectionId"):
            yield connection_id


def _shard(fields: dict[str, Any]) -> str:
    shard = fields.get("shard")
    if not isinstance(shard, dict):
        return ""
    index, count = _whole(shard.get("index")) or 0, _whole(shard.get("count")) or 1
    name = "everybody" if count == 1 else f"shard {index} of {count}"
    return f"{name}, after a cursor" if fields.get("cursor") else name


def _created(record: Any) -> int | None:
    """The time at which the table changed, from a record's seconds."""
    change = record.get("dynamodb") if isinstance(record, dict) else None
    seconds = change.get("ApproximateCreationDateTime") if isinstance(change, dict) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < _END_OF_TIME / 1_000:
        return None
    return _time(int(seconds * 1_000))


def _time(value: Any) -> int | None:
    number = _whole(value)
    return number if number is not None and 0 < number <= _END_OF_TIME else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(mapping: Any, key: str) -> str:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value if isinstance(value, str) else ""
