"""Lambda, its event source mappings and SQS, modelled on virtual time as AWS documents them.

Rules modelled
- DynamoDB mapping ("Configuring partial batch response with DynamoDB and Lambda"): a shard's batches one after
  the other; the lowest SequenceNumber reported is the checkpoint, everything from it on is sent again; nothing
  reported is a success; an exception, a crash or an identifier that is not in the batch fails all of it.
- Bisect: a batch that fails as a whole is halved, which counts as no retry. After the retries or the age limit
  the batch goes to the on-failure destination and the shard goes on; ``max_retries`` of -1 is no limit.
- AWS does not say how soon a batch is sent again: ``backoff`` 0 is at once, every time.
- SQS mapping: what is not reported is deleted; what is becomes visible again after the visibility timeout; the
  same rule for unknown identifiers. A message received more than ``max_receives`` times is redriven.
- SendMessageBatch may take an entry and say that it failed: an answer can be lost on its way.
- Standard queues delay, deliver in any order, and may deliver twice. FIFO queues keep a group's order, hold a
  group while one of its messages is in flight, and drop a known deduplication id for five minutes.
- An invocation ends after its time limit whatever it does; one that crashes returns nothing.

Sources: Lambda Developer Guide, "Using Lambda with DynamoDB" and "with Amazon SQS"; SQS Developer Guide.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeVar

import pytest
from looptime import LoopTimeEventLoop

from async_relay.delivery.protocols import Entry
from async_relay.errors import QueueUnavailable

T = TypeVar("T")

#: Virtual time for a test: the clock jumps to the next timer as soon as nothing else is to be done.
virtual_time = pytest.mark.looptime(noop_cycles=0, resolution=1e-9, idle_timeout=1)

EPOCH = 1_700_000_000
_RETURN = 0.2
_DEDUPLICATION = 300.0
_INSTANT = 1e-6  # a timer may fire this much early, and the clock stand still until it is asked for more


class VirtualLoop(LoopTimeEventLoop, asyncio.SelectorEventLoop):
    """A loop on virtual time of its own, for what runs many of them; ``each_turn`` is called before every turn."""

    def __init__(self) -> None:
        super().__init__(noop_cycles=0, resolution=1e-9, idle_timeout=1)
        self.each_turn: Callable[[], None] | None = None

    def _run_once(self) -> None:
        if self.each_turn is not None:
            self.each_turn()
        super()._run_once()  # type: ignore[misc]  # the stubs leave it out


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a virtual loop made for it."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def wall_clock() -> float:
    """Seconds since 1970, at the pace of the running loop."""
    return EPOCH + asyncio.get_running_loop().time()


def still_running() -> list[str]:
    """The tasks and timers on the running loop beside the current task."""
    loop: Any = asyncio.get_running_loop()
    tasks = [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    return tasks + [repr(timer) for timer in loop._scheduled if not timer.cancelled()]


Handler = Callable[[Any, float], Awaitable[Any]]


class CrashedError(Exception):
    """The invocation ended without an answer."""


class Function:
    """A Lambda function: a handler, a time limit, and crashes as ``crash`` plans them (seconds, or None)."""

    def __init__(
        self,
        handler: Handler,
        timeout: float,
        crash: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.handler = handler
        self.timeout = timeout
        self.crash = crash
        self.invocations = 0
        self.crashes = 0
        self.overran = 0
        self.errors: list[BaseException] = []

    async def invoke(self, event: Any) -> Any:
        """The handler's answer; raises ``CrashedError``."""
        self.invocations += 1
        crash = self.crash()
        limit = self.timeout if crash is None else min(crash, self.timeout)
        time = asyncio.get_running_loop().time
        start = time()
        invocation = asyncio.ensure_future(self.handler(event, self.timeout - _RETURN))
        try:
            await asyncio.wait({invocation}, timeout=limit)
        finally:
            finished = invocation.done()
            self.overran += time() - start > self.timeout - _RETURN + 1e-3
            invocation.cancel()
            await asyncio.wait({invocation})
        if not finished or invocation.cancelled():
            self.crashes += 1
            raise CrashedError
        error = invocation.exception()
        if error is not None:
            self.errors.append(error)
            raise CrashedError
        return invocation.result()


def reported(answer: Any, known: Sequence[str]) -> set[str] | None:
    """The identifiers of an answer; None where the whole batch failed by AWS's rules."""
    if not answer:
        return set()
    if not isinstance(answer, dict) or (answer and "batchItemFailures" not in answer):
        return None
    identifiers = {failure.get("itemIdentifier") for failure in answer["batchItemFailures"] or ()}
    return identifiers if identifiers <= set(known) else None


@dataclass
class StreamMapping:
    """One shard of a DynamoDB Stream and its event source mapping."""

    function: Function
    batch_size: int = 100
    max_retries: int = 10
    max_age: float = 86_400.0
    bisect: bool = True
    backoff: float = 1.0
    seen: Callable[[Sequence[Any]], None] = lambda _records: None
    discarded: list[Any] = field(default_factory=list)
    invoked: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._records: deque[tuple[float, Any]] = deque()
        self._more = asyncio.Event()
        self.idle = True

    def put(self, record: Any) -> None:
        """A new record, behind all others."""
        self._records.append((asyncio.get_running_loop().time(), record))
        self.idle = False
        self._more.set()

    async def poll(self) -> None:
        """Serve the shard until cancelled."""
        while True:
            self.idle = not self._records
            if self.idle:
                self._more.clear()
                await self._more.wait()
            batch = [self._records.popleft() for _ in range(min(self.batch_size, len(self._records)))]
            await self._serve(batch, 0)

    async def _serve(self, batch: list[tuple[float, Any]], tries: int) -> None:
        while batch:
            records = [record for _, record in batch]
            sequences = [_sequence(record) for record in records]
            self.invoked.update(record["eventID"] for record in records)
            try:
                failures = reported(await self.function.invoke({"Records": records}), sequences)
            except CrashedError:
                failures = None
            if failures is not None and not failures:
                return
            if failures:
                checkpoint = min(sequences.index(each) for each in failures)
                batch = batch[checkpoint:]
            elif self.bisect and len(batch) > 1:
                await asyncio.sleep(self.backoff)
                await self._serve(batch[: len(batch) // 2], tries)
                batch = batch[len(batch) // 2 :]
                continue
            tries += 1
            age = asyncio.get_running_loop().time() - batch[0][0]
            if 0 <= self.max_retries < tries or age > self.max_age:
                self.discarded += [record for _, record in batch]
                return
            await asyncio.sleep(min(60.0, self.backoff * 2 ** min(tries - 1, 10)))


def _sequence(record: Any) -> str:
    sequence: str = record["dynamodb"]["SequenceNumber"]
    return sequence


@dataclass(eq=False)
class SqsMessage:
    """One message in a queue."""

    message_id: str
    entry: Entry
    visible_at: float
    receives: int = 0


class Sqs:
    """An SQS queue, standard or FIFO.

    ``refuses`` says which entries it does not take, ``denies`` which it takes and reports as failed;
    ``shuffle`` decides in which order a standard queue delivers.
    """

    def __init__(
        self,
        *,
        fifo: bool = False,
        visibility: float = 30.0,
        max_receives: int = 1_000,
        refuses: Callable[[Entry], bool] = lambda _entry: False,
        denies: Callable[[Entry], bool] = lambda _entry: False,
        shuffle: Callable[[list[SqsMessage]], None] = lambda _messages: None,
        delay: float = 0.0,
    ) -> None:
        self.denies = denies
        self.shuffle = shuffle
        self.fifo = fifo
        self.visibility = visibility
        self.max_receives = max_receives
        self.refuses = refuses
        self.delay = delay
        self.messages: list[SqsMessage] = []
        self.redriven: list[SqsMessage] = []
        self.sent = 0
        self.changed = asyncio.Event()
        self._known: dict[str, float] = {}
        self._numbers = count(1)

    async def send(self, entries: Sequence[Entry]) -> None:
        """SendMessageBatch, as often as it takes."""
        await asyncio.sleep(self.delay)
        now = asyncio.get_running_loop().time()
        refused = frozenset(at for at, entry in enumerate(entries) if self.refuses(entry))
        failed = refused | frozenset(at for at, entry in enumerate(entries) if self.denies(entry))
        for at, entry in enumerate(entries):
            assert len(entry.body.encode()) <= 262_144
            assert 0 <= entry.delay <= 900
            assert bool(entry.group) == bool(entry.deduplication_id) == self.fifo
            if at in refused or (self.fifo and now - self._known.get(entry.deduplication_id, -1e9) < _DEDUPLICATION):
                continue
            self.sent += 1
            self._known[entry.deduplication_id] = now
            self.messages.append(SqsMessage(f"m{next(self._numbers)}", entry, now + entry.delay))
        self.changed.set()
        if failed:
            raise QueueUnavailable(f"{len(failed)} of {len(entries)} entries refused", failed)

    def receive(self, most: int) -> list[SqsMessage]:
        """ReceiveMessage: what is visible, at most ``most``; a FIFO group only from its first message on."""
        now = asyncio.get_running_loop().time() + _INSTANT
        held: set[str] = set()
        received: list[SqsMessage] = []
        messages = list(self.messages)
        if not self.fifo:
            self.shuffle(messages)
        for message in messages:
            if message.visible_at > now or message.entry.group in held:
                held |= {message.entry.group} - {""}
                continue
            if len(received) == most:
                break
            message.receives += 1
            if message.receives > self.max_receives:
                self.messages.remove(message)
                self.redriven.append(message)
                continue
            message.visible_at = now + self.visibility
            received.append(message)
        return received

    def delete(self, messages: Sequence[SqsMessage]) -> None:
        """DeleteMessage."""
        gone = set(map(id, messages))
        self.messages = [message for message in self.messages if id(message) not in gone]

    def take(self) -> list[str]:
        """The bodies in it, which is then empty."""
        bodies = [message.entry.body for message in self.messages]
        self.messages = []
        return bodies


@dataclass
class SqsMapping:
    """A queue's event source mapping; ``again`` says whether a message is delivered though it was deleted."""

    queue: Sqs
    function: Function
    batch_size: int = 10
    again: Callable[[], bool] = lambda: False
    seen: Callable[[SqsMessage], None] = lambda _message: None
    busy: int = 0

    async def poll(self) -> None:
        """Serve the queue until cancelled."""
        while True:
            messages = self.queue.receive(self.batch_size)
            if messages:
                await self._serve(messages)
            else:
                await self._wait()

    async def _wait(self) -> None:
        """Until something may be visible."""
        now = asyncio.get_running_loop().time() + _INSTANT
        due = min((each.visible_at for each in self.queue.messages if each.visible_at > now), default=None)
        self.queue.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self.queue.changed.wait()

    async def _serve(self, messages: list[SqsMessage]) -> None:
        self.busy += 1
        for message in messages:
            self.seen(message)
        try:
            answer = await self.function.invoke({"Records": [_record(message) for message in messages]})
            failures = reported(answer, [message.message_id for message in messages])
        except CrashedError:
            failures = None
        finally:
            self.busy -= 1
        if failures is not None:
            self.queue.delete([each for each in messages if each.message_id not in failures and not self.again()])
        self.queue.changed.set()


def _record(message: SqsMessage) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(message.receives)}
    if message.entry.group:
        attributes["MessageGroupId"] = message.entry.group
    return {
        "messageId": message.message_id,
        "body": message.entry.body,
        "attributes": attributes,
        "eventSource": "aws:sqs",
    }
