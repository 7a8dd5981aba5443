"""The relay and the account as a discrete simulation: seeded, on a heap of events, no clock but its own.

    bursts ──► stream shards ──► relay ──► posts                                  direct
                                   └─────► FIFO groups ──► workers ──► posts      fanout

Rules
- A stream shard has one invocation at a time, a FIFO group one job's run, the mapping ``workers`` invocations.
- Records wait on the stream for the window, from the first of them or from the end of the invocation before on, unless
  a batch is full; what came meanwhile is one batch.
- Work that an invocation has no time for goes behind its group (fanout) or to the retry workers (direct).
- Nothing is lost: every post is delivered, gone or refused, and every message owed to a row that was
  read is delivered, or skipped because its client is gone.

``posting`` has what one function does, ``work`` what is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import ceil, inf
from random import Random

from ..delivery.rate import Rate
from .posting import Posting
from .scenario import Scenario, Simulated
from .values import DIRECT, FANOUT, RETRY_WORKERS, SEND_BATCH, queue_batch
from .work import Burst, Clock, Item, Sandbox, TokenBucket, Work


def simulate(scenario: Scenario) -> Simulated:
    """Run the scenario until every burst is served."""
    return _World(scenario).run()


class _Pool:
    """Sandboxes of one function; used ones before new ones."""

    def __init__(self, ceiling: float | None, most: float = inf) -> None:
        self.ceiling = ceiling
        self.most = most
        self.busy = 0
        self.idle: list[Sandbox] = []

    def take(self) -> tuple[Sandbox, bool]:
        self.busy += 1
        return (self.idle.pop(), False) if self.idle else (Sandbox(Rate(self.ceiling)), True)

    def give(self, sandbox: Sandbox) -> None:
        self.busy -= 1
        self.idle.append(sandbox)


class _World:
    """Everything, and the events to come."""

    def __init__(self, scenario: Scenario) -> None:
        setup = scenario.setup
        self.scenario = scenario
        self.delays = scenario.delays
        self.random = Random(scenario.seed)
        self.out = Simulated()
        self.clock = Clock()
        account = TokenBucket(setup.allowed, scenario.account_burst)
        self.posting = Posting(scenario, self.clock, account, self.random, self.out, self._continue)
        ceiling = setup.share(scenario.mode) if scenario.ceilings else None
        self.relays = _Pool(ceiling)
        self.workers = _Pool(ceiling, setup.workers)
        self.retriers = _Pool(setup.quota if scenario.ceilings else None, RETRY_WORKERS)
        self._stream: list[deque[Item]] = [deque() for _ in range(setup.stream_shards)]
        self._busy = [False] * setup.stream_shards
        self._turns = [0] * setup.stream_shards
        self._groups: list[deque[Work]] = [deque() for _ in range(setup.shards)]
        self._locked: set[int] = set()
        self._retries: deque[Work] = deque()

    def run(self) -> Simulated:
        self._arrive(0)
        self.clock.run()
        self.out.seconds = self.clock.now
        return self.out

    def _arrive(self, number: int) -> None:
        traffic, setup = self.scenario.traffic, self.scenario.setup
        now = self.clock.now
        burst = Burst(now)
        shard = number % setup.stream_shards
        idle, full = not self._stream[shard], self._full(shard)
        for start in range(0, traffic.burst, setup.batch):
            burst.open += setup.shards if self.scenario.mode == FANOUT else 1
            self._stream[shard].append(Item(now, min(setup.batch, traffic.burst - start), burst))
        if not self._busy[shard] and (idle or self._full(shard) > full):
            self._gather(shard, self.random.random() * self.delays.poll)
        if number + 1 < self.scenario.bursts:
            gap = 1 / traffic.bursts_per_second
            gap = gap if self.scenario.even else self.random.expovariate(1 / gap)
            self.clock.at(gap, lambda: self._arrive(number + 1))

    def _full(self, shard: int) -> bool:
        return sum(item.messages for item in self._stream[shard]) >= self.scenario.setup.batch

    def _gather(self, shard: int, delay: float = 0.0) -> None:
        """Have a batch of what waits on the stream once the window is over, or at once where it is full."""
        self._turns[shard] += 1
        turn = self._turns[shard]
        wait = delay if self._full(shard) else delay + self.scenario.setup.window
        self.clock.at(wait, lambda: self._poll(shard, turn))

    def _poll(self, shard: int, turn: int) -> None:
        """The next batch of a stream shard to the relay function, unless a full one has gone meanwhile."""
        if turn != self._turns[shard]:
            return
        waiting, most = self._stream[shard], self.scenario.setup.batch
        items = [waiting.popleft()]
        while waiting and sum(each.messages for each in items) + waiting[0].messages <= most:
            items.append(waiting.popleft())
        self._busy[shard] = True
        if self.scenario.mode == DIRECT:
            self._invoke(self.relays, [self.posting.work(items, 0, 1)], lambda: self._served(shard))
        else:
            self._dispatch(items, shard)

    def _served(self, shard: int) -> None:
        self._busy[shard] = False
        if self._stream[shard]:
            self._gather(shard)

    def _dispatch(self, items: list[Item], shard: int) -> None:
        """One job a shard of the clients, ten to a call."""
        shards = self.scenario.setup.shards
        self.out.invocations += 1
        for index in range(shards):
            sent = self.delays.invoke + (index // SEND_BATCH + 1) * self.delays.send
            self.clock.at(sent + self.delays.hop, lambda index=index: self._queue(index, items))  # type: ignore[misc]
        over = self.delays.invoke + ceil(shards / SEND_BATCH) * self.delays.send
        self.out.function_seconds += over
        self.clock.at(over, lambda: self._served(shard))

    def _queue(self, index: int, items: list[Item]) -> None:
        self.out.jobs += 1
        self._groups[index].append(self.posting.work(items, index, self.scenario.setup.shards))
        self.clock.at(0.0, self._receive)  # After all that came in the same call.

    def _receive(self) -> None:
        """Hand jobs to workers: of the first free group as many as there are, then of others, as the setup says."""
        while self.workers.busy < self.workers.most:
            free = [index for index, jobs in enumerate(self._groups) if jobs and index not in self._locked]
            if not free:
                return
            chosen = free[: self.scenario.setup.groups_per_batch]
            works = self._take(chosen)
            self._locked.update(chosen)
            self._invoke(self.workers, works, lambda chosen=chosen: self._unlock(chosen))  # type: ignore[misc]

    def _take(self, chosen: list[int]) -> list[Work]:
        """Jobs that were not begun share a read; a continuation has its own."""
        works = []
        most = max(1, queue_batch(self.scenario.setup.groups_per_batch) // len(chosen))
        for index in chosen:
            jobs = self._groups[index]
            work = jobs.popleft()
            taken = 1
            while jobs and not work.read_at and not jobs[0].read_at and taken < most:
                work.items = [*work.items, *jobs.popleft().items]
                taken += 1
            works.append(work)
        return works

    def _unlock(self, chosen: list[int]) -> None:
        self._locked.difference_update(chosen)
        self._receive()

    def _invoke(self, pool: _Pool, works: list[Work], then: Callable[[], None]) -> None:
        sandbox, new = pool.take()
        self.out.invocations += 1
        busy = self.relays.busy + self.workers.busy + self.retriers.busy
        self.out.most_functions = max(self.out.most_functions, busy)
        delay = self.delays.invoke + (self.delays.cold if new else 0.0)
        began = self.clock.now

        def over() -> None:
            self.out.function_seconds += self.clock.now - began
            pool.give(sandbox)
            then()

        sandbox.works, sandbox.done = works, over
        self.clock.at(delay, lambda: self.posting.begin(sandbox))

    def _continue(self, work: Work) -> None:
        if self.scenario.mode == FANOUT:
            self.out.overtaken += len(self._groups[work.group]) > 0
            self._groups[work.group].append(work)
            self._receive()
        else:
            self.out.overtaken += any(self._stream) or self.relays.busy > 0
            self._retries.append(work)
            self._retry()

    def _retry(self) -> None:
        while self._retries and self.retriers.busy < self.retriers.most:
            self._invoke(self.retriers, [self._retries.popleft()], self._retry)
