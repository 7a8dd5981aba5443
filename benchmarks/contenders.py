"""The contenders, and the parent's side of each: started, told the number of clients, closed.

Every contender lives in a process of its own, with the stage's environment and nothing of the machine's.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from .peers import installation
from .peers.installation import Unavailable
from .peers.worker import ACCESS_KEY, REGION, TOKEN, Figures, Setup, connection_id
from .stage import ROOT, Stage

_PEERS = Path(__file__).resolve().parent / "peers"
#: wrk posts for a time and not a number: about as long as the others take.
_WRK_SECONDS = 2.0
#: Seconds a process has for its orderly end.
_PATIENCE = 10.0


class Running(Protocol):
    """A contender that has been started."""

    def run(self, count: int) -> Figures:
        """Broadcast to so many."""

    def close(self) -> None:
        """End the process."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One line of the comparison.

    ``whole``: it is a whole handler and not the posts alone; ``share``: of the clients, how many it posts to, since
    what is slow costs the same for fewer; ``needs``: gets or looks for what it needs, and says where.
    """

    name: str
    title: str
    start: Callable[[Stage, Setup, Path | None], Running]
    needs: Callable[[Path], Path | None] = lambda _scratch: None
    whole: bool = False
    share: float = 1.0
    signs: bool = True


class PythonProcess:
    """A peer of ``benchmarks.peers``."""

    def __init__(self, name: str, stage: Stage, setup: Setup, extra: Path | None) -> None:
        ours, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        path = os.pathsep.join([str(ROOT), *([str(extra)] if extra else [])])
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", f"from benchmarks.peers.worker import main; main({name!r}, {number})"],
            pass_fds=(number,),
            cwd=ROOT,
            env={**stage.environ, "PYTHONPATH": path},
        )
        theirs.close()
        self._pipe = ours
        try:
            self._pipe.send(setup)
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, count: int) -> Figures:
        """Broadcast to so many."""
        self._pipe.send(count)
        figures: Figures = self._answer()
        return figures

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        _end(self._process)

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise Unavailable("its process ended; its standard error says why") from None
        if isinstance(answer, str) and answer != "ready":
            raise Unavailable(answer)
        return answer


class NodeProcess:
    """Node's AWS SDK."""

    def __init__(self, stage: Stage, setup: Setup, modules: Path | None) -> None:
        told = {
            "endpoint": setup.endpoint,
            "region": REGION,
            "concurrency": setup.concurrency,
            "body": setup.body.decode(),
            "modules": str(modules),
        }
        file = stage.scratch / "node.json"
        file.write_text(json.dumps(told))
        self._process = subprocess.Popen(  # noqa: S603 - our own script
            ["node", str(_PEERS / "node.mjs"), str(file)],  # noqa: S607 - the Node.js of the PATH
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**stage.environ, "NODE_NO_WARNINGS": "1"},
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self, count: int) -> Figures:
        """Broadcast to so many."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return Figures(*self._answer())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        _end(self._process)

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else "its process ended; its standard error says why"
        if isinstance(answer, str) and answer != "ready":
            raise Unavailable(answer)
        return answer


class Wrk:
    """wrk, started anew for each run, for a time and not for a count: the gateway counts."""

    def __init__(self, stage: Stage, setup: Setup, _extra: Path | None) -> None:
        self._stage = stage
        self._setup = setup
        self._program = installation.wrk()
        file = stage.scratch / "body.json"
        file.write_bytes(setup.body)
        path = f"{urlsplit(setup.endpoint).path}/@connections/{connection_id(0).replace('=', '%3D')}"
        told = {"WRK_PATH": path, "WRK_BODY": str(file), "WRK_KEY": ACCESS_KEY, "WRK_TOKEN": TOKEN}
        self._environ = dict(stage.environ) | told

    def run(self, count: int) -> Figures:  # noqa: ARG002 - it knows nothing of clients
        """Post for two seconds."""
        at_once = str(self._setup.concurrency)
        command = [self._program, "-t1", f"-c{at_once}", f"-d{_WRK_SECONDS:g}s", "-s", str(_PEERS / "wrk.lua")]
        before = self._stage.gateway.counters().statuses.get(200, 0)
        start = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603 - found above
            [*command, self._setup.endpoint], env=self._environ, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        delivered = self._stage.gateway.counters().statuses.get(200, 0) - before
        return Figures(delivered, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024)

    def close(self) -> None:
        """Nothing runs between two runs."""


def _end(process: subprocess.Popen[Any]) -> None:
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _python(name: str) -> Callable[[Stage, Setup, Path | None], Running]:
    return lambda stage, setup, extra: PythonProcess(name, stage, setup, extra)


def _module(name: str) -> Callable[[Path], None]:
    return lambda _scratch: installation.module(name)


def _pip(name: str) -> Callable[[Path], Path]:
    return lambda scratch: installation.python_package(name, scratch)


def _wrk(_scratch: Path) -> None:
    installation.wrk()


def _npm(scratch: Path) -> Path:
    return installation.node_package("@aws-sdk/client-apigatewaymanagementapi", scratch)


#: The share of the clients that slow contenders post to: CPU per post is the same, and the run ends in minutes.
_SLOW = 0.2

#: All others are compared with the first.
CONTENDERS: Sequence[Contender] = (
    Contender("direct", "async-relay", _python("direct"), whole=True),
    Contender("sdk", "async-relay, SDK transport", _python("sdk"), whole=True, share=_SLOW),
    Contender("aioboto3-handler", "naive aioboto3 handler", _python("aioboto3-handler"), whole=True),
    Contender("wrk", "wrk: the floor", Wrk, _wrk, signs=False),
    Contender("direct-posts", "async-relay, direct transport", _python("direct-posts")),
    Contender("aiofastnet", "direct transport over aiofastnet", _python("aiofastnet"), _pip("aiofastnet")),
    Contender("pyreqwest", "pyreqwest (Rust), own signing", _python("pyreqwest"), _pip("pyreqwest")),
    Contender("aiohttp", "aiohttp, own signing", _python("aiohttp"), _module("aiohttp")),
    Contender("aioboto3", "aioboto3, semaphore and gather", _python("aioboto3"), share=_SLOW),
    Contender("aiobotocore-tuned", "aiobotocore, tuned", _python("aiobotocore-tuned"), share=_SLOW),
    Contender("node", "Node.js, AWS SDK v3", NodeProcess, _npm, share=_SLOW),
    Contender("boto3-threads", "boto3, 50 threads", _python("boto3-threads"), _module("boto3"), share=_SLOW),
    Contender("boto3", "boto3, one by one", _python("boto3"), _module("boto3"), share=_SLOW),
)
