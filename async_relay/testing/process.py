"""The scripted gateway in a process of its own, so that its work is not the client's."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection as Pipe
from typing import Any

from .gateway import Counters, Gateway
from .scripts import Choice, RateLimit
from .trust import Tls

_PATIENCE = 10.0
# uvloop reads TLS into 256 KiB at a time; glibc would get them from the system, and give them back, at every read:
# half of what a post costs.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**27), "MALLOC_TRIM_THRESHOLD_": str(2**28)}


class GatewayProcess:
    """A gateway in a process of its own; every method does there what it does in ``Gateway``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        ours, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        code = f"from async_relay.testing.process import serve; serve({number})"
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", code],
            pass_fds=(number,),
            env=_KEEP_MEMORY | os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._pipe = ours
        self.pid = self._process.pid
        try:
            ours.send(options)
            self.endpoint, self.ca_file = self._answer()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        """A sentence for tests and logs."""
        return f"<process {self.pid} serves {self.endpoint}>"

    def counters(self) -> Counters:
        """All the numbers, as they are now; ``cpu_seconds`` are that process's."""
        answer: Counters = self._ask("counters")
        return answer

    @property
    def received(self) -> dict[str, list[bytes]]:
        """What arrived, for each client in order: a copy."""
        answer: dict[str, list[bytes]] = self._ask("received")
        return answer

    @property
    def arrivals(self) -> Counter[str]:
        """How many messages arrived at each client: a copy."""
        answer: Counter[str] = self._ask("arrivals")
        return answer

    def play(self, choice: Choice, *connection_ids: str) -> None:
        """``Gateway.play``; what a callable needs must be importable there."""
        self._ask("play", choice, *connection_ids)

    def limit(self, rate_limit: RateLimit | None) -> None:
        """``Gateway.limit``."""
        self._ask("limit", rate_limit)

    def clear(self) -> None:
        """``Gateway.clear``."""
        self._ask("clear")

    def close_idle(self) -> int:
        """``Gateway.close_idle``."""
        answer: int = self._ask("close_idle")
        return answer

    def reset_idle(self) -> int:
        """``Gateway.reset_idle``."""
        answer: int = self._ask("reset_idle")
        return answer

    def refuse(self) -> None:
        """``Gateway.refuse``."""
        self._ask("refuse")

    def accept(self, tls: Tls | None = None) -> None:
        """``Gateway.accept``."""
        self._ask("accept", tls)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"The gateway's process {self.pid} ended; its standard error says why.") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextlib.contextmanager
def gateway_process(**options: Any) -> Iterator[GatewayProcess]:
    """A ``Gateway(**options)`` in a process of its own, for as long as the ``with`` lasts."""
    process = GatewayProcess(options)
    try:
        yield process
    finally:
        process.close()


def serve(pipe_number: int) -> None:
    """The life of a gateway's process: until the other end of the pipe is closed."""
    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with Pipe(pipe_number) as pipe, asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_obey(pipe))


async def _obey(pipe: Pipe) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(EOFError):
        async with Gateway(**pipe.recv()) as gateway:
            answer: Any = (gateway.endpoint, gateway.ca_file)
            while True:
                pipe.send(answer)
                name, arguments = await loop.run_in_executor(None, pipe.recv)
                try:
                    answer = getattr(gateway, name)
                    if callable(answer):
                        answer = answer(*arguments)
                    if asyncio.iscoroutine(answer):
                        answer = await answer
                except Exception as error:  # noqa: BLE001 - raised again on the other side
                    answer = error
