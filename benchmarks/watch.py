"""Watches a transport: how many posts, what came of them, how long they took. Costs about a microsecond a post."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

from async_relay.delivery.protocols import Transport
from async_relay.errors import PostError
from async_relay.wire.messages import Message

#: Buckets to each factor of e, which makes them 4 % wide; so many of them reach to 20 hours.
_FINENESS = 24
_BUCKETS = 600
_POINTS = (0.5, 0.95, 0.99)


class Durations:
    """How often something took how long, in buckets 4 % wide: small, whatever their number."""

    def __init__(self) -> None:
        self.buckets = [0] * _BUCKETS

    def add(self, seconds: float) -> None:
        """One more."""
        self.buckets[min(_BUCKETS - 1, int(_FINENESS * log(1 + 1e6 * seconds)))] += 1

    def percentiles(self, before: Sequence[int] = ()) -> tuple[float, ...]:
        """The 50th, 95th and 99th in seconds; of those since ``before``, a copy of the buckets."""
        counts = [now - then for now, then in zip(self.buckets, before or [0] * _BUCKETS, strict=True)]
        return tuple(_percentile(counts, point) for point in _POINTS)

    @property
    def longest(self) -> float:
        """The last of them, in seconds."""
        return _percentile(self.buckets, 1.0)


def _percentile(counts: Sequence[int], point: float) -> float:
    left = point * sum(counts)
    if not left:
        return 0.0
    for bucket, count in enumerate(counts):
        left -= count
        if left <= 0:
            return (exp((bucket + 0.5) / _FINENESS) - 1) / 1e6
    return 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """How it stood at one time; latencies, and outcomes but a delivery, are those since the moment before."""

    at: float
    posts: int
    delivered: int
    in_flight: int
    posts_a_second: float
    latency: tuple[float, ...]
    rate_limit: float | None
    requeued: int
    clients: int
    outcomes: Mapping[str, int]


class Watch:
    """Everything that went through a transport."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.restart()
        self.sent = 0
        self.delivered = 0
        self.outcomes: Counter[str] = Counter()
        self.posts = Durations()
        self.deliveries = Durations()
        self.began: dict[str, float] = {}
        self._answers = 0
        self._before = list(self.posts.buckets)
        self._outcomes_before: Counter[str] = Counter()

    def restart(self) -> None:
        """Time begins now."""
        self.began_at, self._cpu = self.clock(), time.process_time()
        self.seconds = self.cpu = 0.0
        self.moments: list[Moment] = []

    def finish(self) -> None:
        """Time ends now, unless it has ended: how long it was, and the CPU of this process."""
        if not self.seconds:
            self.seconds, self.cpu = self.clock() - self.began_at, time.process_time() - self._cpu

    @property
    def in_flight(self) -> int:
        """Posts under way."""
        return self.sent - self._answers

    def begin(self, sequences: Sequence[str]) -> None:
        """A batch of these messages begins now."""
        now = self.clock()
        self.began.update(dict.fromkeys(sequences, now))

    def answered(self, messages: Iterable[Message], sent_at: float, error: PostError | None) -> None:
        """A post of these messages has come to its end."""
        now = self.clock()
        self._answers += 1
        self.posts.add(now - sent_at)
        if error is None:
            for message in messages:
                self.delivered += 1
                self.deliveries.add(now - self.began.get(message.sequence, sent_at))
        else:
            self.outcomes[error.reason] += 1

    def cut(self) -> None:
        """Forget the posts under way, which will have no answer."""
        self.outcomes["cut at the deadline"] += self.in_flight
        self._answers = self.sent

    def take(self, rate_limit: float | None, requeued: int, clients: int) -> Moment:
        """The moment now, which is kept."""
        at = self.clock() - self.began_at
        last = self.moments[-1] if self.moments else None
        seconds = at - (last.at if last else 0.0)
        moment = Moment(
            at,
            self.sent,
            self.delivered,
            self.in_flight,
            (self.sent - (last.posts if last else 0)) / max(seconds, 1e-9),
            self.posts.percentiles(self._before),
            rate_limit,
            requeued,
            clients,
            dict(self.outcomes - self._outcomes_before),
        )
        self._before = list(self.posts.buckets)
        self._outcomes_before = self.outcomes.copy()
        self.moments.append(moment)
        return moment


class WatchedTransport:
    """A transport that tells its watch."""

    def __init__(self, transport: Transport, watch: Watch) -> None:
        self._transport = transport
        self._watch = watch
        self.begin = transport.begin
        self.disconnect = transport.disconnect
        self.end = transport.end
        self.close = transport.close

    def send(self, lane: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        """Post, and take the time."""
        watch = self._watch
        watch.sent += 1
        sent_at = watch.clock()

        def answered(lane: Any, error: PostError | None) -> None:
            frame = lane.frame
            found = (message,) if frame is None else [lane.messages[at] for at in frame.positions]
            watch.answered(found, sent_at, error)
            done(lane, error)

        self._transport.send(lane, message, answered)

    def stop(self) -> None:
        """Cut every post in flight."""
        self._watch.cut()
        self._transport.stop()
