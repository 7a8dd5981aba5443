"""An object in a process of its own, used over a pipe, so that its work is not the caller's; and the gateway as one.

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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from multiprocessing.connection import Connection as Pipe
from typing import Any

from .gateway import Counters
from .scripts import Choice, RateLimit
from .trust import Tls

# Seconds for a process to end by itself once its pipe is closed; then it is killed.
_PATIENCE = 10.0
# uvloop reads TLS into 256 KiB at a time; glibc would get them from the system, and give them back, at every read:
# half of what a post costs.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**27), "MALLOC_TRIM_THRESHOLD_": str(2**28)}


class RemoteObject:
    """``Class(**options)`` of ``module``, entered with ``async with`` in a process of its own.

    Several threads may use it; their calls are served one after another.
    """

    def __init__(self, module: str, name: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        """``environ`` is the process's environment; raises ``RuntimeError`` where the object cannot be made."""
        ours, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        code = f"from {__name__} import serve; serve({number})"
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code],
            pass_fds=(number,),
            env={**environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._pipe = ours
        self._lock = threading.Lock()
        self.pid = self._process.pid
        try:
            ours.send((module, name, dict(options)))
            self._answer()
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the object's method, or read its attribute; returns or raises the same here."""
        with self._lock:
            self._pipe.send((name, arguments))
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
            raise RuntimeError(f"The process {self.pid} ended; its standard error says why.") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


class GatewayProcess(RemoteObject):
    """A gateway in a process of its own; every method does there what it does in ``Gateway``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__("async_relay.testing.gateway", "Gateway", options, _KEEP_MEMORY | os.environ)
        self.endpoint: str = self.call("endpoint")
        self.ca_file: str = self.call("ca_file")

    def __repr__(self) -> str:
        """A sentence for tests and logs."""
        return f"<process {self.pid} serves {self.endpoint}>"

    def counters(self) -> Counters:
        """All the numbers, as they are now; ``cpu_seconds`` are that process's."""
        answer: Counters = self.call("counters")
        return answer

    @property
    def received(self) -> dict[str, list[bytes]]:
        """The bodies that arrived, for each client in order: a copy."""
        answer: dict[str, list[bytes]] = self.call("received")
        return answer

    @property
    def arrivals(self) -> Counter[str]:
        """How many messages arrived at each client: a copy."""
        answer: Counter[str] = self.call("arrivals")
        return answer

    def play(self, choice: Choice, *connection_ids: str) -> None:
        """``Gateway.play``; what a callable needs must be importable there."""
        self.call("play", choice, *connection_ids)

    def limit(self, rate_limit: RateLimit | None) -> None:
        """``Gateway.limit``."""
        self.call("limit", rate_limit)

    def clear(self) -> None:
        """``Gateway.clear``."""
        self.call("clear")

    def close_idle(self) -> int:
        """``Gateway.close_idle``."""
        answer: int = self.call("close_idle")
        return answer

    def reset_idle(self) -> int:
        """``Gateway.reset_idle``."""
        answer: int = self.call("reset_idle")
        return answer

    def refuse(self) -> None:
        """``Gateway.refuse``."""
        self.call("refuse")

    def accept(self, tls: Tls | None = None) -> None:
        """``Gateway.accept``."""
        self.call("accept", tls)


@contextlib.contextmanager
def gateway_process(**options: Any) -> Iterator[GatewayProcess]:
    """A ``Gateway(**options)`` in a process of its own, for as long as the ``with`` lasts."""
    process = GatewayProcess(options)
    try:
        yield process
    finally:
        process.close()


def serve(pipe_number: int) -> None:
    """Serve one object, until the other end of the pipe is closed; the process is for nothing else."""
    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with Pipe(pipe_number) as pipe, asyncio.Runner(loop_factory=factory) as runner:
        module, name, options = pipe.recv()
        runner.run(_obey(pipe, getattr(import_module(module), name), options))


async def _obey(pipe: Pipe, make: Callable[..., Any], options: Mapping[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(EOFError):
        async with make(**options) as served:
            answer: Any = None
            while True:
                pipe.send(answer)
                name, arguments = await loop.run_in_executor(None, pipe.recv)
                try:
                    answer = getattr(served, name)
                    if callable(answer):
                        answer = answer(*arguments)
                    if asyncio.iscoroutine(answer):
                        answer = await answer
                except Exception as error:  # noqa: BLE001 - raised again on the other side
                    answer = error
