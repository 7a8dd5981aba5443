"""The adaptive rate on virtual time, plotted: one relay, five relays on one limit, a minority with full buffers.

    python -m benchmarks.rate [FILE.svg]

The real broadcaster posts over the in-memory transport; the account is a token bucket.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import looptime
import matplotlib as mpl

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.rate import Rate
from async_relay.testing import RateLimit
from async_relay.testing.memory import MemoryStore, MemoryTransport, Reply
from async_relay.testing.scripts import Bucket
from async_relay.wire.jobs import Job, Shard
from async_relay.wire.messages import Message

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "async-relay"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

LATENCY = 0.02
STEP = 0.1
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


@dataclass(frozen=True)
class Case:
    """Relays with as many clients each on one account; ``full``: the share of clients that refuse twice."""

    title: str
    clients: int
    relays: int
    limit: RateLimit
    full: float = 0.0


@dataclass
class Trace:
    """What happened: each relay's limit over time, when it ended, posts and refusals in all."""

    limits: list[list[tuple[float, float]]]
    took: list[float] = field(default_factory=list)
    posts: int = 0
    refused: int = 0


CASES = (
    Case("One relay, 1,500 clients, 400 a second", 1_500, 1, RateLimit(400, 40)),
    Case("Five relays, 4,000 clients each, 1,000 a second", 4_000, 5, RateLimit(1_000, 500)),
    Case("One relay, 400 a second, 5 % full buffers", 1_500, 1, RateLimit(400, 40), full=0.05),
)


class Account:
    """Answers posts: the account's bucket first, then the client's buffer."""

    def __init__(self, case: Case, random: Random) -> None:
        self._bucket = Bucket(case.limit)
        self._full = case.full
        self._random = random
        self._turns: dict[str, int] = {}

    def answer(self, connection_id: str, _message: Message) -> Reply:
        """429 for either reason, else 200."""
        if not self._bucket.take(asyncio.get_running_loop().time()):
            return Reply(429, LATENCY)
        if connection_id not in self._turns:
            self._turns[connection_id] = 0 if self._random.random() >= self._full else 2
        if self._turns[connection_id]:
            self._turns[connection_id] -= 1
            return Reply(429, LATENCY)
        return Reply(200, LATENCY)


async def run(case: Case) -> Trace:
    """Broadcast one message from every relay at once."""
    account = Account(case, Random(1))
    relays = [
        Broadcaster(*_world(case, account, n), Limits(), Rate(), Random(n), lambda: 0.0) for n in range(case.relays)
    ]
    trace = Trace([[] for _ in relays])
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def watch() -> None:
        while True:
            for limits, relay in zip(trace.limits, relays, strict=True):
                if relay.rate.limit is not None:
                    limits.append((loop.time() - start, relay.rate.limit))
            await asyncio.sleep(STEP)

    async def serve(relay: Broadcaster) -> None:
        report = await relay.broadcast([Job((Message.encode({}),), shard=Shard())], 120)
        trace.took.append(loop.time() - start)
        trace.posts += report.posts
        trace.refused += report.throttled

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(serve, relays))
    watching.cancel()
    return trace


def _world(case: Case, account: Account, relay: int) -> Iterator[MemoryTransport | MemoryStore]:
    yield MemoryTransport(account.answer, keep=False)
    yield MemoryStore([f"{relay}-{number}" for number in range(case.clients)])


def draw(traces: list[tuple[Case, Trace]], target: Path) -> None:
    """A panel a case: each relay's rate, and its fair share of the account's."""
    figure, panels = plt.subplots(1, len(traces), figsize=(13, 3.6), layout="constrained")
    for panel, (case, trace) in zip(panels, traces, strict=True):
        for colour, limits in zip(COLOURS, trace.limits, strict=False):
            panel.plot(*zip(*limits, strict=True), color=colour, linewidth=1.2)
        share = case.limit.rate / case.relays
        panel.axhline(share, color="black", linestyle="--", linewidth=0.8, label=f"fair share: {share:,.0f} a second")
        ideal = max(0.0, case.clients * case.relays - case.limit.burst) / case.limit.rate
        panel.set_title(
            f"{case.title}\n{max(trace.took):.1f} s, ideal {ideal:.1f} s; {trace.refused / trace.posts:.0%} refused",
            fontsize=9,
        )
        panel.set(xlabel="seconds", ylabel="posts a second allowed", ylim=(0, None))
        panel.legend(fontsize=8, loc="lower right")
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Simulate, print, plot."""
    traces = []
    for case in CASES:
        loop = looptime.patch_event_loop(asyncio.new_event_loop(), _enabled=True)
        try:
            traces.append((case, loop.run_until_complete(run(case))))
        finally:
            loop.close()
        trace = traces[-1][1]
        print(f"{case.title}: {max(trace.took):.2f} s, {trace.refused:,} of {trace.posts:,} posts refused")
    draw(traces, Path(sys.argv[1] if len(sys.argv) > 1 else "docs/benchmarks/rate.svg"))


if __name__ == "__main__":
    main()
