"""A client's line to a server, which can be cut: a TCP proxy of its own for one client.

Rules
- A cut resets the client's socket: no close frame, and what was on its way is lost, half a frame too.
- The server learns of it up to a second later. Until then it takes messages for that client, as API Gateway does for a
  laptop that was closed: it answers 200, and nobody gets them.
- For this, and because it works at any moment, during a handshake too, and with any client and server, the gateway is
  not asked to close the connection (``DELETE @connections``): it would know at once that the client is gone.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

_HOST = "127.0.0.1"
_PIECE_BYTES = 65_536
_UNNOTICED_SECONDS = 1.0
_RESET = struct.pack("ii", 1, 0)


class Line:
    """Passes on what a client and a server say; ``cuts``: how often it was cut."""

    def __init__(self, host: str, port: int, chance: random.Random) -> None:
        self.cuts = 0
        self._server = host, port
        self._chance = chance
        self._calls: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def cut(self) -> None:
        """Cut it, if there is a connection."""
        open_now = [client for client in self._calls.values() if not client.transport.is_closing()]
        self.cuts += bool(open_now)
        for client in open_now:
            # Without this the client would be told that no more follows, which is half a goodbye.
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.transport.abort()

    async def serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Carry one connection to its end."""
        call = asyncio.current_task()
        assert call is not None
        self._calls[call] = to_client
        try:
            await self._carry(from_client, to_client)
        except (OSError, asyncio.CancelledError):
            to_client.transport.abort()  # a server that is not there, or the end of the line
        finally:
            to_client.close()
            del self._calls[call]

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(*self._server)
        answering = asyncio.create_task(_answer(from_server, to_client))
        cuts = self.cuts
        try:
            await _pass_on(from_client, to_server)
            if self.cuts > cuts:
                await asyncio.sleep(self._chance.uniform(0, _UNNOTICED_SECONDS))
                to_server.transport.abort()
        finally:
            to_server.close()
            answering.cancel()
            await asyncio.wait([answering])

    async def end(self) -> None:
        """Carry nothing any more."""
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # either side is gone, however it went
        while piece := await reader.read(_PIECE_BYTES):
            writer.write(piece)
            await writer.drain()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _pass_on(reader, writer)
    writer.close()


@asynccontextmanager
async def line_to(url: str, chance: random.Random) -> AsyncIterator[tuple[str, Line]]:
    """A line to the server of ``url``, and the same URL over that line."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    line = Line(parts.hostname, parts.port, chance)
    async with await asyncio.start_server(line.serve, _HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            yield parts._replace(netloc=f"{_HOST}:{port}").geturl(), line
        finally:
            await line.end()
