"""The sandbox's copy of the recent feed: how often the feed is read, how much is kept, and whom a look serves."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest
from deployment import Context
from door import asking
from lambda_models import EPOCH, virtual_time, wall_clock

from async_relay.clients.feed_copy import ROOM, FeedCopy
from async_relay.delivery.protocols import Feed
from async_relay.errors import StoreUnavailable
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryFeed, MemoryServices, MemoryStore, MemoryTransport
from async_relay.wire.feed import FeedEntry, FeedPage, position_at, publish
from async_relay.wire.messages import Message

pytestmark = virtual_time

OLD = (EPOCH - 7_000) * 1000
HOUR = 3600
FEED = {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections", "FEED_TABLE": "feed"}


def at(seconds: float) -> str:
    return position_at(int((EPOCH + seconds) * 1000))


def opening(feed: Feed | None) -> Callable[[], Awaitable[Feed | None]]:
    async def opens() -> Feed | None:
        return feed

    return opens


def put(feed: MemoryFeed, seconds: float, count: int = 1, size: int = 100) -> None:
    messages = [
        Message.encode({"event_id": f"{seconds}.{number}", "text": "x" * size, "kind": "incident_update"})
        for number in range(count)
    ]
    _, entries = publish(messages, int((EPOCH + seconds) * 1000), Random(f"{seconds}"))
    for each in entries:
        feed.entries[each.bucket, each.position] = each


def copy_of(feed: Feed | None, room: int = ROOM, hours: float = 24) -> FeedCopy:
    return FeedCopy(opening(feed), wall_clock, hours, room=room)


# ── whom a look serves ──────────────────────────────────────────────────────────────────────────


async def test_a_look_serves_older_rows_for_a_second() -> None:
    feed = MemoryFeed()
    copy = copy_of(feed)
    await copy.look(OLD)
    for _ in range(100):
        await asyncio.sleep(0.01)
        await copy.look(OLD)
        await copy.look((EPOCH - 1) * 1000)
    assert feed.reads == 1
    await asyncio.sleep(0.01)
    await copy.look(OLD)
    assert feed.reads == 2


@pytest.mark.parametrize("created_at", [EPOCH * 1000, EPOCH * 1000 - 999, None, EPOCH - 7_000, 0])
async def test_a_look_serves_no_row_that_may_be_newer(created_at: int | None) -> None:
    """Nor one whose time nobody can tell."""
    feed = MemoryFeed()
    copy = copy_of(feed)
    await copy.look(OLD)
    await copy.look(created_at)
    assert feed.reads == 2


async def test_a_look_that_began_since_serves_whoever_waits() -> None:
    """Two looks are enough: the one that was under way, and the one that began after the question."""
    feed = MemoryFeed(delay=0.5)
    copy = copy_of(feed)
    first = asyncio.create_task(copy.look(OLD))
    await asyncio.sleep(0.1)
    await asyncio.gather(first, *(copy.look(None) for _ in range(1_000)))
    assert feed.reads == 2


async def test_a_clock_that_goes_back_makes_a_look_no_fresher() -> None:
    now = [float(EPOCH)]
    feed = MemoryFeed()
    copy = FeedCopy(opening(feed), lambda: now[0], 24)
    await copy.look(OLD)
    now[0] -= 100
    await copy.look(OLD)
    assert feed.reads == 2


async def test_a_look_that_failed_or_was_cut_off_is_none() -> None:
    feed = MemoryFeed()
    copy = copy_of(feed)
    feed.down = True
    with pytest.raises(StoreUnavailable):
        await copy.look(OLD)
    feed.down, feed.delay = False, 5.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await copy.look(OLD)
    feed.delay = 0.0
    put(feed, -5)
    await copy.look(OLD)
    assert len(copy.after(at(-10))) == 1


async def test_there_may_be_no_feed() -> None:
    with pytest.raises(StoreUnavailable):
        await copy_of(None).look(OLD)


# ── what is read ────────────────────────────────────────────────────────────────────────────────


class Listening:
    """A feed that notes between which positions it is read."""

    def __init__(self, feed: MemoryFeed) -> None:
        self.feed = feed
        self.asked: list[tuple[str, str]] = []

    async def append(self, entries: Any) -> None:
        await self.feed.append(entries)

    async def read(self, after: str, before: str, *, newest_first: bool = False) -> FeedPage:
        self.asked.append((after, before))
        return await self.feed.read(after, before, newest_first=newest_first)


async def test_only_what_may_have_changed_is_read_again() -> None:
    """From fifteen seconds before the last look: what was published then is settled."""
    feed = Listening(MemoryFeed())
    copy = copy_of(feed)
    await copy.look(OLD)
    await asyncio.sleep(100)
    put(feed.feed, 90)
    await copy.look(OLD)
    assert feed.asked[1][0] == at(-15)
    await asyncio.sleep(7)
    put(feed.feed, 88)
    await copy.look(OLD)
    assert feed.asked[2][0] == at(85)
    assert [each.position[:9] for each in copy.after(at(0))] == [at(88)[:9], at(90)[:9]]


async def test_a_copy_grows_back_as_far_as_somebody_asks() -> None:
    feed = MemoryFeed(page_size=2)
    for number in range(60):
        put(feed, -60 * number)
    copy = copy_of(feed)
    await copy.look(OLD)
    few = len(copy.after(at(-HOUR)))
    assert not copy.covers(at(-1_800))
    while await copy.reach(at(-1_800)):
        pass
    assert copy.covers(at(-1_800))
    assert few < len(copy.after(at(-HOUR))) < 60
    reads = feed.reads
    assert not await copy.reach(at(-1_800))
    assert feed.reads == reads


# ── how much is kept ────────────────────────────────────────────────────────────────────────────


async def test_a_full_copy_forgets_the_oldest() -> None:
    feed = MemoryFeed()
    copy = copy_of(feed, room=1_000_000)
    for number in range(300):
        put(feed, number, count=10, size=1_000)
        await copy.look(OLD)
        await asyncio.sleep(1)
        assert copy.size <= 1_000_000
    assert copy.covers(at(290))
    assert not copy.covers(at(100))
    assert not await copy.reach(at(100))
    entries, _ = await copy.read(at(100), at(102))
    assert [each.position[:9] for each in entries] == [at(100)[:9], at(101)[:9]]


async def test_a_sandbox_that_slept_begins_anew_where_it_missed_too_much() -> None:
    feed = MemoryFeed()
    copy = copy_of(feed, room=200_000)
    put(feed, -5)
    await copy.look(OLD)
    await asyncio.sleep(HOUR)
    for number in range(1, HOUR):
        put(feed, number, size=1_000)
    reads = feed.reads
    await copy.look(OLD)
    assert feed.reads < reads + 10
    assert copy.covers(at(HOUR - 60))
    assert not copy.covers(at(HOUR / 2))
    assert len(copy.after(at(HOUR - 60))) == 60


async def test_a_sandbox_that_slept_begins_anew_where_the_feed_is_slow() -> None:
    """It would read for longer than there is time, and the next question would find it where this one did."""
    feed = MemoryFeed()
    copy = copy_of(feed)
    put(feed, -5)
    await copy.look(OLD)
    await asyncio.sleep(HOUR)
    for number in range(1, HOUR):
        put(feed, number)
    reads, feed.delay = feed.reads, 1.0
    async with asyncio.timeout(3):
        await copy.look(OLD, asyncio.get_running_loop().time() + 1.5)
    assert feed.reads == reads + 2
    assert copy.covers(at(HOUR - 20))
    assert not copy.covers(at(HOUR / 2))


async def test_what_is_too_old_is_forgotten() -> None:
    feed = MemoryFeed()
    copy = copy_of(feed, hours=1)
    put(feed, -5)
    await copy.look(OLD)
    await asyncio.sleep(2 * HOUR)
    await copy.look(OLD)
    assert len(copy.after(at(-10))) == 0
    assert copy.size == 0


async def test_entries_of_one_position_stay_or_go_together() -> None:
    feed = MemoryFeed()
    payloads = ({"text": "x" * 1_000},)
    for bucket in "0123":
        for second in (-2, -1):
            feed.entries[bucket, at(second)] = FeedEntry(bucket, at(second), payloads)
    copy = copy_of(feed, room=8_000)
    await copy.look(OLD)
    assert len(copy.after(at(-10))) == 4
    assert copy.covers(at(-2))


async def test_the_copy_takes_no_more_than_it_says() -> None:
    """Small messages, whose maps would take ten times as much."""
    feed = MemoryFeed(page_size=100)
    for second in range(200):
        put(feed, -second, count=50, size=400)
    copy = copy_of(feed)
    gc.collect()
    tracemalloc.start()
    await copy.look(OLD)
    while await copy.reach(at(-HOUR)):
        pass
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(len(each.messages) for each in copy.after(at(-HOUR))) == 10_000
    assert 0.5 * copy.size < taken < 1.1 * copy.size


# ── storms ──────────────────────────────────────────────────────────────────────────────────────


class Storm:
    """A sandbox whose clients come back; an hour of a feed with a change every other second."""

    def __init__(self) -> None:
        self.rows, self.posts = MemoryStore(index=False), MemoryTransport(keep=False)
        self.services = MemoryServices(self.rows, self.posts)
        self.feed = self.services.published
        self.feed.page_size = 100
        for second in range(0, HOUR, 2):
            put(self.feed, -second)
        self.sandbox = Sandbox(Settings.from_env(FEED), self.services, wall_clock=wall_clock)

    async def comes_back(self, number: int, *, after: float) -> None:
        """A client that was away for a while asks for what it missed, so many seconds after it connected."""
        name = f"{number}="
        self.rows.rows[name] = {"createdAt": int((wall_clock() - after) * 1000)}
        position = at(asyncio.get_running_loop().time() - 10 - number % 50)
        body = {"action": "resume", "position": position}
        await self.sandbox.on_request(asking(body, name), Context(60))
        assert self.posts.arrivals[name] == 1
        del self.rows.rows[name]


async def test_long_labels_go_with_their_messages() -> None:
    """A status may be a text of 100 KB; labels are remembered where many messages have the same."""
    feed = MemoryFeed()
    copy = copy_of(feed, room=1_000_000)
    tracemalloc.start()
    try:
        for number in range(300):
            place = position_at(int((EPOCH + number) * 1000))
            message = {"event_id": f"e{number}", "status": f"{number}" + "x" * 100_000}
            feed.entries = {("0", place): FeedEntry("0", place, (message,))}
            await copy.look(OLD)
            await asyncio.sleep(2)
        assert tracemalloc.get_traced_memory()[0] < 3_000_000
    finally:
        tracemalloc.stop()


async def test_a_thousand_requests_in_a_second_read_the_feed_a_few_times() -> None:
    """Of rows older than the second: once back to where the oldest overlap begins, and then the end of it."""
    storm = Storm()
    for number in range(1_000):
        await storm.comes_back(number, after=100)
        await asyncio.sleep(0.001)
    assert storm.feed.reads <= 6


@pytest.mark.parametrize(("after", "most"), [(2.0, 65), (0.2, 310)])
async def test_a_storm_of_clients_reads_the_end_of_the_feed_once_a_second(after: float, most: int) -> None:
    """300 in a minute, as one of some sandboxes has of 10,000; those that ask at once need a look of their own."""
    storm = Storm()
    for number in range(300):
        await storm.comes_back(number, after=after)
        await asyncio.sleep(0.2)
    assert storm.feed.reads <= most
