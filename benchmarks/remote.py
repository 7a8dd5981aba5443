"""An object in a process of its own, obeyed over a pipe: what is measured here must not pay for it.

The process ends with its parent, however that ends: the pipe breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.connection import Connection as Pipe
from typing import Any

from async_relay.sandbox import new_event_loop

_PATIENCE = 10.0


class Remote:
    """``Class(**options)`` of ``module``, entered with ``async with`` in its process; ``call`` calls a method there."""

    def __init__(self, module: str, name: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        ours, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", f"from benchmarks.remote import serve; serve({number})"],
            pass_fds=(number,),
            env={**environ, "PYTHONPATH": os.pathsep.join(path for path in ["", *sys.path] if path is not None)},
        )
        theirs.close()
        self._pipe = ours
        self._lock = threading.Lock()
        self._pipe.send((module, name, dict(options)))
        try:
            self.facts: Any = self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """What the method answers, or raises, there."""
        with self._lock:
            self._pipe.send((method, arguments))
            return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process {self._process.pid} ended; its standard error says why") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(pipe_number: int) -> None:
    """The life of the process: until the other end of the pipe is closed."""
    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Pipe(pipe_number) as pipe, asyncio.Runner(loop_factory=new_event_loop) as runner:
        module, name, options = pipe.recv()
        runner.run(_obey(pipe, getattr(import_module(module), name), options))


async def _obey(pipe: Pipe, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(EOFError):
        async with make(**options) as served:
            answer: Any = served.facts
            while True:
                pipe.send(answer)
                method, arguments = await loop.run_in_executor(None, pipe.recv)
                try:
                    answer = getattr(served, method)(*arguments)
                except Exception as error:  # noqa: BLE001 - raised again on the other side
                    answer = error
