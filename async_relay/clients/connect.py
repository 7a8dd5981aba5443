"""$connect and $disconnect: the row that says a client is there, and what it may have.

Rules
- A client without a row gets no messages. So a ``put`` that fails refuses the connection.
- ``createdAt`` is no earlier than a moment before the row was there: what was read before may lack what the client does
  not get live (``lateness``). A row that took its time is written again, with a later one.
- With AUTH_MODE=jwt, who comes past no authorizer is refused: nobody attached it to the route. An Origin that is not
  listed is refused in every mode.
- What the authorizer's context says is believed as far as it can be read: an ``expiresAt`` that cannot refuses the
  client, ``tenants`` that cannot are none.
- The answer names the best of our subprotocols that the client offered in a header, and never what it offered beside
  them: there its token may be.
- API Gateway sends $disconnect on a best-effort basis, and may never send it. So every row carries a TTL,
  and ``delivery`` deletes the rows of clients that answer 410.

Source: API Gateway Developer Guide, "Managing connected users and client apps: $connect and $disconnect routes".
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from ..delivery.protocols import ConnectionStore
from ..settings import Settings
from ..wire.rows import ARRAY, Row
from .events import (
    as_second,
    chosen_protocol,
    connection_id,
    context,
    interest,
    is_origin_listed,
    principal,
    query,
    reads_arrays,
    tenants_in,
)

_log = logging.getLogger("async_relay")

Answer = dict[str, Any]

# The client chooses this text, and a row must stay far below DynamoDB's 400 KB.
_CLIENT_ID_LENGTH = 256
# Bytes: each of the four keys with some values. The rows are read once a batch, and by their size.
_LARGEST_INTEREST = 512
# Seconds a put may take after the row's time: half of what ``lateness`` allows, the other half is for clocks.
_PROMPT = 0.5
_ACCEPTED = 200
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_FORBIDDEN = 403


async def connect(event: Any, store: ConnectionStore, now: float, settings: Settings) -> Answer:
    """Write the client's row, as of ``now`` (seconds since 1970), or refuse it; raises ``StoreUnavailable``."""
    named = connection_id(event)
    refusal = _refusal(event, now, settings)
    if refusal is not None:
        status, reason = refusal
        _log.warning("somebody is refused: %s", reason)
        return {"statusCode": status}
    await _write(_row(named, event, now, settings), store)
    protocol = chosen_protocol(event)
    return {"statusCode": _ACCEPTED} | ({"headers": {"Sec-WebSocket-Protocol": protocol}} if protocol else {})


async def _write(row: Row, store: ConnectionStore) -> None:
    """Put the row, with a time at which it is there, or nearly so."""
    clock = asyncio.get_running_loop().time
    began, took = clock(), 0.0
    while True:
        # As late as it will be if it takes as long as the last one did.
        asked = clock()
        at = asked - began + took
        await store.put(replace(row, created_at=row.created_at + int(at * 1000)))
        took = clock() - asked
        if clock() - began <= at + _PROMPT:
            return


async def disconnect(event: Any, store: ConnectionStore) -> Answer:
    """Delete the client's row, which may be gone already; raises ``StoreUnavailable``."""
    await store.delete([connection_id(event)])
    return {"statusCode": _ACCEPTED}


def _refusal(event: Any, now: float, settings: Settings) -> tuple[int, str] | None:
    """The status and the reason for a client that may not come in."""
    if settings.auth_mode == "jwt" and principal(event) is None:
        return _UNAUTHORIZED, "no authorizer says who it is; is one attached to $connect?"
    if not is_origin_listed(event, settings.auth_origins):
        return _FORBIDDEN, "the Origin is not one of AUTH_ORIGINS"
    said = context(event).get("expiresAt")
    if said is not None and (as_second(said) or 0) <= now:
        return _UNAUTHORIZED, "the authorizer's expiresAt is past, or no whole second"
    if not _is_small(event):
        return _BAD_REQUEST, f"its interest takes more than {_LARGEST_INTEREST} bytes, or cannot be written"
    return None


def _is_small(event: Any) -> bool:
    try:
        return len((interest(event) or "").encode()) <= _LARGEST_INTEREST
    except ValueError:
        return False


def _row(named: str, event: Any, now: float, settings: Settings) -> Row:
    said = context(event)
    return Row(
        connection_id=named,
        client_id=_client_id(event),
        created_at=int(now * 1000),
        ttl=int(now + settings.ttl_hours * 3600),
        principal=principal(event),
        expires_at=as_second(said.get("expiresAt")),
        tenants=tenants_in(said.get("tenants")) if settings.by_tenant else frozenset(),
        interest=interest(event),
        frames=ARRAY if reads_arrays(event) else None,
    )


def _client_id(event: Any) -> str:
    """What the client calls itself, as far as it can be written."""
    said = next(iter(query(event, "clientId")), "")
    return (said or "unknown")[:_CLIENT_ID_LENGTH].encode(errors="replace").decode()
