"""The retry queue of a load test, in this process: a job is handed out once it is due, as SQS would."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from async_relay.delivery.protocols import Entry, Queue
from async_relay.testing.memory import MemoryQueue

from .world import DEAD_LETTERS, RETRY

# As in the template: the retry queue's BatchSize.
_JOBS_AT_ONCE = 10
#: How often an invocation gets something back that it could not do; less than the template's maxReceiveCount of 60 and
#: its visibility timeout of minutes: a load test does not wait.
RECEIVES = 5
_HIDDEN_SECONDS = 1.0


@dataclass(order=True, slots=True)
class Requeued:
    """A job that is served at ``due``, in seconds of the event loop's clock."""

    due: float
    number: int
    entry: Entry = field(compare=False)
    receives: int = field(compare=False, default=0)


class RetryQueue:
    """The jobs that wait, and the dead letters."""

    def __init__(self) -> None:
        self._retry, self._dead = MemoryQueue(), MemoryQueue()
        self.queues: dict[str, Queue] = {RETRY: self._retry, DEAD_LETTERS: self._dead}
        self.dead_letters: list[str] = []
        self._waiting: list[Requeued] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_in(self) -> float:
        """Seconds until a job is due; 0 where one is, or none waits."""
        return max(0.0, self._waiting[0].due - asyncio.get_running_loop().time()) if self._waiting else 0.0

    def collect(self) -> None:
        """Take over what the relay has sent."""
        now = asyncio.get_running_loop().time()
        for entry in self._retry.take():
            heapq.heappush(self._waiting, Requeued(now + entry.delay, next(self._numbers), entry))
        for entry in self._dead.take():
            letter = json.loads(entry.body)["deadLetter"]
            self.dead_letters.append(f"{letter['reason']}: {letter['detail']}")

    def due(self) -> list[Requeued]:
        """The jobs of one invocation, which wait no longer; none where none is due."""
        now = asyncio.get_running_loop().time()
        due: list[Requeued] = []
        while self._waiting and self._waiting[0].due <= now and len(due) < _JOBS_AT_ONCE:
            due.append(heapq.heappop(self._waiting))
        return due

    def hide(self, jobs: Sequence[Requeued]) -> None:
        """These came back: they are shown again after a while, and given up after a few times."""
        for job in jobs:
            job.receives += 1
            if job.receives < RECEIVES:
                job.due = asyncio.get_running_loop().time() + _HIDDEN_SECONDS
                heapq.heappush(self._waiting, job)
            else:
                self.dead_letters.append("a job came back again and again")
