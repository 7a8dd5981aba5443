"""The pool's contract: a body to a recipient, and what became of it; what the requests are is none of its business."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from transports import CREDENTIALS

from async_relay.errors import Disconnected, PostError, Refused, ServerError
from async_relay.http.opening import Endpoint
from async_relay.http.pool import SignedPool
from async_relay.http.sigv4 import Credentials

HANG = b"hang"


class Echo:
    """Requests to a server that sends every body back, but hangs where the body is ``HANG``."""

    most_read, most_kept = 1_000, 1_000

    def __init__(self) -> None:
        self.signed: list[str] = []
        self.answers: list[tuple[Any, bytes]] = []

    def resign(self, credentials: Credentials, _now: datetime) -> None:
        self.signed.append(credentials.access_key)

    def request(self, recipient: Any, body: bytes, digest: str) -> bytes:
        if recipient == "nobody":
            raise LookupError("there is no such recipient")
        return b"POST / HTTP/1.1\r\nX-Digest: %b\r\nContent-Length: %d\r\n\r\n%b" % (digest.encode(), len(body), body)

    def accept(self, recipient: Any, body: bytes) -> PostError | None:
        self.answers.append((recipient, body))
        return ServerError("it echoes") if body == b"bad" else None


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.rpartition(b": ")[2]))
            if body == HANG:
                await reader.read()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def opened(requests: Echo, **options: Any) -> AsyncIterator[SignedPool]:
    async def credentials() -> Credentials:
        return CREDENTIALS

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    endpoint = Endpoint.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)
    pool = SignedPool(endpoint, requests, credentials=credentials, **options)
    await pool.begin()
    try:
        yield pool
    finally:
        await pool.close()
        server.close()
        await asyncio.sleep(0.01)


class Ends:
    """Collects what ``done`` is called with."""

    def __init__(self) -> None:
        self.found: list[tuple[Any, PostError | None]] = []
        self._changed = asyncio.Event()

    def __call__(self, recipient: Any, error: PostError | None) -> None:
        self.found.append((recipient, error))
        self._changed.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(3):
            while len(self.found) < count:
                self._changed.clear()
                await self._changed.wait()


async def test_a_recipient_is_any_object_and_comes_back_with_the_answer() -> None:
    """``done`` gets the object that was sent to, once, later; the body of a 200 goes to ``accept``."""
    requests, ends, recipient = Echo(), Ends(), object()
    async with opened(requests) as pool:
        pool.send(recipient, b"hello", "digest", ends)
        assert ends.found == []
        await ends.wait(1)
        await asyncio.sleep(0.01)
    assert ends.found == [(recipient, None)]
    assert requests.answers == [(recipient, b"hello")]
    assert requests.signed == ["AKIDEXAMPLE"]


async def test_an_answer_that_is_not_accepted_is_an_error_and_its_socket_serves_on() -> None:
    """What ``accept`` returns is what ``done`` gets; the next request needs no other socket."""
    ends = Ends()
    async with opened(Echo()) as pool:
        for count, body in enumerate((b"bad", b"good"), 1):
            pool.send(count, body, "", ends)
            await ends.wait(count)
        assert pool.opened == 1
    assert [type(error) for _, error in ends.found] == [ServerError, type(None)]


async def test_a_request_that_cannot_be_made_fails_alone() -> None:
    """``done`` hears why, and never from within ``send``."""
    ends = Ends()
    async with opened(Echo(), max_sockets=1) as pool:
        pool.send("nobody", b"a", "", ends)
        pool.send("somebody", b"b", "", ends)
        await ends.wait(2)
    assert isinstance(ends.found[0][1], Refused)
    assert "LookupError: there is no such recipient" in str(ends.found[0][1])
    assert ends.found[1] == ("somebody", None)


async def test_forgetting_some_recipients_leaves_the_others_alone() -> None:
    """Those in flight and those waiting hear nothing more; one that waits behind them is answered."""
    ends = Ends()
    async with opened(Echo(), max_sockets=1) as pool:
        pool.send("first", HANG, "", ends)
        pool.send("second", HANG, "", ends)
        pool.send("third", b"quick", "", ends)
        await asyncio.sleep(0.05)
        await pool.forget({"first", "second"})
        await ends.wait(1)
        assert repr(pool).endswith("0 busy, 1 idle, 0 opening, 0 waiting>")
    assert ends.found == [("third", None)]


async def test_a_pool_that_gives_its_sockets_back_opens_new_ones() -> None:
    """Idle sockets are closed without a word; the next post has a new one."""
    ends = Ends()
    async with opened(Echo()) as pool:
        pool.send(1, b"a", "", ends)
        await ends.wait(1)
        assert pool.serving
        assert (pool.give_back(), pool.serving) == (1, False)
        pool.send(2, b"b", "", ends)
        await ends.wait(2)
        assert pool.opened == 2
    assert [error for _, error in ends.found] == [None, None]
    assert not any(isinstance(error, Disconnected) for _, error in ends.found)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://abc.example/prod/", ("abc.example", 443, "abc.example", "/prod")),
        ("https://abc.example:8443", ("abc.example", 8443, "abc.example:8443", "")),
        ("http://127.0.0.1/prod", ("127.0.0.1", 80, "127.0.0.1", "/prod")),
        ("http://[::1]:8080/a/b", ("::1", 8080, "[::1]:8080", "/a/b")),
    ],
)
def test_an_endpoint_is_a_url_taken_apart(url: str, expected: tuple[str, int, str, str]) -> None:
    """The port follows from the scheme, TLS is for https alone, and a slash at the end is dropped."""
    tls = ssl.create_default_context()
    found = Endpoint.of(url, tls)
    assert (found.host, found.port, found.netloc, found.path) == expected
    assert found.tls is (tls if url.startswith("https") else None)
