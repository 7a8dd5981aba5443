"""The heartbeat on the in-memory twins and virtual time: who is pinged, with what, and what becomes of those left."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from lambda_models import EPOCH, still_running, virtual_time, wall_clock

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.heartbeat import FOR_EVERYBODY, Heartbeat, Round
from async_relay.delivery.rate import Rate
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import NEVER, MemoryServices, MemoryStore, MemoryTransport, Reply
from async_relay.wire.feed import SETTLED_SECONDS, is_position, ms_of
from async_relay.wire.jobs import Shard

pytestmark = virtual_time

ENVIRON = {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections"}
QUEUES = {
    "RETRY_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/retry",
    "DEAD_LETTER_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/1/letters",
}


def names(count: int) -> list[str]:
    return [f"c{number}=" for number in range(count)]


class Scene:
    """A heartbeat over the in-memory twins."""

    def __init__(
        self,
        store: MemoryStore,
        transport: MemoryTransport | None = None,
        *,
        posts_per_second: float | None = None,
        parts: int = 8,
        seed: int = 1,
        has_feed: bool = False,
    ) -> None:
        self.store = store
        self.transport = transport or MemoryTransport()
        self.figures: list[Any] = []
        table = Round(store, parts)
        limits, rate = Limits(100, self.transport.timeout), Rate(posts_per_second)
        self.heartbeat = Heartbeat(
            Broadcaster(self.transport, table, limits, rate, Random(seed), wall_clock, FOR_EVERYBODY),
            table,
            wall_clock=wall_clock,
            random=Random(seed),
            has_feed=has_feed,
            emit_metrics=self.figures.append,
        )

    async def beat(self, seconds: float = 60.0) -> None:
        start = asyncio.get_running_loop().time()
        await self.heartbeat.beat(seconds)
        assert asyncio.get_running_loop().time() - start <= seconds + 1e-6
        assert not still_running()

    def pinged(self) -> Counter[str]:
        return +self.transport.arrivals


async def test_everybody_is_pinged_whatever_their_row_says() -> None:
    """Tenants, interest, and what nobody can read of them keep no ping away; nobody gets two."""
    store = MemoryStore(names(500), page_size=7)
    store.add("none=", tenants=frozenset())
    store.add("acme=", tenants=frozenset({"acme"}), interest='{"severity": ["HIGH"], "kind": ["incident_update"]}')
    store.add("odd=", interest="no JSON", tenants=7)
    store.add("forged=", interest='{"type": ["pong"], "timestamp": [1]}')
    scene = Scene(store)
    await scene.beat()
    assert scene.pinged() == Counter(store.rows.keys())


@pytest.mark.parametrize("parts", [1, 2, 64])
@pytest.mark.parametrize("seed", range(5))
async def test_a_round_reads_every_row_once_wherever_it_begins(parts: int, seed: int) -> None:
    """Also of a table with nobody in most of its parts."""
    for count in (0, 1, 90):
        scene = Scene(MemoryStore(names(count), page_size=4), parts=parts, seed=seed)
        await scene.beat()
        assert scene.pinged() == Counter(names(count))


async def test_a_ping_says_when_it_was_made() -> None:
    """Without a feed there is no position."""
    scene = Scene(MemoryStore(["a="]))
    await asyncio.sleep(5)
    await scene.beat()
    [ping] = scene.transport.received["a="]
    assert ping.payload == {"type": "ping", "timestamp": (EPOCH + 5) * 1000}


async def test_a_pings_position_is_settled() -> None:
    """With a feed: of a moment ago, when whatever was published by then is in the feed; the feed is not asked."""
    scene = Scene(MemoryStore(["a="]), has_feed=True)
    await scene.beat()
    [ping] = scene.transport.received["a="]
    assert is_position(ping.payload["position"])
    assert ms_of(ping.payload["position"]) == int((EPOCH - SETTLED_SECONDS) * 1000)


async def test_who_is_gone_is_forgotten_and_who_has_expired_is_closed() -> None:
    """As in any broadcast; an expired client gets no ping."""
    store = MemoryStore(names(50))
    store.add("gone=")
    store.add("late=", expiresAt=EPOCH - 1)
    scene = Scene(store)
    scene.transport.disconnected.add("gone=")
    await scene.beat()
    assert scene.transport.closes == Counter({"late=": 1})
    assert sorted(store.deleted) == ["gone=", "late="]
    assert scene.pinged() == Counter(names(50))
    [figures] = scene.figures
    assert (figures["delivered"], figures["gone"], figures["expired"], figures["systemic"]) == (50, 1, 1, 0)


async def test_a_large_table_is_served_in_several_heartbeats() -> None:
    """Each goes on where the one before stopped: some clients more in each, until everybody was pinged."""
    store = MemoryStore(names(4_000), page_size=130, delay=0.02)
    scene = Scene(store, posts_per_second=150)
    pinged = 0
    for _ in range(8):  # 4,000 at 150 a second, of five seconds each
        await scene.beat(5)
        assert len(scene.pinged()) > pinged
        pinged = len(scene.pinged())
        if pinged == len(store.rows):
            break
        await asyncio.sleep(60)
    assert pinged == 4_000


async def test_nobody_is_starved_by_the_rounds_that_follow() -> None:
    """After many heartbeats, each far too short, no client is more than two rounds behind another."""
    store = MemoryStore(names(1_200), page_size=50)
    scene = Scene(store, posts_per_second=100)
    for _ in range(20):
        await scene.beat(5)
    counts = scene.pinged()
    assert len(counts) == 1_200
    assert max(counts.values()) - min(counts.values()) <= 2


async def test_those_left_over_do_not_pile_up() -> None:
    """Pages larger than what a heartbeat can serve are read only when those before are served."""
    store = MemoryStore(names(6_000), page_size=1_500)
    scene = Scene(store, posts_per_second=20, parts=2)
    most = 0
    for _ in range(45):
        await scene.beat(10)
        most = max(most, len(scene.heartbeat._left))
    assert most <= 1_000 + 2 * 1_500
    assert len(scene.pinged()) == 6_000
    assert max(scene.pinged().values()) <= 2


async def test_new_sandboxes_reach_everybody_as_well() -> None:
    """One that beats only once begins anywhere, and with the next ones no part is left out."""
    store, pinged = MemoryStore(names(3_000), page_size=100), Counter[str]()
    for seed in range(40):
        scene = Scene(store, posts_per_second=100, parts=16, seed=seed)
        await scene.beat(5)
        pinged += scene.pinged()
    assert set(pinged) == set(names(3_000))


async def test_one_who_hangs_keeps_nobody_waiting() -> None:
    """Who was tried in vain is tried again in the next round, and not before."""
    store = MemoryStore(names(300), page_size=10)
    transport = MemoryTransport(lambda name, _message: Reply(200, NEVER if name == "c7=" else 0.01))
    scene = Scene(store, transport)
    await scene.beat(30)
    assert set(scene.pinged()) >= set(names(300)) - {"c7="}
    assert not scene.heartbeat._left


async def test_a_table_that_stops_answering_is_gone_on_with() -> None:
    """What was read is served; the next heartbeat begins where the reading ended."""
    store = MemoryStore(names(400), page_size=10)
    scene = Scene(store)
    store.throttles = lambda: store.reads >= 20
    await scene.beat()
    served = len(scene.pinged())
    assert 0 < served < 400
    store.throttles = lambda: False
    await scene.beat()
    assert set(scene.pinged()) == set(names(400))
    assert sum(scene.pinged().values()) < 2 * 400


@pytest.mark.parametrize("trouble", ["table", "gateway"])
async def test_where_nobody_can_be_pinged_the_log_says_so(trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is raised, since Lambda would only try again; nothing is deleted."""
    store = MemoryStore(names(30))
    scene = Scene(store, MemoryTransport(lambda _name, _message: Reply(403 if trouble == "gateway" else 200)))
    store.down = trouble == "table"
    await scene.beat()
    assert "nobody can be pinged" in caplog.text
    assert (store.deleted, scene.figures[0]["systemic"]) == ([], 1)


async def test_a_round_is_the_table_itself_in_all_else() -> None:
    """Counting, writing and looking up go to the table."""
    store = MemoryStore(["a="])
    table = Round(store)
    assert await table.count(9) == 1
    assert (await table.look_up(["a=", "b="])).keys() == {"a="}
    assert (await table.read(Shard(), None)).cursor is not None
    assert "64 parts" in repr(table)


def sandbox(services: Any, **environ: str) -> Sandbox:
    return Sandbox(Settings.from_env(ENVIRON | QUEUES | environ), services, wall_clock=wall_clock)


async def test_nothing_of_it_is_in_a_queue_or_the_feed() -> None:
    """Whatever becomes of the pings; with tenants on, and the rate of the settings."""
    services = MemoryServices(MemoryStore(names(200)))
    services.posts.script = lambda name, _message: Reply(
        {"c1=": 500, "c2=": 400, "c3=": 429, "c4=": 413}.get(name, 200)
    )
    beating = sandbox(
        services, FEED_TABLE="feed", TENANT_ATTRIBUTE="tenant", MAX_POSTS_PER_SECOND="20", FANOUT_SHARDS="4"
    )
    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 5_000)
    assert await beating.on_heartbeat({"source": "aws.events"}, context) == {"statusCode": 200}
    assert not services.queues
    assert not services.published.entries
    assert services.published.reads == 0
    assert 0 < len(services.posts.arrivals) <= 20 * 5 + 1
    [ping, *_] = next(iter(services.posts.received.values()))
    assert ping.payload.keys() == {"type", "timestamp", "position"}
    for _ in range(4):
        await beating.on_heartbeat({}, context)
    assert len(+services.posts.arrivals) == 196
    await beating.close()


async def test_a_heartbeat_that_cannot_begin_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """The next one is on its way. It is in the log, and in the metric of whom nobody could serve."""
    figures: list[Any] = []

    class Hanging(MemoryServices):
        async def store(self) -> Any:
            await asyncio.sleep(NEVER)

    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 2_000)
    beating = Sandbox(
        Settings.from_env(ENVIRON | QUEUES), Hanging(), wall_clock=wall_clock, emit_metrics=figures.append
    )
    assert await beating.on_heartbeat({}, context) == {"statusCode": 200}
    assert figures == [{"systemic": 1}]
    assert "nobody can be pinged: nothing was open in time" in caplog.text
