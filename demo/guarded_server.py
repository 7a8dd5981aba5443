"""Runs the local AWS, in its own environment, until standard input closes: ``guarded_server.py HOST PORT``.

The demo holds the other end of that pipe: were it killed so that it cannot clean up, the pipe
closes, and the server goes with everything it started and its temporary files.

What the demo says over the pipe, a line each
- ``throttle 50 8``   for 8 seconds 50 posts per second get through and the others are answered 429, as where an
  account's limit is reached
- ``kill RelayFunction``   the tenth post from now kills the processes of the functions of these logical names: they are
  in the middle of what they do, and learn nothing of what became of their posts
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from importlib import import_module
from typing import Any

_PATIENCE_SECONDS = 5.0
_SAVED_SECONDS = 0.2
_POSTS_BEFORE = 10


class Gateway:
    """The local AWS, which takes only some posts while it is throttled, and can kill who posts."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._until = self._at = 0.0
        self._rate = self._left = 0.0
        self._doomed: list[str] = []
        self._posts_left = 0

    def throttle(self, rate: float, seconds: float) -> None:
        """From now on take ``rate`` posts per second, for so long."""
        self._at = time.monotonic()
        self._until, self._rate, self._left = self._at + seconds, rate, 0.0

    def kill(self, functions: list[str]) -> None:
        """Kill the processes of functions a few posts from now."""
        self._doomed, self._posts_left = functions, _POSTS_BEFORE

    def _count(self) -> None:
        self._posts_left -= 1
        if self._posts_left == 0:
            _kill(self._doomed)

    def _refuses(self) -> bool:
        now = time.monotonic()
        if now >= self._until:
            return False
        self._left = min(self._left + (now - self._at) * self._rate, self._rate * _SAVED_SECONDS)
        self._at = now
        if self._left < 1:
            return True
        self._left -= 1
        return False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
        is_post = scope["type"] == "http" and scope["method"] == "POST" and "/@connections/" in scope["path"]
        if is_post:
            self._count()
        if not is_post or not self._refuses():
            await self._app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        body = json.dumps({"message": "Rate exceeded"}).encode()
        headers = [(b"content-type", b"application/json"), (b"x-amzn-errortype", b"LimitExceededException")]
        headers += [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 429, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve; never returns before the pipe closes or the server ends."""
    host, port = sys.argv[1:]
    gateway = Gateway(import_module("ministack.app").app)
    threading.Thread(target=_obey, args=[gateway], daemon=True).start()
    options = {"loop": "uvloop", "http": "httptools", "ws": "wsproto", "log_level": "info"}
    import_module("uvicorn").run(gateway, host=host, port=int(port), **options)


def _obey(gateway: Gateway) -> None:
    for line in sys.stdin:
        match line.split():
            case ["throttle", rate, seconds]:
                gateway.throttle(float(rate), float(seconds))
            case ["kill", *functions]:
                gateway.kill(functions)
    _end_with_the_demo()


def _kill(functions: list[str]) -> None:
    workers = import_module("ministack.core.lambda_runtime")._workers  # noqa: SLF001 - it has no other way to a process
    for worker in [each for some in list(workers.values()) for each in some]:
        process = worker._proc  # noqa: SLF001 - as above
        if process is not None and any(f"-{name}-" in worker.func_name for name in functions):
            process.kill()


def _end_with_the_demo() -> None:
    group = os.getpgrp()
    if os.fork():
        return
    # Out of the group, so that it can be killed first: its processes would go on writing behind the deletion's back.
    os.setsid()
    os.killpg(group, signal.SIGKILL)
    scratch, patience = os.environ["TMPDIR"], time.monotonic() + _PATIENCE_SECONDS
    while os.path.lexists(scratch) and time.monotonic() < patience:
        shutil.rmtree(scratch, ignore_errors=True)
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main()
