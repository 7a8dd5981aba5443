"""What $connect and $disconnect do to the client's row, and whom $connect refuses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from door import NOW as SECOND
from door import ORIGIN, environ, with_headers
from hypothesis import given
from hypothesis import strategies as st
from lambda_models import virtual_time

from async_relay.clients.connect import connect, disconnect
from async_relay.errors import RelayError, StoreUnavailable
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryStore
from async_relay.wire.rows import Row

NOW = SECOND + 0.25
ROUTE: dict[str, Any] = {"requestContext": {"connectionId": "Zx1="}}
OPEN = Settings("https://ws.example.com/prod", "connections")
CLOSED = Settings.from_env(environ("https://issuer.example", TENANT_ATTRIBUTE="tenant", TENANT_CLAIM="org"))


def settings(**more: str) -> Settings:
    return Settings.from_env({"WS_ENDPOINT": OPEN.ws_endpoint, "CONNECTIONS_TABLE": "connections", **more})


def let_in(**context: Any) -> dict[str, Any]:
    """An event that came past an authorizer that said this."""
    said = {"principalId": "alice", "expiresAt": str(SECOND + 60), **context}
    said = {name: value for name, value in said.items() if value is not None}
    return {"requestContext": {"connectionId": "Zx1=", "authorizer": said}}


async def row(event: dict[str, Any], found: Settings = CLOSED) -> dict[str, Any]:
    """The row it is let in with."""
    store = MemoryStore(index=False)
    assert (await connect(event, store, NOW, found))["statusCode"] == 200
    return dict(store.rows["Zx1="])


async def status(event: dict[str, Any], found: Settings = CLOSED) -> int:
    """The status it is refused with, and nothing is written."""
    store = MemoryStore()
    answer = await connect(event, store, NOW, found)
    assert answer.keys() == {"statusCode"}
    assert store.rows == {}
    return int(answer["statusCode"])


@pytest.mark.parametrize(
    ("query", "client_id"),
    [
        ({"clientId": "analyst-7"}, "analyst-7"),
        ({"clientId": "x" * 300}, "x" * 256),
        ({"clientId": "\ud800"}, "?"),
        ({"clientId": ""}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
async def test_connect_writes_who_came_and_when(query: dict[str, str] | None, client_id: str) -> None:
    """The row has the client's own name, cut, the time in milliseconds and the second at which it expires."""
    store = MemoryStore(index=False)
    event = ROUTE | {"queryStringParameters": query}
    assert await connect(event, store, NOW, settings(TTL_HOURS="1.5")) == {"statusCode": 200}
    assert store.rows == {"Zx1=": {"createdAt": 1_700_000_000_250, "clientId": client_id, "ttl": 1_700_005_400}}


@virtual_time
@pytest.mark.parametrize("takes", [[0.1], [0.5], [3, 3], [3, 0.1], [0.6, 4, 4]])
async def test_a_row_says_no_time_long_before_it_was_there(takes: list[float]) -> None:
    """What was read in between may lack what was sent, and would be taken for newer than the row."""

    class SlowStore(MemoryStore):
        async def put(self, row: Row) -> None:
            await asyncio.sleep(left.pop(0))
            await super().put(row)

    left, store = list(takes), SlowStore(index=False)
    began = asyncio.get_running_loop().time()
    assert await connect(ROUTE, store, NOW, OPEN) == {"statusCode": 200}
    took = asyncio.get_running_loop().time() - began
    assert left == []
    assert took - 0.5 <= store.rows["Zx1="]["createdAt"] / 1000 - NOW <= took + max(takes)


async def test_an_event_without_a_query_is_a_client_without_a_name() -> None:
    """API Gateway leaves the key out where there is no query."""
    assert (await row(ROUTE, OPEN))["clientId"] == "unknown"


async def test_disconnect_deletes_the_row_however_often_it_is_called() -> None:
    """A row that is not there counts as deleted."""
    store = MemoryStore(["Zx1=", "Zx2="])
    for _ in range(2):
        assert await disconnect(ROUTE, store) == {"statusCode": 200}
    assert set(store.rows) == {"Zx2="}


async def test_a_table_that_is_down_refuses_the_client() -> None:
    """Both raise, so API Gateway answers the client with an error."""
    store = MemoryStore()
    store.down = True
    with pytest.raises(StoreUnavailable):
        await connect(ROUTE, store, NOW, OPEN)
    with pytest.raises(StoreUnavailable):
        await disconnect(ROUTE, store)


@pytest.mark.parametrize("event", [{}, {"requestContext": {}}, {"requestContext": None}])
async def test_an_event_of_no_route_says_where_the_function_belongs(event: dict[str, Any]) -> None:
    """No connectionId: one sentence, and no row."""
    store = MemoryStore()
    with pytest.raises(RelayError, match="belongs on a WebSocket route"):
        await connect(event, store, NOW, OPEN)
    with pytest.raises(RelayError, match="belongs on a WebSocket route"):
        await disconnect(event, store)
    assert store.rows == {}


# ── a closed door ───────────────────────────────────────────────────────────────────────────────


async def test_the_row_says_what_the_authorizer_said() -> None:
    """Who it is, until when and for which tenants."""
    found = await row(let_in(tenants='["acme","umbra"]'))
    assert (found["principal"], found["expiresAt"], found["tenants"]) == ("alice", SECOND + 60, {"acme", "umbra"})


@pytest.mark.parametrize("named", [None, "", 5, ["alice"], "a\r\nb", "\ud800", "x" * 1_025])
async def test_nobody_comes_in_past_no_authorizer(named: Any) -> None:
    """With AUTH_MODE=jwt; where it is none, it is a client without a name."""
    event = let_in(principalId=named)
    assert await status(event) == 401
    assert "principal" not in await row(event, OPEN)


@pytest.mark.parametrize("context", [None, "alice", [], {}])
async def test_an_event_without_an_authorizer_is_refused(context: Any) -> None:
    event = {"requestContext": {"connectionId": "Zx1=", "authorizer": context}}
    assert await status(event) == 401
    assert await status(ROUTE) == 401


@pytest.mark.parametrize(
    "until", [str(SECOND), str(SECOND - 1), "0", SECOND, "soon", "", "1.8e9", -1, True, [SECOND + 9]]
)
async def test_an_end_that_is_past_or_odd_is_refused(until: Any) -> None:
    """In every mode: an authorizer of the owner's own may stand before an open door."""
    assert await status(let_in(expiresAt=until)) == 401
    assert await status(let_in(expiresAt=until), OPEN) == 401


async def test_the_second_of_the_end_is_past() -> None:
    """To the second, as for whoever is connected."""
    store = MemoryStore()
    assert await connect(let_in(), store, SECOND + 60.0, CLOSED) == {"statusCode": 401}
    assert (await connect(let_in(), store, SECOND + 59.9, CLOSED))["statusCode"] == 200


async def test_an_authorizer_may_name_no_end() -> None:
    assert "expiresAt" not in await row(let_in(expiresAt=None))


@pytest.mark.parametrize(
    "tenants", [None, "acme", "{}", "[", '["acme",{}]', '[""]', ["acme"], "[" + '"a",' * 3_000 + '"a"]']
)
async def test_tenants_that_are_odd_are_none(tenants: Any) -> None:
    assert "tenants" not in await row(let_in(tenants=tenants))


async def test_tenants_are_written_only_where_they_are_on() -> None:
    assert "tenants" not in await row(let_in(tenants='["acme"]'), OPEN)


@pytest.mark.parametrize("mode", ["none", "jwt"])
async def test_an_origin_that_is_not_listed_is_refused_in_every_mode(mode: str) -> None:
    more = {"AUTH_ISSUER": "https://issuer.example", "AUTH_AUDIENCE": "relay"} if mode == "jwt" else {}
    found = settings(AUTH_ORIGINS=ORIGIN, AUTH_MODE=mode, **more)
    assert await status(let_in() | {"headers": {"origin": "https://evil.example"}}, found) == 403
    await row(let_in() | {"headers": {"origin": ORIGIN}}, found)
    await row(let_in(), found)


# ── what the client asks for ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lines", "query", "protocol", "frames"),
    [
        ([], None, None, None),
        (["async-relay.v1"], None, "async-relay.v1", None),
        (["async-relay.v1, async-relay.v2"], None, "async-relay.v2", "array"),
        (["bearer.a.b.c", "async-relay.v2"], None, "async-relay.v2", "array"),
        (["bearer.a.b.c"], None, None, None),
        (["chat"], None, None, None),
        ([], "async-relay.v2", None, "array"),
        ([], "async-relay.v1", None, None),
        (["async-relay.v1"], "async-relay.v2", "async-relay.v1", "array"),
    ],
)
async def test_the_best_protocol_of_the_header_is_answered(
    lines: list[str], query: str | None, protocol: str | None, frames: str | None
) -> None:
    """A browser fails on an answer that it did not offer, and the token is none."""
    event = with_headers(*(("Sec-WebSocket-Protocol", line) for line in lines)) | ROUTE
    event["queryStringParameters"] = {"protocol": query} if query else None
    store = MemoryStore(index=False)
    expected = {"statusCode": 200} | ({"headers": {"Sec-WebSocket-Protocol": protocol}} if protocol else {})
    assert await connect(event, store, NOW, OPEN) == expected
    assert store.rows["Zx1="].get("frames") == frames
    assert "a.b.c" not in str(store.rows)


async def test_interest_is_kept_as_the_row_has_it() -> None:
    found = await row(ROUTE | {"queryStringParameters": {"severity": "HIGH,CRITICAL", "kind": "incident_update"}}, OPEN)
    assert json.loads(found["interest"]) == {"kind": ["incident_update"], "severity": ["CRITICAL", "HIGH"]}


@pytest.mark.parametrize("values", ["x" * 500, ",".join(map(str, range(200))), "é" * 250, "\ud800"])
async def test_an_interest_nobody_would_keep_is_refused(values: str) -> None:
    """The rows are read once a batch."""
    assert await status(ROUTE | {"queryStringParameters": {"severity": values}}, OPEN) == 400
    assert len((await row(ROUTE | {"queryStringParameters": {"severity": "x" * 495}}, OPEN))["interest"]) == 512


@given(st.dictionaries(st.sampled_from(["clientId", "kind", "severity", "protocol"]), st.text(), max_size=4))
async def test_a_row_can_always_be_written(query: dict[str, str]) -> None:
    """Whatever a client puts into its query, the row is UTF-8 and small, or there is none."""
    store = MemoryStore(index=False)
    answer = await connect(ROUTE | {"queryStringParameters": query}, store, NOW, OPEN)
    assert answer["statusCode"] == (200 if store.rows else 400)
    for found in store.rows.values():
        assert sum(len(str(value).encode()) for value in found.values()) < 2_000
