"""The fan-out as Lambda would run it: one dispatch, a FIFO queue, workers each with a shard of the table."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from random import Random
from typing import Any
from uuid import uuid4

import boto3
import pytest
from deployment import Deployed, incident, incidents, new_queue, new_table, order, remediation
from records import event as stream_event

from async_relay.errors import SettingsError
from async_relay.testing import Gateway
from async_relay.wire.jobs import shard_of

SHARDS = 8
ALL_WELL: dict[str, Any] = {"batchItemFailures": []}


@pytest.fixture
def queue(with_queues: Deployed, monkeypatch: pytest.MonkeyPatch) -> str:
    """The FIFO queue, and a handler that fans out to it."""
    url = new_queue(with_queues.url, fifo=True)
    monkeypatch.setenv("FANOUT_QUEUE_URL", url)
    monkeypatch.setenv("FANOUT_SHARDS", str(SHARDS))
    return url


@pytest.fixture
def indexed(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with the index, and a handler that uses it."""
    deployed.table = new_table(deployed.url, index=True)
    monkeypatch.setenv("CONNECTIONS_TABLE", deployed.table)
    monkeypatch.setenv("CONNECTIONS_INDEX", "by-shard")


def names_of(count: int) -> list[str]:
    return [f"L0SM9cOFvHcCI{number:05}=" for number in range(count)]


def groups_of(batches: list[list[dict[str, Any]]]) -> Counter[str]:
    return Counter(record["attributes"]["MessageGroupId"] for batch in batches for record in batch)


def deduplication_ids(*batches: list[dict[str, Any]]) -> set[str]:
    return {record["attributes"]["MessageDeduplicationId"] for batch in batches for record in batch}


def orders(gateway: Gateway, names: list[str]) -> set[tuple[str, ...]]:
    """The different orders of messages these clients got."""
    return {tuple(order(gateway, name)) for name in names}


async def test_a_thousand_clients_in_eight_shards_get_each_record_once_in_order(
    gateway: Gateway, deployed: Deployed, queue: str
) -> None:
    """The dispatcher posts nothing, there is one job in each of eight groups, and a repeated dispatch adds none."""
    names = names_of(1_000)
    deployed.fill(*names)
    event = stream_event(*incidents(3))
    for _ in range(2):
        assert await deployed.call("lambda_handler", event) == ALL_WELL
        assert deployed.waiting(queue) == SHARDS
    assert gateway.posts.total() == 0
    batches = await deployed.work(queue)
    assert groups_of(batches) == {str(index): 1 for index in range(SHARDS)}
    assert orders(gateway, names) == {("100", "101", "102")}
    # SQS would drop these too; moto forgets the ids of what was deleted.
    assert await deployed.call("lambda_handler", event) == ALL_WELL
    assert deduplication_ids(deployed.receive(queue)) == deduplication_ids(*batches)
    assert gateway.posts.total() == 3_000


async def test_batch_after_batch_keeps_its_order(gateway: Gateway, deployed: Deployed, queue: str) -> None:
    """Three batches dispatched before a worker ran are three jobs a group, served in that order."""
    names = names_of(60)
    deployed.fill(*names)
    for record in incidents(3):
        assert await deployed.call("lambda_handler", stream_event(record)) == ALL_WELL
    batches = await deployed.work(queue)
    assert groups_of(batches) == {str(index): 3 for index in range(SHARDS)}
    assert orders(gateway, names) == {("100", "101", "102")}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("indexed")
async def test_while_the_sweep_is_on_everybody_is_served_once_whatever_the_rows_say(
    gateway: Gateway, deployed: Deployed, queue: str, seed: int
) -> None:
    """Rows with the right shard, another one, one beyond the count, a negative one, or none: each is in one shard."""
    random = Random(seed)
    names = names_of(120)
    for name in names:
        shard = random.choice([shard_of(name, SHARDS), random.randrange(SHARDS), SHARDS, 10**6, -1, None])
        deployed.fill(name, **({} if shard is None else {"shard": shard}))
    assert await deployed.call("lambda_handler", stream_event(*incidents(2))) == ALL_WELL
    await deployed.work(queue)
    assert orders(gateway, names) == {("100", "101")}


@pytest.mark.usefixtures("indexed")
async def test_connect_writes_the_shard_the_index_needs(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index holds only rows with a shard, and those of connect_handler all are in it."""
    monkeypatch.setenv("CONNECTIONS_INDEX_SWEEP", "off")
    names = names_of(30)
    for name in names:
        event = {"requestContext": {"connectionId": name}}
        assert await deployed.call("connect_handler", event) == {"statusCode": 200}
    deployed.fill("nowhere=")
    assert {name: int(row.get("shard", {"N": "-1"})["N"]) for name, row in deployed.rows().items()} == {
        "nowhere=": -1,
        **{name: shard_of(name, SHARDS) for name in names},
    }
    assert await deployed.call("lambda_handler", stream_event(*incidents(1))) == ALL_WELL
    await deployed.work(queue)
    assert orders(gateway, names) == {("100",)}
    assert gateway.posts["nowhere="] == 0


INDEXED = {"CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": "off"}
SWEPT = {"CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": "on"}
PLAIN = {"CONNECTIONS_INDEX": "", "CONNECTIONS_INDEX_SWEEP": ""}


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize(
    ("before", "after", "served_before"),
    [
        (PLAIN, INDEXED, 3),
        (INDEXED, PLAIN, 3),
        (SWEPT, INDEXED, 0),
        (INDEXED, SWEPT, 3),
        (PLAIN, {"FANOUT_SHARDS": "5"}, 3),
        (PLAIN, {"FANOUT_SHARDS": "12"}, 0),
        (PLAIN, INDEXED | {"FANOUT_SHARDS": "16"}, 3),
        (INDEXED, INDEXED | {"FANOUT_SHARDS": "16"}, 3),
    ],
)
async def test_a_deploy_between_dispatch_and_delivery_loses_nobody(
    gateway: Gateway,
    deployed: Deployed,
    queue: str,
    monkeypatch: pytest.MonkeyPatch,
    before: dict[str, str],
    after: dict[str, str],
    served_before: int,
) -> None:
    """Sister jobs on both sides of a change of the index or the number of shards reach everybody once together."""
    for variable, value in before.items():
        monkeypatch.setenv(variable, value)
    names = names_of(100)
    for name in names:
        deployed.fill(name, shard=shard_of(name, SHARDS))
    assert await deployed.call("lambda_handler", stream_event(incident("inc-0", sequence="100"))) == ALL_WELL
    for _ in range(served_before):
        batch = deployed.receive(queue, 1)
        deployed.settle(queue, batch, await deployed.call("deliver_handler", {"Records": batch}))
    for variable, value in after.items():
        monkeypatch.setenv(variable, value)
    await deployed.restart()
    assert await deployed.call("lambda_handler", stream_event(incident("inc-1", sequence="101"))) == ALL_WELL
    await deployed.work(queue)
    assert {tuple(sorted(order(gateway, name))) for name in names} == {("100", "101")}


@pytest.mark.usefixtures("indexed")
async def test_a_backfill_beside_a_working_relay_loses_nobody(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that get their shard between one job and the next are served all the same, while the sweep is on."""
    for variable, value in SWEPT.items():
        monkeypatch.setenv(variable, value)
    names = names_of(100)
    deployed.fill(*names)
    assert await deployed.call("lambda_handler", stream_event(*incidents(1))) == ALL_WELL
    for name in names:
        batch = deployed.receive(queue, 1)
        deployed.settle(queue, batch, await deployed.call("deliver_handler", {"Records": batch}))
        deployed.fill(name, shard=shard_of(name, SHARDS))
    assert orders(gateway, names) == {("100",)}


def table_with_index(url: str, key: str, kind: str, projection: str) -> str:
    """A connections table whose index by-shard is not what it must be."""
    name = f"connections-{uuid4()}"
    boto3.client("dynamodb", endpoint_url=url).create_table(
        TableName=name,
        AttributeDefinitions=[
            {"AttributeName": "connectionId", "AttributeType": "S"},
            {"AttributeName": key, "AttributeType": kind},
        ],
        KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-shard",
                "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
                "Projection": {"ProjectionType": projection},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("entry", ["lambda_handler", "deliver_handler", "connect_handler"])
@pytest.mark.parametrize(
    ("key", "kind", "projection", "index", "problem"),
    [
        ("shard", "N", "ALL", "by-name", r"^CONNECTIONS_INDEX is 'by-name'; the table \S+ has no such index$"),
        ("name", "S", "ALL", "by-shard", "its partition key must be the number shard, not name$"),
        ("shard", "S", "ALL", "by-shard", "its partition key must be the number shard"),
        ("shard", "N", "KEYS_ONLY", "by-shard", "must project createdAt, expiresAt, tenants, interest, frames;"),
    ],
)
async def test_an_index_that_will_not_do_is_one_sentence(
    deployed: Deployed,
    monkeypatch: pytest.MonkeyPatch,
    entry: str,
    key: str,
    kind: str,
    projection: str,
    index: str,
    problem: str,
) -> None:
    """Missing, on another key, of another type, or without the time of the connection: the first call says so."""
    monkeypatch.setenv("CONNECTIONS_TABLE", table_with_index(deployed.url, key, kind, projection))
    monkeypatch.setenv("CONNECTIONS_INDEX", index)
    with pytest.raises(SettingsError, match=problem):
        await deployed.call(entry, stream_event(*incidents(1)))


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("FANOUT_SHARDS", "0", "FANOUT_SHARDS is '0'; it must be a whole number from 1 to 1,000"),
        ("FANOUT_SHARDS", "1001", "FANOUT_SHARDS is '1001'; it must be a whole number from 1 to 1,000"),
        ("FANOUT_MODE", "often", "FANOUT_MODE is 'often'; it must be direct, fanout or auto"),
        ("FANOUT_QUEUE_URL", "https://sqs/1/jobs", "FANOUT_QUEUE_URL is 'https://sqs/1/jobs'; it must be .* FIFO"),
    ],
)
async def test_a_bad_setting_of_the_fan_out_ends_the_cold_start(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, problem: str
) -> None:
    """The variable is named, with what is expected of it."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=problem):
        await deployed.call("lambda_handler", stream_event())


@pytest.mark.parametrize(("clients", "jobs"), [(39, 0), (40, SHARDS), (300, SHARDS)])
async def test_auto_fans_out_from_so_many_clients_on(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch, clients: int, jobs: int
) -> None:
    """Below the number the stream's function posts itself; either way everybody is served once."""
    monkeypatch.setenv("FANOUT_MODE", "auto")
    monkeypatch.setenv("FANOUT_AUTO_CLIENTS", "40")
    names = names_of(clients)
    deployed.fill(*names)
    assert await deployed.call("lambda_handler", stream_event(*incidents(2))) == ALL_WELL
    assert deployed.waiting(queue) == jobs
    assert gateway.posts.total() == (0 if jobs else 2 * clients)
    await deployed.work(queue)
    assert orders(gateway, names) == {("100", "101")}


async def test_direct_mode_leaves_the_queue_alone(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FANOUT_MODE=direct posts itself although there is a queue."""
    monkeypatch.setenv("FANOUT_MODE", "direct")
    deployed.fill("a=", "b=")
    assert await deployed.call("lambda_handler", stream_event(*incidents(2))) == ALL_WELL
    assert deployed.waiting(queue) == 0
    assert orders(gateway, ["a=", "b="]) == {("100", "101")}


@pytest.mark.parametrize("after", [1, 40, 130])
async def test_a_worker_killed_mid_job_loses_nothing(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Its batch is delivered again to a new one: everybody has everything, in order, and repeats have the same id."""
    monkeypatch.setenv("MAX_CONCURRENCY", "5")
    names = names_of(120)
    deployed.fill(*names)
    for record in incidents(3):
        assert await deployed.call("lambda_handler", stream_event(record)) == ALL_WELL
    gateway.latency = 0.01
    batch = deployed.receive(queue)
    working = asyncio.create_task(deployed.call("deliver_handler", {"Records": batch}))
    while gateway.arrivals.total() < after:  # noqa: ASYNC110 - the worker is on another loop
        await asyncio.sleep(0.005)
    deployed.kill()
    with pytest.raises(asyncio.CancelledError):
        await working
    arrived = gateway.arrivals.total()
    assert after <= arrived < 3 * len(names)
    await deployed.restart()
    gateway.latency = 0.0
    deployed.settle(queue, batch, None)
    await deployed.work(queue)
    messages = {name: [json.loads(body) for body in gateway.received[name]] for name in names}
    for got in messages.values():
        assert list(dict.fromkeys(message["sequence"] for message in got)) == ["100", "101", "102"]
        assert all(message["event_id"] == f"event-{message['sequence']}" for message in got)
    assert sum(map(len, messages.values())) <= 3 * len(names) + arrived


async def test_a_shard_that_cannot_be_served_stops_at_its_first_job(
    gateway: Gateway, deployed: Deployed, queue: str
) -> None:
    """Forbidden for all: every job is handed back, in its order, and served once that is over."""
    names = names_of(40)
    deployed.fill(*names)
    for record in incidents(2):
        assert await deployed.call("lambda_handler", stream_event(record)) == ALL_WELL
    gateway.play(403)
    batch = deployed.receive(queue)
    failures = await deployed.call("deliver_handler", {"Records": batch})
    assert [failure["itemIdentifier"] for failure in failures["batchItemFailures"]] == [
        record["messageId"] for record in batch
    ]
    gateway.play(200)
    deployed.settle(queue, batch, failures)
    await deployed.work(queue)
    assert orders(gateway, names) == {("100", "101")}


async def test_coalescing_leaves_the_newest_state_of_each_incident_and_every_remediation(
    gateway: Gateway, deployed: Deployed, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COALESCE=latest: what a later record of the batch replaces is sent to nobody."""
    monkeypatch.setenv("COALESCE", "latest")
    names = names_of(50)
    deployed.fill(*names)
    event = stream_event(
        incident("inc-1", sequence="101", status="OPEN"),
        remediation("isolate", sequence="102"),
        incident("inc-2", sequence="103", status="OPEN"),
        incident("inc-1", sequence="104", status="INVESTIGATING", event_name="MODIFY"),
        remediation("isolate", sequence="105"),
        incident("inc-1", sequence="106", status="RESOLVED", event_name="MODIFY"),
    )
    assert await deployed.call("lambda_handler", event) == ALL_WELL
    await deployed.work(queue)
    assert orders(gateway, names) == {("102", "103", "105", "106")}
    assert json.loads(gateway.received[names[0]][-1])["status"] == "RESOLVED"
