"""The Python client over real sockets: it stays, it comes back, and it knows when it is not wanted."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import pytest
from relay_with_feed import running

from async_relay.client import Connection, Detail, History, Refused, State, connect, connection


async def take(relay: Connection, count: int) -> list[Any]:
    found = []
    async for message in relay:
        found.append(message["event_id"])
        if len(found) == count:
            break
    return found


async def test_messages_come_once_and_what_was_missed_comes_too() -> None:
    """It is cut, messages are published meanwhile, and it has them all."""
    states: list[State] = []
    async with running() as (server, url), connect(url, on_state=lambda state, _detail: states.append(state)) as relay:
        await relay.wait_until_live()
        await server.publish(incident_id="a", sequence="1")
        assert await take(relay, 1) == ["e-1"]
        await server.cut()
        await server.publish(incident_id="a", sequence="2")
        await server.publish(kind="remediation")
        assert await take(relay, 2) == ["e-2", "e-3"]
        assert relay.incidents["a"]["sequence"] == "2"
        await relay.wait_until_live()
        assert relay.position == "0003"
    assert relay.state is State.CLOSED
    await asyncio.sleep(0)
    assert states[:4] == [State.CONNECTING, State.CATCHING_UP, State.LIVE, State.OFFLINE]


async def test_where_no_message_waits_the_position_is_that_of_what_was_handled() -> None:
    """So a service that stores it then has lost nothing when it starts again."""
    handled: list[str] = []
    async with running() as (server, url), connect(url) as relay:
        await relay.wait_until_live()
        for _ in range(20):
            await server.publish()
        async for message in relay:
            handled.append(message["position"])
            assert relay.waiting or relay.position == handled[-1]
            if len(handled) == 20:
                break
        assert (relay.waiting, relay.position) == (0, "0020")
    assert relay.waiting == 0


async def test_it_offers_its_token_beside_the_protocols() -> None:
    """However the token is to be had; a new one for each connection."""
    tokens = iter(["t-1", "t-2"])

    async def fresh() -> str:
        return next(tokens)

    async with running() as (server, url):
        async with connect(url, token=fresh) as relay:
            await relay.wait_until_live()
            await server.cut()
            await server.publish()
            await take(relay, 1)
        async with connect(url, token="a text") as relay:
            with pytest.raises(Refused, match="no WebSocket takes this URL or token"):
                await relay.wait_until_live()
        async with connect(url, token=lambda: "t-3", history=0) as relay:
            await relay.wait_until_live()
    assert server.offered == [f"async-relay.v2, async-relay.v1, bearer.t-{number}" for number in (1, 2, 3)]
    assert server.asked[-1] == {"action": "subscribe", "limit": 1}


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
async def test_a_server_that_does_not_let_it_in_is_the_end(status: HTTPStatus) -> None:
    """After as many tries as are allowed."""
    async with running() as (server, url):
        server.refuses = status
        async with connect(url, token="t", refused_after=2) as relay:
            with pytest.raises(Refused, match="refused 2 times"):
                await take(relay, 1)
            with pytest.raises(Refused):
                await relay.wait_until_live()


async def test_a_server_that_is_ill_is_tried_again() -> None:
    """Its answer is no refusal, and neither is that nobody answers."""
    async with running() as (server, url):
        server.refuses = HTTPStatus.INTERNAL_SERVER_ERROR
        async with connect(url, token="t", refused_after=1) as relay:
            await server.was_asked.wait()
            server.refuses = None
            await relay.wait_until_live()
    offline = asyncio.Event()

    def note(state: State, _detail: Detail) -> None:
        if state is State.OFFLINE:
            offline.set()

    async with connect(url, token="t", refused_after=1, on_state=note):
        await asyncio.wait_for(offline.wait(), 5)


async def test_a_token_that_is_out_of_reach_is_asked_for_again() -> None:
    """Whatever is raised where it is fetched."""
    answers: list[Any] = [RuntimeError("down"), "t"]

    def fetch() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    async with running() as (_server, url), connect(url, token=fetch) as relay, asyncio.timeout(10):
        await relay.wait_until_live()


async def test_what_the_owners_functions_raise_stops_nothing() -> None:
    """The loop reports it."""
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context["exception"]))

    def fail(history: History) -> None:
        raise RuntimeError(len(history.incidents))

    async with running() as (server, url), connect(url, on_history=fail) as relay:
        await relay.wait_until_live()
        await server.publish()
        assert await take(relay, 1) == ["e-1"]
    assert [str(each) for each in reported] == ["0"]


async def test_after_it_is_closed_nothing_comes_and_nothing_is_left() -> None:
    """Iteration ends, and no task goes on."""
    before = asyncio.all_tasks()
    async with running() as (_server, url):
        async with connect(url) as relay:
            await relay.wait_until_live()
        assert [message async for message in relay] == []
        assert [message async for message in relay] == []
        with pytest.raises(ConnectionError, match="closed"):
            await relay.wait_until_live()
        assert repr(relay) == "<closed, <0 incidents, 0 messages seen>>"
    assert asyncio.all_tasks() == before


async def test_a_token_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetching it is cancelled with the rest."""
    monkeypatch.setattr(connection, "_CLOSE_SECONDS", 0.01)
    before = asyncio.all_tasks()

    async def never() -> str:
        await asyncio.Event().wait()
        return ""

    async with connect("ws://127.0.0.1:9/", token=never) as relay:
        await asyncio.sleep(0)
        assert relay.state is State.CONNECTING
    assert asyncio.all_tasks() == before


async def test_who_is_cancelled_while_it_closes_leaves_nothing() -> None:
    """Nor a socket that nobody opens."""
    before = asyncio.all_tasks()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    async def stay() -> None:
        async with connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"):
            await asyncio.Event().wait()

    over = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    staying = asyncio.create_task(stay())
    for _ in range(2):
        await asyncio.sleep(0.05)
        staying.cancel()
    await asyncio.wait([staying])
    assert staying.cancelled()
    assert not [each for each in asyncio.all_tasks() - before if "WebSocket.run" in repr(each)]
    over.set()
    server.close()
    await asyncio.sleep(0.05)
