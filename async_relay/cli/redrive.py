"""What a redrive would send for a letter, or why it stays where it is. Pure.

Rules
- A job goes back with its attempts at 0 and no reason; when it first failed is kept, and when it was written is not:
  how long a letter lay here is no delay of the relay's.
- A record is decoded again by the code of today, with the relay's formatter, and, if that works,
  becomes a job for everybody. Where the letter says which attribute holds its tenant, that one counts.
  So does a body that was no job, if it is one now.
- What cannot be delivered stays: cut, damaged, too large for API Gateway, or only a note that
  something is missing.
- Every body fits in an SQS message.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from async_relay.errors import UnreadableJob
from async_relay.wire.formatter import Formatter, with_tenant
from async_relay.wire.incidents import format_item
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, Job, Shard
from async_relay.wire.messages import MAX_POST_BYTES
from async_relay.wire.streams import read_record

from .parsing import Form, ParsedDeadLetter, parse_json


@dataclass(frozen=True, slots=True)
class Resend:
    """The bodies that replace a letter in the retry queue, and the work in words."""

    bodies: tuple[str, ...]
    summary: str


@dataclass(frozen=True, slots=True)
class Stay:
    """Why a letter is left where it is."""

    why: str


def redrive(letter: ParsedDeadLetter, formatter: Formatter = format_item) -> Resend | Stay:
    """What would be sent for ``letter``."""
    try:
        return _resend(_job(letter, formatter))
    except UnreadableJob as problem:
        return Stay(str(problem))


def _for(envelope: dict[str, Any], formatter: Formatter) -> Formatter:
    """The formatter, as the relay that wrote the letter used it."""
    attribute = envelope.get("tenantAttribute")
    return with_tenant(formatter, attribute if isinstance(attribute, str) else None)


def _job(letter: ParsedDeadLetter, formatter: Formatter) -> Job:
    """The job a letter stands for; raises ``UnreadableJob`` with why there is none."""
    fields = parse_json(letter.body)
    match letter.form:
        case Form.JOB | Form.MOVED:
            return Job.from_fields(fields)
        case Form.RECORD:
            return _decoded(fields["record"], letter, _for(fields["deadLetter"], formatter))
        case Form.BODY:
            return _still(fields["body"])
        case Form.TRUNCATED:
            raise UnreadableJob("it was too large to be kept whole: publish the change again from the table")
        case Form.LAMBDA:
            raise UnreadableJob(
                "it holds no records, only where they are: read that range of the stream within 24 hours, "
                "or publish the changes again from the table"
            )
        case _:
            raise UnreadableJob("it is nothing of ours")


def _decoded(raw: Any, letter: ParsedDeadLetter, formatter: Formatter) -> Job:
    record = read_record(raw, formatter)
    if record.problem is not None:
        raise UnreadableJob(f"the record still cannot be decoded: {record.problem}")
    if record.message is None:
        raise UnreadableJob("nothing is sent for such a record: discard it")
    return Job((record.message,), shard=Shard(0, 1), first_at=letter.first_at or letter.last_at or 0)


def _still(body: str) -> Job:
    try:
        return Job.decode(body)
    except UnreadableJob as problem:
        raise UnreadableJob(f"its body is still no job: {problem}") from None


def _resend(job: Job) -> Resend | Stay:
    if all(message.oversized for message in job.messages):
        # How large it is the letter's detail says, with the position in the feed that a post of it would have had.
        return Stay(f"a message is over the {MAX_POST_BYTES:,} bytes API Gateway takes: nobody can get it")
    parts = replace(job, attempt=0, reason="", written_at=0).split()
    bodies = tuple(part.encode() for part in parts)
    if any(len(body.encode()) > MAX_QUEUE_BODY_BYTES for body in bodies):
        return Stay(f"a message is too large for a queue message of {MAX_QUEUE_BODY_BYTES:,} bytes")
    return Resend(bodies, _summary(job, len(bodies)))


def _summary(job: Job, parts: int) -> str:
    messages = _count(len(job.messages), "message")
    if job.shard is not None:
        whom = "everybody" if job.shard.count == 1 else f"shard {job.shard.index} of {job.shard.count}"
    else:
        whom = _count(len(job.clients), "client")
    return f"{messages} to {whom}" + (f", in {parts} jobs" if parts > 1 else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
