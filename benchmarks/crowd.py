"""The clients of a load test: what each does with a post, and what it got.

    ok         takes everything, after the latency
    gone       answers 410 and has left its row behind
    throttled  answers 429 to the first two tries of each message: its buffer is full
    erring     answers 500 or cuts the socket at the first two tries of each message
    hanging    does not answer the first try of each message
    slow       takes a second longer

Rules
- The seed decides the kind of each client. Everybody but the gone gets every message in the end.
- A frame is refused, cut or left without an answer as its first message would be, and arrives whole.
- A client that left answers 410.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import log
from random import Random

from async_relay.testing import Answer, Choice, Cut, Gateway, Hang, RateLimit

from .command import CommandError
from .ledger import Ledger, Shortfall, Tally
from .peers.worker import connection_id

KINDS = ("ok", "gone", "throttled", "erring", "hanging", "slow")
#: In place of a status: the socket is cut, or nothing is answered.
CUT, HANGS = 0, -1
#: Well below the timeout of a post, which a slow client must not reach.
_SLOW_SECONDS = 1.0
#: Fewer than the relay tries: a sick client gets its message in the end.
_SICK_TRIES = 2
#: The sigma of a log-normal latency, as in ``async_relay.planning.values``.
_SPREAD = 0.5
_SEQUENCES = re.compile(rb'"sequence":"(\d+)"}').findall


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from a post to its answer: ``constant`` (low), ``uniform`` (low to high), ``lognormal`` (median low)."""

    shape: str
    low: float
    high: float = 0.0

    def __call__(self, _connection_id: str, random: Random) -> float:
        """One of them."""
        match self.shape:
            case "uniform":
                return random.uniform(self.low, self.high)
            case "lognormal":
                return random.lognormvariate(log(self.low), _SPREAD)
        return self.low

    def __str__(self) -> str:
        if self.shape == "uniform":
            return f"{self.low * 1000:g} to {self.high * 1000:g} ms"
        return f"{self.low * 1000:g} ms{' at the median, log-normal' if self.shape == 'lognormal' else ''}"


def latency(text: str) -> Latency:
    """``8``, ``uniform:2-20`` or ``lognormal:8``, in milliseconds; raises ``CommandError``."""
    number = r"([0-9]{1,5}(?:\.[0-9]{1,3})?)"
    found = re.fullmatch(rf"(?:(constant|lognormal):)?{number}|(uniform):{number}-{number}", text)
    if found:
        shape = found[1] or found[3] or "constant"
        low, high = float(found[2] or found[4]) / 1000, float(found[5] or 0) / 1000
        if not (shape == "uniform" and high < low) and not (shape == "lognormal" and not low):
            return Latency(shape, low, high)
    raise CommandError(f"--latency is {text!r}; it must be milliseconds, like 8, uniform:2-20 or lognormal:8")


class Crowd:
    """Everybody, by number."""

    def __init__(self, shares: Mapping[str, float], seed: int) -> None:
        """``shares`` of the kinds but ok, which is the rest."""
        self.ledger = Ledger()
        self._random = Random(seed)
        self._shares = [shares.get(kind, 0.0) for kind in KINDS[1:]]
        self._weights = [1.0 - sum(self._shares), *self._shares]
        self._kinds = bytearray()
        self._tries: dict[int, tuple[int, int]] = {}

    def join(self, count: int, first: int) -> list[str]:
        """So many more, who expect everything from message ``first`` on; their ids."""
        numbers = self.ledger.join(count, first)
        self._kinds += bytes(self._random.choices(range(len(KINDS)), self._weights, k=count))
        for number in numbers:
            if KINDS[self._kinds[number]] == "gone":
                self.ledger.leave(number, 0)
        return [connection_id(number) for number in numbers]

    def leave(self, numbers: Iterable[int], last: int) -> None:
        """These hang up, and need nothing after message ``last``."""
        for number in numbers:
            self._kinds[number] = KINDS.index("gone")
            self.ledger.leave(number, last)

    def gone(self, last: int) -> set[str]:
        """Whose rows should not be there once message ``last`` is settled; who came later was never posted to."""
        gone = KINDS.index("gone")
        return {
            connection_id(number)
            for number, kind in enumerate(self._kinds)
            if kind == gone and self.ledger.expects(number, last)
        }

    def answer(self, name: str, body: bytes) -> tuple[int, float]:
        """The status (``CUT``, ``HANGS``) and the extra seconds of one post; what arrives is in the ledger."""
        number, messages = int(name[1:10]), sequences_of(body)
        kind = KINDS[self._kinds[number]]
        status, delay = (200, 0.0) if kind == "ok" else self._sick(kind, number, messages[0])
        if status == 200:
            for message in messages:
                self.ledger.arrive(number, message)
        return status, delay

    def _sick(self, kind: str, number: int, message: int) -> tuple[int, float]:
        if kind == "gone":
            return 410, 0.0
        if kind == "slow":
            return 200, _SLOW_SECONDS
        before, tries = self._tries.get(number, (0, 0))
        tries = tries + 1 if before == message else 1
        self._tries[number] = message, tries
        if tries > (1 if kind == "hanging" else _SICK_TRIES):
            return 200, 0.0
        if kind == "erring":
            return self._random.choice((500, CUT)), 0.0
        return (HANGS if kind == "hanging" else 429), 0.0


class CrowdGateway(Gateway):
    """A gateway in front of a crowd, for a process of its own."""

    def __init__(self, shares: Mapping[str, float], seed: int, lag: Latency, account_limit: float | None) -> None:
        self._crowd = Crowd(shares, seed)
        limit = RateLimit(account_limit, max(1.0, account_limit / 2)) if account_limit else None
        super().__init__(self._answer, tls=True, latency=lag, rate_limit=limit, seed=seed, keep=False)
        self.join = self._crowd.join
        self.leave = self._crowd.leave
        self.gone: Callable[[int], set[str]] = self._crowd.gone

    @property
    def facts(self) -> tuple[str, str]:
        """The endpoint, and the file of the authorities to trust."""
        return self.endpoint, self.ca_file

    def tally(self) -> Tally:
        """The messages that arrived so far."""
        return self._crowd.ledger.tally()

    def shortfall(self, last: int) -> Shortfall:
        """The messages that are missing."""
        return self._crowd.ledger.shortfall(last)

    def _answer(self, name: str, body: bytes, _nth: int) -> Choice:
        status, delay = self._crowd.answer(name, body)
        if status == CUT:
            return Cut()
        if status == HANGS:
            return Hang()
        return Answer(status, delay=delay) if delay else status


def sequences_of(body: bytes) -> list[int]:
    """The sequences of the messages in a post; each ends with its own."""
    return [int(each) for each in _SEQUENCES(body)]


def reads_arrays(name: str, share: float) -> bool:
    """Whether a client is of that share of all which reads arrays."""
    # A large prime, so that they are spread among the others.
    return int(name[1:10]) * 7_919 % 1_000 < 1_000 * share
