"""The doubles in memory are no kinder than what they stand for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from async_relay.delivery.protocols import Entry
from async_relay.errors import (
    Disconnected,
    Gone,
    PostError,
    QueueUnavailable,
    ServerError,
    StoreUnavailable,
    TimedOut,
    TooLarge,
    Unreachable,
)
from async_relay.testing.memory import (
    NEVER,
    MemoryQueue,
    MemoryServices,
    MemoryStore,
    MemoryTransport,
    Reply,
    messages_in,
)
from async_relay.wire.jobs import Shard, ShardKind, shard_of
from async_relay.wire.messages import MAX_POST_BYTES, Message
from async_relay.wire.rows import Row

pytestmark = pytest.mark.looptime

MESSAGE = Message.encode({"kind": "note"})


class Lane:
    def __init__(self, connection_id: str = "a=") -> None:
        self.connection_id = connection_id


def now() -> float:
    return asyncio.get_running_loop().time()


def in_one_post(*found: Message) -> Message:
    """An array of these messages."""
    body = b"[" + b",".join(each.body for each in found) + b"]"
    return Message("", "", "", body, "")


async def posted(
    transport: MemoryTransport, lane: Lane | None = None, message: Message = MESSAGE
) -> tuple[PostError | None, float]:
    """What came of one post, and after how many seconds."""
    began = now()
    answer: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()
    transport.send(lane or Lane(), message, lambda _lane, error: answer.set_result(error))
    assert not answer.done()
    return await answer, now() - began


# ── the transport ───────────────────────────────────────────────────────────────────────────────


async def test_the_messages_of_an_array_arrive_one_by_one() -> None:
    """As its client reads them; it was one post all the same."""
    transport, lane = MemoryTransport(), Lane()
    first, second = Message.encode({"event_id": "a", "sequence": "1"}), Message.encode({"kind": "x", "n": [1, 2]})
    assert (await posted(transport, lane, in_one_post(first, second)))[0] is None
    assert transport.received[lane.connection_id] == [first, second]
    assert transport.arrivals[lane.connection_id] == transport.posts[lane.connection_id] == 1
    assert messages_in(first) == [first]


@pytest.mark.parametrize(("size", "kind"), [(MAX_POST_BYTES, type(None)), (MAX_POST_BYTES + 1, TooLarge)])
async def test_a_post_over_128_kilobytes_is_refused(size: int, kind: type[PostError]) -> None:
    """Whatever the script says, as by API Gateway; nothing of it arrives."""
    transport, lane = MemoryTransport(), Lane()
    error, _ = await posted(transport, lane, Message("", "", "", b"{" + b" " * (size - 2) + b"}", ""))
    assert type(error) is kind
    assert len(transport.received[lane.connection_id]) == (error is None)


@pytest.mark.parametrize(
    ("reply", "kind", "seconds", "arrives"),
    [
        (Reply(), type(None), 0, True),
        (Reply(200, 0.5), type(None), 0.5, True),
        (Reply(410), Gone, 0, False),
        (Reply(500, 0.25), ServerError, 0.25, False),
        (Reply(500, arrives=True), ServerError, 0, True),
        (Reply(200, arrives=False), type(None), 0, False),
        (Reply(0), Disconnected, 0, False),
        (Reply(-1), Unreachable, 0, False),
        (Reply(200, 2.0), TimedOut, 2, True),
        (Reply(500, NEVER), TimedOut, 2, False),
    ],
)
async def test_a_reply_is_what_the_script_says(
    reply: Reply, kind: type[PostError | None], seconds: float, *, arrives: bool
) -> None:
    """Its error, when it is due or at the timeout, and whether the client has the message."""
    transport = MemoryTransport(lambda _id, _message: reply, timeout=2.0)
    error, took = await posted(transport)
    assert type(error) is kind
    assert took == pytest.approx(seconds, abs=0.01)
    assert (transport.received["a="], transport.arrivals["a="], transport.posts["a="]) == (
        [MESSAGE] * arrives,
        int(arrives),
        1,
    )


async def test_a_lane_is_in_flight_once() -> None:
    """A second post while the first is under way is a fault of the caller's; a post after it is not."""
    transport, lane = MemoryTransport(lambda _id, _message: Reply(delay=1)), Lane()
    transport.send(lane, MESSAGE, lambda *_: None)
    with pytest.raises(AssertionError, match="in flight already"):
        transport.send(lane, MESSAGE, lambda *_: None)
    await asyncio.sleep(1.1)
    assert (await posted(transport, lane))[0] is None


@pytest.mark.parametrize("end", ["stop", "end", "close"])
async def test_what_is_cut_has_no_answer(end: str) -> None:
    """Posts in flight are gone, nobody hears of them, and the same lane can be posted to again."""
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
    transport, lanes = MemoryTransport(lambda _id, _message: Reply(delay=1)), [Lane("a="), Lane("b=")]
    for lane in lanes:
        transport.send(lane, MESSAGE, lambda *answer: heard.append(answer))
    if (ending := getattr(transport, end)()) is not None:
        await ending
    await asyncio.sleep(2)
    assert heard == []
    assert (await posted(transport, lanes[0]))[0] is None


async def test_the_most_in_flight_is_kept() -> None:
    """After three at once and then one, it is three."""
    transport = MemoryTransport()
    await asyncio.gather(*(posted(transport, Lane(f"{at}")) for at in range(3)))
    await posted(transport)
    assert transport.most_in_flight == 3


async def test_what_arrives_may_be_counted_only() -> None:
    """For load tests: nothing is held."""
    transport = MemoryTransport(keep=False)
    await posted(transport)
    assert (transport.arrivals["a="], dict(transport.received)) == (1, {})


# ── the table ───────────────────────────────────────────────────────────────────────────────────


async def ids(store: MemoryStore, shard: Shard) -> list[str]:
    found, cursor = [], None
    for _ in range(100):
        page = await store.read(shard, cursor)
        found += [client.connection_id for client in page.clients]
        if (cursor := page.cursor) is None:
            return found
    pytest.fail("the pages have no end")


def part_of(name: str, shards: int = 8) -> Shard:
    return Shard(shard_of(name, shards), shards, ShardKind.PARTITION)


async def test_an_index_is_brought_up_to_date_later() -> None:
    """A row that was written, and one that was deleted: the table shows it now, its partition after the lag."""
    store = MemoryStore(lag=1.0)
    await store.put(Row("a=", "someone", 1, 2))
    assert (await ids(store, Shard()), await ids(store, part_of("a="))) == (["a="], [])
    await asyncio.sleep(1)
    assert await ids(store, part_of("a=")) == ["a="]
    await store.delete(["a="])
    assert (await ids(store, Shard()), await ids(store, part_of("a="))) == ([], ["a="])
    await asyncio.sleep(1)
    assert await ids(store, part_of("a=")) == []


async def test_a_row_without_its_shard_is_in_no_partition() -> None:
    """Nor one with another number's; without an index the id decides."""
    store = MemoryStore()
    store.add("bare=")
    store.add("other=", shard=(shard_of("other=", 8) + 1) % 8)
    assert [await ids(store, part_of(name)) for name in ("bare=", "other=")] == [[], []]
    assert "bare=" in await ids(store.seen_by(index=False), part_of("bare="))
    assert store.index, "a view of it has settings of its own"


async def test_a_cursor_means_nothing_to_the_other_kind_of_read() -> None:
    """A key of the table does not start a partition half way, nor the other way round."""
    store = MemoryStore(page_size=1)
    names = [name for at in range(200) if shard_of(name := f"{at}=", 8) == 3][:3]
    for name in names:
        await store.put(Row(name, "someone", 1, 2))
    key = {"connectionId": {"S": max(names)}}
    assert (await store.read(Shard(3, 8, ShardKind.PARTITION), key)).clients[0].connection_id == min(names)
    first = (await store.read(Shard(), None)).clients
    assert (await store.read(Shard(), {**key, "shard": {"N": "3"}})).clients == first


@pytest.mark.parametrize("shard", [Shard(), Shard(3, 8, ShardKind.PARTITION)], ids=["a scan", "a query"])
@pytest.mark.parametrize("rows", [3, 4, 6])
async def test_a_page_has_as_many_rows_as_were_asked_for(shard: Shard, rows: int) -> None:
    """And a page that ends the table has no cursor."""
    store = MemoryStore(page_size=3)
    for name in [name for at in range(400) if shard_of(name := f"{at}=", 8) == 3][:rows]:
        await store.put(Row(name, "someone", 1, 2))
    sizes, cursor = [], None
    for _ in range(10):
        page = await store.read(shard, cursor)
        sizes.append(len(page.clients))
        if (cursor := page.cursor) is None:
            break
    assert sizes == [3] * (rows // 3) + [rows % 3] * bool(rows % 3)


CALLS: list[Callable[[MemoryStore], Awaitable[Any]]] = [
    lambda store: store.read(Shard(), None),
    lambda store: store.count(1),
    lambda store: store.put(Row("a=", "someone", 1, 2)),
    lambda store: store.delete(["a="]),
]


@pytest.mark.parametrize("call", CALLS, ids=["read", "count", "put", "delete"])
@pytest.mark.parametrize("down", [True, False], ids=["down", "throttled"])
async def test_every_call_of_a_table_in_trouble_fails_after_its_time(
    call: Callable[[MemoryStore], Awaitable[Any]], *, down: bool
) -> None:
    """Down until it is up again, or throttled when asked; nothing is read or written meanwhile."""
    store = MemoryStore(["b="], delay=0.5, throttles=lambda: not down)
    store.down = down
    began = now()
    with pytest.raises(StoreUnavailable):
        await call(store)
    assert now() - began == pytest.approx(0.5, abs=0.01)
    assert (list(store.rows), store.reads, store.deleted) == (["b="], 0, [])


async def test_a_row_named_twice_is_refused_and_stays() -> None:
    store = MemoryStore(["a=", "b="])
    with pytest.raises(StoreUnavailable, match="duplicates"):
        await store.delete(["a=", "b=", "a="])
    assert set(store.rows) == {"a=", "b="}


# ── the queue ───────────────────────────────────────────────────────────────────────────────────


async def test_a_queue_keeps_what_it_took_and_nothing_else() -> None:
    """What it refuses is named, and not there."""
    queue = MemoryQueue(lambda entry: entry.body == "no", delay=0.25)
    began = now()
    with pytest.raises(QueueUnavailable) as caught:
        await queue.send([Entry("yes"), Entry("no"), Entry("also")])
    assert caught.value.failed == {1}
    assert now() - began == pytest.approx(0.25, abs=0.01)
    assert [entry.body for entry in queue.take()] == ["yes", "also"]
    assert queue.take() == []


async def test_a_queue_remembers_every_id_it_has_seen() -> None:
    """Not only the last; an entry without one is always taken, and one that was refused may come again."""
    queue = MemoryQueue()
    first, second = Entry("1", group="g", deduplication_id="x"), Entry("2", group="g", deduplication_id="y")
    for _ in range(2):
        await queue.send([first, second, Entry("3")])
    assert [entry.body for entry in queue.take()] == ["1", "2", "3", "3"]
    queue.refuses = lambda _entry: True
    third = Entry("4", group="g", deduplication_id="z")
    with pytest.raises(QueueUnavailable):
        await queue.send([third])
    queue.refuses = lambda _entry: False
    await queue.send([third])
    assert queue.take() == [third]


async def test_the_services_are_the_same_for_everybody() -> None:
    """One table, one transport, and a queue for each URL; closing them keeps what they hold."""
    services = MemoryServices()
    assert await services.store() is services.rows
    assert await services.transport() is services.posts
    assert services.queue("retry") is services.queue("retry")
    assert services.queue("retry") is not services.queue("letters")
    await services.queue("retry").send([Entry("body")])
    await services.close()
    assert [entry.body for entry in services.queues["retry"].entries] == ["body"]
