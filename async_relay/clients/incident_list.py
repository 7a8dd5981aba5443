"""The incidents of the incident table, newest first: one read serves all who ask within a few seconds.

Rules
- A read is bounded, in bytes and in time; where a bound was reached, the list says that it is not complete.
- The list's position is taken before the table is read: what was published up to it is in the list.
- Clients get what the formatter lets out of an item: the whole item with the built-in one, and else the payload that
  the owner's makes of it. But a ``sequence`` of the item's own stays here: clients would compare it with the Stream's,
  and take every change to come for an older one. An item it makes no incident of, or cannot read, is left out.
- Newest is by ``created_at``: ISO 8601 text, or a number of seconds or milliseconds since 1970, also as text. An item
  with any other comes last.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from operator import attrgetter
from typing import Any, NamedTuple

from ..delivery.protocols import IncidentTable
from ..errors import StoreUnavailable, UndecodableRecord
from ..settings import Settings
from ..wire.feed import position_at
from ..wire.formatter import format_message, with_tenant
from ..wire.incidents import format_item
from ..wire.messages import compact_json
from ..wire.rows import END_OF_TIME
from .kept import ANSWER_BYTES, Kept, Labels, shortened

_log = logging.getLogger("async_relay")

# Seconds for which a list serves everybody.
_SHARED = 5.0
# Bytes of memory of a list: the newest incidents of a screen are found in much less, where an index has them in order.
ROOM = 8 * 1024 * 1024
# Seconds since 1970 have ten digits until 2286, milliseconds thirteen.
_MILLISECONDS_FROM = 100_000_000_000
_NUMBER = re.compile(r"[0-9]{9,14}(\.[0-9]{1,9})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Bytes of an item's part in the order of those of one moment: enough to tell items apart.
_TIE = 8


class Place(NamedTuple):
    """Where an item stands in the list: dated ones first, the newest first, and those of one moment in any order."""

    undated: bool
    age: int
    tie: str


class Listed(NamedTuple):
    """An incident and its place."""

    place: Place
    kept: Kept


@dataclass(frozen=True, slots=True)
class IncidentList:
    """The incidents, newest first, as they were when everything up to ``position`` was published."""

    position: str
    incidents: Sequence[Listed]
    complete: bool


class IncidentReader:
    """Reads the incident table for all clients of a sandbox."""

    def __init__(
        self,
        open_table: Callable[[], Awaitable[IncidentTable | None]],
        clock: Callable[[], float],
        settings: Settings,
        *,
        room: int = ROOM,
    ) -> None:
        """``clock`` gives seconds since 1970, ``room`` is how many bytes a list may take."""
        self._open_table = open_table
        self._clock = clock
        self._settings = settings
        self._formatter = with_tenant(settings.message_formatter, settings.tenant_attribute)
        self._room = room
        self._table: IncidentTable | None = None
        self._reads = asyncio.Lock()
        self._began = 0.0
        self._list: IncidentList | None = None
        self._labels = Labels()

    async def list(self, until: float) -> IncidentList:
        """The list of a moment ago, or a new one, read until then of the loop's clock; ``StoreUnavailable``."""
        async with self._reads:
            now = self._clock()
            if self._list is None or not 0 <= now - self._began < _SHARED:
                self._list = None
                self._list = await self._read(now, until)
                self._began = now
            return self._list

    async def _read(self, now: float, until: float) -> IncidentList:
        if self._table is None:
            self._table = await self._open_table()
            if self._table is None:
                raise StoreUnavailable("there is no incident table")
        incidents: list[Listed] = []
        size, cursor = 0, None
        while True:
            items, cursor = await self._table.read(cursor)
            found = list(self._listed(items))
            incidents += found
            size += sum(each.kept.size for each in found)
            if cursor is None or size > self._room or asyncio.get_running_loop().time() >= until:
                break
        incidents.sort(key=attrgetter("place"))
        return IncidentList(position_at(int(now * 1000)), incidents, complete=cursor is None)

    def _listed(self, items: Sequence[Mapping[str, Any]]) -> Iterator[Listed]:
        left_out = 0
        for item in items:
            try:
                listed = self._listed_item(dict(item))
            except (UndecodableRecord, ValueError):
                left_out += 1
            else:
                if listed is not None:
                    yield listed
        if left_out:
            _log.warning("%d items of the incident table are left out: they cannot be read", left_out)

    def _listed_item(self, item: dict[str, Any]) -> Listed | None:
        created_at, incident_id = item.get("created_at"), item.get("incident_id")
        tie = _digest(incident_id) + _digest(item)
        form = self._form(dict(item))
        if form is None:
            return None
        whole = form
        if self._settings.message_formatter is format_item:
            if form["kind"] != "incident_update":
                return None
            whole = {key: value for key, value in item.items() if key != "sequence"} | {"resource": form["resource"]}
        return Listed(_place(created_at, tie), Kept(_body(whole, form), self._labels.of(form)))

    def _form(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """The payload of the message about the item."""
        message = format_message(self._formatter, item, "", "")
        if message is None:
            return None
        payload: dict[str, Any] = message.payload
        return {key: value for key, value in payload.items() if key not in ("event_id", "sequence") or value}


def _body(whole: Mapping[str, Any], form: Mapping[str, Any]) -> bytes:
    """The item whole, or where no answer could hold it in the message's form."""
    body = compact_json(whole)
    if len(body) < ANSWER_BYTES:
        return body
    body = compact_json({**form, "truncated": True})
    return body if len(body) < ANSWER_BYTES else compact_json(shortened(form))


def _digest(value: Any) -> str:
    return sha256(compact_json(value)).hexdigest()[: 2 * _TIE]


def _place(created_at: Any, tie: str) -> Place:
    moment = microsecond_of(created_at)
    return Place(undated=True, age=0, tie=tie) if moment is None else Place(undated=False, age=-moment, tie=tie)


def microsecond_of(created_at: Any) -> int | None:
    """The microsecond since 1970 of a time; None where it is none."""
    if isinstance(created_at, str):
        text = created_at.strip()
        return _of_number(float(text)) if _NUMBER.fullmatch(text) else _of_iso(text)
    if isinstance(created_at, int | float) and not isinstance(created_at, bool):
        return _of_number(created_at)
    return None


def _of_number(number: float) -> int | None:
    seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
    return int(seconds * 1_000_000) if 0 < seconds < END_OF_TIME else None


def _of_iso(text: str) -> int | None:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return (moment - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
