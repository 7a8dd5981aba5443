"""What a broadcast comes to: for each job what was delivered, to whom not, and why. Plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import PostError, Unavailable
from .jobs import Client, Cursor, Job


class Leftover(NamedTuple):
    """A client that still lacks its messages from ``client.skip`` on; without ``error`` it was never tried."""

    client: Client
    error: PostError | None


class Rejected(NamedTuple):
    """A message that one client will never take: 400 or 413."""

    client: Client
    position: int
    error: PostError


@dataclass(slots=True)
class Outcome:
    """What came of one job.

    ``delivered`` counts the 200s of each message, ``too_large`` the 413s of one that nobody got yet.
    ``blocked`` are the positions of messages that are too large for everybody. ``unread`` says that
    the table was read only as far as ``cursor``.
    """

    job: Job
    delivered: list[int]
    gone: int = 0
    leftovers: list[Leftover] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    too_large: Counter[int] = field(default_factory=Counter)
    blocked: set[int] = field(default_factory=set)
    unread: bool = False
    cursor: Cursor | None = None

    def __repr__(self) -> str:
        """A sentence for logs."""
        return (
            f"<{sum(self.delivered)} delivered of {len(self.job.messages)} messages, {self.gone} gone, "
            f"{len(self.leftovers)} left over, {len(self.rejected)} rejected{', part unread' * self.unread}>"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one broadcast; ``systemic`` is set where nobody could be served, with the reason.

    ``posts`` were sent and ``throttled`` of them answered 429; ``undeleted`` rows of gone clients
    are still there, for the next broadcast to find. ``rate_limit`` is the limit at the end, in posts
    a second; None: unlimited.
    """

    outcomes: tuple[Outcome, ...]
    systemic: PostError | Unavailable | None = None
    posts: int = 0
    throttled: int = 0
    most_in_flight: int = 0
    undeleted: int = 0
    rate_limit: float | None = None
