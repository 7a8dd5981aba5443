"""Whatever AWS answers, a caller gets a value or the documented error, and nothing counts as sent without proof."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from aws_server import Answering, aws_server, content
from hypothesis import example, given
from hypothesis import strategies as st

from async_relay.aws import Aws, DynamoStore, SqsQueue
from async_relay.delivery.protocols import Entry
from async_relay.errors import QueueUnavailable, SettingsError, StoreUnavailable, Unavailable
from async_relay.testing import Answer
from async_relay.wire.jobs import Client, Shard
from async_relay.wire.rows import Row

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/1/retry"
ENTRIES = [Entry(f"body {at}") for at in range(3)]
WORDS = [
    "Items",
    "Count",
    "LastEvaluatedKey",
    "connectionId",
    "createdAt",
    "S",
    "N",
    "Id",
    "Successful",
    "Failed",
    "UnprocessedItems",
    "connections",
    "DeleteRequest",
    "Key",
    "Table",
    "AttributeDefinitions",
    "KeySchema",
    "GlobalSecondaryIndexes",
    "IndexName",
    "Projection",
    "by-shard",
    "0",
    "1",
]


def scalars() -> st.SearchStrategy[Any]:
    return st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800")


def odd_values() -> st.SearchStrategy[Any]:
    """JSON of any shape, of the words an answer is made of."""
    words = st.sampled_from(WORDS)
    return st.recursive(
        scalars() | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
        max_leaves=12,
    )


def page(*items: Any, **more: Any) -> dict[str, Any]:
    return {"Items": list(items), "Count": len(items), **more}


ROW = {"connectionId": {"S": "a="}}


async def outcome(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except (StoreUnavailable, QueueUnavailable, SettingsError) as error:
        return error


# ── the table ───────────────────────────────────────────────────────────────────────────────────


@given(odd_values())
@example({})
@example(page({}))
@example(page({"connectionId": {"S": 7}}))
@example(page({"connectionId": {"S": "\ud800"}}))
@example(page(ROW, LastEvaluatedKey=7))
@example(page(ROW, LastEvaluatedKey=[]))
@example(page(ROW, LastEvaluatedKey={"connectionId": 7}))
@example(page(ROW, LastEvaluatedKey={"connectionId": {"S": [[]]}}))
@example(page({**ROW, "createdAt": {"N": float("inf")}}))
@example({"Items": [ROW], "Count": "1"})
def test_an_odd_page_is_a_page_or_an_unavailable_table(answer: Any) -> None:
    """Of any answer come text ids and a cursor that is the key of a row, or ``StoreUnavailable``."""

    async def read() -> None:
        store = DynamoStore(Answering(lambda _request: answer), "connections")
        found = await outcome(store.read(Shard(), None))
        if not isinstance(found, StoreUnavailable):
            assert all(client.connection_id.encode() is not None for client in found.clients)
            assert all(client.created_at is None or type(client.created_at) is int for client in found.clients)
            assert found.cursor is None or (isinstance(found.cursor, dict) and found.cursor)
        one_answer = iter([answer])
        counted = await outcome(
            DynamoStore(Answering(lambda _request: next(one_answer)), "connections").count(1)
            if not (isinstance(answer, dict) and answer.get("LastEvaluatedKey"))
            else store.count(0)
        )
        assert isinstance(counted, int | StoreUnavailable)

    asyncio.run(read())


@given(odd_values())
@example({"UnprocessedItems": []})
@example({"UnprocessedItems": {"connections": [{"PutRequest": {}}]}})
@example({"UnprocessedItems": {"connections": 7}})
@example({"UnprocessedItems": None})
def test_an_odd_answer_to_a_write_is_a_success_or_an_unavailable_table(answer: Any) -> None:
    """put, and delete of one row and of two, return nothing or raise ``StoreUnavailable``."""

    async def write() -> None:
        store = DynamoStore(Answering(lambda _request: answer), "connections")
        for call in (store.put(Row("a=", "b", 1, 2)), store.delete(["a="]), store.delete(["a=", "b="])):
            assert isinstance(await outcome(call), StoreUnavailable | None)

    asyncio.run(write())


@given(odd_values() | st.fixed_dictionaries({"Table": odd_values()}))
@example({})
@example({"Table": {"AttributeDefinitions": [], "GlobalSecondaryIndexes": [{}]}})
def test_an_odd_description_is_a_sentence(answer: Any) -> None:
    """A table described in no way we know opens, is unavailable, or has not the index it must have."""

    async def describe() -> None:
        opening = DynamoStore.open(Answering(lambda _request: answer), "connections", index="by-shard")
        assert isinstance(await outcome(opening), DynamoStore | StoreUnavailable | SettingsError)

    asyncio.run(describe())


@pytest.mark.parametrize("error", [RecursionError(), KeyError("x"), OSError(24, "Too many open files"), ValueError()])
async def test_whatever_a_service_raises_the_table_is_unavailable_and_the_log_says_why(error: Exception) -> None:
    """A foreign exception comes out as the documented one, for the table and for the queue."""

    def raising(_request: Any) -> Any:
        raise error

    store = DynamoStore(Answering(raising), "connections")
    for call in (store.read(Shard(), None), store.count(1), store.put(Row("a", "b", 1, 2)), store.delete(["a", "b"])):
        with pytest.raises(StoreUnavailable, match=r"table connections cannot be (read|written)") as caught:
            await call
        assert caught.value.__cause__ is error
    with pytest.raises(QueueUnavailable) as refused:
        await SqsQueue(Answering(raising), QUEUE_URL).send(ENTRIES)
    assert refused.value.failed == {0, 1, 2}


async def test_no_row_is_deleted_twice_in_one_call() -> None:
    """BatchWriteItem refuses all rows where two are the same: each is named once, in all batches together."""
    service = Answering(lambda _request: {"UnprocessedItems": {}})
    await DynamoStore(service, "connections").delete([f"{number % 40}" for number in range(120)])
    asked = [
        each["DeleteRequest"]["Key"]["connectionId"]["S"]
        for request in service.requests
        for each in request["RequestItems"]["connections"]
    ]
    assert asked == [f"{number}" for number in range(40)]
    await DynamoStore(service, "connections").delete(["a=", "a="])
    assert service.requests[-1] == {"TableName": "connections", "Key": {"connectionId": {"S": "a="}}}


async def test_an_empty_last_key_is_the_end() -> None:
    """A page whose key of the next is empty is the last one, and not the first again."""
    store = DynamoStore(Answering(lambda _request: page(ROW, LastEvaluatedKey={})), "connections")
    assert (await store.read(Shard(), None)).cursor is None
    assert await store.count(5) == 1


# ── over a socket, and through the SDK ──────────────────────────────────────────────────────────

DEEP = Answer(body=b'{"Items": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")


async def test_an_answer_nested_too_deep_is_left_to_the_sdk_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own sockets give it up without waiting for the timeout, and the SDK has the next word."""
    async with aws_server(DEEP, content(page(ROW))) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        aws = Aws()
        try:
            async with asyncio.timeout(4):
                found = await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
            assert found.clients == [Client("a=")]
            assert server.agents == ["own sockets", "sdk"]
        finally:
            await aws.close()


@pytest.mark.parametrize(
    "answer",
    [Answer(400, body=b"[]"), Answer(400, body=b'"no"'), Answer(body=b"[]"), Answer(body=b'{"Items": 7}'), DEEP],
    ids=["400 of a list", "400 of a text", "a list", "no list of items", "deep"],
)
async def test_what_the_sdk_cannot_read_is_an_unavailable_table(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer botocore's parser falls over is the documented error too."""
    async with aws_server(answer) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        aws = Aws(own_sockets=False)
        try:
            with pytest.raises(StoreUnavailable):
                await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
        finally:
            await aws.close()


@pytest.mark.parametrize("own_sockets", [True, False])
@pytest.mark.parametrize("body", [b"<p>Sign in</p>", b""])
async def test_a_page_of_something_in_between_is_an_unavailable_table(
    body: bytes, own_sockets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy's page with status 200 says neither that a row is written, nor that one is deleted, nor what there is."""
    async with aws_server(Answer(body=body)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        aws = Aws(own_sockets=own_sockets)
        store = DynamoStore(aws.service("dynamodb"), "connections")
        try:
            for call in (store.put(Row("a=", "b", 1, 2)), store.delete(["a="]), store.read(Shard(), None)):
                with pytest.raises(StoreUnavailable, match="is none of DynamoDB's, but a page of something in between"):
                    await call
        finally:
            await aws.close()


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ImportError("no aiobotocore"), SyntaxError()])
async def test_an_sdk_that_cannot_be_loaded_is_an_unavailable_table(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an import raises is the documented error, and the next call tries again."""

    def fail(_name: str) -> Any:
        raise error

    aws = Aws(own_sockets=False)
    with monkeypatch.context() as broken:
        broken.setattr("async_relay.aws.session.import_module", fail)
        with pytest.raises(StoreUnavailable, match=r"cannot be read: the AWS SDK cannot be loaded"):
            await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
        with pytest.raises(Unavailable):
            await aws.load("management_api")
    assert (await aws.credentials()).access_key == "AKIDEXAMPLE"
    assert (await aws.sdk()).region == "eu-west-1"
    await aws.close()


# ── the queue ───────────────────────────────────────────────────────────────────────────────────


def sent(*names: Any, **more: Any) -> dict[str, Any]:
    return {"Successful": [{"Id": name, "MessageId": "m"} for name in names], **more}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (sent("0", "1", "2"), set()),
        ({}, {0, 1, 2}),
        (sent("1"), {0, 2}),
        (sent("0", "1", "2", Failed=[{"Id": "1", "Code": "InternalError"}]), {1}),
        (sent("0", 1, None), {1, 2}),
        (sent("0", "1", "2", "3", "x"), set()),
        ({"Successful": "012"}, {0, 1, 2}),
        ({"Successful": {"Id": "0"}}, {0, 1, 2}),
        ({"Successful": ["0", {"Id": "1"}]}, {0, 2}),
        ({"Failed": None}, {0, 1, 2}),
        (None, {0, 1, 2}),
        ([], {0, 1, 2}),
    ],
)
async def test_only_what_a_queue_names_as_sent_is_sent(answer: Any, failed: set[int]) -> None:
    """An entry the answer passes over has failed, and its sender hears of it."""
    found = await outcome(SqsQueue(Answering(lambda _request: answer), QUEUE_URL).send(ENTRIES))
    assert (found.failed if found else frozenset()) == failed


@given(odd_values())
def test_an_odd_answer_of_a_queue_is_a_success_or_the_positions_that_failed(answer: Any) -> None:
    """Whatever a queue answers, ``send`` returns or raises ``QueueUnavailable`` with positions there are."""

    async def send() -> None:
        found = await outcome(SqsQueue(Answering(lambda _request: answer), QUEUE_URL).send(ENTRIES))
        assert found is None or (isinstance(found, QueueUnavailable) and {0} <= found.failed | {0} <= {0, 1, 2})

    asyncio.run(send())


async def test_a_batch_that_goes_wrong_takes_no_other_with_it() -> None:
    """Of three batches the middle one raises: its ten entries failed, the others are sent."""
    turns = iter([True, False, True])

    def answer(request: Any) -> Any:
        if not next(turns):
            raise AttributeError("'list' object has no attribute 'get'")
        return sent(*(entry["Id"] for entry in request["Entries"]))

    with pytest.raises(QueueUnavailable, match="AttributeError") as caught:
        await SqsQueue(Answering(answer), QUEUE_URL).send([Entry(f"{at}") for at in range(25)])
    assert caught.value.failed == frozenset(range(10, 20))
