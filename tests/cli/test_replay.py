"""``async-relay replay`` against moto's S3 and a Lambda that answers by script, both over HTTP."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from deployment import Context, Deployed, incident, payloads
from lambda_server import Failed, lambda_server
from records import event
from typer.testing import CliRunner

from async_relay.cli import account, replay, replay_ends
from async_relay.cli.app import app
from async_relay.cli.given_up import NoBatch, Stored, check_size, read_batch, time_of
from async_relay.cli.pacing import Pacer
from async_relay.testing import Gateway

_NUMBERS = itertools.count()
_SHARD = "shardId-00000001573689847184-864758bb"
NOON = "2026-01-31T12.00.00"


def given_up(*records: Any, condition: str = "RetryAttemptsExhausted", **more: Any) -> dict[str, Any]:
    """The object for a batch, as the Lambda Developer Guide shows it."""
    return {
        "requestContext": {
            "requestId": "316aa6d0-8154-0000-9af7-85d5f4a6bc81",
            "functionArn": "arn:aws:lambda:eu-west-1:123456789012:function:relay",
            "condition": condition,
            "approximateInvokeCount": 4,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "version": "1.0",
        "timestamp": "2026-01-31T12:00:00.717Z",
        "DDBStreamBatchInfo": {
            "shardId": _SHARD,
            "startSequenceNumber": "100",
            "endSequenceNumber": "101",
            "approximateArrivalOfFirstRecord": "2026-01-31T06:00:00Z",
            "approximateArrivalOfLastRecord": "2026-01-31T06:00:00Z",
            "batchSize": len(records),
            "streamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2024-01-01T00:00:00.000",
        },
        "payload": json.dumps(event(*records)),
        **more,
    }


@dataclass
class Place:
    """A bucket, and a relay function that takes everything unless ``answer`` says otherwise."""

    s3: Any
    bucket: str
    events: list[Any] = field(default_factory=list)
    answer: Callable[[Any], Any] = lambda _event: {"batchItemFailures": []}

    def function(self, an_event: Any) -> Any:
        self.events.append(an_event)
        return self.answer(an_event)

    def keep(self, content: Any, at: str = NOON, name: str = "") -> str:
        """Write an object where Lambda would; its key."""
        key = f"aws/lambda/4b1f/{_SHARD}/2026/01/31/{at}-{name or next(_NUMBERS)}"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return key

    def keys(self) -> set[str]:
        return {each["Key"] for each in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])}

    def sent(self) -> list[list[str]]:
        """The SequenceNumbers of each event the function got."""
        return [[each["dynamodb"]["SequenceNumber"] for each in got["Records"]] for got in self.events]

    def run(self, *arguments: str, answer: str = "") -> Any:
        where = ["--bucket", self.bucket, "--function", "relay"]
        return CliRunner().invoke(app, ["replay", *where, *arguments], input=answer)


@dataclass
class Clients:
    """One client a service for all tests: making one takes longer than all that is asked of it."""

    url: str
    made: dict[str, Any] = field(default_factory=dict)
    function: Callable[[Any], Any] = lambda _event: None

    def client(self, service: str, config: Any, **_options: Any) -> Any:
        if service not in self.made:
            self.made[service] = account_client(service, config)
        return self.made[service]


account_client = account.client


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    def call(got: Any) -> Any:
        return made.function(got)

    with lambda_server(relay=call) as url:
        made = Clients(url)
        yield made
    for each in made.made.values():
        each.close()


@pytest.fixture
def place(moto_url: str, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_LAMBDA", clients.url)
    monkeypatch.setattr(account, "client", clients.client)
    s3 = replay_ends.Bucket("any")._s3
    place = Place(s3, f"given-up-{next(_NUMBERS)}")
    clients.function = place.function
    s3.create_bucket(Bucket=place.bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return place


async def test_what_lambda_gave_up_reaches_a_client_by_the_relays_own_function(
    deployed: Deployed, gateway: Gateway, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the object in the bucket through the handler to a client, in order and with the records' event ids."""
    monkeypatch.setattr(replay, "on_ending", lambda _react: nullcontext())  # Signals are the main thread's.
    deployed.fill("A=")
    place.answer = lambda got: deployed._thread.submit(deployed._call, "lambda_handler", got, Context()).result()
    place.keep(
        given_up(incident("inc-1", sequence="100"), incident("inc-1", sequence="101", event_name="MODIFY")), NOON
    )
    place.keep(given_up(incident("inc-1", sequence="102", event_name="MODIFY")), "2026-01-31T12.00.01")
    for _ in range(2):
        result = await asyncio.to_thread(place.run, "--all", "--yes")
        assert result.exit_code == 0, result.output
    got = [(each["event_id"], each["sequence"]) for each in payloads(gateway, "A=")]
    assert got == [(f"event-{number}", str(number)) for number in (100, 101, 102)] * 2
    assert "Sent 3 records of 2 objects; 0 failed, 0 unreadable, 0 not tried." in result.output
    assert len(place.keys()) == 2


def test_the_oldest_come_first_and_those_of_one_second_by_their_sequence(place: Place) -> None:
    """A batch that Lambda halved is given up half by half in the same second, under names that say nothing."""
    place.keep(given_up(incident("a", sequence="5")), "2026-01-31T12.00.01")
    place.keep(given_up(incident("a", sequence="20")), NOON, "aaa")
    place.keep(given_up(incident("a", sequence="9")), NOON, "bbb")
    place.keep(given_up(incident("a", sequence="1")), "2026-02-01T00.00.00")
    assert place.run("--all", "--yes").exit_code == 0
    assert place.sent() == [["9"], ["20"], ["5"], ["1"]]


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        (["--incident", "b"], [["2"], ["4"]]),
        (["--event-id", "event-3"], [["3"]]),
        (["--incident", "b", "--event-id", "event-3"], []),
        (["--since", "2026-01-31T12:00:01Z"], [["3", "4"]]),
        (["--until", "2026-01-31T12:00:01Z"], [["1", "2"]]),
        (["--since", "2026-01-31", "--until", "2026-01-31T12:00"], []),
        (["--all", "--prefix", "aws/lambda/4b1f/another/"], []),
    ],
)
def test_only_what_is_chosen_is_sent(place: Place, arguments: list[str], sent: list[list[str]]) -> None:
    """Records by incident or event id, objects by the time at which Lambda gave them up."""
    place.keep(given_up(incident("a", sequence="1"), incident("b", sequence="2")), NOON)
    place.keep(given_up(incident("a", sequence="3"), incident("b", sequence="4")), "2026-01-31T12.00.01")
    assert place.run(*arguments, "--yes").exit_code == 0
    assert place.sent() == sent


def test_a_dry_run_sends_and_deletes_nothing(place: Place) -> None:
    """It reads the objects, and says what is in them."""
    names = "abcde"
    place.keep(given_up(*(incident(each, sequence=str(at)) for at, each in enumerate(names))))
    result = place.run("--all", "--dry-run", "--delete")
    assert result.exit_code == 0
    assert "would send 5 records: a, b, c and 2 more" in result.output
    assert "Would send 5 records of 1 object; 0 failed" in result.output
    assert (place.events, len(place.keys())) == ([], 1)


def test_nothing_is_deleted_unless_asked(place: Place) -> None:
    """And an object goes only if all of it was sent."""
    whole = place.keep(given_up(incident("a", sequence="1")))
    part = place.keep(given_up(incident("a", sequence="2"), incident("b", sequence="3")))
    assert place.run("--all", "--yes").exit_code == 0
    assert place.keys() == {whole, part}
    result = place.run("--incident", "a", "--yes", "--delete")
    assert "it has others, so it stays" in result.output
    assert "1 deleted." in result.output
    assert place.keys() == {part}


def test_an_object_that_came_back_is_not_deleted(place: Place) -> None:
    """Neither one the function failed on."""
    kept = {place.keep(given_up(incident(name, sequence="1"))) for name in "ab"}
    place.answer = lambda _event: {"batchItemFailures": [{"itemIdentifier": "1"}]}
    result = place.run("--all", "--yes", "--delete")
    assert result.exit_code == 1
    assert "1 of 1 record came back; the function's log says why" in result.output
    assert place.keys() == kept


def test_a_failed_item_waits_and_the_others_go_on(place: Place) -> None:
    """Its later records are not sent before its earlier one, in this run; the next run begins with that one."""
    place.keep(given_up(incident("a", sequence="1"), incident("b", sequence="2")), NOON)
    place.keep(given_up(incident("a", sequence="3"), incident("b", sequence="4")), "2026-01-31T12.00.01")
    place.keep(given_up(incident("a", sequence="5")), "2026-01-31T12.00.02")
    place.answer = lambda got: {"batchItemFailures": [{"itemIdentifier": "1"}] if len(got["Records"]) == 2 else []}
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert place.sent() == [["1", "2"], ["4"]]
    assert "1 record wait, since an earlier change of the item failed" in result.output
    assert "Sent 2 records of 0 objects; 3 failed" in result.output
    assert "go on with --since 2026-01-31T12:00:00Z" in result.output


def test_it_goes_on_where_it_ended(place: Place) -> None:
    """The time that the summary names leaves out what was done before; an item that failed waited meanwhile."""
    for at, name in enumerate("abcb"):
        place.keep(given_up(incident(name, sequence=str(at))), f"2026-01-31T12.00.0{at}")

    def fail(got: Any) -> Any:
        if got["Records"][0]["dynamodb"]["SequenceNumber"] == "1":
            raise Failed("Runtime.ExitError", "signal: killed")
        return {"batchItemFailures": []}

    place.answer = fail
    result = place.run("--all", "--yes")
    assert "relay failed: Runtime.ExitError: signal: killed (its log says more)" in result.output
    assert place.sent() == [["0"], ["1"], ["2"]]
    place.events.clear()
    place.answer = lambda _event: {"batchItemFailures": []}
    since = result.output.split("go on with --since ")[1].strip()
    assert place.run("--since", since, "--yes").exit_code == 0
    assert place.sent() == [["1"], ["2"], ["3"]]


def test_it_goes_on_with_the_filters_it_had(place: Place) -> None:
    """The time alone would choose the other incidents' records as well."""
    place.keep(given_up(incident("a", sequence="1"), incident("b", sequence="2")))
    place.answer = lambda _event: {"batchItemFailures": [{"itemIdentifier": "1"}]}
    for more in (["--incident", "a"], ["--event-id", "event-1"], ["--until", "2026-02-01"]):
        result = place.run(*more, "--yes")
        assert result.output.rstrip().endswith("go on with --since 2026-01-31T12:00:00Z and the other filters"), more


def fails_on(*bad: int, kind: str = "Sandbox.Timedout") -> Callable[[Any], Any]:
    """A function that fails on events whose first record has one of these SequenceNumbers."""

    def function(got: Any) -> Any:
        if int(got["Records"][0]["dynamodb"]["SequenceNumber"]) in bad:
            raise Failed(kind, "x")
        return {"batchItemFailures": []}

    return function


def hands_back(*bad: int) -> Callable[[Any], Any]:
    """A function that hands back the records with these SequenceNumbers."""

    def function(got: Any) -> Any:
        numbers = [each["dynamodb"]["SequenceNumber"] for each in got["Records"]]
        return {"batchItemFailures": [{"itemIdentifier": each} for each in numbers if int(each) in bad]}

    return function


def keep_one_a_second(place: Place, count: int) -> None:
    """Objects of an item each, the SequenceNumber of which is the second."""
    for at in range(count):
        place.keep(given_up(incident(f"i{at}", sequence=str(at))), f"2026-01-31T12.00.{at:02}")


@pytest.mark.parametrize(
    "kind", ["Runtime.ImportModuleError", "Runtime.HandlerNotFound", "Extension.Crash", "SettingsError"]
)
def test_a_function_that_does_not_start_stops_it_wherever_it_is(place: Place, kind: str) -> None:
    """Three times in a row, after any number that were sent: no object can be blamed for it."""
    keep_one_a_second(place, 9)
    place.answer = fails_on(*range(2, 9), kind=kind)
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert place.sent() == [["0"], ["1"], ["2"], ["3"], ["4"]]
    assert "3 failed, 0 unreadable, 4 not tried." in result.output
    assert "Stopped: 3 times in a row the function could not be used: mend that first." in result.output
    assert "leaves out" not in result.output
    assert result.output.rstrip().endswith("go on with --since 2026-01-31T12:00:02Z")


@pytest.mark.parametrize("code", ["TooManyRequestsException", "AccessDeniedException", "ResourceNotFoundException"])
def test_a_function_that_may_not_be_called_stops_it_wherever_it_is(
    place: Place, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Throttled, denied or gone."""
    keep_one_a_second(place, 6)
    calls = refuse_from(1, code, monkeypatch)
    result = place.run("--all", "--yes")
    assert (result.exit_code, len(calls)) == (1, 4)
    assert "3 failed, 0 unreadable, 2 not tried." in result.output


def refuse_from(first: int, code: str, monkeypatch: pytest.MonkeyPatch, last: int = 99) -> list[Any]:
    """Lambda refuses the calls from one to another; the list that they are noted in."""
    real = replay_ends.RelayFunction("relay")._lambda
    invoke, calls = real.invoke, list[Any]()

    def refusing(**options: Any) -> Any:
        calls.append(options)
        if first < len(calls) <= last:
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "Invoke")
        return invoke(**options)

    monkeypatch.setattr(real, "invoke", refusing)
    return calls


@pytest.mark.parametrize(
    "answer", [fails_on(*range(9)), fails_on(*range(9), kind="Runtime.ExitError"), hands_back(*range(9))]
)
def test_bad_objects_are_set_aside_and_the_others_go_on(place: Place, answer: Callable[[Any], Any]) -> None:
    """Nine that the function fails on, or hands back, at the start: each is named, and the rest is sent."""
    keep_one_a_second(place, 11)
    place.answer = answer
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert len(place.sent()) == 11
    assert result.output.count("  failed: ") == 9
    assert "Sent 2 records of 2 objects; 9 failed, 0 unreadable, 0 not tried." in result.output
    assert "Stopped" not in result.output
    assert result.output.rstrip().endswith("go on with --since 2026-01-31T12:00:00Z")


@pytest.mark.parametrize("code", ["RequestTooLargeException", "InvalidRequestContentException"])
def test_an_event_that_lambda_refuses_is_the_objects_fault(
    place: Place, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the others go on, however many there are of it."""
    keep_one_a_second(place, 6)
    refuse_from(0, code, monkeypatch, last=4)
    result = place.run("--all", "--yes")
    assert place.sent() == [["4"], ["5"]]
    assert "Sent 2 records of 2 objects; 4 failed, 0 unreadable, 0 not tried." in result.output


def test_ten_failures_in_a_row_stop_it_wherever_they_are(place: Place) -> None:
    """They may all have one cause, which only the operator can tell: both ways to go on are named."""
    keep_one_a_second(place, 13)
    place.answer = fails_on(*range(1, 12))
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert len(place.sent()) == 11
    assert "Stopped: 10 objects in a row failed, which may have one cause: the function's log" in result.output
    assert "--since 2026-01-31T12:00:11Z leaves out those that failed, and later changes of their" in result.output
    assert result.output.rstrip().endswith("go on with --since 2026-01-31T12:00:01Z")
    place.events.clear()
    assert place.run("--since", "2026-01-31T12:00:11Z", "--yes").exit_code == 1
    assert place.sent() == [["11"], ["12"]]


def test_whatever_is_sent_between_failures_begins_the_count_anew(place: Place) -> None:
    """Thirty seconds of which every third is served; a batch of which a part is served counts, too."""
    keep_one_a_second(place, 30)
    place.answer = fails_on(*(at for at in range(30) if at % 3))
    assert "Sent 10 records of 10 objects; 20 failed, 0 unreadable, 0 not tried." in place.run("--all", "--yes").output
    place.answer = fails_on(*(at for at in range(30) if at % 3), kind="SettingsError")
    assert "Sent 10 records of 10 objects; 20 failed, 0 unreadable, 0 not tried." in place.run("--all", "--yes").output


def test_records_that_wait_are_no_failures_of_their_own(place: Place) -> None:
    """One item fails once, and twelve later changes of it are not tried."""
    for at in range(13):
        place.keep(given_up(incident("a", sequence=str(at))), f"2026-01-31T12.00.{at:02}")
    place.keep(given_up(incident("b", sequence="13")), "2026-01-31T12.00.13")
    place.answer = fails_on(0, kind="Runtime.ImportModuleError")
    result = place.run("--all", "--yes")
    assert place.sent() == [["0"], ["13"]]
    assert "13 failed, 0 unreadable, 0 not tried." in result.output


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        ([1], "it is not what Lambda writes"),
        ({"KinesisBatchInfo": {}, "payload": "{}"}, "it is not what Lambda writes"),
        (given_up(payload=None), "it has no payload"),
        (given_up(payload="{"), "its payload cannot be read: the event has no Records list"),
        (given_up(payload=7), "its payload cannot be read"),
        (given_up(), "its payload has no records"),
        (given_up(incident("\ud800", sequence="1")), "its payload cannot be sent"),
        (given_up(incident("a", sequence="1") | {"n": float("nan")}), "its payload cannot be sent"),
    ],
)
def test_a_bad_object_is_named_and_passed_over(place: Place, content: Any, problem: str) -> None:
    """One sentence for it, the others are sent, and the exit code tells."""
    bad = place.keep(content, NOON)
    place.keep(given_up(incident("a", sequence="1")), "2026-01-31T12.00.01")
    result = place.run("--all", "--yes", "--delete")
    assert result.exit_code == 1
    assert f"{bad}  passed over: {problem}" in result.output
    assert place.sent() == [["1"]]
    assert place.keys() == {bad}
    assert "Sent 1 record of 1 object; 0 failed, 1 unreadable, 0 not tried; 1 deleted." in result.output


def test_a_key_that_would_act_on_a_terminal_is_shown(place: Place) -> None:
    """So is an incident's id."""
    place.keep(b"no", NOON, "\x1b[31m")
    place.keep(given_up(incident("\u202ei\x07", sequence="1")), NOON)
    result = place.run("--all", "--dry-run")
    assert "\\u001b[31m  passed over" in result.output
    assert "would send 1 record: \\u202ei\\u0007" in result.output
    assert not set("\x1b\x07\u202e") & set(result.output)


def test_an_undecodable_record_is_sent_too(place: Place) -> None:
    """The relay makes a dead letter of it, which is where such a record belongs."""
    place.keep(
        given_up({"eventName": "INSERT", "dynamodb": {"SequenceNumber": "7"}}, {"dynamodb": {"SequenceNumber": "8"}})
    )
    assert place.run("--all", "--yes").exit_code == 0
    assert place.sent() == [["7", "8"]]


def test_a_record_arrives_as_it_was_kept(place: Place) -> None:
    """To the byte, as far as JSON has any."""
    record = incident("ü\u2028", sequence="1", note="é", n=12345678901234567890)
    place.keep(given_up(record))
    place.run("--all", "--yes")
    assert place.events == [{"Records": [record]}]


@pytest.mark.parametrize("answer", [None, [], {}, {"statusCode": 200}, {"batchItemFailures": None}, "x"])
def test_another_function_is_no_success(place: Place, answer: Any) -> None:
    """What answers otherwise than the relay may have done anything: nothing is deleted."""
    kept = {place.keep(given_up(incident("a", sequence="1")))}
    place.answer = lambda _event: answer
    result = place.run("--all", "--yes", "--delete")
    assert result.exit_code == 1
    assert "so it is not the relay's stream function" in result.output
    assert place.keys() == kept


def test_an_unknown_identifier_means_all_of_them(place: Place) -> None:
    """As for Lambda itself."""
    kept = {place.keep(given_up(incident("a", sequence="1"), incident("b", sequence="2")))}
    place.answer = lambda _event: {"batchItemFailures": [{"itemIdentifier": "99"}]}
    assert "2 of 2 records came back" in place.run("--all", "--yes", "--delete").output
    assert place.keys() == kept


@pytest.mark.parametrize("answer", ["n\n", ""])
def test_without_a_yes_nothing_is_sent(place: Place, answer: str) -> None:
    """The question says how much, where to, and whether it is deleted."""
    place.keep(given_up(incident("a", sequence="1")))
    result = place.run("--incident", "a", "--delete", answer=answer)
    assert result.exit_code == 1
    assert "Send what is chosen of 1 object to relay, and delete those that are sent whole? [y/N]" in result.output
    assert place.events == []
    assert place.run("--all", answer="y\n").exit_code == 0
    assert place.sent() == [["1"]]


def test_ctrl_c_ends_it_after_what_is_under_way(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says how to go on."""
    for at in range(3):
        place.keep(given_up(incident("a", sequence=str(at))), f"2026-01-31T12.00.0{at}")
    running: list[replay.Replay] = []

    def interrupted(_event: Any) -> Any:
        running[0]._interrupt()
        return {"batchItemFailures": []}

    place.answer = interrupted
    send_all = replay.Replay.send_all

    def noted(run: replay.Replay, found: Any) -> None:
        running.append(run)
        send_all(run, found)

    monkeypatch.setattr(replay.Replay, "send_all", noted)
    result = place.run("--all", "--yes")
    assert result.exit_code == 130
    assert "Sent 1 record of 1 object; 0 failed, 0 unreadable, 2 not tried." in result.output
    assert "go on with --since 2026-01-31T12:00:01Z" in result.output


def test_ctrl_c_sends_nothing_that_waits_for_its_turn(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a low rate that is minutes; nobody waits for them, and the object counts as not tried."""
    for at in range(3):
        place.keep(given_up(incident("a", sequence=str(at))), f"2026-01-31T12.00.0{at}")
    endings: list[Callable[[], None]] = []

    def ending(react: Callable[[], None]) -> nullcontext[None]:
        endings.append(react)
        return nullcontext()

    def wait(_pacer: Pacer, _turns: int, ended: Callable[[], bool]) -> None:
        if place.events:
            endings[0]()
            assert ended()

    monkeypatch.setattr(replay, "on_ending", ending)
    monkeypatch.setattr(Pacer, "wait", wait)
    result = place.run("--all", "--yes")
    assert result.exit_code == 130
    assert place.sent() == [["0"]]
    assert "Sent 1 record of 1 object; 0 failed, 0 unreadable, 2 not tried." in result.output
    assert "go on with --since 2026-01-31T12:00:01Z" in result.output


def test_who_has_ended_waits_for_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second's nap at the most, and not the whole wait."""
    naps: list[float] = []
    monkeypatch.setattr("async_relay.cli.pacing.time.sleep", naps.append)
    pacer = Pacer(0.001)
    pacer.wait()
    pacer.wait(1, lambda: bool(naps))
    assert naps
    assert max(naps) < 1


def test_the_rate_bounds_the_records(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch counts as many as it has."""
    place.keep(given_up(*(incident(f"i{at}", sequence=str(at)) for at in range(4))))
    turns: list[tuple[float, int]] = []
    monkeypatch.setattr(Pacer, "wait", lambda pacer, turn, _ended: turns.append((pacer.rate, turn)))
    place.run("--all", "--yes", "--rate", "50")
    assert turns == [(50, 4)]


def test_pages_are_followed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket of several pages is read to its end."""
    for at in range(5):
        place.keep(given_up(incident("a", sequence=str(at))))
    listing = place.s3.list_objects_v2
    monkeypatch.setattr(place.s3, "list_objects_v2", lambda **options: listing(**options, MaxKeys=2))
    place.run("--all", "--yes")
    assert len(place.events) == 5


def test_an_object_that_is_gone_is_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its 90 days may have ended meanwhile."""
    gone = place.keep(given_up(incident("a", sequence="1")))
    found = list(replay_ends.Bucket(place.bucket).list(""))
    place.s3.delete_object(Bucket=place.bucket, Key=gone)
    monkeypatch.setattr(replay_ends.Bucket, "list", lambda _bucket, _prefix: iter(found))
    assert f"{gone}  passed over: it is no longer there" in place.run("--all", "--yes").output


def test_an_object_that_is_archived_is_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of the bucket may have moved it; the others are sent."""
    place.keep(given_up(incident("a", sequence="1")), NOON)
    place.keep(given_up(incident("b", sequence="2")), "2026-01-31T12.00.01")
    get = place.s3.get_object

    def get_object(**options: Any) -> Any:
        if NOON in options["Key"]:
            raise place.s3.exceptions.InvalidObjectState({"Error": {"Code": "InvalidObjectState"}}, "GetObject")
        return get(**options)

    monkeypatch.setattr(place.s3, "get_object", get_object)
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert "passed over: it is archived: restore it, and run the command again" in result.output
    assert place.sent() == [["2"]]


def refuse(**_options: Any) -> Any:
    raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "Any")


def test_a_bucket_that_does_not_answer_ends_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which items are in what was not read."""
    for at in range(3):
        place.keep(given_up(incident("a", sequence=str(at))), f"2026-01-31T12.00.0{at}")
    monkeypatch.setattr(place.s3, "get_object", refuse)
    result = place.run("--all", "--yes")
    assert result.exit_code == 1
    assert "Sent 0 records of 0 objects; 0 failed, 0 unreadable, 3 not tried." in result.output
    assert "go on with --since 2026-01-31T12:00:00Z" in result.output
    assert f"the credentials may not use the bucket {place.bucket}: allow s3:GetObject" in result.output


def test_what_cannot_be_deleted_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was sent, and another run repeats it."""
    place.keep(given_up(incident("a", sequence="1")))
    monkeypatch.setattr(place.s3, "delete_object", refuse)
    result = place.run("--all", "--yes", "--delete")
    assert result.exit_code == 1
    assert "sent 1 record, but it could not be deleted, so another run repeats it: the credentials" in result.output
    assert len(place.keys()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--all", "--bucket", "not-there"], "there is no bucket not-there: check the name, the account"),
        (["--all", "--function", "other"], "there is no function other: check the name, the account"),
    ],
)
def test_what_is_not_there_is_one_sentence(place: Place, arguments: list[str], sentence: str) -> None:
    """For the bucket and the function alike."""
    place.keep(given_up(incident("a", sequence="1")))
    result = place.run(*arguments, "--yes")
    assert (result.exit_code, sentence in result.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing is chosen: give a filter like --since or --incident, or --all"),
        (["--all", "--incident", "a"], "--all and filters exclude each other: give one of them"),
        (["--incident", ""], "--incident is empty: name one"),
        (["--event-id", ""], "--event-id is empty: name one"),
        (["--since", "soon"], "--since is 'soon'; it must be an age like 2h or a time"),
        (["--all", "--bucket", " "], "no bucket: give --bucket or STREAM_FAILURE_BUCKET"),
        (["--all", "--function", ""], "no function: give --function or RELAY_FUNCTION"),
        (["--all", "--rate", "0"], "Invalid value for '--rate'"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """Before anything is read."""
    result = CliRunner().invoke(app, ["replay", "--bucket", "a-bucket", "--function", "relay", *arguments])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: {sentence}")


def test_an_empty_bucket_is_no_failure(place: Place) -> None:
    """Nothing is asked where there is nothing to send."""
    result = place.run("--all")
    said = f"No object under aws/lambda/ in the bucket {place.bucket} is chosen.\n"
    assert (result.exit_code, result.output) == (0, said)


def test_an_objects_time_is_its_names_else_its_own() -> None:
    """A copy keeps the time of the first, and other names have none."""
    written = datetime(2026, 3, 1, 1, 2, 3, 999_999, tzinfo=UTC)
    noon, march = 1_769_860_800_000, 1_772_326_923_000
    assert time_of("aws/lambda/m/s/2026/01/31/2026-01-31T12.00.00-u", written) == noon
    assert time_of("2026-01-31T12.00.00-u", written) == noon
    assert [time_of(key, written) for key in ("2026-13-31T12.00.00-u", "notes.txt", "2026-01-31T12.00.00-u/x")] == [
        march
    ] * 3


def test_what_is_too_large_is_not_read() -> None:
    """It would be read into memory."""
    check_size(Stored("k", 0, 12_000_000))
    with pytest.raises(NoBatch, match="it has 5,000,000,000 bytes"):
        check_size(Stored("k", 0, 5_000_000_000))


def test_a_payload_may_be_text_or_the_event_itself() -> None:
    """The guide shows text."""
    record = incident("a", sequence="1")
    for payload in (json.dumps(event(record)), event(record)):
        body = json.dumps(given_up(payload=payload)).encode()
        assert [each.event_id for each in read_batch(body)] == ["event-1"]
