"""The pool's contract: a body to a recipient, and what became of it; what the requests are is none of its business."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from transports import CREDENTIALS

from async_relay.errors import Disconnected, PostError, Refused, ServerError, TimedOut, Unreachable
from async_relay.http import pool as pool_module
from async_relay.http.opening import Endpoint, open_socket
from async_relay.http.pool import SignedPool
from async_relay.http.sigv4 import Credentials

HANG = b"hang"
SLOW = b"slow"
PIECES = b"in pieces "
ENDLESS = b"endless"
WHO = b"who"
ONCE = b"ends its socket the first time"


class Echo:
    """Requests to a server that sends every body back, but what the names above say for these."""

    most_read, most_kept = 1_000, 1_000

    def __init__(self) -> None:
        self.signed: list[str] = []
        self.dates: list[datetime] = []
        self.answers: list[tuple[Any, bytes]] = []

    def resign(self, credentials: Credentials, now: datetime) -> None:
        self.signed.append(credentials.access_key)
        self.dates.append(now)

    def request(self, recipient: Any, body: bytes, digest: str) -> bytes:
        if recipient == "nobody":
            raise LookupError("there is no such recipient")
        return b"POST / HTTP/1.1\r\nX-Digest: %b\r\nContent-Length: %d\r\n\r\n%b" % (digest.encode(), len(body), body)

    def accept(self, recipient: Any, body: bytes) -> PostError | None:
        self.answers.append((recipient, body))
        return ServerError("it echoes") if body == b"bad" else None


class Server:
    """Echoes; ``heard`` are the bodies in the order they came."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._sockets = itertools.count(1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._sockets)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.rpartition(b": ")[2]))
                self.heard.append(body)
                if body == ONCE and self.heard.count(ONCE) == 1:
                    return
                await self._answer(b"%d" % number if body == WHO else body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if body == HANG:
            await reader.read()
        if body == SLOW:
            await asyncio.sleep(0.1)
        whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        size = 40 if body.startswith(PIECES) else len(whole)
        if body == ENDLESS:
            whole, size = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 3_000, 200
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.001 if size < len(whole) else 0)
        if body == ENDLESS:
            await reader.read()


@asynccontextmanager
async def opened(requests: Echo, server: Server | None = None, **options: Any) -> AsyncIterator[SignedPool]:
    async def credentials() -> Credentials:
        return CREDENTIALS

    listening = await asyncio.start_server((server or Server()).serve, "127.0.0.1", 0)
    endpoint = Endpoint.of(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", None)
    pool = SignedPool(endpoint, requests, credentials=credentials, **options)
    await pool.begin()
    try:
        yield pool
    finally:
        await pool.close()
        listening.close()
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
        pool.send("nobody", b"c", "", ends)
        assert len(ends.found) == 2, "the socket is idle, and the answer is at hand"
        await ends.wait(3)
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


# ── one socket after another post ───────────────────────────────────────────────────────────────


async def test_every_post_on_a_socket_gets_its_own_answer() -> None:
    """Forty bodies over one socket, whole or in pieces: each comes back to whom it was sent for, and no other."""
    requests, ends = Echo(), Ends()
    sent = [(at, (PIECES if at % 3 else b"") + b"%d " % at * (at % 7 + 1)) for at in range(40)]
    async with opened(requests, max_sockets=1) as pool:
        for recipient, body in sent:
            pool.send(recipient, body, "", ends)
        await ends.wait(len(sent))
        assert pool.opened == 1
    assert requests.answers == sent
    assert ends.found == [(recipient, None) for recipient, _ in sent]


async def test_a_post_that_waits_goes_as_soon_as_a_socket_is_free() -> None:
    """Sixty posts over one socket take milliseconds each, not a sweep of the pool."""
    ends = Ends()
    async with opened(Echo(), max_sockets=1) as pool:
        for at in range(60):
            pool.send(at, b"quick", "", ends)
        await ends.wait(60)


async def test_the_socket_used_last_is_used_again() -> None:
    """Of three idle sockets one carries all that follows, so that the others may grow old."""
    requests, ends = Echo(), Ends()
    async with opened(requests) as pool:
        for _ in range(3):
            pool.send("", SLOW, "", ends)
        await ends.wait(3)
        for count in range(4, 9):
            pool.send("", WHO, "", ends)
            await ends.wait(count)
        assert pool.opened == 3
    assert len({body for _, body in requests.answers[3:]}) == 1


async def test_as_many_sockets_are_opened_as_were_wanted_at_once() -> None:
    """Five posts at a time, ten times, need five sockets, whatever the bound."""
    ends = Ends()
    async with opened(Echo(), max_sockets=50) as pool:
        for turn in range(1, 11):
            for at in range(5):
                pool.send(at, SLOW if turn == 1 else b"quick", "", ends)
            await ends.wait(5 * turn)
        assert pool.opened == 5


async def test_an_answer_that_does_not_end_is_given_up_piece_by_piece() -> None:
    """What comes in small pieces counts together, for one answer and not for the next."""
    ends = Ends()
    async with opened(Echo(), timeout=2.0) as pool:
        pool.send(1, ENDLESS, "", ends)
        await ends.wait(1)
    assert isinstance(ends.found[0][1], ServerError), ends.found
    assert "does not end" in str(ends.found[0][1])


async def test_a_post_that_goes_again_goes_before_those_that_wait() -> None:
    """The server had closed the socket: the post keeps its place, on a new one."""
    server, ends = Server(), Ends()
    async with opened(Echo(), server, max_sockets=1) as pool:
        pool.send("first", b"first", "", ends)
        await ends.wait(1)
        await pool.end()
        await pool.begin()
        for body in (ONCE, b"second", b"third"):
            pool.send(body, body, "", ends)
        await ends.wait(4)
    assert server.heard == [b"first", ONCE, ONCE, b"second", b"third"]
    assert [error for _, error in ends.found] == [None] * 4


# ── time ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_posts_time_begins_when_it_is_sent() -> None:
    """Posts of a third of the timeout, one after another for longer than that, are all in time."""
    ends = Ends()
    async with opened(Echo(), timeout=0.5) as pool:
        pool.send(0, SLOW, "", ends)
        for at in range(1, 8):
            await ends.wait(at)
            pool.send(at, SLOW, "", ends)
        await ends.wait(8)
    assert [error for _, error in ends.found] == [None] * 8


async def test_a_post_that_waits_behind_one_that_hangs_is_late_and_the_endpoint_is_there() -> None:
    """Both time out; the one without a socket is not told that nobody can be reached."""
    ends = Ends()
    async with opened(Echo(), max_sockets=1, timeout=0.2) as pool:
        pool.send("hangs", HANG, "", ends)
        pool.send("waits", b"quick", "", ends)
        await ends.wait(2)
    assert [(recipient, type(error)) for recipient, error in ends.found] == [("hangs", TimedOut), ("waits", TimedOut)]


async def test_a_post_without_any_socket_is_told_that_the_endpoint_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Handshakes that do not end: unreachable, in time."""

    async def hang(*_: Any) -> Any:
        await asyncio.Event().wait()

    ends = Ends()
    async with opened(Echo(), timeout=0.2) as pool:
        monkeypatch.setattr(pool_module, "open_socket", hang)
        pool.send("waits", b"quick", "", ends)
        await ends.wait(1)
    assert isinstance(ends.found[0][1], Unreachable)


@pytest.mark.parametrize("timeout", [0.05, 0.2, 1.0, 3.0])
async def test_no_timeout_is_noticed_more_than_a_fifth_late(timeout: float) -> None:
    """And a tenth of a second at most, whatever the timeout."""
    async with opened(Echo(), timeout=timeout) as pool:
        late = pool._period * (pool._patience + 1) - timeout
        assert 0 <= late <= min(0.1, timeout / 5) + 1e-9


async def test_requests_are_dated_in_utc() -> None:
    """Whatever the machine's own time zone."""
    requests = Echo()
    async with opened(requests):
        assert requests.dates[0].utcoffset() == timedelta(0)
        assert abs(requests.dates[0] - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_broadcast_that_never_pauses_is_signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The date is renewed between two sweeps too, while sockets are busy all the time."""
    monkeypatch.setattr(pool_module, "_SIGNED_FOR", 0.05)
    requests, ends = Echo(), Ends()
    async with opened(requests, timeout=0.5) as pool:
        for at in range(5):
            pool.send(at, SLOW, "", ends)
            await asyncio.sleep(0.06)
        await ends.wait(5)
    assert len(requests.dates) >= 4


# ── opening sockets ─────────────────────────────────────────────────────────────────────────────


class Opening:
    """Opens the first sockets as ever; what becomes of the others is ``otherwise``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, real: int, otherwise: Any) -> None:
        self.tried = 0
        self._real = real
        self._otherwise = otherwise
        monkeypatch.setattr(pool_module, "open_socket", self.open)

    async def open(self, *arguments: Any) -> Any:
        self.tried += 1
        return await (open_socket(*arguments) if self.tried <= self._real else self._otherwise())


async def refuse() -> Any:
    raise ConnectionRefusedError("nobody listens")


async def hang() -> Any:
    await asyncio.Event().wait()


async def test_an_endpoint_that_refuses_is_left_alone_until_the_next_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three hundred posts over the one socket there is: a few tries a sweep, and not some for every answer."""
    opening, ends = Opening(monkeypatch, 1, refuse), Ends()
    async with opened(Echo(), max_sockets=40) as pool:
        pool.send(0, b"quick", "", ends)
        await ends.wait(1)
        for at in range(1, 300):
            pool.send(at, b"quick", "", ends)
        await ends.wait(300)
        assert opening.tried <= 1 + pool_module._HANDSHAKES * (pool._sweeps + 1)
    assert {error for _, error in ends.found} == {None}


async def test_only_a_few_handshakes_are_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred posts at once begin sixteen, and all others wait for these."""
    opening = Opening(monkeypatch, 0, hang)
    async with opened(Echo(), max_sockets=100) as pool:
        for at in range(100):
            pool.send(at, b"quick", "", Ends())
        await asyncio.sleep(0.01)
        assert opening.tried == 16


@pytest.mark.parametrize("waiting", [True, False], ids=["with a post that waits", "with every post answered"])
async def test_the_end_of_an_invocation_does_not_wait_for_a_handshake_that_hangs(
    monkeypatch: pytest.MonkeyPatch, *, waiting: bool
) -> None:
    """A twentieth of a second at most; none of them is left."""
    Opening(monkeypatch, 1, hang)
    ends = Ends()
    async with opened(Echo(), timeout=5.0) as pool:
        for at in range(3):
            pool.send(at, b"quick", "", ends)
        await ends.wait(3)
        if waiting:
            pool.send(4, HANG, "", ends)
            pool.send(5, b"waits", "", ends)
        began = time.monotonic()
        await pool.end()
        assert time.monotonic() - began < 1
        assert " 0 opening, " in repr(pool)
    assert len(ends.found) == 3
