"""The scripted gateway, driven over raw sockets, with requests signed by botocore."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import botocore.session
import httptools
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from async_relay.http.sigv4 import Signer, quote_id
from async_relay.testing import (
    Answer,
    Choice,
    Counters,
    Credentials,
    Cut,
    Drip,
    Garbage,
    Gateway,
    GatewayProcess,
    Half,
    Hang,
    RateLimit,
    SlowHeader,
    Tls,
    Until,
    gateway_process,
    huge_header,
)
from async_relay.testing.gateway import _Socket
from async_relay.testing.scripts import Bucket, Casting

CREDENTIALS = Credentials("AKIDEXAMPLE", "secret", "session/token+with=signs")
ODD_IDS = ["L0SM9cOFvHcCIhw=", "a/b", "a+b", "100%", "%3D", "käse ☃", "~-._", "a b?c&d#e", ".."]
SOON = 0.05


class Received(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    interim: list[int]
    reads: int


class _Answers:
    """Collects one answer; 1xx ones are kept apart."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: dict[str, str] = {}
        self.body = b""
        self.interim: list[int] = []
        self.status = 0

    def on_message_begin(self) -> None:
        self.headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code()
        if status < 200:
            self.interim.append(status)
        else:
            self.status = status


class Wire:
    """One raw connection to a gateway."""

    def __init__(self, endpoint: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.endpoint = endpoint
        self.reader = reader
        self.writer = writer

    async def send(self, request: bytes) -> Received:
        """One answer; raises ``EOFError`` where the socket ends before it does."""
        self.writer.write(request)
        answers = _Answers()
        reads = 0
        while not answers.status:
            data = await self.reader.read(65_536)
            if not data:
                raise EOFError
            reads += 1
            answers.parser.feed_data(data)
        return Received(answers.status, answers.headers, answers.body, answers.interim, reads)

    async def post(self, connection_id: str = "a=", body: bytes = b"hello") -> Received:
        return await self.send(unsigned(self.endpoint, connection_id, body))

    async def at_end(self) -> bool:
        """True when the other side has closed the socket in an orderly way."""
        async with asyncio.timeout(1):
            return await self.reader.read(1) == b""


@contextlib.asynccontextmanager
async def wire(gateway: Gateway | GatewayProcess) -> AsyncIterator[Wire]:
    url = urlsplit(gateway.endpoint)
    tls = ssl.create_default_context(cafile=gateway.ca_file) if gateway.ca_file else None
    reader, writer = await asyncio.open_connection("localhost", url.port, ssl=tls)
    try:
        yield Wire(gateway.endpoint, reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def post(gateway: Gateway | GatewayProcess, connection_id: str = "a=", body: bytes = b"hello") -> Received:
    async with wire(gateway) as connection:
        return await connection.post(connection_id, body)


def unsigned(endpoint: str, connection_id: str, body: bytes = b"hello", method: str = "POST") -> bytes:
    url = urlsplit(f"{endpoint}/@connections/{quote(connection_id, safe='')}")
    return encode(method, url.path, {"Host": url.netloc}, body)


def encode(method: str, target: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Signed(NamedTuple):
    """A request signed by botocore, in parts that can be tampered with."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def wire(self) -> bytes:
        return encode(*self)


def signed(
    gateway: Gateway | GatewayProcess,
    connection_id: str = "a=",
    body: bytes = b"hello",
    *,
    credentials: Credentials = CREDENTIALS,
    region: str = "us-east-1",
    service: str = "execute-api",
    method: str = "POST",
    prefix: str = "@connections",
) -> Signed:
    url = urlsplit(f"{gateway.endpoint}/{prefix}/{quote(connection_id, safe='')}")
    request = AWSRequest(method, url.geturl(), {"Content-Type": "application/json"}, body)
    keys = ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token or "")
    SigV4Auth(keys, service, region).add_auth(request)
    return Signed(method, url.path, {"Host": url.netloc, **dict(request.headers.items())}, body)


async def statuses(gateway: Gateway, *requests: Signed) -> list[int]:
    async with wire(gateway) as connection:
        return [(await connection.send(request.wire)).status for request in requests]


def message(received: Received) -> str:
    return str(json.loads(received.body)["message"])


async def until(true: Callable[[], bool]) -> None:
    """Wait for what the gateway has no event for."""
    async with asyncio.timeout(2):
        while not true():  # noqa: ASYNC110 - the gateway tells numbers, not events
            await asyncio.sleep(0.002)


async def told(gateway: Gateway) -> None:
    """Wait until the gateway has heard of every socket's end."""
    await until(lambda: gateway.counters().sockets_open == 0)


# --- posts, and what is recorded of them


@pytest.mark.parametrize("tls", [False, True])
async def test_records_in_order(tls: bool) -> None:
    """Each client's messages are recorded in the order they came."""
    async with Gateway(tls=tls) as gateway, wire(gateway) as connection:
        for body in (b"one", b"two", b"one"):
            assert (await connection.post("a=", body)).status == 200
        await connection.post("b=", b"other")
        assert gateway.endpoint.startswith("https://localhost:" if tls else "http://localhost:")
        assert gateway.endpoint.endswith("/prod")
        assert gateway.received == {"a=": [b"one", b"two", b"one"], "b=": [b"other"]}
        assert gateway.arrivals == {"a=": 3, "b=": 1}
        assert repr(gateway) == f"<{gateway.endpoint}: 4 posts, 4 arrived, 0 in flight, 1 sockets open>"
    assert "not started" in repr(Gateway())


@pytest.mark.parametrize("connection_id", ODD_IDS)
async def test_decodes_ids(connection_id: str) -> None:
    """An id is recorded as its owner writes it, whatever the wire had to do to it."""
    async with Gateway() as gateway:
        await post(gateway, connection_id)
        assert list(gateway.received) == [connection_id]


async def test_counts_only() -> None:
    """Without ``keep``, messages are counted for each client and not held."""
    async with Gateway(keep=False) as gateway:
        await post(gateway)
        assert gateway.arrivals == {"a=": 1}
        assert not gateway.received


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/prod/%40connections/a%3D", 200),
        ("/prod/@connections/a%3d?x=y", 200),
        ("/dev/@connections/a%3D", 403),
        ("/prod/@connections/a/b", 400),
        ("/prod/@connections/", 400),
        ("/prod/@connections/%zz", 400),
        ("/prod/@connections/%ff", 400),
    ],
)
async def test_paths(target: str, status: int) -> None:
    """Both spellings of the path lead to a client; a wrong one is a 403, a malformed id a 400."""
    async with Gateway() as gateway, wire(gateway) as connection:
        assert (await connection.send(encode("POST", target, {"Host": "h"}, b"x"))).status == status
        assert gateway.posts == ({"a=": 1} if status == 200 else {})
        assert gateway.counters().misdirected == (status != 200)


async def test_serves_pipelined_posts_in_turn() -> None:
    """Posts sent without waiting are answered one after the other."""
    async with Gateway([Answer(delay=0.01), 429, 200]) as gateway, wire(gateway) as connection:
        connection.writer.write(b"".join(unsigned(gateway.endpoint, "a=", body) for body in (b"one", b"two", b"three")))
        lines = [await connection.reader.readuntil(b"HTTP/1.1 ") + await connection.reader.readline() for _ in range(3)]
        assert [line.split()[-2:] for line in lines] == [[b"200", b"OK"], [b"Many", b"Requests"], [b"200", b"OK"]]
        assert gateway.received["a="] == [b"one", b"three"]
        assert gateway.counters().most_in_flight == 1


async def test_what_is_not_http_is_a_400() -> None:
    """A client that does not speak HTTP is told so, and left."""
    async with Gateway() as gateway, wire(gateway) as connection:
        assert (await connection.send(b"\x00\x01\r\n\r\n")).status == 400
        assert await connection.at_end()


async def test_client_may_close() -> None:
    """A client that asks for ``Connection: close`` gets its answer and the end."""
    async with Gateway() as gateway, wire(gateway) as connection:
        request = encode("POST", "/prod/@connections/a", {"Host": "h", "Connection": "close"}, b"")
        assert (await connection.send(request)).status == 200
        assert await connection.at_end()


async def test_refuses_what_is_too_large() -> None:
    """A body over what API Gateway takes is a 413, and does not arrive."""
    async with Gateway(max_body=4) as gateway:
        assert (await post(gateway, "a=", b"12345")).status == 413
        assert (await post(gateway, "a=", b"1234")).status == 200
        assert gateway.received["a="] == [b"1234"]


async def test_tears_a_post_in_the_middle() -> None:
    """Its socket is reset when so much of the body has come; it counts as a post without an answer."""
    async with Gateway() as gateway:
        gateway.tears = lambda name: 5 if name == "a=" else None
        assert (await post(gateway, "a=", b"1234")).status == 200
        with pytest.raises(OSError):  # noqa: PT011 - whichever end of a socket it notices
            await post(gateway, "a=", b"12345")
        assert (await post(gateway, "b=", b"123456")).status == 200
        assert gateway.received == {"a=": [b"1234"], "b=": [b"123456"]}
        assert gateway.counters().statuses == {200: 2, 0: 1}
        assert gateway.posts["a="] == 2


async def test_get_and_delete() -> None:
    """GET tells whether a client is connected, DELETE disconnects it, and nothing else is allowed."""
    async with Gateway() as gateway, wire(gateway) as connection:
        steps = [("GET", 200), ("DELETE", 204), ("GET", 410), ("DELETE", 410), ("POST", 410), ("PUT", 403)]
        for method, status in steps:
            answer = await connection.send(unsigned(gateway.endpoint, "a=", b"", method))
            assert (method, answer.status) == (method, status)
        assert gateway.counters().posts == 1


async def test_a_connection_is_described_as_the_service_model_says() -> None:
    """botocore's client finds in it everything that its own model names."""
    session: Any = botocore.session.Session()
    async with Gateway() as gateway:
        client = session.create_client(
            "apigatewaymanagementapi",
            region_name="eu-west-1",
            endpoint_url=gateway.endpoint,
            aws_access_key_id="AKIDEXAMPLE",
            aws_secret_access_key="secret",
        )
        found = await asyncio.to_thread(client.get_connection, ConnectionId="a=")
        shape = client.meta.service_model.operation_model("GetConnection").output_shape
        client.close()
    assert found.keys() - {"ResponseMetadata"} == shape.members.keys()
    assert found["Identity"].keys() == shape.members["Identity"].members.keys()
    assert found["ConnectedAt"] < found["LastActiveAt"] < datetime.now(UTC)


async def test_counters_as_json() -> None:
    """Anybody can read the counters over HTTP."""
    async with Gateway([200, 410], credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        for _ in range(2):
            await connection.send(signed(gateway).wire)
        answer = await connection.send(encode("GET", "/_counters", {"Host": "h"}, b""))
        counters = json.loads(answer.body)
        assert counters["statuses"] == {"200": 1, "410": 1}
        assert (counters["posts"], counters["arrived"], counters["sockets_opened"]) == (2, 1, 1)
        assert counters["cpu_seconds"] > 0


async def test_clear() -> None:
    """What was counted and recorded can be forgotten; a script goes on where it was."""
    async with Gateway([429, 200]) as gateway, wire(gateway) as connection:
        await connection.post()
        gateway.clear()
        assert replace(gateway.counters(), cpu_seconds=0) == Counters(sockets_open=1)
        assert (await connection.post()).status == 200


# --- signatures


@pytest.mark.parametrize("connection_id", ODD_IDS)
async def test_good_signatures(connection_id: str) -> None:
    """What botocore signs passes, and so does what the package's own signer signs."""
    async with Gateway(credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        assert (await connection.send(signed(gateway, connection_id).wire)).status == 200
        assert (await connection.send(self_signed(gateway, connection_id))).status == 200
        assert gateway.received[connection_id] == [b"hello", b"hello"]
        assert gateway.bad_signatures == 0


def self_signed(gateway: Gateway, connection_id: str = "a=", at: datetime | None = None) -> bytes:
    url = urlsplit(gateway.endpoint)
    sign = Signer(url.netloc, f"{url.path}/@connections/", "us-east-1", CREDENTIALS).at(at or datetime.now(UTC))
    name = quote_id(connection_id)
    lines = sign(name, sha256(b"hello").hexdigest()).decode()
    head = f"POST {url.path}/@connections/{name} HTTP/1.1\r\nHost: {url.netloc}\r\n{lines}Content-Length: 5\r\n\r\n"
    return head.encode() + b"hello"


@pytest.mark.parametrize("prefix", ["@connections", "%40connections"])
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_signature_covers_method_and_spelling(method: str, prefix: str) -> None:
    """Every method needs its own signature, in the spelling that is on the wire."""
    async with Gateway(credentials=CREDENTIALS) as gateway:
        good = signed(gateway, method=method, prefix=prefix)
        other = good._replace(
            target=good.target.replace("%40", "@") if "%40" in prefix else "/prod/%40connections/a%3D"
        )
        assert await statuses(gateway, good._replace(method="PUT"), other) == [403, 403]
        assert (await statuses(gateway, good))[0] in {200, 204}
        assert gateway.bad_signatures == 2


@pytest.mark.parametrize("connection_id", ODD_IDS)
@pytest.mark.parametrize("part", ["body", "path", "host", "date", "token", "signature", "content", "digest"])
async def test_tampered(part: str, connection_id: str) -> None:
    """A request that is not what was signed is a 403, and does not arrive."""
    async with Gateway(credentials=CREDENTIALS) as gateway:
        good = signed(gateway, connection_id)
        changed = good.headers["Authorization"]
        earlier = f"{datetime.now(UTC) - timedelta(seconds=7):%Y%m%dT%H%M%SZ}"
        tampered = {
            "body": good._replace(body=b"hellO"),
            "path": good._replace(target=good.target + "x"),
            "host": good._replace(headers=good.headers | {"Host": "127.0.0.1"}),
            "date": good._replace(headers=good.headers | {"X-Amz-Date": earlier}),
            "token": good._replace(headers=good.headers | {"X-Amz-Security-Token": "another"}),
            "signature": good._replace(headers=good.headers | {"Authorization": changed[:-8] + "00000000"}),
            "content": good._replace(headers=good.headers | {"Content-Type": "text/plain"}),
            "digest": good._replace(headers=good.headers | {"X-Amz-Content-SHA256": sha256(b"hello").hexdigest()}),
        }
        assert await statuses(gateway, tampered[part], good) == [403, 200]
        assert gateway.bad_signatures == 1
        assert gateway.arrivals == {connection_id: 1}


async def test_wrong_signers() -> None:
    """Another key, secret, token, Region or service is a 403, and so are none at all."""
    async with Gateway(credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        wrong = [
            signed(gateway, credentials=replace(CREDENTIALS, access_key="AKIDOTHER")),
            signed(gateway, credentials=replace(CREDENTIALS, secret_key="other")),
            signed(gateway, credentials=replace(CREDENTIALS, token="other")),
            signed(gateway, credentials=replace(CREDENTIALS, token=None)),
            signed(gateway, region="eu-west-1"),
            signed(gateway, service="apigateway"),
        ]
        for request in wrong:
            answer = await connection.send(request.wire)
            assert (answer.status, bool(message(answer))) == (403, True)
            assert answer.headers["x-amzn-errortype"].endswith("Exception")
        assert message(await connection.post()) == "Missing Authentication Token"
        assert gateway.bad_signatures == len(wrong) + 1 == gateway.statuses[403]


async def test_token_without_being_asked_for() -> None:
    """Credentials without a token want none."""
    plain = replace(CREDENTIALS, token=None)
    async with Gateway(credentials=plain) as gateway:
        assert await statuses(gateway, signed(gateway, credentials=plain), signed(gateway)) == [200, 403]


@pytest.mark.parametrize(("seconds", "status"), [(-290, 200), (290, 200), (-310, 403), (310, 403)])
async def test_date(seconds: int, status: int) -> None:
    """A signature is good for five minutes around its date."""
    async with Gateway(credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        answer = await connection.send(self_signed(gateway, at=datetime.now(UTC) + timedelta(seconds=seconds)))
        assert answer.status == status
        if status == 403:
            assert message(answer).startswith("Signature expired" if seconds < 0 else "Signature not yet current")


async def test_no_date() -> None:
    """A signature without a readable date is a 403."""
    async with Gateway(credentials=CREDENTIALS) as gateway:
        good = signed(gateway)
        assert await statuses(gateway, good._replace(headers=good.headers | {"X-Amz-Date": "yesterday"})) == [403]


async def test_signature_names_what_it_must() -> None:
    """Each ``x-amz-*`` header that is sent must be signed, and each that is signed be sent."""
    async with Gateway(credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        good = signed(gateway)
        without = {name: value for name, value in good.headers.items() if name != "Content-Type"}
        for headers in (good.headers | {"X-Amz-Meta": "1"}, without):
            assert message(await connection.send(good._replace(headers=headers).wire)).startswith("Sent and signed")


async def test_signed_digest() -> None:
    """A digest header that was signed must be the body's."""
    async with Gateway(credentials=CREDENTIALS) as gateway:
        found = []
        for digest in (sha256(b"hello").hexdigest(), "UNSIGNED-PAYLOAD"):
            url = f"{gateway.endpoint}/@connections/a"
            request = AWSRequest("POST", url, {"X-Amz-Content-SHA256": digest}, b"hello")
            keys = ReadOnlyCredentials(CREDENTIALS.access_key, CREDENTIALS.secret_key, CREDENTIALS.token or "")
            SigV4Auth(keys, "execute-api", "us-east-1").add_auth(request)
            headers = {"Host": urlsplit(url).netloc, **dict(request.headers.items())}
            found += await statuses(gateway, Signed("POST", "/prod/@connections/a", headers, b"hello"))
        assert found == [200, 403]


@pytest.mark.parametrize(("every", "bad"), [(0, 0), (1, 6), (3, 2)])
async def test_samples(every: int, bad: int) -> None:
    """Only every n-th signature is looked at, or none."""
    async with Gateway(credentials=CREDENTIALS, verify_every=every) as gateway, wire(gateway) as connection:
        for _ in range(6):
            await connection.post()
        assert gateway.bad_signatures == bad
        assert gateway.counters().arrived == 6 - bad


async def test_rotated_credentials() -> None:
    """After a rotation the old credentials are refused, on open sockets too."""
    new = Credentials("AKIDNEW", "new")
    async with Gateway(credentials=CREDENTIALS) as gateway, wire(gateway) as connection:
        assert (await connection.send(signed(gateway).wire)).status == 200
        gateway.rotate(new)
        assert (await connection.send(signed(gateway).wire)).status == 403
        assert (await connection.send(signed(gateway, credentials=new).wire)).status == 200
    with pytest.raises(ValueError, match="no credentials"):
        Gateway().rotate(new)


# --- scripts


@pytest.mark.parametrize("status", [200, 204, 304, 400, 403, 410, 413, 429, 500, 502, 503, 599])
async def test_status(status: int) -> None:
    """Any status can be scripted; errors come as API Gateway words them, and only a 2xx arrives."""
    async with Gateway(status) as gateway, wire(gateway) as connection:
        for _ in range(2):
            answer = await connection.post()
            assert answer.status == status
        assert not answer.body if status < 400 else message(answer)
        assert ("x-amzn-errortype" in answer.headers) == (400 <= status <= 500)
        assert gateway.statuses == {status: 2}
        assert gateway.counters().arrived == (2 if status < 300 else 0)


def test_status_out_of_range() -> None:
    """An answer's status is one that ends an exchange."""
    with pytest.raises(ValueError, match="from 200 to 599"):
        Answer(100)


async def played(choice: Choice, *, posts: int, own: bool = True) -> list[int]:
    async with Gateway() as gateway, wire(gateway) as connection:
        gateway.play(choice, *(["a="] if own else []))
        assert own is ((await connection.post("b=")).status == 200)
        return [(await connection.post()).status for _ in range(posts)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ([429, 429, 200], [429, 429, 200, 200]),
        ([429, Answer(503)], [429, 503, 503, 503]),
        ([410, None], [410, 200, 200, 200]),
        (
            lambda connection_id, body, nth: 500 + nth if (connection_id, body) == ("a=", b"hello") else 200,
            range(501, 505),
        ),
        (lambda _id, _body, nth: None if nth > 1 else Answer(410), [410, 200, 200, 200]),
        ([Until(float("inf"), 410), Until(0, 410, [429, 502]), 200], [410, 502, 200, 200]),
    ],
)
async def test_one_clients_script(choice: Choice, expected: Sequence[int]) -> None:
    """A client's script is a status, a script, a sequence of them, or what a callable says; others are not touched."""
    assert await played(choice, posts=4) == list(expected)


async def test_everybodys_script() -> None:
    """A sequence for everybody is played to each client by itself."""
    assert await played([429, 200], posts=2, own=False) == [429, 200]


async def test_play_again() -> None:
    """A new script for everybody leaves a client in the middle of its own; one for that client starts anew."""
    async with Gateway() as gateway, wire(gateway) as connection:
        gateway.play([429, 500, 502], "a=")
        found = [(await connection.post()).status]
        gateway.play([503, 200])
        found.append((await connection.post()).status)
        gateway.play([410, None], "a=")
        found += [(await connection.post()).status for _ in range(2)]
        assert found == [429, 500, 410, 200]


async def test_until_a_moment() -> None:
    """A script can hold until a moment, and another from there on."""
    moment = time.monotonic() + 0.5
    async with Gateway(Until(moment, 410)) as gateway, wire(gateway) as connection:
        assert (await connection.post()).status == 410
        await asyncio.sleep(moment - time.monotonic())
        assert (await connection.post()).status == 200


def test_peeking_takes_no_turn() -> None:
    """To look at a client's next plan is not to play it."""
    casting = Casting()
    casting.play([410, 200], "a=")
    assert [casting.peek("a=").status, casting.next("a=", b"").status, casting.peek("a=").status] == [410, 410, 200]


async def test_arrives_all_the_same() -> None:
    """A lost answer need not mean a lost message, nor a 200 an arrival."""
    async with Gateway([Answer(500, arrives=True), Answer(arrives=False), Cut(arrives=True)]) as gateway:
        await post(gateway, body=b"one")
        await post(gateway, body=b"two")
        with pytest.raises(EOFError):
            await post(gateway, body=b"three")
        assert gateway.received["a="] == [b"one", b"three"]


async def test_slow() -> None:
    """A late answer comes late; it is in flight meanwhile."""
    async with Gateway(Answer(delay=SOON)) as gateway, wire(gateway) as connection:
        started = time.monotonic()
        answer = asyncio.create_task(connection.post())
        await until(lambda: gateway.in_flight == 1)
        assert (await answer).status == 200
        assert time.monotonic() - started >= SOON
        assert gateway.in_flight == 0


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("reset", [False, True])
async def test_cut(reset: bool, tls: bool) -> None:
    """A cut socket ends without an answer, or with an RST."""
    async with Gateway(Cut(reset=reset, delay=0.01), tls=tls) as gateway:
        with pytest.raises(ConnectionResetError if reset else EOFError):
            await post(gateway)
        await told(gateway)
        assert gateway.statuses == {0: 1}
        assert not gateway.received


async def test_hang() -> None:
    """A hanging post is in flight until the client gives up."""
    async with Gateway([Hang(), 200]) as gateway:
        async with wire(gateway) as connection:
            connection.writer.write(unsigned(gateway.endpoint, "a="))
            await until(lambda: gateway.in_flight == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(SOON):
                    await connection.reader.read()
        await told(gateway)
        assert (gateway.in_flight, gateway.most_in_flight, gateway.statuses) == (0, 1, {0: 1})
        assert (await post(gateway)).status == 200


async def test_slow_header() -> None:
    """The status line comes, and the rest later."""
    async with Gateway(SlowHeader(SOON, Answer(410))) as gateway, wire(gateway) as connection:
        started = time.monotonic()
        connection.writer.write(unsigned(gateway.endpoint, "a="))
        assert await connection.reader.read(1000) == b"HTTP/1.1 410 Gone\r\n"
        assert (await connection.reader.readuntil(b"\r\n\r\n")).startswith(b"Content-Type")
        assert time.monotonic() - started >= SOON
        assert gateway.statuses == {410: 1}


async def test_drip() -> None:
    """An answer can come one byte at a time."""
    async with Gateway(Drip(0.0005, Answer(503))) as gateway:
        answer = await post(gateway)
        assert (answer.status, message(answer)) == (503, "Service Unavailable")
        assert answer.reads > 20


@pytest.mark.parametrize("reset", [False, True])
async def test_half(reset: bool) -> None:
    """Half an answer comes, then the end of the socket."""
    async with Gateway(Half(Answer(410), reset=reset)) as gateway, wire(gateway) as connection:
        connection.writer.write(unsigned(gateway.endpoint, "a="))
        got = await connection.reader.read(1000)
        assert got == Answer(410).encode()[: len(got)]
        assert 0 < len(got) < len(Answer(410).encode())
        if reset:
            with pytest.raises(ConnectionResetError):
                await connection.reader.read()
        else:
            assert await connection.reader.read() == b""
        await told(gateway)
        assert gateway.statuses == {0: 1}


@pytest.mark.parametrize("body", [None, b"", b"0123456789" * 5])
async def test_chunked(body: bytes | None) -> None:
    """An answer can be chunked, an empty one too, and the socket serves on."""
    async with Gateway(Answer(body=body, chunked=True)) as gateway, wire(gateway) as connection:
        for _ in range(2):
            answer = await connection.post()
            assert (answer.status, answer.body) == (200, body or b"")
            assert answer.headers["transfer-encoding"] == "chunked"


async def test_segments() -> None:
    """An answer can be split into many segments."""
    async with Gateway(Answer(410, segments=5, pause=0.005)) as gateway:
        answer = await post(gateway)
        assert answer.status == 410
        assert answer.reads == 5


async def test_close() -> None:
    """An answer can announce that the connection closes, and it does."""
    async with Gateway(Answer(close=True), tls=True) as gateway, wire(gateway) as connection:
        assert (await connection.post()).headers["connection"] == "close"
        assert await connection.at_end()


async def test_hang_up() -> None:
    """A server can close the idle socket after an answer that promised to keep it."""
    async with Gateway(Answer(hang_up=0.02)) as gateway, wire(gateway) as connection:
        assert (await connection.post()).headers["connection"] == "keep-alive"
        assert await connection.at_end()


async def test_hang_up_waits_for_idleness() -> None:
    """A socket that is used again, or about to be, is not closed for having been idle."""
    async with Gateway([Answer(hang_up=0.2), Answer(delay=0.25)]) as gateway, wire(gateway) as connection:
        assert [(await connection.post()).status for _ in range(2)] == [200, 200]
    async with Gateway([Answer(hang_up=0.2), 410]) as gateway, wire(gateway) as connection:
        await connection.post()
        request = unsigned(gateway.endpoint, "a=")
        connection.writer.write(request[:-1])
        await asyncio.sleep(0.25)
        assert (await connection.send(request[-1:])).status == 410


async def test_informational() -> None:
    """1xx answers can come before the answer."""
    async with Gateway(Answer(429, informational=(100, 103, 199))) as gateway:
        answer = await post(gateway)
        assert (answer.interim, answer.status) == ([100, 103, 199], 429)


async def test_garbage() -> None:
    """What comes need not be HTTP."""
    async with Gateway([Garbage(), 200]) as gateway:
        with pytest.raises(httptools.HttpParserError):
            await post(gateway)
        assert gateway.statuses == {0: 1}
        assert (await post(gateway)).status == 200


async def test_huge_header() -> None:
    """A header can be a megabyte."""
    async with Gateway(huge_header(1_000_000, 410)) as gateway, wire(gateway) as connection:
        connection.writer.write(unsigned(gateway.endpoint, "a="))
        assert len(await connection.reader.readexactly(1_000_000)) == 1_000_000


async def test_own_headers() -> None:
    """A header of one's own replaces the usual one."""
    async with Gateway(Answer(headers=(("content-type", "text/html"), ("X-One", "1")))) as gateway:
        answer = await post(gateway)
        assert (answer.headers["content-type"], answer.headers["x-one"]) == ("text/html", "1")


# --- the account's limit, and latency


def test_bucket() -> None:
    """The bucket is full at first, fills at its rate, and never over its rim."""
    bucket = Bucket(RateLimit(rate=10, burst=2))
    moments = [0.0, 0.0, 0.0, 0.05, 0.1, 0.1, 10.0, 10.0, 10.0]
    assert [bucket.take(now) for now in moments] == [True, True, False, False, True, False, True, True, False]


async def test_account_limit() -> None:
    """Over the account's limit everybody gets a 429, whatever the script, until it is lifted."""
    async with Gateway(rate_limit=RateLimit(rate=0.001, burst=2)) as gateway, wire(gateway) as connection:
        assert [(await connection.post(name)).status for name in "abcd"] == [200, 200, 429, 429]
        gateway.limit(None)
        assert (await connection.post()).status == 200
        gateway.limit(RateLimit(rate=0.001, burst=0))
        assert (await connection.post()).status == 429


async def test_latency() -> None:
    """Latency comes on top of every answer."""
    async with Gateway(latency=0.02) as gateway, wire(gateway) as connection:
        started = time.monotonic()
        await connection.post()
        assert time.monotonic() - started >= 0.02


async def test_drawn_latency() -> None:
    """Latency can be drawn for each answer, from a random that is seeded."""
    drawn: list[tuple[str, float]] = []

    def draw(connection_id: str, random: Random) -> float:
        drawn.append((connection_id, random.random()))
        return 0.001

    for _ in range(2):
        async with Gateway(latency=draw, seed=7) as gateway:
            await post(gateway, "a=")
            await post(gateway, "b=")
    assert drawn[:2] == drawn[2:]
    assert [name for name, _ in drawn[:2]] == ["a=", "b="]


# --- sockets


async def test_most_in_flight() -> None:
    """The most posts ever in flight together are remembered."""
    async with Gateway(Answer(delay=0.2)) as gateway:
        await asyncio.gather(*(post(gateway, str(number)) for number in range(5)))
        await post(gateway)
        counters = gateway.counters()
        assert (counters.in_flight, counters.most_in_flight, counters.sockets_opened) == (0, 5, 6)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("reset", [False, True])
async def test_ends_idle_sockets(reset: bool, tls: bool) -> None:
    """Idle sockets can be closed or reset; one that carries a post, whole or not, is left alone."""
    async with (
        Gateway(tls=tls) as gateway,
        wire(gateway) as idle,
        wire(gateway) as partial,
        wire(gateway) as busy,
    ):
        gateway.play(Answer(delay=0.2), "slow")
        await idle.post()
        request = unsigned(gateway.endpoint, "a=")
        partial.writer.write(request[:-1])
        answer = asyncio.create_task(busy.post("slow"))
        await until(lambda: sum(not each.idle for each in gateway._sockets if isinstance(each, _Socket)) == 2)
        assert await (gateway.reset_idle() if reset else gateway.close_idle()) == 1
        assert (await answer).status == 200
        assert (await partial.send(request[-1:])).status == 200
        if reset:
            with pytest.raises(ConnectionResetError):
                await idle.post()
        else:
            assert await idle.at_end()


async def test_refuses_and_accepts() -> None:
    """New connections can be refused, and accepted again on the same port; open ones go on."""
    async with Gateway() as gateway, wire(gateway) as connection:
        await gateway.refuse()
        with pytest.raises(ConnectionRefusedError):
            await post(gateway)
        assert (await connection.post()).status == 200
        await gateway.accept()
        assert (await post(gateway)).status == 200
        with pytest.raises(ValueError, match="without TLS"):
            await gateway.accept(Tls())


async def test_tls_without_its_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(
        ImportError, match=r"^TLS needs trustme: install it from the checkout: pip install '.\[testing\]'$"
    ):
        await Gateway(tls=True).__aenter__()


@pytest.mark.parametrize("certificate", ["wrong host", "expired", "self-signed"])
async def test_bad_certificates(certificate: str) -> None:
    """A certificate nobody should trust makes a client give up before it posts."""
    sentence = {"wrong host": "mismatch", "expired": "expired", "self-signed": "self.signed"}[certificate]
    async with Gateway(tls=Tls(certificate)) as gateway:  # type: ignore[arg-type]
        with pytest.raises(ssl.SSLCertVerificationError, match=f"(?i){sentence}"):
            await post(gateway)
        await told(gateway)
        assert gateway.counters().posts == 0
        await gateway.accept(Tls())
        assert (await post(gateway)).status == 200


async def test_bad_handshakes() -> None:
    """A handshake can be refused, or never answered; both can begin and end while the gateway runs."""
    async with Gateway(tls=True) as gateway, wire(gateway) as connection:
        await gateway.accept(Tls(handshake="refused"))
        with pytest.raises(ssl.SSLError):
            await post(gateway)
        await gateway.accept(Tls(handshake="hangs"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await post(gateway)
        await until(lambda: gateway.failed_handshakes == 2)
        assert (await connection.post()).status == 200
        await gateway.accept(Tls())
        assert (await post(gateway)).status == 200


async def test_a_client_that_breaks_off_the_handshake_is_counted() -> None:
    """A handshake the client breaks off is a failed one."""
    async with Gateway(tls=True) as gateway:
        _, writer = await asyncio.open_connection("localhost", urlsplit(gateway.endpoint).port)
        writer.write(b"no TLS at all")
        await writer.drain()
        await until(lambda: gateway.failed_handshakes == 1)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("tls", [False, True])
async def test_leaves_nothing(tls: bool) -> None:
    """After the end there is no task, no open file and no CA file, whatever was going on."""
    before = open_files()
    tasks = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as clients:
        async with Gateway([Hang(), Answer(delay=9)], tls=tls) as gateway:
            ca_file, port = gateway.ca_file, urlsplit(gateway.endpoint).port
            for _ in range(2):
                connection = await clients.enter_async_context(wire(gateway))
                connection.writer.write(unsigned(gateway.endpoint, "a="))
            clients.enter_context(socket.create_connection(("localhost", port or 0)))
            await until(lambda: (gateway.in_flight, gateway.sockets_opened) == (2, 3))
        assert asyncio.all_tasks() == tasks
        assert (gateway.counters().sockets_open, gateway.in_flight) == (0, 0)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("localhost", port)
    assert not exists(ca_file)
    assert open_files() == before


def exists(name: str) -> bool:
    return Path(name).is_file()


def open_files() -> set[str]:
    """What of this process is open; an empty set where the system does not tell."""
    directory = Path("/proc/self/fd")
    return set(os.listdir(directory)) if directory.exists() else set()  # noqa: PTH208 - the names are wanted


# --- in a process of its own


async def test_process() -> None:
    """A gateway in a process of its own does what it is told, and reports."""
    options = {"tls": True, "credentials": CREDENTIALS, "script": [429, None]}
    with gateway_process(**options) as gateway:
        async with wire(gateway) as connection:
            found = [(await connection.send(signed(gateway).wire)).status for _ in range(2)]
            assert found == [429, 200]
            assert gateway.received == {"a=": [b"hello"]}
            assert gateway.arrivals == {"a=": 1}
            assert gateway.counters().statuses == {429: 1, 200: 1}
            assert repr(gateway) == f"<process {gateway.pid} serves {gateway.endpoint}>"
            gateway.clear()
            assert gateway.counters().posts == 0
            gateway.limit(RateLimit(1, 0))
            assert (await connection.send(signed(gateway).wire)).status == 429
            assert gateway.close_idle() == 1
        gateway.refuse()
        with pytest.raises(ConnectionRefusedError):
            await post(gateway)
        gateway.accept(Tls(certificate="expired"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await post(gateway)
        assert gateway.reset_idle() == 0
        ca_file = gateway.ca_file
    assert not exists(ca_file)


@pytest.mark.parametrize("tls", [False, True])
async def test_faults_on_the_loop_of_the_process(tls: bool) -> None:
    """The process runs on uvloop where there is one; sockets end there as they do on asyncio's loop."""
    with gateway_process(tls=tls) as gateway:
        expected: list[tuple[Choice, type[Exception]]] = [
            (Cut(), EOFError),
            (Cut(reset=True), ConnectionResetError),
            (Half(), ConnectionResetError),
            (Half(reset=False), EOFError),
            (Hang(), TimeoutError),
            (Garbage(), httptools.HttpParserError),
        ]
        for script, error in expected:
            gateway.play(script, "a=")
            with pytest.raises(error):
                async with asyncio.timeout(0.1 if error is TimeoutError else 5):
                    await post(gateway)
        gateway.play([Drip(0.0001), Answer(close=True), Answer(segments=4)], "a=")
        assert [(await post(gateway)).status for _ in range(3)] == [200, 200, 200]


def test_process_that_cannot_start() -> None:
    """A gateway that cannot start says so where it was asked for."""
    with pytest.raises(RuntimeError, match="its standard error says why"):
        GatewayProcess({"colour": "blue"})


def test_process_raises_here() -> None:
    """What goes wrong there is raised here, and the process goes on."""
    with gateway_process() as gateway:
        with pytest.raises(ValueError, match="without TLS"):
            gateway.accept(Tls())
        assert gateway.counters().posts == 0


def test_process_ends_with_its_parent() -> None:
    """No gateway outlives the process that started it, however that one died."""
    code = (
        "import os; from async_relay.testing import gateway_process\n"
        "with gateway_process() as gateway: print(gateway.pid, flush=True); os._exit(1)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=30)  # noqa: S603
    pid = int(found.stdout)
    deadline = time.monotonic() + 5
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not running(pid)


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
