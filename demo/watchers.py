"""Clients of the library, which come back by themselves: what each is told, from its first connection to its last.

Python's (``async_relay.client``) and JavaScript's (``client/async-relay.js``, in Node) are told the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from async_relay.client import Connection, Refused, State, connect

from .cuts import Line
from .errors import DemoError
from .feed import EVERY_TENANT, Marker
from .processes import kill_group

Picture = Mapping[str, Mapping[str, Any]]

_SCRIPT = Path(__file__).with_name("watcher.mjs")
_FIRST_NODE = 22  # with a WebSocket of its own
# The local AWS starts a process for each function that the first client needs.
_LIVE_SECONDS = 90
_END_SECONDS = 10
_LINE_BYTES = 16_777_216  # a picture is one line


@dataclass(slots=True)
class Watcher:
    """A client: what it was told, and how to have its picture, which is each incident's newest state by its id.

    ``caught_up``: how many of its messages came while it caught up; ``gaps``: how often it was told that what it missed
    can no longer be had.
    """

    name: str
    tenant: str
    line: Line | None = None
    got: list[Marker] = field(default_factory=list)
    caught_up: int = 0
    gaps: int = 0
    state: str = State.CONNECTING
    reason: str = ""
    picture: Callable[[], Awaitable[Picture]] = field(init=False)
    is_live: asyncio.Event = field(default_factory=asyncio.Event)

    def may_have(self, tenant: str) -> bool:
        """Whether that tenant's messages are for it."""
        return self.tenant in (tenant, EVERY_TENANT)

    @property
    def cuts(self) -> int:
        """How often its line was cut."""
        return self.line.cuts if self.line else 0

    def told(self, message: Mapping[str, Any]) -> None:
        """A message came, be it overtaken by a newer state of its incident."""
        self.got.append(Marker.of(dict(message)))
        self.caught_up += self.state == State.CATCHING_UP

    def is_now(self, state: str, reason: str = "") -> None:
        """Its state is another one."""
        self.state, self.reason = state, reason
        if state == State.LIVE:
            self.is_live.set()

    async def until_live(self) -> None:
        """Wait until it is live for the first time; ``DemoError`` where that takes too long."""
        try:
            await asyncio.wait_for(self.is_live.wait(), _LIVE_SECONDS)
        except TimeoutError:
            raise DemoError(f"{self.name} did not get through in {_LIVE_SECONDS} seconds: it is {self.state}") from None


@asynccontextmanager
async def in_python(watcher: Watcher, url: str, token: Callable[[], str]) -> AsyncIterator[Watcher]:
    """Python's client, for as long as the block lasts."""
    async with connect(
        url,
        token=token,
        in_url=True,
        on_state=lambda state, detail: watcher.is_now(state, detail.reason or ""),
        on_stale=watcher.told,
        on_history=lambda history: _count_gap(watcher, gap=history.gap),
    ) as relay:
        watcher.picture = partial(_picture, relay)
        reading = asyncio.create_task(_read(relay, watcher))
        try:
            await watcher.until_live()
            yield watcher
        finally:
            await relay.close()
            await reading


async def _picture(relay: Connection) -> Picture:
    return dict(relay.incidents)


async def _read(relay: Connection, watcher: Watcher) -> None:
    try:
        async for message in relay:
            watcher.told(message)
    except Refused as end:
        watcher.is_now(State.REFUSED, str(end))


def _count_gap(watcher: Watcher, *, gap: bool) -> None:
    watcher.gaps += gap


def node() -> Path | None:
    """A Node.js that has all the client needs: the one beside this Python, or else the machine's; None without."""
    beside = shutil.which("node", path=str(Path(sys.executable).parent))
    for found in filter(None, (beside, shutil.which("node"))):
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
        major = re.match(r"v(\d+)\.", version)
        if major and int(major[1]) >= _FIRST_NODE:
            return Path(found)
    return None


@asynccontextmanager
async def in_node(watcher: Watcher, url: str, token: str, program: Path) -> AsyncIterator[Watcher]:
    """JavaScript's client, for as long as the block lasts. It ends with its standard input, however this ends."""
    process = await asyncio.create_subprocess_exec(
        program,
        _SCRIPT,
        url,
        env={"PATH": os.defpath, "TOKEN": token},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=_LINE_BYTES,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = _Told(watcher, process.stdin)
    watcher.picture = told.picture
    reading = asyncio.create_task(told.read(process.stdout))
    try:
        await watcher.until_live()
        yield watcher
    finally:
        process.stdin.close()
        await asyncio.wait([reading], timeout=_END_SECONDS)
        await kill_group(process)
        await reading


class _Told:
    """What a client in Node says, and its picture for the asking."""

    def __init__(self, watcher: Watcher, questions: asyncio.StreamWriter) -> None:
        self._watcher = watcher
        self._questions = questions
        self._pictures: asyncio.Queue[Picture] = asyncio.Queue()

    async def picture(self) -> Picture:
        self._questions.write(b"picture\n")
        return await asyncio.wait_for(self._pictures.get(), _END_SECONDS)

    async def read(self, output: asyncio.StreamReader) -> None:
        async for line in output:
            match json.loads(line):
                case {"message": message}:
                    self._watcher.told(message)
                case {"state": str(state), **more}:
                    self._watcher.is_now(state, str(more.get("reason") or ""))
                case {"gap": gap}:
                    self._watcher.gaps += gap
                case {"picture": picture}:
                    self._pictures.put_nowait(picture)
