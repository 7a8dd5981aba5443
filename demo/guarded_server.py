"""Runs the local AWS, in its own environment, until standard input closes: ``guarded_server.py HOST PORT``.

The demo holds the other end of that pipe: were it killed so that it cannot clean up, the pipe
closes, and the server goes with everything it started and its temporary files.

What the demo says over the pipe, a line each
- ``throttle 5``   for 5 seconds every post to a connection is answered 429, as where an account's limit is reached
- ``kill relay``   the processes of the functions whose name ends so are killed, whatever they are doing
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


class Gateway:
    """The local AWS, which takes no posts while it is throttled."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._until = 0.0

    def throttle(self, seconds: float) -> None:
        """Answer 429 from now on, for so long."""
        self._until = time.monotonic() + seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
        is_post = scope["type"] == "http" and scope["method"] == "POST" and "/@connections/" in scope["path"]
        if not is_post or time.monotonic() >= self._until:
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
        word, what = line.split()
        if word == "throttle":
            gateway.throttle(float(what))
        elif word == "kill":
            _kill_function(what)
    _end_with_the_demo()


def _kill_function(name: str) -> None:
    workers = import_module("ministack.core.lambda_runtime")._workers
    for worker in [each for some in list(workers.values()) for each in some]:
        process = worker._proc
        if worker.func_name.endswith(f"-{name}") and process is not None and process.poll() is None:
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
