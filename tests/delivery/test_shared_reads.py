"""Jobs of one shard that come together are served as one: each client gets what it would have got one by one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_models import VirtualLoop, wall_clock

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.testing.memory import OK, MemoryQueue, MemoryStore, MemoryTransport, Reply, messages_in
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, Job, Shard
from async_relay.wire.messages import Message

SHARDS = 2
FRAME_BYTES = 1_024
CLIENTS = [f"{kind}{number}=" for kind in ("object", "array", "gone", "sick") for number in range(3)]


@dataclass
class World:
    """Workers of the fan-out over memory; clients named sick answer 500 so many times each, then take everything."""

    failures: int = 0
    refuses: frozenset[str] = frozenset()
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    retry: MemoryQueue = field(default_factory=MemoryQueue)
    letters: MemoryQueue = field(default_factory=MemoryQueue)

    def __post_init__(self) -> None:
        self.store = MemoryStore(page_size=2, shards=SHARDS)
        self.store.add(*(name for name in CLIENTS if name.startswith("object")))
        self.store.add(*(name for name in CLIENTS if not name.startswith("object")), frames="array")
        self._failed: Counter[str] = Counter()
        self.transport = MemoryTransport(self._answer)
        broadcaster = Broadcaster(
            self.transport, self.store, Limits(100, frame_bytes=FRAME_BYTES), Rate(), Random(1), wall_clock
        )
        self.relay = Relay(
            broadcaster,
            Queues(self.retry, self.letters, self.queue),
            RequeuePolicy(backoff_seconds=0),
            wall_clock=wall_clock,
            shards=SHARDS,
        )

    def _answer(self, connection_id: str, post: Message) -> Reply:
        if connection_id.startswith("gone"):
            return Reply(410)
        inside = {message.event_id for message in messages_in(post)}
        if inside & self.refuses:
            return Reply(400)
        if connection_id.startswith("sick") and self._failed[connection_id] < self.failures:
            self._failed[connection_id] += 1
            return Reply(500)
        return OK

    async def serve(self, *entries: Entry, seconds: float = 60.0) -> set[int]:
        """One invocation of a worker; returns the jobs that go back."""
        records = [
            {"messageId": f"m{number}", "body": each.body, "attributes": {"MessageGroupId": each.group}}
            for number, each in enumerate(entries)
        ]
        failures = await self.relay.on_jobs({"Records": records}, seconds)
        return {int(each["itemIdentifier"].removeprefix("m")) for each in failures["batchItemFailures"]}

    async def finish(self) -> None:
        """Serve what waits in the queues, until nothing does."""
        while self.queue.entries or self.retry.entries:
            for entry in [*self.queue.take(), *self.retry.take()]:
                assert len(entry.body.encode()) <= MAX_QUEUE_BODY_BYTES
                assert not await self.serve(entry)

    def received(self) -> dict[str, list[str]]:
        return {name: [message.event_id for message in self.transport.received[name]] for name in CLIENTS}

    def letters_for(self) -> set[tuple[str, str]]:
        """Reason and message of each dead letter: how many letters there are says how many invocations there were."""
        bodies = [json.loads(entry.body) for entry in self.letters.entries]
        return {(each["deadLetter"]["reason"], message["event_id"]) for each in bodies for message in each["messages"]}


def jobs_of(sizes: Sequence[int], *, length: int = 150) -> list[Entry]:
    """One job after the other, each of so many messages for every shard, as the dispatcher sends them."""
    entries, number = [], 0
    for size in sizes:
        made = tuple(
            Message.encode({"kind": "remediation", "event_id": f"e{at}", "sequence": str(at), "x": "x" * length})
            for at in range(number, number + size)
        )
        number += size
        for index in range(SHARDS):
            job = Job(made, shard=Shard(index, SHARDS), first_at=number)
            entries.append(Entry(job.encode(), group=str(index), deduplication_id=job.deduplication_id(0)))
    return entries


def run(work: Any) -> Any:
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


async def together_and_apart(
    sizes: Sequence[int], failures: int, refused: frozenset[str], batch: int
) -> tuple[World, World]:
    """The same jobs, up to ``batch`` to an invocation and one by one, until nothing is left of them."""
    together, apart = (World(failures, refused) for _ in range(2))
    for world, most in ((together, batch), (apart, 1)):
        entries = jobs_of(sizes)
        for first in range(0, len(entries), most):
            assert not await world.serve(*entries[first : first + most])
        await world.finish()
    return together, apart


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    failures=st.integers(0, 12),
    refused=st.frozensets(st.integers(0, 40), max_size=2),
    batch=st.integers(2, 10),
)
def test_each_client_gets_the_same_as_one_by_one(
    sizes: list[int], failures: int, refused: frozenset[int], batch: int
) -> None:
    """In order, each message once, whatever failed meanwhile; and what nobody takes is the same letters."""
    names = frozenset(f"e{number}" for number in refused)
    together, apart = run(together_and_apart(sizes, failures, names, batch))
    assert together.letters_for() == apart.letters_for()
    wanted = [f"e{at}" for at in range(sum(sizes)) if f"e{at}" not in names]
    for name in CLIENTS:
        expected = [] if name.startswith("gone") else wanted
        # A client that was requeued is overtaken by later jobs, served together or not: then every message came once.
        order = sorted if name.startswith("sick") else list
        assert order(together.received()[name]) == order(apart.received()[name]) == order(expected), name


def test_together_they_are_one_read_and_common_frames() -> None:
    """Four jobs of a message each for every shard: one post holds all four, one by one each is a post."""

    async def both() -> tuple[World, World]:
        return await together_and_apart([1] * 4, 0, frozenset(), 10)

    together, apart = run(both())
    assert apart.store.reads == 4 * together.store.reads
    assert [world.transport.posts["array0="] for world in (together, apart)] == [1, 4]
    assert [world.transport.posts["object0="] for world in (together, apart)] == [4, 4]


def test_what_fails_together_goes_back_together() -> None:
    """Where the continuation is refused every job of the run goes back, and none of another group."""

    async def refused() -> tuple[set[int], set[int]]:
        world = World()
        world.store.delay = 3.0
        world.queue.refuses = lambda entry: entry.group == "0"
        entries = jobs_of([2, 1, 3])
        return await world.serve(*entries, seconds=8.0), {at for at, each in enumerate(entries) if each.group == "0"}

    back, of_the_group = run(refused())
    assert back == of_the_group


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), length=st.sampled_from([150, 30_000, 60_000]))
def test_a_continuation_carries_every_jobs_messages(sizes: list[int], length: int) -> None:
    """In order, in bodies that a queue takes, each under an id of its own; and what it leaves is served by it."""

    async def continued() -> tuple[World, list[Entry], list[Entry]]:
        world = World()
        world.store.delay = 3.0
        entries = [each for each in jobs_of(sizes, length=length) if each.group == "0"]
        assert not await world.serve(*entries, seconds=8.0)
        rest = world.queue.take()
        world.store.delay = 0.0
        for entry in rest:
            assert not await world.serve(entry)
        return world, entries, rest

    world, entries, rest = run(continued())
    wanted = [f"e{at}" for at in range(sum(sizes))]
    assert max(map(len, world.received().values())) == len(wanted)
    assert all(got in ([], wanted) for got in world.received().values())
    assert all(len(each.body.encode()) <= MAX_QUEUE_BODY_BYTES for each in rest)
    assert {each.group for each in rest} == {"0"}
    sent = [*entries, *rest]
    assert len({each.deduplication_id for each in sent}) == len(sent)
    jobs = [Job.decode(each.body) for each in rest]
    assert [message.event_id for job in jobs for message in job.messages] == wanted
    assert len({json.dumps(job.cursor) for job in jobs}) == 1
