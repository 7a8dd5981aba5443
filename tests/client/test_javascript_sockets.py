"""The JavaScript client as Node has it, over real sockets."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from relay_with_feed import running
from servers import program

HERE = Path(__file__).parent
_OLDEST = 22


async def test_it_is_cut_and_misses_nothing() -> None:
    """What was published meanwhile comes too, each message once."""
    node = program("node")
    if node is None:
        pytest.skip("the client's tests need Node.js, which neither the dev extra nor this machine has")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603, ASYNC221
    if int(version.removeprefix("v").partition(".")[0]) < _OLDEST:
        pytest.skip(f"Node.js {_OLDEST} is the first with a WebSocket of its own, and this is {version.strip()}")
    async with running() as (server, url):
        process = await asyncio.create_subprocess_exec(
            node, HERE / "real.mjs", url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        seen: list[Any] = []

        async def until(wanted: Any) -> None:
            while wanted not in seen:
                assert process.stdout is not None
                line = await process.stdout.readline()
                assert line, seen
                seen.append(json.loads(line))

        await until({"state": "live"})
        await server.publish(incident_id="a", sequence="1")
        await until("e-1")
        for number in range(2, 4):
            await server.cut()
            await server.publish(incident_id="b", sequence=str(number))
            await until(f"e-{number}")
        process.stdin.close()
        await until({"state": "closed"})
        assert await process.wait() == 0
    assert [each for each in seen if isinstance(each, str)] == ["e-1", "e-2", "e-3"]
    assert seen[-2] == {"position": "0003", "incidents": ["a", "b"]}
    assert server.offered == ["async-relay.v2, async-relay.v1, bearer.t-1"] * 3
