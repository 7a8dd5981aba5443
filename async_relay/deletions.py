"""Rows of gone clients, deleted in parallel while the posting goes on.

A few workers at most; each takes all that has come together meanwhile, so many rows are few calls.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .errors import StoreUnavailable
from .protocols import ConnectionStore

_WORKERS = 4
_ROWS = 100


class Deletions:
    """The deletions of one broadcast."""

    def __init__(self, store: ConnectionStore) -> None:
        self._store = store
        self._rows: deque[str] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused = 0
        self._begun: set[str] = set()

    def __repr__(self) -> str:
        """A sentence for logs."""
        return f"<{self.undeleted} rows not deleted yet>"

    @property
    def undeleted(self) -> int:
        """How many rows are not known to be deleted."""
        return len(self._rows) + len(self._begun) + self._refused

    def add(self, connection_id: str) -> None:
        """Delete this row soon."""
        self._rows.append(connection_id)
        if len(self._tasks) < _WORKERS:
            task = asyncio.get_running_loop().create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for what was added, at most ``seconds``."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, seconds))

    async def cancel(self) -> None:
        """Leave what is not deleted, and no task behind."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        while self._rows:
            rows = [self._rows.popleft() for _ in range(min(_ROWS, len(self._rows)))]
            self._begun.update(rows)
            try:
                await self._store.delete(rows)
            except StoreUnavailable:
                self._refused += len(rows)
            self._begun.difference_update(rows)
