"""The relay and the account as a discrete simulation: seeded, on a heap of events, no clock but its own.

    bursts ──► stream shards ──► relay ──► posts                                  direct
                                   └─────► FIFO groups ──► workers ──► posts      fanout

A client is not an event; a step of one function is: up to a twentieth of a second of posts together. So a
million clients take seconds.

Rules
- A stream shard has one invocation at a time, a FIFO group one job's run, the mapping ``workers`` invocations.
- A step sends what the places in flight, one vCPU and the function's own ``Rate`` allow; what the
  account's bucket refuses comes back as 429 to that ``Rate`` and is sent again.
- Work that an invocation has no time for goes behind its group (fanout) or to the retry workers (direct).
- Clients leave and come at an even rate; a post to one who has left is a 410 and its last.
- Nothing is lost: every post is delivered, gone or refused, and every message owed to a row that was
  read is delivered, or skipped because its client is gone.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, exp, inf
from random import Random
from statistics import NormalDist

from ..delivery.rate import Rate
from .scenario import Scenario, Simulated
from .values import DIRECT, FANOUT, RETRY_WORKERS, SEND_BATCH, SIGMA, STREAM_BATCH, Setup, Traffic, queue_batch

#: Rows that are read and not yet served, above which the next page waits: as the relay reads ahead.
_READ_AHEAD = 1_000
#: A burst is served in about this many steps, so that its times are exact to a few percent; a step is no longer than
#: half a round of ``Rate``, which must see its answers, and no shorter than a millisecond, for the speed's sake.
_STEPS = 40
_LONGEST_STEP = 0.05
_SHORTEST_STEP = 0.001
_NORMAL = NormalDist()


class TokenBucket:
    """The account's quota: ``rate`` posts per second, and at most ``burst`` saved up."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = burst
        self._filled_at = 0.0

    def take(self, now: float, wanted: int) -> int:
        """How many of those wanted there are."""
        self._tokens = min(self.burst, self._tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        return granted


def simulate(scenario: Scenario) -> Simulated:
    """Run the scenario until every burst is served."""
    return _World(scenario).run()


@dataclass(slots=True)
class _Item:
    """Messages of one burst; ``parts`` counts what is still to be served of it."""

    arrived: float
    messages: int
    burst: _Burst


@dataclass(slots=True)
class _Burst:
    arrived: float
    open: int = 0
    last: float = 0.0


@dataclass(slots=True)
class _Work:
    """One read of a shard under way: ``unread`` rows to come, ``lanes`` read and not served, ``dead`` rows of none."""

    items: list[_Item]
    unread: int
    group: int
    read_at: float = 0.0
    dead: int = 0
    lanes: int = 0
    progress: int = 0
    reading: bool = False

    @property
    def messages(self) -> int:
        return sum(item.messages for item in self.items)

    @property
    def posts(self) -> int:
        return max(0, self.lanes * self.messages - self.progress) + self.dead


@dataclass(slots=True, eq=False)
class _Sandbox:
    """A function's sandbox; its rate outlives an invocation."""

    rate: Rate
    works: list[_Work] = field(default_factory=list)
    done: Callable[[], None] = lambda: None
    began: float = 0.0
    stepped: float = 0.0
    answers: int = 0
    refused: int = 0
    room: float = 0.0
    allowance: float = 0.0
    spare: float = 0.0
    stepping: bool = False
    tail: float = 0.0


class _Pool:
    """Sandboxes of one function; used ones before new ones."""

    def __init__(self, ceiling: float | None, most: float = inf) -> None:
        self.ceiling = ceiling
        self.most = most
        self.busy = 0
        self.idle: list[_Sandbox] = []

    def take(self) -> tuple[_Sandbox, bool]:
        self.busy += 1
        return (self.idle.pop(), False) if self.idle else (_Sandbox(Rate(self.ceiling)), True)

    def give(self, sandbox: _Sandbox) -> None:
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
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.account = TokenBucket(setup.allowed, scenario.account_burst)
        share = setup.quota / setup.workers if scenario.mode == FANOUT else setup.quota
        ceiling = share if scenario.ceilings else None
        self.relays = _Pool(ceiling)
        self.workers = _Pool(ceiling, setup.workers)
        self.retriers = _Pool(setup.quota if scenario.ceilings else None, RETRY_WORKERS)
        self._stream: list[deque[_Item]] = [deque() for _ in range(setup.stream_shards)]
        self._reading = [False] * setup.stream_shards
        self._groups: list[deque[_Work]] = [deque() for _ in range(setup.shards)]
        self._locked: set[int] = set()
        self._retries: deque[_Work] = deque()
        self._rates = _closed_rates(scenario.traffic, setup)
        self._swept = [0.0] * max(setup.shards, 1)

    def run(self) -> Simulated:
        self._arrive(0)
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.out.seconds = self.now
        return self.out

    def at(self, delay: float, event: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, event))

    def _arrive(self, number: int) -> None:
        traffic, setup = self.scenario.traffic, self.scenario.setup
        burst = _Burst(self.now)
        shard = number % setup.stream_shards
        for start in range(0, traffic.burst, STREAM_BATCH):
            messages = min(STREAM_BATCH, traffic.burst - start)
            burst.open += setup.shards if self.scenario.mode == FANOUT else 1
            self._stream[shard].append(_Item(self.now, messages, burst))
        if not self._reading[shard]:
            self._reading[shard] = True
            self.at(self.random.random() * self.delays.poll, lambda: self._poll(shard))
        if number + 1 < self.scenario.bursts:
            gap = 1 / traffic.bursts_per_second
            gap = gap if self.scenario.even else self.random.expovariate(1 / gap)
            self.at(gap, lambda: self._arrive(number + 1))

    def _poll(self, shard: int) -> None:
        """The next batch of a stream shard to the relay function."""
        waiting = self._stream[shard]
        if not waiting:
            self._reading[shard] = False
            return
        items = [waiting.popleft()]
        while waiting and sum(each.messages for each in items) + waiting[0].messages <= STREAM_BATCH:
            items.append(waiting.popleft())
        if self.scenario.mode == DIRECT:
            work = self._pass(items, 0, 1)
            self._invoke(self.relays, [work], lambda: self._poll(shard))
        else:
            self._dispatch(items, shard)

    def _dispatch(self, items: list[_Item], shard: int) -> None:
        """One job a shard of the clients, ten to a call."""
        shards = self.scenario.setup.shards
        self.out.invocations += 1
        for index in range(shards):
            sent = self.delays.invoke + (index // SEND_BATCH + 1) * self.delays.send
            self.at(sent + self.delays.hop, lambda index=index: self._queue(index, items))  # type: ignore[misc]
        over = self.delays.invoke + ceil(shards / SEND_BATCH) * self.delays.send
        self.out.function_seconds += over
        self.at(over, lambda: self._poll(shard))

    def _queue(self, index: int, items: list[_Item]) -> None:
        self.out.jobs += 1
        self._groups[index].append(self._pass(items, index, self.scenario.setup.shards))
        self.at(0.0, self._receive)  # After all that came in the same call.

    def _pass(self, items: list[_Item], index: int, shards: int) -> _Work:
        """A read of a shard: its even part of the clients, and rows of those whose $disconnect never came."""
        traffic = self.scenario.traffic
        rows = traffic.clients // shards + (index < traffic.clients % shards)
        return _Work(items, rows, index)

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

    def _take(self, chosen: list[int]) -> list[_Work]:
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

    def _invoke(self, pool: _Pool, works: list[_Work], then: Callable[[], None]) -> None:
        sandbox, new = pool.take()
        self.out.invocations += 1
        busy = self.relays.busy + self.workers.busy + self.retriers.busy
        self.out.most_functions = max(self.out.most_functions, busy)
        delay = self.delays.invoke + (self.delays.cold if new else 0.0)
        began = self.now

        def over() -> None:
            self.out.function_seconds += self.now - began
            pool.give(sandbox)
            then()

        sandbox.works, sandbox.done = works, over
        self.at(delay, lambda: self._begin(sandbox))

    def _begin(self, sandbox: _Sandbox) -> None:
        sandbox.began = sandbox.stepped = sandbox.tail = self.now
        sandbox.answers = sandbox.refused = 0
        sandbox.room, sandbox.allowance, sandbox.spare = float(self.scenario.setup.concurrency), 1.0, 0.0
        sandbox.rate.begin(self.now)
        for work in sandbox.works:
            self._fetch(sandbox, work)

    def _fetch(self, sandbox: _Sandbox, work: _Work) -> None:
        """Read the next page while others are posted to."""
        rows = min(work.unread, self.delays.rows)
        work.reading = True
        full, began = rows / self.delays.rows, sandbox.began
        self.at(self.delays.page * (0.2 + 0.8 * full), lambda: self._page(sandbox, work, rows, began))

    def _page(self, sandbox: _Sandbox, work: _Work, rows: int, began: float) -> None:
        self.out.pages += 1
        if work not in sandbox.works or sandbox.began != began:
            return  # The deadline came first.
        work.reading = False
        work.unread -= rows
        dead = 0 if work.read_at else self._left_behind(work)
        work.dead += dead
        work.lanes += rows
        work.read_at = self.now
        self.out.owed += (rows + dead) * work.messages
        self._settle(sandbox)
        self._again(sandbox)

    def _left_behind(self, work: _Work) -> int:
        """Rows of clients that are gone: they are found, and deleted, by the first who reads them."""
        traffic, shards = self.scenario.traffic, self.scenario.setup.shards
        since, self._swept[work.group] = self.now - self._swept[work.group], self.now
        part = shards if self.scenario.mode == FANOUT else 1
        return self._about(traffic.clients / part * since / traffic.session * self.scenario.missed)

    def _again(self, sandbox: _Sandbox) -> None:
        """The next step, unless it is planned already or there is nothing to post."""
        posts = sum(work.posts for work in sandbox.works)
        if sandbox.stepping or not posts:
            return
        sandbox.stepping = True
        sandbox.stepped = self.now
        rate = min(self._engine(sandbox), sandbox.rate.limit or inf)
        lasting = posts / rate / _STEPS
        self.at(max(_SHORTEST_STEP, min(_LONGEST_STEP, lasting)), lambda: self._step(sandbox))

    def _engine(self, sandbox: _Sandbox) -> float:
        lanes = sum(work.lanes + work.dead for work in sandbox.works)
        return self._rates[min(lanes, len(self._rates) - 1)]

    def _step(self, sandbox: _Sandbox) -> None:
        """Post for the time since the last step."""
        sandbox.stepping = False
        if not sandbox.works:
            return
        wanted = self._wanted(sandbox, self.now - sandbox.stepped)
        sandbox.stepped = self.now
        granted = self.account.take(self.now, wanted)
        self._answer(sandbox, wanted, granted)
        self.out.posts += wanted
        self._share_out(sandbox, granted)
        sandbox.rate.tick(self.now, sandbox.answers)
        self._settle(sandbox)
        if not sandbox.works:
            return
        if self.now - sandbox.began > self.delays.usable:
            self._cut(sandbox)
        else:
            for work in sandbox.works:
                if work.unread and not work.reading and work.lanes <= _READ_AHEAD:
                    self._fetch(sandbox, work)
            self._again(sandbox)

    def _settle(self, sandbox: _Sandbox) -> None:
        """End what is served, and the invocation with the last of it."""
        for work in [work for work in sandbox.works if not (work.lanes or work.unread or work.dead)]:
            self._finish(sandbox, work)
        if not sandbox.works:
            self.at(max(0.0, sandbox.tail - self.now), sandbox.done)

    def _wanted(self, sandbox: _Sandbox, elapsed: float) -> int:
        """Posts that places in flight, the vCPU and the function's rate allow, and lanes need."""
        posts = sum(work.posts for work in sandbox.works)
        places = self.scenario.setup.concurrency
        engine = self._engine(sandbox) * elapsed
        sandbox.room = min(places + engine, sandbox.room + engine)
        worked = elapsed / self.scenario.setup.cpu_per_post
        sandbox.spare = min(worked + 1.0, sandbox.spare + worked)
        wanted = min(posts, int(sandbox.room), int(sandbox.spare))
        limit = sandbox.rate.limit
        if limit is not None:
            sandbox.allowance = min(max(1.0, limit * (elapsed + 0.02)), sandbox.allowance + limit * elapsed)
            wanted = min(wanted, int(sandbox.allowance))
            sandbox.allowance -= wanted
        sandbox.room -= wanted
        sandbox.spare -= wanted
        return wanted

    def _answer(self, sandbox: _Sandbox, wanted: int, granted: int) -> None:
        """Tell the rate; those refused a step ago are tried again now, and fare as the others do."""
        refused = wanted - granted
        again = min(sandbox.refused, wanted)
        again_refused = refused * again // max(1, wanted)
        self.out.refused += refused
        sandbox.refused = refused
        sandbox.answers += granted
        for _ in range(again - again_refused):
            sandbox.rate.taken(1)
        for number in range(refused):
            sandbox.answers += 1
            in_a_row = 2 if number < again_refused else 1
            sandbox.rate.refused(in_a_row, self.now, sandbox.answers, lately=False)

    def _share_out(self, sandbox: _Sandbox, granted: int) -> None:
        """Posts to the works under way, each its part of what they lack."""
        lacking = sum(work.posts for work in sandbox.works)
        for work in sandbox.works:
            posts = min(work.posts, granted if work is sandbox.works[-1] else granted * work.posts // max(1, lacking))
            lacking -= work.posts
            granted -= posts
            self._post(work, posts)

    def _post(self, work: _Work, posts: int) -> None:
        """Clients are finished one after another; one that is gone costs a single post."""
        messages = work.messages
        dead = work.dead * posts // max(1, work.posts)
        work.dead -= dead
        clients, work.progress = divmod(work.progress + posts - dead, messages)
        work.lanes -= clients
        left = self._about(clients * (1 - exp((work.read_at - self.now) / self.scenario.traffic.session)))
        alive = clients - left
        self.out.gone += dead + left
        self.out.posts -= left * (messages - 1)
        self.out.delivered += alive * messages
        self.out.skipped += (dead + left) * messages
        for item in work.items:
            self._record(item, alive)

    def _record(self, item: _Item, clients: int) -> None:
        """When they had it: the posts of a step are spread over it, and each takes its time."""
        pieces = min(4, clients)
        for piece in range(pieces):
            weight = clients // pieces + (piece < clients % pieces)
            self.out.times.append((self.now - item.arrived + self._latency(self.random.random()), weight))

    def _finish(self, sandbox: _Sandbox, work: _Work) -> None:
        """The slowest of the last posts ends it."""
        sandbox.works.remove(work)
        places = max(1, min(self.scenario.setup.concurrency, self.scenario.traffic.clients))
        end = self.now + self._latency(self.random.random() ** (1 / places))
        sandbox.tail = max(sandbox.tail, end)
        for item in work.items:
            burst = item.burst
            burst.open -= 1
            burst.last = max(burst.last, end)
            if not burst.open:
                self.out.lasts.append(burst.last - burst.arrived)

    def _cut(self, sandbox: _Sandbox) -> None:
        """The deadline: what is left goes on elsewhere."""
        works, sandbox.works = sandbox.works, []
        for work in works:
            self.out.continuations += 1
            self.out.owed -= work.lanes * work.messages
            work.unread, work.lanes, work.reading = work.unread + work.lanes, 0, False
            self.at(self.delays.hop, lambda work=work: self._continue(work))  # type: ignore[misc]
        self.at(0.0, sandbox.done)

    def _continue(self, work: _Work) -> None:
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

    def _latency(self, part: float) -> float:
        """The latency that this part of the posts does not exceed."""
        median = self.scenario.traffic.latency
        return median * exp(SIGMA * _NORMAL.inv_cdf(min(max(part, 1e-9), 1 - 1e-9)))

    def _about(self, mean: float) -> int:
        """A whole number whose mean is ``mean``."""
        return int(mean) + (self.random.random() < mean - int(mean))


def _closed_rates(traffic: Traffic, setup: Setup) -> list[float]:
    """``model.closed_rate`` for every number of places up to the bound; at 0 lanes nothing is posted."""
    latency = traffic.latency * exp(SIGMA**2 / 2)
    rates, queued = [1e-9], 0.0
    for place in range(1, setup.concurrency + 1):
        stay = setup.cpu_per_post * (1 + queued)
        rates.append(place / (latency + stay))
        queued = rates[-1] * stay
    return rates
