"""What $connect and $disconnect do to the client's row."""

from __future__ import annotations

from typing import Any

import pytest

from async_relay.clients.connect import connect, disconnect
from async_relay.errors import RelayError, StoreUnavailable
from async_relay.testing.memory import MemoryStore

NOW = 1_700_000_000.25
ROUTE: dict[str, Any] = {"requestContext": {"connectionId": "Zx1="}}


@pytest.mark.parametrize(
    ("query", "client_id"),
    [
        ({"clientId": "analyst-7"}, "analyst-7"),
        ({"clientId": "x" * 300}, "x" * 256),
        ({"clientId": ""}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
    ],
)
async def test_connect_writes_who_came_and_when(query: dict[str, str] | None, client_id: str) -> None:
    """The row has the client's own name, cut, the time in milliseconds and the second at which it expires."""
    store = MemoryStore(index=False)
    assert await connect(ROUTE | {"queryStringParameters": query}, store, NOW, 1.5) == {"statusCode": 200}
    assert store.rows == {"Zx1=": {"createdAt": 1_700_000_000_250, "clientId": client_id, "ttl": 1_700_005_400}}


async def test_an_event_without_a_query_is_a_client_without_a_name() -> None:
    """API Gateway leaves the key out where there is no query."""
    store = MemoryStore()
    await connect(ROUTE, store, NOW, 24)
    assert store.rows["Zx1="]["clientId"] == "unknown"


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
        await connect(ROUTE, store, NOW, 24)
    with pytest.raises(StoreUnavailable):
        await disconnect(ROUTE, store)


@pytest.mark.parametrize("event", [{}, {"requestContext": {}}, {"requestContext": None}])
async def test_an_event_of_no_route_says_where_the_function_belongs(event: dict[str, Any]) -> None:
    """No connectionId: one sentence, and no row."""
    store = MemoryStore()
    with pytest.raises(RelayError, match="belongs on a WebSocket route"):
        await connect(event, store, NOW, 24)
    with pytest.raises(RelayError, match="belongs on a WebSocket route"):
        await disconnect(event, store)
    assert store.rows == {}
