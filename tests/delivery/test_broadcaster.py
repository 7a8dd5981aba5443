"""The engine on the in-memory twins and virtual time, sentence by sentence."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter, defaultdict
from random import Random

import pytest
from lambda_models import EPOCH, still_running, virtual_time, wall_clock

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.protocols import Page
from async_relay.delivery.rate import Rate
from async_relay.delivery.report import Report
from async_relay.errors import (
    Forbidden,
    Gone,
    PostError,
    Refused,
    ServerError,
    StoreUnavailable,
    TimedOut,
    TooLarge,
    Unavailable,
    Unreachable,
)
from async_relay.testing.memory import NEVER, OK, MemoryStore, MemoryTransport, Reply, Script
from async_relay.wire.jobs import Client, Cursor, Job, Shard
from async_relay.wire.messages import Message

pytestmark = virtual_time


def messages(count: int = 1) -> tuple[Message, ...]:
    return tuple(
        Message.encode({"kind": "remediation", "event_id": f"e{number}", "sequence": str(number)})
        for number in range(count)
    )


def everybody(count: int = 1) -> Job:
    return Job(messages(count), shard=Shard())


def to(*clients: str | Client, count: int = 1) -> Job:
    return Job(messages(count), tuple(each if isinstance(each, Client) else Client(each) for each in clients))


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}=" for number in range(count)]


class Scene:
    """A broadcaster over the in-memory twins, and what is seen of it from outside."""

    def __init__(
        self,
        script: Script = lambda _id, _message: OK,
        store: MemoryStore | None = None,
        *,
        bound: int = 100,
        timeout: float = 3.0,
        retry_until_deadline: bool = False,
        rate: Rate | None = None,
        transport: MemoryTransport | None = None,
    ) -> None:
        self.store = store or MemoryStore()
        self.transport = transport or MemoryTransport(script, timeout=timeout)
        self.broadcaster = Broadcaster(
            self.transport, self.store, Limits(bound, timeout), rate or Rate(), Random(1), wall_clock
        )
        self.retry_until_deadline = retry_until_deadline
        self.took = 0.0

    async def broadcast(self, *jobs: Job, seconds: float = 60.0) -> Report:
        loop = asyncio.get_running_loop()
        start = loop.time()
        report = await self.broadcaster.broadcast(jobs, seconds, retry_until_deadline=self.retry_until_deadline)
        self.took = loop.time() - start
        assert self.took <= seconds + 1e-6, "a broadcast ends in time"
        assert not still_running()
        return report

    def got(self, connection_id: str) -> list[str]:
        return [message.event_id for message in self.transport.received[connection_id]]


class Failing:
    """Answers some clients with a status, each a number of times, then 200."""

    def __init__(self, status: int, times: float = NEVER, prefix: str = "", *, delay: float = 0.0) -> None:
        self.reply = Reply(status, delay)
        self.times = times
        self.prefix = prefix
        self.delay = delay
        self.seen: Counter[str] = Counter()

    def __call__(self, connection_id: str, _message: Message) -> Reply:
        if connection_id.startswith(self.prefix):
            self.seen[connection_id] += 1
            if self.seen[connection_id] <= self.times:
                return self.reply
        return Reply(200, self.delay)


class Bucket:
    """An account's limit as API Gateway keeps it: so many posts a second, and a burst (AWS: half a second's)."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.at = 0.0
        self.refusals = 0

    def __call__(self, _connection_id: str, _message: Message) -> Reply:
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < 1:
            self.refusals += 1
            return Reply(429, 0.01)
        self.tokens -= 1
        return Reply(200, 0.01)


class Clock:
    """Notes when each post was made."""

    def __init__(self, script: Script = lambda _id, _message: OK) -> None:
        self.script = script
        self.times: list[float] = []
        self.by_client: dict[str, list[float]] = defaultdict(list)

    def __call__(self, connection_id: str, message: Message) -> Reply:
        now = asyncio.get_running_loop().time()
        self.times.append(now)
        self.by_client[connection_id].append(now)
        return self.script(connection_id, message)


# ── the bound, the order, the pages ─────────────────────────────────────────────────────────────


async def test_never_more_in_flight_than_the_bound() -> None:
    """However many clients there are, the posts in flight reach the bound and no more."""
    random = Random(2)
    scene = Scene(lambda _id, _message: Reply(200, random.random() / 20), MemoryStore(names("c", 500)), bound=7)
    report = await scene.broadcast(everybody(3))
    assert scene.transport.most_in_flight == report.most_in_flight == 7
    assert report.outcomes[0].delivered == [500] * 3


@pytest.mark.parametrize("seed", range(5))
async def test_each_client_gets_its_messages_in_order(seed: int) -> None:
    """Faults and waits never change the order in which one client gets one batch."""
    random = Random(seed)

    def shaky(_id: str, _message: Message) -> Reply:
        return Reply(random.choice([200, 200, 200, 500, 0, 429]), random.random() / 10)

    scene = Scene(shaky, MemoryStore(names("c", 200)), bound=20, retry_until_deadline=True)
    report = await scene.broadcast(everybody(8), seconds=600)
    expected = [f"e{number}" for number in range(8)]
    assert all(scene.got(each) == expected for each in names("c", 200))
    assert not report.outcomes[0].undelivered


async def test_posting_starts_with_the_first_page() -> None:
    """Clients of the first page are posted to while the second is still being read."""
    clock = Clock()
    scene = Scene(clock, MemoryStore(names("c", 50), page_size=10, delay=1.0))
    await scene.broadcast(everybody())
    firsts = sorted(clock.by_client[each][0] - clock.times[0] for each in names("c", 50))
    assert firsts[:10] == [0.0] * 10
    assert firsts[10] == pytest.approx(1.0)
    assert firsts[49] == pytest.approx(4.0)


async def test_a_waiting_client_holds_no_place() -> None:
    """Twenty failing clients at the head of the table do not hold up those behind, with four places."""
    clock = Clock(Failing(503, 3, "sick", delay=0.01))
    scene = Scene(clock, MemoryStore(names("sick", 20) + names("well", 200)), bound=4)
    report = await scene.broadcast(everybody())
    assert report.outcomes[0].delivered == [220]
    ideal = (200 + 4 * 20) * 0.01 / 4
    assert max(clock.by_client[each][0] for each in names("well", 200)) - clock.times[0] <= ideal


async def test_the_table_is_not_held_whole() -> None:
    """Pages are read only a little ahead of what is served, and there is no task a client."""
    ahead = tasks = posts = 0
    store = MemoryStore(names("c", 30_000), page_size=1_000)

    def watch(_id: str, _message: Message) -> Reply:
        nonlocal ahead, tasks, posts
        posts += 1
        ahead = max(ahead, 1_000 * store.reads - posts)
        if posts % 1_000 == 0:
            tasks = max(tasks, len(asyncio.all_tasks()))
        return Reply(200, 0.05)

    scene = Scene(watch, store, bound=500)
    report = await scene.broadcast(everybody())
    assert report.outcomes[0].delivered == [30_000]
    assert ahead <= 2_000
    assert tasks <= 4


async def test_a_client_that_was_answered_goes_on_first() -> None:
    """A client gets its whole batch before the next one begins, where there is one place."""
    posted: list[str] = []

    def note(connection_id: str, message: Message) -> Reply:
        posted.append(f"{connection_id[:2]} {message.event_id}")
        return OK

    await Scene(note, MemoryStore(names("c", 3)), bound=1).broadcast(everybody(2))
    assert sorted(posted[::2]) == ["c0 e0", "c1 e0", "c2 e0"]
    assert posted[1::2] == [each.replace("e0", "e1") for each in posted[::2]]


async def test_jobs_are_served_side_by_side() -> None:
    """Several jobs in one broadcast have an outcome each, in their order."""
    scene = Scene(Failing(500, prefix="sick"), MemoryStore(names("c", 3)))
    report = await scene.broadcast(to("a", "b", count=2), everybody(1), to("sick", Client("d", skip=2), count=3))
    assert [outcome.delivered for outcome in report.outcomes] == [[2, 2], [3], [0, 0, 1]]
    assert [len(outcome.undelivered) for outcome in report.outcomes] == [0, 0, 1]
    assert repr(report.outcomes[2]) == "<1 delivered of 3 messages, 0 gone, 1 undelivered, 0 rejected>"


async def test_nobody_is_connected() -> None:
    """An empty table is an empty report, at once."""
    scene = Scene()
    report = await scene.broadcast(everybody(3))
    assert (report.posts, report.systemic, scene.took) == (0, None, 0.0)
    assert (await scene.broadcast()).outcomes == ()


# ── 410 ─────────────────────────────────────────────────────────────────────────────────────────


def store_of(created_at: int | None, *connection_ids: str) -> MemoryStore:
    store = MemoryStore(connection_ids)
    if created_at is not None:
        store.rows.update({each: {"createdAt": created_at} for each in connection_ids})
    return store


NOW_MS = EPOCH * 1000
NONSENSE = [None, 0, -5, NOW_MS - 10_001, NOW_MS + 3_600_000, 10**18]


@pytest.mark.parametrize("created_at", NONSENSE)
async def test_a_gone_client_is_tried_once_and_its_row_deleted(created_at: int | None) -> None:
    """An old row, or one whose createdAt is missing, in the future or nonsense, goes with the first 410."""
    store = store_of(created_at, "gone=")
    scene = Scene(Failing(410), store)
    report = await scene.broadcast(everybody(3))
    assert scene.transport.posts == {"gone=": 1}
    assert (store.deleted, store.rows) == (["gone="], {})
    assert (report.outcomes[0].gone, report.outcomes[0].undelivered, report.undeleted) == (1, [], 0)


async def test_exactly_the_gone_rows_go() -> None:
    """500 live and 200 gone clients: the gone are tried once, deleted, and nobody else is."""
    live, gone = names("live", 500), names("gone", 200)
    rows = live + gone
    Random(3).shuffle(rows)
    scene = Scene(Failing(410, prefix="gone"), MemoryStore(rows, page_size=90), bound=40)
    report = await scene.broadcast(everybody(5))
    assert sorted(scene.store.deleted) == sorted(gone)
    assert sorted(scene.store.rows) == sorted(live)
    assert all(scene.transport.posts[each] == 1 for each in gone)
    assert report.outcomes[0].delivered == [500] * 5


async def test_a_handshake_that_still_finishes_is_served_and_kept() -> None:
    """A 410 from a row just written is retried: the client is served, and stays."""

    def shaking(_id: str, _message: Message) -> Reply:
        return Reply(410 if asyncio.get_running_loop().time() < 0.3 else 200, 0.01)

    scene = Scene(shaking, store_of(NOW_MS, *names("new", 20)))
    report = await scene.broadcast(everybody(2))
    assert report.outcomes[0].delivered == [20, 20]
    assert scene.store.deleted == []


async def test_a_young_gone_client_is_requeued_with_its_age() -> None:
    """Five tries within the grace leave the client over, its createdAt with it, its row in place."""
    scene = Scene(Failing(410), store_of(NOW_MS, "new="))
    report = await scene.broadcast(everybody(2))
    ((client, error),) = report.outcomes[0].undelivered
    assert client == Client("new=", NOW_MS, 0)
    assert isinstance(error, Gone)
    assert scene.store.deleted == []
    assert scene.took < 10


@pytest.mark.parametrize("retry_until_deadline", [False, True])
async def test_a_gone_client_is_deleted_once_its_grace_is_over(retry_until_deadline: bool) -> None:
    """A row that turns ten seconds old while it still answers 410 goes."""
    scene = Scene(Failing(410, delay=0.01), store_of(NOW_MS - 9_500, "new="), retry_until_deadline=retry_until_deadline)
    report = await scene.broadcast(everybody(2))
    assert scene.store.deleted == ["new="]
    assert report.outcomes[0].undelivered == []
    assert 0.5 <= scene.took < 3


async def test_without_a_queue_a_gone_client_is_waited_for_until_it_is_old() -> None:
    """With nowhere to requeue it, a young client is tried for its whole grace and then deleted."""
    scene = Scene(Failing(410, delay=0.01), store_of(NOW_MS, "new="), retry_until_deadline=True)
    await scene.broadcast(everybody())
    assert scene.store.deleted == ["new="]
    assert 10 <= scene.took < 14


HOUR_MS = 3_600_000


async def test_an_endpoint_that_knows_nobody_empties_no_table() -> None:
    """5,000 ids answer 410 and none 200: 25 rows go in the sandbox's life, the others stay and are counted."""
    store = MemoryStore(names("c", 5_000))
    scene = Scene(Failing(410), store)
    first, second = [await scene.broadcast(everybody()) for _ in range(2)]
    assert (len(store.deleted), len(store.rows)) == (25, 4_975)
    assert [report.outcomes[0].gone for report in (first, second)] == [5_000, 4_975]
    assert [(report.unproven, report.undeleted, report.systemic) for report in (first, second)] == [
        (4_975, 0, None)
    ] * 2


async def test_the_first_200_lets_the_rows_of_gone_clients_go() -> None:
    """Rows held for want of evidence are deleted in the broadcast that is answered 200, while it still posts."""
    rows = names("gone", 300)
    store = MemoryStore([*rows, "c="])

    def late(connection_id: str, _message: Message) -> Reply:
        return Reply(200, 1.0) if connection_id == "c=" else Reply(410)

    scene = Scene(late, store)
    broadcast = asyncio.create_task(scene.broadcaster.broadcast([everybody(3)], 60))
    await asyncio.sleep(0.9)
    assert len(store.deleted) == 25
    await asyncio.sleep(0.3)
    assert sorted(store.deleted) == sorted(rows)
    assert (await broadcast).unproven == 0


async def test_the_proof_holds_for_the_life_of_the_sandbox() -> None:
    """Once an endpoint answered 200, a later broadcast of nothing but 410 deletes all rows."""
    store = MemoryStore(["c="])
    scene = Scene(Failing(410, prefix="gone"), store)
    await scene.broadcast(everybody())
    report = await scene.broadcast(to(*names("gone", 300)))
    assert (len(store.deleted), report.unproven) == (300, 0)


@pytest.mark.parametrize(
    ("created_at", "stays"),
    [
        (NOW_MS - 3 * HOUR_MS, 0),
        (NOW_MS - 2 * HOUR_MS - 5 * 60_000, 75),
        (NOW_MS - HOUR_MS, 75),
        (NOW_MS + 9 * HOUR_MS, 75),
        (None, 75),
        (0, 75),
        (EPOCH, 75),
    ],
)
async def test_a_row_older_than_any_connection_needs_no_other_evidence(created_at: int | None, stays: int) -> None:
    """No connection lasts over two hours; a time that is missing, newer or no milliseconds says nothing."""
    scene = Scene(Failing(410), store_of(created_at, *names("gone", 100)))
    report = await scene.broadcast(everybody())
    assert (report.unproven, len(scene.store.rows)) == (stays, stays)


async def test_forbidden_for_all_proves_nothing() -> None:
    """Where nobody can be served the rows held for want of evidence stay."""

    def hostile(connection_id: str, _message: Message) -> Reply:
        return Reply(410) if connection_id.startswith("gone") else Reply(403, 0.1)

    scene = Scene(hostile, MemoryStore(names("gone", 60) + names("c", 30)), bound=90)
    report = await scene.broadcast(everybody())
    assert isinstance(report.systemic, Forbidden)
    assert (len(scene.store.deleted), report.unproven) == (25, 35)


class SlowDeletes(MemoryStore):
    """Reads at once, and takes its time to delete."""

    most = now = 0

    async def delete(self, connection_ids: object) -> None:
        assert isinstance(connection_ids, list)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(1)
            await super().delete(connection_ids)
        finally:
            self.now -= 1


async def test_rows_are_deleted_while_the_posting_goes_on() -> None:
    """Deletions run beside the posts, one call for all that has come together meanwhile."""
    store = SlowDeletes(names("gone", 50) + names("c", 100))
    scene = Scene(Failing(410, prefix="gone", delay=0.1), store, bound=10)
    report = await scene.broadcast(everybody())
    assert report.undeleted == 0
    assert len(store.deleted) == 50
    assert store.most == 1
    assert scene.took < 4


async def test_deletions_wait_no_longer_than_the_deadline() -> None:
    """Rows that could not be deleted in time are counted, and left for the next broadcast."""
    store = SlowDeletes(["c=", *names("gone", 50)])
    scene = Scene(Failing(410, prefix="gone"), store)
    report = await scene.broadcast(everybody(), seconds=0.5)
    assert report.undeleted == 50
    assert report.outcomes[0].gone == 50
    assert store.deleted == []


class NoDeletes(MemoryStore):
    """A table that may be read, not written."""

    async def delete(self, _connection_ids: object) -> None:
        raise StoreUnavailable("AccessDeniedException")


async def test_rows_on_trust_that_could_not_be_deleted_are_tried_again() -> None:
    """The 25 rows that may go without a 200 are the same 25 in every broadcast, until they are gone."""
    store = NoDeletes(names("gone", 40))
    scene = Scene(Failing(410), store)
    reports = [await scene.broadcast(everybody()) for _ in range(2)]
    assert [(report.undeleted, report.unproven) for report in reports] == [(25, 15)] * 2


async def test_a_deletion_that_fails_is_counted_and_nothing_more() -> None:
    """A table that refuses deletions costs nobody a message."""
    scene = Scene(Failing(410, prefix="gone"), NoDeletes([*names("gone", 3), "c="]))
    report = await scene.broadcast(everybody())
    assert (report.undeleted, report.outcomes[0].delivered, report.systemic) == (3, [1], None)


# ── 429 ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_client_refused_alone_waits_alone() -> None:
    """One full buffer slows that client down and nobody else."""
    clock = Clock(Failing(429, 3, "full", delay=0.005))
    rate = Rate()
    scene = Scene(clock, MemoryStore([*names("full", 1), *names("c", 1_000)]), bound=10, rate=rate)
    report = await scene.broadcast(everybody(2))
    assert report.outcomes[0].delivered == [1_001, 1_001]
    assert report.throttled == 3
    assert rate.limit is None
    assert max(clock.by_client[each][-1] for each in names("c", 1_000)) <= 2_010 * 0.005 / 10


async def test_a_buffer_that_stays_full_is_undelivered() -> None:
    """A client refused alone gives up its place after five tries."""
    scene = Scene(Failing(429, prefix="full"), MemoryStore([*names("c", 300), "full="]))
    report = await scene.broadcast(everybody())
    ((client, error),) = report.outcomes[0].undelivered
    assert (client.connection_id, error and error.reason) == ("full=", "throttled")
    assert scene.transport.posts["full="] == 5


@pytest.mark.parametrize("burst", [20, 200])
async def test_the_accounts_limit_slows_everybody_down_and_counts_no_try(burst: float) -> None:
    """1,500 clients at 400 posts a second are done within twice the ideal time, refused less often than served."""
    bucket = Bucket(400, burst)
    scene = Scene(bucket, MemoryStore(names("c", 1_500)))
    report = await scene.broadcast(everybody())
    assert report.outcomes[0].delivered == [1_500]
    assert report.outcomes[0].undelivered == []
    assert report.throttled == bucket.refusals < 1_500
    assert scene.took < 2 * 1_500 / 400


async def test_what_was_learnt_of_the_accounts_limit_is_remembered() -> None:
    """The next broadcast starts at the rate the last one found, and is refused less."""
    bucket = Bucket(400, 200)
    scene = Scene(bucket, MemoryStore(names("c", 1_000)))
    await scene.broadcast(everybody())
    learning = bucket.refusals
    await scene.broadcast(everybody())
    assert bucket.refusals - learning < learning
    assert scene.took < 2 * 1_000 / 400


@pytest.mark.parametrize("burst", [20, 200])
async def test_five_relays_share_one_limit(burst: float) -> None:
    """Relays that know nothing of each other all finish within twice the ideal time."""
    bucket = Bucket(400, burst)
    scenes = [Scene(bucket, MemoryStore(names(f"r{number}-", 500))) for number in range(5)]
    loop = asyncio.get_running_loop()
    start = loop.time()
    reports = await asyncio.gather(*(scene.broadcaster.broadcast([everybody()], 60) for scene in scenes))
    served = sum(report.outcomes[0].delivered[0] for report in reports)
    assert served + sum(len(report.outcomes[0].undelivered) for report in reports) == 2_500
    assert served >= 2_495, "hardly anybody is refused alone five times"
    assert loop.time() - start < 2 * 2_500 / 400
    assert bucket.refusals < 2_500


@pytest.mark.parametrize("ceiling", [3, 50, 100, 5_000])
async def test_the_ceiling_holds_in_every_second(ceiling: int) -> None:
    """No window of one second ever holds more posts than the fixed ceiling and a burst of 20 ms."""
    clock = Clock()
    rate = Rate(ceiling)
    scene = Scene(clock, MemoryStore(names("c", 3 * ceiling)), rate=rate)
    await scene.broadcast(everybody())
    await asyncio.sleep(0.5)
    await scene.broadcast(everybody())
    busiest = max(bisect_left(clock.times, at + 1 - 1e-6) - first for first, at in enumerate(clock.times))
    assert busiest <= ceiling + max(1, ceiling // 50)
    assert scene.took < 3.2


# ── nobody can be served ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("retry_until_deadline", [False, True])
async def test_forbidden_for_all_is_systemic_after_ten(retry_until_deadline: bool) -> None:
    """403 from everybody ends the broadcast at once; nothing is deleted."""
    scene = Scene(
        Failing(403, delay=0.05), MemoryStore(names("c", 500)), bound=20, retry_until_deadline=retry_until_deadline
    )
    report = await scene.broadcast(everybody())
    assert isinstance(report.systemic, Forbidden)
    assert report.posts <= 30
    assert scene.took < 1
    assert scene.store.deleted == []


@pytest.mark.parametrize("status", [403, -1])
@pytest.mark.parametrize("clients", [15, 1_000])
async def test_ten_quick_failures_wait_for_the_answers_of_those_in_flight(status: int, clients: int) -> None:
    """Nobody can be served only if nobody is: ten that fail at once beside slower 200s are those ten's trouble."""

    def quick(connection_id: str, _message: Message) -> Reply:
        return Reply(status, 0.005) if connection_id.startswith("no") else Reply(200, 0.02)

    scene = Scene(quick, MemoryStore([*names("no", 10), *names("c", clients - 10)]), bound=clients)
    report = await scene.broadcast(everybody())
    assert report.systemic is None
    assert report.outcomes[0].delivered == [clients - 10]
    assert sorted(left.client.connection_id for left in report.outcomes[0].undelivered) == sorted(names("no", 10))
    assert all(left.error is not None for left in report.outcomes[0].undelivered)


async def test_a_post_that_hangs_does_not_keep_an_outage_secret() -> None:
    """Ten that fail at once and one that hangs: the verdict comes within one post's time, and nothing else is sent."""

    def mostly(connection_id: str, _message: Message) -> Reply:
        return Reply(200, NEVER) if connection_id == "hang=" else Reply(403)

    scene = Scene(mostly, MemoryStore(["hang=", *names("no", 200)]), bound=300, timeout=2.0)
    report = await scene.broadcast(everybody())
    assert report.systemic is not None
    assert scene.took <= 2.0


@pytest.mark.parametrize("retry_until_deadline", [False, True])
@pytest.mark.parametrize("clients", [1, 9])
async def test_forbidden_for_a_few_and_nobody_else_is_systemic(clients: int, retry_until_deadline: bool) -> None:
    """Fewer than ten clients, all forbidden, are enough once they have been tried to the end."""
    scene = Scene(Failing(403), MemoryStore(names("c", clients)), retry_until_deadline=retry_until_deadline)
    report = await scene.broadcast(everybody())
    assert isinstance(report.systemic, Forbidden)
    assert scene.took < 10
    assert scene.store.deleted == []


@pytest.mark.parametrize("retry_until_deadline", [False, True])
async def test_one_403_among_many_200s_is_that_clients_alone(retry_until_deadline: bool) -> None:
    """A forbidden client is given up like any other that fails."""
    scene = Scene(
        Failing(403, prefix="no"), MemoryStore(["no=", *names("c", 30)]), retry_until_deadline=retry_until_deadline
    )
    report = await scene.broadcast(everybody(), seconds=8)
    assert report.systemic is None
    ((client, error),) = report.outcomes[0].undelivered
    assert (client.connection_id, type(error)) == ("no=", Forbidden)


@pytest.mark.parametrize("retry_until_deadline", [False, True])
async def test_an_undecided_client_is_cleared_by_the_first_200(retry_until_deadline: bool) -> None:
    """A client forbidden five times waits for word of the others, and is judged once one is served."""

    def late(connection_id: str, _message: Message) -> Reply:
        return Reply(403) if connection_id == "no=" else Reply(200, 2.9)

    scene = Scene(late, MemoryStore(["no=", "c="]), retry_until_deadline=retry_until_deadline)
    report = await scene.broadcast(everybody(), seconds=20)
    assert (report.systemic, report.outcomes[0].delivered) == (None, [1])
    assert [left.client.connection_id for left in report.outcomes[0].undelivered] == ["no="]
    assert (scene.took > 10) == retry_until_deadline


async def test_who_was_forbidden_while_others_were_served_has_been_judged() -> None:
    """A retry job of one forbidden client alone is that client's failure, not everybody's."""
    job = Job(messages(), (Client("no="),), attempt=1, reason="forbidden")
    report = await Scene(Failing(403)).broadcast(job)
    assert report.systemic is None
    assert [type(left.error) for left in report.outcomes[0].undelivered] == [Forbidden]


@pytest.mark.parametrize("retry_until_deadline", [False, True])
@pytest.mark.parametrize("clients", [1, 500])
async def test_nothing_listens(clients: int, retry_until_deadline: bool) -> None:
    """An endpoint nobody can connect to is systemic within seconds, not at the deadline."""
    scene = Scene(Failing(-1, delay=0.01), MemoryStore(names("c", clients)), retry_until_deadline=retry_until_deadline)
    report = await scene.broadcast(everybody(2))
    assert isinstance(report.systemic, Unreachable)
    assert scene.took < 2
    assert report.posts <= 110


@pytest.mark.parametrize("failing", [1, 30])
async def test_connections_that_fail_while_others_are_served_are_those_clients_alone(failing: int) -> None:
    """Once somebody got a 200 the endpoint is there, however many connections cannot be opened."""
    rows = names("c", 20) + names("far", failing)
    scene = Scene(Failing(-1, prefix="far", delay=0.01), MemoryStore(rows), bound=10)
    report = await scene.broadcast(everybody())
    assert report.systemic is None
    assert report.outcomes[0].delivered == [20]
    assert len(report.outcomes[0].undelivered) == failing


async def test_a_table_that_cannot_be_read_is_systemic() -> None:
    """With the table down nobody is posted to."""
    store = MemoryStore(names("c", 10))
    store.down = True
    scene = Scene(store=store)
    report = await scene.broadcast(everybody())
    assert isinstance(report.systemic, StoreUnavailable)
    assert (report.posts, scene.took) == (0, 0.0)


class FailingScan(MemoryStore):
    """Fails from the third page on."""

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        self.down = self.reads == 2
        return await super().read(shard, cursor)


async def test_a_table_that_fails_half_way_ends_the_reading_only() -> None:
    """Everybody who was read is served, another job too, and the report says where the reading ended and why."""
    store = FailingScan(names("c", 500), page_size=100, delay=0.01)
    scene = Scene(lambda _id, _message: Reply(200, 0.5), store, bound=10)
    report = await scene.broadcast(everybody(), to("d=", "e="))
    assert report.systemic is None
    assert [outcome.delivered for outcome in report.outcomes] == [[200], [2]]
    outcome = report.outcomes[0]
    assert (outcome.unread, outcome.pages) == (True, 2)
    store.down = False
    rest = await MemoryStore.read(store, Shard(), outcome.cursor)
    assert not {client.connection_id for client in rest.clients} & set(scene.transport.received)
    assert isinstance(outcome.failure, StoreUnavailable)
    assert outcome.undelivered == []


class DownFor(MemoryStore):
    """Cannot read some of its shards."""

    closed: tuple[int, ...] = ()

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        if shard.index in self.closed:
            raise StoreUnavailable("InternalServerError")
        return await super().read(shard, cursor)


@pytest.mark.parametrize(
    ("down", "clients", "systemic"), [((0, 1), 0, True), ((0,), 0, False), ((0, 1), 1, False), ((), 0, False)]
)
async def test_a_table_is_down_for_all_where_no_job_got_a_page_and_there_is_no_other_work(
    down: tuple[int, ...], clients: int, systemic: bool
) -> None:
    """One shard that can be read, even an empty one, or one job with names is somebody who can be served."""
    store = DownFor([])
    store.closed = down
    jobs = [Job(messages(), shard=Shard(index, 2)) for index in range(2)]
    report = await Scene(store=store).broadcast(*jobs, *[to("c=")] * clients)
    assert isinstance(report.systemic, StoreUnavailable) is systemic
    assert [outcome.failure is not None for outcome in report.outcomes[:2]] == [index in down for index in range(2)]


async def test_a_hanging_post_does_not_hold_up_the_verdict_for_long() -> None:
    """Once nobody can be served, what is in flight is waited for no longer than one post may take."""

    def mostly_forbidden(connection_id: str, _message: Message) -> Reply:
        return Reply(200, NEVER) if connection_id.startswith("hang") else Reply(403)

    scene = Scene(mostly_forbidden, MemoryStore([*names("hang", 5), *names("c", 30)]), timeout=2.0)
    report = await scene.broadcast(everybody())
    assert isinstance(report.systemic, Forbidden)
    assert scene.took <= 2.0


class LateTransport(MemoryTransport):
    """Takes a while to get ready."""

    ready_after = 0.0

    async def begin(self) -> None:
        if self.ready_after:
            await asyncio.sleep(self.ready_after)


class LocklessTransport(MemoryTransport):
    """Has no credentials to sign with."""

    async def begin(self) -> None:
        raise Unavailable("no AWS credentials")


async def test_a_transport_that_cannot_begin_is_systemic() -> None:
    """No credentials, or none in time: nobody can be served."""
    for transport in (LocklessTransport(), LateTransport()):
        if isinstance(transport, LateTransport):
            transport.ready_after = 90
        report = await Scene(transport=transport, store=MemoryStore(["c="])).broadcast(everybody(), seconds=5)
        assert type(report.systemic) is Unavailable
        assert report.posts == 0


# ── what can never be delivered ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bound", [1, 20])
@pytest.mark.parametrize("large", [{"e1"}, {"e0", "e2"}])
async def test_a_message_too_large_for_everybody_is_posted_to_a_few_only(large: set[str], bound: int) -> None:
    """After ten 413s and no delivery a message is blocked; the others go on."""
    posts = Counter[str]()

    def strict(_id: str, message: Message) -> Reply:
        posts[message.event_id] += 1
        return Reply(413 if message.event_id in large else 200, 0.01)

    scene = Scene(strict, MemoryStore(names("c", 400)), bound=bound)
    report = await scene.broadcast(everybody(3))
    assert report.outcomes[0].blocked == {int(each[1]): "too_large" for each in large}
    assert all(posts[each] < 10 + bound for each in large)
    assert report.outcomes[0].delivered == [0 if f"e{at}" in large else 400 for at in range(3)]
    assert {type(rejected.error) for rejected in report.outcomes[0].rejected.values()} == {TooLarge}


async def test_a_message_too_large_for_some_is_not_blocked() -> None:
    """A message that somebody got is kept for everybody else, however many refuse it."""
    scene = Scene(Failing(413, prefix="small"), MemoryStore([*names("c", 5), *names("small", 30)]), bound=5)
    report = await scene.broadcast(everybody())
    assert report.outcomes[0].blocked == {}
    assert report.outcomes[0].rejections == 30


async def test_a_refused_message_is_skipped_and_the_row_kept() -> None:
    """400 for one message to one client: it gets the others, and stays in the table."""

    def picky(connection_id: str, message: Message) -> Reply:
        return Reply(400 if (connection_id, message.event_id) == ("odd=", "e1") else 200)

    scene = Scene(picky, MemoryStore(["odd=", *names("c", 5)]))
    report = await scene.broadcast(everybody(3))
    ((key, (error, clients)),) = report.outcomes[0].rejected.items()
    assert (key, type(error), clients) == ((1, "refused"), Refused, [Client("odd=")])
    assert scene.got("odd=") == ["e0", "e2"]
    assert scene.store.deleted == []


async def test_waiting_for_a_message_that_turns_out_blocked_ends_the_broadcast() -> None:
    """A client whose last message was blocked while it waited has nothing to wait for any more."""

    def strict(connection_id: str, _message: Message) -> Reply:
        return Reply(503 if connection_id == "late=" else 413)

    scene = Scene(strict, MemoryStore(["late=", *names("c", 20)]))
    report = await scene.broadcast(everybody())
    assert report.outcomes[0].blocked == {0: "too_large"}
    assert scene.took < 4


@pytest.mark.parametrize("bound", [1, 50])
async def test_a_message_that_thousands_refuse_and_nobody_takes_is_posted_to_no_more(bound: int) -> None:
    """After a thousand 400s and no delivery a message is the one at fault; the others go on."""
    posts = Counter[str]()

    def strict(_id: str, message: Message) -> Reply:
        posts[message.event_id] += 1
        return Reply(400 if message.event_id == "e1" else 200, 0.001)

    scene = Scene(strict, MemoryStore(names("c", 3_000)), bound=bound)
    report = await scene.broadcast(everybody(3))
    assert report.outcomes[0].blocked == {1: "refused"}
    assert 1_000 <= posts["e1"] < 1_000 + bound
    assert report.outcomes[0].delivered == [3_000, 0, 3_000]


@pytest.mark.parametrize("bound", [1, 50])
async def test_malformed_ids_at_the_head_of_the_table_keep_no_message_from_the_others(bound: int) -> None:
    """A hundred rows that are no connections answer 400 before anybody is served, and then everybody is."""
    scene = Scene(Failing(400, prefix="bad"), MemoryStore(names("bad", 100) + names("c", 200)), bound=bound)
    report = await scene.broadcast(everybody(2))
    assert report.outcomes[0].delivered == [200, 200]
    assert report.outcomes[0].blocked == {}
    for _, clients in report.outcomes[0].rejected.values():
        assert sorted(clients) == sorted(map(Client, names("bad", 100)))


# ── giving up, and the deadline ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("status", "delay", "posts"), [(500, 0.0, 5), (0, 0.0, 5), (408, 0.0, 3), (200, NEVER, 3)])
async def test_tries_at_a_message(status: int, delay: float, posts: int) -> None:
    """A client gets five tries at a message, and a timeout counts two."""
    scene = Scene(lambda _id, _message: Reply(status, delay, arrives=False))
    report = await scene.broadcast(to("sick=", count=2))
    ((client, error),) = report.outcomes[0].undelivered
    assert client == Client("sick=", None, 0)
    assert isinstance(error, PostError)
    assert error.temporary
    assert scene.transport.posts == {"sick=": posts}


async def test_a_delivery_forgives_the_tries_before_it() -> None:
    """Tries count for one message: a client that needs four at each gets them all."""
    tries = Counter[str]()

    def fourth(_id: str, message: Message) -> Reply:
        tries[message.event_id] += 1
        return Reply(200 if tries[message.event_id] == 5 else 500)

    scene = Scene(fourth)
    report = await scene.broadcast(to("slow=", count=4))
    assert report.outcomes[0].delivered == [1] * 4
    assert tries.total() == 20


async def test_a_client_given_up_half_way_lacks_only_the_rest() -> None:
    """A message it has is not sent again: the undelivered part starts at the first message it lacks."""
    scene = Scene(lambda _id, message: Reply(500 if message.event_id == "e2" else 200))
    report = await scene.broadcast(to("c=", count=4))
    ((client, error),) = report.outcomes[0].undelivered
    assert client.skip == 2
    assert type(error) is ServerError
    assert report.outcomes[0].delivered == [1, 1, 0, 0]


async def test_without_a_queue_tries_end_at_the_deadline_only() -> None:
    """With nowhere to requeue a client it is tried until there is no time left."""
    scene = Scene(Failing(500), retry_until_deadline=True)
    report = await scene.broadcast(to("sick="), seconds=30)
    assert 26 <= scene.took <= 30
    assert len(report.outcomes[0].undelivered) == 1
    assert scene.transport.posts["sick="] > 10


async def test_the_deadline_leaves_the_rest_over_and_the_unread_part() -> None:
    """Taking ends in time, what is in flight is waited for, and the rest is named or the page is."""
    scene = Scene(lambda _id, _message: Reply(200, 0.1), MemoryStore(names("c", 5_000), page_size=700), bound=10)
    report = await scene.broadcast(everybody(), seconds=6)
    outcome = report.outcomes[0]
    left = [left.client.connection_id for left in outcome.undelivered]
    assert outcome.unread
    assert outcome.cursor is not None
    scene.store.page_size = 5_000
    unread = [client.connection_id for client in (await scene.store.read(Shard(), outcome.cursor)).clients]
    assert sorted([*left, *scene.transport.received, *unread]) == sorted(names("c", 5_000))
    assert all(left.error is None for left in outcome.undelivered)
    assert outcome.delivered == [450]
    assert scene.took == pytest.approx(4.5, abs=0.11)


async def test_what_is_in_flight_at_the_deadline_is_cut_and_counts_as_a_try() -> None:
    """A post that may have arrived is undelivered as timed out."""
    scene = Scene(lambda _id, _message: Reply(200, 1.9), MemoryStore(names("c", 6)), bound=3)
    report = await scene.broadcast(everybody(), seconds=2)
    errors = [left.error for left in report.outcomes[0].undelivered]
    assert scene.took == pytest.approx(1.9)
    assert errors == [None, None, None]
    report = await scene.broadcast(everybody(), seconds=1.8)
    errors = [left.error for left in report.outcomes[0].undelivered]
    assert scene.took == pytest.approx(1.8)
    assert Counter(map(type, errors)) == {TimedOut: 3, type(None): 3}


@pytest.mark.parametrize(("delay", "until"), [(0.01, 7.5), (NEVER, 10.0)])
async def test_time_is_kept_back_for_those_who_will_be_undelivered(delay: float, until: float) -> None:
    """The more clients there are to requeue, the earlier a broadcast ends: writing 10,000 down takes time."""
    store = MemoryStore(names("c", 10_000))
    scene = Scene(lambda _id, _message: Reply(500, delay), store, bound=10_000, timeout=30, retry_until_deadline=True)
    report = await scene.broadcast(everybody(), seconds=10)
    assert len(report.outcomes[0].undelivered) == 10_000
    assert until - 0.3 < scene.took < until - 0.05


async def test_time_is_kept_back_for_those_who_refused_a_message() -> None:
    """Their names are to be written into dead letters, and a client that hangs must not use that time up."""

    def strict(connection_id: str, _message: Message) -> Reply:
        if connection_id.startswith("odd"):
            return Reply(400, 1.0)
        return Reply(200, NEVER if connection_id == "hang=" else 0.0)

    rows = ["c=", "hang=", *names("odd", 10_000)]
    scene = Scene(strict, MemoryStore(rows), bound=len(rows), timeout=30, retry_until_deadline=True)
    report = await scene.broadcast(everybody(), seconds=10)
    assert report.outcomes[0].rejections == 10_000
    assert scene.took < 9.85


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05])
async def test_no_time_at_all_leaves_everybody_over(seconds: float) -> None:
    """However little time is left, the report says that nobody was served."""
    scene = Scene(lambda _id, _message: Reply(200, 0.1), MemoryStore(names("c", 5), delay=0.06))
    report = await scene.broadcast(everybody(), to("d="), seconds=seconds)
    assert report.systemic is not None or (report.outcomes[0].unread and len(report.outcomes[1].undelivered) == 1)


def test_a_deadline_that_passed_before_the_first_page_leaves_the_table_unread() -> None:
    """Where getting ready took nearly all the time, the unread table is in the report, not lost."""
    uvloop = pytest.importorskip("uvloop", reason="it runs a timer that is due before what was to run next")

    async def serve() -> Report:
        transport = LateTransport()
        transport.ready_after = 0.08
        scene = Scene(transport=transport, store=MemoryStore(names("c", 3)))
        return await scene.broadcaster.broadcast([everybody()], 0.1)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(serve())
    assert report.systemic is not None or report.outcomes[0].unread


@pytest.mark.parametrize("delay", [0.0, 0.01])
@pytest.mark.parametrize("after", [0.0, 0.005, 0.02, 0.05, 0.105, 0.31, 1.0])
async def test_a_cancelled_broadcast_leaves_nothing_running(after: float, delay: float) -> None:
    """Cancelled at any moment, a broadcast leaves no task, no timer and no post."""

    def mixed(connection_id: str, _message: Message) -> Reply:
        return Reply([200, 500, 410, 429][len(connection_id) % 4], delay)

    rows = [f"{'x' * (number % 7)}{number}" for number in range(300)]
    scene = Scene(mixed, MemoryStore(rows, page_size=40, delay=0.02), bound=5, rate=Rate(500))
    task = asyncio.create_task(scene.broadcaster.broadcast([everybody(3)], 60))
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    posts = scene.transport.posts.total()
    assert not still_running()
    await asyncio.sleep(5)
    assert scene.transport.posts.total() == posts


class OddStore(MemoryStore):
    """Raises what no store should."""

    async def read(self, _shard: Shard, _cursor: Cursor | None) -> Page:
        raise RuntimeError("a bug")


async def test_a_bug_in_the_store_is_raised() -> None:
    """What is no error of ours ends the broadcast as what it is."""
    with pytest.raises(RuntimeError, match="a bug"):
        await Scene(store=OddStore()).broadcaster.broadcast([everybody()], 5)
    assert not still_running()
