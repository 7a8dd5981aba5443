"""One cold start, from the start of a process to its first post, with the time at each step.

    python -P cold_start.py ours|naive SETUP.json    prints {"marks": [[step, seconds], ...], "cpu": ..., "trust": ...}
    python -P cold_start.py relay|connect|default|authorize SETUP.json       one entry point, and its first invocations

The times are the system's monotonic clock, which the parent's are too. ``trust`` is how long it took to load the
certificate authorities, all contexts together. Stands alone: what it imports is part of what it measures.
"""

from __future__ import annotations

import time

MARKS = [("interpreter", time.monotonic())]

import asyncio  # noqa: E402 - the clock was first
import json  # noqa: E402
import ssl  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402

_trusting = 0.0


def mark(step: str) -> None:
    """The step ends now, if it has not ended before."""
    if all(step != name for name, _ in MARKS):
        MARKS.append((step, time.monotonic()))


def time_the_trust() -> None:
    """Add up what loading certificate authorities takes."""
    load = ssl.SSLContext.load_verify_locations

    def timed(self: ssl.SSLContext, *arguments: Any, **options: Any) -> None:
        global _trusting  # noqa: PLW0603 - one number for a process of half a second
        start = time.monotonic()
        load(self, *arguments, **options)
        _trusting += time.monotonic() - start

    ssl.SSLContext.load_verify_locations = timed  # type: ignore[method-assign]


def marking_loop(base: Any, port: int) -> Any:
    """A loop that marks the first finished handshake with ``port``."""

    class Loop(base):  # type: ignore[misc]
        async def create_connection(self, *arguments: Any, **options: Any) -> Any:
            connection = await super().create_connection(*arguments, **options)
            if connection[0].get_extra_info("peername")[1] == port:
                mark("handshake")
            return connection

    return Loop()


def ours(setup: Any) -> None:
    """``handler.lambda_handler``, with a mark at what it opens."""
    import uvloop

    uvloop.new_event_loop = lambda: marking_loop(uvloop.Loop, setup["port"])
    import handler
    from async_relay.sandbox import Sandbox
    from async_relay.services import AwsServices

    mark("imports")

    class Marking(AwsServices):
        async def store(self) -> Any:
            store: Any = await super().store()
            mark("DynamoDB client")
            read = store.read

            async def marking_read(*arguments: Any) -> Any:
                page = await read(*arguments)
                mark("first scan")
                return page

            store.read = marking_read
            return store

        async def transport(self) -> Any:
            transport: Any = await super().transport()
            mark("posting client")
            send = transport.send

            def marking_send(lane: Any, message: Any, done: Any) -> None:
                def answered(lane: Any, error: Any) -> None:
                    mark("first post")
                    done(lane, error)

                send(lane, message, answered)

            transport.send = marking_send
            return transport

    handler._sandbox = Sandbox(handler.settings, Marking(handler.settings))  # noqa: SLF001 - the same with marks
    if handler.lambda_handler(setup["event"])["batchItemFailures"]:
        sys.exit("the relay handed the record back")


def naive(setup: Any) -> None:
    """aioboto3 as most people write it."""
    import aioboto3

    mark("imports")
    runner = asyncio.Runner(loop_factory=lambda: marking_loop(asyncio.SelectorEventLoop, setup["port"]))
    runner.run(_naive(aioboto3, setup))


def entry_point(name: str, setup: Any) -> None:
    """Two invocations of an entry point as it is."""
    import handler

    mark("imports")
    invoke = handler.lambda_handler if name == "relay" else getattr(handler, f"{name}_handler")
    for step in ("first invocation", "second invocation"):
        answer = invoke(setup["events"][name])
        if answer.get("batchItemFailures") or answer.get("statusCode", 200) != 200:
            sys.exit(f"{name} came to {answer}")
        mark(step)


async def _naive(aioboto3: Any, setup: Any) -> None:
    session = aioboto3.Session()
    async with session.client("dynamodb") as table:
        mark("DynamoDB client")
        async with session.client("apigatewaymanagementapi", endpoint_url=setup["endpoint"]) as client:
            mark("posting client")
            page = await table.scan(TableName=setup["table"], ProjectionExpression="connectionId")
            mark("first scan")
            places = asyncio.Semaphore(100)

            async def post(connection_id: str) -> None:
                async with places:
                    await client.post_to_connection(ConnectionId=connection_id, Data=setup["body"])
                    mark("first post")

            await asyncio.gather(*(post(item["connectionId"]["S"]) for item in page["Items"]))


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would be one more import
        told = json.load(file)
    time_the_trust()
    kind = sys.argv[1]
    if kind in ("ours", "naive"):
        {"ours": ours, "naive": naive}[kind](told)
    else:
        entry_point(kind, told)
    mark("everybody")
    print(json.dumps({"marks": MARKS, "cpu": time.process_time(), "trust": _trusting}))
