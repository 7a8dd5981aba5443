"""The connection stores and the queues, in DynamoDB, SQS and in memory, behave the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from deployment import new_table

from async_relay.aws import Aws, DynamoStore, SqsQueue
from async_relay.aws.row_deletions import RowDeletions
from async_relay.errors import QueueUnavailable, StoreUnavailable, Unavailable
from async_relay.jobs import Client, Shard
from async_relay.memory import MemoryStore
from async_relay.protocols import ConnectionStore, Entry
from async_relay.sigv4 import Credentials
from async_relay.testing import Answer, Choice, Cut, Gateway, Tls

MakeStore = Callable[[], Awaitable[ConnectionStore]]


@pytest.fixture
async def aws(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Aws]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    aws = Aws()
    yield aws
    await aws.close()


@pytest.fixture(params=["memory", "dynamodb"])
def make_store(request: pytest.FixtureRequest, aws: Aws, moto_url: str) -> MakeStore:
    async def make() -> ConnectionStore:
        if request.param == "memory":
            return MemoryStore(page_size=7)
        return await DynamoStore.open(aws, new_table(moto_url))

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
        await store.put(f"id-{number}=", "someone", 1_700_000_000_000 + number, 1_700_086_400)
    clients = await read_all(store)
    assert sorted(clients) == sorted(Client(f"id-{n}=", 1_700_000_000_000 + n) for n in range(20))


async def test_shards_are_disjoint_and_complete(make_store: MakeStore) -> None:
    """Every row is in exactly one shard."""
    store = await make_store()
    names = {f"id-{number}=" for number in range(60)}
    for name in names:
        await store.put(name, "unknown", 1, 2)
    shards = [await read_all(store, Shard(index, 4)) for index in range(4)]
    found = [client.connection_id for shard in shards for client in shard]
    assert sorted(found) == sorted(names)


@pytest.mark.parametrize("count", [1, 2, 60])
async def test_deleted_rows_are_gone_and_others_stay(make_store: MakeStore, count: int) -> None:
    """One row or many are deleted, twice over without harm."""
    store = await make_store()
    for number in range(62):
        await store.put(f"id-{number}", "unknown", 1, 2)
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
    store = await DynamoStore.open(aws, table)
    assert sorted(await read_all(store)) == [Client("0"), Client("1"), Client("2")]


async def test_over_four_megabytes_every_page_is_read(aws: Aws, moto_url: str) -> None:
    """2,500 rows that do not fit in four pages of a megabyte are all read."""
    table = new_table(moto_url)
    rows = boto3.resource("dynamodb", endpoint_url=moto_url).Table(table)
    with rows.batch_writer() as writer:
        for number in range(2_500):
            writer.put_item(Item={"connectionId": f"{number}", "note": "x" * 1_800})
    store = await DynamoStore.open(aws, table)
    first = await store.read(Shard(), None)
    assert first.cursor is not None
    assert {client.connection_id for client in await read_all(store)} == {str(n) for n in range(2_500)}


async def test_a_missing_table_is_one_sentence(aws: Aws) -> None:
    """A table that is not there says so, by name."""
    store = await DynamoStore.open(aws, "nowhere")
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be read"):
        await store.read(Shard(), None)
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be written"):
        await store.put("a", "b", 1, 2)
    with pytest.raises(StoreUnavailable, match="table nowhere cannot be written"):
        await store.delete(["a", "b"])


async def test_an_unreachable_table_is_unavailable_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where DynamoDB should be."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    aws = Aws()
    try:
        store = await DynamoStore.open(aws, "connections")
        with pytest.raises(StoreUnavailable):
            await store.read(Shard(), None)
    finally:
        await aws.close()


async def test_a_table_behind_the_wrong_certificate_is_not_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's clients check the host name too."""
    async with Gateway(tls=Tls(certificate="wrong host")) as gateway:
        monkeypatch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
        monkeypatch.setenv("AWS_CA_BUNDLE", gateway.ca_file)
        aws = Aws()
        try:
            with pytest.raises(StoreUnavailable, match="SSL"):
                await (await DynamoStore.open(aws, "connections")).read(Shard(), None)
        finally:
            await aws.close()
        assert gateway.counters().statuses == {}


async def test_entries_arrive_with_their_delay_in_more_than_one_batch(aws: Aws, moto_url: str) -> None:
    """Twenty-three entries are three calls, and all arrive."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    await SqsQueue(aws.sqs, url).send([Entry(f"body {at}") for at in range(23)])
    bodies: set[str] = set()
    while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        bodies.update(message["Body"] for message in messages)
    assert bodies == {f"body {at}" for at in range(23)}


async def test_large_entries_share_no_call(aws: Aws, moto_url: str) -> None:
    """Entries of 200 KB each go one by one, since a call carries 256 KiB."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    await SqsQueue(aws.sqs, url).send([Entry("x" * 200_000), Entry("y" * 200_000)])
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "2"


async def test_a_fifo_queue_takes_the_same_deduplication_id_once(aws: Aws, moto_url: str) -> None:
    """Sent again within five minutes, an entry adds nothing."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"{uuid4()}.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    queue = SqsQueue(aws.sqs, url)
    for _ in range(2):
        await queue.send([Entry("body", group="3", deduplication_id="the same")])
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert attributes["Attributes"]["ApproximateNumberOfMessages"] == "1"


async def test_what_a_queue_refuses_is_named_by_position(aws: Aws, moto_url: str) -> None:
    """An entry SQS does not take is reported, and the others are sent."""
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    url = sqs.create_queue(QueueName=f"retry-{uuid4()}")["QueueUrl"]
    with pytest.raises(QueueUnavailable) as caught:
        await SqsQueue(aws.sqs, url + "-missing").send([Entry("a"), Entry("b")])
    assert caught.value.failed == frozenset({0, 1})


class PartlyRefusing:
    """An SQS client that takes all but the entries whose body is ``no``."""

    async def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> Any:  # noqa: N803, ARG002 - botocore's names
        failed = [{"Id": entry["Id"], "Code": "InternalError"} for entry in Entries if entry["MessageBody"] == "no"]
        return {"Failed": failed}


async def test_a_partial_failure_names_only_what_failed() -> None:
    """Of twelve entries two are refused, in different batches."""

    async def client() -> PartlyRefusing:
        return PartlyRefusing()

    queue = SqsQueue(client, "https://sqs/retry")
    with pytest.raises(QueueUnavailable, match="did not take 2 of 12") as caught:
        await queue.send([Entry("no" if at in (3, 11) else "yes") for at in range(12)])
    assert caught.value.failed == frozenset({3, 11})


@pytest.mark.parametrize(
    "answer", [Answer(body=b'{"UnprocessedItems":{"t":[]}}'), 500, Cut()], ids=["busy", "500", "cut"]
)
async def test_rows_that_are_not_deleted_at_once_are_named(answer: Choice) -> None:
    """Left unprocessed, refused or cut off: those rows are left to the SDK; the request is signed for DynamoDB."""

    async def credentials() -> Credentials:
        return Credentials("AKIDEXAMPLE", "secret", "token")

    async with Gateway(answer) as gateway:
        deletions = RowDeletions(
            gateway.endpoint.removesuffix("/prod"),
            "t",
            region="eu-west-1",
            credentials=credentials,
            tls=None,
            timeout=1,
        )
        rows = [f"{number}=" for number in range(60)]
        assert await deletions.delete(rows) == rows
        await deletions.close()


async def test_the_signature_of_a_deletion_is_botocores() -> None:
    """What DynamoDB gets is signed as botocore would sign it."""
    key = Credentials("AKIDEXAMPLE", "secret", "token")
    deletions = RowDeletions("http://127.0.0.1:9", "t", region="eu-west-1", credentials=None, tls=None)  # type: ignore[arg-type]
    now = datetime.now(UTC)
    ours = deletions.signer(key).at(now)("", sha256(b"{}").hexdigest()).decode()
    request = AWSRequest(
        "POST", "http://127.0.0.1:9/", data=b"{}", headers={"X-Amz-Target": "DynamoDB_20120810.BatchWriteItem"}
    )
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    auth = SigV4Auth(BotocoreCredentials(key.access_key, key.secret_key, key.token), "dynamodb", "eu-west-1")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    request.headers["X-Amz-Security-Token"] = "token"
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert f"Signature={signature}\r\n" in ours
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token;x-amz-target," in ours


class Busy:
    """A DynamoDB client that leaves rows unprocessed."""

    class meta:  # noqa: N801 - botocore's name
        class events:  # noqa: N801 - botocore's name
            @staticmethod
            def register(_name: str, _hook: object) -> None: ...

    async def batch_write_item(self, RequestItems: dict[str, Any]) -> Any:  # noqa: N803 - botocore's name
        return {"UnprocessedItems": RequestItems}


async def test_rows_a_busy_table_leaves_are_not_called_deleted() -> None:
    """Unprocessed rows raise."""
    with pytest.raises(StoreUnavailable, match="too busy"):
        await DynamoStore(Busy(), "connections").delete(["a", "b"])


async def test_without_credentials_nobody_can_be_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider has credentials: one sentence says what to do."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(Unavailable, match="no AWS credentials were found"):
        await Aws().credentials()


async def test_credentials_and_region_are_the_sessions() -> None:
    """Key, secret, token and Region come from the SDK's session."""
    aws = Aws()
    credentials = await aws.credentials()
    assert (credentials.access_key, credentials.token, aws.region) == ("AKIDEXAMPLE", "a-session-token", "eu-west-1")
    assert "wJalr" not in repr(credentials)
