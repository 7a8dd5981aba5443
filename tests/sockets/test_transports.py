"""Both transports do the same for every answer of the gateway, over TLS, with signatures that botocore approves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from transports import CREDENTIALS, KINDS, To, close, opened, post, post_all, raw_message

from async_relay.delivery.protocols import Transport
from async_relay.errors import (
    Disconnected,
    Forbidden,
    Gone,
    PostError,
    Refused,
    ServerError,
    Throttled,
    TimedOut,
    TooLarge,
)
from async_relay.http.direct import DirectTransport
from async_relay.http.sigv4 import Credentials
from async_relay.http.tls import trust
from async_relay.testing.gateway import Gateway
from async_relay.testing.scripts import Answer, Choice, Cut, Garbage, Half, Hang

HOSTILE = ["Zx1abc=", "a/b=", "a/b+c==", "100%", "a b", "ü€𐍈", "..", "~._-", "@connections", "%3D", "a?b#c&d"]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with Gateway(tls=True, credentials=CREDENTIALS) as gateway:
        yield gateway


@pytest.fixture(params=KINDS)
async def transport(request: pytest.FixtureRequest, gateway: Gateway) -> AsyncIterator[Transport]:
    async with opened(request.param, gateway.endpoint, gateway.ca_file) as transport:
        yield transport


@pytest.mark.parametrize("connection_id", HOSTILE)
async def test_any_connection_id_arrives_signed(gateway: Gateway, transport: Transport, connection_id: str) -> None:
    """Whatever is in an id, the signature is right and the message is that client's."""
    assert await post(transport, connection_id, "ünï".encode()) is None
    assert gateway.received == {connection_id: ["ünï".encode()]}
    assert gateway.bad_signatures == 0


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Refused),
        (403, Forbidden),
        (404, Refused),
        (408, TimedOut),
        (410, Gone),
        (413, TooLarge),
        (429, Throttled),
        (500, ServerError),
        (502, ServerError),
        (503, ServerError),
    ],
)
async def test_each_status_is_its_error(
    gateway: Gateway, transport: Transport, status: int, kind: type[PostError]
) -> None:
    """A status that is not 200 is the error that stands for it, and the next post is served."""
    gateway.play([status, 200], "a=")
    assert type(await post(transport, "a=")) is kind
    assert await post(transport, "a=") is None


@pytest.mark.parametrize("connection_id", HOSTILE)
async def test_a_connection_is_closed_by_a_signed_delete(
    gateway: Gateway, transport: Transport, connection_id: str
) -> None:
    """Between two posts, which are signed for another method; whoever is closed is gone."""
    assert await post(transport, "other=") is None
    assert await close(transport, connection_id) is None
    assert await post(transport, "other=") is None
    assert isinstance(await post(transport, connection_id), Gone)
    assert isinstance(await close(transport, connection_id), Gone)
    assert gateway.closes == {connection_id: 2}
    assert gateway.bad_signatures == 0


@pytest.mark.parametrize(("status", "kind"), [(403, Forbidden), (429, Throttled), (500, ServerError), (404, Refused)])
async def test_a_delete_that_fails_has_the_errors_of_a_post(
    gateway: Gateway, transport: Transport, status: int, kind: type[PostError]
) -> None:
    """The connection is still there, and can be closed later."""
    gateway.closings = lambda _id: status
    assert type(await close(transport, "a=")) is kind
    assert await post(transport, "a=") is None
    gateway.closings = lambda _id: 204
    assert await close(transport, "a=") is None


async def test_a_post_answered_204_is_not_delivered(gateway: Gateway, transport: Transport) -> None:
    """Only a DELETE is: API Gateway answers a post that was delivered with 200."""
    gateway.play(204, "a=")
    assert isinstance(await post(transport, "a="), ServerError)


async def test_a_wrong_key_is_forbidden(gateway: Gateway, transport: Transport) -> None:
    """Credentials the gateway does not know are a 403."""
    gateway.rotate(Credentials("AKIDEXAMPLE", "another"))
    assert isinstance(await post(transport, "a="), Forbidden)
    assert gateway.bad_signatures == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(chunked=True, body=b"a body in more than one chunk"),
        Answer(segments=40),
        Answer(informational=(100,)),
        Answer(informational=(102, 103)),
        Answer(body=b"x" * 20_000),
    ],
    ids=["chunked", "in pieces", "100 continue", "other 1xx", "with a body"],
)
async def test_an_answer_may_come_in_any_shape(
    gateway: Gateway, transport: Transport, answer: Answer, request: pytest.FixtureRequest
) -> None:
    """Chunked, in pieces or after a 1xx, a 200 is a 200, and the socket serves the next post."""
    if isinstance(transport, DirectTransport) or "1xx" not in request.node.name:
        gateway.play(answer)
        for _ in range(3):
            assert await post(transport, "a=") is None
        assert gateway.sockets_opened == 1


async def test_connection_close_is_honoured(gateway: Gateway, transport: Transport) -> None:
    """After ``Connection: close`` the next post has a new socket, and loses nothing."""
    gateway.play(Answer(close=True))
    for _ in range(3):
        assert await post(transport, "a=") is None
    assert gateway.sockets_opened == 3
    assert gateway.posts["a="] == 3


async def test_sockets_are_reused(gateway: Gateway, transport: Transport) -> None:
    """A hundred posts, ten at a time, open ten sockets at most."""
    for _ in range(10):
        answers = await post_all(transport, [(f"{n}=", b"{}") for n in range(10)])
        assert answers == [None] * 10
    assert gateway.sockets_opened <= 10


async def test_more_posts_than_sockets_wait_for_one(gateway: Gateway, transport: Transport) -> None:
    """Fifty posts over ten sockets are all answered, ten in flight at most."""
    gateway.latency = 0.01
    answers = await post_all(transport, [(f"{n}=", b"{}") for n in range(50)])
    assert answers == [None] * 50
    assert gateway.most_in_flight <= 10


async def test_a_large_body_goes_through_whole(gateway: Gateway, transport: Transport) -> None:
    """128 KB arrive as they are."""
    body = b"x" * 131_072
    assert await post(transport, "a=", body) is None
    assert gateway.received["a="] == [body]


async def test_after_stop_no_answer_comes(gateway: Gateway, transport: Transport) -> None:
    """Posts in flight are cut, their callbacks are never called, and the transport serves again."""
    gateway.play(Hang(), "slow=")
    called: list[object] = []
    for _ in range(3):
        transport.send(To("slow="), raw_message(b"{}"), lambda _to, error: called.append(error))
    await asyncio.sleep(0.1)
    await transport.end()
    assert await post(transport, "a=") is None
    assert called == []


@pytest.mark.parametrize("kind", KINDS)
async def test_stop_alone_cuts_every_post(gateway: Gateway, kind: str) -> None:
    """No answer comes, not even that it took too long."""
    async with opened(kind, gateway.endpoint, gateway.ca_file, timeout=0.2) as transport:
        gateway.play(Hang())
        called: list[object] = []
        for _ in range(3):
            transport.send(To("slow="), raw_message(b"{}"), lambda _to, error: called.append(error))
        await asyncio.sleep(0.05)
        transport.stop()
        await asyncio.sleep(0.4)
        assert called == []


async def test_the_pool_is_as_large_and_as_patient_as_it_was_asked_to_be() -> None:
    async def credentials() -> Credentials:
        return CREDENTIALS

    options = {"region": "us-east-1", "credentials": credentials, "tls": None}
    pool = DirectTransport("http://localhost:9/prod", max_sockets=7, timeout=1.25, **options).pool  # type: ignore[arg-type]
    assert (pool._max_sockets, pool._timeout) == (7, 1.25)


@pytest.mark.parametrize("ending", ["close_idle", "reset_idle"])
@pytest.mark.parametrize("kind", KINDS)
async def test_sockets_that_died_between_invocations_lose_nothing(gateway: Gateway, kind: str, ending: str) -> None:
    """The server closes or resets every idle socket; the next invocation does not notice."""
    async with opened(kind, gateway.endpoint, gateway.ca_file, max_sockets=5) as transport:
        await post_all(transport, [(f"{n}=", b"{}") for n in range(5)])
        await transport.end()
        assert await getattr(gateway, ending)() == 5
        await transport.begin()
        if kind == "direct":
            assert await post_all(transport, [(f"{n}=", b"{}") for n in range(5)]) == [None] * 5
        else:
            await asyncio.sleep(0.05)
            assert await post_all(transport, [(f"{n}=", b"{}") for n in range(5)]) == [None] * 5


async def test_a_socket_that_dies_under_the_first_post_of_an_invocation_costs_nothing(gateway: Gateway) -> None:
    """The server ends an idle socket just as the post leaves: it goes again on a new one."""
    async with opened("direct", gateway.endpoint, gateway.ca_file, max_sockets=1) as transport:
        gateway.play([200, Cut(), 200, Cut(), 200], "a=")
        assert await post(transport, "a=") is None
        await transport.end()
        await transport.begin()
        assert await post(transport, "a=") is None
        assert gateway.sockets_opened == 2
        assert isinstance(await post(transport, "a="), Disconnected), "once used, a socket is not called stale"


@pytest.mark.parametrize(("script", "kind"), [(Half(), Disconnected), (Hang(), TimedOut), (Garbage(), ServerError)])
async def test_a_post_that_may_have_arrived_is_not_sent_again(
    gateway: Gateway, script: Choice, kind: type[PostError]
) -> None:
    """The first post of an invocation, on a socket of the last one: half an answer, or none in time, is its end.

    There is another idle socket, on which it could go at once.
    """
    async with opened("direct", gateway.endpoint, gateway.ca_file, max_sockets=2, timeout=0.3) as transport:
        gateway.play([200, script, 200], "a=")
        assert await post_all(transport, [("a=", b"{}"), ("b=", b"{}")]) == [None, None]
        await transport.end()
        await transport.begin()
        assert isinstance(await post(transport, "a="), kind)
        assert gateway.posts["a="] == 2


@pytest.mark.parametrize("posts", [1, 2], ids=["a new socket", "one that has carried a post"])
async def test_only_a_socket_of_an_earlier_invocation_is_ever_stale(gateway: Gateway, posts: int) -> None:
    """A socket that was opened or used in this one did not lie idle: what it loses is lost, and its caller hears so."""
    async with opened("direct", gateway.endpoint, gateway.ca_file, max_sockets=1) as transport:
        if posts > 1:
            assert await post(transport, "a=") is None
            await transport.end()
            await transport.begin()
            assert await post(transport, "a=") is None
        gateway.play([Cut(), 200], "a=")
        gateway.clear()
        assert isinstance(await post(transport, "a="), Disconnected)
        assert gateway.posts["a="] == 1


async def test_each_message_is_sent_as_it_is(gateway: Gateway, transport: Transport) -> None:
    """Messages of different lengths, in turn and at once: nobody gets another one's."""
    bodies = [("x" * length).encode() for length in (1, 300, 20)]
    posts = [(f"{number}=", body) for body in bodies for number in range(4)]
    assert await post_all(transport, posts) == [None] * len(posts)
    assert await post(transport, "0=", "ünï".encode()) is None
    for number in range(4):
        assert sorted(gateway.received[f"{number}="][:3]) == sorted(bodies)


async def test_an_error_quotes_the_start_of_an_answer(gateway: Gateway) -> None:
    """A sentence is kept, whatever its encoding; a page of HTML is cut."""
    async with opened("direct", gateway.endpoint, gateway.ca_file) as transport:
        gateway.play([Answer(400, body=b"\xff is no text"), Answer(400, body=b"x" * 20_000), 200], "a=")
        assert "is no text" in str(await post(transport, "a="))
        assert 200 <= len(str(await post(transport, "a="))) < 400
        assert await post(transport, "a=") is None


async def test_a_second_invocation_opens_no_sockets(gateway: Gateway, transport: Transport) -> None:
    """Sockets live on from one invocation to the next."""
    await post_all(transport, [(f"{n}=", b"{}") for n in range(10)])
    await transport.end()
    opened_before = gateway.sockets_opened
    await transport.begin()
    await post_all(transport, [(f"{n}=", b"{}") for n in range(10)])
    assert gateway.sockets_opened - opened_before <= 3


async def test_new_credentials_are_used_from_the_next_invocation_on(gateway: Gateway) -> None:
    """Refreshed credentials sign the posts of the invocation that found them."""
    current = [CREDENTIALS]

    async def credentials() -> Credentials:
        return current[0]

    async with opened("direct", gateway.endpoint, gateway.ca_file, credentials=credentials) as transport:
        assert await post(transport, "a=") is None
        current[0] = Credentials("AKIDOTHER", "another", "another token")
        gateway.rotate(current[0])
        await transport.end()
        await transport.begin()
        assert await post(transport, "a=") is None


async def test_the_pool_says_what_it_does(gateway: Gateway) -> None:
    """Its repr is a sentence."""
    async with opened("direct", gateway.endpoint, gateway.ca_file) as transport:
        await post(transport, "a=")
        assert repr(transport).endswith("0 busy, 1 idle, 0 opening, 0 waiting>")


@pytest.mark.parametrize("body", [b"[]", b'"no"', b"7", b"null", b"[" * 100_000], ids=lambda body: repr(body)[:12])
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_an_answer_with_an_odd_body_is_still_an_answer(
    gateway: Gateway, transport: Transport, status: int, body: bytes
) -> None:
    """JSON that is no object, or nests too deep: the post comes to an error of ours, and the next is served."""
    gateway.play([Answer(status, body=body), 200], "a=")
    async with asyncio.timeout(3):
        found = await post(transport, "a=")
    assert isinstance(found, PostError | None)
    assert (found is None) == (status == 200) or not isinstance(transport, DirectTransport)
    assert await post(transport, "a=") is None


async def test_an_id_that_is_no_text_fails_its_own_post(gateway: Gateway, transport: Transport) -> None:
    """Half a surrogate pair cannot be sent: that post has an error, later and once; the one beside it arrives."""
    odd, good = await post_all(transport, [("\ud800", b"{}"), ("a=", b"{}")])
    assert isinstance(odd, PostError)
    assert good is None
    assert await post(transport, "a=") is None
    assert gateway.posts == {"a=": 2}


async def test_a_signature_ages_while_nothing_is_posted(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five minutes of silence within an invocation: the next post is signed anew, and the one after it is not."""
    signed: list[object] = []

    async def credentials() -> Credentials:
        return CREDENTIALS

    transport = DirectTransport(
        gateway.endpoint, region="us-east-1", credentials=credentials, tls=trust(gateway.ca_file), timeout=1.0
    )
    resign = transport.pool.requests.resign

    def watched(credentials: Credentials, now: datetime) -> None:
        signed.append(now)
        resign(credentials, now)

    monkeypatch.setattr(transport.pool.requests, "resign", watched)
    await transport.begin()
    assert await post(transport, "a=") is None
    await asyncio.sleep(0.3)
    assert len(signed) == 1
    loop_class = type(asyncio.get_running_loop())
    clock = loop_class.time
    monkeypatch.setattr(loop_class, "time", lambda loop: clock(loop) + 303)
    for _ in range(2):
        assert await post(transport, "a=") is None
        assert len(signed) == 2
    await transport.close()
    assert gateway.bad_signatures == 0
