"""Lambda's side of the relay on virtual time: what runs the tests' loop, and what must not be left on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

#: Virtual time for a test: the clock jumps to the next timer as soon as nothing else is to be done.
virtual_time = pytest.mark.looptime(noop_cycles=0, resolution=1e-9, idle_timeout=1)

EPOCH = 1_700_000_000


def wall_clock() -> float:
    """Seconds since 1970, at the pace of the running loop."""
    return EPOCH + asyncio.get_running_loop().time()


def still_running() -> list[str]:
    """The tasks and timers on the running loop beside the current task."""
    loop: Any = asyncio.get_running_loop()
    tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return tasks + [repr(timer) for timer in loop._scheduled if not timer.cancelled()]
