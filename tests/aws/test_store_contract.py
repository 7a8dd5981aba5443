"""What every connection store does, whoever wrote the table behind it.

DynamoDB is played by three servers that have nothing in common: what one of them forgives, another refuses.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from deployment import new_table
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from async_relay.aws import Aws, DynamoStore
from async_relay.aws.session import Service
from async_relay.delivery.protocols import ConnectionStore, Page
from async_relay.errors import ConditionFailed, StoreUnavailable
from async_relay.testing.memory import MemoryStore
from async_relay.wire.audience import Access
from async_relay.wire.jobs import Client, Cursor, Shard, ShardKind, shard_of
from async_relay.wire.rows import Row

PAGE = 7
STORES = ["memory", "moto", "dynalite", "dynalite through the SDK", "ministack"]
# As API Gateway makes them, and as nobody does: the store is not to care.
IDS = ["L0SM9cOFvHcCIhw=", "a+b/c==", "/", "%3D", " ", "@connections", "ünï-☃-𝄞", "'\"\\", "x" * 1_000]


def partition(index: int, count: int) -> Shard:
    """The rows whose attribute ``shard`` is ``index``: the one place that knows how to ask for them."""
    return Shard(index, count, ShardKind.PARTITION)


class ShortPages(Service):
    """DynamoDB with few rows a page, as if each had the size of a page's share."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def call_each(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        if operation in ("Scan", "Query"):
            requests = [{"Limit": PAGE, **request} for request in requests]
        return await self._service.call_each(operation, requests)


@dataclass
class Stores:
    """Makes stores of one kind. ``service`` is None where they are in memory."""

    service: Service | None
    url: str = ""

    async def new(self, *bare: str, shards: int | None = None) -> ConnectionStore:
        """A table of its own with rows that have only a key; with ``shards``, also an index of so many partitions."""
        if self.service is None:
            return MemoryStore(bare, page_size=PAGE, index=shards is not None, shards=shards or 8)
        table = new_table(self.url, index=shards is not None)
        with boto3.resource("dynamodb", endpoint_url=self.url).Table(table).batch_writer() as writer:
            for connection_id in bare:
                writer.put_item(Item={"connectionId": connection_id})
        options: dict[str, Any] = {} if shards is None else {"index": "by-shard", "shards": shards, "sweep": False}
        return await DynamoStore.open(self.service, table, **options)


@pytest.fixture(params=STORES)
async def stores(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stores]:
    async for each in _stores(request, request.param, monkeypatch):
        yield each


@pytest.fixture(params=STORES[1:])
async def tables(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stores]:
    async for each in _stores(request, request.param, monkeypatch):
        yield each


async def _stores(request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stores]:
    if name == "memory":
        yield Stores(None)
        return
    server, _, through_sdk = name.partition(" ")
    url = request.getfixturevalue(f"{server}_url")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    aws = Aws(own_sockets=not through_sdk)
    yield Stores(ShortPages(aws.service("dynamodb")), url)
    await aws.close()


async def pages(store: ConnectionStore, shard: Shard) -> AsyncIterator[Page]:
    cursor: Cursor | None = None
    # More pages than any test has rows: a cursor that leads in a circle is an error and not a timeout.
    for _ in range(300):
        page = await store.read(shard, cursor)
        yield page
        if page.cursor is None:
            return
        cursor = json.loads(json.dumps(page.cursor))
    pytest.fail("the pages have no end")


async def clients_of(store: ConnectionStore, shard: Shard | None = None) -> list[Client]:
    return [client async for page in pages(store, shard or Shard()) for client in page.clients]


async def ids_of(store: ConnectionStore, shard: Shard | None = None) -> list[str]:
    return [client.connection_id for client in await clients_of(store, shard)]


async def put_all(store: ConnectionStore, ids: Sequence[str]) -> None:
    await asyncio.gather(*(store.put(Row(each, "someone", 1_700_000_000_000, 1_700_086_400)) for each in ids))


def names_of(count: int) -> list[str]:
    return [f"id-{number}=" for number in range(count)]


async def test_an_empty_table_has_nobody(stores: Stores) -> None:
    """One segment or several: no rows, and no page that leads nowhere."""
    store = await stores.new()
    assert [await ids_of(store, shard) for shard in (Shard(), Shard(0, 3), Shard(2, 3))] == [[], [], []]
    assert await store.count(10) == 0


async def test_a_row_is_read_with_the_time_it_was_written_with(stores: Stores) -> None:
    """Milliseconds stay a whole number, and a second put replaces the first."""
    store = await stores.new()
    await store.put(Row("a=", "someone", 1, 1_700_086_400))
    await store.put(Row("a=", "someone", 1_700_000_000_123, 1_700_086_400))
    assert await clients_of(store) == [Client("a=", 1_700_000_000_123)]


async def test_any_id_comes_back_as_it_was_written(stores: Stores) -> None:
    """What a URL, JSON or a signature would escape is written, read and deleted like any other."""
    store = await stores.new()
    await put_all(store, IDS)
    assert sorted(await ids_of(store)) == sorted(IDS)
    assert sorted([each for index in range(3) for each in await ids_of(store, Shard(index, 3))]) == sorted(IDS)
    await store.delete(IDS[1:])
    assert await ids_of(store) == IDS[:1]
    await store.delete(IDS[:1])
    assert await ids_of(store) == []


async def test_a_row_with_only_its_key_is_served(stores: Stores) -> None:
    """A row of somebody else's function has no time, and is in the table as any other."""
    store = await stores.new("bare=")
    await put_all(store, ["full="])
    assert sorted(await clients_of(store)) == [Client("bare="), Client("full=", 1_700_000_000_000)]
    await store.delete(["bare="])
    assert await ids_of(store) == ["full="]


@pytest.mark.parametrize("count", [0, 1, 2, 25, 26, 60])
async def test_deleted_rows_are_gone_and_others_stay(stores: Stores, count: int) -> None:
    """None, one, a call's worth or more are deleted, and deleting them again does no harm."""
    names = names_of(62)
    store = await stores.new(*names)
    for _ in range(2):
        await store.delete(names[:count])
    assert sorted(await ids_of(store)) == sorted(names[count:])


async def test_rows_that_never_were_are_deleted_without_complaint(stores: Stores) -> None:
    """One or several, alone or beside a row that is there."""
    store = await stores.new("a=", "b=")
    await store.delete(["nobody="])
    await store.delete(["nobody=", "no one=", "a="])
    assert await ids_of(store) == ["b="]


@pytest.mark.parametrize("doomed", [["a=", "a="], ["a=", *names_of(30), "a=", "id-3="]], ids=["one call", "two calls"])
async def test_a_row_named_twice_is_deleted(tables: Stores, doomed: list[str]) -> None:
    """DynamoDB refuses a call that names a row twice, so none is sent."""
    store = await tables.new("a=", "b=")
    await store.delete(doomed)
    assert await ids_of(store) == ["b="]


async def test_in_memory_a_row_named_twice_is_refused() -> None:
    """The double is as strict as BatchWriteItem, so that the core names each row once."""
    with pytest.raises(StoreUnavailable, match="contains duplicates"):
        await MemoryStore(["a="]).delete(["a=", "a="])


@pytest.mark.parametrize("rows", [PAGE - 1, PAGE, PAGE + 1, 3 * PAGE, 40])
async def test_segments_are_disjoint_and_complete(stores: Stores, rows: int) -> None:
    """Every row is in exactly one segment, however many there are, and whether it begins, fills or ends a page."""
    names = names_of(rows)
    store = await stores.new(*names)
    for count in (1, 2, 3, 16, 100):
        found = [each for index in range(count) for each in await ids_of(store, Shard(index, count))]
        assert sorted(found) == sorted(names), f"of {count} segments"


@pytest.mark.parametrize("count", [1, 2, 3, 8])
async def test_partitions_are_disjoint_and_complete(stores: Stores, count: int) -> None:
    """Of rows that all have a shard, each is in exactly the partition its id belongs to, over several pages."""
    names = names_of(40)
    store = await stores.new(shards=count)
    await put_all(store, names)
    for index in range(count):
        expected = [each for each in names if shard_of(each, count) == index]
        assert sorted(await ids_of(store, partition(index, count))) == sorted(expected)


async def test_a_deleted_row_leaves_its_partition(stores: Stores) -> None:
    """The index has what the table has, and deleting needs the key alone."""
    names = names_of(20)
    store = await stores.new(shards=2)
    await put_all(store, names)
    await store.delete(names[:10])
    found = [each for index in range(2) for each in await ids_of(store, partition(index, 2))]
    assert sorted(found) == sorted(names[10:])


async def test_pages_of_a_megabyte_are_followed(tables: Stores) -> None:
    """Where the rows are large the table ends the page, not we."""
    table = new_table(tables.url)
    client = boto3.client("dynamodb", endpoint_url=tables.url)
    names = names_of(12)
    for name in names:
        client.put_item(TableName=table, Item={"connectionId": {"S": name}, "note": {"S": "x" * 350_000}})
    assert isinstance(tables.service, ShortPages)
    store = await DynamoStore.open(tables.service._service, table)
    read = [page async for page in pages(store, Shard())]
    assert len(read) >= 4
    assert sorted(client.connection_id for page in read for client in page.clients) == sorted(names)


async def test_a_scan_goes_on_while_rows_come_and_go(stores: Stores) -> None:
    """Who is there all the time is read exactly once, a newcomer at most once, and who left in time never."""
    names = names_of(40)
    store = await stores.new(*names)
    seen: Counter[str] = Counter()
    gone: set[str] = set()
    async for page in pages(store, Shard()):
        read = [client.connection_id for client in page.clients]
        assert not gone.intersection(read)
        seen.update(read)
        await put_all(store, [f"new-{len(seen)}-{number}=" for number in range(2)])
        # The row a cursor points at is deleted as well.
        leaving = {next((each for each in names if each not in seen and each not in gone), ""), *read[-1:]} - {""}
        await store.delete(sorted(leaving))
        gone |= leaving
    assert {seen[each] for each in names if each not in gone} <= {1}
    assert max(seen.values()) == 1


@pytest.mark.parametrize("enough", [1, 5, PAGE, 19, 20, 1_000])
async def test_counting_stops_at_enough(stores: Stores, enough: int) -> None:
    """Up to ``enough`` the number is right; beyond, it is at least that."""
    store = await stores.new(*names_of(20))
    found = await store.count(enough)
    assert min(enough, 20) <= found <= 20
    assert found == 20 or enough < 20


async def test_counting_reads_no_more_than_it_needs(tables: Stores) -> None:
    """Five of twenty rows are one call for five."""
    assert tables.service is not None
    requests: list[Mapping[str, Any]] = []

    class Listening(Service):
        def __init__(self, service: Service) -> None:
            self._service = service

        async def call_each(self, operation: str, asked: Sequence[Mapping[str, Any]]) -> list[Any]:
            requests.extend(asked)
            return await self._service.call_each(operation, asked)

    store = await tables.new(*names_of(20))
    assert isinstance(store, DynamoStore)
    assert await DynamoStore(Listening(tables.service), store._table).count(5) == 5
    assert [request["Limit"] for request in requests] == [5]


async def test_a_table_that_does_not_exist_is_one_sentence_that_names_it(tables: Stores) -> None:
    """Each call says so, and which table it is."""
    assert tables.service is not None
    store = DynamoStore(tables.service, "nowhere")
    with pytest.raises(StoreUnavailable, match=r"table nowhere cannot be read: .*ResourceNotFound"):
        await store.read(Shard(), None)
    with pytest.raises(StoreUnavailable, match=r"table nowhere cannot be read: .*ResourceNotFound"):
        await store.count(1)
    with pytest.raises(StoreUnavailable, match=r"table nowhere cannot be written: .*ResourceNotFound"):
        await store.put(Row("a=", "someone", 1, 2))
    for doomed in (["a="], ["a=", "b="]):
        with pytest.raises(StoreUnavailable, match=r"table nowhere cannot be written: .*ResourceNotFound"):
            await store.delete(doomed)


IDS_OF_A_MODEL = st.sampled_from([*names_of(12), *IDS[:3]])
STEPS = st.lists(
    st.tuples(st.just("put"), IDS_OF_A_MODEL, st.integers(1, 2**53))
    | st.tuples(st.just("delete"), st.lists(IDS_OF_A_MODEL, unique=True, max_size=15))
    | st.tuples(st.just("read"), st.integers(1, 5))
    | st.tuples(st.just("count"), st.integers(1, 20)),
    max_size=30,
)


async def behaves_like_a_dictionary(store: ConnectionStore, steps: Sequence[tuple[Any, ...]]) -> None:
    model: dict[str, int] = {}
    for step in itertools.chain(steps, [("read", 1), ("read", 3)]):
        match step:
            case ("put", connection_id, created_at):
                await store.put(Row(connection_id, "someone", created_at, 1_700_086_400))
                model[connection_id] = created_at
            case ("delete", connection_ids):
                await store.delete(connection_ids)
                for connection_id in connection_ids:
                    model.pop(connection_id, None)
            case ("read", count):
                found = [each for index in range(count) for each in await clients_of(store, Shard(index, count))]
                assert sorted(found) == sorted(Client(*row) for row in model.items())
            case ("count", enough):
                assert min(enough, len(model)) <= await store.count(enough) <= len(model)


@settings(deadline=None)
@example([("put", "a=", 1), ("delete", ["a="]), ("put", "a=", 2)])
@given(STEPS)
async def test_in_memory_any_history_is_a_dictionarys(steps: list[tuple[Any, ...]]) -> None:
    """Whatever was put and deleted in whatever order, everybody who is left is read once, with the latest time."""
    await behaves_like_a_dictionary(await Stores(None).new(), steps)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_on_a_server_any_history_is_a_dictionarys(tables: Stores, steps: list[tuple[Any, ...]]) -> None:
    """The same, whoever plays DynamoDB."""
    await behaves_like_a_dictionary(await tables.new(), steps)


# ── what rows say ───────────────────────────────────────────────────────────────────────────────


async def test_a_row_says_what_was_written(stores: Stores) -> None:
    """By any way of reading it: a segment, a partition, and a look at it alone."""
    store = await stores.new(shards=4)
    row = Row(
        "a=",
        "me",
        1_700_000_000_000,
        1_900_000_000,
        "sub|7",
        1_800_000_000,
        frozenset({"acme", "*"}),
        '{"kind":["x"]}',
        "array",
    )
    await store.put(row)
    access = Access(frozenset({"acme", "*"}), (("kind", frozenset({"x"})),))
    expected = Client("a=", 1_700_000_000_000, 0, 1_800_000_000, access, frames=True)
    assert await clients_of(store) == [expected]
    assert await clients_of(store, partition(shard_of("a=", 4), 4)) == [expected]
    assert await store.look_up(["a="]) == {"a=": expected}


async def test_a_look_up_finds_the_rows_there_are(stores: Stores) -> None:
    """More than one call takes, of any id; the others are missing, and nothing is asked for nobody."""
    store = await stores.new(*IDS, *(f"{at}=" for at in range(120)))
    asked = [*IDS, *(f"{at}=" for at in range(100, 240))]
    found = await store.look_up(asked)
    assert sorted(found) == sorted([*IDS, *(f"{at}=" for at in range(100, 120))])
    assert all(client == Client(name) for name, client in found.items())
    assert await store.look_up([]) == {}
    assert await store.look_up(["x" * 2_049, "", "x" * 1_000, "é" * 1_025]) == {"x" * 1_000: Client("x" * 1_000)}


async def test_a_refresh_moves_the_end_and_the_tenants(stores: Stores) -> None:
    """And nothing else; the row is seen so at once by whoever looks it up."""
    store = await stores.new()
    await store.put(Row("a=", "me", 5, 6, "sub", 100, frozenset({"acme"}), "{}"))
    await store.refresh("a=", "sub", 200, frozenset({"globex"}))
    assert await store.look_up(["a="]) == {"a=": Client("a=", 5, 0, 200, Access(frozenset({"globex"})))}
    await store.refresh("a=", "sub", 250, None)
    assert await store.look_up(["a="]) == {"a=": Client("a=", 5, 0, 250, Access(frozenset({"globex"})))}
    await store.refresh("a=", "sub", 300, frozenset())
    assert await store.look_up(["a="]) == {"a=": Client("a=", 5, 0, 300, Access())}


async def test_a_refresh_is_for_the_same_principal_and_makes_no_row(stores: Stores) -> None:
    """Another's, nobody's, or one that $disconnect deleted meanwhile: nothing is written."""
    store = await stores.new("nobody=")
    await store.put(Row("a=", "me", 5, 6, "sub", 100))
    for connection_id, principal in (("a=", "other"), ("a=", ""), ("nobody=", "sub"), ("gone=", "sub")):
        with pytest.raises(ConditionFailed):
            await store.refresh(connection_id, principal, 200, frozenset({"acme"}))
    assert await store.look_up(["a=", "nobody=", "gone="]) == {
        "a=": Client("a=", 5, 0, 100),
        "nobody=": Client("nobody="),
    }
