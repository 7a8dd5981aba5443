"""A batch is in the feed before anybody's row is read, or it goes back to the stream and nobody gets it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from lambda_models import EPOCH, still_running, virtual_time, wall_clock
from records import event, incident, record, remediation

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry, Page
from async_relay.delivery.publishing import Publisher
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Failures, Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import (
    OK,
    MemoryFeed,
    MemoryQueue,
    MemoryServices,
    MemoryStore,
    MemoryTransport,
    Reply,
    Script,
)
from async_relay.wire.feed import POSITION_BYTES, SETTLED_SECONDS, FeedEntry, ms_of, position_at
from async_relay.wire.jobs import Client, Cursor, Job, Shard
from async_relay.wire.messages import MAX_POST_BYTES, Message
from async_relay.wire.streams import read_record

pytestmark = virtual_time

START = position_at(0)
END = position_at(EPOCH * 1000 + 10**9)


def records(count: int, first: int = 1) -> list[dict[str, Any]]:
    return [record(incident(number), sequence=str(number)) for number in range(first, first + count)]


def back(*identifiers: Any) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": str(each)} for each in identifiers]}


def of_size(body: int, sequence: str) -> dict[str, Any]:
    """A record whose message has a body of so many bytes."""
    empty = read_record(record(incident(1, arn="x"), sequence=sequence)).message
    assert empty is not None
    return record(incident(1, arn="x" * (body - len(empty.body) + 1)), sequence=sequence)


class NosyStore(MemoryStore):
    """Notes what the feed had in it when the first row was asked for."""

    feed: MemoryFeed
    found = -1

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        if self.found < 0:
            self.found = len(self.feed.entries)
        return await super().read(shard, cursor)


class Stage:
    """A relay with a feed, over memory."""

    def __init__(
        self,
        clients: Sequence[str] = ("a=", "b="),
        script: Script = lambda _id, _message: OK,
        *,
        feed: MemoryFeed | None = None,
        letters: bool = True,
        fanout: bool = False,
        **options: Any,
    ) -> None:
        self.feed = feed or MemoryFeed()
        self.store = NosyStore(clients)
        self.store.feed = self.feed
        self.transport = MemoryTransport(script)
        self.retry = MemoryQueue()
        self.letters = MemoryQueue()
        self.fanout = MemoryQueue()
        self.figures: list[dict[str, float]] = []
        self.relay = Relay(
            Broadcaster(self.transport, self.store, Limits(100), Rate(), Random(1), wall_clock),
            Queues(self.retry, self.letters if letters else None, self.fanout if fanout else None),
            RequeuePolicy(),
            wall_clock=wall_clock,
            emit_metrics=lambda figures: self.figures.append(dict(figures)),
            publisher=Publisher(self.feed, wall_clock, Random(2)),
            **options,
        )

    async def stream(self, *raw: Any, seconds: float = 60.0) -> Failures:
        start = asyncio.get_running_loop().time()
        failures = await self.relay.on_stream(event(*raw), seconds)
        assert asyncio.get_running_loop().time() - start <= seconds + 1e-6
        assert not still_running()
        return failures

    async def jobs(self, *entries: Entry) -> Failures:
        received = [
            {
                "messageId": f"m{at}",
                "body": each.body,
                "attributes": {"MessageGroupId": each.group} if each.group else {},
            }
            for at, each in enumerate(entries)
        ]
        return await self.relay.on_jobs({"Records": received}, 60.0)

    async def published(self) -> list[FeedEntry]:
        return list((await self.feed.read(START, END)).entries)

    async def events(self) -> list[str]:
        return [payload["event_id"] for entry in await self.published() for payload in entry.payloads]

    def got(self, connection_id: str) -> list[Any]:
        return [message.payload for message in self.transport.received[connection_id]]


async def test_what_everybody_gets_is_what_is_in_the_feed() -> None:
    """Payload for payload, in order, each with a position of the time of its publishing."""
    stage = Stage()
    assert await stage.stream(*records(3), record(remediation(1), sequence="9")) == back()
    (entry,) = await stage.published()
    assert stage.got("a=") == stage.got("b=") == list(entry.payloads)
    assert [payload["event_id"] for payload in entry.payloads] == ["event-1", "event-2", "event-3", "event-9"]
    assert {payload["position"] for payload in entry.payloads} == {entry.position}
    assert ms_of(entry.position) == EPOCH * 1000


@pytest.mark.parametrize("fanout", [False, True])
async def test_nobodys_row_is_read_before_all_is_published(fanout: bool) -> None:
    """However long the feed takes, in both modes: so whoever connects too late finds it there."""
    stage = Stage(feed=MemoryFeed(delay=4.0), fanout=fanout)
    assert await stage.stream(*(of_size(60_000, str(at)) for at in range(5))) == back()
    assert len(await stage.published()) == 5
    if fanout:
        assert await stage.jobs(*stage.fanout.take()) == back()
    assert stage.store.found == 5
    assert len(stage.got("a=")) == 5


async def test_a_position_is_of_the_moment_of_publishing_and_not_of_the_records() -> None:
    """A batch that waited an hour in the stream is published now."""
    stage = Stage()
    await asyncio.sleep(3_600)
    await stage.stream(*records(1))
    (entry,) = await stage.published()
    assert ms_of(entry.position) == pytest.approx((EPOCH + 3_600) * 1000, abs=2)


async def test_a_batch_without_messages_publishes_nothing() -> None:
    """Removed, ignored and undecodable records are in no feed."""
    stage = Stage()
    malformed = {"eventName": "INSERT", "eventID": "e", "dynamodb": {"SequenceNumber": "3"}}
    ignored = record({"something": "else"}, sequence="2")
    assert await stage.stream(record(incident(1), sequence="1", name="REMOVE"), ignored, malformed) == back()
    assert await stage.published() == []
    assert stage.figures == []


async def test_of_a_coalesced_batch_what_is_sent_is_published() -> None:
    """The newest state of each incident; who reads the feed gets what everybody got."""
    stage = Stage(coalesce=True)
    batch = [record(incident(at % 2, status=f"s{at}"), sequence=str(at)) for at in range(1, 6)]
    assert await stage.stream(*batch) == back()
    (entry,) = await stage.published()
    assert [payload["status"] for payload in entry.payloads] == ["s4", "s5"]
    assert stage.got("a=") == list(entry.payloads)


# -- messages that are too large


async def test_a_message_its_position_makes_too_large_is_a_dead_letter_and_not_published() -> None:
    """To the byte; the others of the batch are published and sent."""
    fits, grows = MAX_POST_BYTES - POSITION_BYTES, MAX_POST_BYTES - POSITION_BYTES + 1
    stage = Stage()
    assert await stage.stream(of_size(fits, "1"), of_size(grows, "2"), of_size(MAX_POST_BYTES + 1, "3")) == back()
    assert await stage.events() == ["event-1"]
    assert [len(message.body) for message in stage.transport.received["a="]] == [MAX_POST_BYTES]
    letters = [json.loads(entry.body)["deadLetter"] for entry in stage.letters.entries]
    assert [(letter["reason"], letter["sequence"]) for letter in letters] == [("too_large", "2"), ("too_large", "3")]
    assert letters[0]["detail"] == "the message has 131,073 bytes; API Gateway takes 131,072"


async def test_without_dead_letters_a_message_that_grew_too_large_goes_back() -> None:
    """As any that is too large does."""
    stage = Stage(letters=False)
    assert await stage.stream(*records(1), of_size(MAX_POST_BYTES, "7")) == back(7)
    assert await stage.events() == ["event-1"]


async def test_without_a_feed_the_same_message_is_posted_as_ever() -> None:
    """No room is kept for a position nobody gives it."""
    services = MemoryServices(MemoryStore(["a="]))
    sandbox = sandbox_of(services)
    assert await sandbox.on_stream(event(of_size(MAX_POST_BYTES, "7")), None) == back()
    (message,) = services.posts.received["a="]
    assert "position" not in message.payload
    assert services.published.entries == {}


# -- a feed that does not take them


@pytest.mark.parametrize("fanout", [False, True])
async def test_a_batch_that_cannot_be_published_goes_back(fanout: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody gets what others could not find; nothing is read, posted or dispatched, and the log has no payload."""
    stage = Stage(feed=MemoryFeed(), fanout=fanout)
    stage.feed.down = True
    with caplog.at_level(logging.DEBUG, "async_relay"):
        assert await stage.stream(*records(3)) == back(1, 2, 3)
    assert (stage.store.reads, stage.transport.posts.total(), stage.fanout.entries) == (0, 0, [])
    assert stage.figures == [{"published": 0, "systemic": 1}]
    assert "nothing is sent, since it cannot be published: the feed does not answer" in caplog.text
    assert "inc-1" not in caplog.text


async def test_dead_letters_of_a_batch_that_goes_back_are_sent() -> None:
    """Whether there is a feed says nothing about a record that cannot be decoded."""
    stage = Stage(feed=MemoryFeed(throttles=lambda: True))
    malformed = {"eventName": "INSERT", "eventID": "e", "dynamodb": {"SequenceNumber": "7"}}
    assert await stage.stream(malformed, *records(2)) == back(1, 2)
    assert [json.loads(entry.body)["deadLetter"]["reason"] for entry in stage.letters.entries] == ["undecodable"]


async def test_a_batch_that_comes_again_is_published_again_whole() -> None:
    """Half of it was written; the rest, and that half once more, are written behind it."""
    fails = iter([True, False])
    stage = Stage(feed=MemoryFeed(throttles=lambda: next(fails, False)))
    batch = [of_size(60_000, str(at)) for at in range(1, 5)]
    assert await stage.stream(*batch) == back(1, 2, 3, 4)
    assert await stage.events() == ["event-1", "event-2"]
    assert await stage.stream(*batch) == back()
    assert await stage.events() == ["event-1", "event-2", "event-1", "event-2", "event-3", "event-4"]
    assert [payload["event_id"] for payload in stage.got("a=")] == ["event-1", "event-2", "event-3", "event-4"]


async def test_an_outage_of_the_feed_is_paced() -> None:
    """As one of the table: each time a little longer until a batch is taken, and then from the start."""
    stage = Stage()
    stage.feed.down = True
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(8):
        start = loop.time()
        await stage.stream(*records(1))
        took.append(loop.time() - start)
    assert took == pytest.approx([0.5, 1, 2, 4, 5, 5, 5, 5], abs=1e-3)
    stage.feed.down = False
    assert await stage.stream(*records(1)) == back()


async def test_an_append_that_takes_too_long_has_failed() -> None:
    """Readers rely on it: what is not there so long after its position never was published."""
    stage = Stage(feed=MemoryFeed(delay=SETTLED_SECONDS + 0.1))
    start = asyncio.get_running_loop().time()
    assert await stage.stream(*(of_size(60_000, str(at)) for at in range(1, 3))) == back(1, 2)
    assert asyncio.get_running_loop().time() - start < SETTLED_SECONDS + 1
    assert stage.transport.posts.total() == 0


@pytest.mark.parametrize("seconds", [0.05, 1.0, 3.0, 9.0])
async def test_a_feed_that_hangs_costs_no_more_than_the_time_there_is(seconds: float) -> None:
    """The records go back before the deadline, with time left for the dead letters."""
    stage = Stage(feed=MemoryFeed(delay=100.0))
    stage.letters.delay = min(0.2, seconds / 8)
    malformed = {"eventName": "INSERT", "eventID": "e", "dynamodb": {"SequenceNumber": "7"}}
    assert await stage.stream(malformed, *records(1), seconds=seconds) == back(1)
    assert len(stage.letters.entries) == 1


@pytest.mark.parametrize("after", [0.0, 0.5, 1.5])
async def test_an_invocation_that_is_cancelled_leaves_nothing_running(after: float) -> None:
    """While it publishes, and whatever was written by then."""
    stage = Stage(feed=MemoryFeed(delay=2.0))
    invocation = asyncio.create_task(stage.stream(*(of_size(60_000, str(at)) for at in range(4))))
    await asyncio.sleep(after)
    invocation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await invocation
    assert not still_running()
    assert len(stage.feed.entries) == {0.0: 0, 0.5: 0, 1.5: 2}[after]
    assert stage.transport.posts.total() == 0


# -- who else gets the messages


async def test_a_parked_message_keeps_its_position() -> None:
    """The retry queue has it as it was published, and whoever serves it publishes nothing."""
    stage = Stage(script=lambda name, _message: Reply(500) if name == "b=" else OK)
    assert await stage.stream(*records(2)) == back()
    before = await stage.published()
    (entry,) = stage.retry.take()
    stage.transport.script = lambda _id, _message: OK
    await asyncio.sleep(30)
    assert await stage.jobs(entry) == back()
    assert stage.got("b=") == stage.got("a=") == list(before[0].payloads)
    assert await stage.published() == before
    assert [figures.get("published") for figures in stage.figures] == [1, None]


async def test_workers_post_what_was_published_and_publish_nothing() -> None:
    """The positions are in the jobs."""
    stage = Stage(fanout=True, shards=2)
    assert await stage.stream(*records(2)) == back()
    assert await stage.jobs(*stage.fanout.take()) == back()
    (entry,) = await stage.published()
    assert stage.got("a=") == stage.got("b=") == list(entry.payloads)


async def test_a_batch_that_was_dispatched_and_comes_again_is_dispatched_once() -> None:
    """Its positions are others by then, and the FIFO queue knows it all the same."""
    stage = Stage(fanout=True, shards=3)
    for _ in range(2):
        assert await stage.stream(*records(2)) == back()
        await asyncio.sleep(10)
    assert len(stage.fanout.entries) == 3
    first, second = await stage.published()
    assert all(each["position"] == first.position for each in json.loads(stage.fanout.entries[0].body)["messages"])
    assert first.position < second.position


async def test_batches_of_a_formatter_without_ids_are_dispatched_each() -> None:
    """The same payload a second time is another message."""
    stage = Stage(fanout=True, shards=1, formatter=lambda _item, _event_id, _sequence: {"changed": True})
    for number in range(2):
        assert await stage.stream(*records(1, number)) == back()
    assert len(stage.fanout.entries) == 2


async def test_a_job_from_before_there_was_a_feed_is_served_as_it_is() -> None:
    """Nothing is given a position that nobody would find it at."""
    stage = Stage()
    old = Job((Message.encode({"kind": "incident_update", "event_id": "e1"}),), (Client("a="),))
    assert await stage.jobs(Entry(old.encode())) == back()
    assert stage.got("a=") == [{"kind": "incident_update", "event_id": "e1"}]
    assert await stage.published() == []


# -- figures and the log


async def test_entries_are_counted_with_what_came_of_them() -> None:
    """One line of figures a batch in either mode: of the broadcast, or of the dispatch."""
    direct, dispatched = Stage(), Stage(fanout=True)
    batch = [of_size(60_000, str(at)) for at in range(1, 4)]
    for stage in (direct, dispatched):
        await stage.stream(*batch)
    ((figures), (dispatch)) = (*direct.figures, *dispatched.figures)
    assert (figures["published"], figures["delivered"], figures["systemic"]) == (3, 6, 0)
    assert dispatch == {"published": 3}


async def test_the_log_says_how_much_was_published_and_nothing_of_it(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG: the messages, the entries and where they begin."""
    stage = Stage()
    with caplog.at_level(logging.DEBUG, "async_relay"):
        await stage.stream(*records(2))
    (entry,) = await stage.published()
    (line,) = [each for each in caplog.records if each.message == "published"]
    assert {"entries": 1, "published": 2, "first": entry.position}.items() <= line.__dict__.items()
    assert "inc-1" not in str(line.__dict__)


# -- the sandbox


def sandbox_of(services: MemoryServices, **more: str) -> Sandbox:
    environ = {"WS_ENDPOINT": "https://localhost/prod", "CONNECTIONS_TABLE": "connections", **more}
    return Sandbox(Settings.from_env(environ), services, wall_clock=wall_clock)


async def test_a_sandbox_publishes_where_there_is_a_table_for_it() -> None:
    """FEED_TABLE is all it takes."""
    services = MemoryServices(MemoryStore(["a="]))
    assert await sandbox_of(services, FEED_TABLE="feed").on_stream(event(*records(1)), None) == back()
    (entry,) = services.published.entries.values()
    assert [message.payload for message in services.posts.received["a="]] == list(entry.payloads)


async def test_a_sandbox_without_a_feed_does_as_it_always_did() -> None:
    """It opens no feed, and posts and dispatches, byte for byte, what the records say."""

    class NoFeed(MemoryServices):
        async def feed(self) -> MemoryFeed:
            raise AssertionError

    services = NoFeed(MemoryStore(["a="]))
    assert await sandbox_of(services).on_stream(event(*records(2)), None) == back()
    expected = [read_record(each).message for each in records(2)]
    assert services.posts.received["a="] == expected
    url = "https://sqs.eu-west-1.amazonaws.com/1/fan.fifo"
    dispatching = sandbox_of(services, FANOUT_QUEUE_URL=url, FANOUT_SHARDS="1")
    assert await dispatching.on_stream(event(*records(2)), None) == back()
    (entry,) = services.queues[url].entries
    assert Job.decode(entry.body).messages == tuple(expected)
