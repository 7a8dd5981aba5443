"""The dead letters a command applies to: by ids, by filters, or all of them. Pure.

Rules
- A filter that is given must match; several filters must all match; a repeated one may match either way.
- ``since`` and ``until`` look at a dead letter's last time. A time is an age (``90s``, ``15m``, ``2h``, ``3d``)
  or ISO 8601, in UTC unless it says otherwise.
- An id may be cut to what is still unique, at least four characters. An unknown one fails the command
  before it does anything.
- Oldest first; ``limit`` keeps the oldest. Those of a FIFO queue stay in the order they were read in.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from .failure import FAILED, USAGE, CommandError
from .parsing import ParsedDeadLetter

_AGE = re.compile(r"([0-9]{1,9})([smhd])")
_UNIT_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
#: Fewer characters than this hit a message by chance, and a discard is for good.
_SHORTEST_ID = 4


@dataclass(frozen=True, slots=True)
class Selection:
    """The ids and filters of the command line."""

    ids: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    event_id: str | None = None
    client: str | None = None
    incident: str | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = None

    @property
    def filtered(self) -> bool:
        """True where a filter narrows it; ``limit`` is none."""
        given = (self.event_id, self.client, self.incident, self.since, self.until)
        return bool(self.reasons) or any(each is not None for each in given)

    def matches(self, dead_letter: ParsedDeadLetter) -> bool:
        """True where every filter matches."""
        at = dead_letter.last_at or dead_letter.sent_at or 0
        return (
            (not self.ids or any(dead_letter.message_id.startswith(each) for each in self.ids))
            and (not self.reasons or dead_letter.reason in self.reasons)
            and (self.event_id is None or any(event.event_id == self.event_id for event in dead_letter.events))
            and (self.client is None or self.client in dead_letter.clients)
            and (self.incident is None or any(event.incident == self.incident for event in dead_letter.events))
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )

    def pick(self, dead_letters: Iterable[ParsedDeadLetter], *, in_order: bool = False) -> list[ParsedDeadLetter]:
        """The dead letters that match, at most ``limit``: oldest first, or as they are where they are ``in_order``."""
        matching = list(filter(self.matches, dead_letters))
        if not in_order:
            matching.sort(key=lambda dead_letter: (dead_letter.last_at or 0, dead_letter.message_id))
        return matching[: self.limit]

    def check(self, known: Collection[str]) -> None:
        """Raise ``CommandError`` for an id that names no message, or more than one."""
        for each in self.ids:
            matches = sum(message_id.startswith(each) for message_id in known)
            if not matches:
                raise CommandError(
                    f"no message in the queue has the id {each!r}: see dead-letters list "
                    "(or another reader holds it just now, or it waits behind others of its FIFO group: try again)",
                    FAILED,
                )
            if matches > 1:
                raise CommandError(f"{matches} messages have an id that starts with {each!r}: give more of it", USAGE)


def check_ids(ids: Iterable[str]) -> tuple[str, ...]:
    """The ids, each once; raises ``CommandError`` for one too short to mean one message."""
    for each in ids:
        if len(each) < _SHORTEST_ID:
            raise CommandError(f"the id {each!r} is too short: give at least {_SHORTEST_ID} characters", USAGE)
    return tuple(dict.fromkeys(ids))


def id_length(known: Collection[str]) -> int:
    """How many characters, eight or more, tell the ids apart."""
    longest = max(map(len, known), default=8)
    return next(
        (size for size in range(8, longest) if len({each[:size] for each in known}) == len(set(known))), longest
    )


def parse_age(option: str, text: str) -> int:
    """Milliseconds of an age like ``2h``; raises ``CommandError``."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise CommandError(f"{option} is {text!r}; it must be an age like 90s, 15m, 2h or 3d", USAGE)
    return int(match[1]) * _UNIT_MS[match[2]]


def parse_time(option: str, text: str, now: int) -> int:
    """Milliseconds since 1970 of an age or a time; raises ``CommandError``."""
    if _AGE.fullmatch(text.strip()):
        return now - parse_age(option, text)
    try:
        at = datetime.fromisoformat(text.strip())
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)
    except (ValueError, OverflowError):
        expected = "an age like 2h or a time like 2025-01-31 or 2025-01-31T12:00Z"
        raise CommandError(f"{option} is {text!r}; it must be {expected}", USAGE) from None
