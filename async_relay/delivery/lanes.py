"""One lane a client, and what the answer to its post means for it. Decides, does no I/O.

Rules (API Gateway Management API, PostToConnection, "Errors")
- Temporary: tried again after a backoff, ``MAX_TRIES`` times at one message, then left over. Without
  a queue that would take it (``persistent``), until the deadline.
- 410: gone, unless the row is so young that the handshake may still be finishing.
- 429: tried again after a backoff that grows with the refusals in a row. It counts as a try unless
  the account's limit may well have caused it: see ``rate``.
- 403: the client's own while others are served; systemic when the first ten distinct clients have it,
  or all that is left at the end, and nobody got a 200, those in flight then included. A client that a
  retry job says was forbidden while others were served has been judged already.
- No connection ever opened: systemic after ten such posts, or two for one client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from random import Random

from ..errors import Forbidden, Gone, PostError, Throttled, Unreachable
from ..wire.jobs import Client
from .backoff import equal_jitter, full_jitter
from .rate import Rate
from .report import Outcome, Undelivered

MAX_TRIES = 5
HANDSHAKE_MS = 10_000
CROWD = 10


class Lane:
    """A client and how far it has come; ``error`` is what its latest try came to.

    ``refusals`` counts the 429s in a row at this message, ``refused_lately`` says whether there were any
    at the message before. While anything of this is set, or ``error``, the lane is ``troubled``.
    """

    __slots__ = (
        "connection_id",
        "created_at",
        "error",
        "messages",
        "outcome",
        "position",
        "refusals",
        "refused_lately",
        "tries",
        "troubled",
    )

    def __init__(self, client: Client, outcome: Outcome) -> None:
        self.connection_id = client.connection_id
        self.created_at = client.created_at
        self.position = client.skip
        self.messages = outcome.job.messages
        self.outcome = outcome
        self.tries = 0
        self.error: PostError | None = None
        self.refusals = 0
        self.refused_lately = self.troubled = False

    @property
    def client(self) -> Client:
        """The client, and what it has already."""
        return Client(self.connection_id, self.created_at, self.position)

    def undelivered(self) -> Undelivered:
        """As it is, when there is no time or no point to go on."""
        return Undelivered(self.client, self.error if self.tries else None)


class Step(Enum):
    """What to do with a lane whose post was not delivered."""

    WAIT = auto()
    LEAVE = auto()
    SUSPECT = auto()
    REJECT = auto()
    BURY = auto()
    ABORT = auto()


class Judge:
    """Judges the answers of one broadcast, since some mean something only beside the others'."""

    def __init__(self, rate: Rate, random: Random, wall_clock: Callable[[], float], *, persistent: bool) -> None:
        self.served = 0
        self.failed = 0
        self.throttled = 0
        self._rate = rate
        self._random = random
        self._wall_clock = wall_clock
        self._persistent = persistent
        self._reached = False
        self._forbidden = 0
        self._unreachable = 0

    def judge(self, lane: Lane, error: PostError, now: float) -> tuple[Step, float]:
        """The step for this lane, and for how long it waits; ``now`` is the loop's time."""
        lane.error, lane.troubled = error, True
        self.failed += 1
        if not isinstance(error, Throttled):
            self._let_through(lane)
        self._reached = self._reached or not isinstance(error, Unreachable)
        match error:
            case Gone():
                return self._retry(lane, equal_jitter) if self._young(lane) else (Step.BURY, 0.0)
            case Throttled():
                if self._account_limit(lane, now):
                    return Step.WAIT, full_jitter(lane.refusals, self._random)
            case Unreachable() if self._nobody_home(lane):
                return Step.ABORT, 0.0
            case Forbidden() if self._nobody_allowed(lane):
                return Step.ABORT, 0.0
            case PostError(temporary=False):
                return Step.REJECT, 0.0
        return self._retry(lane, full_jitter)

    def recovered(self, lane: Lane) -> None:
        """A troubled lane's message is delivered, or will never be: the next one starts afresh."""
        # A rejection was counted when it was judged.
        if lane.error is None or lane.error.temporary:
            self._let_through(lane)
        lane.error, lane.tries = None, 0
        lane.troubled = lane.refused_lately

    def vindicate(self, lane: Lane) -> tuple[Step, float]:
        """The step for a suspect, once somebody was served: it has the tries it has left."""
        if self._persistent or lane.tries < MAX_TRIES:
            return Step.WAIT, full_jitter(lane.tries, self._random)
        return Step.LEAVE, 0.0

    def systemic(self, outcomes: Iterable[Outcome]) -> PostError | None:
        """At the end: the error that kept everybody from being served, if there is one."""
        if self.served:
            return None
        for outcome in outcomes:
            for _, error in outcome.undelivered:
                if isinstance(error, Forbidden) and not _judged_before(outcome):
                    return error
                if isinstance(error, Unreachable) and not self._reached:
                    return error
        return None

    def _retry(self, lane: Lane, jitter: Callable[[int, Random], float]) -> tuple[Step, float]:
        assert lane.error is not None
        lane.tries += lane.error.weight
        if lane.tries >= MAX_TRIES:
            if isinstance(lane.error, Forbidden) and not self.served and not _judged_before(lane.outcome):
                return Step.SUSPECT, 0.0
            if not self._persistent:
                return Step.LEAVE, 0.0
        return Step.WAIT, jitter(lane.tries, self._random)

    def _young(self, lane: Lane) -> bool:
        if lane.created_at is None:
            return False
        return abs(self._wall_clock() * 1000 - lane.created_at) < HANDSHAKE_MS

    def _account_limit(self, lane: Lane, now: float) -> bool:
        """Whether a refusal may well be the account's; it is evidence in any case."""
        self.throttled += 1
        lane.refusals += 1
        answers = self.served + self.failed
        return self._rate.refused(lane.refusals, now, answers, lately=lane.refused_lately)

    def _let_through(self, lane: Lane) -> None:
        """Any other answer than a 429: the account took the post."""
        if lane.refusals or lane.refused_lately:
            self._rate.taken(lane.refusals)
            lane.refused_lately = lane.refusals > 0
            lane.refusals = 0

    def _nobody_home(self, lane: Lane) -> bool:
        self._unreachable += 1
        return not (self._reached or self.served) and (self._unreachable >= CROWD or lane.tries > 0)

    def _nobody_allowed(self, lane: Lane) -> bool:
        self._forbidden += lane.tries == 0 and not _judged_before(lane.outcome)
        return not self.served and self._forbidden >= CROWD


def _judged_before(outcome: Outcome) -> bool:
    return outcome.job.reason == Forbidden.reason
