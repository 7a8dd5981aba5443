"""The adaptive rate on virtual time: a table of cases beside an oracle, and a plot of what the limit does.

    python -m benchmarks.rate                                 all of them, and the plot in docs/benchmarks/
    python -m benchmarks.rate --case "5 clients"              those whose title has this, without the plot
    python -m benchmarks.rate --plot FILE.svg                 the plot somewhere else

The real broadcaster posts over the in-memory transport; the account is a token bucket. The oracle is the
same broadcaster with a rate that knows the account's limit and why each post was refused.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Annotated, Any

import looptime
import matplotlib as mpl
import typer

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.rate import Rate
from async_relay.errors import PostError
from async_relay.testing import RateLimit
from async_relay.testing.memory import MemoryStore, MemoryTransport, Reply
from async_relay.testing.scripts import Bucket
from async_relay.wire.jobs import Job, Shard
from async_relay.wire.messages import Message

from . import command

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "async-relay"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

PLOT = Path("docs/benchmarks/rate.svg")
#: Seconds of an answer, as in docs/scaling.md, and between two looks at the limits: a round of the rate.
LATENCY = 0.02
STEP = 0.1
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")


@dataclass(frozen=True)
class Case:
    """Relays with as many clients each on one account.

    ``limit`` is the account's (None: none); ``full`` the share of clients that refuse each message twice,
    or from 1 up their number. ``seconds`` is what a broadcast may take.
    """

    title: str
    clients: int
    relays: int = 1
    limit: RateLimit | None = None
    full: float = 0.0
    messages: int = 1
    batches: int = 1
    seconds: float = 120.0


@dataclass
class Trace:
    """The course of a case: each relay's limit over time and end, posts, refusals by their cause, clients left over."""

    limits: list[list[tuple[float, float]]]
    took: list[float] = field(default_factory=list)
    posts: int = 0
    by_account: int = 0
    by_buffers: int = 0
    left_over: int = 0


PLOTTED = (
    Case("One relay, 1,500 clients, 400 a second", 1_500, 1, RateLimit(400, 40)),
    Case("Five relays, 4,000 clients each, 1,000 a second", 4_000, 5, RateLimit(1_000, 500)),
    Case("One relay, 400 a second, 5 % full buffers", 1_500, 1, RateLimit(400, 40), full=0.05),
)
CASES = (
    *(
        Case(f"{title} full, 1,000 clients, 6 batches of 5", 1_000, full=full, messages=5, batches=6)
        for title, full in (("nobody", 0.0), ("1 %", 0.01), ("10 %", 0.1), ("30 %", 0.3))
    ),
    Case("10 % full, 5,000 clients, 6 batches of 5", 5_000, full=0.1, messages=5, batches=6),
    Case("50 full, 100,000 clients", 100_000, full=50),
    Case("2 full, 5 clients, 6 batches of 5", 5, full=2, messages=5, batches=6),
    *PLOTTED,
    Case("One relay, 400 a second, 30 % full buffers, 5 messages", 1_500, 1, RateLimit(400, 40), 0.3, messages=5),
    Case("20,000 clients, 3,000 a second", 20_000, 1, RateLimit(3_000, 2_500)),
    Case("20,000 clients, 400 a second", 20_000, 1, RateLimit(400, 200)),
    Case("200 clients, 15 messages, 5 a second", 200, 1, RateLimit(5, 2), messages=15, seconds=900),
    Case("200 clients, 4 messages, 1 a second", 200, 1, RateLimit(1, 2), messages=4, seconds=900),
)


class Account:
    """Answers posts: the account's bucket first, then the client's buffer."""

    def __init__(self, case: Case, random: Random) -> None:
        self._bucket = Bucket(case.limit) if case.limit else None
        self._full = case.full
        self._random = random
        self._turns: dict[str, int] = {}
        self._posts: Counter[tuple[str, str]] = Counter()
        self.causes: dict[str, bool] = {}
        self.refused = self.full = 0
        #: Whether the account refused the post whose answer is being handed over.
        self.refuses = False

    def answer(self, connection_id: str, message: Message) -> Reply:
        """429 for either reason, else 200."""
        bucket = self._bucket
        self.causes[connection_id] = bucket is not None and not bucket.take(asyncio.get_running_loop().time())
        if self.causes[connection_id]:
            self.refused += 1
            return Reply(429, LATENCY)
        if connection_id not in self._turns:
            among = len(self._turns) < self._full if self._full >= 1 else self._random.random() < self._full
            self._turns[connection_id] = 2 if among else 0
        self._posts[connection_id, message.event_id] += self._turns[connection_id] > 0
        if 0 < self._posts[connection_id, message.event_id] <= self._turns[connection_id]:
            self.full += 1
            return Reply(429, LATENCY)
        return Reply(200, LATENCY)


class TellingTransport(MemoryTransport):
    """Tells the account whose answer is handed over, so that the oracle may ask for the cause."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.answer, keep=False)
        self._account = account

    def _answer(self, lane: Any, error: PostError | None, done: Callable[[Any, PostError | None], None]) -> None:
        self._account.refuses = self._account.causes[lane.connection_id]
        super()._answer(lane, error, done)


class Oracle(Rate):
    """Knows its share of the account's limit, and the cause of each refusal."""

    def __init__(self, case: Case, account: Account) -> None:
        super().__init__(case.limit.rate / case.relays if case.limit else None)
        self._account = account

    def refused(self, *_arguments: Any, **_named: Any) -> bool:
        """The truth."""
        return self._account.refuses

    def taken(self, refusals: int) -> None:
        """Nothing to learn."""

    def tick(self, now: float, answers: int) -> None:
        """Nothing to adapt."""


async def run(case: Case, *, oracle: bool = False) -> Trace:
    """Broadcast from every relay at once."""
    account = Account(case, Random(1))
    relays = [
        Broadcaster(
            TellingTransport(account),
            MemoryStore([f"{n}-{number}" for number in range(case.clients)]),
            Limits(100),
            Oracle(case, account) if oracle else Rate(),
            Random(n),
            lambda: 0.0,
        )
        for n in range(case.relays)
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
        for batch in range(case.batches):
            messages = tuple(Message.encode({"event_id": f"{batch}-{at}"}) for at in range(case.messages))
            report = await relay.broadcast([Job(messages, shard=Shard())], case.seconds)
            trace.posts += report.posts
            trace.left_over += len(report.outcomes[0].undelivered)
        trace.took.append(loop.time() - start)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(serve, relays))
    watching.cancel()
    trace.by_account, trace.by_buffers = account.refused, account.full
    return trace


def draw(traces: list[tuple[Case, Trace]], target: Path) -> None:
    """A panel per case: each relay's rate, and its fair share of the account's."""
    figure, panels = plt.subplots(1, len(traces), figsize=(13, 3.6), layout="constrained")
    for panel, (case, trace) in zip(panels, traces, strict=True):
        for colour, limits in zip(COLOURS, trace.limits, strict=False):
            panel.plot(*zip(*limits, strict=True), color=colour, linewidth=1.2)
        assert case.limit is not None
        share = case.limit.rate / case.relays
        panel.axhline(share, color="black", linestyle="--", linewidth=0.8, label=f"fair share: {share:,.0f} a second")
        ideal = max(0.0, case.clients * case.relays - case.limit.burst) / case.limit.rate
        panel.set_title(
            f"{case.title}\n{max(trace.took):.1f} s, ideal {ideal:.1f} s; {trace.by_account / trace.posts:.0%} refused",
            fontsize=9,
        )
        panel.set(xlabel="seconds", ylabel="posts a second allowed", ylim=(0, None))
        panel.legend(fontsize=8, loc="lower right")
    figure.savefig(target, metadata={"Date": None})


def main(
    case_title: Annotated[str, typer.Option("--case", metavar="TEXT", help="only cases whose title has this")] = "",
    plot: Annotated[Path, typer.Option("--plot", metavar="FILE.svg")] = PLOT,
) -> int:
    """Simulate the adaptive rate in a table of cases, print what came of each, and plot some of them."""
    cases = [case for case in CASES if case_title in case.title]
    if not cases:
        raise command.CommandError(f"--case is {case_title!r}, which no case has in its title")
    plotted = []
    print("| case | took | oracle | refused by the account | left over |\n| --- | --- | --- | --- | --- |")
    for case in cases:
        trace, ideal = virtually(run(case)), virtually(run(case, oracle=True))
        if case in PLOTTED:
            plotted.append((case, trace))
        refused = f"{trace.by_account:,} of {trace.posts:,} posts, {trace.by_account / trace.posts:.1%}"
        print(
            f"| {case.title} | {max(trace.took):.1f} s | {max(ideal.took):.1f} s "
            f"| {refused if case.limit else '-'} | {trace.left_over} |",
            flush=True,
        )
    if len(plotted) == len(PLOTTED):
        draw(plotted, plot)
    return 0


def virtually(history: Coroutine[Any, Any, Trace]) -> Trace:
    """Live it on a clock that jumps to the next timer."""
    loop = looptime.patch_event_loop(asyncio.SelectorEventLoop(), _enabled=True)
    try:
        return loop.run_until_complete(history)
    finally:
        loop.close()


if __name__ == "__main__":
    command.run(main)
