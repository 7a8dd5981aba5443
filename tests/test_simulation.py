"""Random histories under the models of Lambda and SQS: nothing is lost, whatever happens and in whatever order.

A history is a few clients with a nature each, records published to a stream, and what goes wrong meanwhile. It runs
on virtual time until everything is quiet; the checker then reads what arrived, what is in the dead letters, and how.
``tests/simulate.py`` runs ten thousand of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from random import Random
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from lambda_models import (
    EPOCH,
    Function,
    Handler,
    Sqs,
    SqsMapping,
    SqsMessage,
    StreamMapping,
    run_virtually,
    still_running,
    wall_clock,
)
from records import incident, record, remediation

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.lanes import Lane
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry, Page
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.report import Outcome, Report
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import PostError, StoreUnavailable
from async_relay.testing.memory import NEVER, MemoryStore, MemoryTransport, Reply, messages_in
from async_relay.wire.frames import FRAME_BYTES
from async_relay.wire.jobs import Client, Cursor, Job, Shard, ShardKind, shard_of
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_record

HOUR = 3_600.0
TROUBLE_ENDS = 120.0
CLOSING = 140.0
SAMPLE_SIZE = 10
ON_TRUST = 25

Fault = Literal[
    "none", "slow", "flaky", "sick", "hanging", "full", "lossy", "odd", "small", "narrow", "forbidden", "unreachable"
]
Answer = Callable[[Random, float, Message], Reply]


def refused(message: Message) -> bool:
    """Whether an odd or a small client refuses a post with this message in it, alone or among others."""
    return any(int(each.sequence) % 3 == 0 for each in messages_in(message))


def well(_random: Random, quick: float, _message: Message) -> Reply:
    return Reply(200, quick)


def slow(random: Random, _quick: float, _message: Message) -> Reply:
    return Reply(200, random.uniform(0.2, 0.9))


def flaky(random: Random, quick: float, _message: Message) -> Reply:
    return random.choice([Reply(500, quick), Reply(0, quick), Reply(503, 0.4), Reply(200, quick)])


def lossy(random: Random, quick: float, message: Message) -> Reply:
    """The message arrives, and half of the time nobody hears of it."""
    lost = random.choice([Reply(0, quick, arrives=True), Reply(200, NEVER), Reply(502, 0.3, arrives=True)])
    return random.choice([lost, well(random, quick, message)])


def always(status: int, delay: float | None = None) -> Answer:
    return lambda _random, quick, _message: Reply(status, quick if delay is None else delay, arrives=False)


def refusing(status: int) -> Answer:
    return lambda _random, quick, message: Reply(status if refused(message) else 200, quick)


def narrow(_random: Random, quick: float, message: Message) -> Reply:
    """Each message is welcome, and no array of them."""
    return Reply(413 if len(messages_in(message)) > 1 else 200, quick)


ANSWERS: dict[Fault, Answer] = {
    "none": well,
    "slow": slow,
    "flaky": flaky,
    "lossy": lossy,
    "sick": always(500),
    "hanging": always(200, NEVER),
    "full": always(429),
    "odd": refusing(400),
    "small": refusing(413),
    "narrow": narrow,
    "forbidden": always(403),
    "unreachable": always(-1),
}
#: What may last for ever: one client's own trouble, not what would make the whole endpoint unusable.
LASTING: tuple[Fault, ...] = ("sick", "hanging", "full", "lossy", "odd", "small", "narrow")
KINDS = ("incident", "remediation", "ignored", "removed", "malformed", "no image", "oversized")


@dataclass(frozen=True)
class Nature:
    """A client: when it connects and drops (seconds into the history), and what is wrong with it until when.

    ``frames``: it reads arrays.
    """

    connects: float = -HOUR
    handshake: float = 0.0
    drops: float = NEVER
    row_stays: bool = True
    fault: Fault = "none"
    until: float = TROUBLE_ENDS
    frames: bool = False


@dataclass(frozen=True)
class Deploy:
    """From when on the relay and the workers fan out in another way; nobody deploys both at the same moment."""

    shards: int
    kind: ShardKind
    relay_at: float
    workers_at: float


@dataclass(frozen=True)
class History:
    """What happens, and how the relay is set up; ``seed`` decides the small things."""

    seed: int = 0
    clients: tuple[Nature, ...] = (Nature(),)
    batches: tuple[tuple[float, tuple[str, ...]], ...] = ((1.0, ("incident",)),)
    bound: int = 5
    page_size: int = 4
    page_delay: float = 0.0
    batch_size: int = 10
    timeout: float = 12.0
    streams: int = 1
    shards: int = 0
    retry: bool = True
    letters: bool = True
    backoff: float = 5.0
    stream_backoff: float = 1.0
    crashes: float = 0.0
    repeats: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()
    refusals: tuple[tuple[float, float], ...] = ()
    account: float | None = None
    burst: int = 20
    kind: ShardKind = ShardKind.SEGMENT
    deploy: Deploy | None = None
    lag: float = 0.0
    pages_per_second: float | None = None
    frame_bytes: int = FRAME_BYTES

    def hands_back(self) -> bool:
        """Whether records or jobs whose messages arrived may have to come again; a table in trouble is no reason."""
        return bool(self.crashes or self.repeats or self.refusals or not (self.retry and self.letters))

    def partitions(self) -> list[int]:
        """The numbers of partitions that jobs are ever made for."""
        settings = [(self.shards, self.kind)] + ([(self.deploy.shards, self.deploy.kind)] if self.deploy else [])
        return [count for count, kind in settings if count and kind is ShardKind.PARTITION]


@dataclass(eq=False)
class Post:
    """One message as the client's side saw it come, or fail; ``beside`` others in the post of this ``number``."""

    lane: Any
    connection_id: str
    message: Message
    at: float
    arrived: bool
    acknowledged: bool = False
    beside: int = 0
    number: int = 0


class Allowance:
    """A token bucket on the loop's time, until the trouble ends."""

    def __init__(self, rate: float | None, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.filled_at = 0.0

    def take(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self.rate is None or now >= TROUBLE_ENDS:
            return True
        self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        allowed = self.tokens >= 1
        self.tokens -= allowed
        return allowed


class WatchedStore(MemoryStore):
    """A table that is down when the history says so, and gives so many pages a second."""

    outages: tuple[tuple[float, float], ...] = ()
    page_delay = 0.0
    allowance: Allowance | None = None

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        await asyncio.sleep(self.page_delay)
        if self.allowance is not None and not self.allowance.take():
            raise StoreUnavailable("the table's throughput is exceeded")
        return await super().read(shard, cursor)

    async def _work(self) -> None:
        await asyncio.sleep(self.delay)
        now = asyncio.get_running_loop().time()
        if any(start <= now < end for start, end in self.outages):
            raise StoreUnavailable("the table does not answer")


class World:
    """Everything outside the relay: clients, table, queues, the account's limit."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.random = Random(history.seed)
        self.natures = {f"c{number}=": nature for number, nature in enumerate(history.clients)}
        self.store = WatchedStore(page_size=history.page_size, delay=0.01, lag=history.lag)
        self.store.outages, self.store.page_delay = history.outages, history.page_delay
        self.store.allowance = Allowance(history.pages_per_second, 2.0)
        self.account = Allowance(history.account, float(history.burst))
        self.posts: list[Post] = []
        self.sent = 0
        self.oversized_frames = 0
        self.published: dict[str, tuple[float, str, Any]] = {}
        self.redelivered: set[str] = set()
        self.harmed = False
        self.strays = 0
        self.most_in_flight = 0
        moods: dict[str, Any] = {"refuses": self._refuses, "denies": self._denies, "shuffle": self.random.shuffle}
        self.retry = Sqs(visibility=6 * history.timeout, max_receives=20, delay=0.02, **moods)
        self.letters = Sqs(**moods)
        self.fanout = Sqs(fifo=True, visibility=6 * history.timeout, max_receives=20, **moods)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def trouble(self) -> bool:
        return self.now() < TROUBLE_ENDS

    def _refuses(self, _entry: Entry) -> bool:
        now = self.now()
        return any(start <= now < end for start, end in self.history.refusals) and self.random.random() < 0.7

    def _denies(self, _entry: Entry) -> bool:
        now = self.now()
        return any(start <= now < end for start, end in self.history.refusals) and self.random.random() < 0.2

    def way(self, entry: str) -> tuple[int, ShardKind]:
        """How a function fans out now: the number and the kind of its shards."""
        deploy, now = self.history.deploy, self.now()
        if deploy is not None and now >= (deploy.relay_at if entry == "on_stream" else deploy.workers_at):
            return deploy.shards, deploy.kind
        return self.history.shards, self.history.kind

    def connect(self, connection_id: str) -> None:
        connects = self.natures[connection_id].connects
        row: dict[str, Any] = {"createdAt": int((EPOCH + connects) * 1000)} if connects >= 0 else {}
        if self.natures[connection_id].frames:
            row["frames"] = "array"
        partitions = self.history.partitions()
        if partitions:
            row["shard"] = shard_of(connection_id, min(partitions))
        elif self.random.random() < 0.5:
            row["shard"] = self.random.choice([0, 1, 2, 99, -1])
        if connects < 0:
            self.store.add(connection_id, **row)
        else:
            self.store.write(connection_id, row)

    def drop(self, connection_id: str) -> None:
        if not self.natures[connection_id].row_stays:
            self.store.write(connection_id, None)

    def is_in(self, shard: Shard, connection_id: str) -> bool:
        """Whether a job for the shard may also be for this client."""
        indexed = shard.kind is ShardKind.PARTITION and self.store.rows[connection_id].get("shard") == shard.index
        return indexed or self.store.has(shard, connection_id)

    def reply(self, connection_id: str, message: Message) -> Reply:
        """What API Gateway answers, by the clock, the account and the client's nature."""
        nature, now, random = self.natures[connection_id], self.now(), self.random
        quick = random.choice([0.0, 0.005, 0.02, 0.05])
        if now >= nature.drops or now < nature.connects + nature.handshake:
            return Reply(410, quick)
        if not self.account.take():
            return Reply(429, quick)
        answer = ANSWERS[nature.fault] if now < nature.until else well
        return answer(random, quick, message)


class WatchedTransport(MemoryTransport):
    """Keeps every message of a post in the world's book, and notices posts made outside an invocation."""

    def __init__(self, world: World) -> None:
        super().__init__(world.reply, timeout=1.0, keep=False)
        self.world = world
        self.serving = 0

    def send(self, lane: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        found = self._own(lane, message)
        now, number, beside = self.world.now(), self.world.sent, len(found) - 1
        posts = [Post(lane, lane.connection_id, each, now, False, beside=beside, number=number) for each in found]

        def answered(lane: Any, error: PostError | None) -> None:
            for post in posts:
                post.acknowledged = error is None
            done(lane, error)

        before = self.arrivals[lane.connection_id]
        super().send(lane, message, answered)
        for post in posts:
            post.arrived = self.arrivals[lane.connection_id] > before
        self.world.posts += posts
        self.world.sent += 1
        self.world.strays += not self.serving
        self.world.oversized_frames += len(found) > 1 and len(message.body) > self.world.history.frame_bytes
        self.world.most_in_flight = max(self.world.most_in_flight, self.most_in_flight)

    def _own(self, lane: Any, post: Message) -> list[Message]:
        """The lane's own messages that are in the post: jobs that share a read may have the same one twice."""
        if not post.body.startswith(b"["):
            return [post]
        left = iter(lane.messages[lane.position :])
        return [next(own for own in left if own.body == each.body) for each in messages_in(post)]


MakeBroadcaster = Callable[..., Any]


class Sandbox:
    """A Lambda sandbox with a relay in it; a crash may take it away, and the next invocation finds a new one."""

    def __init__(self, world: World, make: MakeBroadcaster) -> None:
        self.world = world
        self.make = make
        self.relay: Relay | None = None
        self.way: tuple[int, ShardKind] | None = None
        self.transport = WatchedTransport(world)

    def _relay(self, entry: str) -> Relay:
        way = self.world.way(entry)
        if self.relay is None or way != self.way:
            world, history = self.world, self.world.history
            self.way = way
            shards, kind = way
            store = world.store.seen_by(index=kind is ShardKind.PARTITION, shards=shards or 1)
            self.transport = WatchedTransport(world)
            limits = Limits(history.bound, 1.0, history.frame_bytes)
            rate, random = Rate(), Random(history.seed)
            self.relay = Relay(
                self.make(self.transport, store, limits, rate, random, wall_clock),
                Queues(
                    world.retry if history.retry else None,
                    world.letters if history.letters else None,
                    world.fanout if shards else None,
                ),
                RequeuePolicy(history.backoff, 4),
                wall_clock=wall_clock,
                shards=shards or 1,
                shard_kind=kind,
            )
        return self.relay

    async def serve(self, entry: str, event: Any, seconds: float) -> Any:
        relay = self._relay(entry)
        transport = self.transport
        transport.serving += 1
        try:
            return await getattr(relay, entry)(event, seconds)
        except asyncio.CancelledError:
            if self.world.random.random() < 0.5:
                self.relay = None
            raise
        finally:
            transport.serving -= 1


@dataclass
class Aftermath:
    """A world gone quiet, or not."""

    world: World
    functions: list[Function]
    streams: list[StreamMapping]
    quiet: bool
    left_running: list[str] = field(default_factory=list)


def unharmed(_entry: str, handler: Handler) -> Handler:
    return handler


async def live(
    history: History, make: MakeBroadcaster = Broadcaster, harm: Callable[[str, Handler], Handler] = unharmed
) -> Aftermath:
    """Run the history until everything is quiet; ``harm`` may do something to the handlers."""
    world = World(history)
    world.harmed = harm is not unharmed

    def function(entry: str) -> Function:
        handler = harm(entry, partial(Sandbox(world, make).serve, entry))
        return Function(handler, history.timeout, partial(_crash, world))

    retries = -1 if history.retry and history.letters else 5
    streams = [
        StreamMapping(
            function("on_stream"),
            batch_size=history.batch_size,
            max_retries=retries,
            backoff=history.stream_backoff,
        )
        for _ in range(history.streams)
    ]
    again = partial(_again, world)
    seen = partial(_seen, world)
    jobs = [
        SqsMapping(queue, function("on_jobs"), batch_size=5, again=again, seen=seen)
        for queue in (world.retry, world.retry, world.fanout, world.fanout)
    ]
    mappings: list[StreamMapping | SqsMapping] = [*streams, *jobs]
    pollers = [asyncio.create_task(mapping.poll()) for mapping in mappings]
    await asyncio.gather(_publish(world, streams), _come_and_go(world))
    quiet = False
    while not quiet and world.now() < 6 * HOUR:
        await asyncio.sleep(30)
        quiet = all(stream.idle for stream in streams) and not (world.retry.messages or world.fanout.messages)
    for poller in pollers:
        poller.cancel()
    await asyncio.gather(*pollers, return_exceptions=True)
    for stream in streams:
        world.redelivered |= {event_id for event_id, times in stream.invoked.items() if times > 1}
    functions = [mapping.function for mapping in mappings]
    return Aftermath(world, functions, streams, quiet, still_running())


def _crash(world: World) -> float | None:
    if world.trouble() and world.random.random() < world.history.crashes:
        return world.random.choice([0.0, 0.001, 0.02, 0.06, 0.3, 1.0, 4.0])
    return None


def _again(world: World) -> bool:
    return world.trouble() and world.random.random() < world.history.repeats


def _seen(world: World, message: SqsMessage) -> None:
    if message.receives > 1:
        world.redelivered |= {message.event_id for message in Job.decode(message.entry.body).messages}


async def _publish(world: World, streams: Sequence[StreamMapping]) -> None:
    number = 0
    for at, kinds in [*sorted(world.history.batches), (CLOSING, ("incident",))]:
        await asyncio.sleep(max(0.0, at - world.now()))
        for kind in kinds:
            number += 1
            raw = raw_record(kind, number)
            world.published[str(number)] = (world.now(), kind, raw)
            streams[number % len(streams)].put(raw)


def raw_record(kind: str, number: int) -> dict[str, Any]:
    """A stream record of one of the ``KINDS``; every number has its own sequence."""
    sequence = str(number)
    match kind:
        case "remediation":
            return record(remediation(number), sequence=sequence)
        case "ignored":
            return record({"note": number}, sequence=sequence)
        case "removed":
            return record(incident(number), sequence=sequence, name="REMOVE")
        case "oversized":
            return record(incident(number, arn="x" * 131_072), sequence=sequence)
    raw = record(incident(number), sequence=sequence, name="MODIFY")
    if kind == "malformed":
        raw["dynamodb"]["NewImage"]["status"] = {"Q": "x"}
    elif kind == "no image":
        del raw["dynamodb"]["NewImage"]
    return raw


def _reshard(world: World, connection_id: str) -> None:
    """What async-relay backfill does: the row is written for another number of partitions."""
    if connection_id in world.store.rows:
        world.store.write(connection_id, {**world.store.rows[connection_id], "shard": shard_of(connection_id, 7)})


async def _come_and_go(world: World) -> None:
    events: list[tuple[float, str, Callable[[str], None]]] = []
    deploy = world.history.deploy
    if deploy is not None and deploy.kind is ShardKind.SEGMENT:
        swept = max(deploy.relay_at, deploy.workers_at) + world.history.timeout + 1
        events += [(swept, connection_id, partial(_reshard, world)) for connection_id in world.natures]
    for connection_id, nature in world.natures.items():
        events.append((nature.connects, connection_id, world.connect))
        if nature.drops < NEVER:
            events.append((nature.drops, connection_id, world.drop))
    for at, connection_id, happens in sorted(events, key=lambda each: each[0]):
        await asyncio.sleep(max(0.0, at - world.now()))
        happens(connection_id)


# ── the checker ─────────────────────────────────────────────────────────────────────────────────


def complaints(after: Aftermath) -> Iterator[str]:
    """Everything that went against what the relay promises."""
    if not after.quiet:
        yield "it never became quiet"
    yield from _about_invocations(after)
    yield from _about_rows(after.world)
    yield from _about_posts(after.world)
    yield from _about_frames(after.world)
    yield from _about_order(after.world)
    yield from _about_debts(after)


def _about_invocations(after: Aftermath) -> Iterator[str]:
    world, history = after.world, after.world.history
    if any(function.overran for function in after.functions):
        yield "an invocation passed its deadline"
    for function in after.functions:
        yield from (f"an invocation raised {error!r}" for error in function.errors)
    if after.left_running:
        yield f"left running: {after.left_running}"
    if world.strays:
        yield f"{world.strays} posts outside an invocation"
    if world.most_in_flight > history.bound:
        yield f"{world.most_in_flight} posts in flight, over the bound of {history.bound}"
    if history.retry and history.letters and any(stream.discarded for stream in after.streams):
        yield "a shard gave records up, with queues to take what was wrong with them"
    if history.retry and history.letters and (world.retry.redriven or world.fanout.redriven):
        yield "a job was received so often that it was redriven"


def _about_rows(world: World) -> Iterator[str]:
    # A message that nobody takes is posted to no more, so some may never be asked.
    answered_gone = {post.connection_id for post in world.posts if post.at >= world.natures[post.connection_id].drops}
    read = world.history.retry or not world.history.page_delay  # else it may end with the table never read whole
    if all(nature.drops < NEVER for nature in world.natures.values()):
        # Nobody is left to prove the endpoint: all but what goes on trust may stay.
        read = read and len(world.store.rows) > max(0, len(world.natures) - ON_TRUST)
    for connection_id, nature in world.natures.items():
        if nature.drops == NEVER and connection_id not in world.store.rows:
            yield f"the row of {connection_id}, which is live, was deleted"
        if read and connection_id in answered_gone and connection_id in world.store.rows:
            yield f"the row of {connection_id}, which is gone, is still there"


def _about_posts(world: World) -> Iterator[str]:
    """Only what was to be sent is, as it was; and a second time only for a reason."""
    excused: dict[tuple[str, str], bool] = {}
    deploy = world.history.deploy
    begins_again = deploy is not None and deploy.kind is not world.history.kind  # a cursor of the other kind of read
    bodies = {sequence: _body(raw) for sequence, (_, _, raw) in world.published.items()}
    for post in world.posts:
        message = post.message
        if message.body != bodies[message.sequence]:
            yield f"record {message.sequence} was posted as something else: {message.body!r}"
        if not post.arrived:
            continue
        key = (post.connection_id, message.event_id)
        if not excused.get(key, True):
            yield f"{post.connection_id} got record {message.sequence} again for no reason"
        sent_again = (world.harmed or world.history.hands_back()) and message.event_id in world.redelivered
        excused[key] = not post.acknowledged or sent_again or begins_again


def _about_frames(world: World) -> Iterator[str]:
    """Arrays go to those who read them, and are no larger than they may be."""
    for post in world.posts:
        if post.beside and not world.natures[post.connection_id].frames:
            yield f"{post.connection_id} was posted an array, which it cannot read"
    if world.oversized_frames:
        yield f"{world.oversized_frames} frames over {world.history.frame_bytes} bytes"


def _body(raw: Any) -> bytes | None:
    message = read_record(raw).message
    return message.body if message is not None and not message.oversized else None


def _about_order(world: World) -> Iterator[str]:
    """In order within one job, and from batch to batch where all went well; a post that failed may come again."""
    reached: dict[Any, int] = defaultdict(int)
    for _, group in groupby(world.posts, key=lambda post: post.number):
        posts = list(group)
        begun: dict[Any, int] = {}
        for post in posts:
            for key, place, complaint in _places(world, post):
                if place < reached[key]:
                    yield complaint
                reached[key] = place
                begun.setdefault(key, place)
        if not posts[0].acknowledged:
            reached.update(begun)


def _places(world: World, post: Post) -> Iterator[tuple[Any, int, str]]:
    """In what a message has a place, which one, and the complaint where a later one came before it."""
    order = int(post.message.sequence)
    if world.history.shards:  # with several jobs in one read, order is that of the jobs
        at = next(at for at, message in enumerate(post.lane.messages) if message is post.message)
        yield id(post.lane), at, f"{post.connection_id} was posted message {at} of a job out of order"
    else:
        yield id(post.lane), order, f"{post.connection_id} was posted record {order} out of order"
    if not (world.redelivered or world.retry.sent or world.history.shards):
        of_stream = (post.connection_id, order % world.history.streams)
        yield of_stream, order, f"{post.connection_id} was posted record {order} too late, with nothing wrong"


def _about_debts(after: Aftermath) -> Iterator[str]:
    """Everybody got what it was owed, or it is in the dead letters for a reason its client gave."""
    world = after.world
    arrived = {(post.connection_id, post.message.sequence) for post in world.posts if post.arrived}
    late = world.history.lag if world.history.partitions() else 0.0
    letters = Letters(world, after.streams)
    for sequence, (at, kind, _raw) in world.published.items():
        if kind in ("ignored", "removed"):
            continue
        if kind not in ("incident", "remediation"):
            if not letters.has_record(sequence, "too_large" if kind == "oversized" else "undecodable"):
                yield f"record {sequence} ({kind}) is in no dead letter"
            continue
        for connection_id, nature in world.natures.items():
            owed = nature.connects + late < at and nature.drops == NEVER
            if owed and (connection_id, sequence) not in arrived and not letters.account_for(connection_id, sequence):
                yield f"{connection_id} ({nature.fault}) never got record {sequence}"


class Letters:
    """What the operator finds: dead letters, redriven jobs, and records the mapping gave up."""

    def __init__(self, world: World, streams: Iterable[StreamMapping]) -> None:
        self.world = world
        self.letters = [json.loads(message.entry.body) for message in world.letters.messages]
        self.redriven = [json.loads(each.entry.body) for each in (*world.retry.redriven, *world.fanout.redriven)]
        self.discarded = {each["dynamodb"]["SequenceNumber"] for stream in streams for each in stream.discarded}

    def has_record(self, sequence: str, reason: str) -> bool:
        return sequence in self.discarded or any(
            (letter["deadLetter"]["sequence"], letter["deadLetter"]["reason"]) == (sequence, reason)
            for letter in self.letters
        )

    def account_for(self, connection_id: str, sequence: str) -> bool:
        if sequence in self.discarded:
            return True
        reasons = {
            letter.get("deadLetter", {}).get("reason", "redriven")
            for letter in (*self.letters, *self.redriven)
            if self._names(letter, connection_id, sequence)
        }
        return bool(reasons & self._plausible(self.world.natures[connection_id]))

    def _names(self, letter: Any, connection_id: str, sequence: str) -> bool:
        at = [message["sequence"] for message in letter.get("messages", [])]
        if sequence not in at:
            return False
        if "clients" not in letter:
            shard = Job.from_fields(letter).shard
            return shard is not None and self.world.is_in(shard, connection_id)
        skips = [each.get("skip", 0) for each in letter["clients"] if each["connectionId"] == connection_id]
        return any(skip <= at.index(sequence) for skip in skips)

    def _plausible(self, nature: Nature) -> set[str]:
        """The reasons this client, or ten others who found a message too large, can have given."""
        small = sum(each.fault == "small" for each in self.world.natures.values()) >= SAMPLE_SIZE
        reasons = {"redriven"} | ({"too_large"} if small else set())
        match nature.fault:
            case "odd":
                reasons |= {"refused"}
            case "small":
                reasons |= {"too_large"}
            case "none" | "slow" | "narrow":
                pass
            case _:
                reasons |= {"attempts_exhausted"}
        return reasons


def falsify(history: History, make: MakeBroadcaster = Broadcaster) -> list[str]:
    """The complaints about one history, without repeats."""
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    return list(dict.fromkeys(complaints(run_virtually(live(history, make)))))


# ── the histories ───────────────────────────────────────────────────────────────────────────────

SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0, 11.0, 20.0, 40.0])
STRETCHES = st.lists(st.tuples(SECONDS, st.sampled_from([0.5, 3.0, 20.0])), max_size=2).map(
    lambda each: tuple((start, start + length) for start, length in each)
)


@st.composite
def natures(draw: st.DrawFn) -> Nature:
    connects = draw(st.sampled_from([-HOUR, -HOUR, -HOUR, 0.0, 0.9, 5.0, 21.0]))
    fault = draw(st.sampled_from(("none", "none", *ANSWERS)))
    ends = [0.5, 3.0, 30.0, 100.0, *([NEVER] * (fault in LASTING))]
    drops = draw(st.sampled_from([NEVER, NEVER, NEVER, 1.02, 6.0, 50.0]))
    return Nature(
        connects,
        draw(st.sampled_from([0.0, 0.3, 2.5])) if connects >= 0 else 0.0,
        drops if drops > connects + 3 else NEVER,
        draw(st.booleans()) if drops < NEVER else True,
        fault,
        draw(st.sampled_from(ends)),
        draw(st.booleans()),
    )


CLIENTS = st.one_of(
    st.lists(natures(), min_size=1, max_size=8),
    st.tuples(natures(), st.integers(5, 30)).map(lambda each: [each[0]] * each[1]),
    st.tuples(st.lists(natures(), max_size=5), st.integers(5, 40), st.booleans()).map(
        lambda each: each[0] + [Nature(frames=each[2])] * each[1]
    ),
    st.tuples(natures(), st.integers(10, 15), natures(), st.integers(1, 5)).map(
        lambda each: [each[0]] * each[1] + [each[2]] * each[3]
    ),
).map(tuple)
BATCHES = st.lists(
    st.tuples(SECONDS, st.lists(st.sampled_from(("incident", "incident", *KINDS)), min_size=1, max_size=6).map(tuple)),
    min_size=1,
    max_size=4,
).map(tuple)


@st.composite
def deploys(draw: st.DrawFn) -> Deploy | None:
    """To more shards or fewer, with an index or without one."""
    if draw(st.sampled_from([True, True, False])):
        return None
    ways = st.tuples(st.sampled_from([1, 3, 5]), st.sampled_from(ShardKind))
    return Deploy(*draw(ways), draw(SECONDS), draw(SECONDS))


def as_documented(history: History) -> History:
    """Leave out what the docs warn of.

    The number of partitions is never changed while the index is read (scaling.md). Without dead letters
    buffers that stay full for ever have nowhere to end (reliability.md).
    """
    if not history.letters:
        clients = [replace(each, until=100.0) if each.fault == "full" else each for each in history.clients]
        history = replace(history, clients=tuple(clients))
    if not history.shards:
        return replace(history, deploy=None)
    partitions = history.partitions()
    if history.deploy is None or len(set(partitions)) < 2:
        return history
    return replace(history, deploy=replace(history.deploy, shards=partitions[0]))


HISTORIES = st.builds(
    History,
    seed=st.integers(0, 2**32),
    clients=CLIENTS,
    batches=BATCHES,
    bound=st.sampled_from([1, 3, 5, 50]),
    page_size=st.sampled_from([1, 3, 10, 100]),
    page_delay=st.sampled_from([0.0, 0.0, 0.3, 1.5]),
    batch_size=st.sampled_from([1, 4, 100]),
    timeout=st.sampled_from([3.0, 12.0, 30.0]),
    streams=st.sampled_from([1, 1, 2]),
    shards=st.sampled_from([0, 0, 1, 3]),
    retry=st.sampled_from([True, True, True, False]),
    letters=st.sampled_from([True, True, True, False]),
    backoff=st.sampled_from([5.0, 0.0, 60.0]),
    stream_backoff=st.sampled_from([0.0, 1.0]),
    crashes=st.sampled_from([0.0, 0.0, 0.2, 0.5]),
    repeats=st.sampled_from([0.0, 0.0, 0.2]),
    outages=STRETCHES,
    refusals=STRETCHES,
    account=st.sampled_from([None, None, 20.0, 100.0]),
    kind=st.sampled_from(ShardKind),
    deploy=deploys(),
    lag=st.sampled_from([0.0, 0.2, 2.0]),
    pages_per_second=st.sampled_from([None, None, 0.2, 2.0]),
    frame_bytes=st.sampled_from([500, 1_024, FRAME_BYTES]),
).map(as_documented)
RUN = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None, max_examples=400)


@pytest.mark.timeout(600)  # where one is broken, finding a small one like it takes minutes
@RUN
@given(HISTORIES)
def test_no_history_breaks_a_promise(history: History) -> None:
    """Whatever goes wrong, everybody gets what it was owed or it is in the dead letters with a reason."""
    assert falsify(history) == []


@pytest.mark.parametrize("timeout", [3.0, 12.0, 30.0])
def test_buffers_that_stay_full_end_in_the_dead_letters(timeout: float) -> None:
    """Ten clients that never take a message, first under an account's limit: their jobs do not go round for ever."""
    full = Nature(fault="full", until=NEVER)
    batches = ((1.0, ("incident",) * 4), (20.0, ("incident",)))
    assert falsify(History(clients=(full,) * 10, batches=batches, bound=50, timeout=timeout, account=20.0)) == []


# ── the checker can fail ────────────────────────────────────────────────────────────────────────


class Naive:
    """Everybody at once behind a semaphore, and what fails is forgotten."""

    def __init__(self, transport: Any, store: Any, limits: Limits, *_more: Any) -> None:
        self.transport = transport
        self.store = store
        self.places = asyncio.Semaphore(limits.max_concurrency)

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **_options: bool) -> Report:  # noqa: ARG002 - the parameter's name is the call's
        outcomes = tuple(Outcome(job, [0] * len(job.messages)) for job in jobs)
        await self.transport.begin()
        lanes = [Lane(client, outcome) for outcome in outcomes for client in await self.clients(outcome.job)]
        await asyncio.gather(*(self.serve(lane) for lane in lanes))
        await self.transport.end()
        return Report(outcomes)

    async def clients(self, job: Job) -> Sequence[Client]:
        found, cursor = list(job.clients), job.cursor
        while job.shard is not None:
            page = await self.store.read(job.shard, cursor)
            found += page.clients
            cursor = page.cursor
            if cursor is None:
                break
        return found

    async def serve(self, lane: Lane) -> None:
        for message in lane.messages[lane.position :]:
            async with self.places:
                error = await self.post(lane, message)
            if error is not None and error.reason == "gone":
                await self.store.delete([lane.connection_id])
                break

    async def post(self, lane: Lane, message: Message) -> PostError | None:
        answer: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()
        self.transport.send(lane, message, lambda _lane, error: answer.set_result(error))
        return await answer


class Backwards(Naive):
    """The newest first."""

    async def serve(self, lane: Lane) -> None:
        for message in reversed(lane.messages[lane.position :]):
            async with self.places:
                await self.post(lane, message)


class Unbounded(Naive):
    """As many at once as there are."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.places = asyncio.Semaphore(10_000)


class Stubborn(Naive):
    """Tries until it is served."""

    async def post(self, lane: Lane, message: Message) -> PostError | None:
        for _ in range(1_000):
            error = await super().post(lane, message)
            if error is None or not error.temporary:
                break
            await asyncio.sleep(0.1)
        return error


class Ruthless(Naive):
    """Whoever does not answer 200 goes."""

    async def post(self, lane: Lane, message: Message) -> PostError | None:
        error = await super().post(lane, message)
        if error is not None:
            await self.store.delete([lane.connection_id])
        return error


class Doubling(Naive):
    """To be on the safe side, everything twice."""

    async def post(self, lane: Lane, message: Message) -> PostError | None:
        await super().post(lane, message)
        return await super().post(lane, message)


class Careless(Naive):
    """Leaves the posting to itself."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        self.task = asyncio.create_task(super().broadcast(jobs, seconds, **options))
        return Report(tuple(Outcome(job, [0] * len(job.messages)) for job in jobs))


class Forgetful(Broadcaster):
    """The real one, but what is left over gets lost."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        report = await super().broadcast(jobs, seconds, **options)
        for outcome in report.outcomes:
            outcome.undelivered.clear()
        return report


class Shortsighted(Broadcaster):
    """The real one, but what was not read gets lost."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        report = await super().broadcast(jobs, seconds, **options)
        for outcome in report.outcomes:
            outcome.unread = False
        return report


class Mute(Broadcaster):
    """The real one, but what was refused gets lost."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        report = await super().broadcast(jobs, seconds, **options)
        for outcome in report.outcomes:
            outcome.rejected.clear()
        return report


class Restart(Broadcaster):
    """The real one, but what was left over begins with the first message again."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        report = await super().broadcast(jobs, seconds, **options)
        for outcome in report.outcomes:
            outcome.undelivered[:] = [
                left._replace(client=left.client._replace(skip=0)) for left in outcome.undelivered
            ]
        return report


class Presumptuous(Broadcaster):
    """The real one, but it serves the kind of shard it would make itself, whatever the job says."""

    async def broadcast(self, jobs: Sequence[Job], seconds: float, **options: bool) -> Report:
        assert isinstance(self.store, MemoryStore)
        kind = ShardKind.PARTITION if self.store.index else ShardKind.SEGMENT
        own = [replace(job, shard=replace(job.shard, kind=kind)) if job.shard is not None else job for job in jobs]
        return await super().broadcast(own, seconds, **options)


class Conservator(Broadcaster):
    """The real one, but no row ever goes."""

    def __init__(self, transport: Any, store: Any, *more: Any) -> None:
        kept: Any = SimpleNamespace(read=store.read, delete=self.delete)
        super().__init__(transport, kept, *more)

    async def delete(self, _connection_ids: Sequence[str]) -> None:
        """Say it was done."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (Naive, "never got record"),
        (Naive, "raised"),
        (Backwards, "out of order"),
        (Unbounded, "over the bound"),
        (Stubborn, "passed its deadline"),
        (Ruthless, "which is live, was deleted"),
        (Doubling, "again for no reason"),
        (Careless, "posts outside an invocation"),
        (Forgetful, "never got record"),
        (Shortsighted, "never got record"),
        (Mute, "never got record"),
        (Restart, "again for no reason"),
        (Presumptuous, "never got record"),
        (Conservator, "which is gone, is still there"),
    ],
)
def test_the_checker_falsifies(make: MakeBroadcaster, complaint: str) -> None:
    """A broadcaster that breaks a promise is found out, and for what it does."""
    # Restart shows in one history of a hundred: of any 500, one search in forty found none. So the search is always
    # the same, one that soon finds each; and where a change makes it another, it is twenty times as patient.
    generate = settings(RUN, phases=[Phase.generate], max_examples=10_000)
    found = find(
        HISTORIES,
        lambda history: any(complaint in each for each in falsify(history, make)),
        settings=generate,
        random=Random(3),
    )
    assert found
