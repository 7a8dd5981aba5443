"""AWS as tests want it: a server of its JSON protocol that answers by script, and a service without a server.

One script a request, the last for all that follow.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from async_relay.aws.session import Service
from async_relay.testing import Answer
from async_relay.testing.scripts import Ending, Script

#: What DescribeTable says of a table with the index ``by-shard``.
DESCRIBED = {
    "Table": {
        "AttributeDefinitions": [{"AttributeName": "shard", "AttributeType": "N"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-shard",
                "KeySchema": [{"AttributeName": "shard", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    }
}


def content(value: Any) -> Answer:
    return Answer(body=json.dumps(value).encode())


class AwsServer:
    """``requests`` are the operations and what was asked, in the order of arrival; ``sockets`` are open now."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[tuple[str, Any]] = []
        self.agents: list[str] = []
        self.sockets = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sockets += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.sockets -= 1
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((headers["x-amz-target"].partition(".")[2], json.loads(body)))
        self.agents.append("sdk" if "user-agent" in headers else "own sockets")
        plan = (self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]).plan()
        for delay, data in plan.writes:
            await asyncio.sleep(delay)
            writer.write(data)
            await writer.drain()
        if plan.ending is Ending.HANG:
            await reader.read()
        if plan.ending is Ending.RESET:
            writer.transport.abort()
        return plan.ending is Ending.KEEP


@asynccontextmanager
async def aws_server(*scripts: Script) -> AsyncIterator[AwsServer]:
    aws = AwsServer(*scripts)
    server = await asyncio.start_server(aws.serve, "127.0.0.1", 0)
    aws.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield aws


class Answering(Service):
    """A service that answers by a function of the request, raising what that raises."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer
        self.requests: list[Any] = []

    async def call_each(self, operation: str, requests: Sequence[Any]) -> list[Any]:  # noqa: ARG002
        self.requests += requests
        return [self._answer(request) for request in requests]
