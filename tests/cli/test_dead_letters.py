"""The ``dead-letters`` commands: the pure parts by property, the commands against moto's SQS over HTTP."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from async_relay import cli
from async_relay.cli import aws_errors, dead_letter_views, queues, reading, screen
from async_relay.cli.app import app
from async_relay.cli.failure import CommandError
from async_relay.cli.parsing import Form, ParsedDeadLetter, parse_dead_letter, parse_json
from async_relay.cli.redrive import Resend, Stay, redrive
from async_relay.cli.selection import Selection, check_ids, id_length, parse_age, parse_time
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, Client, DeadLetter, Job, Shard
from async_relay.wire.messages import Message

NOW = 1_700_000_000_000
HOUR = 3_600_000

# Texts as they come, and as somebody who wants to hurt a terminal would choose them.
texts = st.text(max_size=20) | st.sampled_from(["\x1b[31m", "\x9b2J", "\x7f", "\u202egnp", "[red]x[/red]", "\r\n", "é"])
encodable = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | encodable
shapes = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
_KEYS = [*DeadLetter("", "", {}, 0).encode().split('"')[1::2], *Job((), ()).encode().split('"')[1::2]]
_KEYS += ["shard", "cursor", "index", "count", "connectionId", "skip", "reason", "body", "truncated", "keys", "head"]
_KEYS += ["dynamodb", "NewImage", "Keys", "incident_id", "action", "kind", "ApproximateCreationDateTime", "eventName"]
_KEYS += ["DDBStreamBatchInfo", "requestContext", "shardId", "condition", "batchSize", "startSequenceNumber"]
lookalikes = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**20) | st.floats() | texts | st.just(1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=6),
    max_leaves=20,
)


def message(number: int = 1, **fields: Any) -> Message:
    return Message.encode(
        {
            "kind": "incident_update",
            "incident_id": f"i-{number}",
            "event_id": f"ev{number}",
            "sequence": str(100 + number),
            **fields,
        }
    )


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    sizes = draw(st.lists(st.sampled_from([0, 10, 60_000, 120_000]), min_size=1, max_size=5))
    messages = tuple(message(at, pad="é" * (size // 2), more=draw(plain)) for at, size in enumerate(sizes))
    skips = draw(st.lists(st.integers(0, len(messages) - 1), min_size=1, max_size=5))
    clients = tuple(
        Client(f"{'C' * draw(st.sampled_from([1, 40_000]))}{at}", draw(st.none() | st.integers(0, NOW)), skip)
        for at, skip in enumerate(skips)
    )
    whom: dict[str, Any] = draw(
        st.sampled_from(
            [{"clients": clients}, {"shard": Shard(1, 8), "cursor": {"connectionId": {"S": "a"}}, "continuation": 2}]
        )
    )
    attempt, first_at = draw(st.integers(0, 9)), draw(st.integers(0, NOW))
    return Job(messages, **whom, attempt=attempt, first_at=first_at, reason=draw(encodable))


def owed(parts: list[Job]) -> dict[str, list[bytes]]:
    """What each client, or shard, gets of these jobs, in order."""
    result: dict[str, list[bytes]] = {}
    for part in parts:
        for name, skip in (
            [(f"{part.shard} {part.cursor} {part.continuation}", 0)]
            if part.shard
            else [(each.connection_id, each.skip) for each in part.clients]
        ):
            result.setdefault(name, []).extend(each.body for each in part.messages[skip:])
    return result


def record(number: int = 5, **image: Any) -> dict[str, Any]:
    return {
        "eventID": f"ev{number}",
        "eventName": "INSERT",
        "dynamodb": {
            "SequenceNumber": str(100 + number),
            "ApproximateCreationDateTime": NOW / 1_000,
            "Keys": {"incident_id": {"S": f"i-{number}"}},
            "NewImage": {"incident_id": {"S": f"i-{number}"}, **image},
        },
    }


def pretty(body: str) -> str:
    return dead_letter_views._pretty(parse_json(body), body)


LAMBDA_NOTE = {
    "requestContext": {"condition": "RetryAttemptsExhausted", "approximateInvokeCount": 4},
    "DDBStreamBatchInfo": {
        "shardId": "shardId-7",
        "startSequenceNumber": "800",
        "endSequenceNumber": "810",
        "batchSize": 3,
    },
}
TRUNCATED = DeadLetter(
    "undecodable", "too big", record(pad={"S": "y" * 300_000}), NOW, "ev7", "107", {"incident_id": {"S": "i-7"}}
)
EXHAUSTED = DeadLetter(
    "attempts_exhausted",
    "given up after 6 attempts",
    Job(
        (message(1), message(2)),
        (Client("A="), Client("B=", None, 1)),
        attempt=6,
        first_at=NOW - HOUR,
        reason="timed_out",
    ),
    NOW,
)
REFUSED = DeadLetter(
    "refused", "HTTP 400", Job((message(3),), (Client("A="),), first_at=NOW - HOUR), NOW - HOUR, "ev3", "103"
)
OVERSIZED = DeadLetter("too_large", "", Job((message(4, pad="x" * 140_000),), shard=Shard(), first_at=NOW), NOW)
UNDECODABLE = DeadLetter("undecodable", "N", record(5, x={"N": "abc"}), NOW, "ev5", "105")
DECODABLE = DeadLetter("undecodable", "fixed since", record(6, x={"N": "1"}), NOW, "ev6", "106")
NOT_A_JOB = DeadLetter("unreadable_job", "the body is not JSON", "{nonsense", NOW)
MOVED = Job((message(8),), (Client("D="),), attempt=2, first_at=NOW - HOUR, reason="throttled")


class TestReadLetter:
    @settings(deadline=None)
    @given(shapes.map(json.dumps) | lookalikes.map(json.dumps) | texts, st.none() | st.integers(0, NOW))
    @example("[" * 100_000, None)
    @example(f'{{"deadLetter":{{"reason":{"9" * 5_000}}}}}', None)
    def test_anything(self, body: str, sent_at: int | None) -> None:
        """Whatever lies in the queue can be read, judged, filtered and shown."""
        letter = parse_dead_letter("id", body, sent_at)
        assert letter.reason
        assert isinstance(redrive(letter), Resend | Stay)
        assert Selection().matches(letter)
        assert json.loads(dead_letter_views.as_json([letter]))[0]["form"] in list(Form)
        assert all(cell is not None for cell in dead_letter_views._row(letter, 8))
        assert pretty(body).replace("\n", "").isprintable()

    def test_depth(self) -> None:
        """However deep a payload nests, around the depth where JSON gives up too, a letter can be judged."""
        for depth in range(870, 1_000):
            nested = "[" * depth + "]" * depth
            body = f'{{"job":1,"clients":[{{"connectionId":"A="}}],"messages":[{{"a":{nested}}}]}}'
            assert isinstance(redrive(parse_dead_letter("id", body)), Resend | Stay)

    @given(jobs())
    def test_job(self, job: Job) -> None:
        """A dead letter of a job names its events, its clients or shard, its times and its attempts."""
        letter = parse_dead_letter("id", replace(EXHAUSTED, content=job).encode())
        if letter.form is Form.TRUNCATED:
            return
        assert letter.form is Form.JOB
        assert [event.event_id for event in letter.events] == [each.event_id for each in job.messages]
        assert letter.clients == tuple(each.connection_id for each in job.clients)
        assert letter.shard == ("shard 1 of 8, after a cursor" if job.shard else "")
        assert (letter.first_at or 0, letter.last_at, letter.attempt) == (job.first_at, NOW, job.attempt)

    @pytest.mark.parametrize(
        ("body", "form", "reason", "about", "event_id", "sequence", "addressee"),
        [
            (EXHAUSTED.encode(), Form.JOB, "attempts_exhausted", "i-1", "ev1", "101", "2 clients"),
            (REFUSED.encode(), Form.JOB, "refused", "i-3", "ev3", "103", "A="),
            (OVERSIZED.encode(), Form.JOB, "too_large", "i-4", "ev4", "104", "everybody"),
            (UNDECODABLE.encode(), Form.RECORD, "undecodable", "i-5", "ev5", "105", ""),
            (NOT_A_JOB.encode(), Form.BODY, "unreadable_job", "", "", "", ""),
            (TRUNCATED.encode(), Form.TRUNCATED, "undecodable", "i-7", "ev7", "107", ""),
            (MOVED.encode(), Form.MOVED, "max_receives", "i-8", "ev8", "108", "D="),
            (json.dumps(LAMBDA_NOTE), Form.LAMBDA, "stream_batch_failed", "", "", "800..810", ""),
            ('{"deadLetter": {}}', Form.OTHER, "unknown", "", "", "", ""),
            ('{"some": "map"}', Form.OTHER, "unknown", "", "", "", ""),
            ("hello", Form.OTHER, "unknown", "", "", "", ""),
        ],
    )
    def test_forms(
        self, body: str, form: Form, reason: str, about: str, event_id: str, sequence: str, addressee: str
    ) -> None:
        """Each kind of letter is told apart and says what it is about."""
        letter = parse_dead_letter("id", body, NOW)
        first = letter.events[0] if letter.events else None
        assert (letter.form, letter.reason, letter.addressee) == (form, reason, addressee)
        assert (first.subject if first else "") == about
        assert ((first.event_id, first.sequence) if first else ("", "")) == (event_id, sequence)

    def test_remediation_record(self) -> None:
        """A record without an incident is about its action, and began when the table changed."""
        raw = record(5, action={"S": "restart"})
        del raw["dynamodb"]["NewImage"]["incident_id"], raw["dynamodb"]["Keys"]
        letter = parse_dead_letter("id", replace(UNDECODABLE, content=raw).encode())
        assert letter.events[0].subject == "restart"
        assert letter.first_at == NOW

    def test_lambda_note(self) -> None:
        """A note of Lambda's says which range of which shard was given up, and why."""
        letter = parse_dead_letter("id", json.dumps(LAMBDA_NOTE), NOW)
        assert "3 stream records (RetryAttemptsExhausted): shard shardId-7, sequence 800 to 810" in letter.detail
        assert "an unknown number" in parse_dead_letter("id", '{"DDBStreamBatchInfo": {}}').detail

    def test_nameless_client(self) -> None:
        """A client without a connection id is passed over."""
        body = json.dumps({"job": 1, "messages": [], "clients": [{"skip": 1}, 7, {"connectionId": "A="}]})
        assert parse_dead_letter("id", body).clients == ("A=",)

    def test_impossible_times(self) -> None:
        """A time no calendar can show is no time."""
        body = json.dumps({"deadLetter": {"lastAt": 10**18}, "job": 1, "firstAt": -5, "messages": [], "clients": []})
        letter = parse_dead_letter("id", body, NOW)
        assert (letter.first_at, letter.last_at) == (None, NOW)


class TestRedrive:
    @settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
    @given(jobs(), st.booleans())
    def test_job(self, job: Job, moved: bool) -> None:
        """Every client is sent just what it lacked, in order, in bodies that fit, as if it had never been tried."""
        job = replace(job, written_at=NOW)
        letter = parse_dead_letter("id", job.encode() if moved else replace(REFUSED, content=job).encode())
        fate = redrive(letter)
        if letter.form is Form.TRUNCATED:
            assert isinstance(fate, Stay)
            return
        assert isinstance(fate, Resend)
        assert all(len(body.encode()) <= MAX_QUEUE_BODY_BYTES for body in fate.bodies)
        parts = [Job.decode(body) for body in fate.bodies]
        assert owed(parts) == owed([job])
        assert {(part.attempt, part.reason, part.first_at) for part in parts} == {(0, "", job.first_at)}
        assert {part.written_at for part in parts} == {0}  # how long it lay there is no delay of the relay's

    def test_record(self) -> None:
        """A record that today's code can decode becomes one job for everybody."""
        fate = redrive(parse_dead_letter("id", DECODABLE.encode()))
        assert isinstance(fate, Resend)
        job = Job.decode(fate.bodies[0])
        assert (job.shard, job.attempt, job.first_at) == (Shard(0, 1), 0, NOW)
        assert job.messages[0].payload["incident_id"] == "i-6"
        assert fate.summary == "1 message to everybody"

    def test_body_that_is_a_job_now(self) -> None:
        """A body an older version could not read is sent if it is a job today."""
        fate = redrive(parse_dead_letter("id", replace(NOT_A_JOB, content=MOVED.encode()).encode()))
        assert isinstance(fate, Resend)
        assert owed([Job.decode(fate.bodies[0])]) == owed([MOVED])

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (UNDECODABLE.encode(), "the record still cannot be decoded: attribute x does not hold"),
            (replace(UNDECODABLE, content={"eventName": "REMOVE"}).encode(), "nothing is sent for such a record"),
            (
                replace(UNDECODABLE, content=record(pad={"S": "x"}, severity={"S": "x" * 140_000})).encode(),
                "over the 131,072",
            ),
            (NOT_A_JOB.encode(), "its body is still no job: the body is not JSON"),
            (TRUNCATED.encode(), "too large to be kept whole"),
            (OVERSIZED.encode(), "over the 131,072 bytes API Gateway takes"),
            (json.dumps(LAMBDA_NOTE), "it holds no records"),
            ('{"job": 1}', "clients is not a list"),
            ("hello", "it is nothing of ours"),
        ],
    )
    def test_stays(self, body: str, why: str) -> None:
        """What cannot be delivered stays, and says why."""
        fate = redrive(parse_dead_letter("id", body))
        assert isinstance(fate, Stay)
        assert why in fate.why

    def test_oversized_among_good(self) -> None:
        """A job with one message too large goes back whole: the relay rejects that message and sends the others."""
        job = Job((message(1), message(2, pad="x" * 140_000)), (Client("A="),))
        fate = redrive(parse_dead_letter("id", job.encode()))
        assert isinstance(fate, Resend)

    def test_no_queue_message_holds_it(self) -> None:
        """A message larger than a queue message is not tried."""
        job = Job((message(1, pad="x" * 300_000), message(2)), (Client("A="),))
        fate = redrive(parse_dead_letter("id", job.encode()))
        assert isinstance(fate, Stay)
        assert "too large for a queue message" in fate.why


class TestSelection:
    LETTERS = tuple(
        parse_dead_letter(f"{at:04d}-id", letter.encode(), NOW)
        for at, letter in enumerate([EXHAUSTED, REFUSED, UNDECODABLE, DECODABLE, TRUNCATED])
    )

    @pytest.mark.parametrize(
        ("selection", "picked"),
        [
            (Selection(), "1 0 2 3 4"),
            (Selection(limit=2), "1 0"),
            (Selection(ids=("0002", "0000-i")), "0 2"),
            (Selection(reasons=("refused", "attempts_exhausted")), "1 0"),
            (Selection(event_id="ev2"), "0"),
            (Selection(client="A="), "1 0"),
            (Selection(client="B=", reasons=("refused",)), ""),
            (Selection(incident="i-7"), "4"),
            (Selection(since=NOW), "0 2 3 4"),
            (Selection(until=NOW), "1"),
        ],
    )
    def test_pick(self, selection: Selection, picked: str) -> None:
        """Every filter must match, and the oldest come first."""
        assert " ".join(letter.message_id[3] for letter in selection.pick(self.LETTERS)) == picked

    @pytest.mark.parametrize(("ids", "words"), [(("0009",), "has the id '0009'"), (("000",), "5 messages have an id")])
    def test_check(self, ids: tuple[str, ...], words: str) -> None:
        """An id that names no message, or several, is named."""
        with pytest.raises(CommandError, match=words):
            Selection(ids=ids).check([letter.message_id for letter in self.LETTERS])

    def test_check_ids(self) -> None:
        """An id counts once, and a stub of one is refused."""
        assert check_ids(["abcd", "abcd"]) == ("abcd",)
        with pytest.raises(CommandError, match="'abc' is too short"):
            check_ids(["abc"])

    @given(st.sets(st.text("ab", min_size=12, max_size=12), max_size=9))
    def test_id_length(self, ids: set[str]) -> None:
        """Ids are cut to eight characters or more, and still tell the messages apart."""
        size = id_length(ids)
        assert size >= 8
        assert len({each[:size] for each in ids}) == len(ids)

    @pytest.mark.parametrize(
        ("text", "at"),
        [
            ("90s", NOW - 90_000),
            ("2h", NOW - 2 * HOUR),
            ("1970-01-02", 24 * HOUR),
            ("1970-01-01T00:00:01", 1_000),
            ("1970-01-01T02:00+01:00", HOUR),
            ("1970-01-01T00:00:01Z", 1_000),
        ],
    )
    def test_parse_time(self, text: str, at: int) -> None:
        """A time is an age or ISO 8601, in UTC unless it says otherwise."""
        assert parse_time("--since", text, NOW) == at

    @given(texts)
    @example("9999999999d")
    @example("0001-01-01T00:00+23:59")
    @example("yesterday")
    def test_bad_time(self, text: str) -> None:
        """Any text is a time, or an error that names the option and the text."""
        problem = f"--since is {text!r}; it must be an age like "
        for read in (partial(parse_time, now=NOW), parse_age):
            try:
                read("--since", text)
            except CommandError as error:
                problem = str(error)
            assert problem.startswith(f"--since is {text!r}; it must be an age like ")


class TestScreen:
    @given(texts, st.booleans())
    def test_safe(self, text: str, lines: bool) -> None:
        """Nothing that could steer a terminal is left, and what is printable is as it was."""
        shown = screen.safe(text, lines=lines)
        assert shown.replace("\n", "" if lines else "\n").isprintable()
        assert (shown == text) == text.replace("\n", "" if lines else "\n").isprintable()

    @given(shapes)
    def test_pretty(self, value: Any) -> None:
        """A body is shown as the JSON it is."""
        shown = pretty(json.dumps(value))
        assert shown.replace("\n", "").isprintable()
        assert repr(json.loads(shown)) == repr(value)

    def test_deep_body(self) -> None:
        """A value that nests too deeply to be indented is shown as it came."""
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert dead_letter_views._pretty(deep, "[[…]]") == "[[…]]"

    def test_bad_body(self) -> None:
        """A body that is not JSON stays on one line, so that it cannot imitate ours."""
        assert pretty("x\nRedrive: sends") == "x\\u000aRedrive: sends"


class Shop(NamedTuple):
    """The two queues of a test, and their server."""

    sqs: Any
    dead: str
    retry: str

    def put(self, *bodies: str) -> list[str]:
        return [self.sqs.send_message(QueueUrl=self.dead, MessageBody=body)["MessageId"] for body in bodies]

    def bodies(self, url: str) -> list[str]:
        """What lies there, received and left."""
        found: list[str] = []
        while batch := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [each["Body"] for each in batch]
        self.sqs.purge_queue(QueueUrl=url)
        for body in found:
            self.sqs.send_message(QueueUrl=url, MessageBody=body)
        return found

    def held(self) -> tuple[int, int]:
        """How many are visible in the dead-letter queue, and how many are not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        counts = self.sqs.get_queue_attributes(QueueUrl=self.dead, AttributeNames=names)["Attributes"]
        return int(counts[names[0]]), int(counts[names[1]])


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment in which nothing but the local server can be met, whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("DEAD_LETTER_QUEUE_URL", "RETRY_QUEUE_URL", "FANOUT_QUEUE_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "up")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setattr(queues, "WAIT_SECONDS", 0)
    return endpoint


@pytest.fixture
def shop(environment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    sqs: Any = botocore.session.Session().create_client("sqs", region_name="eu-west-1", endpoint_url=environment)
    urls = [sqs.create_queue(QueueName=f"{name}-{time.monotonic_ns()}")["QueueUrl"] for name in ("dead", "retry")]
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", urls[0])
    monkeypatch.setenv("RETRY_QUEUE_URL", urls[1])
    yield Shop(sqs, *urls)
    sqs.close()


@dataclass
class Answer:
    code: int
    out: str
    err: str


def run(*args: str, answer: str = "") -> Answer:
    result = CliRunner().invoke(app, ["dead-letters", *args], input=answer, catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)


ALL = [letter.encode() for letter in (EXHAUSTED, REFUSED, OVERSIZED, UNDECODABLE, DECODABLE, NOT_A_JOB, TRUNCATED)]
ALL += [MOVED.encode(), json.dumps(LAMBDA_NOTE), "hello"]


class TestList:
    def test_table(self, shop: Shop) -> None:
        """Every letter is one line with its reason, and all are visible again."""
        ids = shop.put(*ALL)
        answer = run("list")
        assert answer.code == 0
        assert answer.err == ""
        for message_id in ids:
            assert answer.out.count(message_id[:8]) == 1
        for words in ("attempts_exhausted", "incident_update i-1 and 1 more", "2 clients", "max_receives", "800..810"):
            assert words in answer.out
        assert "10 of the 10 messages in the queue: 3 undecodable" in answer.out
        assert shop.held() == (10, 0)

    def test_narrow(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a narrow screen cells stand in pairs, and no line is wider than the screen."""
        shop.put(*ALL)
        monkeypatch.setenv("COLUMNS", "100")
        answer = run("list")
        assert max(map(len, answer.out.splitlines()[:-1])) <= 100
        assert "2023-11-14" in answer.out

    def test_many(self, shop: Shop) -> None:
        """More than one batch of messages is read to the end, each shown once."""
        ids = shop.put(*(replace(REFUSED, detail=str(at)).encode() for at in range(57)))
        rows = json.loads(run("list", "--json").out)
        assert sorted(row["messageId"] for row in rows) == sorted(ids)
        assert shop.held() == (57, 0)

    def test_filters(self, shop: Shop) -> None:
        """Filters on the command line narrow the list."""
        shop.put(*ALL)
        reasons = {
            ("--reason", "refused", "--reason", "unknown"): ["refused", "unknown"],
            ("--event-id", "ev2"): ["attempts_exhausted"],
            ("--client", "A=", "--limit", "1"): ["refused"],
            ("--incident", "i-7"): ["undecodable"],
            ("--until", "2023-11-14T22:00Z"): ["refused"],
            ("--older-than", "9000d"): [],
            ("--since", "1m", "--incident", "i-8"): ["max_receives"],
        }
        for args, expected in reasons.items():
            rows = json.loads(run("list", "--json", *args).out)
            assert [row["reason"] for row in rows] == expected

    def test_empty(self, shop: Shop) -> None:
        """An empty queue is said to be empty, not drawn as a table."""
        assert shop.held() == (0, 0)
        assert run("list").out == "0 of the 0 messages in the queue\n"

    def test_repeated_receipt(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message that comes again while the queue is read is shown once, and reading ends."""
        monkeypatch.setattr(queues, "HOLD_SECONDS", 0)
        shop.put(*ALL)
        assert len(json.loads(run("list", "--json").out)) == 10

    def test_failure_while_reading(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """When the command fails half way, what it holds is visible again."""
        shop.put(*ALL)

        def broken(*_: object) -> ParsedDeadLetter:
            assert shop.held()[1] > 0
            raise CommandError("half way")

        monkeypatch.setattr(reading, "parse_dead_letter", broken)
        assert run("list").err == "Error: half way\n"
        assert shop.held() == (10, 0)

    def test_cannot_give_back(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """Messages that could not be made visible again are counted on stderr."""
        shop.put(*ALL)
        release = queues.DeadLetterQueue.release

        def cut_off(queue: queues.DeadLetterQueue, kept: Any = ()) -> None:
            queue._url += "-gone"
            release(queue, kept)

        monkeypatch.setattr(queues.DeadLetterQueue, "release", cut_off)
        answer = run("list")
        assert "10 messages could not be made visible again" in answer.err


class TestShow:
    def test_whole(self, shop: Shop) -> None:
        """A letter is shown whole, with what a redrive would do, by the beginning of its id."""
        ids = shop.put(*ALL)
        answer = run("show", ids[0][:8], ids[3])
        assert answer.code == 0
        assert '"connectionId": "B="' in answer.out
        assert "Redrive: sends 2 messages to 2 clients" in answer.out
        assert "Redrive: not: the record still cannot be decoded" in answer.out
        assert shop.held() == (10, 0)

    def test_hostile(self, shop: Shop) -> None:
        """A payload cannot steer the terminal, nor be taken for markup."""
        evil = "\x1b]0;owned\x07[red]x[/red]\u202e\x7f\x9b2J"
        job = Job((message(1, resource=evil),), (Client(f"{evil}="),))
        (message_id,) = shop.put(DeadLetter("refused", evil, job, NOW, evil, evil).encode())
        for args in (("show", message_id), ("list",), ("list", "--json"), ("redrive", "--all", "--dry-run")):
            assert run(*args).out.replace("\n", "").isprintable()
        assert "[red]x[/red]" in run("show", message_id).out

    def test_unknown(self, shop: Shop) -> None:
        """An id that is not there is named, and the queue is left as it was."""
        shop.put(*ALL)
        answer = run("show", "nowhere")
        assert answer.code == 1
        assert answer.err.startswith("Error: no message in the queue has the id 'nowhere'")
        assert shop.held() == (10, 0)


class TestRedriveCommand:
    def test_dry_run(self, shop: Shop) -> None:
        """A dry run says what would be sent and what would stay, and changes nothing."""
        shop.put(*ALL)
        answer = run("redrive", "--all", "--dry-run")
        assert answer.code == 0
        assert answer.out.count("would send") == 4
        assert answer.out.endswith("Would send 4 of 10; 6 would stay.\n")
        assert shop.held() == (10, 0)
        assert shop.bodies(shop.retry) == []

    def test_with_the_relays_own_formatter(self, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A record is formatted by the function that MESSAGE_FORMATTER names; show says what it would send."""
        (tmp_path / "own_messages.py").write_text("def own(item, event_id, sequence): return {'own': event_id}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("MESSAGE_FORMATTER", "own_messages:own")
        (message_id,) = shop.put(DECODABLE.encode())
        assert "sends 1 message to everybody" in run("show", message_id).out
        assert run("redrive", "--all", "--yes").code == 0
        (body,) = shop.bodies(shop.retry)
        assert [message.payload for message in Job.decode(body).messages] == [{"own": "ev6"}]

    @pytest.mark.parametrize(
        ("arguments", "variable", "tenant"),
        [
            ((), None, None),
            ((), " owner ", "acme"),
            (("--tenant-attribute", "owner"), None, "acme"),
            (("--tenant-attribute", "owner"), "team", "acme"),
            (("--tenant-attribute", "nothing"), None, None),
            (("--tenant-attribute", ""), None, None),
        ],
    )
    def test_a_redriven_record_keeps_its_tenant(
        self,
        shop: Shop,
        arguments: tuple[str, ...],
        variable: str | None,
        tenant: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It bears that attribute of its item, as the relay's own messages do; without one it is for ``*`` alone."""
        if variable is not None:
            monkeypatch.setenv("TENANT_ATTRIBUTE", variable)
        shop.put(DeadLetter("undecodable", "", record(9, owner={"S": "acme"}, tenant={"S": "evil"}), NOW).encode())
        assert run("redrive", "--all", "--yes", *arguments).code == 0
        (body,) = shop.bodies(shop.retry)
        (message,) = Job.decode(body).messages
        assert message.payload.get("tenant") == tenant
        assert message.payload["incident_id"] == "i-9"

    def test_a_letter_knows_better_where_its_tenant_stands(self, shop: Shop) -> None:
        """The relay that wrote it says so, and no shell of an operator says otherwise."""
        item = record(9, owner={"S": "acme"}, team={"S": "umbra"})
        shop.put(DeadLetter("undecodable", "", item, NOW, tenant_attribute="owner").encode())
        assert run("redrive", "--all", "--yes", "--tenant-attribute", "team").code == 0
        (body,) = shop.bodies(shop.retry)
        (message,) = Job.decode(body).messages
        assert message.payload.get("tenant") == "acme"

    def test_all(self, shop: Shop) -> None:
        """What can be delivered is in the retry queue, the rest stays and makes the exit code 1."""
        shop.put(*ALL)
        answer = run("redrive", "--all", "--yes")
        assert answer.code == 1
        assert answer.out.endswith("Sent 4, failed 0, not tried 0, 6 cannot be sent.\n")
        jobs = [Job.decode(body) for body in shop.bodies(shop.retry)]
        assert sorted(job.messages[0].event_id for job in jobs) == ["ev1", "ev3", "ev6", "ev8"]
        assert {(job.attempt, job.reason) for job in jobs} == {(0, "")}
        assert shop.held() == (6, 0)

    def test_chosen(self, shop: Shop) -> None:
        """Only the letters chosen by id or by filter go, after a yes."""
        ids = shop.put(*ALL)
        answer = run("redrive", ids[1], answer="y\n")
        assert (answer.code, "Send 1 of 1 to" in answer.out + answer.err) == (0, True)
        assert run("redrive", "--incident", "i-8", "--yes").code == 0
        assert [Job.decode(body).messages[0].event_id for body in shop.bodies(shop.retry)] == ["ev3", "ev8"]
        assert shop.held() == (8, 0)

    def test_split(self, shop: Shop) -> None:
        """A job too large for one queue message of ours goes back as several, and is deleted once all are sent."""
        clients = tuple(Client("C" * 30_000 + str(at)) for at in range(10))
        job = Job((message(1, pad="x" * 100_000),), clients)
        shop.put(job.encode())
        answer = run("redrive", "--all", "--yes")
        assert answer.code == 0
        assert "sent 1 message to 10 clients, in 2 jobs" in answer.out
        assert owed([Job.decode(body) for body in shop.bodies(shop.retry)]) == owed([job])
        assert shop.held() == (0, 0)

    @pytest.mark.parametrize("answer", ["n\n", ""])
    def test_not_confirmed(self, shop: Shop, answer: str) -> None:
        """Without a yes nothing is sent."""
        shop.put(*ALL)
        result = run("redrive", "--all", answer=answer)
        assert result.code == 1
        assert "not confirmed, so nothing was done" in result.err
        assert shop.held() == (10, 0)
        assert shop.bodies(shop.retry) == []

    def test_progress(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """On a terminal a bar runs on stderr, and the results still go to stdout."""
        shop.put(*ALL)
        monkeypatch.setenv("FORCE_COLOR", "1")
        answer = run("redrive", "--all", "--yes")
        assert "4/4" in answer.err
        assert answer.out.endswith("Sent 4, failed 0, not tried 0, 6 cannot be sent.\n")

    def test_nothing_matches(self, shop: Shop) -> None:
        """Where nothing matches, nothing is asked and nothing fails."""
        shop.put(*ALL)
        answer = run("redrive", "--reason", "nonesuch")
        assert (answer.code, answer.err) == (0, "Nothing matches among the 10 messages in the queue.\n")

    def test_send_fails(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A letter that could not be sent is not deleted; after ten failures the rest is not tried."""
        shop.put(*(replace(REFUSED, detail=str(at)).encode() for at in range(40)))
        monkeypatch.setattr(queues.SendQueue, "check", lambda _: None)
        answer = run("redrive", "--all", "--yes", "--to", f"{shop.retry}-gone")
        assert answer.code == 1
        assert "failed: there is no queue" in answer.out
        assert "Sent 0, failed" in answer.out
        assert "not tried 0" not in answer.out
        assert shop.held() == (40, 0)

    def test_delete_fails(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A letter that was sent but not deleted is a failure that says it may be repeated."""
        shop.put(*ALL[:2])

        def refuse(*_: object) -> None:
            raise CommandError("no")

        monkeypatch.setattr(queues.DeadLetterQueue, "delete", refuse)
        answer = run("redrive", "--all", "--yes")
        assert answer.code == 1
        assert answer.out.count("failed: sent, but not deleted, so another redrive repeats it: no") == 2
        assert shop.held() == (2, 0)
        assert len(shop.bodies(shop.retry)) == 2

    def test_held_too_long(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message another reader took and deleted while the operator thought is not sent."""
        shop.put(*ALL[:2])
        monkeypatch.setattr(queues, "time", Hurried(time.monotonic))
        handles: list[str] = []
        received = queues._received

        def noted(each: dict[str, Any]) -> queues.Received:
            handles.append(each["ReceiptHandle"])
            return received(each)

        def think(*_: object, **__: object) -> None:
            for handle in handles:
                shop.sqs.delete_message(QueueUrl=shop.dead, ReceiptHandle=handle)

        monkeypatch.setattr(queues, "_received", noted)
        monkeypatch.setattr(screen, "confirm", think)
        answer = run("redrive", "--all")
        assert answer.code == 1
        assert answer.out.count("failed: it was held too long and is no longer ours") == 2
        assert shop.bodies(shop.retry) == []

    def test_held_on(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """A message whose time is half over is held on before it is sent."""
        shop.put(*ALL[:2])
        clock = time.monotonic
        monkeypatch.setattr(queues, "time", Hurried(clock))
        assert run("redrive", "--all", "--yes").code == 0
        assert len(shop.bodies(shop.retry)) == 2


class Hurried:
    """A clock on which five minutes pass between two looks."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._now = clock()

    def monotonic(self) -> float:
        self._now += 301
        return self._now


class TestDiscard:
    def test_saved(self, shop: Shop, tmp_path: Path) -> None:
        """The bodies are in the file, byte for byte, before the letters are gone."""
        ids = shop.put(*ALL)
        path = tmp_path / "letters.jsonl"
        answer = run("discard", "--all", "--save", str(path), answer="y\n")
        assert answer.code == 0
        assert answer.out.endswith("Deleted 10, failed 0, not tried 0.\n")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert {row["messageId"]: row["body"] for row in rows} == dict(zip(ids, ALL, strict=True))
        assert shop.held() == (0, 0)

    def test_chosen(self, shop: Shop) -> None:
        """Only the chosen letters are deleted, and a dry run deletes none."""
        shop.put(*ALL)
        assert run("discard", "--reason", "unknown", "--dry-run").out.endswith("Would delete 1.\n")
        assert run("discard", "--reason", "unknown", "--yes").code == 0
        assert shop.held() == (9, 0)
        assert "hello" not in shop.bodies(shop.dead)

    def test_file_exists(self, shop: Shop, tmp_path: Path) -> None:
        """A file that is there already is not written over."""
        shop.put(*ALL)
        path = tmp_path / "letters.jsonl"
        path.write_text("precious")
        assert run("discard", "--all", "--yes", "--save", str(path)).code == 2
        assert path.read_text() == "precious"

    def test_cannot_write(self, shop: Shop, tmp_path: Path) -> None:
        """What cannot be saved is not deleted."""
        shop.put(*ALL)
        answer = run("discard", "--all", "--yes", "--save", str(tmp_path / "nowhere" / "x"))
        assert answer.code == 1
        assert "cannot be written (No such file or directory), so nothing was deleted" in answer.err
        assert shop.held() == (10, 0)


class TestEnding:
    @pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_while_asking(self, shop: Shop, ending: signal.Signals) -> None:
        """Ctrl-C, SIGTERM or a closed terminal at the question leaves every message visible."""
        shop.put(*ALL)
        command = [sys.executable, "-c", "from async_relay.cli import main; main()", "dead-letters", "redrive", "--all"]
        with subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stderr is not None
            while process.stderr.read(1) != b"?":
                assert process.poll() is None
            assert shop.held() == (6, 4)
            process.send_signal(ending)
            process.communicate()
        assert process.returncode == 1
        assert shop.held() == (10, 0)
        assert shop.bodies(shop.retry) == []

    @pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
    def test_while_reading(self, shop: Shop, monkeypatch: pytest.MonkeyPatch, ending: signal.Signals) -> None:
        """Ctrl-C or SIGTERM while reading leaves every message visible."""
        shop.put(*ALL)

        def pressed(*_: object) -> ParsedDeadLetter:
            signal.raise_signal(ending)
            raise AssertionError("the signal came too late")

        monkeypatch.setattr(reading, "parse_dead_letter", pressed)
        answer = run("list")
        assert (answer.code, answer.out, answer.err) == (130, "", "Interrupted.\n")
        assert shop.held() == (10, 0)

    def test_while_sending(self, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C while sending ends what is under way, counts it, and gives the rest back."""
        shop.put(*(replace(REFUSED, detail=str(at)).encode() for at in range(40)))
        send = queues.SendQueue.send

        def pressed(queue: queues.SendQueue, *what: str) -> None:
            signal.raise_signal(signal.SIGINT)
            send(queue, *what)

        monkeypatch.setattr(queues.SendQueue, "send", pressed)
        answer = run("redrive", "--all", "--yes")
        assert answer.code == 130
        assert answer.err == "Interrupted.\n"
        sent = len(shop.bodies(shop.retry))
        assert 0 < sent < 40
        assert f"Sent {sent}, failed 0, not tried {40 - sent}" in answer.out
        assert shop.held() == (40 - sent, 0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["list", "--queue-url", " "], "no queue: give --queue-url or DEAD_LETTER_QUEUE_URL"),
            (["list", "--queue-url", "dead"], "--queue-url or DEAD_LETTER_QUEUE_URL is 'dead'; it must be the URL"),
            (["redrive", "--all", "--queue-url", "http://h/1/q.fifo"], "no queue: give --to or FANOUT_QUEUE_URL"),
            (["redrive", "--all", "--queue-url", "http://h/1/q.fifo", "--to", "http://h/1/r"], "lose their order"),
            (["list", "--since", "yesterday"], "--since is 'yesterday'; it must be an age like 2h or a time"),
            (["list", "--until", "never"], "--until is 'never'"),
            (["list", "--older-than", "2"], "--older-than is '2'; it must be an age"),
            (["list", "--older-than", "2h", "--until", "2h"], "give one of them"),
            (["show", "abc"], "the id 'abc' is too short"),
            (["redrive"], "nothing is chosen: give ids, a filter like --reason, or --all"),
            (["discard", "--limit", "3"], "nothing is chosen"),
            (["redrive", "--all", "--reason", "refused"], "exclude each other"),
            (["redrive", "--all", "--to", "http://h/1/q.fifo"], "--to or RETRY_QUEUE_URL is the FIFO queue"),
            (
                ["redrive", "--all", "--formatter", "f"],
                "--formatter or MESSAGE_FORMATTER is 'f'; it must be a function",
            ),
            (["show", "a" * 8, "--formatter", "no_such:f"], "and there is no module no_such"),
            (["redrive", "--all", "--to", ""], "no queue: give --to or RETRY_QUEUE_URL"),
        ],
    )
    def test_usage(self, shop: Shop, args: list[str], words: str) -> None:
        """A call that cannot be meant is refused in one sentence, with exit code 2."""
        answer = run(*args)
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith("Error: ")
        assert answer.err.count("\n") == 1
        assert words in answer.err
        assert shop.held() == (0, 0)

    def test_onto_itself(self, shop: Shop) -> None:
        """The dead-letter queue is not the queue to send to."""
        answer = run("redrive", "--all", "--to", shop.dead)
        assert (answer.code, "is the dead-letter queue itself" in answer.err) == (2, True)

    @pytest.mark.parametrize(
        ("variables", "words", "code"),
        [
            (
                {"DEAD_LETTER_QUEUE_URL": "http://127.0.0.1/1/gone"},
                "there is no queue http://127.0.0.1/1/gone: check",
                1,
            ),
            ({"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}, "no AWS credentials: sign in", 1),
            ({"AWS_REGION": None}, "no AWS region: give --region or AWS_REGION", 2),
            ({"AWS_REGION": "x y"}, "check AWS_REGION and AWS_PROFILE", 2),
            ({"AWS_PROFILE": "nobody"}, "The config profile (nobody) could not be found: check", 2),
            ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "no answer for http", 1),
            ({"AWS_ENDPOINT_URL": "garbage"}, "Invalid endpoint: garbage (check AWS_ENDPOINT_URL", 1),
        ],
    )
    def test_environment(
        self,
        shop: Shop,
        monkeypatch: pytest.MonkeyPatch,
        variables: dict[str, str | None],
        words: str,
        code: int,
    ) -> None:
        """What the environment lacks is named in one sentence, without a traceback."""
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name)
            else:
                monkeypatch.setenv(name, value)
        answer = run("list")
        assert (answer.code, answer.out) == (code, "")
        assert answer.err.count("\n") == 1
        assert words in answer.err
        assert shop.held() == (0, 0)

    @pytest.mark.parametrize(
        ("code", "operation", "words"),
        [
            ("AccessDenied", "ReceiveMessage", "allow sqs:ReceiveMessage on it"),
            ("AWS.SimpleQueueService.NonExistentQueue", "SendMessage", "there is no queue http://q"),
            ("ExpiredToken", "SendMessage", "the credentials have expired"),
            ("InvalidParameterValue", "ChangeMessageVisibility", "held too long"),
            ("Odd", "SendMessage", "http://q refused SendMessage: Odd because"),
        ],
    )
    def test_refusals(self, code: str, operation: str, words: str) -> None:
        """What SQS refuses becomes a sentence about the queue."""
        with pytest.raises(CommandError, match=words), aws_errors.aws_errors("http://q"):
            raise ClientError({"Error": {"Code": code, "Message": "because"}}, operation)

    def test_forgiven(self) -> None:
        """To be forbidden to ask about the retry queue is no reason not to send to it."""
        with aws_errors.aws_errors("http://q", ignored="AccessDenied"):
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetQueueAttributes")


class TestMain:
    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without typer or rich, one sentence says what to install."""
        monkeypatch.setattr(cli, "find_spec", lambda name: None if name == "typer" else object())
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == "async-relay needs typer: install them from the checkout: pip install '.[cli]'"

    def test_help(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The console script knows its commands, wherever its output goes."""
        out = io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["whatever", "dead-letters", "--help"])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 0
        assert "Usage: async-relay dead-letters" in out.getvalue()
        assert all(command in out.getvalue() for command in ("list", "show", "redrive", "discard"))

    @pytest.mark.parametrize(
        ("url", "region"),
        [
            ("https://sqs.ap-southeast-2.amazonaws.com/1/q", "ap-southeast-2"),
            ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1"),
            ("http://127.0.0.1/1/q", "eu-west-1"),
        ],
    )
    @pytest.mark.usefixtures("environment")
    def test_region(self, url: str, region: str) -> None:
        """The region is the queue's own, where its URL names it."""
        client = queues.connect(url)
        assert client.meta.region_name == region
        client.close()
