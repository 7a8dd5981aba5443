"""The transport, the connection store and the queue, in memory: the same behaviour, scripted faults.

For tests, load tests and the demo. Everything takes its time from the running loop, so a virtual
clock serves as well as the real one.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from .errors import Disconnected, PostError, QueueUnavailable, StoreUnavailable, TimedOut, Unreachable, post_error
from .jobs import Client, Cursor, Shard, shard_of
from .messages import Message
from .protocols import Entry, Page

NEVER = float("inf")


class Reply(NamedTuple):
    """What becomes of one post: ``status`` after ``delay`` seconds (``NEVER``: it hangs until the timeout).

    A status of 0 is a cut socket, -1 an endpoint nobody can connect to. ``arrives`` says whether the
    client got the message; None: just when it is a 200.
    """

    status: int = 200
    delay: float = 0.0
    arrives: bool | None = None


Script = Callable[[str, Message], Reply]
OK = Reply()


class MemoryTransport:
    """Posts into lists: ``received[connection_id]`` holds the messages in order of arrival."""

    def __init__(self, script: Script = lambda _id, _message: OK, *, timeout: float = 3.0, keep: bool = True) -> None:
        """``keep`` False counts what arrives and does not hold it."""
        self.script = script
        self.timeout = timeout
        self.keep = keep
        self.received: dict[str, list[Message]] = defaultdict(list)
        self.arrivals: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.most_in_flight = 0
        self._timers: dict[Any, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{self.posts.total()} posts, {self.arrivals.total()} arrived, {len(self._timers)} in flight>"

    async def begin(self) -> None:
        """Nothing to do but to let the loop turn, as the others do."""
        await asyncio.sleep(0)

    def send(self, lane: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        """Post as the script says; a lane is in flight once at most."""
        assert lane not in self._timers, f"{lane.connection_id} is in flight already"
        self.posts[lane.connection_id] += 1
        reply = self.script(lane.connection_id, message)
        if reply.arrives if reply.arrives is not None else reply.status == 200:
            self.arrivals[lane.connection_id] += 1
            if self.keep:
                self.received[lane.connection_id].append(message)
        late = reply.delay >= self.timeout
        error = TimedOut(f"no answer within {self.timeout:g} s") if late else _error(reply.status)
        delay = min(reply.delay, self.timeout)
        self._timers[lane] = asyncio.get_running_loop().call_later(delay, self._answer, lane, error, done)
        self.most_in_flight = max(self.most_in_flight, len(self._timers))

    def _answer(self, lane: Any, error: PostError | None, done: Callable[[Any, PostError | None], None]) -> None:
        del self._timers[lane]
        done(lane, error)

    def stop(self) -> None:
        """Cut every post in flight."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def end(self) -> None:
        """Cut every post in flight."""
        self.stop()

    async def close(self) -> None:
        """Cut every post in flight."""
        self.stop()


def _error(status: int) -> PostError | None:
    match status:
        case 200:
            return None
        case 0:
            return Disconnected("the socket was cut")
        case -1:
            return Unreachable("nothing listens")
        case _:
            return post_error(status)


class MemoryStore:
    """A connections table: ``rows`` by connection id, read in the order they were written."""

    def __init__(self, connection_ids: Sequence[str] = (), *, page_size: int = 1_000, delay: float = 0.0) -> None:
        self.rows: dict[str, Mapping[str, Any]] = {each: {} for each in connection_ids}
        self.page_size = page_size
        self.delay = delay
        self.down = False
        self.reads = 0
        self.deleted: list[str] = []
        self._order = list(connection_ids)

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.rows)} rows, {self.reads} pages read, {len(self.deleted)} deleted>"

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """The page after the cursor."""
        await self._work()
        self.reads += 1
        start = int(cursor["position"]) if cursor else 0
        end = start + self.page_size
        clients = [
            Client(each, self.rows[each].get("createdAt"))
            for each in islice(self._order, start, end)
            if each in self.rows and (shard.count == 1 or shard_of(each, shard.count) == shard.index)
        ]
        return Page(clients, {"position": end} if end < len(self._order) else None)

    async def count(self, enough: int) -> int:
        """How many rows there are."""
        await self._work()
        return min(enough, len(self.rows))

    async def put(self, connection_id: str, client_id: str, created_at: int, ttl: int) -> None:
        """Write a row."""
        await self._work()
        if connection_id not in self.rows:
            self._order.append(connection_id)
        self.rows[connection_id] = {"createdAt": created_at, "clientId": client_id, "ttl": ttl}

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows."""
        await self._work()
        for connection_id in connection_ids:
            self.rows.pop(connection_id, None)
            self.deleted.append(connection_id)

    async def _work(self) -> None:
        await asyncio.sleep(self.delay)
        if self.down:
            raise StoreUnavailable("the table does not answer")


class MemoryQueue:
    """A queue that keeps what it is sent; ``refuses`` says which entries it does not take."""

    def __init__(self, refuses: Callable[[Entry], bool] = lambda _entry: False, *, delay: float = 0.0) -> None:
        self.refuses = refuses
        self.delay = delay
        self.entries: list[Entry] = []
        self._seen: set[str] = set()

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.entries)} entries>"

    async def send(self, entries: Sequence[Entry]) -> None:
        """Take what is not refused, and what was not sent before where it has a deduplication id."""
        await asyncio.sleep(self.delay)
        failed = frozenset(at for at, entry in enumerate(entries) if self.refuses(entry))
        for at, entry in enumerate(entries):
            if at in failed or entry.deduplication_id in self._seen:
                continue
            self.entries.append(entry)
            if entry.deduplication_id:
                self._seen.add(entry.deduplication_id)
        if failed:
            raise QueueUnavailable(f"the queue refused {len(failed)} of {len(entries)} entries", failed)

    def take(self) -> list[Entry]:
        """Everything in it, which is then empty."""
        entries, self.entries = self.entries, []
        return entries
