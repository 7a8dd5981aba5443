"""Feeds the readers of foreign input with random input: each must return a value or raise the documented error.

    records       a stream's records                       a message, nothing, or a problem in one sentence
    jobs          bodies from the retry and fan-out queues  a job that can be written again, or UnreadableJob
    dead-letters  bodies from the dead-letter queue         a description
    answers       bytes from the endpoint, in pieces        None for a 200, else a PostError

hypothesis makes the input from valid examples with parts replaced, removed and cut, in JSON and below it,
and shrinks what fails. `make fuzz SECONDS=600 TARGETS='jobs answers'`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from socket import AF_INET, IPPROTO_TCP, SOCK_STREAM
from typing import Annotated, Any, NamedTuple

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from async_relay.cli.parsing import Form, parse_dead_letter
from async_relay.errors import Disconnected, PostError, ServerError, UndecodableRecord, UnreadableJob, post_error
from async_relay.http.direct import DirectTransport
from async_relay.http.sigv4 import Credentials, quote_id
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, DeadLetter, Job
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_records

from . import command
from .command import CommandError

IMAGE = {
    "incident_id": {"S": "inc-1"},
    "status": {"S": "OPEN"},
    "severity": {"N": "1E2"},
    "type": {"M": {"a": {"L": [{"NULL": True}, {"BOOL": False}]}}},
    "sg": {"SS": ["b", "a"]},
    "created_at": {"NS": ["10", "9.5"]},
    "updated_at": {"B": "AP8="},
    "arn": {"BS": ["AA=="]},
}
LOG = {"action": {"S": "Revoke"}, "resource": {"S": "sg-1"}, "timestamp": {"N": "1700000000.5"}}
RECORD: dict[str, Any] = {
    "eventID": "e1",
    "eventName": "INSERT",
    "dynamodb": {"Keys": {"incident_id": {"S": "inc-1"}}, "SequenceNumber": "111", "NewImage": IMAGE},
}
MESSAGES = [{"kind": "incident_update", "incident_id": 1, "event_id": "e1"}, {"kind": "remediation", "action": "é"}]
CLIENTS = [{"connectionId": "Zx="}, {"connectionId": "Ay=", "skip": 1, "createdAt": 1_700_000_000_000}]
JOB = {"job": 1, "attempt": 1, "firstAt": 5, "reason": "throttled", "clients": CLIENTS, "messages": MESSAGES}
PART = {"job": 1, "attempt": 0, "firstAt": 5, "shard": {"index": 1, "count": 8}, "hop": 2, "messages": MESSAGES}
CURSOR = {"cursor": {"connectionId": {"S": "Zx="}}}
DEAD_LETTER: dict[str, Any] = {
    "deadLetter": {"reason": "refused", "detail": "x", "eventID": "e1", "sequence": "111", "lastAt": 7}
}
BATCH = {"shardId": "s", "startSequenceNumber": "1", "endSequenceNumber": "9", "batchSize": 9}
NOTE = {"requestContext": {"condition": "RetryAttemptsExhausted"}, "DDBStreamBatchInfo": BATCH}

ODD = st.sampled_from(
    ["", "\0", "\ud800", "\uffff", ".", "..", "é" * 300, "NaN", "1E999", "9" * 5_000, "Infinity", "REMOVE"]
)
SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(2**62, 2**70), st.floats(), st.text(), ODD)
TAGS = st.sampled_from(["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS", "connectionId", "skip", "job"])
JUNK = st.recursive(
    SCALAR, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TAGS, inner, max_size=2)), max_leaves=5
)
DEPTHS = st.sampled_from([2, 90, 101, 149, 151, 400, 950, 2_000])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every list or map inside ``value`` with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


@st.composite
def nearly(draw: st.DrawFn, *examples: Any) -> Any:
    """One of the examples, with a few of its parts replaced, removed or doubled."""
    value = {"all": deepcopy(draw(st.sampled_from(examples)))}
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(_places(value)))
        match draw(st.integers(0, 5)):
            case 0 if holder is not value:
                del holder[key]
            case 1:
                holder[key] = [deepcopy(holder[key])] * 2
            case 2 if isinstance(holder, dict):
                holder[draw(TAGS)] = deepcopy(holder[key])
            case _:
                holder[key] = draw(JUNK)
    return value["all"]


@st.composite
def text_of(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> str:
    """The JSON of a value, sometimes cut, spliced or nested beyond reason."""
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(text)))
        deep = draw(DEPTHS)
        piece = draw(st.one_of(st.text(max_size=3), st.just('{"a":' * deep + "1" + "}" * deep), st.just("[" * deep)))
        text = text[:at] + piece + text[at + draw(st.integers(0, 4)) :]
    return text


#: Examples of the first run of hypothesis, which cannot be stopped by the clock: few, so that a second lasts no more
#: than two. Later runs are as long as the pace of the one before allows.
FIRST_EXAMPLES = 25
#: hypothesis remembers every example of a run.
MOST_EXAMPLES = 2_000


# Each target has a check that asserts the promises about it; the word a check returns is counted.


def check_record(raw: Any) -> str:
    """A record is a message, nothing or a problem, and always fits into a dead letter."""
    with suppress(UndecodableRecord):
        read_records(raw)
    (read,) = read_records({"Records": [raw]})
    dead_letter = DeadLetter(
        "undecodable", read.problem or "", raw, 1, read.event_id, read.sequence, read.keys
    ).encode()
    assert len(dead_letter.encode()) <= MAX_QUEUE_BODY_BYTES
    if read.problem is not None:
        assert read.message is None
        return f"problem: {' '.join(read.problem.split()[:2])} … {' '.join(read.problem.split()[-2:])[:24]}"
    if read.message is None:
        return "nothing to send"
    payload = json.loads(read.message.body)
    assert None not in payload.values()
    assert not (payload["kind"] == "incident_update" and {"action", "type"} & set(payload))
    return str(payload["kind"])


def check_job(body: str) -> str:
    """A body is a job whose every client can be served and whose parts fit, or unreadable."""
    try:
        job = Job.decode(body)
    except UnreadableJob as error:
        return f"unreadable: {error}"
    assert Job.decode(job.encode()) == job
    job.deduplication_id(0)
    for part in job.split():
        assert len(part.encode().encode()) <= MAX_QUEUE_BODY_BYTES
    for client in job.clients:
        quote_id(client.connection_id)
        assert isinstance(job.messages[client.skip], Message)
    assert Job.decode(DeadLetter("attempts_exhausted", "x", job, 1).encode()) == job
    return "job for clients" if job.clients else "job for a shard"


def check_dead_letter(body: str) -> str:
    """A dead letter is described, whatever it holds."""
    dead_letter = parse_dead_letter("id", body, 5)
    assert isinstance(dead_letter.form, Form)
    assert all(isinstance(text, str) for text in (dead_letter.addressee, dead_letter.reason, dead_letter.detail))
    return dead_letter.form.value


class Wire(asyncio.Transport):
    """An open connection, until it is aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.carries = asyncio.Event()
        self.cut = False

    def write(self, data: Any) -> None:  # noqa: ARG002 - nobody reads the request
        """Note that the request is on its way."""
        self.carries.set()

    def abort(self) -> None:
        """No more pieces come."""
        self.cut = True


class WireLoop(asyncio.SelectorEventLoop):
    """A loop whose connections are a ``Wire`` each and go nowhere: the real transport, without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: asyncio.Queue[tuple[Wire, asyncio.Protocol]] = asyncio.Queue()

    async def getaddrinfo(self, host: Any, port: Any, *_args: Any, **_named: Any) -> Any:
        """One address."""
        return [(AF_INET, SOCK_STREAM, IPPROTO_TCP, "", (host, port))]

    async def sock_connect(self, *_args: Any) -> None:
        """At once."""

    async def create_connection(self, protocol_factory: Callable[[], Any], *_args: Any, **named: Any) -> Any:
        """A wire in place of the socket."""
        named["sock"].close()
        wire, protocol = Wire(), protocol_factory()
        protocol.connection_made(wire)
        self.opened.put_nowait((wire, protocol))
        return wire, protocol


class Recipient(NamedTuple):
    """A client, as far as a transport looks at it."""

    connection_id: str


class Answer(NamedTuple):
    """Bytes in pieces, and the status they give if they are whole."""

    pieces: list[bytes]
    status: int | None


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """1xx answers, a final one with its body, then perhaps damage, in pieces."""
    wire = b"".join(draw(st.lists(st.sampled_from([b"HTTP/1.1 100 Continue\r\n\r\n", EARLY_HINTS]), max_size=2)))
    status = draw(st.sampled_from([200, 200, 400, 403, 404, 408, 410, 413, 429, 500, 502, 503, 504, 302, 206]))
    body = draw(st.sampled_from([b"", b'{"message":"Gone"}', b"\xff" * 300, b"x" * 20_000]))
    headers = draw(st.lists(st.sampled_from([b"Connection: close", b"connection: keep-alive", b"X-A: \xe9", b"A:"])))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:at], body[at:]) if part]
        headers.append(b"Transfer-Encoding: chunked")
        body = b"".join(parts) + b"0\r\n\r\n"
    else:
        headers.append(b"Content-Length: %d" % len(body))
    wire += b"HTTP/1.1 %d %b\r\n%b\r\n\r\n%b" % (status, draw(REASONS), b"\r\n".join(headers), body)
    whole = draw(st.booleans())
    for _ in range(0 if whole else draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(wire)))
        wire = wire[:at] + draw(DAMAGE) + wire[at + draw(st.integers(0, 9)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    ends = zip([0, *cuts], [*cuts, len(wire)], strict=True)
    return Answer([wire[start:end] for start, end in ends if end > start], status if whole else None)


ENDPOINT = "http://gateway.example/prod"
MESSAGE = Message.encode({})
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
REASONS = st.sampled_from([b"", b"OK", b"Whatever it is"])
DAMAGE = st.one_of(
    st.binary(max_size=4),
    st.sampled_from(
        [b"\r\n", b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 101 \r\nUpgrade: x\r\n\r\n", b"z" * 70_000]
    ),
    st.sampled_from(
        [b"HTTP/2 200\r\n", b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: gzip\r\n", b"-1"]
    ),
)


def check_answer(answer: Answer) -> str:
    """A whole answer is its status however it is cut; a damaged one is a temporary failure or what it says."""
    with asyncio.Runner(loop_factory=WireLoop) as runner:
        return runner.run(_check_answer(answer))


async def _check_answer(answer: Answer) -> str:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WireLoop)
    transport = DirectTransport(ENDPOINT, region="eu-west-1", credentials=_credentials, tls=None)
    outcomes: list[PostError | None] = []
    await transport.begin()
    transport.send(Recipient("Zx="), MESSAGE, lambda _recipient, error: outcomes.append(error))
    wire, protocol = await loop.opened.get()
    await wire.carries.wait()
    for piece in answer.pieces:
        if not wire.cut:
            protocol.data_received(piece)
    if answer.status is not None:
        expected = None if answer.status == 200 else post_error(answer.status)
        assert [type(each) for each in outcomes] == [type(expected)]
    waiting = not outcomes
    protocol.eof_received()
    protocol.connection_lost(None)
    await transport.close()
    assert len(outcomes) == 1
    assert outcomes[0] is None or isinstance(outcomes[0], PostError)
    assert isinstance(outcomes[0], (Disconnected, ServerError)) or not waiting
    return "nothing until the end" if waiting else type(outcomes[0]).__name__


async def _credentials() -> Credentials:
    return Credentials("AKIDEXAMPLE", "secret", None)


RECORDS = nearly(
    RECORD, RECORD | {"dynamodb": RECORD["dynamodb"] | {"NewImage": LOG}}, RECORD | {"eventName": "REMOVE"}
)
BODIES = [
    JOB,
    PART,
    PART | CURSOR,
    DEAD_LETTER | JOB,
    DEAD_LETTER | {"record": RECORD},
    DEAD_LETTER | {"body": "x"},
    NOTE,
]
CUT = {"deadLetter": DEAD_LETTER["deadLetter"] | {"keys": RECORD["dynamodb"]["Keys"]}, "truncated": True, "head": "x"}
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], str]]] = {
    "records": (RECORDS, check_record),
    "jobs": (text_of(nearly(*BODIES[:4])), check_job),
    "dead-letters": (text_of(nearly(*BODIES, CUT)), check_dead_letter),
    "answers": (answers(), check_answer),
}


def fuzz(name: str, seconds: float) -> Counter[str]:
    """Try ``name`` for so long and count each outcome; raises the failure that hypothesis found and shrank."""
    inputs, check = TARGETS[name]
    outcomes: Counter[str] = Counter()

    def once(value: Any) -> None:
        outcomes[check(value)] += 1

    number, examples = time.time_ns(), FIRST_EXAMPLES
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        number += 1
        bounds = settings(
            max_examples=examples,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        )
        seed(number)(bounds(given(inputs)(once)))()
        pace = examples / (time.monotonic() - began)
        examples = max(FIRST_EXAMPLES, min(MOST_EXAMPLES, int(pace * (end - time.monotonic()))))
    return outcomes


def main(
    seconds: Annotated[float, typer.Argument(min=0, max=86_400, help="for all targets together")] = 60.0,
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[TARGET]...", help=f"of {', '.join(TARGETS)}; default: all")
    ] = None,
) -> int:
    """Feed each target with random input for its share of the time; fail if one of them fails."""
    if unknown := set(targets or ()) - set(TARGETS):
        raise CommandError(f"no target is called {', '.join(sorted(unknown))}: there are {', '.join(TARGETS)}")
    names, failed = targets or list(TARGETS), False
    for name in names:
        print(f"{name}: {seconds / len(names):.0f} s", flush=True)
        try:
            seen = fuzz(name, seconds / len(names))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            failed = True
            print(f"  FOUND {type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n  ")
            continue
        print(f"  {seen.total():,} executions, nothing found")
        for outcome, count in seen.most_common(12):
            print(f"  {count:>9,}  {outcome}")
    return int(failed)


if __name__ == "__main__":
    command.run(main)
