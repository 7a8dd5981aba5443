"""A local AWS (ministack) for as long as a ``with`` block lasts.

Rules
- It hears on 127.0.0.1 only, on a free port, and knows nothing of the outer environment: no proxy,
  no credentials, no endpoint, no docker.
- What it writes goes to a TMPDIR of its own, deleted with it: unpacked zips would stay otherwise.
- Its access log is read for the answers to ``POST @connections``: the one honest count of posts.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import tempfile
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig

from .errors import DemoError
from .installation import interpreter
from .processes import kill_group

REGION = "us-east-1"
_KEY = "test"
_HOST = "127.0.0.1"
_START_SECONDS = 30
_POST = re.compile(rb'"POST \S*/(?:@|%40)connections/\S+ HTTP/[\d.]+" (\d{3})')


@dataclass
class LocalAws:
    """A running ministack; ``posts`` counts its answers to PostToConnection by status."""

    port: int
    posts: Counter[int] = field(default_factory=Counter)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    orders: asyncio.StreamWriter | None = None

    @property
    def endpoint(self) -> str:
        """What AWS_ENDPOINT_URL would be."""
        return f"http://{_HOST}:{self.port}"

    @property
    def environment(self) -> str:
        """What a shell exports for the commands of an operator."""
        keys = f"AWS_ACCESS_KEY_ID={_KEY} AWS_SECRET_ACCESS_KEY={_KEY}"
        return f"AWS_ENDPOINT_URL={self.endpoint} AWS_DEFAULT_REGION={REGION} {keys}"

    def client(self, service: str) -> AbstractAsyncContextManager[Any]:
        """A client of ``service`` that heeds nothing of the outer environment."""
        session = aioboto3.Session(aws_access_key_id=_KEY, aws_secret_access_key=_KEY, region_name=REGION)
        config = AioConfig(proxies={}, retries={"total_max_attempts": 2})
        client: AbstractAsyncContextManager[Any] = session.client(  # type: ignore[call-overload]
            service, endpoint_url=self.endpoint, config=config, verify=False
        )
        return client

    def throttle(self, rate: int, seconds: int) -> None:
        """Have it take ``rate`` posts per second and answer 429 to all others, for so long."""
        self._order(f"throttle {rate} {seconds}")

    def kill(self, *functions: str) -> None:
        """Kill the processes of functions, by their logical names, in the middle of their next posts."""
        self._order(" ".join(["kill", *functions]))

    def _order(self, line: str) -> None:
        assert self.orders is not None
        self.orders.write(f"{line}\n".encode())

    async def read(self, output: asyncio.StreamReader) -> None:
        """Take in its log until it ends."""
        async for line in output:
            if post := _POST.search(line):
                self.posts[int(post[1])] += 1
            else:
                self.log.append(line.decode(errors="replace").rstrip())


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[LocalAws]:
    """Start the ministack installed in ``home``; leave nothing of it behind."""
    scratch = tempfile.mkdtemp(prefix="async-relay-demo-")
    aws = LocalAws(port=free_port())
    try:
        process = await _start(home, aws.port, scratch)
        assert process.stdout is not None
        aws.orders = process.stdin
        reading = asyncio.create_task(aws.read(process.stdout))
        try:
            await _until_it_answers(process, aws)
            yield aws
        finally:
            # Not asked but killed: it holds nothing worth saving, and would wait for open WebSockets.
            await kill_group(process)
            await reading
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def free_port(wanted: int = 0) -> int:
    """``wanted`` if nothing listens there, any free port for 0; ``OSError`` if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_HOST, wanted))
        port: int = probe.getsockname()[1]
        return port


async def _start(home: Path, port: int, scratch: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        str(interpreter(home)),
        str(Path(__file__).with_name("guarded_server.py")),
        _HOST,
        str(port),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=_environment(port, scratch),
        start_new_session=True,
    )


def _environment(port: int, scratch: str) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": scratch,
        "TMPDIR": scratch,
        "STATE_DIR": scratch,
        "S3_DATA_DIR": scratch,
        "PYTHONUNBUFFERED": "1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "AWS_ACCESS_KEY_ID": _KEY,
        "AWS_SECRET_ACCESS_KEY": _KEY,
        "LOG_LEVEL": "WARNING",
        # It would open other ports and look for containers of its own kind to remove.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{scratch}/no-docker.sock",
    }


async def _until_it_answers(process: asyncio.subprocess.Process, aws: LocalAws) -> None:
    deadline = asyncio.get_running_loop().time() + _START_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            break
        try:
            _, writer = await asyncio.open_connection(_HOST, aws.port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    said = aws.log[-1] if aws.log else "it said nothing"
    raise DemoError(f"The local AWS did not start within {_START_SECONDS} seconds: {said}")
