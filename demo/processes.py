"""Child processes that never outlive us.

Rules
- Every child leads a process group of its own, so that killing the group takes its children along,
  and Ctrl-C at the terminal reaches nobody but us.
- What one that was killed leaves in its TMPDIR goes with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import suppress


async def run(*command: str) -> tuple[int, str]:
    """Run ``command`` to its end; its exit status and everything it said. Cancelling kills its group."""
    with tempfile.TemporaryDirectory(prefix="async-relay-demo-") as scratch:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | {"TMPDIR": scratch},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            await kill_group(process)
            raise
    assert process.returncode is not None  # communicate() waited for it
    return process.returncode, output.decode(errors="replace")


async def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill ``process`` and all it started, and wait for it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
