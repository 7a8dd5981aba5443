"""The services of a sandbox: AWS's as the settings name them, doubles in their place, each opened once."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from aws_server import DESCRIBED, aws_server, content
from deployment import Context, incidents
from records import event as stream_event
from transports import CREDENTIALS, To, post

from async_relay.aws import DynamoStore, SqsQueue
from async_relay.aws.management_api import SdkTransport
from async_relay.delivery.protocols import ConnectionStore, Entry, Transport
from async_relay.errors import StoreUnavailable, TimedOut
from async_relay.http.descriptors import RESERVED
from async_relay.http.direct import DirectTransport
from async_relay.http.urls import endpoint_region
from async_relay.sandbox import Sandbox
from async_relay.services import AwsServices, Services
from async_relay.settings import Settings
from async_relay.testing import Gateway, Hang
from async_relay.testing.memory import MemoryServices, MemoryStore, Reply
from async_relay.wire.jobs import Shard, ShardKind, shard_of
from async_relay.wire.rows import Row

ENVIRON = {
    "WS_ENDPOINT": "https://abc.execute-api.eu-north-1.amazonaws.com/prod",
    "CONNECTIONS_TABLE": "connections",
    "AWS_REGION": "eu-west-1",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
}
RETRY = "https://sqs.eu-west-1.amazonaws.com/1/retry"


def settings(**more: str) -> Settings:
    return Settings.from_env(ENVIRON | more)


class Counted(MemoryServices):
    """Counts how often each service is opened, and refuses as often as it is told to."""

    def __init__(self, rows: MemoryStore, *, refusals: int = 0) -> None:
        super().__init__(rows)
        self.opened: list[str] = []
        self.refusals = refusals
        self.closed = 0

    async def store(self) -> ConnectionStore:
        self.opened.append("store")
        return await super().store()

    async def transport(self) -> Transport:
        self.opened.append("transport")
        if self.refusals:
            self.refusals -= 1
            raise StoreUnavailable("not yet")
        return await super().transport()

    async def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(("transport", "kind"), [("direct", DirectTransport), ("sdk", SdkTransport)])
async def test_the_settings_choose_the_transport(transport: str, kind: type[Any]) -> None:
    """TRANSPORT names it; nothing is posted or connected to by opening it."""
    services = AwsServices(settings(TRANSPORT=transport), ENVIRON)
    opened = await services.transport()
    assert type(opened) is kind
    assert "0 busy" in repr(opened)
    await opened.close()
    await services.close()


async def test_the_table_and_the_queues_are_the_ones_the_settings_name() -> None:
    """A table without an index is opened without a call, and so is a queue."""
    services = AwsServices(settings(), ENVIRON)
    assert isinstance(await services.store(), DynamoStore)
    assert isinstance(services.queue(RETRY), SqsQueue)
    await services.close()


async def test_an_index_is_looked_at_when_the_table_is_opened() -> None:
    """A table that cannot be described is not opened; the request names it."""
    async with aws_server(content({"Table": []})) as server:
        environ = ENVIRON | {"AWS_ENDPOINT_URL": server.url}
        services = AwsServices(settings(CONNECTIONS_INDEX="by-shard"), environ)
        with pytest.raises(StoreUnavailable, match="cannot be described"):
            await services.store()
        assert server.requests == [("DescribeTable", {"TableName": "connections"})]
        await services.close()


async def test_nothing_of_aws_is_made_before_it_is_needed() -> None:
    """A sandbox that was only made, or was closed, holds nothing that a snapshot could share."""
    services = AwsServices(settings(), ENVIRON)
    await services.close()
    assert services._aws is None
    assert services.aws is services.aws
    await services.close()
    assert services._aws is None


async def test_a_sandbox_serves_from_memory() -> None:
    """With doubles for everything, a stream event reaches every client, and $connect and $disconnect write rows."""
    services = MemoryServices(MemoryStore(["a=", "b="]))
    sandbox = Sandbox(settings(), services)
    await sandbox.on_connect({"requestContext": {"connectionId": "c="}})
    await sandbox.on_disconnect({"requestContext": {"connectionId": "b="}})
    assert await sandbox.on_stream(stream_event(*incidents(2)), Context()) == {"batchItemFailures": []}
    assert services.posts.arrivals == {"a=": 2, "c=": 2}
    assert repr(services) == "<<2 rows, 1 pages read, 1 deleted>, <4 posts, 4 arrived, 0 in flight>, 0 queues>"
    await sandbox.close()


async def test_queues_are_asked_for_by_their_urls() -> None:
    """A client that always fails is requeued in the queue the settings name."""
    services = MemoryServices(MemoryStore(["a="]))
    services.posts.script = lambda _id, _message: Reply(500)
    sandbox = Sandbox(settings(RETRY_QUEUE_URL=RETRY), services)
    assert await sandbox.on_stream(stream_event(*incidents(1)), Context()) == {"batchItemFailures": []}
    assert list(services.queues) == [RETRY]
    (entry,) = services.queues[RETRY].take()
    assert json.loads(entry.body)["clients"][0]["connectionId"] == "a="


async def test_each_service_is_opened_once_and_an_opening_that_failed_is_gone_on_with() -> None:
    """The transport is refused at first: the table stays open, and the next invocation opens the transport alone."""
    services = Counted(MemoryStore(["a="]), refusals=1)
    sandbox = Sandbox(settings(), services)
    event = stream_event(*incidents(1))
    assert (await sandbox.on_stream(event, Context(1)))["batchItemFailures"] != []
    for _ in range(3):
        assert await sandbox.on_stream(event, Context()) == {"batchItemFailures": []}
    await sandbox.on_connect({"requestContext": {"connectionId": "b="}})
    assert services.opened == ["store", "transport", "transport"]


async def test_connect_opens_the_table_alone() -> None:
    """$connect needs no transport; a snapshot taken after it holds none."""
    services = Counted(MemoryStore())
    sandbox = Sandbox(settings(), services)
    await sandbox.on_connect({"requestContext": {"connectionId": "a="}})
    assert services.opened == ["store"]
    assert repr(sandbox) == "<sandbox of connections, posting through nothing yet>"


async def test_a_closed_sandbox_opens_again() -> None:
    """Closing closes the services, and the next invocation opens them anew."""
    services = Counted(MemoryStore(["a="]))
    sandbox = Sandbox(settings(MAX_POSTS_PER_SECOND="50"), services)
    assert sandbox.rate_limit is None
    for _ in range(2):
        assert await sandbox.on_stream(stream_event(*incidents(1)), Context()) == {"batchItemFailures": []}
        assert "posting through <" in repr(sandbox)
        await sandbox.close()
    assert services.opened == ["store", "transport"] * 2
    assert services.closed == 2


def test_both_are_services() -> None:
    """What a sandbox takes is the protocol; the type checker reads these lines."""
    found: list[Services] = [AwsServices(settings(), ENVIRON), MemoryServices()]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://abc.execute-api.eu-north-1.amazonaws.com/prod", "eu-north-1"),
        ("https://ws.example.com/prod", None),
        ("http://127.0.0.1:8000/prod", None),
    ],
)
def test_the_region_to_sign_for_stands_in_the_host_name(endpoint: str, region: str | None) -> None:
    """Only in API Gateway's own; a custom domain's is the environment's."""
    assert endpoint_region(endpoint) == region


async def signed_by(services: AwsServices) -> bytes:
    """A request as the direct transport signs it."""
    transport = await services.transport()
    assert isinstance(transport, DirectTransport)
    await transport.begin()
    request = transport.pool.requests.request(To("a="), b"{}", "0" * 64)
    await transport.close()
    await services.close()
    return request


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://abc.execute-api.eu-north-1.amazonaws.com/prod", "eu-north-1"),
        ("https://ws.example.com/prod", "ca-west-1"),
        ("https://abc.other-api.eu-north-1.amazonaws.com/prod", "ca-west-1"),
    ],
)
@pytest.mark.parametrize("transport", ["direct", "sdk"])
async def test_posts_are_signed_for_the_apis_region_and_by_the_environments_credentials(
    endpoint: str, region: str, transport: str
) -> None:
    """The host name's Region, else the environment's; no variable comes from anywhere but the environment given."""
    environ = ENVIRON | {"AWS_REGION": "ca-west-1", "AWS_ACCESS_KEY_ID": "AKIDOFTHEGIVEN"}
    services = AwsServices(settings(WS_ENDPOINT=endpoint, TRANSPORT=transport), environ)
    if transport == "direct":
        assert (
            f"Credential=AKIDOFTHEGIVEN/{datetime.now(UTC):%Y%m%d}/{region}/execute-api/".encode()
            in await signed_by(services)
        )
        return
    opened: Any = await services.transport()
    assert opened._client.meta.region_name == region
    assert opened._client.meta.endpoint_url == endpoint
    await opened.close()
    await services.close()


async def test_a_region_nobody_names_is_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A custom domain, and no Region in the environment: no reason not to start."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    environ = {name: value for name, value in ENVIRON.items() if name != "AWS_REGION"}
    services = AwsServices(settings(WS_ENDPOINT="https://ws.example.com/prod"), environ)
    assert b"/us-east-1/execute-api/" in await signed_by(services)


@pytest.mark.parametrize("transport", ["direct", "sdk"])
async def test_a_post_times_out_after_what_the_setting_says(
    transport: str, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POST_TIMEOUT_SECONDS is for either transport."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(gateway.ca_file))  # the SDK reads the process's own environment
    gateway.play(Hang())
    secrets = {"AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key, "AWS_SESSION_TOKEN": CREDENTIALS.token or ""}
    environ = ENVIRON | secrets | {"AWS_CA_BUNDLE": gateway.ca_file}
    more = {"WS_ENDPOINT": gateway.endpoint, "POST_TIMEOUT_SECONDS": "0.1", "TRANSPORT": transport}
    services = AwsServices(settings(**more), environ)
    opened = await services.transport()
    await opened.begin()
    start = time.monotonic()
    assert isinstance(await post(opened, "a="), TimedOut)
    assert time.monotonic() - start < 1.5
    await opened.close()
    await services.close()


@pytest.mark.parametrize(("wanted", "sockets"), [("3", 3), ("170", 170), ("800", 176)])
async def test_there_are_as_many_sockets_as_max_concurrency_says_and_descriptors_allow(
    wanted: str, sockets: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either transport: more or fewer than by default."""
    monkeypatch.setattr("resource.getrlimit", lambda _which: (RESERVED + 176, -1))
    for transport in ("direct", "sdk"):
        services = AwsServices(settings(MAX_CONCURRENCY=wanted, TRANSPORT=transport), ENVIRON)
        opened: Any = await services.transport()
        if transport == "direct":
            assert opened.pool._max_sockets == sockets
        else:
            assert opened._client.meta.config.max_pool_connections == sockets
        await opened.close()
        await services.close()


@pytest.mark.parametrize(("transport", "agent"), [("direct", "own sockets"), ("sdk", "sdk")])
async def test_the_table_is_asked_over_what_the_transport_is_made_of(
    transport: str, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRANSPORT=sdk is for who cannot use our own sockets: then no call uses them; closing closes every socket."""
    async with aws_server(content({"Count": 3})) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        services = AwsServices(settings(TRANSPORT=transport), ENVIRON | {"AWS_ENDPOINT_URL": server.url})
        store = await services.store()
        assert await store.count(1) == 3
        assert server.agents == [agent]
        assert server.sockets == 1
        await services.close()
        async with asyncio.timeout(2):
            while server.sockets:  # noqa: ASYNC110 - the server has no event for a closed socket
                await asyncio.sleep(0.01)


async def test_jobs_go_to_sqs_and_rows_come_from_dynamodb() -> None:
    """Each service has its own endpoint, and the queue its URL."""
    async with aws_server(content({"Successful": [{"Id": "0"}]})) as sqs, aws_server(content({"Count": 1})) as dynamodb:
        endpoints = {"AWS_ENDPOINT_URL_SQS": sqs.url, "AWS_ENDPOINT_URL_DYNAMODB": dynamodb.url}
        services = AwsServices(settings(), ENVIRON | endpoints)
        await (await services.store()).count(1)
        await services.queue(RETRY).send([Entry("a body")])
        await services.close()
        assert [(name, request["QueueUrl"]) for name, request in sqs.requests] == [("SendMessageBatch", RETRY)]
        assert [name for name, _ in dynamodb.requests] == ["Scan"]


@pytest.mark.parametrize(
    ("more", "shards", "operation"),
    [
        ({"CONNECTIONS_INDEX_SWEEP": "off", "FANOUT_SHARDS": "3"}, 3, "Query"),
        ({"CONNECTIONS_INDEX_SWEEP": "off", "FANOUT_SHARDS": "3"}, 8, "Scan"),
        ({"FANOUT_SHARDS": "3"}, 3, "Scan"),
    ],
    ids=["as set", "of another number", "swept"],
)
async def test_a_partition_is_read_from_the_index_the_settings_describe(
    more: dict[str, str], shards: int, operation: str
) -> None:
    """Only of as many partitions as there are, and only once no row can lack its own."""
    async with aws_server(content(DESCRIBED), content({"Items": []})) as server:
        services = AwsServices(
            settings(CONNECTIONS_INDEX="by-shard", **more), ENVIRON | {"AWS_ENDPOINT_URL": server.url}
        )
        store = await services.store()
        await store.read(Shard(0, shards, ShardKind.PARTITION), None)
        await store.put(Row("a=", "", 0, 0))
        await services.close()
        assert [name for name, _ in server.requests] == ["DescribeTable", operation, "PutItem"]
        assert int(server.requests[-1][1]["Item"]["shard"]["N"]) == shard_of("a=", 3)
