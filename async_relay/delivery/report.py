"""The report of a broadcast: for each job what was delivered, to whom not, and why. Plain data.

Rules
- A message is refused by all when nobody took it and enough clients refused it for one reason. A
  reason that is about the message whoever gets it (413) needs fewer of them than one that may be
  about the client (400: its id may be malformed).
- While posting goes on it takes more clients than at the end: from then on the message is skipped,
  and a client that would have taken it never gets it.
- At the end all who refused the message must also agree on the reason.

A position is a message's index in its job.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import NamedTuple

from ..errors import PostError, StoreUnavailable, Unavailable
from ..wire.audience import Audience
from ..wire.frames import Frames
from ..wire.jobs import Client, Cursor, Job

#: So many clients with one answer, and nobody with a better one, stand for everybody. One client may be odd, and ten
#: odd ones before the first healthy one are unlikely; ten posts are also few to make in vain.
SAMPLE_SIZE = 10
#: Clients that must answer 400 before a message is skipped while posting goes on. A malformed id answers 400 as well,
#: and such rows may lie side by side in an index: so many, and nobody else, are more than anybody's rubbish.
_REFUSALS_UNDER_WAY = 1_000
#: At the end a single 413 is enough: it is about the message, and nobody is left who may contradict it.
_TOO_LARGE_AT_END = 1


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
    """The outcome of one job.

    ``delivered`` counts the 200s of each message. ``rejected`` has the clients that refused a message, by
    position and reason, and ``blocked`` the reason of a message that is skipped, by position; ``sendable`` has a bit
    for each of the others. ``frames`` makes the posts of clients that read arrays, None: nobody does. ``unread`` says
    that the table was read only as far as ``cursor``, after ``pages`` answers of the table in this broadcast, and
    ``failure`` why, unless it was the deadline. ``expired`` connections were closed, and ``unclosed`` ones not,
    ``closing_error`` being the last reason, unless there was no time for them.
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
    expired: int = 0
    unclosed: int = 0
    closing_error: PostError | None = None
    by_tenant: InitVar[bool] = False
    for_all: InitVar[bool] = False
    frames: Frames | None = None
    audience: Audience = field(init=False)
    sendable: int = field(init=False)

    def __post_init__(self, by_tenant: bool, for_all: bool) -> None:
        """Get ready to say who gets which of the messages; ``by_tenant``: tenants are on; ``for_all``: all get all."""
        self.audience = Audience(self.job.messages, by_tenant=by_tenant, for_all=for_all)
        self.sendable = (1 << len(self.job.messages)) - 1

    def reject(self, connection_id: str, created_at: int | None, position: int, error: PostError) -> None:
        """Note that a client will never take this message."""
        key = (position, error.reason)
        group = self.rejected.get(key)
        if group is None:
            group = self.rejected[key] = Rejected(error, [])
        group.clients.append(Client(connection_id, created_at))

    def block(self, position: int, reason: str) -> None:
        """Send this message to nobody any more."""
        self.blocked[position] = reason
        self.sendable &= ~(1 << position)

    def refused_by_all(self, position: int, reason: str, *, at_end: bool) -> bool:
        """Whether the message itself is wrong, and not some clients that refused it for this reason."""
        if position in self.blocked:
            return self.blocked[position] == reason
        error, clients = self.rejected[position, reason]
        if self.delivered[position] or len(clients) < _refusals_of_all(error, at_end=at_end):
            return False
        return not at_end or all(key == (position, reason) for key in self.rejected if key[0] == position)

    @property
    def rejections(self) -> int:
        """How often a client refused a message for good."""
        return sum(len(group.clients) for group in self.rejected.values())

    def __repr__(self) -> str:
        """A sentence for logs."""
        return (
            f"<{sum(self.delivered)} delivered of {len(self.job.messages)} messages, {self.gone} gone, "
            f"{len(self.undelivered)} undelivered, {self.rejections} rejected{', part unread' * self.unread}>"
        )


def _refusals_of_all(error: PostError, *, at_end: bool) -> int:
    """How many clients must refuse a message with this error before it counts as refused by all."""
    if error.same_for_all:
        return _TOO_LARGE_AT_END if at_end else SAMPLE_SIZE
    return SAMPLE_SIZE if at_end else _REFUSALS_UNDER_WAY


@dataclass(frozen=True, slots=True)
class Report:
    """The outcomes of one broadcast; ``systemic`` is set where nobody could be served, with the reason.

    ``posts`` were sent and ``throttled`` of them answered 429, ``account_throttled`` of those for the account's
    limit, as far as can be told; ``undeleted`` rows of gone clients are still there, for the next broadcast to
    find, and ``unproven`` rows more were not to be deleted while nobody was answered 200. ``rate_limit`` is the
    limit at the end, in posts per second; None: unlimited. ``served_at`` is when the last 200 was seen, in
    milliseconds since 1970; None: there was none.
    """

    outcomes: tuple[Outcome, ...]
    systemic: PostError | Unavailable | None = None
    posts: int = 0
    throttled: int = 0
    account_throttled: int = 0
    most_in_flight: int = 0
    undeleted: int = 0
    unproven: int = 0
    rate_limit: float | None = None
    served_at: int | None = None

    def figures(self) -> dict[str, float]:
        """The report in numbers, by the names the metrics have."""
        figures: dict[str, float] = {
            "delivered": sum(sum(outcome.delivered) for outcome in self.outcomes),
            "gone": sum(outcome.gone for outcome in self.outcomes),
            "expired": sum(outcome.expired for outcome in self.outcomes),
            "unclosed": sum(outcome.unclosed for outcome in self.outcomes),
            "left_over": sum(len(outcome.undelivered) for outcome in self.outcomes),
            "rejected": sum(outcome.rejections for outcome in self.outcomes),
            "posts": self.posts,
            "throttled": self.throttled,
            "account_throttled": self.account_throttled,
            "most_in_flight": self.most_in_flight,
            "undeleted": self.undeleted,
            "unproven": self.unproven,
            "systemic": int(self.systemic is not None),
        }
        # Unlimited is no number: a 0 would pull the metric's average down, so the figure is left out.
        if self.rate_limit is not None:
            figures["rate_limit"] = self.rate_limit
        written = [each.job.written_at for each in self.outcomes if _has_age(each)]
        if written and self.served_at is not None:
            figures["age"] = max(0, self.served_at - min(written)) / 1000
        return figures


def _has_age(outcome: Outcome) -> bool:
    """Whether somebody was served at the first attempt: a retried client's wait is the retry queue's age."""
    return bool(outcome.job.written_at) and not outcome.job.attempt and any(outcome.delivered)
