"""One function of the simulation: it reads its rows and posts to them, step by step.

A client is not an event; a step is: up to a twentieth of a second of posts together. So a million clients take seconds.

Rules
- A step sends what the places in flight, one vCPU and the function's own ``Rate`` allow; what the
  account's bucket refuses comes back as 429 to that ``Rate`` and is sent again.
- Clients are served one after another, those who read arrays spread evenly among the others.
- Clients leave and come at an even rate; a post to one who has left is a 410 and its last.
- What an invocation has no time for is handed to ``go_on``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf
from random import Random
from statistics import NormalDist

from .packing import cpu_per_post, gathered, in_a_frame
from .scenario import Scenario, Simulated
from .values import FANOUT, SIGMA, Setup, Traffic
from .work import Clock, Item, Sandbox, TokenBucket, Work

#: Rows that are read and not yet served, above which the next page waits: as the relay reads ahead.
_READ_AHEAD = 1_000
#: A burst is served in about this many steps, so that its times are exact to a few percent; a step is no longer than
#: half a round of ``Rate``, which must see its answers, and no shorter than a millisecond, for the speed's sake.
_STEPS = 40
_LONGEST_STEP = 0.05
_SHORTEST_STEP = 0.001
_NORMAL = NormalDist()


class Posting:
    """What every function does with its work."""

    def __init__(
        self,
        scenario: Scenario,
        clock: Clock,
        account: TokenBucket,
        random: Random,
        out: Simulated,
        go_on: Callable[[Work], None],
    ) -> None:
        self._scenario = scenario
        self._delays = scenario.delays
        self._clock = clock
        self._account = account
        self._random = random
        self._out = out
        self._go_on = go_on
        self._cpu = cpu_per_post(scenario.setup, gathered(scenario.traffic, scenario.setup))
        self._rates = _closed_rates(scenario.traffic, scenario.setup, self._cpu)
        self._swept = [0.0] * scenario.setup.shards

    def work(self, items: list[Item], index: int, shards: int) -> Work:
        """A read of a shard: its even part of the clients, and rows of those whose $disconnect never came."""
        traffic = self._scenario.traffic
        rows = traffic.clients // shards + (index < traffic.clients % shards)
        return Work(items, rows, index, traffic.frames, in_a_frame(traffic, self._scenario.setup))

    def begin(self, sandbox: Sandbox) -> None:
        """Serve what the sandbox was given; its ``done`` follows."""
        sandbox.began = sandbox.stepped = sandbox.tail = self._clock.now
        sandbox.answers = sandbox.refused = 0
        sandbox.room, sandbox.allowance, sandbox.spare = float(self._scenario.setup.concurrency), 1.0, 0.0
        sandbox.rate.begin(self._clock.now)
        for work in sandbox.works:
            self._fetch(sandbox, work)

    def _fetch(self, sandbox: Sandbox, work: Work) -> None:
        """Read the next page while others are posted to."""
        rows = min(work.unread, self._delays.rows)
        work.reading = True
        full, began = rows / self._delays.rows, sandbox.began
        self._clock.at(self._delays.page * (0.2 + 0.8 * full), lambda: self._page(sandbox, work, rows, began))

    def _page(self, sandbox: Sandbox, work: Work, rows: int, began: float) -> None:
        self._out.pages += 1
        if work not in sandbox.works or sandbox.began != began:
            return  # The deadline came first.
        work.reading = False
        work.unread -= rows
        dead = 0 if work.read_at else self._left_behind(work)
        work.dead += dead
        work.lanes += rows
        work.read_at = self._clock.now
        self._out.owed += (rows + dead) * work.messages
        self._settle(sandbox)
        self._again(sandbox)

    def _left_behind(self, work: Work) -> int:
        """Rows of clients that are gone: they are found, and deleted, by the first who reads them."""
        traffic, shards = self._scenario.traffic, self._scenario.setup.shards
        since, self._swept[work.group] = self._clock.now - self._swept[work.group], self._clock.now
        part = shards if self._scenario.mode == FANOUT else 1
        return self._about(traffic.clients / part * since / traffic.session * self._scenario.missed)

    def _again(self, sandbox: Sandbox) -> None:
        """The next step, unless it is planned already or there is nothing to post."""
        posts = sum(work.posts for work in sandbox.works)
        if sandbox.stepping or not posts:
            return
        sandbox.stepping = True
        sandbox.stepped = self._clock.now
        rate = min(self._engine(sandbox), sandbox.rate.limit or inf)
        lasting = posts / rate / _STEPS
        self._clock.at(max(_SHORTEST_STEP, min(_LONGEST_STEP, lasting)), lambda: self._step(sandbox))

    def _engine(self, sandbox: Sandbox) -> float:
        lanes = sum(work.lanes + work.dead for work in sandbox.works)
        return self._rates[min(lanes, len(self._rates) - 1)]

    def _step(self, sandbox: Sandbox) -> None:
        """Post for the time since the last step."""
        sandbox.stepping = False
        if not sandbox.works:
            return
        wanted = self._wanted(sandbox, self._clock.now - sandbox.stepped)
        sandbox.stepped = self._clock.now
        granted = self._account.take(self._clock.now, wanted)
        self._answer(sandbox, wanted, granted)
        self._out.posts += wanted
        self._share_out(sandbox, granted)
        sandbox.rate.tick(self._clock.now, sandbox.answers)
        self._settle(sandbox)
        if not sandbox.works:
            return
        if self._clock.now - sandbox.began > self._delays.usable:
            self._cut(sandbox)
        else:
            for work in sandbox.works:
                if work.unread and not work.reading and work.lanes <= _READ_AHEAD:
                    self._fetch(sandbox, work)
            self._again(sandbox)

    def _settle(self, sandbox: Sandbox) -> None:
        """End what is served, and the invocation with the last of it."""
        for work in [work for work in sandbox.works if not (work.lanes or work.unread or work.dead)]:
            self._finish(sandbox, work)
        if not sandbox.works:
            self._clock.at(max(0.0, sandbox.tail - self._clock.now), sandbox.done)

    def _wanted(self, sandbox: Sandbox, elapsed: float) -> int:
        """Posts that places in flight, the vCPU and the function's rate allow, and lanes need."""
        posts = sum(work.posts for work in sandbox.works)
        places = self._scenario.setup.concurrency
        engine = self._engine(sandbox) * elapsed
        sandbox.room = min(places + engine, sandbox.room + engine)
        worked = elapsed / self._cpu
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

    def _answer(self, sandbox: Sandbox, wanted: int, granted: int) -> None:
        """Tell the rate; those refused a step ago are tried again now, and fare as the others do."""
        refused = wanted - granted
        again = min(sandbox.refused, wanted)
        again_refused = refused * again // max(1, wanted)
        self._out.refused += refused
        sandbox.refused = refused
        sandbox.answers += granted
        for _ in range(again - again_refused):
            sandbox.rate.taken(1)
        for number in range(refused):
            sandbox.answers += 1
            in_a_row = 2 if number < again_refused else 1
            sandbox.rate.refused(in_a_row, self._clock.now, sandbox.answers, lately=False)

    def _share_out(self, sandbox: Sandbox, granted: int) -> None:
        """Posts to the works under way, each its part of what they lack."""
        lacking = sum(work.posts for work in sandbox.works)
        for work in sandbox.works:
            posts = min(work.posts, granted if work is sandbox.works[-1] else granted * work.posts // max(1, lacking))
            lacking -= work.posts
            granted -= posts
            self._post(work, posts)

    def _post(self, work: Work, posts: int) -> None:
        """Clients are finished one after another; one that is gone costs a single post."""
        messages, frames = work.messages, work.frames
        dead = work.dead * posts // max(1, work.posts)
        work.dead -= dead
        clients, arrays = work.finish(posts - dead)
        lifetime = self._scenario.traffic.session
        left = self._about(clients * (1 - exp((work.read_at - self._clock.now) / lifetime)))
        left_arrays = left * arrays // max(1, clients)
        alive = clients - left
        self._out.gone += dead + left
        self._out.posts -= left_arrays * (frames - 1) + (left - left_arrays) * (messages - 1)
        self._out.saved += (arrays - left_arrays) * (messages - frames)
        self._out.delivered += alive * messages
        self._out.skipped += (dead + left) * messages
        for item in work.items:
            self._record(item, alive)

    def _record(self, item: Item, clients: int) -> None:
        """When they had it: the posts of a step are spread over it, and each takes its time."""
        pieces = min(4, clients)
        for piece in range(pieces):
            weight = clients // pieces + (piece < clients % pieces)
            self._out.times.append((self._clock.now - item.arrived + self._latency(self._random.random()), weight))

    def _finish(self, sandbox: Sandbox, work: Work) -> None:
        """The slowest of the last posts ends it."""
        sandbox.works.remove(work)
        places = max(1, min(self._scenario.setup.concurrency, self._scenario.traffic.clients))
        end = self._clock.now + self._latency(self._random.random() ** (1 / places))
        sandbox.tail = max(sandbox.tail, end)
        for item in work.items:
            burst = item.burst
            burst.open -= 1
            burst.last = max(burst.last, end)
            if not burst.open:
                self._out.lasts.append(burst.last - burst.arrived)

    def _cut(self, sandbox: Sandbox) -> None:
        """The deadline: what is left goes on elsewhere."""
        works, sandbox.works = sandbox.works, []
        for work in works:
            self._out.continuations += 1
            self._out.owed -= work.lanes * work.messages
            work.unread, work.lanes, work.reading = work.unread + work.lanes, 0, False
            self._clock.at(self._delays.hop, lambda work=work: self._go_on(work))  # type: ignore[misc]
        self._clock.at(0.0, sandbox.done)

    def _latency(self, part: float) -> float:
        """The latency that this part of the posts does not exceed."""
        median = self._scenario.traffic.latency
        return median * exp(SIGMA * _NORMAL.inv_cdf(min(max(part, 1e-9), 1 - 1e-9)))

    def _about(self, mean: float) -> int:
        """A whole number whose mean is ``mean``."""
        return int(mean) + (self._random.random() < mean - int(mean))


def _closed_rates(traffic: Traffic, setup: Setup, cpu: float) -> list[float]:
    """``model.closed_rate`` for every number of places up to the bound; at 0 lanes nothing is posted."""
    latency = traffic.latency * exp(SIGMA**2 / 2)
    rates, queued = [1e-9], 0.0
    for place in range(1, setup.concurrency + 1):
        stay = cpu * (1 + queued)
        rates.append(place / (latency + stay))
        queued = rates[-1] * stay
    return rates
