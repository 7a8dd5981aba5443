"""The relay under the models of Lambda's event source mappings; and the models held to what AWS documents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from lambda_models import (
    CrashedError,
    Function,
    Sqs,
    SqsMapping,
    StreamMapping,
    still_running,
    virtual_time,
    wall_clock,
)
from records import incident, record

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import QueueUnavailable
from async_relay.testing.memory import OK, MemoryStore, MemoryTransport, Reply, Script
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_record

pytestmark = virtual_time


def names(count: int) -> list[str]:
    return [f"c{number}=" for number in range(count)]


def poison(sequence: str) -> dict[str, Any]:
    raw = record(incident(1), sequence=sequence)
    raw["dynamodb"]["NewImage"] = {"incident_id": {"Q": "?"}}
    return raw


def good(*sequences: int) -> list[dict[str, Any]]:
    return [record(incident(number), sequence=str(number)) for number in sequences]


def sequences(records: Sequence[Any]) -> list[str]:
    return [each["dynamodb"]["SequenceNumber"] for each in records]


@asynccontextmanager
async def polling(*mappings: StreamMapping | SqsMapping) -> AsyncIterator[None]:
    """Let the mappings work, and leave nothing behind."""
    pollers = [asyncio.create_task(mapping.poll()) for mapping in mappings]
    try:
        yield
    finally:
        for poller in pollers:
            poller.cancel()
        ended = await asyncio.gather(*pollers, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended
        assert not still_running()


# ── the models ──────────────────────────────────────────────────────────────────────────────────


class Scripted:
    """A handler that answers what it is told, one after the other, then success; keeps what it was sent."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.events: list[list[str]] = []

    async def __call__(self, event: Any, _seconds: float) -> Any:
        await asyncio.sleep(0.1)
        self.events.append(
            [each["dynamodb"]["SequenceNumber"] if "dynamodb" in each else each["body"] for each in event["Records"]]
        )
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def back(*identifiers: Any) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": each} for each in identifiers]}


async def shard(handler: Any, *, batch_size: int = 4, records: int = 6, **more: Any) -> StreamMapping:
    """Run one shard of so many records to its end."""
    mapping = StreamMapping(Function(handler, 10), batch_size=batch_size, **more)
    for raw in good(*range(1, records + 1)):
        mapping.put(raw)
    async with polling(mapping):
        await asyncio.sleep(10_000)
    assert mapping.idle
    return mapping


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}])
async def test_an_empty_answer_is_a_success(answer: Any) -> None:
    """Nothing reported: the shard goes on to the next batch."""
    handler = Scripted(answer)
    await shard(handler)
    assert handler.events == [["1", "2", "3", "4"], ["5", "6"]]


async def test_everything_from_the_lowest_reported_on_is_sent_again() -> None:
    """The lowest SequenceNumber is the checkpoint, in whatever order they are reported."""
    handler = Scripted(back("4", "2"))
    await shard(handler)
    assert handler.events == [["1", "2", "3", "4"], ["2", "3", "4"], ["5", "6"]]


@pytest.mark.parametrize("answer", [back("99"), back(None), back(""), {"failures": []}, "no", ValueError()])
async def test_an_answer_that_makes_no_sense_fails_the_whole_batch(answer: Any) -> None:
    """An unknown identifier, a wrong key or an exception: everything is sent again, in halves."""
    handler = Scripted(answer)
    await shard(handler)
    assert handler.events == [["1", "2", "3", "4"], ["1", "2"], ["3", "4"], ["5", "6"]]
    whole = Scripted(answer)
    await shard(whole, bisect=False)
    assert whole.events == [["1", "2", "3", "4"], ["1", "2", "3", "4"], ["5", "6"]]


async def test_after_the_retries_a_batch_goes_to_the_on_failure_destination() -> None:
    """The shard goes on behind what it gave up."""
    handler = Scripted(*[back("2")] * 3)
    mapping = await shard(handler, max_retries=2)
    assert handler.events == [["1", "2", "3", "4"], ["2", "3", "4"], ["2", "3", "4"], ["5", "6"]]
    assert sequences(mapping.discarded) == ["2", "3", "4"]


async def test_a_batch_may_grow_too_old() -> None:
    """The age limit ends the retries before their number does."""
    handler = Scripted(*[back("1")] * 50)
    mapping = await shard(handler, max_retries=1_000, max_age=60, records=4)
    assert sequences(mapping.discarded) == ["1", "2", "3", "4"]
    assert len(handler.events) < 10


async def test_an_invocation_ends_after_its_limit() -> None:
    """A handler that hangs is stopped, and that is a crash."""

    async def hang(_event: Any, _seconds: float) -> None:
        await asyncio.sleep(1_000)

    function = Function(hang, 5)
    with pytest.raises(CrashedError):
        await function.invoke({})
    assert (asyncio.get_running_loop().time(), function.crashes, function.overran) == (5, 1, 1)


async def drain(queue: Sqs, handler: Any, *, until: float = 1_000, **more: Any) -> None:
    async with polling(SqsMapping(queue, Function(handler, 10), **more)):
        await asyncio.sleep(until)


async def test_a_queue_keeps_what_is_reported() -> None:
    """Reported messages come again after the visibility timeout, the others never."""
    queue, handler = Sqs(visibility=30), Scripted(back("m2"))
    await queue.send([Entry("a"), Entry("b"), Entry("c", delay=60)])
    await drain(queue, handler)
    assert handler.events == [["a", "b"], ["b"], ["c"]]
    assert queue.messages == []


@pytest.mark.parametrize("answer", [back("m99"), back(None), ValueError()])
async def test_an_answer_that_makes_no_sense_keeps_the_whole_batch(answer: Any) -> None:
    """An unknown messageId or an exception: nothing is deleted."""
    queue, handler = Sqs(), Scripted(answer)
    await queue.send([Entry("a"), Entry("b")])
    await drain(queue, handler)
    assert handler.events == [["a", "b"], ["a", "b"]]


async def test_a_message_received_too_often_is_redriven() -> None:
    """After so many receives a message goes to the queue's own dead-letter queue."""
    queue, handler = Sqs(max_receives=3), Scripted(*[back("m1")] * 9)
    await queue.send([Entry("a"), Entry("b")])
    await drain(queue, handler)
    assert handler.events == [["a", "b"], ["a"], ["a"]]
    assert [message.entry.body for message in queue.redriven] == ["a"]


async def test_a_queue_that_refuses_says_which() -> None:
    """The positions of refused entries are in the error, and the others are taken."""
    queue = Sqs(refuses=lambda entry: entry.body == "b")
    with pytest.raises(QueueUnavailable) as caught:
        await queue.send([Entry("a"), Entry("b")])
    assert caught.value.failed == {1}
    assert queue.take() == ["a"]


def grouped(body: str, group: str, deduplication_id: str = "") -> Entry:
    return Entry(body, group=group, deduplication_id=deduplication_id or body)


async def test_a_fifo_group_is_served_in_order_and_held_while_in_flight() -> None:
    """What failed comes again before anything behind it; other groups are not held."""
    queue, handler = Sqs(fifo=True, visibility=30), Scripted(back("m1", "m2"))
    await queue.send([grouped("a1", "a"), grouped("a2", "a"), grouped("b1", "b"), grouped("a3", "a")])
    async with polling(*[SqsMapping(queue, Function(handler, 10), batch_size=3) for _ in range(2)]):
        await asyncio.sleep(10)
        assert handler.events == [["a1", "a2", "b1"]]
        await asyncio.sleep(100)
    assert handler.events == [["a1", "a2", "b1"], ["a1", "a2", "a3"]]


async def test_a_fifo_queue_drops_repeats_for_five_minutes() -> None:
    """A known deduplication id adds nothing within five minutes, and something after."""
    queue = Sqs(fifo=True)
    for wait in (0, 299, 2):
        await asyncio.sleep(wait)
        await queue.send([grouped("a", "a", "same")])
    assert queue.take() == ["a", "a"]


async def test_a_standard_queue_may_deliver_twice() -> None:
    """Deleted and delivered all the same: SQS says at least once."""
    queue, handler, again = Sqs(), Scripted(), [True, False]
    await queue.send([Entry("a")])
    await drain(queue, handler, again=again.pop)
    assert len(handler.events) == 1
    again = [False, True]
    await queue.send([Entry("b")])
    await drain(queue, handler, again=again.pop)
    assert handler.events == [["a"], ["b"], ["b"]]


# ── the relay under them ────────────────────────────────────────────────────────────────────────


class Deployed:
    """The stream function, the workers and their queues."""

    def __init__(
        self,
        script: Script = lambda _id, _message: OK,
        *,
        clients: int = 20,
        retry: bool = True,
        letters: bool = True,
        fanout: int = 0,
        crash: Callable[[], float | None] = lambda: None,
        **mapping: Any,
    ) -> None:
        self.store = MemoryStore(names(clients), page_size=7, delay=0.01)
        self.transport = MemoryTransport(script)
        self.retry = Sqs(visibility=90)
        self.letters = Sqs()
        self.fanout = Sqs(fifo=True, visibility=90)
        queues = Queues(
            self.retry if retry else None, self.letters if letters else None, self.fanout if fanout else None
        )
        self.relay = Relay(
            Broadcaster(self.transport, self.store, Limits(5, 1.0), Rate(), Random(1), wall_clock),
            queues,
            RequeuePolicy(5, 3),
            wall_clock=wall_clock,
            shards=fanout,
        )
        self.stream = StreamMapping(Function(self.relay.on_stream, 15), **mapping)
        worker = MemoryTransport(script)
        worker.received = self.transport.received
        work = Relay(
            Broadcaster(worker, self.store, Limits(5, 1.0), Rate(), Random(2), wall_clock),
            queues,
            RequeuePolicy(5, 3),
            wall_clock=wall_clock,
            shards=fanout,
        )
        self.worker = Function(work.on_jobs, 15, crash)
        self.jobs = [SqsMapping(queue, self.worker) for queue in (self.retry, self.fanout)]

    async def live(self, *raw: Any, seconds: float = 3_600) -> None:
        for each in raw:
            self.stream.put(each)
        async with polling(self.stream, *self.jobs):
            await asyncio.sleep(seconds)
        assert self.stream.idle
        for function in (self.stream.function, self.worker):
            assert function.errors == []
            assert not function.overran

    def got(self, connection_id: str) -> list[int]:
        return [int(message.sequence) for message in self.transport.received[connection_id]]

    def first_times(self, connection_id: str) -> list[int]:
        return list(dict.fromkeys(self.got(connection_id)))

    def reasons(self) -> list[str]:
        return [json.loads(body)["deadLetter"]["reason"] for body in self.letters.take()]


async def test_a_poison_record_costs_nothing_where_there_are_dead_letters() -> None:
    """It is a dead letter, and the batch succeeds the first time."""
    world = Deployed()
    await world.live(*good(1, 2), poison("3"), *good(4, 5))
    assert world.stream.function.invocations == 1
    assert all(world.got(each) == [1, 2, 4, 5] for each in names(20))
    assert world.reasons() == ["undecodable"]


async def test_a_poison_record_does_not_block_its_shard() -> None:
    """Without dead letters it goes to the on-failure destination, and all others are delivered."""
    world = Deployed(letters=False, max_retries=3, batch_size=5)
    await world.live(*good(1, 2), poison("3"), *good(*range(4, 11)))
    assert "3" in sequences(world.stream.discarded)
    assert all(world.first_times(each) == [1, 2, *range(4, 11)] for each in names(20))


async def test_a_sick_client_does_not_block_its_shard() -> None:
    """With no queue for its messages its records are retried, given up by name, and the shard goes on."""
    world = Deployed(lambda id_, _message: Reply(500) if id_ == "c3=" else OK, retry=False, max_retries=2, batch_size=3)
    await world.live(*good(*range(1, 7)))
    assert sequences(world.stream.discarded) == [str(number) for number in range(1, 7)]
    assert all(world.first_times(each) == [*range(1, 7)] for each in names(20) if each != "c3=")
    assert world.got("c3=") == []


async def test_a_sick_client_ends_in_the_dead_letters() -> None:
    """With the queues, the shard never notices, and an operator finds what the client lacks."""
    world = Deployed(lambda id_, _message: Reply(500) if id_ == "c3=" else OK)
    await world.live(*good(1, 2))
    assert world.stream.function.invocations == 1
    assert world.reasons() == ["attempts_exhausted"]
    assert world.retry.messages == []
    assert not world.stream.discarded


async def test_an_endpoint_that_is_down_for_minutes_loses_nothing() -> None:
    """Batches wait in the stream, in order, and nothing is deleted or dead-lettered meanwhile."""

    def down(_id: str, _message: Message) -> Reply:
        return Reply(-1 if asyncio.get_running_loop().time() < 300 else 200, 0.01)

    world = Deployed(down, batch_size=2, max_retries=100)
    await world.live(*good(*range(1, 8)))
    assert all(world.got(each) == [*range(1, 8)] for each in names(20))
    assert (world.store.deleted, world.letters.messages, world.stream.discarded) == ([], [], [])


async def test_a_queue_that_is_down_loses_nothing() -> None:
    """While no queue takes anything the records stay in the stream; healthy clients see repeats, nobody a gap."""
    until = 200.0

    def sick(connection_id: str, _message: Message) -> Reply:
        return Reply(500 if connection_id == "c3=" and asyncio.get_running_loop().time() < 250 else 200)

    world = Deployed(sick, max_retries=100)
    world.retry.refuses = lambda _entry: asyncio.get_running_loop().time() < until
    await world.live(*good(1, 2, 3))
    assert world.stream.function.invocations > 1
    assert all(world.first_times(each) == [1, 2, 3] for each in names(20))


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3, 1.0])
async def test_a_worker_killed_mid_job_loses_nothing(after: float) -> None:
    """Its jobs come again: everybody gets everything, in order within the shard, repeats only of what was begun."""
    crashes = [after, after]
    world = Deployed(
        lambda _id, _message: Reply(200, 0.05),
        clients=60,
        fanout=2,
        crash=lambda: crashes.pop() if crashes else None,
        batch_size=2,
    )
    await world.live(*good(*range(1, 9)))
    assert world.worker.crashes == 2
    assert all(world.first_times(each) == [*range(1, 9)] for each in names(60))
    assert not world.fanout.messages


async def test_a_retry_job_killed_comes_again() -> None:
    """A worker that dies over the retry queue leaves the job there."""

    def sick(connection_id: str, _message: Message) -> Reply:
        return Reply(500 if connection_id == "c3=" and asyncio.get_running_loop().time() < 6 else 200, 0.2)

    crashes: list[float | None] = [0.1]
    world = Deployed(sick, crash=lambda: crashes.pop() if crashes else None)
    await world.live(*good(1, 2))
    assert world.worker.crashes == 1
    assert world.first_times("c3=") == [1, 2]


async def test_jobs_that_poison_a_queue_are_dead_letters() -> None:
    """Unreadable bodies are dead letters, and the jobs beside them are served."""
    world = Deployed()
    message = read_record(good(1)[0]).message
    assert message
    job = Job((message,), (Client("c0="),))
    await world.retry.send([Entry("{"), Entry(job.encode()), Entry('{"job": 7}')])
    await world.live()
    assert world.got("c0=") == [1]
    assert world.reasons() == ["unreadable_job"] * 2
    assert world.worker.invocations == 1


async def test_a_job_that_can_go_nowhere_is_redriven_by_the_queue() -> None:
    """Exhausted, and no dead-letter queue of ours: SQS's own redrive ends it, with the body that says all."""
    world = Deployed(lambda id_, _message: Reply(500) if id_ == "c3=" else OK, letters=False)
    world.retry.max_receives = 4
    await world.live(*good(1), seconds=7_200)
    assert world.retry.messages == []
    (redriven,) = [Job.decode(message.entry.body) for message in world.retry.redriven]
    assert [client.connection_id for client in redriven.clients] == ["c3="]
    assert redriven.reason == "server_error"


async def test_a_shards_job_made_for_another_count_is_served_as_it_says() -> None:
    """Jobs dispatched before the number of shards changed still cover everybody, half by half."""
    world = Deployed(fanout=8)
    message = read_record(good(1)[0]).message
    assert message
    jobs = [Job((message,), shard=Shard(index, 3)) for index in range(3)]
    await world.fanout.send([grouped(job.encode(), str(index)) for index, job in enumerate(jobs)])
    await world.live()
    assert all(world.got(each) == [1] for each in names(20))


async def test_a_large_table_is_served_over_many_invocations() -> None:
    """What one invocation cannot serve goes on in the next, until everybody has everything once."""
    world = Deployed(lambda _id, _message: Reply(200, 0.5), clients=400)
    world.store.page_size = 50
    await world.live(*good(1, 2))
    assert world.worker.invocations > 3
    assert all(world.first_times(each) == [1, 2] for each in names(400))
    assert sum(len(world.got(each)) for each in names(400)) <= 800 + 5 * world.worker.invocations
    assert world.letters.take() == []
