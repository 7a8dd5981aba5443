"""The input of a simulation and its result. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .values import (
    FANOUT,
    HOP_SECONDS,
    INVOKE_SECONDS,
    PAGE_BYTES,
    PAGE_SECONDS,
    POLL,
    ROW_BYTES,
    SEND_SECONDS,
    USABLE,
    Setup,
    Traffic,
)


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds of everything but posting, and ``rows`` of a page; ``cold`` is the start of a new sandbox."""

    poll: float = POLL
    invoke: float = INVOKE_SECONDS
    page: float = PAGE_SECONDS
    rows: int = PAGE_BYTES // ROW_BYTES
    send: float = SEND_SECONDS
    hop: float = HOP_SECONDS
    cold: float = 0.6
    usable: float = USABLE


@dataclass(frozen=True, slots=True)
class Scenario:
    """The input of a simulation.

    ``bursts`` come at random (Poisson) or, ``even``, in step. ``account_burst`` is the account's bucket.
    ``ceilings`` False leaves each function only what it learns from 429. ``missed`` is the share of
    clients whose $disconnect never came, so that their rows stay.
    """

    traffic: Traffic
    setup: Setup = field(default_factory=Setup)
    mode: str = FANOUT
    bursts: int = 20
    even: bool = False
    account_burst: float = 5_000.0
    ceilings: bool = True
    missed: float = 0.0
    seed: int = 1
    delays: Delays = field(default_factory=Delays)


@dataclass(slots=True)
class Simulated:
    """The result of a simulation. Times are seconds from a burst's arrival until a client has all of it.

    ``posts`` were sent, and ``saved`` more would have been without frames.
    """

    posts: int = 0
    saved: int = 0
    delivered: int = 0
    gone: int = 0
    skipped: int = 0
    refused: int = 0
    owed: int = 0
    invocations: int = 0
    continuations: int = 0
    overtaken: int = 0
    most_functions: int = 0
    function_seconds: float = 0.0
    jobs: int = 0
    pages: int = 0
    seconds: float = 0.0
    times: list[tuple[float, int]] = field(default_factory=list)
    lasts: list[float] = field(default_factory=list)

    def until(self, part: float) -> float:
        """Seconds until this part of all clients had their burst."""
        return percentile(self.times, part)

    @property
    def last(self) -> float:
        """Seconds until the last client had a burst, in the middle of all bursts."""
        return percentile([(each, 1) for each in self.lasts], 0.5)

    @property
    def worst(self) -> float:
        """The same for the slowest burst."""
        return max(self.lasts, default=0.0)


def percentile(weighted: Sequence[tuple[float, int]], part: float) -> float:
    """The value that this part of the weight does not exceed."""
    wanted = part * sum(weight for _, weight in weighted)
    for value, weight in sorted(weighted):
        wanted -= weight
        if wanted <= 0:
            return value
    return 0.0
