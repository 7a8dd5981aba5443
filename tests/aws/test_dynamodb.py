"""What the table is asked, request by request, and what its answers come to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from async_relay.aws import DynamoStore
from async_relay.errors import SettingsError, StoreUnavailable, Unavailable
from async_relay.wire.jobs import Client, Shard, ShardKind, shard_of
from async_relay.wire.rows import Row

KEY = {"connectionId": {"S": "b="}}
INDEX_KEY = {**KEY, "shard": {"N": "3"}}
#: What decides about a client.
DECIDES = "connectionId, createdAt, expiresAt, tenants, interest, frames"
PARTITION = Shard(3, 8, ShardKind.PARTITION)


class Table:
    """Answers by script, the last for all that follow; ``asked`` are the operations and requests."""

    def __init__(self, *answers: Any) -> None:
        self.asked: list[tuple[str, Any]] = []
        self._answers = list(answers) or [{"Items": [], "Count": 0}]

    async def call(self, operation: str, request: Any) -> Any:
        (answer,) = await self.call_each(operation, [request])
        return answer

    async def call_each(self, operation: str, requests: Sequence[Any]) -> list[Any]:
        found = []
        for request in requests:
            self.asked.append((operation, request))
            found.append(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
        return found


def store(table: Any, **options: Any) -> DynamoStore:
    return DynamoStore(table, "connections", **options)


# ── reading ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("items", [[], [{"connectionId": {"S": "a="}, "createdAt": {"N": "17"}}]])
async def test_a_page_goes_on_where_the_table_says_so(items: list[Any]) -> None:
    """An empty page with a key is as usual as a full one: a filter or a large row makes it."""
    found = await store(Table({"Items": items, "LastEvaluatedKey": KEY})).read(Shard(), None)
    assert found.cursor == KEY
    assert found.clients == ([Client("a=", 17)] if items else [])


@pytest.mark.parametrize(
    ("options", "shard", "operation", "expected"),
    [
        ({}, Shard(), "Scan", {"ConsistentRead": True}),
        ({}, Shard(2, 5), "Scan", {"ConsistentRead": True, "Segment": 2, "TotalSegments": 5}),
        ({"index": "by-shard"}, Shard(2, 5), "Scan", {"ConsistentRead": True, "Segment": 2, "TotalSegments": 5}),
        ({}, PARTITION, "Scan", {"ConsistentRead": True}),
        ({"index": "by-shard"}, PARTITION, "Scan", {"ConsistentRead": True}),
        ({"index": "by-shard", "sweep": False, "shards": 9}, PARTITION, "Scan", {"ConsistentRead": True}),
        ({"sweep": False}, PARTITION, "Scan", {"ConsistentRead": True}),
        (
            {"index": "by-shard", "sweep": False},
            PARTITION,
            "Query",
            {
                "IndexName": "by-shard",
                "KeyConditionExpression": "#shard = :shard",
                "ExpressionAttributeNames": {"#shard": "shard"},
                "ExpressionAttributeValues": {":shard": {"N": "3"}},
            },
        ),
    ],
)
async def test_a_shard_is_asked_for_in_one_way(
    options: dict[str, Any], shard: Shard, operation: str, expected: dict[str, Any]
) -> None:
    """A Query where every row of the table is in the index as the shard counts them; else a consistent Scan."""
    table = Table()
    await store(table, **options).read(shard, None)
    always = {"TableName": "connections", "ProjectionExpression": DECIDES}
    assert table.asked == [(operation, always | expected)]


@pytest.mark.parametrize(
    ("sweep", "cursor", "starts"),
    [(True, KEY, True), (True, INDEX_KEY, False), (False, KEY, False), (False, INDEX_KEY, True)],
)
async def test_a_cursor_starts_the_kind_of_read_it_is_from(*, sweep: bool, cursor: Any, starts: bool) -> None:
    """A key of the index begins a Query, the table's a Scan; any other begins again."""
    table = Table()
    await store(table, index="by-shard", sweep=sweep).read(PARTITION, cursor)
    ((_, request),) = table.asked
    assert request.get("ExclusiveStartKey") == (cursor if starts else None)


async def test_a_count_goes_on_page_by_page() -> None:
    """Pages add up, each begins after the last, and none is read once there are enough."""
    more = {"Count": 3, "LastEvaluatedKey": KEY}
    table = Table(more, more, more)
    assert await store(table).count(8) == 9
    assert [(request["Limit"], request.get("ExclusiveStartKey")) for _, request in table.asked] == [
        (8, None),
        (8, KEY),
        (8, KEY),
    ]
    assert await store(Table(more, {"Count": 1})).count(8) == 4


@pytest.mark.parametrize("count", [True, "1", -1, 1.5, None])
async def test_a_count_is_a_number_of_rows(count: Any) -> None:
    """Anything else is a table that does not answer, since fan-out is decided by it."""
    with pytest.raises(StoreUnavailable, match="Count is not a number of rows"):
        await store(Table({"Count": count})).count(8)


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"index": "by-shard"}, {"index": "by-shard", "shards": 1_000}])
async def test_a_row_has_its_shard_where_there_is_an_index(options: dict[str, Any]) -> None:
    """Milliseconds, the ttl in seconds, the client, and the partition of as many as are set."""
    table = Table({})
    await store(table, **options).put(Row("a=", "someone", 1_700_000_000_000, 1_700_086_400))
    ((operation, request),) = table.asked
    assert (operation, request["TableName"]) == ("PutItem", "connections")
    shard = {"shard": {"N": str(shard_of("a=", options.get("shards", 8)))}} if options else {}
    assert request["Item"] == {
        "connectionId": {"S": "a="},
        "clientId": {"S": "someone"},
        "createdAt": {"N": "1700000000000"},
        "ttl": {"N": "1700086400"},
        **shard,
    }


async def test_tenants_are_written_one_by_one() -> None:
    """A set of text, at connect and at refresh: as one text they would be one tenant that nobody has."""
    both, typed = frozenset({"globex", "acme"}), {"SS": ["acme", "globex"]}
    table = Table({}, {})
    await store(table).put(Row("a=", "someone", 5, 6, "sub", 100, both))
    await store(table).refresh("a=", "sub", 200, both)
    put, refresh = (request for _, request in table.asked)
    assert put["Item"]["tenants"] == typed
    assert refresh["ExpressionAttributeValues"][":tenants"] == typed


def rows(request: Any) -> list[str]:
    return [each["DeleteRequest"]["Key"]["connectionId"]["S"] for each in request["RequestItems"]["connections"]]


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (2, [2]), (25, [25]), (26, [25, 1]), (60, [25, 25, 10])])
async def test_a_batch_has_as_many_rows_as_dynamodb_takes(count: int, sizes: list[int]) -> None:
    """Twenty-five, and every row once."""
    table = Table({})
    await store(table).delete([f"{at}" for at in range(count)])
    assert [len(rows(request)) for _, request in table.asked] == sizes
    assert [row for _, request in table.asked for row in rows(request)] == [f"{at}" for at in range(count)]


async def test_rows_left_undone_by_any_batch_are_asked_for_again() -> None:
    """Of three batches the second and the third leave some: these and no others, and then it is done."""
    left = [
        {"UnprocessedItems": {"connections": [{"DeleteRequest": {"Key": {"connectionId": {"S": name}}}}]}}
        for name in ("30", "55")
    ]
    table = Table({}, *left, {})
    await store(table).delete([f"{at}" for at in range(60)])
    assert rows(table.asked[-1][1]) == ["30", "55"]
    assert len(table.asked) == 4


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_one_batch_that_fails_is_enough(at: int) -> None:
    """Whichever of three it is, the rows do not count as deleted."""
    answers: list[Any] = [{}, {}, {}, {}]
    answers[at] = Unavailable("throttled")
    with pytest.raises(StoreUnavailable, match="cannot be written: throttled"):
        await store(Table(*answers)).delete([f"{each}" for each in range(60)])


def looked_up(request: Any) -> list[str]:
    return [key["connectionId"]["S"] for key in request["RequestItems"]["connections"]["Keys"]]


def found(*names: str, left: Sequence[str] = ()) -> dict[str, Any]:
    keys = [{"connectionId": {"S": name}} for name in left]
    rows = [{"connectionId": {"S": name}} for name in names]
    return {"Responses": {"connections": rows}, "UnprocessedKeys": {"connections": {"Keys": keys}} if left else {}}


async def test_rows_are_looked_up_consistently_a_hundred_at_a_time() -> None:
    """As many as DynamoDB takes in a call; those it leaves out are asked for again."""
    table = Table(found("0", left=["7", "8"]), found("100"), found("7", "8"))
    assert sorted(await store(table).look_up([f"{at}" for at in range(101)])) == ["0", "100", "7", "8"]
    assert [len(looked_up(request)) for _, request in table.asked] == [100, 1, 2]
    assert {operation for operation, _ in table.asked} == {"BatchGetItem"}
    (asked,) = {json.dumps(dict(request["RequestItems"]["connections"], Keys=None)) for _, request in table.asked}
    assert json.loads(asked) == {"Keys": None, "ProjectionExpression": DECIDES, "ConsistentRead": True}


async def test_a_table_that_leaves_rows_out_again_and_again_is_unavailable() -> None:
    """Rows that were not read do not count as missing."""
    table = Table(*[found("0", left=["7"])] * 9)
    with pytest.raises(StoreUnavailable, match="too busy to read rows"):
        await store(table).look_up(["0", "7"])
    assert len(table.asked) == 3


@pytest.mark.parametrize(
    "answer", [{}, {"Responses": 5}, {"Responses": {"connections": [{}]}}, {"Responses": {"c": None}}]
)
async def test_a_look_up_answered_in_another_shape_is_no_answer(answer: Any) -> None:
    """Nobody is taken for a client without a row."""
    with pytest.raises(StoreUnavailable):
        await store(Table(answer)).look_up(["0"])


# ── the index ───────────────────────────────────────────────────────────────────────────────────


def described(key: str = "shard", kind: str = "N", **projection: Any) -> dict[str, Any]:
    index = {
        "IndexName": "by-shard",
        "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}, {"AttributeName": "other", "KeyType": "RANGE"}],
        "Projection": projection or {"ProjectionType": "ALL"},
    }
    definitions = [{"AttributeName": key, "AttributeType": kind}, {"AttributeName": "other", "AttributeType": "S"}]
    return {"Table": {"AttributeDefinitions": definitions, "GlobalSecondaryIndexes": [{"IndexName": "x"}, index]}}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (described(), ""),
        (
            described(
                ProjectionType="INCLUDE", NonKeyAttributes=["createdAt", "expiresAt", "tenants", "interest", "frames"]
            ),
            "",
        ),
        (described(ProjectionType="INCLUDE", NonKeyAttributes=["createdAt"]), "expiresAt, tenants, interest, frames;"),
        (described(ProjectionType="INCLUDE", NonKeyAttributes=["ttl"]), "must project createdAt"),
        (described(ProjectionType="KEYS_ONLY"), "must project createdAt"),
        (described(kind="S"), "must be the number shard"),
        (described(key="part"), "must be the number shard, not part"),
        ({"Table": {"AttributeDefinitions": []}}, "has no such index"),
    ],
)
async def test_an_index_is_checked_when_the_store_is_opened(answer: Any, problem: str) -> None:
    """Its partition key is the number ``shard``, and it has the time of a row: else it is a setting to mend."""
    table: Any = Table(answer)
    opening = DynamoStore.open(table, "connections", index="by-shard")
    if problem:
        with pytest.raises(SettingsError, match=problem):
            await opening
    else:
        assert isinstance(await opening, DynamoStore)
