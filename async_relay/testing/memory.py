"""The transport, the connection store, the queue and all three as services, in memory, with scripted faults.

For tests, load tests and the demo. Everything takes its time from the running loop, so a virtual
clock serves as well as the real one.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from hashlib import blake2b
from typing import Any, NamedTuple, Self

from ..delivery.protocols import (
    ConnectionStore,
    Entry,
    Feed,
    IncidentTable,
    ItemPage,
    Page,
    Queue,
    Transport,
)
from ..errors import (
    ConditionFailed,
    Disconnected,
    PostError,
    QueueUnavailable,
    StoreUnavailable,
    TimedOut,
    Unreachable,
    post_error,
)
from ..wire.feed import BUCKETS, FeedEntry, FeedPage, merged
from ..wire.jobs import Client, Cursor, Shard, ShardKind, is_in_partition, shard_of
from ..wire.messages import Message
from ..wire.rows import Row, client_of

NEVER = float("inf")
_PLACES = 2**64
# Bytes of a row's key: a longer id has no row.
_LONGEST_KEY = 2_048


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
_CLOSED = Reply(204)


class MemoryTransport:
    """Posts into lists: ``received[connection_id]`` holds the messages in order of arrival, those of an array apart.

    ``arrivals`` counts posts. One over 128 KB answers 413, whatever the script says.
    ``closings`` says what becomes of a DELETE, ``closes`` counts them, and who is ``disconnected`` answers 410.
    """

    def __init__(self, script: Script = lambda _id, _message: OK, *, timeout: float = 3.0, keep: bool = True) -> None:
        """``keep`` False counts what arrives and does not hold it."""
        self.script = script
        self.timeout = timeout
        self.keep = keep
        self.received: dict[str, list[Message]] = defaultdict(list)
        self.arrivals: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.closings: Callable[[str], Reply] = lambda _id: _CLOSED
        self.closes: Counter[str] = Counter()
        self.disconnected: set[str] = set()
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
        gone = lane.connection_id in self.disconnected
        reply = Reply(410) if gone else Reply(413) if message.oversized else self.script(lane.connection_id, message)
        if reply.arrives if reply.arrives is not None else reply.status == 200:
            self.arrivals[lane.connection_id] += 1
            if self.keep:
                self.received[lane.connection_id] += messages_in(message)
        self._answer_later(lane, reply, done)

    def disconnect(self, lane: Any, done: Callable[[Any, PostError | None], None]) -> None:
        """Close a connection as ``closings`` says; from then on its client answers 410."""
        assert lane not in self._timers, f"{lane.connection_id} is in flight already"
        self.closes[lane.connection_id] += 1
        gone = lane.connection_id in self.disconnected
        reply = Reply(410) if gone else self.closings(lane.connection_id)
        if reply.arrives if reply.arrives is not None else reply.status == _CLOSED.status:
            self.disconnected.add(lane.connection_id)
        self._answer_later(lane, reply, done)

    def _answer_later(self, lane: Any, reply: Reply, done: Callable[[Any, PostError | None], None]) -> None:
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


def messages_in(post: Message) -> list[Message]:
    """The messages that a client finds in a post: those of an array, or the one it is."""
    if not post.body.startswith(b"["):
        return [post]
    return [Message.encode(payload) for payload in post.payload]


def _error(status: int) -> PostError | None:
    match status:
        case 200 | 204:
            return None
        case 0:
            return Disconnected("the socket was cut")
        case -1:
            return Unreachable("nothing listens")
        case _:
            return post_error(status)


class MemoryStore:
    """A connections table as unfriendly as DynamoDB's: ``rows`` by connection id, each a map of its attributes.

    - A Scan returns rows in an order of its own, and a row written while it goes on may lie behind it.
    - Segments are ranges of that order; partitions go by the attribute ``shard``, and a row without it is in none.
    - A partition shows what the table held ``lag`` seconds ago, since an index is brought up to date later.
    - A cursor is a key, of the table or of the index, and means nothing to the other.
    - ``throttles`` is asked before every call; True makes it fail. ``down`` makes all fail.
    - Deleting the same row twice in one call fails whole.
    """

    def __init__(
        self,
        connection_ids: Sequence[str] = (),
        *,
        page_size: int = 1_000,
        delay: float = 0.0,
        lag: float = 0.0,
        index: bool = True,
        shards: int = 8,
        throttles: Callable[[], bool] = lambda: False,
    ) -> None:
        """``delay`` and ``lag`` are in seconds.

        With ``index``, ``put`` writes rows for ``shards`` partitions, and a partition is the rows that say so;
        without, it is picked out of the whole table by the ids.
        """
        self.rows: dict[str, Mapping[str, Any]] = {}
        self.page_size = page_size
        self.delay = delay
        self.lag = lag
        self.index = index
        self.shards = shards
        self.throttles = throttles
        self.down = False
        self.reads = 0
        self.looked_up = 0
        self.deleted: list[str] = []
        self._order: list[str] = []
        self._indexed: dict[str, Mapping[str, Any]] = {}
        self._late: deque[tuple[float, str, Mapping[str, Any] | None]] = deque()
        self.add(*connection_ids)

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.rows)} rows, {self.reads} pages read, {len(self.deleted)} deleted>"

    def add(self, *connection_ids: str, **attributes: Any) -> None:
        """Write rows at once, as some other function would, all with these attributes; from before the test began."""
        self._order[:] = sorted({*self._order, *connection_ids}, key=_place)
        for connection_id in connection_ids:
            self.rows[connection_id] = self._indexed[connection_id] = attributes

    def seen_by(self, *, index: bool, shards: int = 8) -> Self:
        """The same table as another function sees it, which has settings of its own."""
        store = copy(self)
        store.index, store.shards = index, shards
        return store

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """A page of the shard, from its start where the cursor is of another kind of read."""
        await self._work()
        self.reads += 1
        queried = shard.kind is ShardKind.PARTITION and self.index and shard.count == self.shards
        last = cursor["connectionId"]["S"] if cursor is not None and ("shard" in cursor) == queried else None
        if queried:
            found, more = self._query(shard.index, last)
        else:
            found, more = self._scan(shard, last)
        key = (
            {"connectionId": {"S": found[-1]}} | ({"shard": {"N": str(shard.index)}} if queried else {})
            if more
            else None
        )
        rows = self._indexed if queried else self.rows
        whole = queried or shard.kind is ShardKind.SEGMENT
        wanted = [each for each in found if each in rows and (whole or is_in_partition(each, shard))]
        return Page([client_of(each, rows[each]) for each in wanted], key)

    def has(self, shard: Shard, connection_id: str) -> bool:
        """Whether a job for the shard is also for this client, as far as its id tells."""
        if shard.kind is ShardKind.PARTITION:
            return is_in_partition(connection_id, shard)
        return _place(connection_id) * shard.count // _PLACES == shard.index

    def _scan(self, shard: Shard, last: str | None) -> tuple[list[str], bool]:
        """Keys of a page, of deleted rows too, and whether more follow."""
        index, count = (shard.index, shard.count) if shard.kind is ShardKind.SEGMENT else (0, 1)
        first = bisect_left(self._order, index * _PLACES // count, key=_place)
        end = bisect_left(self._order, (index + 1) * _PLACES // count, key=_place)
        start = first if last is None else bisect_right(self._order, _place(last), key=_place)
        stop = min(end, start + self.page_size)
        return self._order[start:stop], start < stop < end

    def _query(self, index: int, last: str | None) -> tuple[list[str], bool]:
        """Keys of a page of a partition, and whether more follow."""
        self._catch_up()
        keys = sorted(key for key, row in self._indexed.items() if row.get("shard") == index and key > (last or ""))
        return keys[: self.page_size], len(keys) > self.page_size

    def _catch_up(self) -> None:
        now = asyncio.get_running_loop().time() if self._late else 0.0
        while self._late and self._late[0][0] <= now:
            _, connection_id, row = self._late.popleft()
            self._show(connection_id, row)

    def _show(self, connection_id: str, row: Mapping[str, Any] | None) -> None:
        if row is None:
            self._indexed.pop(connection_id, None)
        else:
            self._indexed[connection_id] = row

    def write(self, connection_id: str, row: Mapping[str, Any] | None) -> None:
        """Write a row now, or delete it (None); partitions show it ``lag`` seconds later."""
        if row is None:
            self.rows.pop(connection_id, None)
        else:
            at = bisect_left(self._order, _place(connection_id), key=_place)
            if self._order[at : at + 1] != [connection_id]:
                self._order.insert(at, connection_id)
            self.rows[connection_id] = row
        if self.lag:
            self._late.append((asyncio.get_running_loop().time() + self.lag, connection_id, row))
        else:
            self._show(connection_id, row)

    async def count(self, enough: int) -> int:
        """How many rows there are."""
        await self._work()
        return min(enough, len(self.rows))

    async def look_up(self, connection_ids: Sequence[str]) -> Mapping[str, Client]:
        """The clients of these rows, as the table has them now."""
        await self._work()
        if len(set(connection_ids)) < len(connection_ids):
            raise StoreUnavailable("the table cannot be read: the list of keys contains duplicates")
        self.looked_up += len(connection_ids)
        connection_ids = [each for each in connection_ids if 0 < len(each.encode()) <= _LONGEST_KEY]
        return {each: client_of(each, self.rows[each]) for each in connection_ids if each in self.rows}

    async def put(self, row: Row) -> None:
        """Write a row."""
        await self._work()
        attributes = row.attributes()
        connection_id = attributes.pop("connectionId")
        if self.index:
            attributes["shard"] = shard_of(connection_id, self.shards)
        self.write(connection_id, attributes)

    async def refresh(
        self, connection_id: str, principal: str, expires_at: int, tenants: frozenset[str] | None
    ) -> None:
        """Give a row of this principal a new end and new tenants."""
        await self._work()
        row = self.rows.get(connection_id)
        if row is None or row.get("principal") != principal:
            raise ConditionFailed("the row is not there, or another principal's")
        kept = {name: value for name, value in row.items() if name != "tenants" or tenants is None}
        self.write(connection_id, kept | {"expiresAt": expires_at} | ({"tenants": tenants} if tenants else {}))

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows."""
        await self._work()
        if len(set(connection_ids)) < len(connection_ids):
            raise StoreUnavailable("the table cannot be written: the list of keys contains duplicates")
        for connection_id in connection_ids:
            self.write(connection_id, None)
            self.deleted.append(connection_id)

    async def _work(self) -> None:
        await asyncio.sleep(self.delay)
        if self.down or self.throttles():
            raise StoreUnavailable("the table does not answer")


def _place(key: str | int) -> int:
    """Where DynamoDB's hash puts a row; nothing about the id tells it."""
    return key if isinstance(key, int) else int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


class MemoryFeed:
    """A feed as unfriendly as DynamoDB's: entries are there when their writing ends, which takes its time.

    Buckets are read one after the other, while others write, and one that was read as far as its page goes may have
    more or not; ``page_size`` is how many entries of one bucket a page reads at most. An entry whose place is taken is
    refused. ``throttles`` is asked before every call; True makes it fail, an append after some of its entries are
    written. ``down`` makes all fail.
    """

    def __init__(
        self, *, page_size: int = 10, delay: float = 0.0, throttles: Callable[[], bool] = lambda: False
    ) -> None:
        self.entries: dict[tuple[str, str], FeedEntry] = {}
        self.page_size = page_size
        self.delay = delay
        self.throttles = throttles
        self.down = False
        self.reads = 0

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.entries)} entries, {self.reads} reads>"

    async def append(self, entries: Sequence[FeedEntry]) -> None:
        """Write entries, one after the other."""
        fails = self.down or self.throttles()
        for each in entries[: len(entries) // 2] if fails else entries:
            await asyncio.sleep(self.delay / len(entries))
            if self.entries.setdefault((each.bucket, each.position), each) is not each:
                raise StoreUnavailable("the feed has another entry at this place")
        if fails:
            raise StoreUnavailable("the feed does not answer")

    async def read(self, after: str, before: str, *, newest_first: bool = False) -> FeedPage:
        """Some entries between two positions."""
        if self.down or self.throttles():
            await asyncio.sleep(self.delay)
            raise StoreUnavailable("the feed does not answer")
        self.reads += 1
        pages = []
        for bucket in BUCKETS:
            await asyncio.sleep(self.delay / len(BUCKETS))
            found = [
                each for (name, position), each in self.entries.items() if name == bucket and after < position < before
            ]
            found.sort(key=lambda each: each.position, reverse=newest_first)
            pages.append((found[: self.page_size], len(found) >= self.page_size))
        return merged(pages, newest_first=newest_first)


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


class MemoryServices:
    """The services of a ``Sandbox`` in memory: one table, one transport, and a queue for each URL it asks for."""

    def __init__(self, rows: MemoryStore | None = None, posts: MemoryTransport | None = None) -> None:
        self.rows = rows or MemoryStore()
        self.posts = posts or MemoryTransport()
        self.queues: dict[str, MemoryQueue] = defaultdict(MemoryQueue)
        self.published = MemoryFeed()
        self.items = MemoryIncidents()

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{self.rows!r}, {self.posts!r}, {len(self.queues)} queues>"

    async def store(self) -> ConnectionStore:
        """The table."""
        return self.rows

    async def transport(self) -> Transport:
        """The transport."""
        return self.posts

    async def feed(self) -> Feed:
        """The feed."""
        return self.published

    async def incidents(self) -> IncidentTable:
        """The incident table."""
        return self.items

    def queue(self, url: str) -> Queue:
        """The queue with this URL, always the same."""
        return self.queues[url]

    async def close(self) -> None:
        """Keep everything, so that a test can look at it."""


class MemoryIncidents:
    """An incident table: ``items`` are plain, ``page_size`` of them are read at a time, and in no order of use.

    ``delay`` (s) is how long a page takes; ``down`` makes all fail.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]] = (), *, page_size: int = 100, delay: float = 0.0) -> None:
        self.items = list(items)
        self.page_size = page_size
        self.delay = delay
        self.down = False
        self.reads = 0

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{len(self.items)} items, {self.reads} pages read>"

    async def read(self, cursor: Cursor | None) -> ItemPage:
        """A page of the items."""
        await asyncio.sleep(self.delay)
        if self.down:
            raise StoreUnavailable("the incident table does not answer")
        self.reads += 1
        start = int(cursor["item"]["N"]) if cursor is not None else 0
        end = start + self.page_size
        return ItemPage(self.items[start:end], {"item": {"N": str(end)}} if end < len(self.items) else None)
