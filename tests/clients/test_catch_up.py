"""What a client missed, and gets from the feed: all of it, in order, once, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from deployment import Context
from door import asking
from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_models import EPOCH, run_virtually, virtual_time, wall_clock

from async_relay.clients.catch_up import NOT_RECOVERED, overlap
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryServices, MemoryStore, MemoryTransport
from async_relay.wire.feed import FeedEntry, position_at, publish
from async_relay.wire.messages import Message

pytestmark = virtual_time

BARE = {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections", "FEED_TABLE": "feed"}
TENANTS = BARE | {"TENANT_ATTRIBUTE": "tenant"}
OLD = (EPOCH - 7_000) * 1000
HOUR = 3600


def at(seconds: float) -> str:
    """The position so many seconds after the epoch."""
    return position_at(int((EPOCH + seconds) * 1000))


def change(number: int, **more: Any) -> dict[str, Any]:
    return {"kind": "incident_update", "incident_id": f"i{number}", "event_id": f"e{number}", **more}


class Past:
    """A sandbox with a feed, and the client ``a=``, whose row has these attributes."""

    def __init__(
        self, environ: dict[str, str] = BARE, *, row: bool = True, page_size: int = 10, **row_has: Any
    ) -> None:
        self.rows, self.posts = MemoryStore(index=False), MemoryTransport()
        if row:
            self.rows.add("a=", **{"createdAt": OLD} | row_has)
        self.services = MemoryServices(self.rows, self.posts)
        self.feed = self.services.published
        self.feed.page_size = page_size
        self.settings = Settings.from_env(environ)
        self.random = Random(1)
        self.sandbox = self.another()

    def another(self) -> Sandbox:
        return Sandbox(self.settings, self.services, wall_clock=wall_clock)

    def put(self, seconds: float, *payloads: dict[str, Any]) -> str:
        """Publish messages then; the position of the last."""
        messages = [Message.encode(each) for each in payloads]
        _, entries = publish(messages, int((EPOCH + seconds) * 1000), self.random)
        for each in entries:
            self.feed.entries[each.bucket, each.position] = each
        return entries[-1].position

    def published(self, since: float) -> list[dict[str, Any]]:
        """Everything behind that moment, in order."""
        entries = sorted(self.feed.entries.values(), key=lambda each: each.position)
        return [each for entry in entries if entry.position > at(since) for each in entry.payloads]

    async def ask(self, body: Any, who: str = "a=", sandbox: Sandbox | None = None) -> Any:
        """The one answer."""
        before = len(self.posts.received[who])
        await (sandbox or self.sandbox).on_request(asking(body, who), Context(60))
        (message,) = self.posts.received[who][before:]
        assert len(message.body) < 128 * 1024
        return json.loads(message.body)

    async def resume(self, position: Any, who: str = "a=", sandbox: Sandbox | None = None) -> Any:
        return await self.ask({"action": "resume", "position": position}, who, sandbox)

    async def replay(self, position: str, who: str = "a=") -> list[Any]:
        """All messages of a replay."""
        answer = await self.resume(position, who)
        found = list(answer["messages"])
        while answer["more"]:
            answer = await self.resume(answer["position"], who)
            found += answer["messages"]
        return found


def ids(messages: Sequence[Any]) -> list[str]:
    return [each["event_id"] for each in messages]


# ── what comes ──────────────────────────────────────────────────────────────────────────────────


async def test_a_client_gets_what_was_published_since() -> None:
    """And what was before, as long as it may have been parked."""
    past = Past()
    parked = overlap(past.settings)
    past.put(-2 * HOUR, change(0))
    position = past.put(-HOUR, change(1))
    past.put(-HOUR - parked - 1, change(2))
    past.put(-HOUR - parked + 1, change(3))
    past.put(-1, change(4), change(5))
    answer = await past.resume(position)
    assert ids(answer["messages"]) == ["e3", "e1", "e4", "e5"]
    assert answer | {"messages": None} == {
        "kind": "replay",
        "messages": None,
        "position": at(0),
        "recovered": True,
        "more": False,
    }
    assert all("position" in each for each in answer["messages"])


async def test_a_client_that_was_there_gets_what_was_being_published_and_no_more() -> None:
    """Nothing of its was parked for an earlier connection, and clocks differ by a minute at most."""
    past = Past()
    for number, seconds in enumerate((-171, -169, -110, -90, -1)):
        past.put(seconds, change(number))
    answer = await past.ask({"action": "resume", "position": at(-100), "parked": False})
    assert ids(answer["messages"]) == ["e1", "e2", "e3", "e4"]
    for odd in (None, 0, "", True, "false"):
        answer = await past.ask({"action": "resume", "position": at(-100), "parked": odd})
        assert ids(answer["messages"]) == ["e0", "e1", "e2", "e3", "e4"], odd


@pytest.mark.parametrize(("age", "begins"), [(30, -171), (200, -271), (590, -661), (610, -171), (None, -171)])
async def test_a_young_client_gets_what_was_being_published_when_it_came(age: float | None, begins: float) -> None:
    """Its pages may have gone past an entry that was still being written, and whose broadcast did not find it."""
    past = Past(createdAt=None if age is None else int((EPOCH - age) * 1000))
    past.put(begins - 1, change(0))
    past.put(begins + 2, change(1))
    answer = await past.ask({"action": "resume", "position": at(-100), "parked": False})
    assert ids(answer["messages"]) == ["e1"]


async def test_a_long_replay_goes_on_as_it_began() -> None:
    past = Past()
    for number in range(40):
        past.put(-90 + number, change(number, text="x" * 20_000))
    past.put(-1_000, change(99))
    answer = await past.ask({"action": "resume", "position": at(-91), "parked": False})
    found = ids(answer["messages"])
    while answer["more"]:
        assert "again" not in answer
        answer = await past.ask({"action": "resume", "position": answer["position"], "parked": False})
        found += ids(answer["messages"])
    assert found == [f"e{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("sweep", "age", "again"),
    [("off", 0, 5), ("off", 4.9, 5), ("off", -1, 5), ("off", 5.1, None), ("off", -9_000, None), ("on", 0, None)],
)
async def test_where_an_index_may_be_late_a_young_client_is_told_to_ask_again(
    sweep: str, age: float, again: int | None
) -> None:
    past = Past(
        BARE | {"CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": sweep},
        createdAt=int((EPOCH - age) * 1000),
    )
    assert (await past.resume(at(-5))).get("again") == again


async def test_an_answer_is_as_young_as_the_look_it_came_from() -> None:
    """A look serves for a second: what was sent since may have gone past a client whose row the index still lacked."""
    past = Past(BARE | {"CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": "off"})
    past.rows.add("new=", createdAt=EPOCH * 1000)
    await asyncio.sleep(4.2)
    await past.resume(at(-5))
    past.put(4.4, change(1))
    await asyncio.sleep(0.9)
    answer = await past.ask({"action": "resume", "position": at(-5)}, "new=")
    assert (answer["messages"], answer["again"]) == ([], 5)
    await asyncio.sleep(5)
    ask = {"action": "resume", "position": answer["position"], "parked": False}
    answer = await past.ask(ask, "new=")
    assert (ids(answer["messages"]), answer.get("again")) == (["e1"], None)


def test_a_message_can_be_parked_for_all_its_attempts() -> None:
    """5 + 10 + ... + 160 s in the queue, seven invocations of a minute, and a minute for clocks."""
    assert overlap(Settings.from_env(BARE)) == 315 + 7 * 60 + 60 + 720
    assert overlap(Settings.from_env(BARE | {"RETRY_BACKOFF_SECONDS": "0", "MAX_DELIVERY_ATTEMPTS": "1"})) == 180 + 720


async def test_an_empty_feed_is_recovered_from() -> None:
    answer = await Past().resume(at(-5))
    assert (answer["recovered"], answer["messages"], answer["more"]) == (True, [], False)


async def test_a_message_published_by_a_clock_that_is_ahead_comes() -> None:
    past = Past()
    past.put(50, change(1))
    assert ids(await past.replay(at(-5))) == ["e1"]


async def test_a_replay_is_cut_into_frames_that_continue_exactly() -> None:
    """1,000 messages of 1 KB, none twice; the last position is a plain one."""
    past = Past(page_size=3)
    for number in range(100):
        past.put(-100 + number / 2, *(change(10 * number + each, text="x" * 1_000) for each in range(10)))
    answer, found, frames = await past.resume(at(-200)), [], 1
    found += answer["messages"]
    while answer["more"]:
        answer = await past.resume(answer["position"])
        found += answer["messages"]
        frames += 1
    assert ids(found) == [f"e{number}" for number in range(1_000)]
    assert 9 <= frames <= 12
    assert answer["position"] == at(0)


async def test_an_event_that_was_published_twice_comes_once() -> None:
    """In one frame, and in two; by whichever sandbox."""
    past = Past()
    past.put(-60, change(1), change(2))
    past.put(-50, change(1), *(change(number, text="x" * 1_000) for number in range(3, 150)))
    past.put(-40, change(2), change(200))
    answer = await past.resume(at(-100))
    found = ids(answer["messages"])
    while answer["more"]:
        answer = await past.resume(answer["position"], sandbox=past.another())
        found += ids(answer["messages"])
    assert found == ["e1", "e2", *(f"e{number}" for number in range(3, 150)), "e200"]


async def test_a_message_that_fills_a_frame_comes_shortened() -> None:
    past = Past()
    past.put(-60, change(1, text="x" * 131_000, status="NEW"), change(2))
    found = await past.replay(at(-70))
    assert ids(found) == ["e1", "e2"]
    assert found[0]["truncated"] is True
    assert found[0]["status"] == "NEW"


@pytest.mark.parametrize("count", [2, 3, 40])
async def test_an_entry_that_nobody_of_ours_wrote_fits_a_frame_all_the_same(count: int) -> None:
    past = Past()
    payloads = tuple(change(number, text="x" * (250_000 // count)) for number in range(count))
    past.feed.entries["0", at(-60)] = FeedEntry("0", at(-60), payloads)
    assert ids(await past.replay(at(-70))) == [f"e{number}" for number in range(count)]


# ── positions ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "position",
    [
        *(
            None,
            5,
            "",
            "x",
            [],
            {},
            True,
            "0" * 13,
            "0" * 15,
            "é" * 14,
            "A" * 14,
            "~" * 14,
            "\ud800",
            "0" * 14,
            "z" * 14,
        ),
        *(at(-5) + end for end in ("\n", ".", ".x", "." + "0" * 24, "." + "z" * 26)),
    ],
)
async def test_a_position_that_is_none_recovers_nothing(position: Any) -> None:
    assert await Past().resume(position) == NOT_RECOVERED


@pytest.mark.parametrize(
    ("seconds", "recovered"),
    [(-24 * HOUR + 5, True), (-24 * HOUR - 5, False), (-100 * HOUR, False), (59, True), (61, False), (HOUR, False)],
)
async def test_a_position_is_good_for_the_hours_of_the_feed(seconds: float, *, recovered: bool) -> None:
    """And for a minute ahead, since clocks differ."""
    past = Past()
    past.put(-24 * HOUR - 10, change(1))
    assert (await past.resume(at(seconds)))["recovered"] is recovered


async def test_a_message_may_not_be_parked_for_longer_than_the_feed_is_kept() -> None:
    """Then nothing is promised, and never a part is given: an hour is kept beyond FEED_HOURS."""
    past = Past(BARE | {"MAX_DELIVERY_ATTEMPTS": "12", "FEED_HOURS": "1"})
    parked = overlap(past.settings)
    assert HOUR < parked < 2 * HOUR
    assert (await past.resume(at(parked - 2 * HOUR - 1))) == NOT_RECOVERED or parked < HOUR
    assert (await past.resume(at(parked - 2 * HOUR + 1)))["recovered"]


async def test_a_continued_replay_is_continued_by_its_connection_alone_and_at_once() -> None:
    """Any other begins before the position again: what came to the feed late went to the connection that was."""
    past = Past()
    past.rows.add("b=", createdAt=OLD)
    for number in range(5):
        past.put(-50 + number, *(change(40 * number + each, text="x" * 1_000) for each in range(40)))
    answer = await past.resume(at(-60))
    first = answer["messages"][0]["event_id"]
    assert answer["more"]
    assert ids((await past.resume(answer["position"]))["messages"])[0] != first
    assert ids((await past.resume(answer["position"], "b="))["messages"])[0] == first
    await asyncio.sleep(61)
    assert ids((await past.resume(answer["position"]))["messages"])[0] == first


async def test_an_entry_that_comes_late_is_in_the_next_look() -> None:
    """Its relay took its time, and read the rows after writing it."""
    past = Past()
    past.put(-2, change(1))
    assert ids(await past.replay(at(-60))) == ["e1"]
    await asyncio.sleep(6)
    past.put(-3, change(0))
    past.put(5, change(2))
    assert ids(await past.replay(at(-60))) == ["e0", "e1", "e2"]


# ── who may have what ───────────────────────────────────────────────────────────────────────────


async def test_a_replay_has_nothing_of_other_tenants() -> None:
    past = Past(TENANTS, tenants=frozenset({"mine"}))
    past.put(-60, change(1, tenant="mine"), change(2, tenant="theirs"), change(3), change(4, tenant=["mine"]))
    past.put(-50, change(5, tenant="theirs"))
    past.rows.add("all=", createdAt=OLD, tenants=frozenset({"*"}))
    past.rows.add("none=", createdAt=OLD)
    past.rows.add("odd=", createdAt=OLD, tenants="mine")
    assert ids(await past.replay(at(-70))) == ["e1"]
    assert ids(await past.replay(at(-70), "all=")) == ["e1", "e2", "e3", "e4", "e5"]
    for who in ("none=", "odd="):
        assert await past.replay(at(-70), who) == []


async def test_no_forged_position_gets_anything_of_another_tenant() -> None:
    """Whatever it says about where its replay began, and to whom it was handed out."""
    past = Past(TENANTS, tenants=frozenset({"mine"}))
    past.rows.add("b=", createdAt=OLD, tenants=frozenset({"theirs"}))
    past.put(-60, *(change(number, tenant="theirs", text="x" * 1_000) for number in range(300)))
    past.put(-30, change(1_000, tenant="mine"))
    handed_out = (await past.resume(at(-70), "b="))["position"]
    assert "." in handed_out
    forged = [handed_out, handed_out[:24] + at(-HOUR)[:9] + handed_out[33:], at(-70) + handed_out[14:]]
    random = Random(7)
    forged += [at(-70) + "." + "".join(random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=25)) for _ in range(50)]
    for position in forged:
        answer = await past.resume(position)
        assert answer == NOT_RECOVERED or {each["tenant"] for each in answer["messages"]} <= {"mine"}


async def test_a_client_without_a_row_replays_nothing_where_rows_decide() -> None:
    past = Past(TENANTS, row=False)
    past.put(-60, change(1, tenant="mine"))
    assert (await past.resume(at(-70)))["kind"] == "error"


async def test_interest_holds_in_a_replay() -> None:
    """Whatever key it names; one nobody can read is for nothing."""
    past = Past(interest='{"severity":["HIGH"]}')
    past.put(-60, change(1, severity="HIGH"), change(2, severity="LOW"), change(3))
    past.rows.add("b=", createdAt=OLD, interest='{"incident_id":["i2"]}')
    past.rows.add("c=", createdAt=OLD, interest="{")
    assert ids(await past.replay(at(-70))) == ["e1", "e3"]
    assert ids(await past.replay(at(-70), "b=")) == ["e2"]
    assert await past.replay(at(-70), "c=") == []


# ── pings ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_pong_says_where_a_quiet_client_is() -> None:
    """A moment ago, so that it is never ahead of what is on its way; and nothing is read for it."""
    past = Past()
    await asyncio.sleep(100)
    assert await past.ask({"action": "ping", "timestamp": 5}) == {"type": "pong", "timestamp": 5, "position": at(90)}
    assert past.feed.reads == 0


async def test_a_client_that_gets_nothing_live_stays_where_it_is() -> None:
    assert await Past(row=False).ask({"type": "ping"}) == {"type": "pong"}


async def test_a_client_that_was_quiet_for_days_can_still_resume() -> None:
    past = Past()
    for _ in range(5):
        await asyncio.sleep(HOUR * 10)
        position = (await past.ask({"type": "ping"}))["position"]
    past.put(5 * 10 * HOUR + 1, change(1))
    await asyncio.sleep(HOUR)
    assert ids(await past.replay(position)) == ["e1"]


# ── what goes wrong ─────────────────────────────────────────────────────────────────────────────


async def test_without_a_feed_nothing_can_be_resumed() -> None:
    past = Past({name: value for name, value in BARE.items() if name != "FEED_TABLE"})
    answer = await past.resume(at(-5))
    assert answer == {"kind": "error", "message": "Nothing can be resumed here: FEED_TABLE is not set."}


@pytest.mark.parametrize("odd", ["NaN", "1e999", r'"\ud800"'])
async def test_an_entry_that_cannot_be_sent_keeps_nobody_from_the_others(
    odd: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody of ours wrote it; the log says where it is, and nothing of what it holds."""
    past = Past()
    past.put(-9, change(1))
    place = at(-8)
    past.feed.entries["0", place] = FeedEntry.decode("0", place, f'[{{"event_id": "secret", "odd": {odd}}}]')
    past.put(-7, change(2))
    assert ids((await past.resume(at(-30)))["messages"]) == ["e1", "e2"]
    assert place in caplog.text
    assert "secret" not in caplog.text


async def test_a_slow_feed_gives_a_page_at_a_time() -> None:
    """A client asks again with what it gets; an answer that reads for longer than there is time never comes."""
    past = Past(interest=json.dumps({"kind": ["none"]}), page_size=1)
    for second in range(-3_000, 0, 20):
        past.put(second, *(change(number, text="x" * 50_000) for number in range(10)))
    past.feed.delay = 3.0
    answer, asked = {"position": at(-1_500), "more": True}, 0
    while answer["more"] and asked < 5:
        before = past.feed.reads
        answer = await past.ask({"action": "resume", "position": answer["position"]})
        asked += 1
        assert answer["recovered"]
        assert past.feed.reads < before + 8


async def test_a_feed_that_is_down_is_an_error_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    past = Past()
    past.feed.down = True
    assert (await past.resume(at(-5)))["kind"] == "error"
    assert "the feed does not answer" in caplog.text
    past.feed.down = False
    assert (await past.resume(at(-5)))["recovered"]


# ── any feed ────────────────────────────────────────────────────────────────────────────────────

MESSAGES = st.builds(
    lambda event, tenant, severity, size: {
        "kind": "incident_update",
        "incident_id": event,
        "event_id": f"e{event}",
        **({"tenant": tenant} if tenant else {}),
        **({"severity": severity} if severity else {}),
        "text": "x" * size,
    },
    st.integers(0, 40),
    st.sampled_from(["mine", "theirs", ""]),
    st.sampled_from(["HIGH", "LOW", ""]),
    st.sampled_from([0, 10, 40_000]),
)
FEEDS = st.lists(st.tuples(st.integers(-3_000, 0), st.lists(MESSAGES, min_size=1, max_size=5)), max_size=30)


@settings(max_examples=60)
@given(
    FEEDS,
    st.integers(1, 5),
    st.integers(-1_500, 0),
    st.sampled_from(['{"severity":["HIGH"]}', "{}"]),
    st.booleans(),
    st.lists(st.booleans()),
)
def test_a_chain_of_replays_is_exactly_what_the_row_may_have(
    batches: list[tuple[int, list[dict[str, Any]]]],
    page_size: int,
    since: int,
    interest: str,
    by_tenant: bool,
    changes_sandbox: list[bool],
) -> None:
    """Any feed, any pages, any position, any sandbox: each event once, at its first place, in order."""

    async def check() -> None:
        past = Past(TENANTS if by_tenant else BARE, page_size=page_size, tenants=frozenset({"mine"}), interest=interest)
        for seconds, payloads in batches:
            past.put(seconds, *payloads)
        expected: dict[str, Any] = {}
        for each in past.published(since - overlap(past.settings)):
            may = not by_tenant or each.get("tenant") == "mine"
            if may and (interest == "{}" or each.get("severity", "HIGH") == "HIGH"):
                expected.setdefault(each["event_id"], each)
        answer = await past.resume(at(since))
        found, changes = list(answer["messages"]), list(changes_sandbox)
        while answer["more"]:
            sandbox = past.another() if changes and changes.pop() else None
            answer = await past.resume(answer["position"], sandbox=sandbox)
            found += answer["messages"]
        assert found == list(expected.values())

    run_virtually(check())


@settings(max_examples=60)
@given(FEEDS, st.integers(1, 5), st.integers(-1_500, 0), st.integers(1_000, 300_000))
def test_a_feed_larger_than_the_copy_leaves_nothing_out(
    batches: list[tuple[int, list[dict[str, Any]]]], page_size: int, since: int, room: int
) -> None:
    """What does not fit is read page by page; there an event may come again where it was published again."""

    async def check() -> None:
        past = Past(page_size=page_size)
        past.sandbox._keeper().feed._room = room  # type: ignore[union-attr]
        for seconds, payloads in batches:
            past.put(seconds, *payloads)
        published = past.published(since - overlap(past.settings))
        found = await past.replay(at(since))
        assert [each["position"] for each in found] == sorted(each["position"] for each in found)
        assert list(dict.fromkeys(ids(found))) == list(dict.fromkeys(ids(published)))
        copy = past.sandbox._keeper().feed
        assert copy is not None
        assert copy.size <= max(room, 0)

    run_virtually(check())
