"""A relay over real sockets, with a feed that is a list: it is cut when a test says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from websockets.http11 import Request, Response


class Relay:
    """A server with a feed of its own; ``refuses``: it lets nobody in."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.sockets: list[ServerConnection] = []
        self.offered: list[str | None] = []
        self.asked: list[dict[str, Any]] = []
        self.refuses: HTTPStatus | None = None
        self.was_asked = asyncio.Event()

    async def talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        # However it ends, the client comes back, or does not.
        with suppress(ConnectionClosed):
            async for text in socket:
                words = json.loads(text)
                self.asked.append(words)
                await socket.send(json.dumps(self.answer(words)))
        self.sockets = [each for each in self.sockets if each is not socket]

    def answer(self, words: dict[str, Any]) -> dict[str, Any]:
        now = f"{len(self.messages):04}"
        match words["action"]:
            case "subscribe":
                return {"kind": "incident_history", "incidents": [], "nextCursor": None, "position": now}
            case "resume":
                missed = self.messages[int(words["position"]) :]
                return {"kind": "replay", "recovered": True, "messages": missed, "position": now, "more": False}
            case "refresh":
                return {"kind": "refreshed", "expiresAt": 4_000_000_000}
        return {"type": "pong"}

    async def publish(self, **message: Any) -> None:
        number = len(self.messages) + 1
        self.messages.append({"event_id": f"e-{number}", "position": f"{number:04}", **message})
        for socket in list(self.sockets):
            with suppress(ConnectionClosed):
                await socket.send(json.dumps(self.messages[number - 1]))

    async def cut(self) -> None:
        for socket in self.sockets:
            socket.transport.abort()
        self.sockets.clear()

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.was_asked.set()
        self.offered.append(request.headers.get("Sec-WebSocket-Protocol"))
        return connection.respond(self.refuses, "no\n") if self.refuses else None


def _first_version(_socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Who has it in the URL offers none."""
    return Subprotocol("async-relay.v1") if "async-relay.v1" in offered else None


@asynccontextmanager
async def running() -> AsyncIterator[tuple[Relay, str]]:
    relay = Relay()
    async with serve(
        relay.talk, "127.0.0.1", 0, process_request=relay.admit, select_subprotocol=_first_version
    ) as server:
        yield relay, f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/prod"
