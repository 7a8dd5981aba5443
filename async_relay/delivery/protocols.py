"""The interfaces the core uses to reach the world: a transport, a connection store, queues.

Rules every implementation keeps
- Errors are ours (``errors``): no caller ever sees an AWS or socket error.
- Every await can be cancelled at any point without leaving anything behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import PostError
from ..wire.feed import FeedEntry, FeedPage
from ..wire.jobs import Client, Cursor, Shard
from ..wire.messages import Message
from ..wire.rows import Row


class Addressed(Protocol):
    """The client a post is for."""

    connection_id: str


A = TypeVar("A", bound=Addressed)


class Transport(Protocol):
    """``POST @connections/{connectionId}``, many at a time.

    ``send`` takes a callback, because creating a future per post would cost as much as signing it.
    """

    async def begin(self) -> None:
        """Get ready for one invocation: credentials, the date, sockets that died meanwhile."""

    def send(self, lane: A, message: Message, done: Callable[[A, PostError | None], None]) -> None:
        """Post ``message``; ``done(lane, error)`` follows exactly once, later, never from within."""

    def disconnect(self, lane: A, done: Callable[[A, PostError | None], None]) -> None:
        """Close the connection, ``DELETE @connections/{connectionId}``; ``done(lane, error)`` follows as for a post.

        The error is None where API Gateway closed it, and ``Gone`` where it knew of no such connection.
        """

    def stop(self) -> None:
        """Cut every post in flight, and every closing; no ``done`` follows for them."""

    async def end(self) -> None:
        """Stop, and wait until nothing is left running; what can serve the next invocation stays open."""

    async def close(self) -> None:
        """Close every socket."""


class Page(NamedTuple):
    """Some rows of the connections table, and where the next ones start (None: these are the last)."""

    clients: Sequence[Client]
    cursor: Cursor | None


class ConnectionStore(Protocol):
    """The connections table. Every method raises ``StoreUnavailable``."""

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """The page of ``shard`` that starts at ``cursor``, or the first one.

        A row written before the call is in a segment; in a partition it may be missing for a moment.
        """

    async def count(self, enough: int) -> int:
        """How many rows there are; any number from ``enough`` up means that many or more."""

    async def look_up(self, connection_ids: Sequence[str]) -> Mapping[str, Client]:
        """The clients of these rows, each named once, as they are now; those without a row are missing."""

    async def put(self, row: Row) -> None:
        """Write a row."""

    async def refresh(
        self, connection_id: str, principal: str, expires_at: int, tenants: frozenset[str] | None
    ) -> None:
        """Give a row a new end and new tenants (None: leave those).

        Raises ``ConditionFailed`` where it is not this principal's.
        """

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows, each named once; one that is not there counts as deleted."""


class Feed(Protocol):
    """What was published. Every method raises ``StoreUnavailable``.

    Reads are consistent: an entry whose ``append`` has ended before the call is found.
    """

    async def append(self, entries: Sequence[FeedEntry]) -> None:
        """Write entries, all or, where it raises, any number of them."""

    async def read(self, after: str, before: str, *, newest_first: bool = False) -> FeedPage:
        """Some entries with positions between these two (neither of them included), of all buckets, merged.

        Nothing between two entries of a page is left out: its last one is where the next page starts.
        """


class ItemPage(NamedTuple):
    """Some items of the incident table as plain values, and where the next ones start (None: these are the last)."""

    items: Sequence[Mapping[str, Any]]
    cursor: Cursor | None


class IncidentTable(Protocol):
    """The table whose changes are broadcast, read from a client's side. Raises ``StoreUnavailable``."""

    async def read(self, cursor: Cursor | None) -> ItemPage:
        """The page that starts at ``cursor``, or the first one; the newest first where an index has them in order."""


class Entry(NamedTuple):
    """One message for a queue; ``group`` and ``deduplication_id`` belong to FIFO queues, ``delay`` (s) to others."""

    body: str
    delay: int = 0
    group: str = ""
    deduplication_id: str = ""


class Queue(Protocol):
    """An SQS queue."""

    async def send(self, entries: Sequence[Entry]) -> None:
        """Send all; raises ``QueueUnavailable`` with the positions of those the queue did not take."""
