"""Who takes part in a broadcast: rows as they are when it is served, tenants, interest, and time that is over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_models import EPOCH, still_running, virtual_time, wall_clock

from async_relay.delivery.admission import Admission, Entry
from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.report import Report
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import ConditionFailed, StoreUnavailable
from async_relay.testing.memory import NEVER, OK, MemoryQueue, MemoryStore, MemoryTransport, Reply
from async_relay.wire.audience import Access, wants
from async_relay.wire.jobs import Client, Cursor, Job, Shard, ShardKind
from async_relay.wire.messages import Message
from async_relay.wire.rows import client_of

pytestmark = virtual_time

HOUR = 3_600
#: Long before and long after any of these tests, in seconds.
PAST, FUTURE = int(EPOCH) - HOUR, int(EPOCH) + 24 * HOUR
TENANTS = Admission(by_tenant=True, needs_row=True)
TOKENS = Admission(needs_row=True)


def message(number: int, **payload: Any) -> Message:
    return Message.encode({"kind": "remediation", "event_id": f"e{number}", "sequence": str(number), **payload})


def of_tenants(*tenants: str | None) -> tuple[Message, ...]:
    return tuple(message(at, **({"tenant": each} if each else {})) for at, each in enumerate(tenants))


def frozen(*tenants: str) -> frozenset[str]:
    return frozenset(tenants)


class Scene:
    """A relay over the doubles, and what its clients got."""

    def __init__(
        self,
        admission: Admission = TOKENS,
        *,
        script: Callable[[str, Message], Reply] = lambda _id, _message: OK,
        bound: int = 100,
        store: MemoryStore | None = None,
        retry: bool = True,
    ) -> None:
        self.store = store or MemoryStore()
        self.transport = MemoryTransport(script)
        self.retry, self.letters = MemoryQueue(), MemoryQueue()
        self.broadcaster = Broadcaster(
            self.transport, self.store, Limits(bound), Rate(), Random(1), wall_clock, admission
        )
        self.relay = Relay(
            self.broadcaster,
            Queues(self.retry if retry else None, self.letters),
            RequeuePolicy(0),
            wall_clock=wall_clock,
        )

    async def broadcast(self, *jobs: Job, seconds: float = 30.0) -> Report:
        report = await self.broadcaster.broadcast(jobs, seconds)
        assert not still_running()
        return report

    async def everybody(self, *messages: Message) -> Report:
        return await self.broadcast(Job(messages, shard=Shard()))

    async def retried(self) -> None:
        """Serve what is in the retry queue, until nothing is."""
        while entries := self.retry.take():
            records = [{"messageId": str(at), "body": entry.body} for at, entry in enumerate(entries)]
            assert await self.relay.on_jobs({"Records": records}, 30) == {"batchItemFailures": []}

    def got(self, connection_id: str) -> list[str]:
        return [each.event_id for each in self.transport.received[connection_id]]


# ── tenants and interest ────────────────────────────────────────────────────────────────────────


async def test_each_client_gets_its_tenants_messages_in_order() -> None:
    """Of one batch; who may have everything gets that, and a row that names no tenant gets nothing at all."""
    scene = Scene(TENANTS)
    scene.store.add("acme=", tenants=frozen("acme"))
    scene.store.add("both=", tenants=frozen("acme", "globex"))
    scene.store.add("all=", tenants=frozen("*"))
    scene.store.add("nobody=", createdAt=1)
    scene.store.add("odd=", tenants="acme")
    report = await scene.everybody(*of_tenants("globex", "acme", None, "globex", "acme"))
    assert {each: scene.got(each) for each in scene.store.rows} == {
        "acme=": ["e1", "e4"],
        "both=": ["e0", "e1", "e3", "e4"],
        "all=": ["e0", "e1", "e2", "e3", "e4"],
        "nobody=": [],
        "odd=": [],
    }
    assert report.outcomes[0].delivered == [2, 3, 1, 2, 3]
    assert not report.outcomes[0].undelivered


async def test_interest_saves_posts_without_tenants_too() -> None:
    """A client that wants nothing of a batch costs no post, and is not left over."""
    scene = Scene(Admission())
    scene.store.add("high=", interest='{"severity":["HIGH"]}')
    scene.store.add("all=")
    report = await scene.everybody(message(0, severity="LOW"), message(1, severity="HIGH"), message(2))
    assert scene.got("high=") == ["e1", "e2"]
    assert scene.got("all=") == ["e0", "e1", "e2"]
    assert report.posts == 5
    assert report.figures()["left_over"] == 0


async def test_who_is_answered_late_still_gets_only_its_own() -> None:
    """After a refusal and after a message refused by all, the lane goes on at the next message that is the client's."""
    refused: set[str] = set()

    def script(name: str, each: Message) -> Reply:
        if each.event_id == "e1":
            return Reply(413)
        if name not in refused:
            refused.add(name)
            return Reply(503)
        return OK

    scene = Scene(TENANTS, script=script)
    scene.store.add(*(f"a{at}=" for at in range(30)), tenants=frozen("acme"))
    await scene.everybody(*of_tenants("acme", "acme", "globex", "acme", "globex"))
    assert all(scene.got(name) == ["e0", "e3"] for name in scene.store.rows)


# ── jobs ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_job_gives_its_clients_what_their_rows_say_now() -> None:
    """A tenant taken away while the job was parked is away; a job says nothing about what a client may have."""
    scene = Scene(TENANTS)
    scene.store.add("a=", "b=", tenants=frozen("acme"))
    scene.store.rows["b="] = {"tenants": frozen("globex")}
    await scene.broadcast(Job(of_tenants("acme", "globex", "acme"), (Client("a=", skip=1), Client("b="))))
    assert scene.got("a=") == ["e2"]
    assert scene.got("b=") == ["e1"]


async def test_a_job_made_by_hand_for_another_tenant_gets_it_nothing() -> None:
    """Whoever can write to the queue can name anybody; the rows decide."""
    scene = Scene(TENANTS)
    scene.store.add("thief=", tenants=frozen("acme"))
    body = {
        "job": 1,
        "attempt": 1,
        "clients": [{"connectionId": "thief=", "tenants": ["*"], "access": {"tenants": ["*"]}, "expires_at": None}],
        "messages": [{"kind": "incident_update", "tenant": "globex"}],
    }
    records = [{"messageId": "1", "body": json.dumps(body)}]
    assert await scene.relay.on_jobs({"Records": records}, 30) == {"batchItemFailures": []}
    assert not scene.transport.posts


@pytest.mark.parametrize(("admission", "served"), [(Admission(), True), (TOKENS, False), (TENANTS, False)])
async def test_a_client_without_a_row_is_served_only_where_rows_say_nothing(
    admission: Admission,
    served: bool,
) -> None:
    """Where a token or a tenant lets clients in, one without a row has left, or was never let in."""
    scene = Scene(admission)
    report = await scene.broadcast(Job(of_tenants("acme"), (Client("a="),)))
    assert scene.got("a=") == (["e0"] if served else [])
    assert not report.outcomes[0].undelivered


async def test_the_same_client_in_two_jobs_is_looked_up_once() -> None:
    """DynamoDB refuses a call that names a row twice."""
    scene = Scene()
    scene.store.add("a=", "b=")
    job = Job((message(0),), (Client("a="), Client("b="), Client("a=")))
    await scene.broadcast(job, job)
    assert scene.got("a=") == ["e0"] * 4
    assert scene.store.looked_up == 2


async def test_many_clients_are_looked_up_a_few_hundred_at_a_time() -> None:
    """All of them, each once."""
    scene = Scene()
    names = [f"{at}=" for at in range(1_001)]
    scene.store.add(*names)
    await scene.broadcast(Job((message(0),), tuple(map(Client, names))))
    assert all(scene.got(name) == ["e0"] for name in names)
    assert scene.store.looked_up == 1_001


class Answers(MemoryStore):
    """A table that answers so many look-ups and no more."""

    def __init__(self, look_ups: int) -> None:
        super().__init__()
        self.look_ups = look_ups

    async def look_up(self, connection_ids: Sequence[str]) -> Any:
        self.look_ups -= 1
        if self.look_ups < 0:
            raise StoreUnavailable("the table is too busy")
        return await super().look_up(connection_ids)


async def test_a_table_that_answers_nothing_sends_the_job_back() -> None:
    """It would be requeued as it is; the queue hides it until the table may be well again."""
    scene = Scene(store=Answers(0))
    scene.store.add("a=")
    body = Job((message(0),), (Client("a="),)).encode()
    shard = Job((message(1),), shard=Shard()).encode()
    records = [{"messageId": "named", "body": body}, {"messageId": "shard", "body": shard}]
    assert await scene.relay.on_jobs({"Records": records}, 30) == {"batchItemFailures": [{"itemIdentifier": "named"}]}
    assert scene.got("a=") == ["e1"]
    assert not scene.retry.entries


async def test_a_table_that_stops_half_way_parks_the_rest() -> None:
    """Those looked up before are served, and nobody twice."""
    names = [f"{at}=" for at in range(900)]
    scene = Scene(store=Answers(1))
    scene.store.add(*names)
    await scene.relay.on_jobs(
        {"Records": [{"messageId": "1", "body": Job((message(0),), tuple(map(Client, names))).encode()}]}, 30
    )
    assert sum(scene.transport.arrivals.values()) == 400
    scene.store.look_ups = 100  # type: ignore[attr-defined]
    await scene.retried()
    assert scene.transport.arrivals == dict.fromkeys(names, 1)


async def test_what_is_not_looked_up_in_time_is_left_over() -> None:
    """Untried, so that it costs no attempt."""
    scene = Scene(store=MemoryStore(["a="], delay=60))
    report = await scene.broadcast(Job((message(0),), (Client("a="),), attempt=3), seconds=5)
    ((client, error),) = report.outcomes[0].undelivered
    assert (client.connection_id, error) == ("a=", None)
    assert not scene.transport.posts


# ── time that is over ───────────────────────────────────────────────────────────────────────────


async def test_a_client_whose_time_is_over_gets_a_delete_and_no_message() -> None:
    """Its row goes with its connection."""
    scene = Scene()
    scene.store.add("late=", expiresAt=PAST)
    scene.store.add("now=", expiresAt=int(wall_clock()))
    scene.store.add("well=", expiresAt=FUTURE)
    report = await scene.everybody(message(0), message(1))
    assert scene.got("late=") == scene.got("now=") == []
    assert scene.got("well=") == ["e0", "e1"]
    assert scene.transport.closes == {"late=": 1, "now=": 1}
    assert sorted(scene.store.rows) == ["well="]
    assert (report.figures()["expired"], report.figures()["unclosed"], report.posts) == (2, 0, 2)
    assert not report.outcomes[0].undelivered


@pytest.mark.parametrize("status", [403, 429, 500, 0, -1])
async def test_a_delete_that_fails_keeps_the_row(status: int) -> None:
    """For the next broadcast to find; it is tried once, and nobody else is slower for it or called systemic for it."""
    scene = Scene()
    scene.store.add(*(f"late{at}=" for at in range(20)), expiresAt=PAST)
    scene.store.add("well=")
    scene.transport.closings = lambda _id: Reply(status)
    report = await scene.everybody(message(0))
    assert report.systemic is None
    assert report.figures()["unclosed"] == 20
    assert len(scene.store.rows) == 21
    assert set(scene.transport.closes.values()) == {1}
    assert scene.got("well=") == ["e0"]
    assert (await scene.everybody(message(1))).figures()["unclosed"] == 20


async def test_a_delete_that_hangs_ends_with_the_time_of_a_post() -> None:
    """It holds a place meanwhile, as any post does, and is not left over."""
    scene = Scene(bound=2)
    scene.store.add("late=", expiresAt=PAST)
    scene.store.add("a=", "b=", "c=")
    scene.transport.closings = lambda _id: Reply(204, NEVER)
    report = await scene.everybody(message(0))
    assert scene.transport.most_in_flight == 2
    assert report.figures()["left_over"] == 0
    assert report.figures()["unclosed"] == 1
    assert sum(scene.transport.arrivals.values()) == 3


async def test_at_the_deadline_no_delete_is_left_over() -> None:
    """Neither one in flight nor one that never began becomes a job."""
    scene = Scene(bound=1)
    scene.store.add(*(f"late{at}=" for at in range(5)), expiresAt=PAST)
    scene.transport.closings = lambda _id: Reply(204, NEVER)
    report = await scene.broadcast(Job((message(0),), shard=Shard()), seconds=2)
    assert not report.outcomes[0].undelivered
    assert report.figures()["unclosed"] == 5


async def test_a_closing_that_finds_nobody_is_done() -> None:
    """410: the client had left; its row goes as any gone client's does, while the endpoint may be another's."""
    scene = Scene()
    scene.store.add(*(f"late{at}=" for at in range(40)), expiresAt=PAST)
    scene.transport.closings = lambda _id: Reply(410)
    await scene.everybody(message(0))
    assert len(scene.store.rows) == 15
    scene.store.add("well=")
    await scene.everybody(message(1))
    assert list(scene.store.rows) == ["well="]


async def test_a_closing_of_a_handshake_under_way_keeps_the_row() -> None:
    """API Gateway answers 410 until the client is connected: the row must be there when its time is looked at again."""
    scene = Scene()
    scene.store.add("young=", expiresAt=PAST, createdAt=int(wall_clock() * 1_000))
    scene.transport.closings = lambda _id: Reply(410)
    assert (await scene.everybody(message(0))).figures()["unclosed"] == 1
    assert list(scene.store.rows) == ["young="]


async def test_an_index_that_is_late_throws_nobody_out() -> None:
    """The row was refreshed a moment ago, and only the table knows: the client is served."""
    store = MemoryStore(lag=30, shards=1)
    store.add("a=", expiresAt=PAST, principal="me", shard=0)
    store.add("b=", expiresAt=PAST, principal="me", shard=0)
    await store.refresh("a=", "me", FUTURE, frozenset())
    scene = Scene(store=store)
    await scene.broadcast(Job((message(0),), shard=Shard(0, 1, ShardKind.PARTITION)))
    assert scene.got("a=") == ["e0"]
    assert scene.transport.closes == {"b=": 1}


async def test_a_client_whose_time_ends_during_the_broadcast_gets_no_more() -> None:
    """Its second message would come after its token's end."""
    scene = Scene(script=lambda _id, _message: Reply(200, 2.5))
    scene.store.add("a=", expiresAt=int(wall_clock()) + 2)
    scene.store.add("well=", expiresAt=FUTURE)
    await scene.everybody(message(0), message(1), message(2))
    assert scene.got("a=") == ["e0"]
    assert scene.transport.closes == {"a=": 1}
    assert scene.got("well=") == ["e0", "e1", "e2"]


async def test_a_token_refreshed_during_the_broadcast_goes_on_where_it_was() -> None:
    """Nothing is repeated and nothing is left out."""
    scene = Scene(script=lambda _id, _message: Reply(200, 2.5))
    scene.store.add("a=", expiresAt=int(wall_clock()) + 4, principal="me")
    asyncio.get_running_loop().call_later(3, lambda: scene.store.write("a=", {"expiresAt": FUTURE, "principal": "me"}))
    await scene.everybody(message(0), message(1), message(2))
    assert scene.got("a=") == ["e0", "e1", "e2"]
    assert not scene.transport.closes


async def test_a_parked_job_neither_saves_nor_loses_a_client() -> None:
    """Parked before a refresh: served. Parked before the end: closed."""
    down = {"on": True}
    scene = Scene(script=lambda _id, _message: Reply(503) if down["on"] else OK)
    scene.store.add("refreshed=", expiresAt=FUTURE - 10)
    scene.store.add("ended=", expiresAt=FUTURE - 10)
    await scene.relay.on_jobs({"Records": [{"messageId": "1", "body": Job((message(0),), shard=Shard()).encode()}]}, 30)
    down["on"] = False
    scene.store.rows["ended="] = {"expiresAt": PAST}
    scene.store.rows["refreshed="] = {"expiresAt": FUTURE}
    await scene.retried()
    assert scene.got("refreshed=") == ["e0"]
    assert scene.got("ended=") == []
    assert scene.transport.closes == {"ended=": 1}


async def test_a_row_that_has_gone_since_its_page_was_read_needs_no_closing() -> None:
    """$disconnect deleted it: the connection is closed."""
    scene = Scene(Admission(), store=MemoryStore(lag=30, shards=1))
    scene.store.add("a=", expiresAt=PAST, shard=0)
    scene.store.write("a=", None)
    await scene.broadcast(Job((message(0),), shard=Shard(0, 1, ShardKind.PARTITION)))
    assert not scene.transport.closes
    assert not scene.transport.posts


async def test_a_table_that_cannot_say_whether_time_is_over_loses_nobody() -> None:
    """The client seemed to be out, and may not be: its message waits in the retry queue."""
    scene = Scene(store=Answers(0))
    scene.store.add("a=", expiresAt=PAST)
    scene.store.add("b=", expiresAt=PAST)
    await scene.relay.on_jobs({"Records": [{"messageId": "1", "body": Job((message(0),), shard=Shard()).encode()}]}, 30)
    assert not scene.transport.closes
    scene.store.rows["a="] = {"expiresAt": FUTURE}
    scene.store.look_ups = 100  # type: ignore[attr-defined]
    await scene.retried()
    assert scene.got("a=") == ["e0"]
    assert scene.transport.closes == {"b=": 1}


async def test_a_connection_that_two_jobs_name_is_closed_once() -> None:
    """The second DELETE would find nobody, and count one more."""
    scene = Scene()
    scene.store.add("late=", expiresAt=PAST)
    job = Job((message(0),), (Client("late="), Client("late=")))
    report = await scene.broadcast(job, job, Job((message(1),), shard=Shard()))
    assert scene.transport.closes == {"late=": 1}
    assert report.figures()["expired"] == 1


async def test_messages_go_before_closings() -> None:
    """However many connections are to be closed, and even if every DELETE hangs, nobody waits for them."""
    scene = Scene(bound=8)
    scene.store.add(*(f"late{at}=" for at in range(200)), expiresAt=PAST)
    scene.store.add(*(f"well{at}=" for at in range(200)))
    served: list[float] = []

    def script(_name: str, _message: Message) -> Reply:
        served.append(asyncio.get_running_loop().time())
        return Reply(200, 0.01)

    scene.transport.script = script
    scene.transport.closings = lambda _id: Reply(204, NEVER)
    start = asyncio.get_running_loop().time()
    report = await scene.broadcast(Job((message(0), message(1)), shard=Shard()), seconds=58)
    assert len(served) == 400
    assert max(served) - start < 1
    assert asyncio.get_running_loop().time() - start < 7
    assert report.figures()["unclosed"] == 200
    assert report.figures()["left_over"] == 0


async def test_connections_that_cannot_be_closed_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """With their number and a reason: a role without the permission would keep expired sockets for ever, in silence."""
    scene = Scene()
    scene.store.add("a=", "b=", expiresAt=PAST)
    scene.transport.closings = lambda _id: Reply(403)
    with caplog.at_level("WARNING", "async_relay"):
        await scene.relay.on_jobs(
            {"Records": [{"messageId": "1", "body": Job((message(0),), shard=Shard()).encode()}]}, 30
        )
    (said,) = [each.getMessage() for each in caplog.records]
    assert said == "2 connections whose time is over could not be closed yet: the last answer was HTTP 403"


async def test_closings_count_in_the_bound() -> None:
    """As many at once as posts may be, and no more."""
    scene = Scene(bound=7)
    scene.store.add(*(f"late{at}=" for at in range(50)), expiresAt=PAST)
    scene.store.add(*(f"well{at}=" for at in range(50)))
    scene.transport.closings = lambda _id: Reply(204, 0.1)
    await scene.everybody(message(0))
    assert scene.transport.most_in_flight == 7
    assert len(scene.transport.closes) == 50


# ── decisions ───────────────────────────────────────────────────────────────────────────────────


def test_a_job_keeps_what_the_row_does_not_know() -> None:
    """How far the client is, and when it came, where its row does not say."""
    rows = {"a=": Client("a=", None, 0, FUTURE, Access(frozen("acme")))}
    entry, client = TENANTS.decide(Client("a=", 5, 3), rows, 0.0)
    assert (entry, client) == (Entry.SERVE, Client("a=", 5, 3, FUTURE, Access(frozen("acme"))))


async def test_only_the_same_principal_refreshes() -> None:
    """The double is as strict as DynamoDB's condition: a row that is gone is not made again."""
    store = MemoryStore()
    store.add("a=", principal="me")
    for connection_id, principal in (("a=", "you"), ("b=", "me")):
        with pytest.raises(ConditionFailed):
            await store.refresh(connection_id, principal, FUTURE, frozenset())
    assert list(store.rows) == ["a="]


# ── all of it together ──────────────────────────────────────────────────────────────────────────

TENANT = st.sampled_from(["acme", "globex", "*", None])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "tenants": st.frozensets(st.sampled_from(["acme", "globex", "*"]), min_size=1, max_size=2),
        "interest": st.sampled_from(['{"status":["NEW"]}', "{}", "odd"]),
        "expiresAt": st.sampled_from([PAST, FUTURE]),
    },
)


@given(
    rows=st.lists(ROW, max_size=6),
    payloads=st.lists(st.tuples(TENANT, st.sampled_from(["NEW", "OLD", None])), min_size=1, max_size=5),
    failures=st.lists(st.sampled_from([200, 200, 503, 500, 0]), max_size=20),
    by_tenant=st.booleans(),
    later=st.lists(ROW, max_size=6),
)
@settings(max_examples=120, deadline=None)
async def test_nobody_gets_what_is_not_theirs_and_nothing_of_theirs_is_missing(
    rows: list[dict[str, Any]],
    payloads: list[tuple[str | None, str | None]],
    failures: list[int],
    by_tenant: bool,
    later: list[dict[str, Any]],
) -> None:
    """Through failures, the retry queue and rows that change between: what arrives is what some state of the row
    allowed, in order, and who could have it all along has it all."""
    answers = iter(failures)
    scene = Scene(Admission(by_tenant=by_tenant, needs_row=True), script=lambda _id, _m: Reply(next(answers, 200)))
    names = [f"c{at}=" for at in range(len(rows))]
    for name, row in zip(names, rows, strict=True):
        scene.store.add(name, **row)
    fields = [{k: v for k, v in (("tenant", tenant), ("status", status)) if v} for tenant, status in payloads]
    messages = [message(at, **each) for at, each in enumerate(fields)]
    await scene.relay.on_jobs(
        {"Records": [{"messageId": "1", "body": Job(tuple(messages), shard=Shard()).encode()}]}, 30
    )
    changed = dict(zip(names, later, strict=False))
    for name, row in changed.items():
        if name in scene.store.rows:
            scene.store.rows[name] = row
    await scene.retried()
    for name, row in zip(names, rows, strict=True):
        states = [row, changed[name]] if name in changed else [row]
        allowed = [_allowed(state, messages, by_tenant=by_tenant) for state in states]
        got = list(dict.fromkeys(scene.got(name)))
        assert got == sorted(got)
        assert set(got) <= set().union(*allowed)
        assert set(got) >= set.intersection(*allowed)


def _allowed(row: dict[str, Any], messages: Sequence[Message], *, by_tenant: bool) -> set[str]:
    if row.get("expiresAt") == PAST:
        return set()
    access = client_of("x=", row).access or Access()
    return {each.event_id for each in messages if wants(access, each.payload, by_tenant=by_tenant)}


async def test_a_cursor_of_a_job_for_everybody_is_untouched_by_looking_up() -> None:
    """Pages go on where they were while rows of the page before are looked up."""
    pages: list[Cursor | None] = []

    class Watched(MemoryStore):
        async def read(self, shard: Shard, cursor: Cursor | None) -> Any:
            pages.append(cursor)
            return await super().read(shard, cursor)

    scene = Scene(store=Watched(page_size=10))
    scene.store.add(*(f"{at}=" for at in range(60)), expiresAt=PAST)
    scene.store.add(*(f"well{at}=" for at in range(60)))
    await scene.everybody(message(0))
    assert len(pages) == len({json.dumps(each) for each in pages}) == 12
    assert sum(scene.transport.arrivals.values()) == 60
