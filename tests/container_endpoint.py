"""An endpoint that hands out credentials as Lambda's does, and is as strict: only with the right token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from transports import CREDENTIALS

from async_relay.testing import Answer
from async_relay.testing.scripts import Ending, Script

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC).timestamp()
HOUR = 3_600.0
TOKEN = "Bearer of-the-sandbox"
PLAIN = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
FULL, GIVEN = "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"


def document(expires: float = NOON + 6 * HOUR, **changes: Any) -> dict[str, Any]:
    found = {
        "AccessKeyId": CREDENTIALS.access_key,
        "SecretAccessKey": CREDENTIALS.secret_key,
        "Token": CREDENTIALS.token,
        "Expiration": datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "AccountId": "123456789012",
    }
    return {name: value for name, value in (found | changes).items() if value is not None}


def answer(expires: float = NOON + 6 * HOUR, **changes: Any) -> Answer:
    return Answer(body=json.dumps(document(expires, **changes)).encode())


class Endpoint:
    """Answers by script, the last one again and again; ``arrived`` is set while a request hangs."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.asked: list[str] = []
        self.refused = 0
        self.sockets = 0
        self.arrived = asyncio.Event()
        self.environ: dict[str, str] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets += 1
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
            if lines[0] != "GET /2021/credentials?of=me HTTP/1.1" or headers.get("authorization") != TOKEN:
                self.refused += 1
                writer.write(Answer(403, body=f"no: {lines}".encode()).encode())
                return
            self.asked.append(headers["host"])
            await self._play((self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]).plan(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.sockets -= 1
            writer.close()

    async def _play(self, plan: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for delay, data in plan.writes:
            await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
        self.arrived.set()
        if plan.ending is Ending.RESET:
            writer.transport.abort()
        elif plan.ending in (Ending.HANG, Ending.KEEP):
            await reader.read()


@asynccontextmanager
async def serving(*scripts: Script) -> AsyncIterator[Endpoint]:
    endpoint = Endpoint(*scripts)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    endpoint.environ = {**PLAIN, FULL: f"http://127.0.0.1:{port}/2021/credentials?of=me", GIVEN: TOKEN}
    async with server:
        yield endpoint
        for _ in range(1_000):
            if not endpoint.sockets:
                break
            await asyncio.sleep(0.005)
        assert endpoint.sockets == 0, "a socket is left open"
