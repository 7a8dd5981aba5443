"""What a client asks for on $default, and what it gets; who may ask at all."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from deployment import Context
from door import asking, environ
from hypothesis import given
from hypothesis import strategies as st
from lambda_models import EPOCH, virtual_time, wall_clock

from async_relay.delivery.protocols import Transport
from async_relay.errors import Unavailable
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import NEVER, OK, MemoryServices, MemoryStore, MemoryTransport, Reply

pytestmark = virtual_time

OK_200 = {"statusCode": 200}
LATER = {"kind": "error", "message": "Nobody can answer now; ask again later."}
PING = {"action": "ping"}
PONG = {"type": "pong"}
BARE = {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections"}
CLOSED = environ("https://issuer.example")


class Room:
    """A sandbox with one client, ``a=``, whose row has these attributes."""

    def __init__(self, settings: dict[str, str] = BARE, *, row: bool = True, **attributes: Any) -> None:
        self.rows, self.posts = MemoryStore(index=False), MemoryTransport()
        if row:
            self.rows.add("a=", **attributes)
        self.sandbox = Sandbox(
            Settings.from_env(settings), MemoryServices(self.rows, self.posts), wall_clock=wall_clock
        )

    async def ask(self, body: Any, seconds: float = 60.0) -> list[Any]:
        """What the client got for it."""
        before = len(self.posts.received["a="])
        assert await self.sandbox.on_request(asking(body), Context(seconds)) == OK_200
        return [json.loads(message.body) for message in self.posts.received["a="][before:]]


# ── ping ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [{"action": "ping"}, {"type": "ping"}, {"action": "ping", "type": "x", "more": [1]}])
@pytest.mark.parametrize("stamp", [1_700_000_000_123, 1.5, 0, -1, "2023-11-14T22:13:20Z", "", "é"])
async def test_a_ping_is_answered_with_its_own_time(form: dict[str, Any], stamp: Any) -> None:
    assert await Room().ask(form | {"timestamp": stamp}) == [PONG | {"timestamp": stamp}]
    assert await Room().ask(form) == [PONG]


@pytest.mark.parametrize(
    "stamp", ["null", "true", "[1]", '{"a":1}', "Infinity", "NaN", "1e999", '"\\ud800"', '"%s"' % ("x" * 1_025)]
)
async def test_a_time_that_is_none_is_left_out(stamp: str) -> None:
    assert await Room().ask(f'{{"type":"ping","timestamp":{stamp}}}') == [PONG]


# ── anything else ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body", ["", "hello", "[]", "5", "null", "{}", '"ping"', "{", "[" * 50_000, "\ud800", '{"a":' + "9" * 5_000 + "}"]
)
async def test_what_is_no_object_is_answered_in_one_sentence(body: str) -> None:
    assert await Room().ask(body) == [{"kind": "error", "message": "A request must be a JSON object with an action."}]


@pytest.mark.parametrize(
    "body",
    [
        {"action": "subscribe!"},
        {"action": None},
        {"action": ["ping"]},
        {"type": "pong"},
        {"action": "PING", "type": "ping"},
    ],
)
async def test_an_action_nobody_knows_is_answered_in_one_sentence(body: Any) -> None:
    (answer,) = await Room().ask(body)
    assert answer["kind"] == "error"
    assert answer["message"].startswith("The action must be one of ping, refresh")


async def test_a_body_that_is_no_text_is_no_request() -> None:
    """Nor is one that API Gateway would not have taken."""
    for body in (None, 5, {"action": "ping"}, '{"action":"ping","x":"%s"}' % ("x" * 131_072)):
        room = Room()
        await room.sandbox.on_request(asking("") | {"body": body}, Context(5))
        (message,) = room.posts.received["a="]
        assert json.loads(message.body)["kind"] == "error"


@given(
    st.text()
    | st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists, max_leaves=4).map(
        lambda each: json.dumps({"action": each, "timestamp": each, "type": "ping"})
    )
)
def test_every_request_gets_one_answer(body: str) -> None:
    """One object, whatever it was."""

    async def ask() -> None:
        (answer,) = await Room().ask(body)
        assert answer.get("type") == "pong" or answer["kind"] == "error"

    asyncio.run(ask())


# ── who may ask ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("settings", [CLOSED, BARE | {"TENANT_ATTRIBUTE": "tenant"}], ids=["jwt", "tenants"])
async def test_a_client_without_a_row_is_refused_where_rows_decide(settings: dict[str, str]) -> None:
    """It is told so, and its connection is closed: it might be a closed one's id, used again."""
    room = Room(settings, row=False)
    assert await room.ask(PING) == [{"kind": "error", "message": "Nobody knows this connection; connect again."}]
    assert room.posts.disconnected == {"a="}


async def test_a_client_without_a_row_is_served_where_the_door_is_open() -> None:
    """Rows may be late, or of another function."""
    assert await Room(row=False).ask(PING) == [PONG]


@pytest.mark.parametrize("settings", [CLOSED, BARE], ids=["jwt", "none"])
async def test_a_client_past_its_end_is_closed_and_not_answered(settings: dict[str, str]) -> None:
    """To the second; its row goes with it."""
    room = Room(settings, expiresAt=EPOCH + 60)
    assert await room.ask(PING) == [PONG]
    await asyncio.sleep(60)
    for body in (PING, {"action": "refresh", "access_token": "a.b.c"}, "hello"):
        assert await room.ask(body) == []
        assert room.posts.disconnected == {"a="}
        assert room.rows.rows == {}
        room = Room(settings, expiresAt=EPOCH + 60)


async def test_an_end_nobody_can_read_is_past() -> None:
    assert await Room(expiresAt="soon").ask(PING) == []


@pytest.mark.parametrize(("status", "tries"), [(500, 2), (429, 2), (403, 2), (400, 1)])
async def test_a_closing_that_fails_keeps_the_row(status: int, tries: int) -> None:
    """The next broadcast sees to it."""
    room = Room(expiresAt=EPOCH)
    room.posts.closings = lambda _id: Reply(status)
    assert await room.ask(PING) == []
    assert set(room.rows.rows) == {"a="}
    assert room.posts.closes["a="] == tries


async def test_a_connection_that_was_gone_already_is_forgotten() -> None:
    room = Room(expiresAt=EPOCH)
    room.posts.disconnected.add("a=")
    assert await room.ask(PING) == []
    assert room.rows.rows == {}


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────


async def test_a_client_that_is_gone_is_forgotten_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Where another endpoint could answer so too, few rows go on trust."""
    room = Room()
    names = [f"{number}=" for number in range(30)]
    room.rows.add(*names)
    room.posts.disconnected.update(names)
    for name in names:
        await room.sandbox.on_request(asking(PING, name), Context(5))
    assert len(room.rows.rows) == 1 + 5
    assert await room.ask(PING) == [PONG]
    for name in names:
        await room.sandbox.on_request(asking(PING, name), Context(5))
    assert set(room.rows.rows) == {"a="}
    assert caplog.records == []


async def test_a_table_that_is_down_is_an_error_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    room.rows.down = True
    assert await room.ask(PING) == [LATER]
    assert "a client's row cannot be read: the table does not answer" in caplog.text


async def test_a_table_that_is_silent_leaves_time_to_say_so(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    room.rows.delay = NEVER
    assert await room.ask(PING, seconds=10) == [LATER]
    assert asyncio.get_running_loop().time() < 6
    assert "there was no answer in time" in caplog.text


async def test_a_row_that_cannot_be_deleted_stays(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(expiresAt=EPOCH)
    answers = iter([False, True])
    room.rows.throttles = lambda: next(answers)
    assert await room.ask(PING) == []
    assert set(room.rows.rows) == {"a="}
    assert "stays for now" in caplog.text


@pytest.mark.parametrize(
    ("replies", "posts", "gets"), [([500, 200], 2, 1), ([429, 429, 200], 2, 0), ([400], 1, 0), ([0, 200], 2, 1)]
)
async def test_an_answer_is_tried_twice_at_most(replies: list[int], posts: int, gets: int) -> None:
    """A client that did not get it asks again."""
    room, left = Room(), iter(replies)
    room.posts.script = lambda _id, _message: Reply(next(left))
    assert len(await room.ask(PING)) == gets
    assert room.posts.posts["a="] == posts


async def test_one_sick_client_does_not_hold_an_answer_to_the_deadline() -> None:
    room = Room()
    room.posts.script = lambda _id, _message: Reply(200, NEVER, arrives=False)
    assert await room.ask(PING, seconds=300) == []
    assert asyncio.get_running_loop().time() < 2 * room.posts.timeout + 1


async def test_there_is_an_end_even_to_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    room.posts.script = lambda _id, _message: Reply(200, NEVER, arrives=False)
    assert await room.ask(PING, seconds=2) == []
    assert asyncio.get_running_loop().time() < 2
    assert "there was no time left" in caplog.text
    assert "0 in flight" in repr(room.posts)
    room.posts.script = lambda _id, _message: OK
    assert await room.ask(PING) == [PONG]


async def test_a_transport_that_cannot_be_opened_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """API Gateway gets its 200: nobody could do anything about another status."""
    room = Room()

    async def down() -> Transport:
        raise Unavailable("no credentials")

    room.sandbox._services.transport = down  # type: ignore[method-assign]
    assert await room.ask(PING) == []
    assert "a client could not be answered: no credentials" in caplog.text


async def test_nothing_a_client_sent_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    secret = "s3cret-payload"
    with caplog.at_level(logging.DEBUG, "async_relay"):
        for row in (True, False):
            room = Room(CLOSED, row=row)
            for body in (secret, {"action": secret}, {"action": "ping", "timestamp": secret}):
                await room.ask(body)
            await room.ask({"action": "refresh", "access_token": secret})
    assert secret not in caplog.text


@pytest.mark.parametrize(
    "settings",
    [BARE, BARE | {"AUTH_MODE": "jwt", "AUTHORIZER_ARN": "arn:aws:lambda:eu-west-1:123456789012:function:f"}],
)
async def test_no_token_is_taken_where_nobody_checks_them(settings: dict[str, str]) -> None:
    (answer,) = await Room(settings, principal="alice").ask({"action": "refresh", "access_token": "a.b.c"})
    assert answer == {"kind": "error", "message": "Tokens are not checked here; connect again instead."}
