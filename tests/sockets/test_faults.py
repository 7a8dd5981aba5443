"""Faults on real sockets: whatever the other side does, a bounded wait and the right outcome."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from transports import CREDENTIALS, KINDS, opened, post, post_all

from async_relay.delivery.protocols import Transport
from async_relay.errors import Disconnected, PostError, ServerError, TimedOut, Unreachable
from async_relay.testing.gateway import Gateway
from async_relay.testing.scripts import Answer, Choice, Cut, Drip, Garbage, Half, Hang, SlowHeader, huge_header
from async_relay.testing.trust import Tls

TIMEOUT = 1.0
BOUND = TIMEOUT + 2.0


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(tls=True, credentials=CREDENTIALS) as gateway:
        yield gateway


@pytest.fixture(params=KINDS)
async def transport(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[Transport]:
    async with opened(request.param, gateway.endpoint, gateway.ca_file, timeout=TIMEOUT, max_sockets=2) as transport:
        yield transport


@pytest.mark.parametrize(
    ("script", "outcomes"),
    [
        (Answer(delay=0.1), (None,)),
        (SlowHeader(0.1), (None,)),
        (SlowHeader(5), (TimedOut,)),
        (Drip(0.001), (None,)),
        (Drip(0.2), (TimedOut,)),
        (Half(), (Disconnected,)),
        (Half(reset=False), (Disconnected, ServerError)),
        (Half(Answer(500, body=b"x" * 1000)), (Disconnected,)),
        (Hang(), (TimedOut,)),
        (Cut(), (Disconnected,)),
        (Cut(reset=True), (Disconnected,)),
        (Garbage(), (ServerError, Disconnected)),
        (Garbage(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"), (PostError,)),
        (Garbage(b"HTTP/1.1 20"), (TimedOut,)),
        (huge_header(), (ServerError, Disconnected)),
    ],
    ids=lambda value: repr(value)[:60] if not isinstance(value, tuple) else "",
)
async def test_a_fault_is_bounded_and_the_next_post_is_served(
    gateway: Gateway, transport: Transport, script: Choice, outcomes: tuple[type[PostError] | None, ...]
) -> None:
    """The sick client has its error in time; the healthy one beside it and the one after it are served."""
    gateway.play(script, "sick=")
    start = time.monotonic()
    sick, healthy = await post_all(transport, [("sick=", b"{}"), ("healthy=", b"{}")])
    assert time.monotonic() - start < BOUND
    assert any(sick is None if kind is None else isinstance(sick, kind) for kind in outcomes), repr(sick)
    assert sick is None or sick.temporary
    assert healthy is None
    assert await post(transport, "next=") is None


@pytest.mark.parametrize(
    "tls",
    [
        Tls(certificate="wrong host"),
        Tls(certificate="expired"),
        Tls(certificate="self-signed"),
        Tls(handshake="refused"),
        Tls(handshake="hangs"),
    ],
    ids=lambda tls: f"{tls.certificate}-{tls.handshake}",
)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_endpoint_that_cannot_be_trusted_is_unreachable(kind: str, tls: Tls) -> None:
    """A certificate that does not hold, or a handshake that does not end: no byte of a post leaves."""
    async with (
        Gateway(tls=tls) as gateway,
        opened(kind, gateway.endpoint, gateway.ca_file, timeout=TIMEOUT) as transport,
    ):
        start = time.monotonic()
        answer = await post(transport, "a=")
        assert isinstance(answer, Unreachable | TimedOut), repr(answer)
        assert time.monotonic() - start < BOUND
        assert gateway.counters().posts == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9/prod", "https://nowhere.invalid/prod"])
async def test_an_endpoint_that_is_not_there_is_unreachable(kind: str, endpoint: str) -> None:
    """Nothing listens, or the name does not exist."""
    async with opened(kind, endpoint, "", timeout=TIMEOUT) as transport:
        start = time.monotonic()
        answers = await post_all(transport, [(f"{n}=", b"{}") for n in range(30)])
        assert all(isinstance(answer, Unreachable) for answer in answers), repr(answers)
        assert time.monotonic() - start < BOUND


async def test_while_other_sockets_serve_a_refused_connection_fails_nobody(gateway: Gateway) -> None:
    """The server takes no more connections; what waits is served by the sockets there are."""
    async with opened("direct", gateway.endpoint, gateway.ca_file, timeout=3, max_sockets=10) as transport:
        assert await post_all(transport, [(f"{n}=", b"{}") for n in range(2)]) == [None, None]
        await gateway.refuse()
        gateway.latency = 0.01
        assert await post_all(transport, [(f"{n}=", b"{}") for n in range(40)]) == [None] * 40
        assert gateway.sockets_opened <= 2


@pytest.mark.parametrize(("first", "kind"), [(200, type(None)), (500, ServerError)])
async def test_of_two_answers_the_first_counts(gateway: Gateway, first: int, kind: type[PostError | None]) -> None:
    """Whoever answers one post twice is heard once, and loses the socket; the next post has another."""
    async with opened("direct", gateway.endpoint, gateway.ca_file, timeout=TIMEOUT) as transport:
        twice = Answer(first).encode() + Answer(410 if first == 200 else 200).encode()
        gateway.play([Garbage(twice, arrives=True), 200], "a=")
        assert isinstance(await post(transport, "a="), kind)
        assert await post(transport, "a=") is None
        assert gateway.sockets_opened == 2


async def test_an_answer_without_end_is_given_up(gateway: Gateway) -> None:
    """A header that goes on and on is not read for ever."""
    async with opened("direct", gateway.endpoint, gateway.ca_file, timeout=5) as transport:
        gateway.play(Garbage(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000), "a=")
        start = time.monotonic()
        assert isinstance(await post(transport, "a="), ServerError)
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("size", [32_768, 131_072])
@pytest.mark.parametrize("after", [1, 20_000])
async def test_a_socket_torn_in_the_middle_of_a_frame(
    gateway: Gateway, transport: Transport, size: int, after: int
) -> None:
    """Nothing of the frame arrives; its client has its error in time, and the next one gets a whole frame."""
    frame = b"[" + b"1" * (size - 2) + b"]"
    gateway.tears = lambda name: after if name == "torn=" else None
    torn, healthy = await post_all(transport, [("torn=", frame), ("healthy=", frame)])
    assert isinstance(torn, Disconnected)
    assert healthy is None
    assert await post(transport, "healthy=", frame) is None
    assert gateway.received["healthy="] == [frame, frame]
    assert "torn=" not in gateway.received
    gateway.tears = None
    assert await post(transport, "torn=", frame) is None
