"""What each setting of a sandbox changes, and what stays from one invocation to the next; over doubles in memory."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from deployment import Context, incidents
from lambda_models import EPOCH, virtual_time, wall_clock
from records import event, incident, record

from async_relay.delivery.protocols import ConnectionStore, Transport
from async_relay.errors import SettingsError, StoreUnavailable, Unavailable
from async_relay.http.descriptors import RESERVED
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import NEVER, OK, MemoryServices, MemoryStore, MemoryTransport, Reply
from async_relay.wire.jobs import Client, Job, Shard, ShardKind
from async_relay.wire.messages import Message

pytestmark = virtual_time

NOTHING_BACK: dict[str, list[Any]] = {"batchItemFailures": []}
RETRY = "https://sqs.eu-west-1.amazonaws.com/1/retry"
LETTERS = "https://sqs.eu-west-1.amazonaws.com/1/letters"
FANOUT = "https://sqs.eu-west-1.amazonaws.com/1/fanout.fifo"
QUEUES: dict[str, Any] = {"RETRY_QUEUE_URL": RETRY, "DEAD_LETTER_QUEUE_URL": LETTERS, "FANOUT_QUEUE_URL": FANOUT}
ROUTE = {"requestContext": {"connectionId": "a="}}


def names(count: int) -> list[str]:
    return [f"c{number}=" for number in range(count)]


class Posts(MemoryTransport):
    """Notes when each post was made, and whether it was closed."""

    def __init__(self, script: Callable[[str, Message], Reply] = lambda _id, _message: OK) -> None:
        self.times: list[float] = []
        self.closed = 0
        super().__init__(self._noted)
        self.answers = script

    def _noted(self, connection_id: str, message: Message) -> Reply:
        self.times.append(asyncio.get_running_loop().time())
        return self.answers(connection_id, message)

    async def close(self) -> None:
        self.closed += 1
        await super().close()


class Box:
    """A sandbox of these settings over doubles in memory."""

    def __init__(
        self,
        clients: int = 0,
        script: Callable[[str, Message], Reply] = lambda _id, _message: OK,
        *,
        services: MemoryServices | None = None,
        **environ: Any,
    ) -> None:
        self.posts = Posts(script)
        self.services = services or MemoryServices(MemoryStore(names(clients)))
        self.services.posts = self.posts
        self.rows = self.services.rows
        self.figures: list[Mapping[str, float]] = []
        settings = Settings.from_env(
            {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections", **environ}
        )
        self.sandbox = Sandbox(settings, self.services, wall_clock=wall_clock, emit_metrics=self.figures.append)
        self.took = 0.0

    async def stream(self, *raw: Any, seconds: float = 60.0) -> Any:
        start = asyncio.get_running_loop().time()
        answer = await self.sandbox.on_stream(event(*(raw or incidents(1))), Context(seconds))
        self.took = asyncio.get_running_loop().time() - start
        return answer

    async def jobs(self, *jobs: Job, seconds: float = 60.0) -> Any:
        start = asyncio.get_running_loop().time()
        records = [{"messageId": f"m{at}", "body": job.encode(), "attributes": {}} for at, job in enumerate(jobs)]
        answer = await self.sandbox.on_jobs({"Records": records}, Context(seconds))
        self.took = asyncio.get_running_loop().time() - start
        return answer

    def sent(self, url: str) -> list[tuple[Any, int]]:
        """The bodies in a queue and their delays, which is empty then."""
        return [(json.loads(entry.body), entry.delay) for entry in self.services.queues[url].take()]


def a_job() -> Job:
    message = Message.encode({"kind": "remediation", "event_id": "e", "sequence": "1"})
    return Job((message,), (Client("c0="),))


def fails(_id: str, _message: Message) -> Reply:
    return Reply(500)


async def test_an_invocation_that_cannot_open_its_services_counts_as_systemic() -> None:
    """Records and jobs go back, and the metrics say why nobody gets anything."""
    box = Box(1)
    box.services.transport = unavailable  # type: ignore[method-assign]  # a fault of one
    assert (await box.stream())["batchItemFailures"]
    assert (await box.jobs(a_job()))["batchItemFailures"]
    assert box.figures == [{"systemic": 1}] * 2


async def unavailable() -> Any:
    raise Unavailable("no credentials")


# ── the settings ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("bound", [7, 250])
async def test_so_many_posts_are_in_flight_as_max_concurrency_says(bound: int) -> None:
    """Fewer than by default or more; and the figures say it."""
    box = Box(1_000, lambda _id, _message: Reply(200, 0.05), MAX_CONCURRENCY=str(bound))
    assert await box.stream() == NOTHING_BACK
    assert box.posts.most_in_flight == box.figures[0]["most_in_flight"] == bound


async def test_never_more_posts_are_in_flight_than_there_are_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever MAX_CONCURRENCY says: a process with few descriptors posts to as many at once as it can open."""
    monkeypatch.setattr("resource.getrlimit", lambda _which: (RESERVED + 176, -1))
    box = Box(1_000, lambda _id, _message: Reply(200, 0.05), MAX_CONCURRENCY="800")
    assert await box.stream() == NOTHING_BACK
    assert box.posts.most_in_flight == 176


async def test_no_more_posts_a_second_than_the_ceiling() -> None:
    """The limit holds from the first post on, and the sandbox tells it."""
    box = Box(40, MAX_POSTS_PER_SECOND="10")
    assert await box.stream() == NOTHING_BACK
    assert box.took == pytest.approx(4, abs=0.2)
    assert box.sandbox.rate_limit == 10


@pytest.mark.parametrize(("timeout", "until"), [("0.5", 8.3), ("1", 7.8)])
async def test_posts_are_begun_until_one_post_timeout_before_the_end(timeout: str, until: float) -> None:
    """A short POST_TIMEOUT_SECONDS leaves more of ten seconds for posts: all but it, the queues' and the return's."""
    more: dict[str, Any] = {"MAX_CONCURRENCY": "1", "POST_TIMEOUT_SECONDS": timeout, "RETRY_QUEUE_URL": RETRY}
    box = Box(1_000, lambda _id, _message: Reply(200, 0.05), **more)
    start = asyncio.get_running_loop().time()
    assert await box.stream(seconds=10) == NOTHING_BACK
    assert max(box.posts.times) - start == pytest.approx(until, abs=0.15)


async def test_the_retry_queue_waits_and_gives_up_as_the_settings_say() -> None:
    """RETRY_BACKOFF_SECONDS is the first delay, MAX_DELIVERY_ATTEMPTS the last attempt before the dead letters."""
    box = Box(1, fails, RETRY_BACKOFF_SECONDS="7", MAX_DELIVERY_ATTEMPTS="2", **QUEUES, FANOUT_MODE="direct")
    assert await box.stream() == NOTHING_BACK
    delays = []
    while sent := box.sent(RETRY):
        ((body, delay),) = sent
        delays.append(delay)
        assert await box.jobs(Job.decode(json.dumps(body))) == NOTHING_BACK
    assert delays == [7, 14]
    ((letter, _),) = box.sent(LETTERS)
    assert letter["deadLetter"]["reason"] == "attempts_exhausted"


@pytest.mark.parametrize(("sweep", "kind"), [("on", ShardKind.SEGMENT), ("off", ShardKind.PARTITION)])
async def test_a_batch_is_dispatched_to_the_shards_the_settings_make(sweep: str, kind: ShardKind) -> None:
    """As many as FANOUT_SHARDS, of the index's partitions where every row is sure to be in one."""
    more: dict[str, Any] = {"FANOUT_SHARDS": "3", "CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": sweep}
    box = Box(5, **QUEUES, **more)
    assert await box.stream() == NOTHING_BACK
    jobs = [Job.decode(json.dumps(body)) for body, _ in box.sent(FANOUT)]
    assert [job.shard for job in jobs] == [Shard(at, 3, kind) for at in range(3)]
    assert box.posts.arrivals.total() == 0


@pytest.mark.parametrize(
    ("mode", "clients", "dispatched"),
    [("direct", 60, False), ("fanout", 5, True), ("auto", 59, False), ("auto", 60, True)],
)
async def test_fanout_mode_says_which_batches_are_dispatched(mode: str, clients: int, dispatched: bool) -> None:
    """None, every one, or those of at least FANOUT_AUTO_CLIENTS clients, who are counted in that mode only."""
    counted: list[int] = []

    class Counting(MemoryStore):
        async def count(self, enough: int) -> int:
            counted.append(enough)
            return await super().count(enough)

    box = Box(services=MemoryServices(Counting(names(clients))), **QUEUES, FANOUT_MODE=mode, FANOUT_AUTO_CLIENTS="60")
    assert await box.stream() == NOTHING_BACK
    assert len(box.sent(FANOUT)) == (8 if dispatched else 0)
    assert box.posts.arrivals.total() == (0 if dispatched else clients)
    assert counted == ([60] if mode == "auto" else [])


@pytest.mark.parametrize(("coalesce", "got"), [("off", ["1", "2"]), ("latest", ["2"])])
async def test_coalesce_leaves_the_newest_state(coalesce: str, got: list[str]) -> None:
    """Of two changes of one incident in a batch."""
    box = Box(1, COALESCE=coalesce)
    batch = [record(incident(1), sequence="1"), record(incident(1, status="CLOSED"), sequence="2", name="MODIFY")]
    assert await box.stream(*batch) == NOTHING_BACK
    assert [message.sequence for message in box.posts.received["c0="]] == got


@pytest.mark.parametrize(("most", "posts"), [("1024", 10), ("", 1)])
async def test_frames_are_as_large_as_frame_bytes_says(most: str, posts: int) -> None:
    """For whoever reads arrays, with and without ``COALESCE``; all others get one message a post."""
    batch = [record(incident(at, arn="x" * 250), sequence=str(at)) for at in range(20)]
    for coalesce in ("off", "latest"):
        box = Box(1, COALESCE=coalesce, FRAME_BYTES=most)
        box.rows.add("c1=", frames="array")
        assert await box.stream(*batch) == NOTHING_BACK
        assert (box.posts.arrivals["c1="], box.posts.arrivals["c0="]) == (posts, 20)
        assert box.posts.received["c1="] == box.posts.received["c0="]
        assert (box.figures[0]["delivered"], box.figures[0]["posts"]) == (40, posts + 20)


def shouting(item: Mapping[str, Any], _event_id: str, _sequence: str) -> dict[str, Any]:
    """A formatter of one's own."""
    return {"shout": str(item["incident_id"]).upper()}


async def test_a_formatter_of_ones_own_makes_the_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """MESSAGE_FORMATTER names it."""
    monkeypatch.setattr("records.shouting", shouting, raising=False)
    box = Box(1, MESSAGE_FORMATTER="records:shouting")
    assert await box.stream(record(incident(1))) == NOTHING_BACK
    (message,) = box.posts.received["c0="]
    assert json.loads(message.body)["shout"] == "INC-1"


@pytest.mark.parametrize(("hours", "ttl"), [("1.5", EPOCH + 5_400), ("24", EPOCH + 86_400)])
async def test_a_row_lives_as_long_as_ttl_hours_says(hours: str, ttl: int) -> None:
    """From the time of $connect on, by the sandbox's own clock; $disconnect deletes it."""
    box = Box(TTL_HOURS=hours)
    assert await box.sandbox.on_connect(ROUTE) == {"statusCode": 200}
    row = box.rows.rows["a="]
    assert (row["createdAt"], row["ttl"]) == (EPOCH * 1000, ttl)
    assert await box.sandbox.on_disconnect(ROUTE) == {"statusCode": 200}
    assert not box.rows.rows


@pytest.mark.parametrize("call", [Sandbox.on_connect, Sandbox.on_disconnect])
async def test_no_route_says_200_where_the_table_is_down_or_silent(call: Callable[..., Any]) -> None:
    """A client that API Gateway takes for connected would get nothing: both raise, a silent table's in time."""
    box = Box()
    box.rows.down = True
    with pytest.raises(StoreUnavailable):
        await call(box.sandbox, ROUTE, Context(5))
    box.rows.down, box.rows.delay = False, NEVER
    start = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        await call(box.sandbox, ROUTE, Context(5))
    assert asyncio.get_running_loop().time() - start == pytest.approx(4.8)
    assert not box.rows.rows


# ── the deadline ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seconds", [2.0, 20.0])
async def test_an_answer_comes_a_fifth_of_a_second_before_lambdas_limit(seconds: float) -> None:
    """Clients that hang and queues that hang use up all the time there is, and no more; records and jobs alike."""
    box = Box(30, lambda _id, _message: Reply(200, NEVER), RETRY_QUEUE_URL=RETRY)
    box.services.queues[RETRY].delay = NEVER
    assert (await box.stream(seconds=seconds))["batchItemFailures"]
    assert box.took <= seconds - 0.2 + 1e-6
    assert (await box.jobs(a_job(), seconds=seconds))["batchItemFailures"]
    assert seconds - 0.3 <= box.took <= seconds - 0.2 + 1e-6


class Opening(MemoryServices):
    """A table that takes so long to open, and refuses to as often as it is told to."""

    def __init__(self, rows: MemoryStore, *, seconds: float = 0.0, refusals: int = 0) -> None:
        super().__init__(rows)
        self.seconds = seconds
        self.refusals = refusals
        self.wrong: Exception = StoreUnavailable("the table is being restored")

    async def store(self) -> ConnectionStore:
        await asyncio.sleep(self.seconds)
        if self.refusals:
            self.refusals -= 1
            raise self.wrong
        return await super().store()


async def test_the_time_it_took_to_open_is_no_longer_there_to_serve() -> None:
    """Three seconds of six for the table: everybody who is not served is requeued within the other three."""
    for call in ("stream", "jobs"):
        box = Box(
            script=lambda _id, _message: Reply(200, NEVER),
            services=Opening(MemoryStore(names(30)), seconds=3.0),
            RETRY_QUEUE_URL=RETRY,
        )
        assert await (box.stream(seconds=6) if call == "stream" else box.jobs(a_job(), seconds=6)) == NOTHING_BACK
        assert 3.0 < box.took <= 5.8
        assert box.sent(RETRY)


async def test_where_opening_takes_too_long_there_is_time_left_to_say_so() -> None:
    """Half a second before the deadline, or a quarter of what there is, all is handed back and the log says why."""
    for seconds, least in ((10.0, 0.5), (1.0, 0.2)):
        box = Box(services=Opening(MemoryStore(names(3)), seconds=NEVER))
        assert (await box.jobs(a_job(), seconds=seconds))["batchItemFailures"] == [{"itemIdentifier": "m0"}]
        assert box.took == pytest.approx(seconds - 0.2 - least)


async def test_a_call_by_hand_has_a_minute() -> None:
    """Without a context: nearly all of it is there for a client that is slow to come back."""
    box = Box(1, lambda _id, _message: Reply(500))
    start = asyncio.get_running_loop().time()
    failures = await box.sandbox.on_stream(event(*incidents(1)), None)
    assert failures["batchItemFailures"]
    assert 50 < asyncio.get_running_loop().time() - start < 60


# ── from one invocation to the next ─────────────────────────────────────────────────────────────


class Account:
    """An account's limit: so many posts a second and a burst of half a second's; the others are refused."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self.tokens = per_second / 2
        self.at = 0.0
        self.refusals = 0

    def __call__(self, _id: str, _message: Message) -> Reply:
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.per_second / 2, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens < 1:
            self.refusals += 1
            return Reply(429, 0.01)
        self.tokens -= 1
        return Reply(200, 0.01)


async def test_what_was_learnt_of_the_account_is_kept() -> None:
    """The limit found in one invocation is the next one's first: it is refused far less often."""
    account = Account(200)
    box = Box(1_000, account, RETRY_QUEUE_URL=RETRY)
    assert box.sandbox.rate_limit is None
    assert await box.stream() == NOTHING_BACK
    first, account.refusals = account.refusals, 0
    assert box.sandbox.rate_limit == pytest.approx(200, rel=0.4)
    assert await box.stream() == NOTHING_BACK
    assert account.refusals < first / 2


async def test_one_200_proves_the_endpoint_for_all_invocations() -> None:
    """The rows of gone clients go in the next one, whoever is served there."""
    box = Box(100)
    assert await box.stream() == NOTHING_BACK
    box.posts.answers = lambda _id, _message: Reply(410)
    assert await box.stream() == NOTHING_BACK
    assert not box.rows.rows
    assert [each["unproven"] for each in box.figures] == [0, 0]


async def test_a_table_that_opens_late_and_then_is_down_is_one_row_of_failures() -> None:
    """Each record handed back waits longer than the one before, whatever the reason, until a batch succeeds."""
    services = Opening(MemoryStore(names(3)), refusals=2)
    box = Box(services=services)
    box.rows.down = True
    waits = []
    for _ in range(4):
        assert (await box.stream())["batchItemFailures"]
        waits.append(box.took)
    assert waits == pytest.approx([0.5, 1, 2, 4], abs=0.3)
    box.rows.down = False
    assert await box.stream() == NOTHING_BACK
    assert box.took < 0.1


async def test_a_setting_to_mend_is_slowed_down_too() -> None:
    """It raises each time, and later each time."""
    services = Opening(MemoryStore(), refusals=3)
    services.wrong = SettingsError("CONNECTIONS_INDEX is wrong")
    box, waits = Box(services=services), []
    for _ in range(3):
        start = asyncio.get_running_loop().time()
        with pytest.raises(SettingsError):
            await box.stream()
        waits.append(asyncio.get_running_loop().time() - start)
    assert waits == pytest.approx([0.5, 1, 2])


async def test_the_log_says_why_nothing_could_be_opened(caplog: pytest.LogCaptureFixture) -> None:
    """The service's own sentence, or that it took too long."""
    box = Box(services=Opening(MemoryStore(), refusals=1))
    await box.jobs(a_job())
    box = Box(services=Opening(MemoryStore(), seconds=NEVER))
    await box.jobs(a_job(), seconds=1)
    assert [each.getMessage() for each in caplog.records] == [
        "nobody can be served, all is handed back: the table is being restored",
        "nobody can be served, all is handed back: nothing was open in time",
    ]


async def test_a_young_row_is_young_by_the_sandboxs_clock() -> None:
    """A client that connected just now and answers 410 is requeued with its row; its handshake may be finishing."""
    box = Box(script=lambda _id, _message: Reply(410), RETRY_QUEUE_URL=RETRY)
    assert abs(time.time() - wall_clock()) > 100
    await box.sandbox.on_connect(ROUTE)
    assert await box.stream() == NOTHING_BACK
    assert set(box.rows.rows) == {"a="}
    assert len(box.sent(RETRY)) == 1


async def test_two_sandboxes_wait_at_different_times() -> None:
    """Their random numbers are their own, so that a crowd of them does not try again in step."""
    times = []
    for _ in range(2):
        box = Box(20, fails, RETRY_QUEUE_URL=RETRY)
        start = asyncio.get_running_loop().time()
        await box.stream()
        times.append([round(each - start, 9) for each in box.posts.times])
    assert times[0] != times[1]


async def test_closing_closes_the_sockets_and_forgets_what_was_open() -> None:
    """The transport is closed once, and the next invocation has another one."""
    box = Box(3)
    await box.sandbox.close()
    assert await box.stream() == NOTHING_BACK
    first = box.posts
    await box.sandbox.close()
    assert first.closed == 1
    second: Transport = Posts()
    box.services.posts = box.posts = second  # type: ignore[assignment]
    assert await box.stream() == NOTHING_BACK
    assert (first.arrivals.total(), box.posts.arrivals.total()) == (3, 3)
