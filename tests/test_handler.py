"""The handler as Lambda calls it: real sockets, TLS, a session token, DynamoDB and SQS."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from deployment import Deployed, incident, incidents, order, remediation, sequences
from records import event as stream_event

from async_relay.errors import RelayError, SettingsError
from async_relay.logs import service
from async_relay.testing import Answer, Cut, Gateway, Hang, RateLimit, Until
from async_relay.testing.memory import MemoryServices, MemoryStore


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module after a cold start, over doubles in memory."""
    monkeypatch.setenv("WS_ENDPOINT", "https://ws.example.com/prod")
    monkeypatch.setenv("CONNECTIONS_TABLE", "connections")
    sys.modules.pop("handler", None)
    # Powertools keeps the stdout of the first test that logged.
    logging.Logger.manager.loggerDict.pop(service(), None)
    module = importlib.import_module("handler")
    module._sandbox._services = MemoryServices(MemoryStore(["a=", "b="]))
    yield module
    module._runner.close()
    sys.modules.pop("handler", None)


class Noted:
    """A sandbox that answers each call with its name, what it was called with, and the loop it ran in."""

    def __getattr__(self, name: str) -> Any:
        async def call(*arguments: Any) -> Any:
            return name, arguments, asyncio.get_running_loop()

        return call


def test_each_entry_point_is_one_call_of_the_sandbox(loaded: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the event and the context, without which there is no deadline; all in one loop, whose sockets stay open."""
    monkeypatch.setattr(loaded, "_sandbox", Noted())
    calls = {
        "lambda_handler": "on_stream",
        "deliver_handler": "on_jobs",
        "authorize_handler": "on_authorize",
        "connect_handler": "on_connect",
        "default_handler": "on_request",
        "disconnect_handler": "on_disconnect",
        "heartbeat_handler": "on_heartbeat",
    }
    event, context, loops = object(), object(), set()
    for entry_point, method in calls.items():
        name, arguments, loop = getattr(loaded, entry_point)(event, context)
        assert (name, arguments) == (method, (event, context))
        assert getattr(loaded, entry_point)(event)[1] == (event, None)
        loops.add(loop)
    assert len(loops) == 1


def test_a_broadcast_is_a_line_of_metrics_and_a_failure_a_line_of_json(
    loaded: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Lambda hands them to CloudWatch: on standard output."""
    assert loaded.lambda_handler(stream_event(*incidents(2))) == {"batchItemFailures": []}
    assert json.loads(capsys.readouterr().out)["Delivered"] == [4]
    loaded.deliver_handler({"Records": [{"messageId": "m-1", "body": "no job"}]})
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["level"], each["service"]) for each in lines if "level" in each] == [
        ("ERROR", "async-relay"),
        ("WARNING", "async-relay"),
    ]


async def test_two_thousand_clients_get_everything_in_order(gateway: Gateway, deployed: Deployed) -> None:
    """Two incidents and a remediation log reach each; what is no message is ignored; forty in flight at most."""
    names = [f"L0SM9cOFvHcCI{number:04}=" for number in range(2_000)]
    deployed.fill(*names)
    records = [
        incident("inc-1", sequence="101"),
        incident("inc-1", sequence="102", event_name="REMOVE"),
        remediation("isolate", sequence="103"),
        incident("inc-2", sequence="104", event_name="MODIFY"),
        {**incident("x", sequence="105"), "dynamodb": {"SequenceNumber": "105", "NewImage": {"note": {"S": "hm"}}}},
    ]
    assert await deployed.call("lambda_handler", stream_event(*records)) == {"batchItemFailures": []}
    assert {name: order(gateway, name) for name in names} == {name: ["101", "103", "104"] for name in names}
    assert gateway.bad_signatures == 0
    assert gateway.most_in_flight <= 40


async def test_exactly_the_gone_rows_are_deleted(gateway: Gateway, deployed: Deployed) -> None:
    """Of 500 live and 200 gone clients, the gone are tried once and deleted."""
    live, gone = [f"live-{n}=" for n in range(500)], [f"gone-{n}=" for n in range(200)]
    deployed.fill(*[name for pair in zip(live, gone, strict=False) for name in pair], *live[200:])
    gateway.play(410, *gone)
    assert await deployed.call("lambda_handler", stream_event(*incidents(5))) == {"batchItemFailures": []}
    assert set(deployed.rows()) == set(live)
    assert {gateway.posts[name] for name in gone} == {1}
    assert all(order(gateway, name) == ["100", "101", "102", "103", "104"] for name in live)


async def test_a_handshake_still_finishing_is_no_gone_client(gateway: Gateway, deployed: Deployed) -> None:
    """Rows just written answer 410 for 300 ms; they are served and kept."""
    names = [f"new-{number}=" for number in range(20)]
    deployed.fill(*names, createdAt=int(time.time() * 1000))
    gateway.play(Until(time.monotonic() + 1.0, 410), *names)
    assert await deployed.call("lambda_handler", stream_event(*incidents(2))) == {"batchItemFailures": []}
    assert set(deployed.rows()) == set(names)
    assert all(order(gateway, name) == ["100", "101"] for name in names)


async def test_every_kind_of_trouble_at_once_loses_nothing(gateway: Gateway, deployed: Deployed) -> None:
    """420 clients, many of which answer 429 or 500 once or twice, cut the socket, or are slow: all 8 messages each."""
    names = [f"client-{number}=" for number in range(420)]
    deployed.fill(*names)
    troubles: list[Any] = [[429, 200], [429, 429, 200], [500, 200], [503, 500, 200], [Cut(), 200], Answer(delay=0.05)]
    for number, name in enumerate(names):
        if number % 10 < len(troubles):
            gateway.play(troubles[number % 10], name)
    assert await deployed.call("lambda_handler", stream_event(*incidents(8))) == {"batchItemFailures": []}
    assert all(order(gateway, name) == [str(n) for n in range(100, 108)] for name in names)
    assert set(deployed.rows()) == set(names)


async def test_forbidden_for_all_hands_everything_back(gateway: Gateway, with_queues: Deployed) -> None:
    """403 for all: the records come back at once, nothing is deleted or requeued."""
    with_queues.fill(*[f"{number}=" for number in range(60)])
    gateway.play(403)
    start = time.monotonic()
    failures = await with_queues.call("lambda_handler", stream_event(*incidents(3)))
    assert sequences(failures) == ["100", "101", "102"]
    assert time.monotonic() - start < 10
    assert len(with_queues.rows()) == 60
    assert with_queues.bodies(with_queues.retry) == []


async def test_one_forbidden_client_is_its_own_affair(gateway: Gateway, with_queues: Deployed) -> None:
    """One 403 among 200s is requeued; the others have everything."""
    with_queues.fill("no=", *[f"{number}=" for number in range(30)])
    gateway.play(403, "no=")
    assert await with_queues.call("lambda_handler", stream_event(*incidents(1))) == {"batchItemFailures": []}
    (job,) = with_queues.bodies(with_queues.retry)
    assert [client["connectionId"] for client in job["clients"]] == ["no="]
    assert job["reason"] == "forbidden"


async def test_an_unreachable_table_hands_everything_back(
    gateway: Gateway, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynamoDB does not answer: the records come back within seconds."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9")
    start = time.monotonic()
    failures = await deployed.call("lambda_handler", stream_event(*incidents(2)))
    assert sequences(failures) == ["100", "101"]
    assert time.monotonic() - start < 15
    assert gateway.posts.total() == 0


async def test_an_endpoint_that_is_down_hands_everything_back_within_seconds(
    gateway: Gateway, with_queues: Deployed
) -> None:
    """Nothing listens: handed back, nothing requeued, nothing deleted."""
    with_queues.fill(*[f"{number}=" for number in range(30)])
    await gateway.refuse()
    start = time.monotonic()
    failures = await with_queues.call("lambda_handler", stream_event(*incidents(2)))
    assert sequences(failures) == ["100", "101"]
    assert time.monotonic() - start < 10
    assert with_queues.bodies(with_queues.retry) == []
    assert len(with_queues.rows()) == 30


async def test_without_a_queue_a_client_that_always_fails_comes_back_in_time(
    gateway: Gateway, deployed: Deployed
) -> None:
    """The healthy are served; the sick one's records are handed back before the deadline."""
    deployed.fill("sick=", *[f"{number}=" for number in range(20)])
    gateway.play(500, "sick=")
    start = time.monotonic()
    failures = await deployed.call("lambda_handler", stream_event(*incidents(2)), seconds=5)
    assert sequences(failures) == ["100", "101"]
    assert time.monotonic() - start < 5
    assert all(order(gateway, f"{number}=") == ["100", "101"] for number in range(20))


async def test_healthy_clients_do_not_wait_for_failing_ones(gateway: Gateway, deployed: Deployed) -> None:
    """Twenty that fail three times, first in the table, four in flight: those behind are served first."""
    sick, healthy = [f"a-{n}=" for n in range(20)], [f"b-{n}=" for n in range(100)]
    deployed.fill(*sick, *healthy)
    gateway.play([500, 500, 500, 200], *sick)
    await deployed.call("lambda_handler", stream_event(*incidents(1)))
    assert all(order(gateway, name) == ["100"] for name in sick + healthy)


async def test_a_second_invocation_opens_hardly_a_socket(gateway: Gateway, deployed: Deployed) -> None:
    """Sockets outlive the invocation, and a server that closes or resets them all in between loses nothing."""
    names = [f"{number}=" for number in range(200)]
    deployed.fill(*names)
    await deployed.call("lambda_handler", stream_event(*incidents(1)))
    before = gateway.sockets_opened
    await deployed.call("lambda_handler", stream_event(*incidents(1)))
    assert gateway.sockets_opened - before <= 3
    for end in (gateway.close_idle, gateway.reset_idle):
        await end()
        assert await deployed.call("lambda_handler", stream_event(*incidents(1))) == {"batchItemFailures": []}
    assert {len(gateway.received[name]) for name in names} == {4}


async def test_bad_records_go_to_the_dead_letters_and_good_ones_to_everybody(
    gateway: Gateway, with_queues: Deployed
) -> None:
    """180 KB, malformed and without an image: dead letters by SequenceNumber; the good ones are delivered."""
    with_queues.fill("a=", "b=")
    huge = incident("huge", sequence="102", arn="x" * 180_000)
    malformed = {**incident("m", sequence="103"), "dynamodb": {"SequenceNumber": "103", "NewImage": {"a": {"Q": "1"}}}}
    imageless = {**incident("i", sequence="104"), "dynamodb": {"SequenceNumber": "104"}}
    event = stream_event(
        incident("inc-0", sequence="101"), huge, malformed, imageless, incident("inc-1", sequence="105")
    )
    assert await with_queues.call("lambda_handler", event) == {"batchItemFailures": []}
    letters = [body["deadLetter"] for body in with_queues.bodies(with_queues.letters)]
    assert {letter["sequence"]: letter["reason"] for letter in letters} == {
        "102": "too_large",
        "103": "undecodable",
        "104": "undecodable",
    }
    assert order(gateway, "a=") == order(gateway, "b=") == ["101", "105"]


async def test_without_dead_letters_only_the_bad_records_come_back(gateway: Gateway, deployed: Deployed) -> None:
    """The good ones are delivered; each bad one is handed back by its SequenceNumber."""
    deployed.fill("a=")
    imageless = {**incident("i", sequence="102"), "dynamodb": {"SequenceNumber": "102"}}
    event = stream_event(incident("inc-0", sequence="101"), imageless, incident("inc-1", sequence="103"))
    assert sequences(await deployed.call("lambda_handler", event)) == ["102"]
    assert order(gateway, "a=") == ["101", "103"]


async def test_three_sick_clients_never_fail_a_batch(gateway: Gateway, with_queues: Deployed) -> None:
    """Three answer 500 for ever: requeued by name, later served by the jobs."""
    names, sick = [f"ok-{n}=" for n in range(300)], ["sick-0=", "sick-1=", "sick-2="]
    with_queues.fill(*names, *sick)
    gateway.play(500, *sick)
    assert await with_queues.call("lambda_handler", stream_event(*incidents(4))) == {"batchItemFailures": []}
    assert all(order(gateway, name) == ["100", "101", "102", "103"] for name in names)
    (job,) = with_queues.bodies(with_queues.retry)
    assert sorted(client["connectionId"] for client in job["clients"]) == sick
    assert (job["attempt"], job["reason"]) == (1, "server_error")
    gateway.play(200, *sick)
    event = {"Records": [{"messageId": "m", "body": json.dumps(job), "attributes": {}}]}
    assert await with_queues.call("deliver_handler", event) == {"batchItemFailures": []}
    assert all(order(gateway, name) == ["100", "101", "102", "103"] for name in sick)


async def test_clients_that_never_answer_are_requeued_in_time(gateway: Gateway, with_queues: Deployed) -> None:
    """Ten hang, 400 are healthy, 15 s are left: the healthy are served, the ten requeued, the call ends in time."""
    names, hung = [f"ok-{n}=" for n in range(400)], [f"hung-{n}=" for n in range(10)]
    with_queues.fill(*hung, *names)
    gateway.play(Hang(), *hung)
    start = time.monotonic()
    assert await with_queues.call("lambda_handler", stream_event(*incidents(1)), seconds=15) == {
        "batchItemFailures": []
    }
    assert time.monotonic() - start < 15
    assert all(order(gateway, name) == ["100"] for name in names)
    requeued = [client["connectionId"] for job in with_queues.bodies(with_queues.retry) for client in job["clients"]]
    assert sorted(requeued) == sorted(hung)


async def test_what_there_was_no_time_for_is_continued(
    gateway: Gateway, with_queues: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 clients at 100 ms, ten in flight, 6 s: ends in time, the jobs serve the rest, at most 20 twice."""
    monkeypatch.setenv("MAX_CONCURRENCY", "10")
    names = [f"{number}=" for number in range(2_000)]
    with_queues.fill(*names)
    gateway.latency = 0.1
    start = time.monotonic()
    assert await with_queues.call("lambda_handler", stream_event(*incidents(1)), seconds=6) == {"batchItemFailures": []}
    assert time.monotonic() - start < 6
    gateway.latency = 0.0
    while jobs := with_queues.bodies(with_queues.retry):
        records = [{"messageId": str(at), "body": json.dumps(job), "attributes": {}} for at, job in enumerate(jobs)]
        assert await with_queues.call("deliver_handler", {"Records": records}) == {"batchItemFailures": []}
    assert set(gateway.received) == set(names)
    assert sum(gateway.arrivals.values()) <= 2_020


async def test_an_account_limit_is_found_and_kept(gateway: Gateway, with_queues: Deployed) -> None:
    """400 posts a second, 1,500 clients: done within twice the ideal time, refusals fewer than posts."""
    names = [f"{number}=" for number in range(1_500)]
    with_queues.fill(*names)
    gateway.limit(RateLimit(400, 40))
    start = time.monotonic()
    assert await with_queues.call("lambda_handler", stream_event(*incidents(1))) == {"batchItemFailures": []}
    assert time.monotonic() - start < 2 * 1_500 / 400
    assert gateway.arrivals.total() == 1_500
    assert gateway.statuses[429] < 1_500


async def test_connect_writes_the_row_and_disconnect_deletes_it(gateway: Gateway, deployed: Deployed) -> None:
    """The row has its times and who it is; nothing is posted."""
    event = {"requestContext": {"connectionId": "Zx1="}, "queryStringParameters": {"clientId": "analyst-7"}}
    assert await deployed.call("connect_handler", event) == {"statusCode": 200}
    anonymous = {"requestContext": {"connectionId": "Zx2="}}
    assert await deployed.call("connect_handler", anonymous) == {"statusCode": 200}
    rows = deployed.rows()
    assert rows["Zx1="]["clientId"] == {"S": "analyst-7"}
    assert rows["Zx2="]["clientId"] == {"S": "unknown"}
    assert abs(int(rows["Zx1="]["createdAt"]["N"]) - time.time() * 1000) < 10_000
    assert abs(int(rows["Zx1="]["ttl"]["N"]) - time.time() - 24 * 3600) < 10
    for _ in range(2):
        assert await deployed.call("disconnect_handler", event) == {"statusCode": 200}
    assert set(deployed.rows()) == {"Zx2="}
    assert gateway.posts.total() == 0


async def test_an_event_of_the_wrong_kind_says_where_the_function_belongs(deployed: Deployed) -> None:
    """Neither a stream event nor one of a WebSocket route."""
    with pytest.raises(RelayError, match="not an event of a DynamoDB Stream"):
        await deployed.call("lambda_handler", {"hello": "world"})
    with pytest.raises(RelayError, match="belongs on a WebSocket route"):
        await deployed.call("connect_handler", {"hello": "world"})


async def test_a_bad_setting_ends_the_cold_start(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named in one sentence."""
    monkeypatch.setenv("WS_ENDPOINT", "wss://abc.example/prod")
    with pytest.raises(SettingsError, match=r"WS_ENDPOINT is 'wss://abc\.example/prod'; it must be"):
        await deployed.call("lambda_handler", stream_event())


async def test_both_transports_serve_the_handler(
    gateway: Gateway, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRANSPORT=sdk delivers the same, and deletes the same."""
    monkeypatch.setenv("TRANSPORT", "sdk")
    deployed.fill("a=", "b=", "gone=")
    gateway.play(410, "gone=")
    assert await deployed.call("lambda_handler", stream_event(*incidents(2))) == {"batchItemFailures": []}
    assert order(gateway, "a=") == order(gateway, "b=") == ["100", "101"]
    assert set(deployed.rows()) == {"a=", "b="}


async def test_an_invocation_with_gone_and_sick_clients_needs_no_sdk(gateway: Gateway, with_queues: Deployed) -> None:
    """Rows read and deleted, leftovers requeued, all on our own sockets: the SDK is not even loaded."""
    live, gone = [f"live-{n}=" for n in range(20)], [f"gone-{n}=" for n in range(40)]
    with_queues.fill(*live, *gone)
    gateway.play(410, *gone)
    gateway.play(500, live[0])
    assert await with_queues.call("lambda_handler", stream_event(*incidents(2))) == {"batchItemFailures": []}
    assert set(with_queues.rows()) == set(live)
    assert len(with_queues.receive(with_queues.retry)) == 1
    assert with_queues.module is not None
    assert with_queues.module._sandbox._services.aws._sdk is None
