"""One load test under way: batches to the handler, retries when they are due, clients that come and go."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from random import Random

from async_relay.delivery.protocols import ConnectionStore, Feed, IncidentTable, Queue, Transport
from async_relay.sandbox import Sandbox
from async_relay.services import AwsServices
from async_relay.settings import Settings

from .bar import Standing
from .ledger import Tally
from .load_options import Carrier, Options
from .load_queue import RECEIVES, RetryQueue
from .stage import stream_event
from .verdict import Ending
from .watch import Watch, WatchedTransport
from .world import World, settings

# As in the template: the functions' timeout.
_INVOCATION_SECONDS = 60.0
# Seconds between clients that leave and come.
_CHURN_TICK = 0.2
# Seconds for the retry queue to become empty at the end; a job that is still there then is a finding.
_PATIENCE = 300.0


class _Context:
    """The context that Lambda hands a function."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._end - time.monotonic()) * 1000))


class WatchedServices:
    """The handler's services with a watch at the transport, the queues in this process, and the world's doubles."""

    def __init__(self, chosen: Settings, watch: Watch, queues: Mapping[str, Queue], world: World) -> None:
        self._aws = AwsServices(chosen)
        self._watch = watch
        self._queues = queues
        self._world = world

    async def store(self) -> ConnectionStore:
        """The world's table, where it has one of its own."""
        return self._world.store or await self._aws.store()

    async def transport(self) -> Transport:
        """The world's transport, where it has one of its own, watched."""
        return WatchedTransport(self._world.transport or await self._aws.transport(), self._watch)

    async def feed(self) -> Feed | None:
        """The feed, where the settings name one."""
        return await self._aws.feed()

    async def incidents(self) -> IncidentTable | None:
        """The incident table, where the settings name one."""
        return await self._aws.incidents()

    def queue(self, url: str) -> Queue:
        """The queue in this process that stands for this URL."""
        return self._queues[url]

    async def close(self) -> None:
        """Close the sockets to the table."""
        await self._aws.close()


class Load:
    """One load test under way."""

    def __init__(self, options: Options, world: World) -> None:
        self.options = options
        self.watch = Watch()
        self.world = world
        self.retries = RetryQueue()
        chosen = {
            "MAX_CONCURRENCY": options.concurrency,
            "TRANSPORT": "sdk" if options.transport is Carrier.SDK else "direct",
            "RETRY_BACKOFF_SECONDS": f"{options.retry_backoff:g}",
        }
        found = Settings.from_env(settings(world, chosen))
        services = WatchedServices(found, self.watch, self.retries.queues, world)
        self.sandbox = Sandbox(found, services, emit_metrics=self._note)
        self.most_in_flight = 0
        self._random = Random(options.seed)
        self._present: list[str] = []
        # A client that comes while a batch begins would be expected to get it, but its row may come too late for that.
        self._door = asyncio.Lock()
        self._reachable = 0
        self._owed = 0
        self._draining = False
        self.last = 0
        self.settled = 0
        self.batches = 0
        self.handed_back = 0
        self.tally: Tally | None = None

    @property
    def clients(self) -> int:
        """How many there are now."""
        return len(self._present)

    @property
    def left(self) -> int:
        """Deliveries of the batches so far that are still to be made: exact until clients come and go.

        While anything is in flight or waits to be tried again it is never 0.
        """
        if self.watch.seconds:
            return 0
        return max(self._owed - self.watch.delivered, self.watch.in_flight + len(self.retries), 1)

    def standing(self) -> Standing:
        """How far it is: of a run of some duration no more than the time that is over, of any run what is delivered."""
        watch, options = self.watch, self.options
        if not self.last:
            return Standing(0.0, "The clients are coming in")
        if watch.seconds:
            return Standing(1.0, "Counting what the clients got")
        went = watch.clock() - watch.began_at
        share = watch.delivered / (watch.delivered + self.left)
        known = share if not options.duration else min(share, went / options.duration)
        batches = f"Batch {self.batches + 1:,}, {min(went, options.duration):.0f} of {options.duration:g} s: "
        return Standing(
            None if options.endpoint else known, f"{batches if options.duration else ''}{self._progress_in_words()}"
        )

    def _progress_in_words(self) -> str:
        watch = self.watch
        left = "" if self.options.endpoint else f", {self.left:,} to go"
        retried = sum(number for reason, number in watch.outcomes.items() if reason != "gone")
        if watch.in_flight:
            doing = f"{watch.in_flight:,} posts in flight, {retried:,} tried again so far"
        elif self.retries and self._draining:
            doing = f"{len(self.retries):,} jobs in the retry queue, the next in {self.retries.next_in:.1f} s"
        else:
            doing = "waiting to try again"
        return f"{watch.delivered:,} delivered{left}; {doing}"

    async def play(self) -> Ending:
        """Everything, until it is quiet."""
        options = self.options
        loop = asyncio.get_running_loop()
        self._present = list(await self.world.join(options.clients, 1, old=True))
        self._reachable = len(self._present) - await self.world.ghosts(1)
        self.watch.restart()
        end = loop.time() + options.duration
        churning = loop.create_task(self._churn()) if options.churn else None
        try:
            await self._batch()
            while loop.time() < end:
                await self._batch()
            if churning:
                churning.cancel()
            await self._drain(loop.time() + _PATIENCE)
        finally:
            if churning:
                churning.cancel()
                await asyncio.gather(churning, return_exceptions=True)
            await self.sandbox.close()
        return await self.ending()

    async def ending(self) -> Ending:
        """The state as it is known now."""
        self.watch.finish()
        self.tally = await self.world.tally()
        return Ending(
            await self.world.shortfall(self.last),
            tuple(self.retries.dead_letters),
            self.handed_back,
            len(self.retries),
            await self.world.ghosts(self.last),
            self.most_in_flight,
            self.options.concurrency,
        )

    def _note(self, figures: Mapping[str, float]) -> None:
        self.most_in_flight = max(self.most_in_flight, int(figures["most_in_flight"]))

    async def _batch(self) -> None:
        """One stream event; what comes back is sent again, as Lambda does."""
        async with self._door:
            sequences = range(self.last + 1, self.last + self.options.messages + 1)
            self.last = sequences[-1]
            self._owed += self._reachable * len(sequences)
        records = deque(stream_event(self.options.payload, sequences)["Records"])
        self.watch.begin([str(each) for each in sequences])
        for _ in range(RECEIVES):
            answer = await self.sandbox.on_stream({"Records": list(records)}, _Context(_INVOCATION_SECONDS))
            self.retries.collect()
            if not answer["batchItemFailures"]:
                break
            lowest = min(int(each["itemIdentifier"]) for each in answer["batchItemFailures"])
            while records and int(records[0]["dynamodb"]["SequenceNumber"]) < lowest:
                records.popleft()
        else:
            self.handed_back += len(records)
        self.batches += 1
        await self._serve_due()
        if not self.retries:
            self.settled = self.last
            # Clients that left needed less, those that were served twice more: nothing is owed now.
            self._owed = self.watch.delivered

    async def _serve_due(self) -> None:
        while jobs := self.retries.due():
            records = [{"messageId": str(job.number), "body": job.entry.body, "attributes": {}} for job in jobs]
            answer = await self.sandbox.on_jobs({"Records": records}, _Context(_INVOCATION_SECONDS))
            back = {each["itemIdentifier"] for each in answer["batchItemFailures"]}
            self.retries.hide([job for job in jobs if str(job.number) in back])
            self.retries.collect()

    async def _drain(self, until: float) -> None:
        loop = asyncio.get_running_loop()
        self._draining = True
        while self.retries and loop.time() < until:
            await asyncio.sleep(self.retries.next_in)
            await self._serve_due()

    async def _churn(self) -> None:
        """As many leave as come."""
        owed = 0.0
        while True:
            await asyncio.sleep(_CHURN_TICK)
            owed += self.options.churn * _CHURN_TICK / 2
            leaving = min(int(owed), len(self._present) - 1)
            owed -= leaving
            if leaving > 0:
                gone = [self._present.pop(self._random.randrange(len(self._present))) for _ in range(leaving)]
                await self.world.leave(gone, self.settled)
                async with self._door:
                    self._present += await self.world.join(leaving, self.last + 1, old=False)
