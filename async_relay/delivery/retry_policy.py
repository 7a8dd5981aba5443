"""The next step for a lane whose post was not delivered. Decides, does no I/O.

Rules (API Gateway Management API, PostToConnection, "Errors")
- A temporary failure is tried again after a backoff, ``MAX_TRIES`` times per message; then the
  broadcast gives the client up. With ``retry_until_deadline`` only the deadline ends the tries.
- 410: the client is gone and is forgotten, unless its row is so young that the handshake may still
  be finishing.
- 429: tried again after a backoff that grows with the refusals in a row. It counts as a try unless
  the account's limit may well have caused it: see ``rate``.
  Where refusals are all that anybody got, nothing tells the two apart: then each client refused last
  was tried once, so that clients whose buffers stay full end in the dead letters.
- 403: a failure of that client alone while others are served. It is systemic when the first ten
  distinct clients answer it, or all that are left at the end, and nobody got a 200, those in flight
  included. A client whose retry job says it was forbidden while others were served is not counted.
- A 403 that exhausts the tries before anybody was served leaves the lane undecided: the first 200
  clears it, and the end of the broadcast makes it systemic.
- A DELETE is done with by 204, and by 410 unless the handshake may still be finishing. Any other answer leaves the
  row for the next broadcast to find: nothing is sent to its client meanwhile, so nothing is lost by waiting.
- No connection was ever opened: systemic after ten such posts, or after two for one client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from random import Random

from ..errors import Forbidden, Gone, PostError, Throttled, Unreachable
from .backoff import equal_jitter, full_jitter
from .lanes import Lane
from .rate import Rate
from .report import SAMPLE_SIZE, Outcome

#: Tries at one message in one broadcast. The waits between them add up to 1.5 s at most: the retry queue is there for
#: trouble that lasts longer.
MAX_TRIES = 5
#: A row is written before API Gateway has finished the handshake, and until then posts answer 410. A handshake that
#: takes this long is unheard of.
HANDSHAKE_MS = 10_000


class Step(Enum):
    """The broadcast's next move with a lane whose post was not delivered."""

    #: Try again after a wait.
    WAIT = auto()
    #: Stop serving the client in this broadcast; settlement decides where its messages go.
    GIVE_UP = auto()
    #: Hold the lane until another client is served, or until the end.
    UNDECIDED = auto()
    #: Skip this message for this client for good, and go on with the next one.
    REJECT = auto()
    #: Send the client nothing more, and delete its row.
    FORGET = auto()
    #: Stop the broadcast: nobody can be served.
    ABORT = auto()


class RetryPolicy:
    """Decides over the answers of one broadcast, because some mean something only beside the others'."""

    def __init__(
        self, rate: Rate, random: Random, wall_clock: Callable[[], float], *, retry_until_deadline: bool
    ) -> None:
        self.served = 0
        self.failed = 0
        self.throttled = 0
        self.account_throttled = 0
        self._rate = rate
        self._random = random
        self._wall_clock = wall_clock
        self._retry_until_deadline = retry_until_deadline
        self.reached = False
        self._forbidden = 0
        self._unreachable = 0

    def decide(self, lane: Lane, error: PostError, now: float) -> tuple[Step, float]:
        """The step for this lane, and for how long it waits; ``now`` is the loop's time."""
        lane.error, lane.troubled = error, True
        self.failed += 1
        if not isinstance(error, Throttled):
            self._let_through(lane)
        self.reached = self.reached or not isinstance(error, Unreachable)
        match error:
            case Gone():
                return self._retry(lane, equal_jitter) if self._young(lane) else (Step.FORGET, 0.0)
            case Throttled():
                if self._account_limit(lane, now):
                    return Step.WAIT, full_jitter(lane.refusals, self._random)
            case Unreachable() if self._none_reachable(lane):
                return Step.ABORT, 0.0
            case Forbidden() if self._all_forbidden(lane):
                return Step.ABORT, 0.0
            case PostError(temporary=False):
                return Step.REJECT, 0.0
        return self._retry(lane, full_jitter)

    def is_last_try(self, lane: Lane) -> bool:
        """Whether the client is given up, or has failed as often as it takes, once its next try fails as well."""
        return lane.tries >= MAX_TRIES - 1

    def is_closed(self, lane: Lane, error: PostError | None) -> bool:
        """Whether a DELETE answered like this has ended the connection, or found it ended."""
        return error is None or (isinstance(error, Gone) and not self._young(lane))

    def recovered(self, lane: Lane) -> None:
        """Reset a troubled lane: its message is delivered, or never will be, and the next one starts afresh."""
        # A rejection was counted when it was decided.
        if lane.error is None or lane.error.temporary:
            self._let_through(lane)
        lane.error, lane.tries = None, 0
        lane.troubled = lane.refused_lately

    @property
    def refused_all(self) -> bool:
        """Whether there were refusals, and not one 200."""
        return self.throttled > 0 and not self.served

    def clear(self, lane: Lane) -> tuple[Step, float]:
        """The step for an undecided lane once another client was served: it has the tries it has left."""
        if self._retry_until_deadline or lane.tries < MAX_TRIES:
            return Step.WAIT, full_jitter(lane.tries, self._random)
        return Step.GIVE_UP, 0.0

    def systemic(self, outcomes: Iterable[Outcome]) -> PostError | None:
        """At the end: the error that kept everybody from being served, if there is one."""
        if self.served:
            return None
        for outcome in outcomes:
            for _, error in outcome.undelivered:
                if isinstance(error, Forbidden) and not _forbidden_before(outcome):
                    return error
                if isinstance(error, Unreachable) and not self.reached:
                    return error
        return None

    def _retry(self, lane: Lane, jitter: Callable[[int, Random], float]) -> tuple[Step, float]:
        assert lane.error is not None
        lane.tries += lane.error.weight
        if lane.tries >= MAX_TRIES:
            if isinstance(lane.error, Forbidden) and not self.served and not _forbidden_before(lane.outcome):
                return Step.UNDECIDED, 0.0
            if not self._retry_until_deadline:
                return Step.GIVE_UP, 0.0
        return Step.WAIT, jitter(lane.tries, self._random)

    def _young(self, lane: Lane) -> bool:
        if lane.created_at is None:
            return False
        return abs(self._wall_clock() * 1000 - lane.created_at) < HANDSHAKE_MS

    def _account_limit(self, lane: Lane, now: float) -> bool:
        """Count a refusal; True where it may well be the account's, so that it is no try of the client's."""
        self.throttled += 1
        lane.refusals += 1
        answers = self.served + self.failed
        likely = self._rate.refused(lane.refusals, now, answers, lately=lane.refused_lately)
        self.account_throttled += likely
        return likely

    def _let_through(self, lane: Lane) -> None:
        """Tell the rate that the account took this post: any answer but 429 says so."""
        if lane.refusals or lane.refused_lately:
            self._rate.taken(lane.refusals)
            lane.refused_lately = lane.refusals > 0
            lane.refusals = 0

    def _none_reachable(self, lane: Lane) -> bool:
        self._unreachable += 1
        return not (self.reached or self.served) and (self._unreachable >= SAMPLE_SIZE or lane.tries > 0)

    def _all_forbidden(self, lane: Lane) -> bool:
        self._forbidden += lane.tries == 0 and not _forbidden_before(lane.outcome)
        return not self.served and self._forbidden >= SAMPLE_SIZE


def _forbidden_before(outcome: Outcome) -> bool:
    """Whether this is a retry job of clients that were forbidden while others were served."""
    return outcome.job.reason == Forbidden.reason
