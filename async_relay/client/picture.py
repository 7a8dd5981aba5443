"""The picture: the newest state of each incident, and which messages are news. Pure.

Rules
- A message is news once: repeats have the same ``event_id``, of which a bounded number is kept.
- Of an incident only a newer state is news, by ``sequence`` and, where one of the two has none, by ``updated_at``.
  Where nobody can say which is newer, what came last counts.
- What is no text or number, as an ``incident_id`` that is a list, is known by its JSON; a ``sequence`` that is no text
  orders nothing. A message that raised would be lost, and its connection.
- An item of the table, which a history may bring, and the newest message are kept apart: what the message does not
  carry stays as the item has it.
- An incident that a history no longer names is not shown, but what is known of it still says what is old.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from types import MappingProxyType
from typing import Any, TypeVar

Message = Mapping[str, Any]

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
#: A number below is seconds and not milliseconds: it would be a time in the year 1973.
_MILLISECONDS = 1e11
_Key = TypeVar("_Key")


class News(Enum):
    """What a message is to the picture."""

    NEWS = "news"
    STALE = "stale"
    REPEATED = "repeated"


@dataclass(slots=True)
class _Known:
    item: Message | None = None
    message: Message | None = None


class Picture:
    """What a client has seen; ``memory`` bounds the ids and the incidents it keeps, of which the oldest go."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._seen: dict[str, None] = {}
        self._known: dict[Any, _Known] = {}
        self._shown: dict[Any, Message] = {}
        #: The newest state of each incident, the one that changed last at the end.
        self.incidents: Mapping[Any, Message] = MappingProxyType(self._shown)

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self._shown)} incidents, {len(self._seen)} messages seen>"

    def take(self, message: Message) -> News:
        """Take in a message, wherever it comes from."""
        event, incident = _key(message.get("event_id")), _key(message.get("incident_id"))
        if event:
            if event in self._seen:
                return News.REPEATED
            self._seen[event] = None
            self._bound(self._seen)
        return News.NEWS if incident is None else self._take_state(incident, message)

    def _take_state(self, incident: Any, message: Message) -> News:
        known = self._known.get(incident, _Known())
        order = 1 if known.message is None else compare(message, known.message)
        if order == 0 and message.get("sequence"):
            return News.REPEATED
        if order is None or order >= 0:
            known.message = message
        if (order is not None and order < 0) or _is_older(message, known.item):
            return News.STALE
        self._show(incident, known, {**(known.item or {}), **message})
        return News.NEWS

    def begin_anew(self) -> None:
        """Show no incident until a history names it."""
        self._shown.clear()

    def read(self, found: Sequence[Message]) -> None:
        """Take in a history: states as they were published, or as the table has them."""
        # The newest come first, and are to be forgotten last.
        for each in reversed(found):
            incident = _key(each.get("incident_id"))
            known = self._known.get(incident, _Known())
            if each.get("sequence"):
                if not _is_older(each, known.message):
                    known.message = each
            elif not _is_older(each, known.item):
                known.item = each
            self._show(incident, known, _view(known, published=bool(each.get("sequence"))))

    def _show(self, incident: Any, known: _Known, now: Message) -> None:
        for where in (self._known, self._shown):
            where.pop(incident, None)
        self._known[incident] = known
        self._shown[incident] = now
        self._shown.pop(self._bound(self._known), None)

    def _bound(self, kept: dict[_Key, Any]) -> _Key | None:
        if len(kept) <= self._memory:
            return None
        oldest = next(iter(kept))
        del kept[oldest]
        return oldest


def _key(value: Any) -> Any:
    """The value as a key of a map."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _view(known: _Known, *, published: bool) -> Message:
    if known.item is None or known.message is None:
        return known.item or known.message or {}
    order = compare(known.message, known.item)
    if order is None:
        order = 1 if published else -1
    return {**known.item, **known.message} if order >= 0 else known.item


def _is_older(one: Message, other: Message | None) -> bool:
    order = None if other is None else compare(one, other)
    return order is not None and order < 0


def compare(one: Message, other: Message) -> int | None:
    """Below 0: ``one`` is older; above: it is newer; None: nobody can say."""
    first, second = one.get("sequence"), other.get("sequence")
    if first and second and isinstance(first, str) and isinstance(second, str):
        return _sign((len(first), first), (len(second), second))
    times = [_instant(each.get("updated_at")) for each in (one, other)]
    if times[0] is None or times[1] is None:
        return None
    # The texts know more digits than the times.
    return _sign(*times) or _sign(str(one["updated_at"]), str(other["updated_at"]))


def _sign(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def _instant(value: Any) -> float | None:
    """In ms: an ISO time, or seconds, or ms; without a zone it is UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value * 1_000 if value < _MILLISECONDS else value
    if not isinstance(value, str) or _TIME.fullmatch(value) is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return None
    zoned = time if time.tzinfo else time.replace(tzinfo=UTC)
    return zoned.timestamp() * 1_000 // 1


def further(one: str | None, other: Any) -> str | None:
    """Which of two positions is ahead; of two that cannot be compared, the one that came last."""
    if not isinstance(other, str):
        return one
    return one if one is not None and len(one) == len(other) and one > other else other
