"""What a client missed: the messages published since the position it names. Reads the feed, and nothing else.

    {"action": "resume", "position": P, "parked": false}
    {"kind": "replay", "messages": [...], "position": P', "recovered": true, "more": true | false, "again": 5}
    {"kind": "replay", "recovered": false}            P is none of ours, too old, or of a time to come: never a part

Rules
- P says: everything published up to P I have, or it was on its way to me. What was on its way may have been parked
  for a connection that is no more, so the replay begins before P by as long as a message can be parked.
- ``"parked": false`` says that no message can have been parked for an earlier connection: the replay begins only as
  long before P, and before this connection, as it takes to publish. So a client asks that got P a moment ago, when it
  is told to ask ``again`` after so many seconds: see ``lateness``.
- While there is more, the position continues exactly: it says where the replay began, and that this connection asked
  for it a moment ago. On another connection, or later, it is a plain one: what came to the feed late was sent to the
  connection that was.
- An event comes once per replay, however often it was published. Only where the feed since the beginning does not fit
  the sandbox's copy may one that was published twice, far apart, come twice.
- Nobody gets more than its row says: tenants and interest decide as they do when messages are broadcast.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ..delivery.backoff import queue_delay
from ..settings import Settings
from ..wire.audience import Access
from ..wire.feed import SETTLED_SECONDS, is_position, ms_of, position_at
from ..wire.jobs import Client
from .feed_copy import FeedCopy, KeptEntry
from .kept import ANSWER_BYTES, Kept, fitting, payloads_of
from .lateness import ask_again

NOT_RECOVERED: Mapping[str, Any] = {"kind": "replay", "recovered": False}
# Seconds an invocation takes at most, each of which may hold a message back before it is parked again.
_INVOCATION = 60.0
# Seconds a job stays hidden when its worker crashes (the queues' visibility timeout), which counts no attempt; twice.
_CRASHES = 2 * 360.0
# Seconds by which the clocks of those who publish may differ from ours.
_CLOCKS = 60.0
# Seconds for which a position continues a replay exactly.
_CONTINUES = 60.0
# Seconds a replay may take, from its first page to its last.
_REPLAY = 600.0
# Pages of the feed itself read for one answer: where nearly nothing is for the client, it asks again sooner.
_PAGES = 8
# P, and in base 36 when it was handed out, where its replay began (nine characters each), and to whom (seven).
_CONTINUING = re.compile(
    r"(?P<position>[0-9a-z]{14})\.(?P<issued>[0-9a-z]{9})(?P<start>[0-9a-z]{9})(?P<whose>[0-9a-z]{7})"
)


def overlap(settings: Settings) -> float:
    """Seconds for which a message can be parked before it is delivered, or a dead letter."""
    attempts = settings.max_delivery_attempts
    delays = sum(queue_delay(attempt, settings.retry_backoff_seconds) for attempt in range(1, attempts + 1))
    return delays + (attempts + 1) * _INVOCATION + _CRASHES + _CLOCKS


@dataclass(frozen=True, slots=True)
class _Replay:
    """From ``start`` on, of which the client has what is up to ``position``."""

    start: str
    position: str


async def resume(
    fields: Mapping[str, Any], client: Client, copy: FeedCopy, settings: Settings, now: float, until: float
) -> Mapping[str, Any]:
    """The answer to a client, as of ``now`` (s); what it can do without is read until then of the loop's clock."""
    replay = _asked(fields, client, settings, now)
    if replay is None:
        return NOT_RECOVERED
    await copy.look(client.created_at, until)
    while not copy.covers(replay.start) and asyncio.get_running_loop().time() < until:
        if not await copy.reach(replay.start):
            break
    page = _Page(client.access or Access(), by_tenant=settings.by_tenant)
    page.passed(_between(copy.after(replay.start), replay.position))
    end = await _fill(page, copy, replay.position, until)
    position = copy.bound if end is None else _continuing(end, now, replay.start, client)
    return _answer(page, position, more=end is not None) | ask_again(client, settings, ms_of(copy.bound) / 1000)


def _asked(fields: Mapping[str, Any], client: Client, settings: Settings, now: float) -> _Replay | None:
    """The replay a position asks for; None where it cannot be had whole."""
    oldest = now - settings.feed_hours * 3600
    position = fields.get("position")
    text = position if isinstance(position, str) else ""
    continuing = _CONTINUING.fullmatch(text)
    plain = continuing["position"] if continuing else text
    if not is_position(plain) or ms_of(plain) / 1000 > now + _CLOCKS:
        return None
    came_back = fields.get("parked") is not False
    parked = overlap(settings) if came_back else SETTLED_SECONDS + _CLOCKS
    if continuing and _is_exact(continuing, client, now):
        start = position_at(int(continuing["start"], 36))
        # A replay takes its time, while the feed moves on.
        whole = oldest - min(parked + _REPLAY, 3600) <= ms_of(start) / 1000 and start <= plain
        return _Replay(start, plain) if whole else None
    # An hour more is kept than FEED_HOURS, so that what precedes the oldest position is there.
    if ms_of(plain) / 1000 < oldest or parked > 3600 + ms_of(plain) / 1000 - oldest:
        return None
    since = ms_of(plain) if came_back else min(ms_of(plain), _came(client, now))
    start = position_at(int(since - parked * 1000))
    return _Replay(start, start)


def _came(client: Client, now: float) -> float:
    """When the client's connection was made, in ms, if that was not long ago."""
    made = client.created_at
    return made if made is not None and made / 1000 > now - _REPLAY else math.inf


def _is_exact(continuing: re.Match[str], client: Client, now: float) -> bool:
    age = now - int(continuing["issued"], 36) / 1000
    return abs(age) <= _CONTINUES and continuing["whose"] == _whose(client)


def _continuing(position: str, now: float, start: str, client: Client) -> str:
    return f"{position}.{position_at(int(now * 1000))[:9]}{start[:9]}{_whose(client)}"


def _whose(client: Client) -> str:
    """The connection, in few characters: who forges them fools itself alone."""
    return position_at(crc32(client.connection_id.encode()))[2:9]


class _Page:
    """One answer's messages; what the client does not get is left out, and repeats."""

    def __init__(self, access: Access, *, by_tenant: bool) -> None:
        self.messages: list[Kept] = []
        self._access = access
        self._by_tenant = by_tenant
        self._seen: set[str] = set()
        self.size = 0

    def passed(self, entries: Iterable[KeptEntry]) -> None:
        """Note what earlier pages of the replay had."""
        for entry in entries:
            self._mine(entry)

    def takes(self, entry: KeptEntry) -> bool:
        """Add what the client gets of an entry; False where it does not fit any more."""
        mine = self._mine(entry)
        size = sum(len(each.body) + 1 for each in mine)
        if self.messages and self.size + size > ANSWER_BYTES:
            return False
        self.size += size
        self.messages += mine
        return True

    def _mine(self, entry: KeptEntry) -> list[Kept]:
        """What the client gets of an entry and had not had."""
        mine = []
        for each in entry.messages:
            if each.event_id in self._seen or not each.wanted_by(self._access, by_tenant=self._by_tenant):
                continue
            if each.event_id:
                self._seen.add(each.event_id)
            mine.append(each)
        return mine


async def _fill(page: _Page, copy: FeedCopy, position: str, until: float) -> str | None:
    """Fill a page with what is behind ``position``; returns where it ends, None where nothing is behind it.

    Of the feed itself at least a page is read, and no more after ``until`` of the loop's clock.
    """
    for _ in range(_PAGES):
        if copy.covers(position):
            return _fill_from(page, copy.after(position), position)[1]
        since = copy.since
        entries, more = await copy.read(position, since)
        position, cut = _fill_from(page, entries, position)
        if cut is not None:
            return cut
        if not more and copy.since == since:
            return _fill_from(page, copy.after(position), position)[1]
        if asyncio.get_running_loop().time() >= until:
            break
    return position


def _fill_from(page: _Page, entries: Sequence[KeptEntry], position: str) -> tuple[str, str | None]:
    """Add entries; returns the position of the last one, and once more where there was no room for all of them."""
    for entry in entries:
        if not page.takes(entry):
            return position, position
        position = entry.position
    return position, None


def _between(entries: Sequence[KeptEntry], end: str) -> Iterable[KeptEntry]:
    """The entries up to a position."""
    for entry in entries:
        if entry.position > end:
            return
        yield entry


def _answer(page: _Page, position: str, *, more: bool) -> dict[str, Any]:
    messages = payloads_of(page.messages)
    if page.size > ANSWER_BYTES:
        messages = fitting(messages)
    return {"kind": "replay", "messages": messages, "position": position, "recovered": True, "more": more}
