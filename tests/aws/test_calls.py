"""Calls over keep-alive sockets: each has the answer to its own request, signed as of now."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from async_relay.aws import Aws
from async_relay.aws.calls import Call, JsonRequests, SignedCalls
from async_relay.errors import PostError, Refused, ServerError
from async_relay.http.opening import Endpoint
from async_relay.http.sigv4 import Credentials
from async_relay.testing import Answer

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
KEY = Credentials("AKIDEXAMPLE", "secret", "token")


class Echo:
    """Answers each call with its own request on a socket that stays open, and a request for an error with that."""

    def __init__(self) -> None:
        self.sockets = 0
        self.busy = 0
        self.most_busy = 0
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                body = await reader.readexactly(int(header(head, "Content-Length")))
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                request = json.loads(body)
                await asyncio.sleep(request.get("delay", 0))
                writer.write(Answer(request.get("status", 200), body=body).encode())
                self.busy -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def header(head: str, name: str) -> str:
    (value,) = [line.partition(": ")[2] for line in head.split("\r\n") if line.startswith(f"{name}: ")]
    return value


@asynccontextmanager
async def echoing(service: str = "dynamodb", **options: Any) -> AsyncIterator[tuple[Echo, SignedCalls]]:
    async def credentials() -> Credentials:
        return KEY

    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0, limit=2**24)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    calls = SignedCalls(service, url, region="eu-west-1", tls=None, **{"credentials": credentials, **options})
    try:
        yield echo, calls
    finally:
        await calls.close()
        server.close()
        await asyncio.sleep(0.01)


async def test_calls_one_after_another_share_a_socket_and_nothing_else() -> None:
    """Thirty calls over one kept-alive socket: each answer is its own request's, whole."""
    async with echoing() as (echo, calls):
        for at in range(30):
            request = {"number": at, "text": "x" * (at * 997 % 5_000)}
            assert await calls.call("Scan", [request]) == [request]
        assert echo.sockets == 1


async def test_calls_at_once_have_a_socket_each_and_their_own_answers() -> None:
    """Eight side by side, more wait; the first answer to come belongs to whom it is for."""
    requests = [{"number": at, "delay": 0.05 - at % 10 / 200} for at in range(20)]
    async with echoing() as (echo, calls):
        assert await calls.call("Scan", requests) == requests
        some, others = await asyncio.gather(calls.call("Query", requests[:5]), calls.call("Scan", requests[5:10]))
        assert (some, others) == (requests[:5], requests[5:10])
        assert (echo.sockets, echo.most_busy) == (8, 8)


async def test_an_error_stands_in_its_requests_place() -> None:
    """Of five calls two are refused: those positions are errors, the others have their content."""
    requests: list[dict[str, Any]] = [{"number": at} | ({"status": 400} if at in (1, 3) else {}) for at in range(5)]
    async with echoing() as (_, calls):
        found = await calls.call("Scan", requests)
    assert [each if isinstance(each, dict) else type(each) for each in found] == [
        requests[0],
        Refused,
        requests[2],
        Refused,
        requests[4],
    ]


async def test_an_answer_of_megabytes_is_read_whole() -> None:
    """A page of the table, whose JSON is longer than its items."""
    request = {"text": "x" * 3_000_000}
    async with echoing() as (_, calls):
        assert await calls.call("Scan", [request]) == [request]


async def test_credentials_are_those_of_the_moment() -> None:
    """Each call asks for them, also on a socket that is open."""
    keys = iter(["AKIDFIRST", "AKIDSECOND"])

    async def credentials() -> Credentials:
        return Credentials(next(keys), "secret")

    async with echoing(credentials=credentials) as (echo, calls):
        for _ in range(2):
            await calls.call("Scan", [{}])
        assert [name in head for head, name in zip(echo.heads, ("AKIDFIRST", "AKIDSECOND"), strict=True)] == [True] * 2


@pytest.mark.parametrize(("service", "target"), [("dynamodb", "DynamoDB_20120810"), ("sqs", "AmazonSQS")])
async def test_a_call_says_what_it_is(service: str, target: str) -> None:
    """The protocol, the length and the operation of each, whichever came before it."""
    async with echoing(service) as (echo, calls):
        for operation in ("First", "Second", "First"):
            await calls.call(operation, [{}])
    assert [header(head, "X-Amz-Target") for head in echo.heads] == [
        f"{target}.{operation}" for operation in ("First", "Second", "First")
    ]
    assert {header(head, "Content-Type") for head in echo.heads} == {"application/x-amz-json-1.0"}
    assert {header(head, "Content-Length") for head in echo.heads} == {"2"}


async def test_a_signature_has_the_date_it_was_last_given() -> None:
    """Operations called before are signed anew, too, and each by its own name."""
    requests = JsonRequests("dynamodb", Endpoint.of("http://localhost:9", None), "eu-west-1")
    for minutes in range(3):
        now = NOON + timedelta(minutes=minutes)
        requests.resign(KEY, now)
        for operation in ("Scan", "Query", "Scan"):
            head = requests.request(Call(operation), b"{}", "digest").decode()
            assert header(head, "X-Amz-Date") == f"{now:%Y%m%dT%H%M%SZ}"
            assert header(head, "X-Amz-Target") == f"DynamoDB_20120810.{operation}"


async def test_a_table_that_hangs_leaves_time_for_the_sdk() -> None:
    """A call ends after five seconds, of a minute that an invocation has; eight may be under way."""
    own = await Aws({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://localhost:9"}).own_calls("dynamodb")
    assert own is not None
    assert own.pool._timeout == 5.0


@pytest.mark.parametrize("body", [b"[]", b"7", b'"text"', b"{", b"", b"[" * 100_000, b"\xff"])
async def test_what_is_no_object_is_no_content(body: bytes) -> None:
    """And an answer without content is an error."""
    call = Call("Scan")
    requests = JsonRequests("dynamodb", Endpoint.of("http://localhost:9", None), "eu-west-1")
    error: PostError | None = requests.accept(call, body)
    call.settle(error)
    assert isinstance(await call.answer, ServerError)


async def test_who_has_given_up_hears_nothing() -> None:
    """An answer that comes between the cancellation and its end is let go."""
    call = Call("Scan")
    call.answer.cancel()
    call.settle(None)
    assert call.answer.cancelled()
