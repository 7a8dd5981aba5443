"""Random histories of the feed under the models of Lambda and SQS: who comes back has everything, whatever happens.

A history is two relays side by side, clients that connect, drop and come back, and what goes wrong meanwhile: batches
that come again after failing at any point, appends that are slow or fail half way, posts that fail and are parked for
a connection that is gone by then, sockets that are dead and answer 200 for a while, indexes that are late, clocks that
differ. It runs on virtual time until everything is quiet. Then every client that is connected must have every message
published since it first connected: since it began the first connection that lasted until it had a position.

What the model's client does is what any client must do:

- It keeps one position: the greatest of what it was answered and of the live messages it got. It sends it back when it
  comes back, on any connection, and asks on while ``more`` is true.
- Until ``more`` is false neither live messages nor the answers move that position. The answers' own positions continue
  exactly, on the same connection.
- Where an index is read, it asks once more when the index has had time to show its row.

``tests/simulate_feed.py`` runs ten thousand of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest
from lambda_models import EPOCH, Function, Sqs, SqsMapping, StreamMapping, run_virtually, still_running
from records import incident, record

from async_relay.delivery.backoff import queue_delay
from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.deliveries import Delivery
from async_relay.delivery.outbox import Outgoing, Queues
from async_relay.delivery.protocols import Feed
from async_relay.delivery.publishing import Publisher
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import StoreUnavailable
from async_relay.testing.memory import NEVER, MemoryFeed, MemoryStore, MemoryTransport, Reply
from async_relay.wire.feed import SETTLED_SECONDS, FeedEntry, is_position, ms_of, position_at
from async_relay.wire.jobs import Job, ShardKind, shard_of
from async_relay.wire.messages import Message

TROUBLE_ENDS = 60.0
CLOSING = 170.0
END = 1_800.0
TIMEOUT = 6.0
VISIBILITY = 6 * TIMEOUT
POLICY = RequeuePolicy(1.0, 4)
#: How far two clocks are apart at most.
CLOCKS = 4.0
#: As long as a message can be parked: its delays, its invocations, and what two of them cost that crash, since only the
#: visibility timeout brings a job back then.
OVERLAP = (
    sum(queue_delay(attempt, POLICY.backoff_seconds) for attempt in range(1, POLICY.max_attempts + 1))
    + (POLICY.max_attempts + 1) * TIMEOUT
    + 2 * VISIBILITY
    + CLOCKS
)
#: As long as it takes until what has a position is in the feed, by anybody's clock.
PUBLISHING = SETTLED_SECONDS + CLOCKS


@dataclass(frozen=True)
class Visit:
    """One connection of a client, and what is wrong with it.

    Its socket opens ``handshake`` seconds after its row was written. From ``drops`` on nothing arrives, and for
    ``deaf`` seconds more API Gateway does not know.
    """

    connects: float
    drops: float = NEVER
    handshake: float = 0.0
    deaf: float = 0.0
    row_stays: bool = False
    fault: float = 0.0


@dataclass(frozen=True)
class History:
    """What happens, and how the relay is set up; ``seed`` decides the small things."""

    seed: int
    clients: tuple[tuple[Visit, ...], ...]
    batches: tuple[tuple[float, int], ...]
    shards: int = 0
    kind: ShardKind = ShardKind.SEGMENT
    lag: float = 0.0
    retry: bool = True
    page_size: int = 3
    feed_page: int = 2
    appends: tuple[float, ...] = (0.0,)
    reads: tuple[float, ...] = (0.01,)
    failures: float = 0.0
    crashes: float = 0.0
    repeats: float = 0.0
    batch_size: int = 4
    skew: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What a client and the server do; each departure from these loses something."""

    overlap: float = OVERLAP
    position_first: bool = True
    reads_ahead: bool = True
    resumes_after_history: bool = True
    asks_again: bool = True
    since_it_came: bool = True
    publishing: float = PUBLISHING
    live_moves_while_behind: bool = False
    exact_on_any_connection: bool = False
    relay: type[Relay] = Relay
    publisher: type[Publisher] = Publisher


THE_RULES = Rules()


# ── resuming ────────────────────────────────────────────────────────────────────────────────────


class Replay(NamedTuple):
    """An answer to ``resume``; where ``more``, its position continues exactly."""

    messages: Sequence[dict[str, Any]]
    position: str
    more: bool


async def replay(feed: Feed, position: str, *, before: float | None, now: Callable[[], int], rules: Rules) -> Replay:
    """Everything from so many seconds before a position on, page by page; None: exactly from there. ``now`` in ms.

    What a relay whose clock is ahead has published is read too: its broadcast may have been over when the client came.
    """
    bound = position_at(now())
    ahead = int(CLOCKS * 1000) if rules.reads_ahead else 0
    after = position if before is None else position_at(ms_of(position) - int(before * 1000))
    page = await feed.read(after, position_at(now() + ahead))
    if not rules.position_first:
        bound = position_at(now())
    messages = {payload["event_id"]: payload for entry in page.entries for payload in entry.payloads}
    return Replay(tuple(messages.values()), page.entries[-1].position if page.more else bound, page.more)


Ask = Callable[[str, float | None], Awaitable[Replay]]


class Device:
    """A client over all its connections: what it has, and its position."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.position = ""
        self.reached = ""
        self.since = NEVER
        self.seen: set[str] = set()
        self.behind = True
        self.repeats = 0
        self.replayed = 0
        self.unfinished = ""

    def connected(self) -> None:
        self.behind = True

    def got(self, payload: dict[str, Any]) -> None:
        """A live message came."""
        self._see(payload)
        if self.position and (not self.behind or self.rules.live_moves_while_behind):
            self.position = max(self.position, payload["position"])

    def _see(self, payload: dict[str, Any]) -> None:
        self.repeats += payload["event_id"] in self.seen
        self.seen.add(payload["event_id"])

    async def catch_up(self, ask: Ask) -> None:
        """Resume until there is no more."""
        before: float | None = self.rules.overlap
        position = self.position
        if self.rules.exact_on_any_connection and self.unfinished:
            position, before = self.unfinished, None
        await self._resume(ask, position, before)

    async def ask_again(self, ask: Ask, came: str) -> None:
        """Resume once more, from where the last answer on this connection ended, and for the time since it came."""
        since = min(self.reached, came) if self.rules.since_it_came else self.reached
        await self._resume(ask, since, self.rules.publishing)

    def caught_up(self) -> None:
        """Nothing is missing up to where the last answer ended."""
        self.position = max(self.position, self.reached)
        self.behind = False

    async def _resume(self, ask: Ask, position: str, before: float | None) -> None:
        while True:
            answer = await ask(position, before)
            for payload in answer.messages:
                self.replayed += payload["event_id"] not in self.seen
                self._see(payload)
            if not answer.more:
                break
            position = self.unfinished = answer.position
            before = None
        self.unfinished = ""
        self.reached = answer.position


# ── the world ───────────────────────────────────────────────────────────────────────────────────


class WorldFeed(MemoryFeed):
    """A feed whose appends are slow at times, before or after they are done, and fail half way at times."""

    def __init__(self, world: World) -> None:
        history = world.history
        super().__init__(
            page_size=history.feed_page,
            delay=0.02,
            throttles=lambda: world.trouble() and world.random.random() < history.failures,
        )
        self.world = world

    async def append(self, entries: Sequence[FeedEntry]) -> None:
        world = self.world
        slow = world.random.choice(world.history.appends) if world.trouble() else 0.0
        before = slow * world.random.choice([0.0, 0.5, 1.0])
        await asyncio.sleep(before)
        await super().append(entries)
        world.book(entries)
        await asyncio.sleep(slow - before)


class World:
    """Everything outside the relay: clients, table, feed, queues."""

    def __init__(self, history: History, rules: Rules) -> None:
        self.history = history
        self.rules = rules
        self.random = Random(history.seed)
        self.store = MemoryStore(
            page_size=history.page_size,
            delay=0.01,
            lag=history.lag,
            index=history.kind is ShardKind.PARTITION,
            shards=history.shards or 1,
        )
        self.feed = WorldFeed(self)
        self.devices = [Device(rules) for _ in history.clients]
        self.visits: dict[str, tuple[Device, Visit]] = {}
        self.published: dict[str, float] = {}
        self.places: dict[str, set[str]] = defaultdict(set)
        self.strays: list[str] = []
        self.arrived = 0
        shuffle = self.random.shuffle
        self.retry = Sqs(visibility=VISIBILITY, max_receives=1_000, delay=0.02, shuffle=shuffle)
        self.letters = Sqs(shuffle=shuffle)
        self.fanout = Sqs(fifo=True, visibility=VISIBILITY, max_receives=1_000)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def trouble(self) -> bool:
        return self.now() < TROUBLE_ENDS

    def clock(self) -> Callable[[], float]:
        """A clock of some machine's own."""
        skew, now = self.random.uniform(-1, 1) * self.history.skew / 2, self.now
        return lambda: EPOCH + now() + skew

    def book(self, entries: Sequence[FeedEntry]) -> None:
        """Note what has been published just now."""
        for entry in entries:
            for payload in entry.payloads:
                self.published[payload["event_id"]] = self.now()
                self.places[payload["event_id"]].add(entry.position)

    def reply(self, connection_id: str, message: Message) -> Reply:
        """What API Gateway answers, and what arrives."""
        device, visit = self.visits[connection_id]
        now, random = self.now(), self.random
        quick = random.choice([0.0, 0.005, 0.02, 0.05])
        if now >= visit.drops + visit.deaf or now < visit.connects + visit.handshake:
            return Reply(410, quick)
        if now >= visit.drops:
            return Reply(200, quick, arrives=False)
        if self.trouble() and random.random() < visit.fault:
            return random.choice([Reply(500, quick), Reply(0, quick), Reply(200, NEVER, arrives=False)])
        payload = message.payload
        if payload.get("position") not in self.places[message.event_id]:
            self.strays.append(f"{message.event_id} was posted before it was published")
        self.arrived += 1
        device.got(payload)
        return Reply(200, quick)

    def connect(self, connection_id: str) -> None:
        row: dict[str, Any] = {"createdAt": int((EPOCH + self.now()) * 1000)}
        if self.history.kind is ShardKind.PARTITION:
            row["shard"] = shard_of(connection_id, self.history.shards or 1)
        self.store.write(connection_id, row)

    async def ask(self, position: str, before: float | None) -> Replay:
        """Resume; tried again where the feed does not answer."""
        clock = self.clock()
        while True:
            try:
                answer = await replay(
                    self.feed, position, before=before, now=lambda: int(clock() * 1000), rules=self.rules
                )
                await asyncio.sleep(self.random.choice(self.history.reads))
                break
            except StoreUnavailable:
                await asyncio.sleep(1.0)
        return answer

    async def live(self, number: int) -> None:
        """A client from its first connection to its last."""
        device = self.devices[number]
        for at, visit in enumerate(self.history.clients[number]):
            connection_id = f"c{number}-{at}="
            await asyncio.sleep(max(0.0, visit.connects - self.now()))
            self.visits[connection_id] = (device, visit)
            self.connect(connection_id)
            device.connected()
            try:
                async with asyncio.timeout_at(None if visit.drops == NEVER else visit.drops):
                    await self.visit(device, visit)
            except TimeoutError:
                asyncio.get_running_loop().call_later(visit.deaf, self.leave, connection_id, visit)

    def leave(self, connection_id: str, visit: Visit) -> None:
        """$disconnect, which may never come."""
        if not visit.row_stays:
            self.store.write(connection_id, None)

    async def visit(self, device: Device, visit: Visit) -> None:
        """One connection."""
        came = position_at(int((EPOCH + self.now()) * 1000))
        await asyncio.sleep(visit.handshake + self.random.choice([0.0, 0.05, 1.0]))
        if not device.position:
            await self.subscribe(device)
            if self.rules.resumes_after_history:
                await device.ask_again(self.ask, came)
        else:
            await device.catch_up(self.ask)
        if self.history.lag and self.rules.asks_again:
            await asyncio.sleep(self.history.lag + 0.1)
            await device.ask_again(self.ask, came)
        device.caught_up()
        if visit.drops < NEVER:
            await asyncio.Event().wait()

    async def subscribe(self, device: Device) -> None:
        """The first time: the position comes first, then the state of everything, which is not modelled.

        It may have been read for somebody else, some seconds ago.
        """
        age = self.random.choice([0.0, 0.0, 2.0, 5.0])
        device.since = self.now() - age
        clock = self.clock()
        position = position_at(int((clock() - age) * 1000))
        await asyncio.sleep(self.random.choice(self.history.reads))
        device.position = position if self.rules.position_first else position_at(int(clock() * 1000))
        device.reached = device.position


class Sandbox:
    """A Lambda sandbox with a relay in it; a crash may take it away, and the next invocation finds a new one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock()
        self.relay: Relay | None = None

    def _relay(self) -> Relay:
        world, history, rules = self.world, self.world.history, self.world.rules
        transport = MemoryTransport(world.reply, timeout=1.0, keep=False)
        random = Random(world.random.random())
        return rules.relay(
            Broadcaster(transport, world.store, Limits(5, 1.0), Rate(), random, self.clock),
            Queues(world.retry if history.retry else None, world.letters, world.fanout if history.shards else None),
            POLICY,
            wall_clock=self.clock,
            shards=history.shards or 1,
            shard_kind=history.kind,
            publisher=rules.publisher(world.feed, self.clock, random),
        )

    async def serve(self, entry: str, event: Any, seconds: float) -> Any:
        if self.relay is None:
            self.relay = self._relay()
        try:
            return await getattr(self.relay, entry)(event, seconds)
        except asyncio.CancelledError:
            if self.world.random.random() < 0.5:
                self.relay = None
            raise


@dataclass
class Aftermath:
    """A world gone quiet, or not."""

    world: World
    streams: list[StreamMapping]
    functions: list[Function]
    quiet: bool
    left_running: list[str]


async def live(history: History, rules: Rules = THE_RULES) -> Aftermath:
    """Run the history until everything is quiet."""
    world = World(history, rules)

    def function(entry: str) -> Function:
        return Function(partial(Sandbox(world).serve, entry), TIMEOUT, partial(_crash, world))

    streams = [
        StreamMapping(function("on_stream"), batch_size=history.batch_size, max_retries=-1, backoff=0.5)
        for _ in range(2)
    ]
    jobs = [
        SqsMapping(queue, function("on_jobs"), batch_size=5, again=partial(_again, world))
        for queue in (world.retry, world.retry, world.fanout, world.fanout)
    ]
    mappings: list[StreamMapping | SqsMapping] = [*streams, *jobs]
    pollers = [asyncio.create_task(mapping.poll()) for mapping in mappings]
    await asyncio.gather(_publish(world, streams), *(world.live(number) for number in range(len(history.clients))))
    quiet = False
    while not quiet and world.now() < END:
        await asyncio.sleep(15)
        quiet = all(stream.idle for stream in streams) and not (world.retry.messages or world.fanout.messages)
    for poller in pollers:
        poller.cancel()
    await asyncio.gather(*pollers, return_exceptions=True)
    return Aftermath(world, streams, [mapping.function for mapping in mappings], quiet, still_running())


def _crash(world: World) -> float | None:
    if world.trouble() and world.random.random() < world.history.crashes:
        return world.random.choice([0.0, 0.005, 0.02, 0.04, 0.06, 0.3, 1.0, 3.0])
    return None


def _again(world: World) -> bool:
    return world.trouble() and world.random.random() < world.history.repeats


async def _publish(world: World, streams: Sequence[StreamMapping]) -> None:
    number = 0
    for at, count in [*world.history.batches, (CLOSING, 2)]:
        await asyncio.sleep(max(0.0, at - world.now()))
        for _ in range(count):
            number += 1
            streams[number % len(streams)].put(record(incident(number), sequence=str(number)))


# ── the checker ─────────────────────────────────────────────────────────────────────────────────


def complaints(after: Aftermath) -> Iterator[str]:
    """Everything that went against what the feed promises."""
    world = after.world
    if not after.quiet:
        yield "it never became quiet"
    yield from (f"an invocation raised {error!r}" for each in after.functions for error in each.errors)
    yield from (f"left running: {each}" for each in after.left_running)
    yield from dict.fromkeys(world.strays)
    records = {event_id for stream in after.streams for event_id in stream.invoked}
    yield from (f"{event_id} was never published" for event_id in sorted(records - world.published.keys()))
    yield from _about_clients(world)


def _about_clients(world: World) -> Iterator[str]:
    """Who is connected at the end has what was published since it first connected."""
    given_up = _given_up(world)
    for number, (device, visits) in enumerate(zip(world.devices, world.history.clients, strict=True)):
        if visits[-1].drops < NEVER:
            continue
        if not is_position(device.position) or device.behind:
            yield f"client {number} never caught up"
        owed = {event_id for event_id, at in world.published.items() if at > device.since}
        lost = owed - device.seen - given_up[f"c{number}-{len(visits) - 1}="]
        yield from (f"client {number} never got {event_id}" for event_id in sorted(lost))


def _given_up(world: World) -> dict[str, set[str]]:
    """What is in the dead letters for a connection, because it failed too often: its client may ask for it again."""
    found: dict[str, set[str]] = defaultdict(set)
    for message in world.letters.messages:
        job = Job.decode(message.entry.body)
        for client in job.clients:
            found[client.connection_id] |= {each.event_id for each in job.messages[client.skip :]}
    return found


def falsify(history: History, rules: Rules = THE_RULES) -> list[str]:
    """The complaints about one history."""
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    return list(complaints(run_virtually(live(history, rules))))


# ── the histories ───────────────────────────────────────────────────────────────────────────────


def history_of(seed: int) -> History:
    """Any history; the same for the same seed."""
    random = Random(seed)
    choose = random.choice
    batches = sorted(
        (choose([random.uniform(0, 60), random.uniform(0, 5), 20.0]), choose([1, 1, 2, 5]))
        for _ in range(choose([1, 4, 10]))
    )
    shards = choose([0, 0, 1, 3])
    kind = choose(list(ShardKind)) if shards else ShardKind.SEGMENT
    return History(
        seed=seed,
        clients=tuple(_visits(random) for _ in range(choose([1, 3, 6]))),
        batches=tuple(batches),
        shards=shards,
        kind=kind,
        lag=choose([0.0, 0.3, 3.0]) if kind is ShardKind.PARTITION else 0.0,
        retry=random.random() < 0.85,
        page_size=choose([1, 3, 100]),
        feed_page=choose([1, 2, 10]),
        appends=choose([(0.0,), (0.0, 0.0, 0.5, 3.0), (0.0, 2.0, 5.0)]),
        reads=choose([(0.01,), (0.01, 0.5), (0.01, 2.0, 8.0)]),
        failures=choose([0.0, 0.0, 0.3]),
        crashes=choose([0.0, 0.0, 0.2]),
        repeats=choose([0.0, 0.0, 0.2]),
        batch_size=choose([1, 4, 10]),
        skew=choose([0.0, CLOCKS]),
    )


def _visits(random: Random) -> tuple[Visit, ...]:
    """A client's connections: it is away for an instant or for minutes, and most stay in the end."""
    choose = random.choice
    visits = []
    at = choose([0.0, random.uniform(0, 30)])
    for _ in range(choose([0, 1, 1, 2, 4])):
        drops = at + choose([random.uniform(0.01, 2), random.uniform(0, 20), random.uniform(0, 90)])
        visits.append(_visit(random, at, drops))
        at = drops + choose([0.0, random.uniform(0, 1), random.uniform(0, 15), random.uniform(0, 60)])
    return (*visits, _visit(random, at, NEVER if random.random() < 0.9 else at + 10))


def _visit(random: Random, connects: float, drops: float) -> Visit:
    choose = random.choice
    return Visit(
        connects,
        drops,
        handshake=choose([0.0, 0.0, 0.3, 2.0]),
        deaf=choose([0.0, 0.0, 1.0, 15.0]),
        row_stays=random.random() < 0.3,
        fault=choose([0.0, 0.0, 0.2, 0.9]),
    )


#: Histories in one test; each takes some 50 ms.
_IN_ONE_TEST = 50


@pytest.mark.parametrize("first", range(0, 300, _IN_ONE_TEST))
def test_nobody_misses_anything(first: int) -> None:
    """Whatever goes wrong, who is connected in the end has everything published since it first connected."""
    for seed in range(first, first + _IN_ONE_TEST):
        assert falsify(history_of(seed)) == [], f"history {seed}"


# ── the checker can fail ────────────────────────────────────────────────────────────────────────


class HastyRelay(Relay):
    """The real one, but it serves first and publishes then, to be a little faster."""

    async def _serve_everybody(self, delivery: Delivery, end: float) -> Outgoing:
        publisher = self._publisher
        assert publisher is not None
        self._publisher = HeldPublisher(publisher)
        try:
            outgoing = await super()._serve_everybody(delivery, end)
            await self._publisher.write(end)
        finally:
            self._publisher = publisher
        return outgoing


class HeldPublisher(Publisher):
    """Gives messages their positions, and writes them when it is told to."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(publisher._feed, publisher._wall_clock, publisher._random)
        self._held: Sequence[FeedEntry] = ()

    async def _append(self, entries: Sequence[FeedEntry], end: float) -> None:  # noqa: ARG002 - as the real one
        self._held = entries

    async def write(self, end: float) -> None:
        await super()._append(self._held, end)


class CarelessPublisher(Publisher):
    """The real one, but what the feed does not take is sent all the same."""

    async def _append(self, entries: Sequence[FeedEntry], end: float) -> None:
        with suppress(StoreUnavailable):
            await super()._append(entries, end)


def as_it_is(history: History) -> History:
    return history


def with_a_late_index(history: History) -> History:
    return replace(history, shards=3, kind=ShardKind.PARTITION, lag=3.0)


def slowly_read(history: History) -> History:
    """What a client is answered with is older than the overlap: it came from a sandbox that was frozen, say."""
    return replace(with_a_late_index(history), reads=(OVERLAP + 50,))


def with_clocks_apart(history: History) -> History:
    """A client comes back just after a broadcast is over."""
    visits = (Visit(0.0, 5.0), Visit(10.1 + history.seed % 10 / 10))
    return History(history.seed, (visits,), ((10.0, 4),), skew=CLOCKS)


def long_gone(history: History) -> History:
    """A client was away for longer than the overlap, comes back while something happens, and has to come back again."""
    visits = (Visit(0.0, 5.0), Visit(400.0, 401.5), Visit(404.0))
    batches = ((1.0, 2), (20.0, 12), (400.2, 2))
    return History(history.seed, (visits,), batches, reads=(1.0,), feed_page=1, batch_size=1)


def briefly_back(history: History) -> History:
    """A client comes back while slow entries are being written, and has to come back again when they are."""
    visits = (Visit(0.0, 9.0), Visit(10.3, 11.2), Visit(14.0))
    slow = (0.0, 0.0, 3.0)
    return History(history.seed, (visits,), ((10.0, 12),), appends=slow, reads=(0.5,), feed_page=1, batch_size=1)


@pytest.mark.parametrize(
    ("rules", "change", "complaint"),
    [
        pytest.param(Rules(relay=HastyRelay), as_it_is, "never got", id="published after the rows were read"),
        pytest.param(Rules(publisher=CarelessPublisher), as_it_is, "was never published", id="sent and not published"),
        pytest.param(Rules(overlap=0.0), as_it_is, "never got", id="no overlap"),
        pytest.param(
            Rules(position_first=False, since_it_came=False),
            slowly_read,
            "never got",
            id="the position after the data",
        ),
        pytest.param(Rules(resumes_after_history=False), as_it_is, "never got", id="not resumed after an old list"),
        pytest.param(Rules(publishing=0.0), with_a_late_index, "never got", id="not asked for what was being written"),
        pytest.param(Rules(asks_again=False), with_a_late_index, "never got", id="not asked again after a late index"),
        pytest.param(Rules(reads_ahead=False), with_clocks_apart, "never got", id="not read ahead of one's own clock"),
        pytest.param(Rules(live_moves_while_behind=True), long_gone, "never got", id="moved while it lies behind"),
        pytest.param(Rules(exact_on_any_connection=True), briefly_back, "never got", id="exact on another connection"),
    ],
)
def test_whoever_breaks_a_rule_loses_something(
    rules: Rules, change: Callable[[History], History], complaint: str
) -> None:
    """Each rule is needed: without it a history soon shows what is lost, and with it the same history is whole."""
    for seed in range(200):
        history = change(history_of(seed))
        if any(complaint in each for each in falsify(history, rules)):
            assert falsify(history) == [], f"history {seed} is broken with all the rules"
            return
    pytest.fail("no history shows it")
