"""$connect and $disconnect: the row that says a client is there.

Rules
- A client without a row gets no messages. So a ``put`` that fails refuses the connection.
- API Gateway sends $disconnect on a best-effort basis, and may never send it. So every row carries a TTL,
  and ``delivery`` deletes the rows of clients that answer 410.

Source: API Gateway Developer Guide, "Managing connected users and client apps: $connect and $disconnect routes".
"""

from __future__ import annotations

from typing import Any

from ..delivery.protocols import ConnectionStore
from ..errors import RelayError
from ..wire.rows import Row

Answer = dict[str, int]

# The client chooses this text, and a row must stay far below DynamoDB's 400 KB.
_CLIENT_ID_LENGTH = 256
_ACCEPTED = 200


async def connect(event: Any, store: ConnectionStore, now: float, ttl_hours: float) -> Answer:
    """Write the client's row, as of ``now`` (seconds since 1970); raises ``StoreUnavailable``."""
    query = event.get("queryStringParameters") or {}
    client_id = str(query.get("clientId") or "unknown")[:_CLIENT_ID_LENGTH]
    await store.put(Row(_connection_id(event), client_id, int(now * 1000), int(now + ttl_hours * 3600)))
    return {"statusCode": _ACCEPTED}


async def disconnect(event: Any, store: ConnectionStore) -> Answer:
    """Delete the client's row, which may be gone already; raises ``StoreUnavailable``."""
    await store.delete([_connection_id(event)])
    return {"statusCode": _ACCEPTED}


def _connection_id(event: Any) -> str:
    try:
        return str(event["requestContext"]["connectionId"])
    except (KeyError, TypeError):
        raise RelayError(
            "the event has no requestContext.connectionId; this function belongs on a WebSocket route"
        ) from None
