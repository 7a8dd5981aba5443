"""What a broadcast comes to: for each job what was delivered, to whom not, and why. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from ..errors import PostError, StoreUnavailable, Unavailable
from ..wire.jobs import Client, Cursor, Job


class Undelivered(NamedTuple):
    """A client that still lacks its messages from ``client.skip`` on; without ``error`` it was never tried."""

    client: Client
    error: PostError | None


class Rejected(NamedTuple):
    """The clients that will never take one message, for one reason; ``error`` is the first one's answer."""

    error: PostError
    clients: list[Client]


@dataclass(slots=True)
class Outcome:
    """What came of one job.

    ``delivered`` counts the 200s of each message. ``rejected`` has who refused it, by position and
    reason, and ``blocked`` the reason of a message that nobody takes, by position. ``unread`` says that
    the table was read only as far as ``cursor``, after ``pages`` pages in this broadcast, and ``failure``
    why, unless it was the deadline.
    """

    job: Job
    delivered: list[int]
    gone: int = 0
    undelivered: list[Undelivered] = field(default_factory=list)
    rejected: dict[tuple[int, str], Rejected] = field(default_factory=dict)
    blocked: dict[int, str] = field(default_factory=dict)
    unread: bool = False
    cursor: Cursor | None = None
    pages: int = 0
    failure: StoreUnavailable | None = None

    def reject(self, connection_id: str, created_at: int | None, position: int, error: PostError) -> int:
        """Note that a client will never take this message; returns how many say so for the same reason."""
        key = (position, error.reason)
        group = self.rejected.get(key)
        if group is None:
            group = self.rejected[key] = Rejected(error, [])
        group.clients.append(Client(connection_id, created_at))
        return len(group.clients)

    @property
    def rejections(self) -> int:
        """How often a client refused a message for good."""
        return sum(len(group.clients) for group in self.rejected.values())

    def __repr__(self) -> str:
        """A sentence for logs."""
        return (
            f"<{sum(self.delivered)} delivered of {len(self.job.messages)} messages, {self.gone} gone, "
            f"{len(self.undelivered)} left over, {self.rejections} rejected{', part unread' * self.unread}>"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one broadcast; ``systemic`` is set where nobody could be served, with the reason.

    ``posts`` were sent and ``throttled`` of them answered 429; ``undeleted`` rows of gone clients
    are still there, for the next broadcast to find, and ``unproven`` rows more were not to be deleted
    while nobody was answered 200. ``rate_limit`` is the limit at the end, in posts a second; None:
    unlimited.
    """

    outcomes: tuple[Outcome, ...]
    systemic: PostError | Unavailable | None = None
    posts: int = 0
    throttled: int = 0
    most_in_flight: int = 0
    undeleted: int = 0
    unproven: int = 0
    rate_limit: float | None = None
