"""One invocation from start to end: what Lambda hands in, and what it gets back.

    stream records ──► messages ──┐
                                  ├─► broadcast ──► settle ──► queues, batchItemFailures
    queue messages ──► jobs ──────┘

Rules
- Records are settled or handed back, each by itself: a bad one never takes a good one with it.
- What a queue does not take goes back to whoever sent it. Nothing is dropped.
- Time is kept back for the queues: as much as they took before, with a margin.
- Records go back to the stream after a wait, since nothing else may slow down its retries. Jobs go
  back at once: their queue hides them until the visibility timeout is over.
- A table that stops answering is the trouble of the jobs that read it: the others are settled.
- FIFO jobs of one group are served in order, those of one shard in one read; the first that fails
  goes back with all behind it.

Sources: Lambda Developer Guide, "Reporting batch item failures" for DynamoDB Streams and for SQS.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

from ..errors import QueueUnavailable, StoreUnavailable, UnreadableJob
from ..wire.formatter import Formatter
from ..wire.incidents import format_item, latest
from ..wire.jobs import MAX_BODY_BYTES, DeadLetter, Job, Shard, ShardKind
from ..wire.messages import MAX_BODY_BYTES as MAX_MESSAGE_BYTES
from ..wire.messages import Message
from ..wire.streams import Record, read_records
from .broadcaster import Broadcaster
from .pacing import Pacing
from .protocols import Entry, Queue
from .report import Report
from .settlement import Policy, settle

_log = logging.getLogger("async_relay")

Failures = dict[str, list[dict[str, str]]]
Measure = Callable[[Mapping[str, float]], None]

_FIRST_RESERVE = 1.0
_LEAST_RESERVE = 0.3
_LEAST_TIME = 0.5
_LETTER_ROOM = MAX_BODY_BYTES - 6_000
_SHARDS_AT_ONCE = 50
_COUNT_HOLDS = 60.0


@dataclass(frozen=True, slots=True)
class Queues:
    """The queues there are; each may be missing."""

    retry: Queue | None = None
    dead_letters: Queue | None = None
    fanout: Queue | None = None


class _Parcel(NamedTuple):
    """An entry for a queue, and what is lost if the queue does not take it: ``positions`` of what ``owner`` names.

    ``wait`` is for how many seconds it should not be sent yet.
    """

    queue: Queue
    entry: Entry
    owner: int
    positions: range
    wait: int = 0


class _Received(NamedTuple):
    """A job as it came from a queue; ``group`` is empty on a standard one."""

    message_id: str
    group: str
    job: Job


class _Run(NamedTuple):
    """Jobs of one group that one read of the table serves; ``ends`` are the positions behind their messages."""

    received: tuple[_Received, ...]
    job: Job
    ends: tuple[int, ...]

    def unsettled(self, back: Iterable[int]) -> tuple[_Received, ...]:
        """The jobs from the first on that has one of these positions."""
        lowest = min(back, default=self.ends[-1])
        return self.received[sum(end <= lowest for end in self.ends) :]


class Relay:
    """The relay's two entry points, over whatever answers to the protocols."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        queues: Queues,
        policy: Policy,
        *,
        wall_clock: Callable[[], float],
        shards: int = 8,
        shard_kind: ShardKind = ShardKind.SEGMENT,
        auto_clients: int | None = None,
        coalesce: bool = False,
        formatter: Formatter = format_item,
        measure: Measure = lambda _figures: None,
        pacing: Pacing | None = None,
    ) -> None:
        """``shards`` of ``shard_kind`` is what the fan-out makes, from ``auto_clients`` clients on (None: always).

        ``coalesce`` leaves only the newest state of each incident of a batch; ``formatter`` makes records
        messages; ``measure`` gets the figures of each broadcast.
        """
        self._broadcaster = broadcaster
        self._queues = queues
        self._policy = policy
        self._wall_clock = wall_clock
        self._shards = [Shard(index, shards, shard_kind) for index in range(shards)]
        self._auto_clients = auto_clients
        self._coalesce = coalesce
        self._formatter = formatter
        self._many = True
        self._counted_at = float("-inf")
        self._measure = measure
        self._reserve = _FIRST_RESERVE
        self._pacing = pacing or Pacing()

    async def on_stream(self, event: Any, seconds: float) -> Failures:
        """Serve a stream event within ``seconds``; returns the SequenceNumbers of what was not settled.

        Raises ``UndecodableRecord`` where the event is no stream event at all.
        """
        end = asyncio.get_running_loop().time() + seconds
        try:
            failures = await self._serve_records(event, end)
        except Exception:
            await self._pacing.wait(end)
            raise
        if failures["batchItemFailures"]:
            await self._pacing.wait(end)
        else:
            self._pacing.reset()
        return failures

    async def _serve_records(self, event: Any, end: float) -> Failures:
        records = read_records(event, self._formatter)
        served = [at for at, record in enumerate(records) if record.message and not record.message.oversized]
        messages = tuple(message for at in served if (message := records[at].message))
        if self._coalesce:
            newest = latest(messages)
            served, messages = [served[at] for at in newest], tuple(messages[at] for at in newest)
        back: set[int] = set()
        parcels: list[_Parcel] = []
        for at, letter in _letters(records, self._now()):
            if self._queues.dead_letters is None:
                back.add(at)
            else:
                parcels.append(_Parcel(self._queues.dead_letters, Entry(letter.encode()), -1, range(at, at + 1)))
        if messages and self._queues.fanout is not None and await self._fans_out(end):
            back.update(served[position] for position in await self._dispatch(messages, self._queues.fanout, end))
        elif messages:
            ((positions, more),) = await self._serve([(Job(messages, shard=Shard()), "")], end)
            back.update(served[position] for position in positions)
            parcels += more
        for parcel in await self._send(parcels, end):
            back.update(parcel.positions if parcel.owner < 0 else (served[at] for at in parcel.positions))
        if back:
            _log.warning("%d of %d records handed back", len(back), len(records))
        return _failures(records[at].sequence for at in sorted(back))

    async def on_jobs(self, event: Any, seconds: float) -> Failures:
        """Serve jobs from a queue within ``seconds``; returns the messageIds of what was not settled."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        groups, back = await self._read_jobs(event["Records"], end)
        while groups and end - loop.time() > _LEAST_TIME:
            runs = {name: _next_run(waiting) for name, waiting in groups.items()}
            served = await self._serve([(run.job, run.received[0].group) for run in runs.values()], end)
            parcels = [parcel for _, more in served for parcel in more]
            await self._let_table_rest(parcels, end)
            for parcel in await self._send(parcels, end):
                served[parcel.owner][0].update(parcel.positions)
            for (name, run), (positions, _) in zip(runs.items(), served, strict=True):
                unsettled = run.unsettled(positions)
                back.update(each.message_id for each in unsettled)
                if unsettled:
                    back.update(each.message_id for each in groups[name])
                if unsettled or not groups[name]:
                    del groups[name]
        back.update(each.message_id for waiting in groups.values() for each in waiting)
        if back:
            _log.warning("%d of %d jobs handed back", len(back), len(event["Records"]))
        return _failures(record["messageId"] for record in event["Records"] if record["messageId"] in back)

    async def _read_jobs(self, records: Sequence[Any], end: float) -> tuple[dict[str, deque[_Received]], set[str]]:
        """The jobs by group, each standard one a group of its own, and the messageIds of what is none and stays."""
        groups: dict[str, deque[_Received]] = {}
        back: set[str] = set()
        letters: list[_Parcel] = []
        for at, record in enumerate(records):
            message_id, group = record["messageId"], record.get("attributes", {}).get("MessageGroupId", "")
            try:
                received = _Received(message_id, group, Job.decode(record["body"]))
                groups.setdefault(group or message_id, deque()).append(received)
            except UnreadableJob as error:
                _log.error("message %s is not a job: %s", message_id, error)
                letter = DeadLetter("unreadable_job", str(error), record["body"], self._now())
                if self._queues.dead_letters is None:
                    back.add(message_id)
                else:
                    letters += self._bury(letter, at, range(1))
        back.update(records[parcel.owner]["messageId"] for parcel in await self._send(letters, end))
        return groups, back

    async def _serve(self, jobs: Sequence[tuple[Job, str]], end: float) -> list[tuple[set[int], list[_Parcel]]]:
        """Broadcast; for each job the positions that go back already, and what is to be sent."""
        seconds = end - asyncio.get_running_loop().time()
        report = await self._broadcaster.broadcast(
            [job for job, _ in jobs], max(0.0, seconds - min(self._reserve, seconds / 4))
        )
        self._tell(report)
        if report.systemic is not None:
            _log.error("nobody can be served: %s", report.systemic)
            return [(set(range(len(job.messages))), []) for job, _ in jobs]
        now = self._now()
        served = []
        for owner, (outcome, (_, group)) in enumerate(zip(report.outcomes, jobs, strict=True)):
            settlement = settle(outcome, self._policy, now)
            if outcome.failure is not None:
                _log.warning("the table stopped answering after %d pages: %s", outcome.pages, outcome.failure)
            parcels = [
                parcel
                for parked in settlement.parked
                for parcel in self._park(parked.job, parked.delay, group, owner, parked.positions)
            ]
            for buried in settlement.buried:
                _log.error("a message cannot be delivered: %s, %s", buried.letter.reason, buried.letter.detail)
                parcels += self._bury(buried.letter, owner, buried.positions)
            served.append((set(settlement.back), parcels))
        return served

    async def _let_table_rest(self, parcels: Iterable[_Parcel], end: float) -> None:
        """Wait here where a continuation of a group is to wait: a FIFO queue has no delay for one message."""
        wait = max((parcel.wait for parcel in parcels), default=0)
        left = end - asyncio.get_running_loop().time() - 2 * self._reserve
        await asyncio.sleep(max(0.0, min(wait, left)))

    def _park(self, job: Job, delay: int, group: str, owner: int, positions: range) -> Iterator[_Parcel]:
        """A continuation of a group goes back to it; everything else to the retry queue."""
        for part, each in enumerate(job.split()):
            if group and each.shard is not None and self._queues.fanout is not None:
                entry = Entry(each.encode(), group=group, deduplication_id=each.deduplication_id(part))
                yield _Parcel(self._queues.fanout, entry, owner, positions, delay)
            elif self._queues.retry is not None:
                yield _Parcel(self._queues.retry, Entry(each.encode(), delay), owner, positions)

    def _bury(self, letter: DeadLetter, owner: int, positions: range) -> Iterator[_Parcel]:
        assert self._queues.dead_letters is not None
        jobs = letter.content.split(_LETTER_ROOM) if isinstance(letter.content, Job) else [letter.content]
        for content in jobs:
            entry = Entry(replace(letter, content=content).encode())
            yield _Parcel(self._queues.dead_letters, entry, owner, positions)

    async def _fans_out(self, end: float) -> bool:
        """Whether there are many clients: counted once a minute, and fewer again only at half as many."""
        now = asyncio.get_running_loop().time()
        if self._auto_clients is not None and now - self._counted_at > _COUNT_HOLDS:
            enough = self._auto_clients // 2 if self._many and self._counted_at > 0 else self._auto_clients
            try:
                async with asyncio.timeout((end - now) / 4):
                    self._many = await self._broadcaster.store.count(enough) >= enough
                self._counted_at = now
            except (StoreUnavailable, TimeoutError) as error:
                _log.warning("the clients cannot be counted: %s", str(error) or "no answer in time")
        return self._auto_clients is None or self._many

    async def _dispatch(self, messages: tuple[Message, ...], queue: Queue, end: float) -> set[int]:
        """One job a shard; returns the positions of what the queue did not take.

        A later part of a shard is only sent when the earlier one was taken: they are in order.
        """
        back: set[int] = set()
        now = self._now()
        parts = Job(messages, shard=self._shards[-1], first_at=now).split()
        ends = list(accumulate(len(part.messages) for part in parts))
        for number, (part, stop) in enumerate(zip(parts, ends, strict=True)):
            for at in range(0, len(self._shards), _SHARDS_AT_ONCE):
                parcels = []
                for shard in self._shards[at : at + _SHARDS_AT_ONCE]:
                    job = replace(part, shard=shard)
                    entry = Entry(job.encode(), group=str(shard.index), deduplication_id=job.deduplication_id(number))
                    parcels.append(_Parcel(queue, entry, shard.index, range(stop - len(part.messages), len(messages))))
                for parcel in await self._send(parcels, end):
                    back.update(parcel.positions)
            if back:
                break
        return back

    async def _send(self, parcels: Sequence[_Parcel], end: float) -> list[_Parcel]:
        """Send all, the queues side by side; returns what was not taken."""
        if not parcels:
            return []
        loop = asyncio.get_running_loop()
        start = loop.time()
        queues: dict[int, list[_Parcel]] = {}
        for parcel in parcels:
            queues.setdefault(id(parcel.queue), []).append(parcel)
        refused = await asyncio.gather(*(_send_to(each[0].queue, each, end) for each in queues.values()))
        self._reserve = max(_LEAST_RESERVE, 2 * (loop.time() - start))
        return [parcel for each in refused for parcel in each]

    def _now(self) -> int:
        return int(self._wall_clock() * 1000)

    def _tell(self, report: Report) -> None:
        figures: dict[str, float] = {
            "delivered": sum(sum(outcome.delivered) for outcome in report.outcomes),
            "gone": sum(outcome.gone for outcome in report.outcomes),
            "left_over": sum(len(outcome.leftovers) for outcome in report.outcomes),
            "rejected": sum(outcome.rejections for outcome in report.outcomes),
            "posts": report.posts,
            "throttled": report.throttled,
            "most_in_flight": report.most_in_flight,
            "undeleted": report.undeleted,
            "unproven": report.unproven,
            "systemic": int(report.systemic is not None),
        }
        if report.unproven:
            _log.error(
                "%d clients answered 410 and nobody 200: their rows stay, since WS_ENDPOINT may be another API's",
                report.unproven,
            )
        # Unlimited is no number: a 0 would pull the metric's average down, so the figure is left out.
        if report.rate_limit is not None:
            figures["rate_limit"] = report.rate_limit
        _log.debug("broadcast", extra=figures)
        self._measure(figures)


async def _send_to(queue: Queue, parcels: list[_Parcel], end: float) -> list[_Parcel]:
    try:
        async with asyncio.timeout_at(end):
            await queue.send([parcel.entry for parcel in parcels])
    except QueueUnavailable as error:
        _log.error("%s", error)
        return [parcels[at] for at in sorted(error.failed)]
    except TimeoutError:
        _log.error("a queue did not answer in time")
        return parcels
    return []


def _letters(records: Sequence[Record], now: int) -> Iterator[tuple[int, DeadLetter]]:
    """A letter for each record that nobody can be sent."""
    for at, record in enumerate(records):
        if record.problem is not None:
            reason, detail = "undecodable", record.problem
            _log.error("record %s cannot be decoded: %s", record.event_id, detail)
        elif record.message and record.message.oversized:
            reason = "too_large"
            detail = f"the message has {len(record.message.body):,} bytes; API Gateway takes {MAX_MESSAGE_BYTES:,}"
            _log.error("record %s is not posted: %s", record.event_id, detail)
        else:
            continue
        yield at, DeadLetter(reason, detail, record.raw, now, record.event_id, record.sequence, record.keys)


def _next_run(waiting: deque[_Received]) -> _Run:
    """Take the next job of a group, and those behind it that the same read of the table serves."""
    taken = [waiting.popleft()]
    first = taken[0].job
    while waiting and first.shard is not None and first.cursor is None and _same_read(waiting[0].job, first):
        taken.append(waiting.popleft())
    messages = tuple(message for each in taken for message in each.job.messages)
    ends = tuple(accumulate(len(each.job.messages) for each in taken))
    return _Run(tuple(taken), replace(first, messages=messages, hop=max(each.job.hop for each in taken)), ends)


def _same_read(job: Job, first: Job) -> bool:
    return job.shard == first.shard and job.cursor is None and job.attempt == first.attempt


def _failures(identifiers: Iterable[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}
