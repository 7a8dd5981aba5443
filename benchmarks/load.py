"""The real handler against many mocked clients, and a verdict: whether everybody got what they should have got.

    make load                                              10,000 clients, 5 messages
    make load LOAD='--clients 100000 --gone 0.05'          a twentieth has gone
    make load LOAD='--messages 100 --frames 1'             everybody reads arrays: many messages in one post
    make load LOAD='--duration 60 --churn 200'             a minute, with clients coming and going
    make load LOAD='--chaos --clients 3000'                a clean run, a chaotic one, and how much later it delivers
    python -m benchmarks.load --endpoint URL --table NAME  one's own API: it posts for real

Rules
- The code is the handler's: the sandbox, its settings from an environment, the transport, the table read by Scan.
- The gateway and the table are processes of their own. The retry queue is here: its jobs are served when they are due,
  as Lambda would, until it is empty.
- The gateway's own account of what each client got decides, not the relay's.
- Ctrl-C: what there is so far is shown, and nothing is left running.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from itertools import count
from random import Random
from typing import Annotated, Any

import typer
from rich.console import Console

from async_relay.delivery.protocols import ConnectionStore, Entry, Feed, IncidentTable, Queue, Transport
from async_relay.sandbox import Sandbox, new_event_loop
from async_relay.services import AwsServices
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryQueue

from . import chaos as preset
from . import command
from .command import CommandError
from .crowd import KINDS, Latency, latency
from .ledger import Tally
from .stage import ROOT, least_body, stream_event
from .verdict import Ending, problems
from .watch import Watch, WatchedTransport
from .world import DEAD_LETTERS, RETRY, Endpoint, Memory, Servers, World, settings

RESULTS = ROOT / "benchmarks" / "results"
# As in the template: the functions' timeout and the retry queue's BatchSize.
_INVOCATION_SECONDS = 60.0
_JOBS_AT_ONCE = 10
# Less than the template's maxReceiveCount of 60 and its visibility timeout of minutes: a load test does not wait.
_RECEIVES = 5
_HIDDEN_SECONDS = 1.0
# Seconds between two looks at the figures, and between clients that leave and come.
_TICK = 0.5
_CHURN_TICK = 0.2
# Seconds for the retry queue to become empty at the end; a job that is still there then is a finding.
_PATIENCE = 300.0


class Carrier(StrEnum):
    """The transport of the posts: one of the relay's two transports, or the in-memory one of the tests."""

    DIRECT = "direct"
    SDK = "sdk"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    clients: int
    messages: int
    payload: int
    lag: Latency
    shares: Mapping[str, float]
    account_limit: float | None
    duration: float
    churn: float
    concurrency: int
    transport: Carrier
    seed: int
    arrays: float = 0.0
    retry_backoff: float = 1.0
    endpoint: str = ""
    table: str = ""


class _Context:
    """The context that Lambda hands a function."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - time.monotonic()) * 1000))


class WatchedServices:
    """The handler's services with a watch at the transport, the queues in this process, and the world's doubles."""

    def __init__(self, chosen: Settings, watch: Watch, queues: Mapping[str, Queue], world: World) -> None:
        self._aws = AwsServices(chosen)
        self._watch = watch
        self._queues = queues
        self._world = world

    async def store(self) -> ConnectionStore:
        """The world's table, where it has one of its own."""
        return self._world.store or await self._aws.store()

    async def transport(self) -> Transport:
        """The world's transport, where it has one of its own, watched."""
        return WatchedTransport(self._world.transport or await self._aws.transport(), self._watch)

    async def feed(self) -> Feed | None:
        """The feed, where the settings name one."""
        return await self._aws.feed()

    async def incidents(self) -> IncidentTable | None:
        """The incident table, where the settings name one."""
        return await self._aws.incidents()

    def queue(self, url: str) -> Queue:
        """The queue in this process that stands for this URL."""
        return self._queues[url]

    async def close(self) -> None:
        """Close the sockets to the table."""
        await self._aws.close()


@dataclass(order=True, slots=True)
class _Requeued:
    due: float
    number: int
    entry: Entry = field(compare=False)
    receives: int = field(compare=False, default=0)


class Load:
    """One load test under way."""

    def __init__(self, options: Options, world: World) -> None:
        self.options = options
        self.watch = Watch()
        self.world = world
        self._retry, self._dead_letters = MemoryQueue(), MemoryQueue()
        queues: dict[str, Queue] = {RETRY: self._retry, DEAD_LETTERS: self._dead_letters}
        chosen = {
            "MAX_CONCURRENCY": options.concurrency,
            "TRANSPORT": "sdk" if options.transport is Carrier.SDK else "direct",
            "RETRY_BACKOFF_SECONDS": f"{options.retry_backoff:g}",
        }
        found = Settings.from_env(settings(world, chosen))
        self.sandbox = Sandbox(found, WatchedServices(found, self.watch, queues, world), emit_metrics=self._note)
        self.most_in_flight = 0
        self._random = Random(options.seed)
        self._requeued: list[_Requeued] = []
        self._numbers = count()
        self._present: list[str] = []
        # A client that comes while a batch begins would be expected to get it, but its row may come too late for that.
        self._door = asyncio.Lock()
        self._reachable = 0
        self._draining = False
        self.last = 0
        self.settled = 0
        self.batches = 0
        self.handed_back = 0
        self.dead_letters: list[str] = []
        self.tally: Tally | None = None

    @property
    def clients(self) -> int:
        """How many there are now."""
        return len(self._present)

    @property
    def requeued(self) -> int:
        """Jobs in the retry queue."""
        return len(self._requeued)

    def expected(self) -> int | None:
        """How many deliveries there will be: known for one batch only, and not where the table is somebody else's."""
        if self.options.duration or self.options.endpoint:
            return None
        return self._reachable * self.last

    def doing(self) -> str:
        """What goes on, for who watches."""
        watch, expected = self.watch, self.expected()
        if not self.batches and not watch.sent:
            return "The clients are coming in"
        if watch.seconds:
            return "Counting what the clients got"
        left = "" if expected is None else f"{max(0, expected - watch.delivered):,} to go: "
        retried = sum(number for reason, number in watch.outcomes.items() if reason != "gone")
        if watch.in_flight:
            return f"{left}{watch.in_flight} posts in flight, {retried:,} tried again so far"
        if self._requeued and self._draining:
            wait = max(0.0, self._requeued[0].due - asyncio.get_running_loop().time())
            return f"{left}{len(self._requeued)} jobs in the retry queue, the next in {wait:.1f} s"
        return f"{left}waiting to try again"

    async def play(self) -> Ending:
        """Everything, until it is quiet."""
        options = self.options
        loop = asyncio.get_running_loop()
        self._present = list(await self.world.join(options.clients, 1, old=True))
        self._reachable = len(self._present) - await self.world.ghosts(1)
        self.watch.restart()
        end = loop.time() + options.duration
        churning = loop.create_task(self._churn()) if options.churn else None
        try:
            await self._batch()
            while loop.time() < end:
                await self._batch()
            if churning:
                churning.cancel()
            await self._drain(loop.time() + _PATIENCE)
        finally:
            if churning:
                churning.cancel()
                await asyncio.gather(churning, return_exceptions=True)
            await self.sandbox.close()
        return await self.ending()

    async def ending(self) -> Ending:
        """The state as it is known now."""
        self.watch.finish()
        self.tally = await self.world.tally()
        return Ending(
            await self.world.shortfall(self.last),
            tuple(self.dead_letters),
            self.handed_back,
            len(self._requeued),
            await self.world.ghosts(self.last),
            self.most_in_flight,
            self.options.concurrency,
        )

    def _note(self, figures: Mapping[str, float]) -> None:
        self.most_in_flight = max(self.most_in_flight, int(figures["most_in_flight"]))

    async def _batch(self) -> None:
        """One stream event; what comes back is sent again, as Lambda does."""
        async with self._door:
            sequences = range(self.last + 1, self.last + self.options.messages + 1)
            self.last = sequences[-1]
        records = deque(stream_event(self.options.payload, sequences)["Records"])
        self.watch.begin([str(each) for each in sequences])
        for _ in range(_RECEIVES):
            answer = await self.sandbox.on_stream({"Records": list(records)}, _Context(_INVOCATION_SECONDS))
            self._collect()
            if not answer["batchItemFailures"]:
                break
            lowest = min(int(each["itemIdentifier"]) for each in answer["batchItemFailures"])
            while records and int(records[0]["dynamodb"]["SequenceNumber"]) < lowest:
                records.popleft()
        else:
            self.handed_back += len(records)
        self.batches += 1
        await self._serve_due()
        if not self._requeued:
            self.settled = self.last

    def _collect(self) -> None:
        """Take over the jobs that were sent to the retry queue, and the dead letters."""
        now = asyncio.get_running_loop().time()
        for entry in self._retry.take():
            heapq.heappush(self._requeued, _Requeued(now + entry.delay, next(self._numbers), entry))
        for entry in self._dead_letters.take():
            letter = json.loads(entry.body)["deadLetter"]
            self.dead_letters.append(f"{letter['reason']}: {letter['detail']}")

    async def _serve_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._requeued and self._requeued[0].due <= now:
            due: list[_Requeued] = []
            while self._requeued and self._requeued[0].due <= now and len(due) < _JOBS_AT_ONCE:
                due.append(heapq.heappop(self._requeued))
            await self._serve(due)

    async def _serve(self, jobs: Sequence[_Requeued]) -> None:
        records = [{"messageId": str(job.number), "body": job.entry.body, "attributes": {}} for job in jobs]
        answer = await self.sandbox.on_jobs({"Records": records}, _Context(_INVOCATION_SECONDS))
        back = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
        for job in jobs:
            if str(job.number) in back:
                self._hide(job)
        self._collect()

    def _hide(self, job: _Requeued) -> None:
        """SQS shows it again, and gives up after a few times."""
        job.receives += 1
        if job.receives < _RECEIVES:
            job.due = asyncio.get_running_loop().time() + _HIDDEN_SECONDS
            heapq.heappush(self._requeued, job)
        else:
            self.dead_letters.append("a job came back again and again")

    async def _drain(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._draining = True
        while self._requeued and loop.time() < until:
            await asyncio.sleep(max(0.0, self._requeued[0].due - loop.time()))
            await self._serve_due()

    async def _churn(self) -> None:
        """As many leave as come."""
        owed = 0.0
        while True:
            await asyncio.sleep(_CHURN_TICK)
            owed += self.options.churn * _CHURN_TICK / 2
            leaving = min(int(owed), len(self._present) - 1)
            owed -= leaving
            if leaving > 0:
                gone = [self._present.pop(self._random.randrange(len(self._present))) for _ in range(leaving)]
                await self.world.leave(gone, self.settled)
                async with self._door:
                    self._present += await self.world.join(leaving, self.last + 1, old=False)


def summary(load: Load, ending: Ending | None) -> dict[str, Any]:
    """Everything in plain values."""
    watch = load.watch
    seconds, cpu = watch.seconds, watch.cpu
    options = asdict(load.options)
    tally = load.tally
    return {
        "options": options,
        "seconds": round(seconds, 3),
        "batches": load.batches,
        "clients": load.clients,
        "messages": load.last,
        "posts": watch.sent,
        "delivered": watch.delivered,
        "outcomes": dict(watch.outcomes),
        "posts_a_second": round(watch.sent / seconds, 1) if seconds else 0.0,
        "cpu_us_a_message": round(cpu / watch.delivered * 1e6, 2) if watch.delivered else 0.0,
        "cpu_us_a_post": round(cpu / watch.sent * 1e6, 2) if watch.sent else 0.0,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "post_seconds": dict(zip(("p50", "p95", "p99"), watch.posts.percentiles(), strict=True)),
        "delivery_seconds": {
            **dict(zip(("p50", "p95", "p99"), watch.deliveries.percentiles(), strict=True)),
            "last": watch.deliveries.longest,
        },
        "arrived": asdict(tally) if tally else None,
        "ending": asdict(ending) if ending else None,
        "problems": problems(ending) if ending else ["the run was stopped before its end"],
        "moments": [asdict(each) for each in watch.moments],
    }


_CHAOS = (
    "a clean run, then one with "
    + ", ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in preset.PRESET.items())
    + " where not given otherwise; both have the same clients, messages, duration and account limit, since a limit"
    f" slows healthy clients down too; fails where p95 from event to delivery is more than {preset.WITHIN:g} times"
    " the clean one's"
)


def main(
    clients: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N")] = 10_000,
    messages: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="a batch")] = 5,
    payload: Annotated[int, typer.Option(min=1, max=131_072, metavar="BYTES")] = 600,
    lag: Annotated[
        str, typer.Option("--latency", metavar="MS", help="of an answer: 8, uniform:2-20 or lognormal:8")
    ] = "8",
    gone: Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE")] = None,
    throttled: Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE")] = None,
    erring: Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE")] = None,
    hanging: Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE")] = None,
    slow: Annotated[float | None, typer.Option(min=0, max=1, metavar="SHARE")] = None,
    account_limit: Annotated[
        float | None,
        typer.Option(min=0, max=1_000_000, metavar="POSTS", help="a second; 0: none"),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0, max=86_400, metavar="SECONDS", help="batch after batch; 0: one"),
    ] = None,
    frames: Annotated[
        float, typer.Option(min=0, max=1, metavar="SHARE", help="of the clients that read arrays of messages")
    ] = 0.0,
    churn: Annotated[
        float | None,
        typer.Option(min=0, max=10_000, metavar="CLIENTS", help="coming and going a second"),
    ] = None,
    chaos: Annotated[bool, typer.Option("--chaos", help=_CHAOS)] = False,  # noqa: FBT002
    concurrency: Annotated[int, typer.Option(min=1, max=900, metavar="N")] = 100,
    transport: Annotated[Carrier, typer.Option()] = Carrier.DIRECT,
    seed: Annotated[int, typer.Option(min=0, max=999_999_999, metavar="N")] = 1,
    endpoint: Annotated[str, typer.Option(metavar="URL", help="your own API, with the stage: it posts for real")] = "",
    table: Annotated[str, typer.Option(metavar="NAME", help="the connections table of that API")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="do not ask before posting for real")] = False,  # noqa: FBT002
) -> int:
    """Broadcast to many mocked clients, and say whether everybody got everything."""
    chosen = {
        name: preset.option(name, given, chaos=chaos)
        for name, given in {
            "gone": gone,
            "throttled": throttled,
            "erring": erring,
            "hanging": hanging,
            "slow": slow,
            "account_limit": account_limit,
            "duration": duration,
            "churn": churn,
        }.items()
    }
    options = Options(
        clients=clients,
        messages=messages,
        payload=payload,
        lag=latency(lag),
        shares={kind: chosen[kind] for kind in KINDS[1:]},
        account_limit=chosen["account_limit"] or None,
        duration=chosen["duration"],
        churn=chosen["churn"],
        concurrency=concurrency,
        transport=transport,
        arrays=frames,
        seed=seed,
        endpoint=endpoint,
        table=table,
    )
    check(options)
    console = Console()
    if endpoint:
        _warn(options, console)
        if not yes:
            typer.confirm("Post to them?", abort=True)
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    return _compare(options, console) if chaos else _run(options, console)[0]


def check(options: Options) -> None:
    """Check options against each other; raises ``CommandError``."""
    if options.payload < least_body():
        raise CommandError(f"--payload is {options.payload}; the smallest message has {least_body()} bytes")
    if sum(options.shares.values()) > 1:
        raise CommandError(f"--{', --'.join(KINDS[1:])} are shares of the clients; together they must be at most 1")
    if options.transport is Carrier.MEMORY and options.account_limit:
        raise CommandError("--account-limit is the gateway's, and --transport memory has none: say --account-limit 0")
    if bool(options.endpoint) != bool(options.table):
        raise CommandError("--endpoint and --table belong together: whom to post to stands in the table")
    mocked = any(options.shares.values()) or options.churn or options.account_limit or options.arrays
    if options.endpoint and (mocked or options.transport is Carrier.MEMORY):
        raise CommandError(
            "shares, frames, churn, limits and memory belong to mocked clients; with --endpoint they are real"
        )


def _warn(options: Options, console: Console) -> None:
    console.print(
        f"This posts {options.messages:,} made-up incidents to every client in the table {options.table}, through "
        f"{options.endpoint}, and deletes the rows of those that have gone. They are real, and so is the bill.",
        style="bold yellow",
    )


def _world(options: Options) -> World:
    if options.endpoint:
        return Endpoint(options.endpoint, options.table)
    if options.transport is Carrier.MEMORY:
        return Memory(options.shares, options.seed, options.lag, options.arrays)
    return Servers(options.shares, options.seed, options.lag, options.account_limit, options.arrays)


def _compare(options: Options, console: Console) -> int:
    """The same load with and without what is wrong, and whether the healthy clients noticed."""
    from .load_report import compare

    calm = replace(options, shares=dict.fromkeys(options.shares, 0.0), churn=0.0)
    console.rule("Clean")
    code, clean = _run(calm, console, "load-clean")
    if code == command.STOPPED:
        return code
    console.rule("Chaotic")
    worse, chaotic = _run(options, console)
    if worse == command.STOPPED:
        return worse
    console.rule("Event to delivery")
    found = preset.ratios(clean, chaotic)
    problem = preset.problem(found)
    compare(clean, chaotic, found, problem, console)
    return command.FAILED if problem else max(code, worse)


def _run(options: Options, console: Console, name: str = "load") -> tuple[int, dict[str, Any]]:
    """The exit code, and the figures, which are also written to files of that name."""
    from . import load_report  # Late: plots take a second to load, and an option may be wrong.

    world = _world(options)
    load = Load(options, world)
    console.print(f"Posting through {world.settings['WS_ENDPOINT']}; Ctrl-C shows what there is so far", style="dim")
    ending: Ending | None = None
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                ending = runner.run(_watched(load, console))
            except KeyboardInterrupt:
                console.print("Stopped; what there is so far:")
    finally:
        load.watch.finish()
        world.close()
    figures = summary(load, ending)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1))
    (RESULTS / f"{name}.html").write_text(load_report.page(figures))
    load_report.show(figures, console)
    console.print(f"Written: {os.path.relpath(RESULTS / name)}.html and {name}.json beside it")
    if ending is None:
        return command.STOPPED, figures
    return command.FAILED if figures["problems"] else 0, figures


async def _watched(load: Load, console: Console) -> Ending:
    """Play with the figures on the screen meanwhile."""
    from .load_report import live

    playing = asyncio.create_task(load.play())
    with live(load.watch, load.expected, load.doing, console) as update:
        try:
            while not playing.done():
                await asyncio.wait([playing], timeout=_TICK)
                load.watch.take(load.sandbox.rate_limit, load.requeued, load.clients)
                update()
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
    return await playing


if __name__ == "__main__":
    command.run(main, sys.argv[1:])
