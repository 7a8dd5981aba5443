"""What every feed does, whoever wrote the table behind it.

DynamoDB is played by three servers that have nothing in common: what one of them forgives, another refuses.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from uuid import uuid4

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from async_relay.aws import Aws, DynamoFeed
from async_relay.aws.session import Service
from async_relay.delivery.protocols import Feed
from async_relay.errors import StoreUnavailable
from async_relay.testing.memory import MemoryFeed
from async_relay.wire.feed import BUCKETS, FeedEntry, position_at, publish
from async_relay.wire.messages import Message

FEEDS = ["memory", "moto", "dynalite", "dynalite through the SDK", "ministack"]
NOW = 1_700_000_000_000
START, END = position_at(NOW - 1_000), position_at(NOW + 1_000_000)
PAGE = 3


def new_table(url: str) -> str:
    name = f"feed-{uuid4()}"
    dynamodb = boto3.client("dynamodb", endpoint_url=url)
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in ("bucket", "position")],
        KeySchema=[
            {"AttributeName": "bucket", "KeyType": "HASH"},
            {"AttributeName": "position", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    # dynalite answers a moment before the table is there.
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    return name


class ShortPages(Service):
    """DynamoDB with few entries a page, and a list of what it was asked."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.requests: list[Mapping[str, Any]] = []

    async def call_each(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        self.requests += requests
        if operation == "Query":
            requests = [{**request, "Limit": PAGE} for request in requests]
        return await self._service.call_each(operation, requests)


@dataclass
class Feeds:
    """Makes feeds of one kind. ``service`` is None where they are in memory."""

    service: ShortPages | None
    url: str = ""
    table: str = ""

    def new(self, hours: float = 24) -> Feed:
        """A feed of its own."""
        if self.service is None:
            return MemoryFeed(page_size=PAGE)
        self.table = new_table(self.url)
        return DynamoFeed(self.service, self.table, hours)


async def _feeds(request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    if name == "memory":
        yield Feeds(None)
        return
    server, _, through_sdk = name.partition(" ")
    url = request.getfixturevalue(f"{server}_url")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    aws = Aws(own_sockets=not through_sdk)
    yield Feeds(ShortPages(aws.service("dynamodb")), url)
    await aws.close()


@pytest.fixture(params=FEEDS)
async def feeds(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    async for each in _feeds(request, request.param, monkeypatch):
        yield each


@pytest.fixture(params=FEEDS[1:])
async def tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Feeds]:
    async for each in _feeds(request, request.param, monkeypatch):
        yield each


def entries_of(count: int, seed: int = 1, size: int = 0) -> list[FeedEntry]:
    """So many batches of one message, some at the same time, in any bucket; in order."""
    random = Random(seed)
    found = []
    for number in range(count):
        message = Message.encode({"kind": "incident_update", "event_id": f"e{number}", "note": "ü" * size})
        found += publish([message], NOW + number // 2, random)[1]
    return sorted(found, key=lambda each: each.position)


async def all_of(feed: Feed, after: str = START, before: str = END, *, newest_first: bool = False) -> list[FeedEntry]:
    """Everything, page after page; each page starts where the one before ended."""
    read: list[FeedEntry] = []
    for _ in range(100):
        page = await feed.read(after, before, newest_first=newest_first)
        read += page.entries
        if not page.more:
            return read
        if newest_first:
            before = read[-1].position
        else:
            after = read[-1].position
    pytest.fail("the pages have no end")


async def test_an_empty_feed_has_nothing(feeds: Feeds) -> None:
    """From either end."""
    feed = feeds.new()
    assert await all_of(feed) == await all_of(feed, newest_first=True) == []


@pytest.mark.parametrize("count", [1, PAGE, 30])
async def test_what_was_written_is_read_in_order(feeds: Feeds, count: int) -> None:
    """Oldest first or newest first, in as many pages as it takes, each entry once and whole."""
    feed, entries = feeds.new(), entries_of(count)
    await feed.append(entries)
    assert await all_of(feed) == entries
    assert await all_of(feed, newest_first=True) == entries[::-1]


async def test_neither_end_is_included(feeds: Feeds) -> None:
    """Whether an entry is there or not: a page starts behind the first position, and ends before the other."""
    feed, entries = feeds.new(), entries_of(12)
    await feed.append(entries)
    for low in range(12):
        for high in (low, low + 1, 11):
            expected = entries[low + 1 : high]
            after, before = entries[low].position, entries[high if high < 12 else 11].position
            assert await all_of(feed, after, before) == expected
    for entry in entries[:3]:
        ms = int(entry.position[:9], 36)
        assert entry not in await all_of(feed, position_at(ms + 1), END)
        assert entry in await all_of(feed, position_at(ms), position_at(ms + 1))


async def test_nothing_is_between_a_position_and_an_earlier_one(feeds: Feeds) -> None:
    """DynamoDB refuses such a question, so it is not asked: a client's clock, or ours, may be ahead."""
    feed = feeds.new()
    await feed.append(entries_of(5))
    for after, before in ((END, START), (END, END), (position_at(NOW + 1), position_at(NOW))):
        page = await feed.read(after, before)
        assert (list(page.entries), page.more) == ([], False)


async def test_any_text_comes_back_as_it_was_written(feeds: Feeds) -> None:
    """What JSON or a table would escape."""
    payload = {"event_id": "e", "status": 'größer ☃ 𝄞 "\\ \x00', "n": 10**37, "f": 0.1, "deep": {"a": [None, True]}}
    feed = feeds.new()
    ((message,), entries) = publish([Message.encode(payload)], NOW, Random(1))
    await feed.append(entries)
    ((found,),) = [entry.payloads for entry in await all_of(feed)]
    assert found == message.payload == {**payload, "position": entries[0].position}


async def test_the_largest_message_there_may_be_is_written(feeds: Feeds) -> None:
    """128 KB in one entry, and several such in a page."""
    feed, entries = feeds.new(), entries_of(6, size=65_000)
    await feed.append(entries)
    assert await all_of(feed) == entries


async def test_a_place_is_taken_once(feeds: Feeds) -> None:
    """Another entry at the same position is refused, and the first one stays: nothing is written over."""
    feed = feeds.new()
    first, second = entries_of(1), entries_of(1, size=5)
    await feed.append(first)
    taken = FeedEntry(first[0].bucket, first[0].position, second[0].payloads)
    with pytest.raises(StoreUnavailable):
        await feed.append([taken])
    assert await all_of(feed) == first


async def test_nothing_is_written_of_nothing(feeds: Feeds) -> None:
    """No entries are no calls, and no error."""
    feed = feeds.new()
    await feed.append([])
    assert await all_of(feed) == []


@pytest.mark.parametrize("hours", [1, 24, 0.5])
async def test_an_entry_lives_an_hour_longer_than_it_is_promised(tables: Feeds, hours: float) -> None:
    """What is about to go must not leave a hole in what is read meanwhile."""
    await tables.new(hours).append(entries_of(1))
    (item,) = boto3.client("dynamodb", endpoint_url=tables.url).scan(TableName=tables.table)["Items"]
    assert item["ttl"] == {"N": str(NOW // 1000 + int(hours * 3600) + 3600)}


async def test_reads_are_consistent_and_of_every_bucket(tables: Feeds) -> None:
    """Else whoever connects too late for a broadcast might not find it."""
    assert tables.service is not None
    feed = tables.new()
    await feed.read(START, END)
    assert [request["ConsistentRead"] for request in tables.service.requests] == [True] * len(BUCKETS)
    asked = [request["ExpressionAttributeValues"][":bucket"]["S"] for request in tables.service.requests]
    assert asked == list(BUCKETS)


async def test_an_entry_nobody_can_read_keeps_its_place(tables: Feeds, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody wrote into the table by hand: all around it is read, and the log names it, not what it says."""
    feed, entries = tables.new(), entries_of(9)
    await feed.append(entries)
    client = boto3.client("dynamodb", endpoint_url=tables.url)
    strange = [{"messages": {"S": "a secret"}}, {"messages": {"N": "1"}}, {}]
    for bucket in BUCKETS:
        for number, attributes in enumerate(strange):
            key = {"bucket": {"S": bucket}, "position": {"S": position_at(NOW + 2, number, "zzz")}}
            client.put_item(TableName=tables.table, Item={**key, **attributes})
    with caplog.at_level(logging.ERROR, "async_relay"):
        found = await all_of(feed)
    assert [entry for entry in found if entry.payloads] == entries
    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


async def test_a_table_that_does_not_exist_is_one_sentence_that_names_it(tables: Feeds) -> None:
    """Each call says so, and which table it is."""
    assert tables.service is not None
    feed = DynamoFeed(tables.service, "nowhere", 24)
    with pytest.raises(StoreUnavailable, match=r"feed nowhere cannot be read: .*ResourceNotFound"):
        await feed.read(START, END)
    with pytest.raises(StoreUnavailable, match=r"feed nowhere cannot be written: .*ResourceNotFound"):
        await feed.append(entries_of(2))


async def behaves_like_a_sorted_list(feed: Feed, batches: Sequence[Sequence[int]], seed: int) -> None:
    random = Random(seed)
    model: list[FeedEntry] = []
    for sizes in batches:
        messages = [
            Message.encode({"event_id": f"{len(model)}-{at}", "n": "x" * size}) for at, size in enumerate(sizes)
        ]
        _, entries = publish(messages, NOW + random.randrange(20), random)
        await feed.append(entries)
        model = sorted([*model, *entries], key=lambda each: each.position)
        after, before = (random.choice([START, END, *(each.position for each in model)]) for _ in range(2))
        expected = [each for each in model if after < each.position < before]
        assert await all_of(feed, after, before) == expected
        assert await all_of(feed, after, before, newest_first=True) == expected[::-1]


BATCHES = st.lists(st.lists(st.sampled_from([0, 500, 30_000, 61_000]), max_size=6), max_size=8)


@settings(deadline=None, max_examples=50)
@given(BATCHES, st.integers(0, 2**32))
async def test_in_memory_any_history_is_a_sorted_lists(batches: list[list[int]], seed: int) -> None:
    """Whatever was published in whatever order, between any two positions is what belongs there."""
    await behaves_like_a_sorted_list(Feeds(None).new(), batches, seed)


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, seed=st.integers(0, 2**32))
async def test_on_a_server_any_history_is_a_sorted_lists(tables: Feeds, batches: list[list[int]], seed: int) -> None:
    """The same, whoever plays DynamoDB."""
    await behaves_like_a_sorted_list(tables.new(), batches, seed)
