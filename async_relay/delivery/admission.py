"""Who takes part in a broadcast: rows as they are now, against what is asked of them. Decides, does no I/O.

Rules
- A row whose ``expiresAt`` has come is out: its client gets nothing more, and its connection is closed.
- An index, and a page read a while ago, may be late. So a row that seems to have expired is looked up once more,
  consistently, before anything is closed.
- The clients a job names are looked up before they are served. One without a row is served where rows say nothing
  that matters (``needs_row`` False), and has left otherwise.

``expiresAt`` is in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from ..wire.jobs import Client


class Entry(Enum):
    """What becomes of a client whose row was looked up."""

    #: It is served.
    SERVE = auto()
    #: Its time is over: its connection is closed.
    CLOSE = auto()
    #: It has left, or nothing says what it may have.
    LEAVE_OUT = auto()


@dataclass(frozen=True, slots=True)
class Admission:
    """What is asked of rows: ``by_tenant`` that they name tenants, ``needs_row`` that there is one.

    ``for_all``: tenants and interest are not looked at, since what is sent is for everybody who is connected.
    """

    by_tenant: bool = False
    needs_row: bool = False
    for_all: bool = False

    def decide(self, asked: Client, rows: Mapping[str, Client], now: float) -> tuple[Entry, Client]:
        """What becomes of a client a job or an earlier look at the table named, and the client as its row has it."""
        row = rows.get(asked.connection_id)
        if row is None:
            known = asked.expires_at is not None  # to the table, a moment ago
            return (Entry.LEAVE_OUT if known or self.needs_row else Entry.SERVE), asked
        created_at = asked.created_at if row.created_at is None else row.created_at
        client = row._replace(created_at=created_at, skip=asked.skip)
        return (Entry.CLOSE if has_expired(row.expires_at, now) else Entry.SERVE), client


def has_expired(expires_at: int | None, now: float) -> bool:
    """Whether a client's time is over; ``now`` in seconds since 1970."""
    return expires_at is not None and expires_at <= now
