"""One invocation from start to end: from the event Lambda hands in to the answer it gets back.

    stream records ──► messages ──► feed ──┐
                                           ├─► broadcast ──► settle ──► queues, batchItemFailures
    queue messages ──► jobs ───────────────┘

Rules
- Records are settled or handed back, each by itself: a bad one never takes a good one with it.
- An item goes back to its stream or queue if a queue does not take what is left of it. Nothing is dropped.
- Records go back to the stream after a wait, since nothing else may slow down its retries. Jobs go
  back at once: their queue hides them until the visibility timeout is over.
- Where there is a feed, a batch is published first (``publishing``), and goes back if it cannot be: nobody gets
  what others could not find. Jobs have been published: their messages pass as they are.
- A table that stops answering is the trouble of the jobs that read it: the others are settled.
- FIFO jobs of one group are served in order, those of one shard in one read; the first that fails
  goes back with all behind it.

Sources: Lambda Developer Guide, "Reporting batch item failures" for DynamoDB Streams and for SQS.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import StoreUnavailable
from ..wire.formatter import Formatter, with_tenant
from ..wire.incidents import format_item
from ..wire.jobs import Shard, ShardKind
from ..wire.streams import Record, read_records
from .broadcaster import Broadcaster
from .deliveries import Delivery, Groups, Received, dead_letters_of, delivery_of, next_run, read_jobs, stop_behind
from .fanout import ClientThreshold, Fanout
from .outbox import Outbox, Outgoing, PendingSend, Queues
from .pacing import Pacing
from .publishing import Publisher
from .report import Outcome, Report
from .settlement import RequeuePolicy, settle

_log = logging.getLogger("async_relay")

Failures = dict[str, list[dict[str, str]]]
EmitMetrics = Callable[[Mapping[str, float]], None]

# Seconds: with less time left a read of the table and its posts would only be begun in vain.
_LEAST_TIME = 0.5
_NO_FIGURES: Mapping[str, float] = {}


class Resting(NamedTuple):
    """A group whose continuation has to wait before it is sent, and the jobs behind it."""

    name: str
    held: tuple[PendingSend, ...]
    waiting: deque[Received]


class Relay:
    """The relay's two entry points, over any implementation of the protocols."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        queues: Queues,
        policy: RequeuePolicy,
        *,
        wall_clock: Callable[[], float],
        shards: int = 8,
        shard_kind: ShardKind = ShardKind.SEGMENT,
        auto_clients: int | None = None,
        coalesce: bool = False,
        formatter: Formatter = format_item,
        tenant_attribute: str | None = None,
        emit_metrics: EmitMetrics = lambda _figures: None,
        pacing: Pacing | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        """The fan-out makes ``shards`` of ``shard_kind``, from ``auto_clients`` clients on (None: always).

        ``coalesce`` leaves only the newest state of each incident of a batch; ``formatter`` makes records
        messages, with the tenant that their ``tenant_attribute`` names (None: without tenants); ``emit_metrics`` gets
        the figures of each broadcast; ``publisher`` has the feed (None: there is none).
        """
        threshold = None if auto_clients is None else ClientThreshold(broadcaster.store, auto_clients)
        self._broadcaster = broadcaster
        self._outbox = Outbox(queues)
        self._fanout = Fanout(self._outbox, [Shard(index, shards, shard_kind) for index in range(shards)], threshold)
        self._policy = policy
        self._wall_clock = wall_clock
        self._coalesce = coalesce
        self._formatter = with_tenant(formatter, tenant_attribute)
        self._tenant_attribute = tenant_attribute
        self._emit = emit_metrics
        self._pacing = pacing or Pacing()
        self._publisher = publisher
        self._added = publisher.added if publisher is not None else 0

    async def on_stream(self, event: Any, seconds: float) -> Failures:
        """Serve a stream event within ``seconds``; returns the SequenceNumbers of the records not settled.

        Raises ``UndecodableRecord`` where the event is no stream event at all.
        """
        end = asyncio.get_running_loop().time() + seconds
        try:
            failures = await self._serve_records(read_records(event, self._formatter), end)
        except Exception:
            await self._pacing.wait(end)
            raise
        if failures["batchItemFailures"]:
            await self._pacing.wait(end)
        else:
            self._pacing.reset()
        return failures

    async def _serve_records(self, records: Sequence[Record], end: float) -> Failures:
        letters = dead_letters_of(records, self._now(), self._tenant_attribute, added=self._added)
        parts = [self._outbox.dead_letter(letter, frozenset({item})) for item, letter in letters]
        delivery = delivery_of(records, coalesce=self._coalesce, added=self._added)
        if delivery is not None:
            parts.append(await self._serve_everybody(delivery, end))
        outgoing = Outgoing.joined(parts)
        back = outgoing.back | await self._outbox.send(outgoing.pending, end)
        if back:
            _log.warning("%d of %d records handed back", len(back), len(records))
        return _failures(records[item].sequence for item in sorted(back))

    async def _serve_everybody(self, delivery: Delivery, end: float) -> Outgoing:
        """Publish a batch's messages and serve them, or have others serve them."""
        figures: dict[str, float] = {}
        if self._publisher is not None:
            try:
                delivery, figures["published"] = await self._publisher.publish(delivery, end - self._reserve(end))
            except StoreUnavailable as error:
                _log.error("nothing is sent, since it cannot be published: %s", error)
                self._emit({"published": 0, "systemic": 1})
                return Outgoing(back=frozenset(delivery.items))
        if await self._fanout.wanted(end):
            back = await self._fanout.dispatch(delivery, end, self._now())
            if figures:
                self._emit(figures)
            return Outgoing(back=back)
        (outgoing,) = await self._serve([delivery], end, figures)
        return outgoing

    async def on_jobs(self, event: Any, seconds: float) -> Failures:
        """Serve jobs from a queue within ``seconds``; returns the messageIds of those not settled."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        records = event["Records"]
        groups, letters = read_jobs(records, self._now())
        unreadable = Outgoing.joined(self._outbox.dead_letter(letter, frozenset({item})) for item, letter in letters)
        back = unreadable.back | await self._outbox.send(unreadable.pending, end)
        back |= stop_behind(groups, records, back)
        resting: list[Resting] = []
        while (groups or resting) and end - loop.time() > _LEAST_TIME:
            if groups:
                back |= await self._serve_groups(groups, resting, end)
            else:
                back |= await self._wake(resting, groups, end)
        back |= await self._wake(resting, groups, end)
        back |= {each.item for waiting in groups.values() for each in waiting}
        if back:
            _log.warning("%d of %d jobs handed back", len(back), len(records))
        return _failures(records[item]["messageId"] for item in sorted(back))

    async def _serve_groups(self, groups: Groups, resting: list[Resting], end: float) -> frozenset[int]:
        """Serve the next run of each group; returns the items that go back.

        Groups that end or fail are dropped, and those whose continuation has to wait move to ``resting``.
        """
        runs = {name: next_run(waiting) for name, waiting in groups.items()}
        parts = await self._serve(tuple(runs.values()), end)
        outgoing = Outgoing.joined(parts)
        back = outgoing.back | await self._outbox.send([each for each in outgoing.pending if not each.wait], end)
        behind: set[int] = set()
        for (name, run), part in zip(runs.items(), parts, strict=True):
            held = tuple(each for each in part.pending if each.wait)
            if not back.isdisjoint(run.items):
                behind.update(each.item for each in groups[name])
                groups[name].clear()
            if held:
                resting.append(Resting(name, held, groups.pop(name)))
            elif not groups[name]:
                del groups[name]
        return back | behind

    async def _wake(self, resting: list[Resting], groups: Groups, end: float) -> frozenset[int]:
        """Send the continuations that waited, and go on with their groups; returns the items that go back.

        A FIFO queue has no delay for one message, so the wait is here, as far as there is time for it.
        """
        wait = max((each.wait for group in resting for each in group.held), default=0)
        left = end - asyncio.get_running_loop().time() - 2 * self._outbox.reserve
        await asyncio.sleep(max(0.0, min(wait, left)))
        back = await self._outbox.send([each for group in resting for each in group.held], end)
        for name, held, waiting in resting:
            if not back.isdisjoint(item for each in held for item in each.at_stake):
                back |= {each.item for each in waiting}
            elif waiting:
                groups[name] = waiting
        resting.clear()
        return back

    async def _serve(
        self, deliveries: Sequence[Delivery], end: float, figures: Mapping[str, float] = _NO_FIGURES
    ) -> list[Outgoing]:
        """Broadcast the jobs; for each, the entries to send and the items that go back.

        ``figures`` are counted with those of the broadcast.
        """
        seconds = end - asyncio.get_running_loop().time()
        report = await self._broadcaster.broadcast(
            [each.job for each in deliveries],
            max(0.0, seconds - self._reserve(end)),
            retry_until_deadline=self._outbox.queues.retry is None,
        )
        self._emit_metrics(report, figures)
        if report.systemic is not None:
            _log.error("nobody can be served: %s", report.systemic)
            return [Outgoing(back=frozenset(each.items)) for each in deliveries]
        now = self._now()
        return [
            self._settle(outcome, delivery, now) for outcome, delivery in zip(report.outcomes, deliveries, strict=True)
        ]

    def _settle(self, outcome: Outcome, delivery: Delivery, now: int) -> Outgoing:
        settlement = settle(outcome, self._policy, now)
        if outcome.failure is not None:
            _log.warning("the table stopped answering after %d pages: %s", outcome.pages, outcome.failure)
        if self._outbox.queues.dead_letters is not None:
            for each in settlement.dead_lettered:
                _log.error("a message cannot be delivered: %s, %s", each.letter.reason, each.letter.detail)
        return self._outbox.settled(settlement, delivery)

    def _emit_metrics(self, report: Report, more: Mapping[str, float]) -> None:
        if report.unproven:
            _log.error(
                "%d clients answered 410 and nobody 200: their rows stay, since WS_ENDPOINT may be another API's",
                report.unproven,
            )
        self._say_unclosed(report)
        figures = {**report.figures(), **more}
        _log.debug("broadcast", extra=figures)
        self._emit(figures)

    def _say_unclosed(self, report: Report) -> None:
        unclosed = sum(outcome.unclosed for outcome in report.outcomes)
        if unclosed:
            reasons = [outcome.closing_error for outcome in report.outcomes if outcome.closing_error is not None]
            reason = f"the last answer was {reasons[-1]}" if reasons else "there was no time left"
            _log.warning("%d connections whose time is over could not be closed yet: %s", unclosed, reason)

    def _reserve(self, end: float) -> float:
        """Seconds kept back for the queues."""
        return min(self._outbox.reserve, (end - asyncio.get_running_loop().time()) / 4)

    def _now(self) -> int:
        return int(self._wall_clock() * 1000)


def _failures(identifiers: Iterable[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}
