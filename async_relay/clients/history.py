"""The incidents as they are: what a client shows before the first change reaches it.

    {"action": "subscribe", "limit": 50, "severity": text or list, "status": text or list, "cursor": C}
    {"kind": "incident_history", "incidents": [...], "nextCursor": C' | null, "position": P, "complete": false,
     "again": 0}

Rules
- From the incident table where there is one, newest ``created_at`` first; else from the feed: the newest state of each
  incident, newest change first. ``position`` is there where there is a feed, and was taken before the data was read:
  a client that resumes from it lacks nothing. ``complete`` is there where a bound kept older incidents away.
- ``again`` is there where the client has to resume from that position after so many seconds, since the data was read
  before its row was written, or an index may lack the row: see ``lateness``.
- A page ends at ``limit`` incidents, or where an answer is full; its cursor goes on behind the last one. It says where
  that is and nothing else: whoever forges one gets other incidents of its own, never somebody else's.
- Pages of the feed belong to one moment, that of the first: what changed since comes as a message.
- A filter names the values wanted; an incident without a severity is not of any. Tenants and interest of the row hold
  besides. An incident is judged by its newest state: an older one never shows through.
"""

from __future__ import annotations

import asyncio
import base64
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..settings import Settings
from ..wire.audience import Access
from ..wire.feed import is_position, ms_of, position_at
from ..wire.jobs import Client
from ..wire.messages import compact_json
from .feed_copy import FeedCopy
from .incident_list import IncidentReader, Place
from .kept import ANSWER_BYTES, Kept, fitting, payloads_of
from .lateness import ask_again
from .refusals import CannotAnswer

_MOST, _USUAL = 200, 50
# Values of a filter, and characters of one.
_VALUES, _LONGEST = 50, 256
_LONGEST_CURSOR = 200
_BAD_CURSOR = "The cursor is none of ours; ask again without it."

#: What a cursor holds: the place of the last incident, as its source writes it.
Fields = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What a client wants to see: None is no filter."""

    limit: int
    severity: frozenset[str] | None
    status: frozenset[str] | None
    cursor: Fields | None

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Question:
        """The question of a request; raises ``CannotAnswer``."""
        limit = fields.get("limit", _USUAL)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _MOST:
            raise CannotAnswer(f"The limit must be a whole number from 1 to {_MOST}.")
        return cls(limit, _values(fields, "severity"), _values(fields, "status"), _cursor(fields.get("cursor")))

    def asks_for(self, kept: Kept) -> bool:
        """Whether it is of what the filters want."""
        return all(
            wanted is None or kept.labels.get(key) in wanted
            for key, wanted in (("severity", self.severity), ("status", self.status))
        )


def _values(fields: Mapping[str, Any], name: str) -> frozenset[str] | None:
    value = fields.get(name)
    if value is None or value in ("", []):
        return None
    values = value if isinstance(value, list) else [value]
    if len(values) > _VALUES or not all(isinstance(each, str) and len(each) <= _LONGEST for each in values):
        raise CannotAnswer(f"The {name} must be text, or a list of at most {_VALUES} texts.")
    return frozenset(values)


def _cursor(text: Any) -> Fields | None:
    if text is None:
        return None
    fields: Fields | None = None
    # What decodes to the same fields and is another text was not written here.
    with suppress(ValueError, RecursionError):
        if isinstance(text, str) and len(text) <= _LONGEST_CURSOR and text.isascii():
            found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            fields = tuple(found) if isinstance(found, list) and _written(tuple(found)) == text else None
    if fields is None:
        raise CannotAnswer(_BAD_CURSOR)
    return fields


def _written(fields: Fields) -> str:
    return base64.urlsafe_b64encode(compact_json(fields)).decode().rstrip("=")


class _Page:
    """The incidents of one answer."""

    def __init__(self, question: Question, client: Client, *, by_tenant: bool) -> None:
        self.full = False
        self._question = question
        self._access = client.access or Access()
        self._by_tenant = by_tenant
        self._kept: list[Kept] = []
        self._size = 0

    def wants(self, kept: Kept) -> bool:
        """Whether the client may have an incident, and asks for it."""
        return self._question.asks_for(kept) and kept.wanted_by(self._access, by_tenant=self._by_tenant)

    def takes(self, kept: Kept) -> bool:
        """Add an incident; False where the page is full."""
        size = len(kept.body) + 1
        self.full = len(self._kept) == self._question.limit or (bool(self._kept) and self._size + size > ANSWER_BYTES)
        if not self.full:
            self._kept.append(kept)
            self._size += size
        return not self.full

    def answer(self, cursor: Fields | None, position: str | None, *, complete: bool) -> dict[str, Any]:
        """The answer; ``cursor`` is the place of the last incident, used where there are more."""
        incidents = payloads_of(self._kept)
        if self._size > ANSWER_BYTES:
            incidents = fitting(incidents)
        return {
            "kind": "incident_history",
            "incidents": incidents,
            "nextCursor": _written(cursor) if self.full and cursor is not None else None,
            **({} if position is None else {"position": position}),
            **({} if complete else {"complete": False}),
        }


async def from_table(
    fields: Mapping[str, Any], client: Client, reader: IncidentReader, settings: Settings, now: float, until: float
) -> Mapping[str, Any]:
    """The answer from the incident table as of ``now`` (s), read until then of the loop's clock at most."""
    question = Question.read(fields)
    after = None if question.cursor is None else _place(question.cursor)
    found = await reader.list(until)
    page = _Page(question, client, by_tenant=settings.by_tenant)
    start = 0 if after is None else bisect_right(found.incidents, after, key=attrgetter("place"))
    # Of the first page, whose incidents the later ones are added to.
    position = found.position if question.cursor is None else min(found.position, question.cursor[-1])
    last: Fields | None = None
    for place, kept in found.incidents[start:]:
        if not page.wants(kept):
            continue
        if not page.takes(kept):
            break
        last = ("t", place.undated, place.age, place.tie, position)
    again = ask_again(client, settings, now, ms_of(position) / 1000)
    return page.answer(last, position if settings.feed_table is not None else None, complete=found.complete) | again


def _place(cursor: Fields) -> Place:
    match cursor:
        case ("t", bool(undated), int(age), str(tie), str(position)) if not isinstance(age, bool):
            if is_position(position) and abs(age) < 2**63:
                return Place(undated, age, tie)
    raise CannotAnswer(_BAD_CURSOR)


async def from_feed(
    fields: Mapping[str, Any], client: Client, copy: FeedCopy, settings: Settings, now: float, until: float
) -> Mapping[str, Any]:
    """The answer from the feed as of ``now`` (s), read until then of the loop's clock at most."""
    question = Question.read(fields)
    after = None if question.cursor is None else _change(question.cursor)
    await copy.look(client.created_at, until)
    oldest = position_at(int((now - settings.feed_hours * 3600) * 1000))
    moment = after.moment if after is not None else "~"
    while True:
        page = _Page(question, client, by_tenant=settings.by_tenant)
        last = _fill(page, copy, after, moment, oldest)
        whole = copy.covers(oldest)
        if page.full or whole or asyncio.get_running_loop().time() >= until or not await copy.reach(oldest):
            break
    position = copy.bound if after is None else min(copy.bound, after.moment)
    again = ask_again(client, settings, ms_of(copy.bound) / 1000)
    return page.answer(last, position, complete=page.full or whole) | again


@dataclass(frozen=True, slots=True)
class _Change:
    """A state of an incident in the feed, and the newest entry of the moment that the pages belong to."""

    position: str
    number: int
    moment: str


def _change(cursor: Fields) -> _Change:
    match cursor:
        case ("f", str(position), int(number), str(moment)) if not isinstance(number, bool):
            if is_position(position) and is_position(moment) and 0 <= number < 2**63:
                return _Change(position, number, moment)
    raise CannotAnswer(_BAD_CURSOR)


def _fill(page: _Page, copy: FeedCopy, after: _Change | None, moment: str, oldest: str) -> Fields | None:
    """Fill a page with the newest states at ``moment`` that are behind ``after``; returns the place of the last one."""
    newest: set[bytes] = set()
    last: Fields | None = None
    for position, number, kept in _states(copy, moment, oldest):
        if moment == "~":
            moment = position
        if kept.state_of in newest or kept.state_of is None:
            continue
        newest.add(kept.state_of)
        if after is not None and (position, number) >= (after.position, after.number):
            continue
        if not page.wants(kept):
            continue
        if not page.takes(kept):
            break
        last = ("f", position, number, moment)
    return last


def _states(copy: FeedCopy, moment: str, oldest: str) -> Iterator[tuple[str, int, Kept]]:
    """The messages up to a moment, newest first, each with its entry's position and its number in it."""
    for entry in copy.newest_first(moment + "0"):
        if entry.position < oldest:
            return
        for number in range(len(entry.messages) - 1, -1, -1):
            yield entry.position, number, entry.messages[number]
