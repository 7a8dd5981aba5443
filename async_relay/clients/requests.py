"""What a client asks for on ``$default``, and the answer.

    {"action": "ping"}, {"type": "ping"}             {"type": "pong"}, with the same timestamp, and a position
    {"action": "subscribe", ...}                     {"kind": "incident_history", ...}: see ``history``
    {"action": "resume", "position": P}              {"kind": "replay", ...}: see ``catch_up``
    {"action": "refresh", "access_token": T}         {"kind": "refreshed", "expiresAt": s}
    anything else                                    {"kind": "error", "message": one sentence}

Rules
- The row decides: a client past its ``expiresAt`` is closed and not answered, and one without a row is told so and
  closed where only a row can say what it may have.
- A row is deleted once its connection was closed, or where the evidence suffices that it is gone. One whose closing
  failed stays, and the next broadcast sees to it.
- A pong's position is of a moment ago, when whatever was published is settled: a client that is quiet for days can
  still resume. It takes no look at the feed. A client without a row gets nothing live, so its position stands still.
- API Gateway always gets 200. What nobody can answer is an error to the client and a line in the log, without
  anything of what was asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..delivery.evidence import Evidence
from ..delivery.protocols import ConnectionStore, Transport
from ..errors import ConditionFailed, Gone, RelayError, StoreUnavailable
from ..settings import Settings
from ..wire.feed import settled_at
from ..wire.jobs import Client
from ..wire.messages import MAX_POST_BYTES
from . import catch_up, history
from .answers import Answers
from .events import connection_id
from .feed_copy import FeedCopy
from .incident_list import IncidentReader
from .refusals import BadToken, CannotAnswer
from .tokens import Verifier

_log = logging.getLogger("async_relay")

Payload = Mapping[str, Any]
# Characters of a ping's own time: no clock writes a longer one.
_LONGEST_TIMESTAMP = 1_024
_LATER = "Nobody can answer now; ask again later."


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """What a sandbox keeps for its clients' requests; ``feed`` and ``incidents`` are None where there are none."""

    settings: Settings
    verifier: Verifier
    evidence: Evidence
    clock: Callable[[], float]
    feed: FeedCopy | None = None
    incidents: IncidentReader | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A client's request, and what it takes to decide by ``decide_by`` (of the loop's clock) what to answer.

    ``known`` says that the client has a row; what may be left unread is read until ``read_until``.
    """

    client: Client
    fields: Payload
    store: ConnectionStore
    keeper: Doorkeeper
    decide_by: float
    known: bool = True

    @property
    def read_until(self) -> float:
        """When reading must end that an answer can do without."""
        now = asyncio.get_running_loop().time()
        return now + (self.decide_by - now) / 2


async def on_request(
    event: Any,
    open_store: Callable[[], Awaitable[ConnectionStore]],
    transport: Transport,
    keeper: Doorkeeper,
    end: float,
) -> None:
    """Answer the client, or close its connection, by ``end`` of the loop's clock; raises ``Unavailable``."""
    named = connection_id(event)
    now = asyncio.get_running_loop().time()
    # A table or an issuer that is silent must leave the time to say so.
    decide_by = now + max(0.0, end - now) / 2
    async with Answers(transport, named) as answers:
        try:
            async with asyncio.timeout_at(decide_by):
                store = await open_store()
                client = (await store.look_up([named])).get(named)
        except (RelayError, TimeoutError) as error:
            _log.error("a client's row cannot be read: %s", _reason(error))
            await answers.post(_error(_LATER))
            return
        known = client is not None
        await _serve(Request(client or Client(named), _fields(event), store, keeper, decide_by, known), answers)


def _reason(error: Exception) -> str:
    return str(error) or "there was no answer in time"


async def _serve(request: Request, answers: Answers) -> None:
    client, keeper = request.client, request.keeper
    if not request.known and keeper.settings.needs_row:
        await answers.post(_error("Nobody knows this connection; connect again."))
        await answers.close()
        return
    if client.expires_at is not None and client.expires_at <= keeper.clock():
        await _close(request, answers)
        return
    error = await answers.post(await _answer(request))
    if error is None:
        keeper.evidence.proven = True
    elif isinstance(error, Gone):
        await _forget(request)
    else:
        _log.warning("an answer did not arrive: %s", error.reason)


async def _close(request: Request, answers: Answers) -> None:
    error = await answers.close()
    if error is None:
        await _delete(request)
    elif isinstance(error, Gone):
        await _forget(request)
    else:
        _log.warning("an expired client's connection could not be closed: %s", error.reason)


async def _forget(request: Request) -> None:
    """Delete the row of a client that is gone, where it is sure enough that it is."""
    if request.keeper.evidence.suffices(request.client.connection_id, request.client.created_at):
        await _delete(request)


async def _delete(request: Request) -> None:
    try:
        await request.store.delete([request.client.connection_id])
    except StoreUnavailable as error:
        _log.warning("the row of a client that is gone stays for now: %s", error)


async def _answer(request: Request) -> Payload:
    try:
        async with asyncio.timeout_at(request.decide_by):
            return await _action(request.fields)(request)
    except CannotAnswer as sentence:
        return _error(str(sentence))
    except (RelayError, TimeoutError) as error:
        _log.error("a client's request cannot be answered: %s", _reason(error))
        return _error(_LATER)


def _error(sentence: str) -> Payload:
    return {"kind": "error", "message": sentence}


def _fields(event: Any) -> Payload:
    """The object a client sent; empty where it sent none."""
    body = event.get("body") if isinstance(event, Mapping) else None
    try:
        found = json.loads(body) if isinstance(body, str) and len(body) <= MAX_POST_BYTES else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


async def _ping(request: Request) -> Payload:
    stamp = request.fields.get("timestamp")
    answer = {"type": "pong"} | ({"timestamp": stamp} if _is_stamp(stamp) else {})
    if request.keeper.feed is not None and request.known:
        answer["position"] = settled_at(request.keeper.clock())
    return answer


def _is_stamp(value: Any) -> bool:
    """Whether it is a number or a text that JSON in UTF-8 can hold, of a size that any clock would write."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_TIMESTAMP and value.encode(errors="ignore").decode() == value
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, float) and math.isfinite(value)


async def _refresh(request: Request) -> Payload:
    """Let the client stay as long as a new token of the same principal's says."""
    keeper = request.keeper
    settings = keeper.settings
    if settings.auth_mode != "jwt" or settings.authorizer_arn is not None:
        raise CannotAnswer("Tokens are not checked here; connect again instead.")
    try:
        identity = await keeper.verifier.verify(request.fields.get("access_token"), keeper.clock())
    except BadToken as reason:
        _log.info("nobody is let in with this token: %s", reason)
        raise CannotAnswer("The token is not good.") from None
    if not identity.in_scope:
        raise CannotAnswer("The token lacks the scope.")
    client = request.client.connection_id
    # Without a claim to read them from, the row's tenants came from elsewhere.
    tenants = identity.tenants if settings.tenant_claim else None
    try:
        await request.store.refresh(client, identity.principal, identity.expires_at, tenants)
    except ConditionFailed:
        raise CannotAnswer("The token is for somebody else than this connection.") from None
    return {"kind": "refreshed", "expiresAt": identity.expires_at}


async def _subscribe(request: Request) -> Payload:
    keeper, fields, client = request.keeper, request.fields, request.client
    now, until = keeper.clock(), request.read_until
    if keeper.incidents is not None:
        return await history.from_table(fields, client, keeper.incidents, keeper.settings, now, until)
    if keeper.feed is not None:
        return await history.from_feed(fields, client, keeper.feed, keeper.settings, now, until)
    raise CannotAnswer("There is no history here: neither INCIDENT_TABLE nor FEED_TABLE is set.")


async def _resume(request: Request) -> Payload:
    keeper = request.keeper
    if keeper.feed is None:
        raise CannotAnswer("Nothing can be resumed here: FEED_TABLE is not set.")
    now, until = keeper.clock(), request.read_until
    return await catch_up.resume(request.fields, request.client, keeper.feed, keeper.settings, now, until)


#: What a client can ask for, by its ``action``.
_ACTIONS: Mapping[str, Callable[[Request], Awaitable[Payload]]] = {
    "ping": _ping,
    "refresh": _refresh,
    "resume": _resume,
    "subscribe": _subscribe,
}


def _action(fields: Payload) -> Callable[[Request], Awaitable[Payload]]:
    """What the client asks for; raises ``CannotAnswer``."""
    if not fields:
        raise CannotAnswer("A request must be a JSON object with an action.")
    action = fields.get("action", "ping" if fields.get("type") == "ping" else None)
    found = _ACTIONS.get(action) if isinstance(action, str) else None
    if found is None:
        raise CannotAnswer(f"The action must be one of {', '.join(sorted(_ACTIONS))}.")
    return found
