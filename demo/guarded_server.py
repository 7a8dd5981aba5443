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


def main() -> None:
    """Serve; never returns before the pipe closes or uvicorn ends."""
    threading.Thread(target=_end_with_the_demo, daemon=True).start()
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)


def _end_with_the_demo() -> None:
    sys.stdin.buffer.read()
    shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
