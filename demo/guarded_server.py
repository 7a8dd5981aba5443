"""Runs uvicorn with the arguments given, in the local AWS's environment, until standard input closes.

The demo holds the other end of that pipe: were it killed so that it cannot clean up, the pipe
closes, and the server goes with everything it started and its temporary files.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import threading
import time

_PATIENCE_SECONDS = 5.0


def main() -> None:
    """Serve; never returns before the pipe closes or uvicorn ends."""
    threading.Thread(target=_end_with_the_demo, daemon=True).start()
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)


def _end_with_the_demo() -> None:
    sys.stdin.buffer.read()
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
