"""The connection stores and the queues, in DynamoDB, SQS and in memory, behave the same."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aws_server import Answering, aws_server, content
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from deployment import new_table

from async_relay.aws import Aws, DynamoStore, SqsQueue
from async_relay.aws.calls import Call, JsonRequests
from async_relay.delivery.protocols import ConnectionStore, Entry
from async_relay.errors import QueueUnavailable, StoreUnavailable, Unavailable
from async_relay.http.opening import Endpoint
from async_relay.http.sigv4 import Credentials
from async_relay.testing import Answer, Cut, Garbage, Gateway, Half, Hang, Tls
from async_relay.testing.memory import MemoryStore
from async_relay.testing.scripts import Script
from async_relay.wire.jobs import Client, Shard, ShardKind, shard_of
from async_relay.wire.rows import Row

MakeStore = Callable[[], Awaitable[ConnectionStore]]


@asynccontextmanager
async def opened(url: str, monkeypatch: pytest.MonkeyPatch, *, own_sockets: bool = True) -> AsyncIterator[Aws]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    aws = Aws(own_sockets=own_sockets)
    try:
        yield aws
    finally:
        await aws.close()


@pytest.fixture(params=["own sockets", "sdk"])
async def aws(request: pytest.FixtureRequest, moto_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    async with opened(moto_url, monkeypatch, own_sockets=request.param == "own sockets") as aws:
        yield aws


@pytest.fixture
async def own_sockets(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    async with opened(moto_url, monkeypatch) as aws:
        yield aws


@pytest.fixture(params=["memory", "dynamodb"])
def make_store(request: pytest.FixtureRequest, aws: Aws, moto_url: str) -> MakeStore:
    async def make() -> ConnectionStore:
        if request.param == "memory":
            return MemoryStore(page_size=7)
        return await DynamoStore.open(aws.service("dynamodb"), new_table(moto_url))

    return make


async def read_all(store: ConnectionStore, shard: Shard | None = None) -> list[Client]:
    clients: list[Client] = []
    page = await store.read(shard or Shard(), None)
    clients += page.clients
    while page.cursor is not None:
        page = await store.read(shard or Shard(), json.loads(json.dumps(page.cursor)))
        clients += page.clients
    return clients


async def test_every_row_is_read_once_with_its_time(make_store: MakeStore) -> None:
    """What was put is read, page after page, and a cursor survives JSON."""
    store = await make_store()
    for number in range(20):
        await store.put(Row(f"id-{number}=", "someone", 1_700_000_000_000 + number, 1_700_086_400))
    clients = await read_all(store)
    assert sorted(clients) == sorted(Client(f"id-{n}=", 1_700_000_000_000 + n) for n in range(20))


async def test_shards_are_disjoint_and_complete(make_store: MakeStore) -> None:
    """Every row is in exactly one shard."""
    store = await make_store()
    names = {f"id-{number}=" for number in range(60)}
    for name in names:
        await store.put(Row(name, "unknown", 1, 2))
    shards = [await read_all(store, Shard(index, 4)) for index in range(4)]
    found = [client.connection_id for shard in shards for client in shard]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("count", [1, 2, 60])
async def test_deleted_rows_are_gone_and_others_stay(make_store: MakeStore, count: int) -> None:
    """One row or many are deleted, twice over without harm."""
    store = await make_store()
    for number in range(62):
        await store.put(Row(f"id-{number}", "unknown", 1, 2))
    doomed = [f"id-{number}" for number in range(count)]
    await store.delete(doomed)
    await store.delete(doomed)
    assert {client.connection_id for client in await read_all(store)} == {f"id-{n}" for n in range(count, 62)}


async def test_a_row_of_another_function_counts_as_old(aws: Aws, moto_url: str) -> None:
    """A row with the key alone, or with a time nobody can read, has no time."""
    table = new_table(moto_url)
    rows: list[dict[str, Any]] = [{}, {"createdAt": {"S": "yesterday"}}, {"createdAt": {"N": "12.5"}}]
    for at, row in enumerate(rows):
        boto3.client("dynamodb", endpoint_url=moto_url).put_item(
            TableName=table, Item={"connectionId": {"S": f"{at}"}, **row}
        )
    store = await DynamoStore.open(aws.service("dynamodb"), table)
    assert sorted(await read_all(store)) == [Client("0"), Client("1"), Client("2")]


class Recorded:
    """Answers every call with no rows, and keeps what was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    async def call(self, operation: str, request: Any) -> Any:
        self.calls.append((operation, request))
        return {"Items": [], "Count": 0}


@pytest.mark.parametrize("index", [None, "by-shard"])
async def test_a_table_is_read_consistently(index: str | None) -> None:
    """A row written a moment ago is in a segment, and in a partition that is picked out of the table."""
    dynamodb: Any = Recorded()
    store = DynamoStore(dynamodb, "connections", index=index)
    await store.read(Shard(), None)
    await store.read(Shard(3, 8), None)
    await DynamoStore(dynamodb, "connections").read(Shard(3, 8, ShardKind.PARTITION), None)
    assert [operation for operation, _ in dynamodb.calls] == ["Scan"] * 3
    assert all(request["ConsistentRead"] is True for _, request in dynamodb.calls)


@pytest.fixture
def indexed_table(moto_url: str) -> str:
    """Forty rows, each with the shard of eight it belongs to."""
    table = new_table(moto_url, index=True)
    rows = boto3.resource("dynamodb", endpoint_url=moto_url).Table(table)
    for number in range(40):
        name = f"id-{number}="
        rows.put_item(Item={"connectionId": name, "shard": shard_of(name, 8)})
    return table


@pytest.mark.parametrize(("index", "sweep"), [(None, True), ("by-shard", True), ("by-shard", False)])
async def test_a_partition_holds_the_clients_whose_ids_belong_to_it(
    aws: Aws, indexed_table: str, index: str | None, *, sweep: bool
) -> None:
    """With the index or, where it cannot be relied on, without: both ways find the same clients."""
    store = DynamoStore(aws.service("dynamodb"), indexed_table, index=index, sweep=sweep)
    for at in range(8):
        found = {client.connection_id for client in await read_all(store, Shard(at, 8, ShardKind.PARTITION))}
        assert found == {name for number in range(40) if shard_of(name := f"id-{number}=", 8) == at}


@pytest.mark.parametrize("sweep", [True, False])
async def test_a_job_for_partitions_of_before_a_backfill_finds_its_clients(
    aws: Aws, indexed_table: str, *, sweep: bool
) -> None:
    """Where the sweep is on, or rows are written for another number of partitions meanwhile, the id decides."""
    store = DynamoStore(aws.service("dynamodb"), indexed_table, index="by-shard", sweep=sweep)
    parts = [await read_all(store, Shard(at, 5, ShardKind.PARTITION)) for at in range(5)]
    assert sorted(client.connection_id for part in parts for client in part) == sorted(f"id-{n}=" for n in range(40))


@pytest.mark.parametrize(
    ("index", "shard", "cursor"),
    [
        ("by-shard", Shard(1, 8, ShardKind.PARTITION), {"connectionId": {"S": "id-1="}}),
        (None, Shard(1, 8, ShardKind.PARTITION), {"connectionId": {"S": "id-1="}, "shard": {"N": "1"}}),
        ("by-shard", Shard(), {"connectionId": {"S": "id-1="}, "shard": {"N": "1"}}),
        ("by-shard", Shard(1, 8), {"sweep": None}),
        (None, Shard(1, 8), {"sweep": {"connectionId": {"S": "id-1="}}}),
    ],
)
async def test_a_cursor_of_another_kind_of_read_begins_again(
    aws: Aws, indexed_table: str, index: str | None, shard: Shard, cursor: Any
) -> None:
    """A page key that means nothing here costs repeats and loses nobody."""
    store = DynamoStore(aws.service("dynamodb"), indexed_table, index=index, sweep=False)
    page = await store.read(shard, cursor)
    assert sorted(page.clients) == sorted(await read_all(store, shard))


async def test_over_four_megabytes_every_page_is_read(aws: Aws, moto_url: str) -> None:
    """2,500 rows that do not fit in four pages of a megabyte are all read."""
    table = new_table(moto_url)
    rows = boto3.resource("dynamodb", endpoint_url=moto_url).Table(table)
    with rows.batch_writer() as writer:
        for number in range(2_500):
            writer.put_item(Item={"connectionId": f"{number}", "note": "x" * 1_800})
    store = await DynamoStore.open(aws.service("dynamodb"), table)
    first = await store.read(Shard(), None)
    assert first.cursor is not None
    assert {client.connection_id for client in await read_all(store)} == {str(n) for n in range(2_500)}


async def test_a_missing_table_is_one_sentence(aws: Aws) -> None:
    """A table that is not there says so, by name."""
    store = await DynamoStore.open(aws.service("dynamodb"), "nowhere")
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be read"):
        await store.read(Shard(), None)
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be written"):
        await store.put(Row("a", "b", 1, 2))
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be written"):
        await store.delete(["a", "b"])


async def test_an_unreachable_table_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where DynamoDB should be."""
    async with opened("http://127.0.0.1:9", monkeypatch) as aws:
        store = await DynamoStore.open(aws.service("dynamodb"), "connections")
        with pytest.raises(StoreUnavailable):
            await store.read(Shard(), None)


async def test_a_table_behind_the_wrong_certificate_is_not_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's clients check the host name too."""
    async with Gateway(tls=Tls(certificate="wrong host")) as gateway:
        monkeypatch.setenv("AWS_CA_BUNDLE", gateway.ca_file)
        async with opened(gateway.endpoint, monkeypatch) as aws:
            with pytest.raises(StoreUnavailable, match="SSL"):
                await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
        assert gateway.counters().statuses == {}


async def test_entries_arrive_with_their_delay_in_more_than_one_batch(aws: Aws, moto_url: str) -> None:
    """Twenty-three entries are three calls, and all arrive."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    await SqsQueue(aws.service("sqs"), url).send([Entry(f"body {at}") for at in range(23)])
    bodies: set[str] = set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies.update(message["Body"] for message in messages)
    assert bodies == {f"body {at}" for at in range(23)}


async def test_large_entries_share_no_call(aws: Aws, moto_url: str) -> None:
    """Entries of 200 KB each go one by one, since a call carries 256 KiB."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    await SqsQueue(aws.service("sqs"), url).send([Entry("x" * 200_000), Entry("y" * 200_000)])
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "2"


async def test_a_fifo_queue_takes_the_same_deduplication_id_once(aws: Aws, moto_url: str) -> None:
    """Sent again within five minutes, an entry adds nothing."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"{uuid4()}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    queue = SqsQueue(aws.service("sqs"), url)
    for _ in range(2):
        await queue.send([Entry("body", group="3", deduplication_id="the same")])
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "1"


async def test_what_a_queue_refuses_is_named_by_position(aws: Aws, moto_url: str) -> None:
    """An entry SQS does not take is reported, and the others are sent."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    with pytest.raises(QueueUnavailable) as caught:
        await SqsQueue(aws.service("sqs"), url + "-missing").send([Entry("a"), Entry("b")])
    assert caught.value.failed == frozenset({0, 1})


async def test_a_partial_failure_names_only_what_failed() -> None:
    """Of twelve entries two are refused, in different batches."""

    def answer(request: Any) -> Any:
        results: dict[str, list[Any]] = {"Successful": [], "Failed": []}
        for entry in request["Entries"]:
            refused = entry["MessageBody"] == "no"
            results["Failed" if refused else "Successful"].append({"Id": entry["Id"], "Code": "InternalError"})
        return results

    queue = SqsQueue(Answering(answer), "https://sqs/retry")
    with pytest.raises(QueueUnavailable, match="did not take 2 of 12") as caught:
        await queue.send([Entry("no" if at in (3, 11) else "yes") for at in range(12)])
    assert caught.value.failed == frozenset({3, 11})


async def test_rows_a_busy_table_leaves_are_asked_for_once_more() -> None:
    """What is left undone the first time is deleted the second."""
    turns = iter([True, True, True, False])

    def answer(request: Any) -> Any:
        left = {table: rows[:3] for table, rows in request["RequestItems"].items()}
        return {"UnprocessedItems": left if next(turns) else {}}

    service = Answering(answer)
    await DynamoStore(service, "connections").delete([f"{number}" for number in range(60)])
    sizes = [len(request["RequestItems"]["connections"]) for request in service.requests]
    assert sizes == [25, 25, 10, 9]


async def test_rows_a_busy_table_leaves_are_not_called_deleted() -> None:
    """Unprocessed twice: that raises."""
    service = Answering(lambda request: {"UnprocessedItems": request["RequestItems"]})
    with pytest.raises(StoreUnavailable, match="too busy"):
        await DynamoStore(service, "connections").delete(["a", "b"])


def sdk_loaded(aws: Aws) -> bool:
    return aws._sdk is not None


async def test_what_goes_well_needs_no_sdk(own_sockets: Aws, moto_url: str) -> None:
    """Rows are put, read, counted and deleted, and entries sent, before anything loads the SDK."""
    store = await DynamoStore.open(own_sockets.service("dynamodb"), new_table(moto_url))
    for number in range(3):
        await store.put(Row(f"{number}=", "someone", 1, 2))
    assert await store.count(10) == 3
    await store.delete(["0="])
    await store.delete(["1=", "2="])
    assert await read_all(store) == []
    url = boto3.client("sqs", endpoint_url=moto_url).create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    await SqsQueue(own_sockets.service("sqs"), url).send([Entry("body")])
    assert not sdk_loaded(own_sockets)


PAGE = {"Items": [{"connectionId": {"S": "a="}}], "Count": 1}


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"{"),
        Answer(body=b"[]"),
        Answer(body=b""),
        Answer(500),
        Answer(400),
        Cut(),
        Cut(reset=True),
        Garbage(),
        Half(),
    ],
    ids=["no JSON", "no object", "empty", "500", "400", "cut", "reset", "no HTTP", "half"],
)
async def test_what_does_not_succeed_at_once_is_the_sdks(
    answer: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever our own sockets get but a good answer, the SDK has the next word; the log says so."""
    # Whatever an earlier test's cold start made of the logger.
    log = logging.getLogger("async_relay")
    monkeypatch.setattr(log, "handlers", [caplog.handler])
    monkeypatch.setattr(log, "level", logging.WARNING)
    async with aws_server(answer, content(PAGE)) as server, opened(server.url, monkeypatch) as aws:
        page = await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
        assert page.clients == [Client("a=")]
        assert server.agents == ["own sockets", "sdk"]
        assert server.requests[0] == server.requests[1]
        assert "dynamodb Scan is left to the SDK" in caplog.text


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy"])
async def test_behind_a_proxy_the_sdk_does_it_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own sockets would go past the proxy."""
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with aws_server(content(PAGE)) as server, opened(server.url, monkeypatch) as aws:
        await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
        assert server.agents == ["sdk"]


async def test_a_profile_decides_where_to_and_our_sockets_still_serve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Region, endpoint and keys of a profile are the SDK's to find."""
    async with aws_server(content(PAGE)) as server:
        config = tmp_path / "config"
        config.write_text(
            "[profile other]\nregion = eu-north-1\naws_access_key_id = AKIDOTHER\n"
            f"aws_secret_access_key = secret\nendpoint_url = {server.url}\n"
        )
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_PROFILE", "other")
        async with opened("", monkeypatch) as aws:
            assert await aws.region() == "eu-north-1"
            assert (await aws.credentials()).access_key == "AKIDOTHER"
            await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)
            assert server.agents == ["own sockets"]


async def test_a_profile_that_does_not_exist_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table cannot be read, and the sentence names the profile."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    store = DynamoStore(Aws().service("dynamodb"), "connections")
    with pytest.raises(StoreUnavailable, match=r"table connections cannot be read: .*profile.*nobody"):
        await store.read(Shard(), None)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("AWS_ENDPOINT_URL", "localhost:8000", "Invalid endpoint: localhost:8000"),
        ("AWS_ACCESS_KEY_ID", "", "no AWS credentials"),
    ],
)
async def test_an_environment_that_leads_nowhere_is_one_sentence(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No URL, half a key: the table cannot be read, and why."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    async with opened("http://127.0.0.1:9", monkeypatch) as aws:
        monkeypatch.setenv(name, value)
        with pytest.raises(StoreUnavailable, match=f"table connections cannot be read: {sentence}"):
            await DynamoStore(aws.service("dynamodb"), "connections").read(Shard(), None)


async def test_aws_region_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """botocore reads AWS_DEFAULT_REGION only; ours honours AWS_REGION, and first."""
    monkeypatch.setenv("AWS_REGION", "eu-south-1")
    assert await Aws().region() == "eu-south-1"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    async with opened("", monkeypatch) as aws:
        assert (await (await aws.sdk()).where("sqs"))[1] == "eu-south-1"


async def test_calls_at_the_same_time_do_not_disturb_each_other(own_sockets: Aws, moto_url: str) -> None:
    """Forty readers and writers at once, half of them cancelled under way: the others get what they asked for."""
    store = await DynamoStore.open(own_sockets.service("dynamodb"), new_table(moto_url))
    for number in range(20):
        await store.put(Row(f"{number}", "someone", 1, 2))

    async def use(number: int) -> int:
        if number % 4 == 0:
            await store.put(Row(f"{number % 20}", "someone else", 1, 2))
            return 20
        return len(await read_all(store))

    calls = [asyncio.create_task(use(number)) for number in range(40)]
    await asyncio.sleep(0.01)
    for call in calls[1::2]:
        call.cancel()
    counts = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)
    assert {count for count in counts if not isinstance(count, BaseException)} == {20}
    assert all(counts[at] == 20 for at in range(0, 40, 2))
    assert " 0 busy, " in repr(own_sockets.service("dynamodb")._own)


async def test_a_call_that_is_cancelled_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off while the table says nothing: no socket is busy, no task and no timer is left."""
    async with aws_server(Hang()) as server, opened(server.url, monkeypatch) as aws:
        store = DynamoStore(aws.service("dynamodb"), "connections")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(store.read(Shard(), None), 0.2)
        own = aws.service("dynamodb")._own
        assert own is not None
        assert (repr(own).partition(": ")[2], own.pool._sweep) == ("0 busy, 0 idle, 0 opening, 0 waiting>", None)
        assert not sdk_loaded(aws)


@pytest.mark.parametrize(("service", "target"), [("dynamodb", "DynamoDB_20120810"), ("sqs", "AmazonSQS")])
async def test_the_signature_of_a_call_is_botocores(service: str, target: str) -> None:
    """What a service gets is signed as botocore would sign it."""
    key = Credentials("AKIDEXAMPLE", "secret", "token")
    requests = JsonRequests(service, Endpoint.of("http://127.0.0.1:9", None), "eu-west-1")
    now = datetime.now(UTC)
    requests.resign(key, now)
    ours = requests.request(Call("Scan"), b"{}", sha256(b"{}").hexdigest()).decode()
    request = AWSRequest("POST", "http://127.0.0.1:9/", data=b"{}", headers={"X-Amz-Target": f"{target}.Scan"})
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    auth = SigV4Auth(BotocoreCredentials(key.access_key, key.secret_key, key.token), service, "eu-west-1")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    request.headers["X-Amz-Security-Token"] = "token"
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert f"Signature={signature}\r\n" in ours
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token;x-amz-target," in ours


async def test_without_credentials_nobody_can_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider has credentials: one sentence says what to do."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Unavailable, match=r"^no AWS credentials were found"):
        await Aws().credentials()


async def test_credentials_and_region_are_the_sessions() -> None:
    """Key, secret, token and Region come from the SDK's session."""
    aws = Aws()
    credentials = await aws.credentials()
    assert (credentials.access_key, credentials.token, await aws.region()) == (
        "AKIDEXAMPLE",
        "a-session-token",
        "eu-west-1",
    )
    assert "wJalr" not in repr(credentials)
