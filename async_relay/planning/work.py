"""What the simulation's functions work on: reads of a shard, sandboxes, the account's bucket, the clock. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from ..delivery.rate import Rate


class Clock:
    """The events to come, in order, and the time of the one that happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, delay: float, event: Callable[[], None]) -> None:
        """Let it happen so many seconds from now."""
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, event))

    def run(self) -> None:
        """Until nothing is to come."""
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()


class TokenBucket:
    """The account's quota: ``rate`` posts per second, and at most ``burst`` saved up."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._filled_at = 0.0

    def take(self, now: float, wanted: int) -> int:
        """How many of those wanted there are."""
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


@dataclass(slots=True)
class Item:
    """Messages of one burst that are served together."""

    arrived: float
    messages: int
    burst: Burst


@dataclass(slots=True)
class Burst:
    """A burst, ``open`` parts of which are not served yet."""

    arrived: float
    open: int = 0
    last: float = 0.0


@dataclass(slots=True)
class Work:
    """One read of a shard under way: ``unread`` rows to come, ``lanes`` read and not served, ``dead`` rows of none.

    ``arrays`` is the share of the clients that read arrays of up to ``room`` messages, ``served`` how many of all are
    done, and ``progress`` counts the posts of those that are not.
    """

    items: list[Item]
    unread: int
    group: int
    arrays: float = 0.0
    room: int = 1
    read_at: float = 0.0
    dead: int = 0
    lanes: int = 0
    served: int = 0
    progress: int = 0
    reading: bool = False

    @property
    def messages(self) -> int:
        """Messages that a client gets."""
        return sum(item.messages for item in self.items)

    @property
    def frames(self) -> int:
        """Posts in which it gets them where it reads arrays."""
        return ceil(self.messages / self.room)

    @property
    def posts(self) -> int:
        """Posts that are still to be sent."""
        return max(0, self.cost(self.lanes) - self.progress) + self.dead

    def reading_arrays(self, clients: int) -> int:
        """How many of the next so many clients do."""
        return int(self.arrays * (self.served + clients)) - int(self.arrays * self.served)

    def cost(self, clients: int) -> int:
        """Posts for the next so many clients."""
        arrays = self.reading_arrays(clients)
        return arrays * self.frames + (clients - arrays) * self.messages

    def finish(self, posts: int) -> tuple[int, int]:
        """Count posts that were sent; returns how many clients have all of them now, and those of them with arrays."""
        self.progress += posts
        mean = self.arrays * self.frames + (1 - self.arrays) * self.messages
        clients = min(self.lanes, int(self.progress / mean))
        while self.cost(clients) > self.progress:
            clients -= 1
        while clients < self.lanes and self.cost(clients + 1) <= self.progress:
            clients += 1
        arrays = self.reading_arrays(clients)
        self.progress -= self.cost(clients)
        self.lanes -= clients
        self.served += clients
        return clients, arrays


@dataclass(slots=True, eq=False)
class Sandbox:
    """A function's sandbox; its rate outlives an invocation."""

    rate: Rate
    works: list[Work] = field(default_factory=list)
    done: Callable[[], None] = lambda: None
    began: float = 0.0
    stepped: float = 0.0
    answers: int = 0
    refused: int = 0
    room: float = 0.0
    allowance: float = 0.0
    spare: float = 0.0
    stepping: bool = False
    tail: float = 0.0
