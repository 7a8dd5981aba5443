"""A connections table that answers now and then: what was served stays served, and everybody is served once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from lambda_models import Function, Sqs, SqsMapping, StreamMapping, virtual_time, wall_clock
from records import event, incident, record

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry, Page
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import StoreUnavailable
from async_relay.testing.memory import OK, MemoryQueue, MemoryStore, MemoryTransport
from async_relay.wire.jobs import Client, Cursor, Job, Shard
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_record

pytestmark = virtual_time


def names(count: int) -> list[str]:
    return [f"c{number}=" for number in range(count)]


def raw(number: int) -> dict[str, Any]:
    return record(incident(number), sequence=str(number))


def message(number: int) -> Message:
    found = read_record(raw(number)).message
    assert found is not None
    return found


class TwoPages(MemoryStore):
    """Gives two pages an invocation and then throttles, as a table with too little read capacity does."""

    left = 0

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        if not self.left:
            raise StoreUnavailable("ProvisionedThroughputExceededException")
        self.left -= 1
        return await super().read(shard, cursor)


class DownFor(MemoryStore):
    """Cannot read some of its shards."""

    closed: frozenset[int] = frozenset()

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        if shard.index in self.closed:
            raise StoreUnavailable("InternalServerError")
        return await super().read(shard, cursor)


async def pages(store: MemoryStore, shard: Shard, cursor: Cursor | None = None) -> list[int]:
    """How many clients are on each page of the shard after the cursor."""
    found: list[int] = []
    while cursor is not None or not found:
        page = await MemoryStore.read(store, shard, cursor)
        found.append(len(page.clients))
        cursor = page.cursor
    return found


def relay_over(store: MemoryStore, transport: MemoryTransport, queues: Queues, **options: Any) -> Relay:
    broadcaster = Broadcaster(transport, store, Limits(100, 3.0), Rate(), Random(1), wall_clock)
    return Relay(broadcaster, queues, RequeuePolicy(), wall_clock=wall_clock, **options)


class Throttled:
    """The stream's function and the worker of its queue over a table that gives two pages an invocation."""

    def __init__(self, clients: int, *, fanout: bool) -> None:
        self.store = TwoPages(names(clients), page_size=100, delay=0.01)
        self.transport = MemoryTransport()
        # As in the template: a job is hidden for six minutes, and redriven at its eleventh receive.
        self.retry = Sqs(visibility=360, max_receives=10)
        self.letters = Sqs()
        self.fanout = Sqs(fifo=True, visibility=360, max_receives=10)
        queues = Queues(self.retry, self.letters, self.fanout if fanout else None)
        relay = relay_over(self.store, self.transport, queues, shards=4)
        self.stream = StreamMapping(self.function(relay.on_stream))
        self.worker = self.function(relay.on_jobs)
        self.jobs = [SqsMapping(queue, self.worker) for queue in (self.retry, self.fanout)]

    def function(self, handler: Any) -> Function:
        async def invoked(batch: Any, seconds: float) -> Any:
            self.store.left = 2
            return await handler(batch, seconds)

        return Function(invoked, 60)

    async def live(self, *records: Any, seconds: float = 7_200) -> None:
        for each in records:
            self.stream.put(each)
        mappings: list[StreamMapping | SqsMapping] = [self.stream, *self.jobs]
        pollers = [asyncio.create_task(each.poll()) for each in mappings]
        await asyncio.sleep(seconds)
        for poller in pollers:
            poller.cancel()
        await asyncio.gather(*pollers, return_exceptions=True)
        assert self.retry.messages == self.fanout.messages == self.letters.messages == []
        assert self.retry.redriven == self.fanout.redriven == self.stream.discarded == []

    def arrivals(self) -> Counter[int]:
        """How many clients got how many messages."""
        return Counter(self.transport.arrivals.values())


async def test_a_table_of_two_pages_an_invocation_is_served_once_in_as_many_as_it_takes() -> None:
    """2,000 clients in twenty pages: ten invocations, and everybody has the message once."""
    world = Throttled(2_000, fanout=False)
    await world.live(raw(1))
    assert world.arrivals() == {1: 2_000}
    assert world.stream.function.invocations + world.worker.invocations == 10


async def test_a_throttled_table_behind_the_fan_out_is_served_once_too() -> None:
    """Four shards share two pages an invocation: no page is read twice, none is redriven, nobody is served twice."""
    world = Throttled(2_000, fanout=True)
    await world.live(raw(1), raw(2))
    assert world.arrivals() == {2: 2_000}
    assert world.store.reads == sum([len(await pages(world.store, Shard(index, 4))) for index in range(4)])
    assert all([each.sequence for each in got] == ["1", "2"] for got in world.transport.received.values())


@pytest.mark.parametrize("base", [5.0, 0.0])
async def test_the_unread_part_waits_in_the_retry_queue(base: float) -> None:
    """It is the job from its page on, requeued for the base delay, and no attempt is counted."""
    store, queue = TwoPages(names(500), page_size=100), MemoryQueue()
    store.left = 3
    relay = relay_over(store, MemoryTransport(), Queues(queue, MemoryQueue()))
    relay._policy = RequeuePolicy(base)
    first = await store.read(Shard(), None)
    job = Job((message(1),), shard=Shard(), cursor=first.cursor, attempt=1, continuation=3)
    assert await relay.on_jobs({"Records": sqs_records(job)}, 30) == {"batchItemFailures": []}
    (entry,) = queue.entries
    requeued = Job.decode(entry.body)
    assert await pages(store, Shard(), requeued.cursor) == [100, 100]
    assert (requeued.attempt, requeued.continuation, entry.delay) == (1, 4, int(base))


async def test_without_a_retry_queue_the_records_go_back() -> None:
    """There is nowhere to write the page key down, so the batch comes again."""
    store = TwoPages(names(500), page_size=100)
    store.left = 2
    relay = relay_over(store, MemoryTransport(), Queues(None, MemoryQueue()))
    failures = await relay.on_stream(event(raw(1), raw(2)), 30)
    assert failures == {"batchItemFailures": [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]}


def sqs_records(*jobs: Job, group: str = "") -> list[dict[str, Any]]:
    attributes = {"MessageGroupId": group} if group else {}
    return [
        {"messageId": f"{group}m{at}", "body": job.encode(), "attributes": attributes} for at, job in enumerate(jobs)
    ]


@pytest.mark.parametrize("others", ["clients", "shards"])
async def test_a_continuation_whose_table_is_down_takes_no_other_job_with_it(others: str) -> None:
    """Of six retry jobs five are settled and one stays, received until SQS redrives it alone."""
    store, transport = DownFor(names(60)), MemoryTransport()
    store.closed = frozenset({5})
    retry, letters = Sqs(visibility=360, max_receives=10), Sqs()
    worker = Function(relay_over(store, transport, Queues(retry, letters)).on_jobs, 60)
    jobs = [Job((message(1),), shard=Shard(index, 6)) for index in range(6)]
    if others == "clients":
        jobs[:5] = [Job((message(1),), (Client(each),), attempt=1) for each in names(5)]
    await retry.send([Entry(job.encode()) for job in jobs])
    poller = asyncio.create_task(SqsMapping(retry, worker).poll())
    await asyncio.sleep(60)
    assert [each.entry.body for each in retry.messages] == [jobs[5].encode()]
    await asyncio.sleep(2 * 3_600)
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)
    assert [each.entry.body for each in retry.redriven] == [jobs[5].encode()]
    assert letters.messages == []
    assert set(transport.arrivals.values()) == {1}


async def test_jobs_of_one_group_that_share_a_read_go_on_together() -> None:
    """Three jobs read in one go whose table stops half way are one continuation, back in their group."""
    store, fanout = TwoPages(names(500), page_size=100), MemoryQueue()
    store.left = 1
    relay = relay_over(store, MemoryTransport(), Queues(MemoryQueue(), MemoryQueue(), fanout))
    jobs = [Job((message(number),), shard=Shard(0, 1)) for number in (1, 2, 3)]
    assert await relay.on_jobs({"Records": sqs_records(*jobs, group="0")}, 30) == {"batchItemFailures": []}
    (entry,) = fanout.entries
    requeued = Job.decode(entry.body)
    assert (entry.group, entry.delay, requeued.continuation) == ("0", 0, 1)
    assert await pages(store, Shard(), requeued.cursor) == [100] * 4
    assert [each.sequence for each in requeued.messages] == ["1", "2", "3"]


async def test_a_group_whose_table_is_down_goes_back_alone() -> None:
    """The jobs that would have shared the read come back, and another group is served."""
    store, transport, fanout = DownFor(names(60)), MemoryTransport(), MemoryQueue()
    store.closed = frozenset({0})
    relay = relay_over(store, transport, Queues(MemoryQueue(), MemoryQueue(), fanout))
    down = [Job((message(number),), shard=Shard(0, 2)) for number in (1, 2)]
    well = [Job((message(number),), shard=Shard(1, 2)) for number in (1, 2)]
    batch = [*sqs_records(*down, group="0"), *sqs_records(*well, group="1")]
    failures = await relay.on_jobs({"Records": batch}, 30)
    assert [each["itemIdentifier"] for each in failures["batchItemFailures"]] == ["0m0", "0m1"]
    assert fanout.entries == []
    assert set(transport.arrivals.values()) == {2}


class EverySecond(MemoryStore):
    """Throttles every second call."""

    def __init__(self, clients: int) -> None:
        self.calls = 0
        super().__init__(names(clients), page_size=50, throttles=self._throttled)

    def _throttled(self) -> bool:
        self.calls += 1
        return self.calls % 2 == 0


async def test_a_group_waits_the_base_delay_before_it_asks_a_throttled_table_again() -> None:
    """A FIFO queue cannot delay a message, so the worker waits: twenty pages take nineteen delays, and not no time."""
    store, fanout = EverySecond(1_000), Sqs(fifo=True)
    transport = MemoryTransport()
    relay = relay_over(store, transport, Queues(Sqs(), Sqs(), fanout), shards=1)
    await relay.on_stream(event(raw(1)), 50)
    worker = Function(relay.on_jobs, 60)
    start = asyncio.get_running_loop().time()
    poller = asyncio.create_task(SqsMapping(fanout, worker, batch_size=1).poll())
    while fanout.messages:  # noqa: ASYNC110 - the queue has no event for being empty
        await asyncio.sleep(1)
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)
    assert len(transport.received) == 1_000
    assert asyncio.get_running_loop().time() - start >= 19 * 5
    assert worker.overran == 0


def large(number: int) -> Message:
    payload = {"event_id": f"e{number}", "sequence": f"{number}", "pad": "x" * 5_000}
    return Message.encode(payload)


async def test_a_continuation_behind_a_small_job_keeps_its_place_in_the_count() -> None:
    """Jobs that share a read go on as one that was continued as often as any of them: SQS takes none for a repeat."""
    fanout = Sqs(fifo=True, visibility=120)
    store, transport = MemoryStore(names(3)), MemoryTransport()
    relay = relay_over(store, transport, Queues(Sqs(), Sqs(), fanout), shards=1)
    poller = asyncio.create_task(SqsMapping(fanout, Function(relay.on_jobs, 20)).poll())
    parts = Job(tuple(large(number) for number in range(54)), shard=Shard()).split()
    assert len(parts) > 1
    store.delay = 1_000.0
    await fanout.send(
        [Entry(part.encode(), group="0", deduplication_id=part.deduplication_id(at)) for at, part in enumerate(parts)]
    )
    await asyncio.sleep(10)
    small = Job((message(99),), shard=Shard())
    await fanout.send([Entry(small.encode(), group="0", deduplication_id=small.deduplication_id(0))])
    await asyncio.sleep(25)
    store.delay = 0.0
    await asyncio.sleep(4_000)
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)
    assert fanout.messages == []
    expected = {each.sequence for part in (*parts, small) for each in part.messages}
    assert all({each.sequence for each in got} == expected for got in transport.received.values())


async def test_a_group_that_waits_holds_up_no_other() -> None:
    """While a throttled shard's continuation waits its delay, another group's jobs are served one after the other."""
    store, transport = DownAfterAPage(names(200), page_size=20), MemoryTransport()
    store.closed = frozenset({0})
    fanout = MemoryQueue()
    relay = relay_over(store, transport, Queues(MemoryQueue(), MemoryQueue(), fanout))
    served: list[float] = []
    start = asyncio.get_running_loop().time()
    transport.script = lambda _id, _message: served.append(asyncio.get_running_loop().time() - start) or OK  # type: ignore[func-returns-value]
    sick = [Job((message(number),), shard=Shard(0, 2), attempt=number) for number in (1, 2)]
    well = [Job((message(number),), shard=Shard(1, 2), attempt=number) for number in (1, 2, 3)]
    batch = [*sqs_records(*sick, group="0"), *sqs_records(*well, group="1")]
    assert await relay.on_jobs({"Records": batch}, 50) == {"batchItemFailures": []}
    others = [name for name in names(200) if store.has(Shard(1, 2), name)]
    assert all(transport.arrivals[name] == 3 for name in others)
    assert sum(at < 1 for at in served) >= 3 * len(others)
    assert len(fanout.entries) == 2


class DownAfterAPage(MemoryStore):
    """Gives the first page of some shards, and no other."""

    closed: frozenset[int] = frozenset()

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        if shard.index in self.closed and cursor is not None:
            raise StoreUnavailable("ProvisionedThroughputExceededException")
        return await super().read(shard, cursor)


async def test_an_unreadable_job_that_goes_back_takes_those_behind_it_along() -> None:
    """In a group nothing overtakes what was handed back; the jobs before it and other groups are served."""
    transport = MemoryTransport()
    relay = relay_over(MemoryStore(names(3)), transport, Queues(MemoryQueue(), None, MemoryQueue()))
    jobs = [Job((message(number),), shard=Shard()) for number in (1, 2, 3)]
    batch = sqs_records(*jobs, group="0")
    batch[1]["body"] = "no job"
    failures = await relay.on_jobs({"Records": batch}, 30)
    assert [each["itemIdentifier"] for each in failures["batchItemFailures"]] == ["0m1", "0m2"]
    assert {tuple(each.sequence for each in got) for got in transport.received.values()} == {("1",)}


class Timed(MemoryQueue):
    """Notes when it was sent to, and takes a while."""

    def __init__(self, *, delay: float = 0.0) -> None:
        super().__init__(delay=delay)
        self.sent_at: list[float] = []

    async def send(self, entries: Sequence[Entry]) -> None:
        self.sent_at.append(asyncio.get_running_loop().time())
        await super().send(entries)


def stopped() -> tuple[DownAfterAPage, list[dict[str, Any]]]:
    """A table of which one group's shard stops after a page, and three jobs of that group; two share a read."""
    store = DownAfterAPage(names(200), page_size=20)
    store.closed = frozenset({0})
    jobs = [Job((message(number),), shard=Shard(0, 2), attempt=attempt) for number, attempt in ((1, 1), (2, 1), (3, 2))]
    return store, sqs_records(*jobs, group="0")


async def test_a_groups_continuation_is_sent_once_and_after_its_wait() -> None:
    """Sent before it, the worker would ask the throttled table again at once."""
    store, batch = stopped()
    fanout = Timed()
    relay = relay_over(store, MemoryTransport(), Queues(MemoryQueue(), MemoryQueue(), fanout))
    start = asyncio.get_running_loop().time()
    assert await relay.on_jobs({"Records": batch}, 50) == {"batchItemFailures": []}
    assert [round(at - start, 1) for at in fanout.sent_at] == [5.0, 10.0]
    assert [len(Job.decode(entry.body).messages) for entry in fanout.entries] == [2, 1]


@pytest.mark.parametrize("seconds", [2.0, 4.0])
async def test_a_continuations_wait_leaves_time_to_send_it(seconds: float) -> None:
    """However long the wait should be, it ends early enough for a queue that is as slow as it may be."""
    store, batch = stopped()
    fanout = Timed(delay=0.9)
    relay = relay_over(store, MemoryTransport(), Queues(MemoryQueue(), MemoryQueue(), fanout))
    start = asyncio.get_running_loop().time()
    failures = await relay.on_jobs({"Records": batch}, seconds)
    assert asyncio.get_running_loop().time() - start <= seconds
    assert len(fanout.entries) >= 1
    assert {each["itemIdentifier"] for each in failures["batchItemFailures"]} <= {"0m2"}


async def test_a_refused_continuation_takes_the_jobs_behind_it_along() -> None:
    """In a group nothing overtakes: they come back with the jobs that shared the read."""
    store, batch = stopped()
    fanout = Timed()
    fanout.refuses = lambda _entry: True
    relay = relay_over(store, MemoryTransport(), Queues(MemoryQueue(), MemoryQueue(), fanout))
    failures = await relay.on_jobs({"Records": batch}, 50)
    assert [each["itemIdentifier"] for each in failures["batchItemFailures"]] == ["0m0", "0m1", "0m2"]
    assert len(fanout.sent_at) == 1
