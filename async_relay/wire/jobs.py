"""What crosses a queue: delivery jobs and dead letters, as JSON an operator can read. Pure.

    {"job": 1, "attempt": 1, "firstAt": 1700000000000, "reason": "server_error",
     "messages": [{"kind": …, "event_id": …, …}],          the payloads, in order
     "clients": [{"connectionId": "Zx=", "skip": 1}]}       skip: how many of them it has already

    the same with {"shard": {"index": 0, "count": 8, "kind": "segment"}, "cursor": {…}, "hop": 0} in place
    of clients: everybody in that part of the connections table, after the cursor; hop: how often it was continued

    a dead letter is the job it was, or the {"record": …} it was, beside
     "deadLetter": {"reason": …, "detail": …, "eventID": …, "sequence": …, "lastAt": …, "tenantAttribute": …}
                   (tenantAttribute: of a record, the attribute that says whose it is; only where tenants are on)

    "writtenAt" beside "firstAt": when the oldest of the records was written, for the metrics alone; left out where
    nobody knows

Rules
- A job names its clients and says nothing else about them: what they may have is decided by their rows, as they are
  when the job is served, so that what was taken from a client meanwhile is taken. So does whether it takes frames,
  and a client without a row takes none.
- A body is at most 256 KiB. A job that is larger is split, messages in order; a dead letter that is
  larger keeps its keys, reason and first 100 KB, and says ``"truncated": true``.
- A payload read back from a body is the payload, byte for byte.
- Reading a body gives a job or raises ``UnreadableJob``, and nothing but that.
- A job says which kind of part it is for, so sister jobs cover the table together whatever is deployed
  between their dispatch and their delivery. A job that does not say is for a segment.

Times are milliseconds since 1970. SQS takes only the characters of XML 1.0: SendMessage, "MessageBody".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, NamedTuple
from zlib import crc32

from ..errors import UnreadableJob
from .audience import Access
from .messages import MAX_DEPTH, Message, is_shallow

#: One queue message, in bytes: every SQS queue takes as much, unless its MaximumMessageSize was lowered.
MAX_QUEUE_BODY_BYTES = 262_144
# The head of a dead letter that is too large. It is JSON in a JSON string, so escapes may double it, and it fits.
_TRUNCATED_BYTES = 100_000
# Messages per job where clients are named: one as large as API Gateway takes fits, and nearly half a body is left for
# the clients.
_MESSAGES_BYTES = 140_000
# DynamoDB's keys have 3 KB at most; larger ones were forged, and a letter can do without them.
_KEYS_BYTES = 20_000
# No attempt, time or index of ours needs more than 63 bits.
_MAX_COUNT = 2**63
_NOT_IN_SQS = re.compile("[\ud800-\udfff\ufffe\uffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")

Cursor = Mapping[str, Any]


class ShardKind(StrEnum):
    """What the parts of the connections table are: two partitions of the same rows that have nothing in common."""

    #: A segment of a parallel Scan: DynamoDB decides which rows are in it, and every row is in one.
    SEGMENT = "segment"
    #: The rows whose attribute ``shard`` is the index: only rows that have the attribute are in one.
    PARTITION = "partition"


@dataclass(frozen=True, slots=True)
class Shard:
    """Part ``index`` of ``count`` disjoint parts of the connections table."""

    index: int = 0
    count: int = 1
    kind: ShardKind = ShardKind.SEGMENT


def shard_of(connection_id: str, count: int) -> int:
    """The attribute ``shard`` of a connection's row where there are ``count`` partitions; stable and even."""
    return crc32(connection_id.encode()) % count


def is_in_partition(connection_id: str, shard: Shard) -> bool:
    """Whether the id belongs to the partition, whatever its row says."""
    return shard_of(connection_id, shard.count) == shard.index


class Client(NamedTuple):
    """One connection: its id, when it was made (ms, None if unknown), and how many messages it has already.

    ``expires_at`` (s, None: never), ``access`` (None: the row says nothing) and ``frames`` (it reads arrays) are its
    row's, and are in no job: whoever serves a job asks the table.
    """

    connection_id: str
    created_at: int | None = None
    skip: int = 0
    expires_at: int | None = None
    access: Access | None = None
    frames: bool = False


def is_job(fields: Any) -> bool:
    """Whether a parsed body says that it is a job: the number 1, which ``true`` equals in Python and is not."""
    return isinstance(fields, dict) and fields.get("job") == 1 and fields["job"] is not True


@dataclass(frozen=True, slots=True)
class Job:
    """Messages and who still lacks them: ``clients``, or everybody in ``shard`` after ``cursor``.

    ``attempt`` counts the tries from the queue, ``continuation`` how often the shard was continued (``hop`` in JSON).
    ``written_at``: when the oldest of its records was written; 0: unknown.
    """

    messages: tuple[Message, ...]
    clients: tuple[Client, ...] = ()
    shard: Shard | None = None
    cursor: Cursor | None = None
    attempt: int = 0
    first_at: int = 0
    reason: str = ""
    continuation: int = 0
    written_at: int = 0

    def encode(self) -> str:
        """The body of the queue message."""
        return _dump(self._fields())

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {"job": 1, "attempt": self.attempt, "firstAt": self.first_at}
        if self.written_at:
            fields["writtenAt"] = self.written_at
        if self.reason:
            fields["reason"] = self.reason
        if self.shard is not None:
            fields["shard"] = {
                "index": self.shard.index,
                "count": self.shard.count,
                "kind": self.shard.kind.value,
            }
            fields["cursor"] = dict(self.cursor) if self.cursor is not None else None
            fields["hop"] = self.continuation
        else:
            fields["clients"] = [_client_fields(client) for client in self.clients]
        fields["messages"] = [message.payload for message in self.messages]
        return fields

    @classmethod
    def decode(cls, body: str) -> Job:
        """The job of a body; raises ``UnreadableJob`` with what is wrong with it."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError):
            raise UnreadableJob("the body is not JSON") from None
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: Any) -> Job:
        """The job of a parsed body; raises ``UnreadableJob``."""
        if not is_job(fields):
            raise UnreadableJob('the body is not a job: it has no "job": 1')
        shard = _read_shard(fields["shard"]) if fields.get("shard") is not None else None
        clients = () if shard else tuple(map(_read_client, _list(fields, "clients")))
        messages = tuple(map(_read_message, _list(fields, "messages")))
        if not messages or (shard is None and not clients):
            raise UnreadableJob("the job has no messages or nobody to send them to")
        if any(client.skip >= len(messages) for client in clients):
            raise UnreadableJob("a client is to skip every message")
        cursor = fields.get("cursor") if shard else None
        if cursor is not None and not (isinstance(cursor, dict) and is_shallow(cursor)):
            raise UnreadableJob("cursor is not a map, or nests too deep")
        reason = fields.get("reason", "")
        return cls(
            messages,
            clients,
            shard,
            cursor,
            attempt=_count(fields, "attempt"),
            first_at=_count(fields, "firstAt"),
            reason=reason if isinstance(reason, str) else "",
            continuation=_count(fields, "hop") if shard else 0,
            written_at=_count(fields, "writtenAt"),
        )

    def split(self, room: int = MAX_QUEUE_BODY_BYTES) -> list[Job]:
        """The same work in as many jobs as fit in ``room`` bytes each, messages in order."""
        if len(self.encode().encode()) <= room:
            return [self]
        return [part for start, run in _runs(self.messages) for part in self._with(start, run, room)]

    def _with(self, start: int, run: tuple[Message, ...], room: int) -> Iterator[Job]:
        if self.shard is not None:
            yield replace(self, messages=run)
            return
        room -= 100 + len(replace(self, messages=run, clients=()).encode().encode())
        lacking = (client for client in self.clients if client.skip < start + len(run))
        relative = (client._replace(skip=max(0, client.skip - start)) for client in lacking)
        for clients in _fill(relative, room):
            yield replace(self, messages=run, clients=clients)

    def deduplication_id(self, part: int) -> str:
        """The same for the same records, shard, cursor, continuation and part: what a retried dispatch sends again.

        Its number keeps a continuation that got no further from being taken for a repeat of itself, and the kind
        of the shard keeps a dispatch that is repeated after a deploy from being taken for the one before it.
        A formatter may leave ``event_id`` out and send the same payload again and again, so the messages alone
        do not tell such jobs apart: when the job was first made does.
        A batch that comes again is published again, at other positions: they are no part of it.
        """
        contents = ((message.unpublished or message.digest, message.event_id) for message in self.messages)
        ids = [f"{digest} {event_id or self.first_at}" for digest, event_id in contents]
        shard = self.shard or Shard()
        text = json.dumps([ids, shard.index, shard.count, shard.kind, self.cursor, self.continuation, part])
        return sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What can never be delivered, and why. ``content`` is a job, a stream record, or an unreadable body."""

    reason: str
    detail: str
    content: Job | Mapping[str, Any] | str
    last_at: int
    event_id: str = ""
    sequence: str = ""
    keys: Mapping[str, Any] = field(default_factory=dict)
    tenant_attribute: str | None = None

    def encode(self) -> str:
        """The body of the queue message, cut as the rules say."""
        letter = {
            "reason": self.reason,
            "detail": self.detail[:2_000],
            "eventID": self.event_id[:200],
            "sequence": self.sequence[:200],
            "lastAt": self.last_at,
        }
        if self.tenant_attribute is not None:
            letter["tenantAttribute"] = self.tenant_attribute
        match self.content:
            case Job():
                content = self.content._fields()
            case str():
                content = {"body": self.content}
            case _:
                content = {"record": self.content}
        body = _dump({"deadLetter": letter, **content})
        if len(body.encode()) <= MAX_QUEUE_BODY_BYTES:
            return body
        head = _dump(content).encode()[:_TRUNCATED_BYTES].decode(errors="ignore")
        keys = dict(self.keys) if len(_dump(self.keys).encode()) <= _KEYS_BYTES else {}
        return _dump({"deadLetter": letter | {"keys": keys}, "truncated": True, "head": head})


def _client_fields(client: Client) -> dict[str, Any]:
    fields: dict[str, Any] = {"connectionId": client.connection_id}
    if client.skip:
        fields["skip"] = client.skip
    if client.created_at is not None:
        fields["createdAt"] = client.created_at
    return fields


def _dump(value: Any) -> str:
    """Compact JSON with the few characters SQS refuses escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return _NOT_IN_SQS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _runs(messages: tuple[Message, ...]) -> Iterator[tuple[int, tuple[Message, ...]]]:
    """Consecutive messages, as many as fit beside the clients, each run with its position."""
    start, size = 0, 0
    for at, message in enumerate(messages):
        need = len(_dump(message.payload).encode()) + 1
        if at > start and size + need > _MESSAGES_BYTES:
            yield start, messages[start:at]
            start, size = at, 0
        size += need
    yield start, messages[start:]


def _fill(clients: Iterable[Client], room: int) -> Iterator[tuple[Client, ...]]:
    """Clients in groups whose JSON takes at most ``room`` bytes."""
    group: list[Client] = []
    size = 0
    for client in clients:
        need = len(_dump(_client_fields(client)).encode()) + 1
        if group and size + need > room:
            yield tuple(group)
            group, size = [], 0
        group.append(client)
        size += need
    if group:
        yield tuple(group)


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list):
        raise UnreadableJob(f"{key} is not a list")
    return value


def _count(fields: dict[str, Any], key: str, default: int = 0) -> int:
    value = fields.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MAX_COUNT:
        raise UnreadableJob(f"{key} is not a whole number from 0 up")
    return value


def _read_client(fields: Any) -> Client:
    name = fields.get("connectionId") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not name or _SURROGATE.search(name):
        raise UnreadableJob("a client has no connectionId")
    return Client(name, _created_at(fields.get("createdAt")), _count(fields, "skip"))


def _created_at(value: Any) -> int | None:
    """A client without a sensible time counts as old, as its row does."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MAX_COUNT else None


def _read_shard(fields: Any) -> Shard:
    if not isinstance(fields, dict):
        raise UnreadableJob("shard is not a map")
    try:
        kind = ShardKind(fields.get("kind", ShardKind.SEGMENT))
    except ValueError:
        raise UnreadableJob(f"a shard's kind is {' or '.join(ShardKind)}") from None
    shard = Shard(_count(fields, "index"), _count(fields, "count", 1), kind)
    if shard.index >= shard.count:
        raise UnreadableJob(f"shard {shard.index} of {shard.count} does not exist")
    return shard


def _read_message(payload: Any) -> Message:
    if not isinstance(payload, dict):
        raise UnreadableJob("a message is not a map")
    if not is_shallow(payload):
        raise UnreadableJob(f"a message nests deeper than {MAX_DEPTH} levels")
    try:
        return Message.encode(payload)
    except ValueError:
        raise UnreadableJob("a message does not fit in UTF-8 JSON") from None
