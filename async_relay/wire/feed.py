"""The feed: what was published, in the order of publishing, so that a client that was away finds it. Pure.

    bucket    S  the partition: one of a few, since DynamoDB writes one with 1 MB a second at most
    position  S  the sort key: when its messages were published
    messages  S  their payloads, a JSON list
    ttl       N  s

Rules
- A position is 14 characters: the time in ms and the number of the entry in its batch, in base 36, and three more that
  keep entries of the same ms apart. As text, positions sort as time goes.
- The position says which bucket. So two entries that get the same position all the same meet in one, where they are
  not both written: the batch of the second goes back and is published again. Whoever reads goes on behind a position.
- All messages of an entry have its position, in their payload too: clients send it back to say what they have.
- A batch that comes again is published again, at a new position: who reads the feed drops repeats by ``event_id``.
- What was read of the feed may lack an entry for as long as its writing takes (``SETTLED_SECONDS``).

Source: DynamoDB Developer Guide, "Burst and adaptive capacity", for the 1 MB.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import attrgetter
from random import Random
from typing import Any, NamedTuple

from .messages import Message, compact_json

#: Partitions that are written side by side: 4 MB of messages a second are some 6,000.
BUCKETS = ("0", "1", "2", "3")
#: After so many seconds an entry is in the feed or never will be: its relay has given its batch back to the stream.
SETTLED_SECONDS = 10.0
# Bytes of one entry: DynamoDB takes 400 KB, and an answer to a client 128 KB with its own words around it.
_ENTRY_BYTES = 60_000
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Characters of a position: nine of base 36 hold ms until the year 5188.
_TIME, _NUMBER, _APART = 9, 2, 3
_POSITION = re.compile(rf"[0-9a-z]{{{_TIME + _NUMBER + _APART}}}", re.ASCII)
_ENTRIES_IN_A_MS = 36**_NUMBER
#: What a position adds to a message, in bytes.
POSITION_BYTES = len(',"position":""') + _TIME + _NUMBER + _APART


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """Messages that were published together: their payloads, in order; ``text`` is their JSON, where it was at hand."""

    bucket: str
    position: str
    payloads: tuple[dict[str, Any], ...]
    text: str = field(default="", compare=False, repr=False)

    def encode(self) -> str:
        """The attribute ``messages``."""
        return self.text or compact_json(self.payloads).decode()

    @classmethod
    def of(cls, bucket: str, position: str, messages: Iterable[Message]) -> FeedEntry:
        """The entry of messages that have its position already."""
        text = "[" + ",".join(message.body.decode() for message in messages) + "]"
        return cls(bucket, position, tuple(json.loads(text)), text)

    @classmethod
    def decode(cls, bucket: str, position: str, messages: str) -> FeedEntry:
        """The entry of an item; raises ``ValueError`` where it is none of ours."""
        payloads = json.loads(messages)
        if not is_position(position) or not isinstance(payloads, list):
            raise ValueError("not an entry of the feed")
        return cls(bucket, position, tuple(each for each in payloads if isinstance(each, dict)))


def is_position(text: Any) -> bool:
    """Whether a client could have this position from us."""
    return isinstance(text, str) and _POSITION.fullmatch(text) is not None


def position_at(ms: int, number: int = 0, apart: str = "") -> str:
    """The position of entry ``number`` of a batch published at ``ms``; without more, the first there could be."""
    later, number = divmod(number, _ENTRIES_IN_A_MS)
    return _in_base_36(max(0, ms) + later, _TIME) + _in_base_36(number, _NUMBER) + apart.ljust(_APART, "0")


def ms_of(position: str) -> int:
    """When what is at this position was published."""
    return int(position[:_TIME], 36)


def settled_at(now: float) -> str:
    """The position up to which whatever was published is in the feed, at ``now`` (s): a quiet client may go by it.

    It takes no look at the feed.
    """
    return position_at(int((now - SETTLED_SECONDS) * 1000))


def _in_base_36(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


def publish(messages: Sequence[Message], ms: int, random: Random) -> tuple[tuple[Message, ...], list[FeedEntry]]:
    """The messages with their positions as of ``ms``, in place of any of their own, and the entries that hold them."""
    apart = "".join(random.choices(_DIGITS, k=_APART))
    published: list[Message] = []
    entries: list[FeedEntry] = []
    for number, run in enumerate(_runs(messages)):
        position = position_at(ms, number, apart)
        placed = [_placed(message, position) for message in run]
        published += placed
        entries.append(FeedEntry.of(_bucket(number, apart), position, placed))
    return tuple(published), entries


def _bucket(number: int, apart: str) -> str:
    """The bucket of a position: any for a batch's first entry, and the following ones for those behind it."""
    return BUCKETS[(int(apart, 36) + number % _ENTRIES_IN_A_MS) % len(BUCKETS)]


def _placed(message: Message, position: str) -> Message:
    """The message at its position. It stays the message of its record."""
    body = message.body
    if b'"position"' in body or body == b"{}":
        body = compact_json({**message.payload, "position": position})
    else:
        # What was encoded once is not parsed and encoded again: that would cost more than to post it.
        body = b'%s,"position":"%s"}' % (body[:-1], position.encode())
    digest = sha256(body).hexdigest()
    return Message(message.kind, message.event_id, message.sequence, body, digest, unpublished=message.digest)


def _runs(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Consecutive messages, as many as fit one entry and at least one."""
    start, size = 0, 0
    for at, message in enumerate(messages):
        need = len(message.body) + POSITION_BYTES + 1
        if at > start and size + need > _ENTRY_BYTES:
            yield messages[start:at]
            start, size = at, 0
        size += need
    if messages:
        yield messages[start:]


class FeedPage(NamedTuple):
    """Entries of the feed in the order asked for, and whether there are more behind them."""

    entries: Sequence[FeedEntry]
    more: bool


def merged(pages: Iterable[tuple[Sequence[FeedEntry], bool]], *, newest_first: bool) -> FeedPage:
    """One page of a page of each bucket, and of whether that bucket has more: as far as all of them were read."""
    pages = tuple(pages)
    entries = sorted((each for found, _ in pages for each in found), key=attrgetter("position"), reverse=newest_first)
    ends = [found[-1].position for found, more in pages if more and found]
    if ends:
        end = max(ends) if newest_first else min(ends)
        entries = [each for each in entries if (each.position >= end if newest_first else each.position <= end)]
    return FeedPage(entries, bool(ends))
