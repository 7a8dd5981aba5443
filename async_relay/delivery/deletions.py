"""Deletes the rows of gone clients while the posting goes on.

One worker takes all rows that were added meanwhile, so many rows are few calls of the store. A row
that two jobs ask for, because they name the same client, is deleted once.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import Unavailable
from .protocols import ConnectionStore

# Rows per call of the store: it sends them 25 at a time side by side, and a cancelled call leaves no more than these.
_ROWS = 1_000
# Seconds for the rows still to be deleted when everybody has been served. A call takes some milliseconds, so a
# table that has not answered by then is sick; whoever is served next must not wait for it, and a row that stays
# costs one more post that is answered 410.
_LAST_CALLS = 3.0


class Deletions:
    """The deletions of one broadcast."""

    def __init__(self, store: ConnectionStore) -> None:
        self._store = store
        self._rows: deque[str] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._asked: set[str] = set()
        self._begun: set[str] = set()
        self._refused: set[str] = set()

    def __repr__(self) -> str:
        """A sentence for logs."""
        return f"<{self.undeleted} rows not deleted yet>"

    @property
    def undeleted(self) -> int:
        """How many rows are not known to be deleted."""
        return len(self._rows) + len(self._begun) + len(self._refused)

    def add(self, connection_id: str) -> None:
        """Delete this row soon, once; one that could not be deleted is tried again."""
        if connection_id in self._asked:
            return
        self._asked.add(connection_id)
        self._refused.discard(connection_id)
        self._rows.append(connection_id)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def finish(self, seconds: float) -> None:
        """Wait until the rows added are deleted, at most ``seconds`` and never more than a few."""
        if self._worker is not None:
            await asyncio.wait([self._worker], timeout=max(0.0, min(seconds, _LAST_CALLS)))
            if self._worker.done():
                self._worker.result()

    async def cancel(self) -> None:
        """Stop the worker; the rows it has not deleted stay."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while self._rows:
            rows = [self._rows.popleft() for _ in range(min(_ROWS, len(self._rows)))]
            self._begun.update(rows)
            try:
                await self._store.delete(rows)
            except Unavailable:
                self._refused.update(rows)
                self._asked.difference_update(rows)
            self._begun.difference_update(rows)
