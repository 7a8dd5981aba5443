"""The rate in the broadcaster, on virtual time, beside an oracle that knows why each post was refused."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import Any

import pytest
from lambda_models import Function, Sqs, SqsMapping, run_virtually, wall_clock

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import PostError
from async_relay.testing.memory import MemoryStore, MemoryTransport, Reply
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.messages import Message


@dataclass
class Account:
    """Answers posts: the account's bucket first, then the client's buffer.

    ``limit`` posts a second with ``burst`` saved up (None: no limit); ``full`` is the share of clients
    that refuse each message ``turns`` times.
    """

    limit: float | None = None
    burst: float = 0.0
    full: float = 0.0
    turns: int = 2
    latency: float = 0.008
    posts: int = 0
    refused: int = 0
    served: int = 0
    #: Whether the account refused the post that is being answered: for the oracle.
    refuses: bool = False
    causes: dict[str, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tokens = self.burst
        self._at = 0.0
        self._random = Random(1)
        self._full: dict[str, bool] = {}
        self._turns: Counter[tuple[str, str]] = Counter()

    def __call__(self, connection_id: str, message: Message) -> Reply:
        self.posts += 1
        account = self.causes[connection_id] = not self._takes()
        self.refused += account
        if account or self._buffer_refuses(connection_id, message):
            return Reply(429, self.latency)
        self.served += 1
        return Reply(200, self.latency)

    def _takes(self) -> bool:
        if self.limit is None:
            return True
        now = asyncio.get_running_loop().time()
        self._tokens = min(self.burst, self._tokens + (now - self._at) * self.limit)
        self._at = now
        takes = self._tokens >= 1
        self._tokens -= takes
        return takes

    def _buffer_refuses(self, connection_id: str, message: Message) -> bool:
        if connection_id not in self._full:
            self._full[connection_id] = self._random.random() < self.full
        turn = (connection_id, message.event_id)
        self._turns[turn] += 1
        return self._full[connection_id] and self._turns[turn] <= self.turns


class TellingTransport(MemoryTransport):
    """Tells the account whose answer is handed over, so that the oracle may ask it for the cause."""

    def _answer(self, lane: Any, error: PostError | None, done: Any) -> None:
        assert isinstance(self.script, Account)
        self.script.refuses = self.script.causes[lane.connection_id]
        super()._answer(lane, error, done)


class Oracle(Rate):
    """Knows its share of the account's limit, and the cause of each refusal."""

    def __init__(self, account: Account, relays: int) -> None:
        super().__init__(None if account.limit is None else account.limit / relays)
        self._account = account

    def refused(self, *_arguments: Any, **_named: Any) -> bool:
        return self._account.refuses

    def taken(self, refusals: int) -> None:
        """It learns nothing."""

    def tick(self, now: float, answers: int) -> None:
        """It adapts nothing."""


@dataclass
class Course:
    """What came of it: when the last client had everything, who was left over, and the limits by the tenth second."""

    account: Account
    seconds: float = 0.0
    ends: list[float] = field(default_factory=list)
    left_over: int = 0
    counted: int = 0
    delivered: int = 0
    limits: list[list[float | None]] = field(default_factory=list)


async def until(reached: Callable[[], bool]) -> None:
    """To be asked twenty times a second: a limit tells nobody that it has changed."""
    while not reached():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.05)


def messages(count: int, batch: int = 0) -> tuple[Message, ...]:
    return tuple(Message.encode({"event_id": f"b{batch}m{at}", "sequence": str(at)}) for at in range(count))


def relay(account: Account, rate: Rate, clients: int, number: int = 0) -> Broadcaster:
    transport = TellingTransport(account, keep=False)
    store = MemoryStore([f"r{number}c{client}=" for client in range(clients)])
    return Broadcaster(transport, store, Limits(100), rate, Random(number + 1), wall_clock)


async def live(
    account: Account, *, oracle: bool, clients: int, count: int = 1, batches: int = 1, relays: int = 1, seconds: float
) -> Course:
    loop = asyncio.get_running_loop()
    course = Course(account)
    rates = [Oracle(account, relays) if oracle else Rate() for _ in range(relays)]
    start = loop.time()

    async def serve(number: int) -> None:
        broadcaster = relay(account, rates[number], clients, number)
        for batch in range(batches):
            report = await broadcaster.broadcast([Job(messages(count, batch), shard=Shard())], seconds)
            course.left_over += len(report.outcomes[0].undelivered)
            course.counted += sum(error is not None for _, error in report.outcomes[0].undelivered)
            course.delivered += sum(report.outcomes[0].delivered)
        course.ends.append(loop.time() - start)

    async def watch() -> None:
        while True:
            course.limits.append([rate.limit for rate in rates])
            await asyncio.sleep(0.1)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*map(serve, range(relays)))
    watching.cancel()
    course.seconds = max(course.ends)
    return course


def both(account: dict[str, Any], **case: Any) -> tuple[Course, Course]:
    """The case with the rate that has to find out, and with the oracle."""
    case = {"seconds": 120.0, **case}
    ours = run_virtually(live(Account(**account), oracle=False, **case))
    oracles = run_virtually(live(Account(**account), oracle=True, **case))
    return ours, oracles


# ── full buffers and no limit ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("full", [0.0, 0.01, 0.1, 0.3])
def test_full_buffers_cost_their_own_backoff_and_nothing_else(full: float) -> None:
    """Six batches take as long as the oracle's, and no limit is ever set, however many clients are full."""
    ours, oracles = both({"full": full}, clients=300, count=5, batches=6)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert ours.delivered == 300 * 5 * 6
    assert all(limits == [None] for limits in ours.limits)


def test_ten_full_clients_of_a_thousand_slow_nobody_down() -> None:
    """Six batches of five messages: the full ones wait for themselves, and a later batch is no slower."""
    ours, oracles = both({"full": 0.01}, clients=1_000, count=5, batches=6)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert all(limits == [None] for limits in ours.limits)


def test_two_of_five_clients_are_full() -> None:
    """So few that nothing can be told from them: they take as long as the oracle's."""
    ours, oracles = both({"full": 0.4}, clients=5, count=5, batches=6)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert ours.left_over == oracles.left_over == 0


def test_a_few_full_clients_among_very_many() -> None:
    """One in two thousand is noticed by nobody."""
    ours, oracles = both({"full": 0.0005}, clients=10_000)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert all(limits == [None] for limits in ours.limits)


def test_a_buffer_that_stays_full_alone_ends_by_its_tries() -> None:
    """Nobody stands beside it, so its refusals are its own."""
    ours, _ = both({"full": 1.0, "turns": 1_000}, clients=1)
    assert (ours.left_over, ours.counted) == (1, 1)
    assert ours.seconds < 20


# ── the account's limit ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("limit", "burst", "clients", "full"),
    [(400, 40, 1_500, 0.0), (400, 200, 1_500, 0.0), (400, 40, 1_500, 0.05), (3_000, 2_500, 8_000, 0.0)],
)
def test_a_limit_is_found_and_used_up(limit: float, burst: float, clients: int, full: float) -> None:
    """Everybody is served within a fifth of the oracle's time, and fewer posts are refused than served."""
    ours, oracles = both({"limit": limit, "burst": burst, "full": full, "latency": 0.02}, clients=clients)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert ours.account.refused < ours.delivered == clients


def test_a_limit_that_is_known_is_hardly_passed() -> None:
    """Once found, one post in twelve is refused at the very most."""
    ours, _ = both({"limit": 400, "burst": 200}, clients=1_500, batches=4)
    finding, _ = both({"limit": 400, "burst": 200}, clients=1_500)
    assert ours.account.refused - finding.account.refused < 3 * 1_500 / 12


@pytest.mark.parametrize("latency", [0.015, 0.02])
def test_five_relays_share_a_limit_fairly(latency: float) -> None:
    """They know nothing of each other, and with as much to do none takes twice as long as another."""
    ours, oracles = both({"limit": 1_000, "burst": 500, "latency": latency}, clients=2_500, relays=5)
    assert ours.seconds <= 1.2 * oracles.seconds
    assert ours.account.refused < ours.delivered == 12_500
    assert ours.counted == 0
    assert max(ours.ends) < 2 * min(ours.ends)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_lifted_limit_is_found_within_two_seconds(seed: int) -> None:
    """400, then 4,000, then 400 posts a second: each is reached to within a tenth in less than two seconds."""

    async def history() -> list[float]:
        loop = asyncio.get_running_loop()
        account = Account(400, 200, latency=0.02)
        broadcaster = relay(account, Rate(), 40_000, seed)
        task = asyncio.create_task(broadcaster.broadcast([Job(messages(1), shard=Shard())], 60))
        await asyncio.sleep(4)
        took = []
        for limit in (4_000, 400):
            account.limit, account.burst, changed = limit, limit / 2, loop.time()
            lowest, highest = (0.9 * limit, inf) if limit == 4_000 else (0, 1.1 * limit)
            await until(lambda low=lowest, high=highest: low <= (broadcaster.rate.limit or 0) <= high)  # type: ignore[misc]
            took.append(loop.time() - changed)
            await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return took

    assert max(run_virtually(history())) < 2


@pytest.mark.parametrize("found", [100.0, 1_000.0])
def test_a_wrong_cut_is_made_good_within_two_seconds(found: float) -> None:
    """A limit far too low is back at nine tenths of what the process can post."""

    async def history() -> float:
        loop = asyncio.get_running_loop()
        rate = Rate()
        broadcaster = relay(Account(latency=0.02), rate, 30_000)
        task = asyncio.create_task(broadcaster.broadcast([Job(messages(1), shard=Shard())], 60))
        await asyncio.sleep(0.25)
        rate.limit, wrong = found, loop.time()
        await until(lambda: (rate.limit or 0) >= 0.9 * 100 / 0.02)
        took = loop.time() - wrong
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return took

    assert run_virtually(history()) < 2


# ── a very low limit, for a quarter of an hour ──────────────────────────────────────────────────


async def retried(
    account: Account, clients: int, seconds: float, *, count: int = 1, reason: str = ""
) -> tuple[int, int, int]:
    """A job for clients in the retry queue, served by one worker function; delivered, dead letters, jobs left."""
    retry, letters = Sqs(visibility=90), Sqs()
    broadcaster = relay(account, Rate(), 0)
    worker = Relay(broadcaster, Queues(retry, letters), RequeuePolicy(), wall_clock=wall_clock)
    job = Job(messages(count), tuple(Client(f"c{number}=") for number in range(clients)), attempt=1, reason=reason)
    await retry.send([Entry(each.encode()) for each in job.split()])
    mapping = SqsMapping(retry, Function(worker.on_jobs, 60))
    polling = asyncio.create_task(mapping.poll())
    await asyncio.sleep(seconds)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    assert mapping.function.errors == []
    return account.served, len(letters.messages), len(retry.messages)


@pytest.mark.parametrize("reason", ["", "throttled"])
@pytest.mark.parametrize("limit", [1.0, 5.0])
def test_nobody_is_given_up_for_the_accounts_limit(limit: float, reason: str) -> None:
    """200 clients in the retry queue under 1 or 5 posts a second for 15 minutes: all served, none a dead letter."""
    account = Account(limit, 2)
    count = 4 if limit == 1 else 15
    served, letters, _ = run_virtually(retried(account, 200, 900, count=count, reason=reason))
    assert letters == 0
    assert served >= 0.8 * min(200 * count, 900 * limit)
    assert account.refused < served


def test_a_job_of_full_buffers_ends_in_the_dead_letters() -> None:
    """Ten clients that never take a message, and nobody beside them: no account explains that for ever."""
    served, letters, left = run_virtually(retried(Account(full=1.0, turns=1_000_000), 10, 3_600))
    assert (served, left) == (0, 0)
    assert letters >= 1
