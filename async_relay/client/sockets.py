"""The world of a client: asyncio's time, and sockets of the library ``websockets``."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .options import SocketListener

Token = str | Callable[[], str | Awaitable[str | None] | None]

_REFUSALS = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
#: A peer that is dead does not say goodbye, and nobody waits for it.
_CLOSE_SECONDS = 1.0
_OPEN_SECONDS = 20.0
#: API Gateway's frames have 128 KB at most, in pieces of 32.
_FRAME_BYTES = 1_048_576


class AsyncioWorld:
    """Everything runs on the loop that it is made in; ``tasks`` are those still at work."""

    def __init__(self, token: Token | None) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self._token = token
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.tasks)} tasks>"

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def random(self) -> float:
        """From 0 to 1."""
        return random.random()

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call it then."""
        return self._loop.call_later(seconds, call)

    def fetch_token(self, got: Callable[[str | None], None], failed: Callable[[], None]) -> None:
        """Get a token; whatever the owner's function raises means that it is out of reach."""
        task: asyncio.Task[str | None] = self._loop.create_task(self._fetch())

        def done(task: asyncio.Task[str | None]) -> None:
            if task.cancelled() or task.exception() is not None:
                failed()
            else:
                got(task.result())

        task.add_done_callback(done)
        self._keep(task)

    async def _fetch(self) -> str | None:
        token = self._token() if callable(self._token) else self._token
        return await token if inspect.isawaitable(token) else token

    def open(self, url: str, protocols: Sequence[str], listener: SocketListener) -> WebSocket:
        """Begin to open a socket."""
        try:
            parse_uri(url)
        except InvalidURI as error:
            raise ValueError("no URL of a WebSocket") from error
        if not all(map(_is_token, protocols)):
            raise ValueError("no name of a subprotocol")
        socket = WebSocket(listener)
        self._keep(self._loop.create_task(socket.run(url, protocols)))
        return socket

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class WebSocket:
    """One socket, which tells its listener what happens to it."""

    def __init__(self, listener: SocketListener) -> None:
        self._listener = listener
        self._to_send: asyncio.Queue[str | None] = asyncio.Queue()

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{self._to_send.qsize()} to send>"

    def send(self, text: str) -> None:
        """Send it after what is waiting."""
        self._to_send.put_nowait(text)

    def close(self) -> None:
        """Close it after what is waiting."""
        self._to_send.put_nowait(None)

    async def run(self, url: str, protocols: Sequence[str]) -> None:
        """Open it, and read and write until it is over."""
        refused = False
        try:
            offered = [Subprotocol(each) for each in protocols]
            async with connect(
                url,
                subprotocols=offered or None,
                ping_interval=None,
                close_timeout=_CLOSE_SECONDS,
                open_timeout=_OPEN_SECONDS,
                max_size=_FRAME_BYTES,
            ) as connection:
                self._listener.opened()
                await self._talk(connection)
        except InvalidStatus as error:
            refused = error.response.status_code in _REFUSALS
        except (ConnectionClosed, InvalidHandshake, OSError, EOFError):
            pass
        finally:
            self._listener.closed(refused=refused)

    async def _talk(self, connection: ClientConnection) -> None:
        writing = asyncio.create_task(self._write(connection))
        try:
            async for frame in connection:
                self._listener.heard(frame)
        finally:
            writing.cancel()
            await asyncio.wait([writing])

    async def _write(self, connection: ClientConnection) -> None:
        # The reader says that it was closed.
        with suppress(ConnectionClosed):
            while (text := await self._to_send.get()) is not None:
                await connection.send(text)
            await connection.close()


def _is_token(text: str) -> bool:
    """Whether a header may have it as one word (RFC 9110, section 5.6.2)."""
    return bool(text) and all(each.isascii() and (each.isalnum() or each in "!#$%&'*+-.^_`|~") for each in text)
