"""The incident table in DynamoDB: what it is asked, and what its answers come to."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aws_server import Answering

from async_relay.aws import Aws, DynamoIncidents
from async_relay.aws.session import Service
from async_relay.errors import SettingsError, StoreUnavailable, Unavailable

KEY = {"incident_id": {"S": "i1"}}


def described(*, sort: str = "created_at", projection: str = "ALL", name: str = "newest") -> Any:
    keys = [{"AttributeName": "all", "KeyType": "HASH"}] + (
        [{"AttributeName": sort, "KeyType": "RANGE"}] if sort else []
    )
    index = {"IndexName": name, "KeySchema": keys, "Projection": {"ProjectionType": projection}}
    return {"Table": {"GlobalSecondaryIndexes": [index]}}


class Scripted(Answering):
    """DynamoDB by a function of the operation and the request; ``operations`` are what was called."""

    def __init__(self, answer: Callable[[str, Any], Any]) -> None:
        super().__init__(lambda _request: None)
        self.operations: list[str] = []
        self._by_operation = answer

    async def call_each(self, operation: str, requests: Any) -> list[Any]:
        self.requests += requests
        self.operations += [operation] * len(requests)
        return [self._by_operation(operation, request) for request in requests]


async def test_without_an_index_the_table_is_scanned() -> None:
    """Consistently, page by page, and nothing is described."""
    table = Scripted(lambda _operation, _request: {"Items": [KEY], "LastEvaluatedKey": KEY})
    reader = await DynamoIncidents.open(table, "incidents")
    page = await reader.read(None)
    assert (page.items, page.cursor) == ([{"incident_id": "i1"}], KEY)
    await reader.read(page.cursor)
    assert table.operations == ["Scan", "Scan"]
    assert table.requests == [
        {"TableName": "incidents", "ConsistentRead": True},
        {"TableName": "incidents", "ConsistentRead": True, "ExclusiveStartKey": KEY},
    ]


@pytest.mark.parametrize("end", [{}, {"LastEvaluatedKey": None}, {"LastEvaluatedKey": {}}])
async def test_a_page_without_a_key_is_the_last(end: Any) -> None:
    reader = DynamoIncidents(Scripted(lambda *_: {"Items": [], **end}), "incidents")
    assert await reader.read(None) == ([], None)


async def test_an_item_nobody_can_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    items = [KEY, {"incident_id": {"S": "i2"}, "s3cret": {"X": "s3cret"}}]
    reader = DynamoIncidents(Scripted(lambda *_: {"Items": items}), "incidents")
    assert (await reader.read(None)).items == [{"incident_id": "i1"}]
    assert "left out" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("answer", [{}, {"Items": None}, {"Items": [5]}, None])
async def test_an_answer_nobody_can_read_is_none(answer: Any) -> None:
    with pytest.raises(StoreUnavailable, match="incidents cannot be read"):
        await DynamoIncidents(Scripted(lambda *_: answer), "incidents").read(None)


async def test_a_table_that_does_not_answer_is_unavailable() -> None:
    table = Scripted(lambda *_: Unavailable("no answer"))
    with pytest.raises(StoreUnavailable, match="incidents cannot be read: no answer"):
        await DynamoIncidents(table, "incidents").read(None)
    with pytest.raises(StoreUnavailable, match="incidents cannot be described: no answer"):
        await DynamoIncidents.open(table, "incidents", "newest")
    with pytest.raises(StoreUnavailable, match="incidents cannot be read: no answer"):
        await DynamoIncidents(table, "incidents", "newest", "all").read(None)


# ── an index ────────────────────────────────────────────────────────────────────────────────────


def by_index(*partitions: str) -> Scripted:
    """A table whose index has these partitions, each in a segment of its own."""

    def answer(operation: str, request: Any) -> Any:
        if operation == "DescribeTable":
            return described()
        if operation == "Scan":
            return {"Items": [{"all": {"S": each}} for each in partitions[request["Segment"] :][:1]]}
        return {"Items": [KEY]}

    return Scripted(answer)


async def test_an_index_is_asked_for_its_newest_items() -> None:
    """Described once, and its partition looked for once."""
    table = by_index("1")
    reader = await DynamoIncidents.open(table, "incidents", "newest")
    assert (await reader.read(None)).items == [{"incident_id": "i1"}]
    await reader.read(KEY)
    assert table.operations == ["DescribeTable", *["Scan"] * 8, "Query", "Query"]
    assert table.requests[-1] == {
        "TableName": "incidents",
        "IndexName": "newest",
        "ScanIndexForward": False,
        "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": {"#key": "all"},
        "ExpressionAttributeValues": {":key": {"S": "1"}},
        "ExclusiveStartKey": KEY,
    }


async def test_an_empty_index_is_looked_at_again() -> None:
    table = by_index()
    reader = await DynamoIncidents.open(table, "incidents", "newest")
    assert await reader.read(None) == ((), None)
    assert await reader.read(None) == ((), None)
    assert table.operations == ["DescribeTable", *["Scan"] * 16]


async def test_an_index_of_several_partitions_has_no_order() -> None:
    reader = await DynamoIncidents.open(by_index("NEW", "DONE"), "incidents", "newest")
    with pytest.raises(SettingsError, match="INCIDENT_INDEX is 'newest'; its partition key all must be the same value"):
        await reader.read(None)


@pytest.mark.parametrize(
    ("description", "sentence"),
    [
        (described(sort="updated_at"), "its sort key must be created_at"),
        (described(sort=""), "its sort key must be created_at"),
        (described(projection="KEYS_ONLY"), "it must project all attributes"),
        (described(name="other"), "the table incidents has no such index"),
        ({"Table": {}}, "the table incidents has no such index"),
    ],
)
async def test_a_wrong_index_is_refused_in_one_sentence(description: Any, sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"INCIDENT_INDEX is 'newest'; {sentence}"):
        await DynamoIncidents.open(Scripted(lambda *_: description), "incidents", "newest")


# ── on tables ───────────────────────────────────────────────────────────────────────────────────


def new_incidents(url: str, count: int) -> str:
    """A table with an index ``newest`` and so many items, one a second; its name."""
    client = boto3.client("dynamodb", endpoint_url=url)
    name = f"incidents-{uuid4()}"
    types = {"incident_id": "S", "all": "S", "created_at": "N"}
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": each} for key, each in types.items()],
        KeySchema=[{"AttributeName": "incident_id", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "newest",
                "KeySchema": [
                    {"AttributeName": "all", "KeyType": "HASH"},
                    {"AttributeName": "created_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    with boto3.resource("dynamodb", endpoint_url=url).Table(name).batch_writer() as writer:
        for number in range(count):
            writer.put_item(Item={"incident_id": f"i{number}", "all": "1", "created_at": number, "text": "x" * 20_000})
    return name


@pytest.mark.parametrize("server", ["moto_url", "dynalite_url"])
@pytest.mark.parametrize("index", [None, "newest"])
async def test_every_item_is_read_once(
    server: str, index: str | None, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages of a megabyte; by the index the newest first."""
    url = request.getfixturevalue(server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    table = new_incidents(url, 120)
    aws = Aws()
    try:
        service: Service = aws.service("dynamodb")
        reader = await DynamoIncidents.open(service, table, index)
        found, cursor = [], None
        for _ in itertools.count():
            page = await reader.read(cursor)
            found += [each["created_at"] for each in page.items]
            cursor = page.cursor
            if cursor is None:
                break
    finally:
        await aws.close()
    assert sorted(found) == list(range(120))
    if index is not None:
        assert found == list(range(119, -1, -1))
