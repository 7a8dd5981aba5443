"""The incidents as they are: newest first, page by page, and nothing of anybody else's."""

from __future__ import annotations

import asyncio
import base64
import json
from random import Random
from typing import Any

import pytest
from deployment import Context
from door import asking
from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_models import EPOCH, run_virtually, virtual_time, wall_clock

from async_relay.clients.incident_list import microsecond_of
from async_relay.errors import SettingsError
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryServices, MemoryStore, MemoryTransport
from async_relay.wire.feed import position_at, publish
from async_relay.wire.messages import Message

pytestmark = virtual_time

BARE = {"WS_ENDPOINT": "https://ws.example.com/prod", "CONNECTIONS_TABLE": "connections"}
TABLE = BARE | {"INCIDENT_TABLE": "incidents"}
FEED = BARE | {"FEED_TABLE": "feed"}
BY_TENANT = {"TENANT_ATTRIBUTE": "owner"}
OLD = (EPOCH - 7_000) * 1000
BAD_CURSOR = {"kind": "error", "message": "The cursor is none of ours; ask again without it."}
ASK = {"action": "subscribe"}


def at(seconds: float) -> str:
    return position_at(int((EPOCH + seconds) * 1000))


def item(number: int, **more: Any) -> dict[str, Any]:
    """An item of the incident table; a larger number is newer."""
    return {"incident_id": f"i{number}", "created_at": EPOCH + number, "status": "NEW", "severity": "HIGH", **more}


def reformatted(item: dict[str, Any], _event_id: str, _sequence: str) -> dict[str, Any] | None:
    """A formatter of an owner's, who shows nothing but a name."""
    return {"kind": "order", "name": item["name"]} if "name" in item else None


class Room:
    """A sandbox with the tables it is told of, and the client ``a=`` whose row has these attributes."""

    def __init__(self, environ: dict[str, str], *items: Any, **has: Any) -> None:
        self.rows, self.posts = MemoryStore(index=False), MemoryTransport()
        self.rows.add("a=", **{"createdAt": OLD} | has)
        self.services = MemoryServices(self.rows, self.posts)
        self.table, self.feed = self.services.items, self.services.published
        self.table.items[:] = items
        self.settings = Settings.from_env(environ)
        self.random = Random(1)
        self.sandbox = self.another()

    def another(self) -> Sandbox:
        return Sandbox(self.settings, self.services, wall_clock=wall_clock)

    def put(self, seconds: float, *payloads: dict[str, Any]) -> None:
        """Publish messages then."""
        messages = [Message.encode({"kind": "incident_update", "status": "NEW", **each}) for each in payloads]
        _, entries = publish(messages, int((EPOCH + seconds) * 1000), self.random)
        for each in entries:
            self.feed.entries[each.bucket, each.position] = each

    async def ask(self, who: str = "a=", sandbox: Sandbox | None = None, **fields: Any) -> Any:
        before = len(self.posts.received[who])
        await (sandbox or self.sandbox).on_request(asking(ASK | fields, who), Context(60))
        (message,) = self.posts.received[who][before:]
        assert len(message.body) < 128 * 1024
        return json.loads(message.body)

    async def pages(self, who: str = "a=", **fields: Any) -> list[list[Any]]:
        """All pages, each from whichever sandbox."""
        answer = await self.ask(who, **fields)
        found = [answer["incidents"]]
        while answer["nextCursor"] is not None:
            answer = await self.ask(who, self.another(), cursor=answer["nextCursor"], **fields)
            found.append(answer["incidents"])
        return found


def names(incidents: list[Any]) -> list[str]:
    return [each["incident_id"] for each in incidents]


# ── from the incident table ─────────────────────────────────────────────────────────────────────


async def test_the_newest_incidents_come_first_and_whole() -> None:
    whole = item(2, arn="arn:x", notes={"by": ["me", 1.5]}, action="none", type="x")
    room = Room(TABLE, item(1), whole, item(3, resource="r", sg="s"), {"action": "block", "created_at": EPOCH + 9})
    answer = await room.ask()
    assert answer == {
        "kind": "incident_history",
        "incidents": [item(3, resource="r", sg="s"), whole | {"resource": "arn:x"}, item(1) | {"resource": "-"}],
        "nextCursor": None,
    }


@pytest.mark.parametrize("own", [5, "6f1c0a5e-1111-2222-3333-444444444444"])
async def test_a_sequence_of_the_items_own_is_not_shown(own: Any) -> None:
    """Clients would take it for the Stream's, and every change to come for an older one."""
    assert (await Room(TABLE, item(1, sequence=own)).ask())["incidents"] == [item(1) | {"resource": "-"}]


async def test_whatever_form_a_time_has_it_counts() -> None:
    """Text, seconds, milliseconds; what is none comes last."""
    times = [
        "2023-11-14T22:13:29Z",
        EPOCH + 8,
        (EPOCH + 7) * 1000,
        "2023-11-15T00:13:26+02:00",
        EPOCH + 5.5,
        str(EPOCH + 5),
        "2023-11-14T22:13:24",
        str((EPOCH + 3) * 1000),
        "2023-11-14",
        "1969-12-31",
    ]
    odd = ["", "soon", None, True, [EPOCH], -5, 10**30, "9" * 15, "2023-99-99"]
    items = [{"incident_id": f"t{number}", "created_at": each} for number, each in enumerate(times)]
    items += [{"incident_id": f"o{number}", "created_at": each} for number, each in enumerate(odd)]
    Random(3).shuffle(items)
    found = names((await Room(TABLE, *items, {"incident_id": "none"}).ask())["incidents"])
    assert found[: len(times)] == [f"t{number}" for number in range(len(times))]
    assert set(found[len(times) :]) == {*(f"o{number}" for number in range(len(odd))), "none"}


@given(st.none() | st.booleans() | st.text() | st.integers() | st.floats() | st.lists(st.text()))
def test_no_time_is_too_odd(created_at: Any) -> None:
    assert microsecond_of(created_at) is None or isinstance(microsecond_of(created_at), int)


async def test_two_hundred_items_of_three_kilobytes_fit_frames() -> None:
    """Under 128 KB each, with a cursor, and nothing twice."""
    room = Room(TABLE, *(item(number, text="x" * 3_000) for number in range(200)))
    pages = await room.pages(limit=200)
    assert len(pages) > 4
    assert [name for page in pages for name in names(page)] == [f"i{number}" for number in range(199, -1, -1)]


async def test_an_item_that_fits_no_frame_comes_in_the_messages_form() -> None:
    """And one whose message would fit none either, shortened."""
    room = Room(TABLE, item(1), item(2, text="x" * 200_000), item(3, status="x" * 200_000))
    first, second, third = (await room.ask())["incidents"]
    assert first["truncated"] is True
    assert first["incident_id"] == "i3"
    assert "status" not in first
    assert second["truncated"] is True
    assert (second["incident_id"], second["status"], second["resource"]) == ("i2", "NEW", "-")
    assert third == item(1) | {"resource": "-"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["i5", "i4", "i3", "i2", "i1"]),
        ({"severity": "HIGH"}, ["i5", "i1"]),
        ({"severity": ["HIGH", "LOW"]}, ["i5", "i4", "i2", "i1"]),
        ({"severity": "LOW", "status": "DONE"}, ["i4"]),
        ({"status": "UNKNOWN"}, ["i3"]),
        ({"severity": None, "status": ""}, ["i5", "i4", "i3", "i2", "i1"]),
        ({"severity": "7"}, []),
        ({"limit": 2}, ["i5", "i4"]),
    ],
)
async def test_filters_name_the_values_wanted(fields: dict[str, Any], expected: list[str]) -> None:
    items = [item(1), item(2, severity="LOW"), item(3), item(4, severity="LOW", status="DONE"), item(5)]
    del items[2]["severity"], items[2]["status"]
    assert names((await Room(TABLE, *items).ask(**fields))["incidents"]) == expected


NO_LIMITS: list[Any] = [0, 201, -1, 1.5, "5", True, None, []]
NO_VALUES: list[Any] = [5, {}, [5], ["x"] * 51, "x" * 257, True]


@pytest.mark.parametrize("environ", [TABLE, FEED], ids=["table", "feed"])
@pytest.mark.parametrize(
    "fields",
    [*({"limit": each} for each in NO_LIMITS), *({"severity": each} for each in NO_VALUES), {"status": 5}],
)
async def test_what_makes_no_sense_is_said_in_one_sentence(environ: dict[str, str], fields: dict[str, Any]) -> None:
    answer = await Room(environ, item(1)).ask(**fields)
    assert answer["kind"] == "error"
    assert answer["message"].startswith(f"The {next(iter(fields))} must be")


def written(fields: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).decode().rstrip("=")


UNDATED: list[Any] = [0, None, "", []]
AGES: list[Any] = [True, 2**70, 1.5, None, "1"]
ENDS: list[Any] = [["", "soon"], [1, at(0)], [""], ["", at(0), 1]]
NUMBERS: list[Any] = [-1, True, 1.5, None, 2**70]
FEEDS: list[Any] = [[], ["f"], ["f", "x", 1, at(0)], ["f", at(0), 1, "x"], ["f", at(0), 1, [at(0)]]]


@pytest.mark.parametrize("environ", [TABLE, FEED], ids=["table", "feed"])
@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "é", 5, [], {}, True, "A" * 10_000, "!!!!", "bnVsbA", written({"t": 1}), written("[" * 50)),
        *(written(["t", undated, 1, "x", at(0)]) for undated in UNDATED),
        *(written(["t", True, age, "x", at(0)]) for age in AGES),
        *(written(["t", True, 1, *end]) for end in ENDS),
        *(written(["f", at(0), number, at(0)]) for number in NUMBERS),
        *(written(each) for each in FEEDS),
        *(written(["t", True, 1, "", at(0)]) + "=", written([float("nan")]), "//" + written([1])),
    ],
)
async def test_a_hostile_cursor_is_refused_in_one_sentence(environ: dict[str, str], cursor: Any) -> None:
    assert await Room(environ, item(1)).ask(cursor=cursor) == BAD_CURSOR


async def test_a_cursor_of_the_other_source_is_none() -> None:
    assert await Room(TABLE).ask(cursor=written(["f", at(0), 1, at(0)])) == BAD_CURSOR
    assert await Room(FEED).ask(cursor=written(["t", True, 1, "", at(0)])) == BAD_CURSOR


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 10, 50_000, 140_000])), max_size=30, unique=True),
    st.integers(1, 12),
    st.booleans(),
)
def test_pages_are_the_whole_list_and_nothing_twice(sizes: list[tuple[int, int]], limit: int, dated: bool) -> None:
    """Any items, of one moment or of none, and any limit."""

    async def check() -> None:
        items = [
            {"incident_id": number, "text": "x" * size, "created_at": EPOCH + moment if dated else "soon"}
            for number, (moment, size) in enumerate(sizes)
        ]
        pages = await Room(TABLE, *items).pages(limit=limit)
        found = [each for page in pages for each in page]
        assert sorted(each["incident_id"] for each in found) == list(range(len(items)))
        assert all(len(page) <= limit for page in pages)
        assert [each.get("created_at", 0) for each in found] == sorted(
            (each.get("created_at", 0) for each in found), reverse=True
        )

    run_virtually(check())


async def test_one_read_serves_all_who_ask_within_seconds() -> None:
    """1,000 of them, whenever their rows were written, and those that come a moment later."""
    room = Room(TABLE, *(item(number) for number in range(450)))
    room.rows.add("new=", createdAt=EPOCH * 1000 + 500)
    room.posts.keep = False
    for number in range(1_000):
        await room.sandbox.on_request(asking(ASK, "new=" if number % 2 else "a="), Context(60))
        await asyncio.sleep(0.001)
    room.posts.keep = True
    await asyncio.sleep(3)
    room.table.items.append(item(1_000))
    assert names((await room.ask(limit=1))["incidents"]) == ["i449"]
    assert room.table.reads == 5
    await asyncio.sleep(3)
    assert names((await room.ask(limit=1))["incidents"]) == ["i1000"]
    assert room.table.reads == 10


@pytest.mark.parametrize("delay", [0.0, 2.0])
async def test_a_read_has_an_end(delay: float) -> None:
    """In bytes, and in time; then the list says that there is more."""
    room = Room(TABLE, *(item(number, text="x" * 9_000) for number in range(2_000)))
    room.table.delay = delay
    answer = await room.ask()
    assert answer["complete"] is False
    assert len(answer["incidents"]) > 1
    assert room.table.reads < 12


async def test_the_position_is_from_before_the_read() -> None:
    """And the pages that follow keep that of the first, whenever they were read."""
    room = Room(TABLE | {"FEED_TABLE": "feed"}, item(1), item(2))
    room.table.delay = 2
    answer = await room.ask(limit=1)
    assert answer["position"] == at(0)
    await asyncio.sleep(100)
    assert (await room.ask(limit=1, cursor=answer["nextCursor"]))["position"] == at(0)
    assert (await room.ask(limit=1))["position"] > at(100)
    assert "position" not in await Room(TABLE, item(1)).ask()


async def test_a_client_that_gets_an_older_list_than_its_row_is_told_to_resume() -> None:
    """Nobody else is; and where there is no feed, nobody can."""
    for environ, again in ((TABLE | {"FEED_TABLE": "feed"}, 0), (TABLE, None)):
        room = Room(environ, item(1), item(2))
        assert "again" not in await room.ask()
        await asyncio.sleep(2)
        now = int(wall_clock() * 1000)
        for who, created_at, told in (
            ("new=", now, again),
            ("old=", now - 4_000, None),
            ("odd=", 5, again),
            ("near=", now - 2_500, again),
        ):
            room.rows.add(who, createdAt=created_at)
            answer = await room.ask(who, limit=1)
            assert answer.get("again") == told, who
            assert (await room.ask(who, limit=1, cursor=answer["nextCursor"])).get("again") == told, who
        assert room.table.reads == 1


@pytest.mark.parametrize("environ", [FEED, TABLE | {"FEED_TABLE": "feed"}], ids=["feed", "table"])
async def test_where_an_index_may_be_late_a_young_client_is_told_to_resume_later(environ: dict[str, str]) -> None:
    late = environ | {"CONNECTIONS_INDEX": "by-shard", "CONNECTIONS_INDEX_SWEEP": "off"}
    for environment, age, told in ((late, 3, 5), (late, 6, None), (late | {"CONNECTIONS_INDEX_SWEEP": "on"}, 3, None)):
        room = Room(environment, item(1), createdAt=int((EPOCH - age) * 1000))
        assert (await room.ask()).get("again") == told


async def test_an_item_nobody_can_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    answer = await Room(TABLE, item(1), item(2, text="s3cret\ud800")).ask()
    assert names(answer["incidents"]) == ["i1"]
    assert "1 items of the incident table are left out" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_formatter_of_the_owners_lets_out_no_more_in_history(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(TABLE, item(1, name="x", secret="s"), item(2), item(3, name="y"))
    room = Room(TABLE | {"MESSAGE_FORMATTER": "test_history:reformatted"}, *room.table.items)
    assert (await room.ask())["incidents"] == [{"kind": "order", "name": "y"}, {"kind": "order", "name": "x"}]
    monkeypatch.undo()


async def test_a_table_that_is_down_is_an_error_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(TABLE, item(1))
    room.table.down = True
    assert (await room.ask())["kind"] == "error"
    assert "the incident table does not answer" in caplog.text
    room.table.down = False
    assert names((await room.ask())["incidents"]) == ["i1"]


async def test_without_either_table_there_is_no_history() -> None:
    answer = await Room(BARE).ask()
    assert answer["message"] == "There is no history here: neither INCIDENT_TABLE nor FEED_TABLE is set."


# ── from the feed ───────────────────────────────────────────────────────────────────────────────


async def test_the_feed_gives_the_newest_state_of_each_incident() -> None:
    """The newest change first."""
    room = Room(FEED)
    room.put(-90, {"incident_id": "a"}, {"incident_id": "b"}, {"incident_id": "a", "status": "OPEN"})
    room.put(-80, {"incident_id": "c"}, {"kind": "remediation", "action": "x"}, {"incident_id": ""}, {"status": "x"})
    room.put(-70, {"incident_id": "b", "status": "DONE"})
    answer = await room.ask()
    assert [(each["incident_id"], each["status"]) for each in answer["incidents"]] == [
        ("b", "DONE"),
        ("c", "NEW"),
        ("a", "OPEN"),
    ]
    assert (answer["position"], answer["nextCursor"]) == (at(0), None)
    assert "complete" not in answer


async def test_an_older_state_never_shows_through_a_filter() -> None:
    """Nor through an interest."""
    room = Room(FEED)
    room.put(-90, {"incident_id": "a"}, {"incident_id": "b"})
    room.put(-80, {"incident_id": "a", "status": "DONE"})
    assert names((await room.ask(status="NEW"))["incidents"]) == ["b"]
    room.rows.add("b=", createdAt=OLD, interest='{"status":["NEW"]}')
    assert names((await room.ask("b="))["incidents"]) == ["b"]


async def test_pages_of_the_feed_belong_to_one_moment() -> None:
    """What changes meanwhile is not lost: the client gets the change itself."""
    room = Room(FEED)
    for number in range(5):
        room.put(-90 + number, {"incident_id": f"i{number}"})
    answer = await room.ask(limit=2)
    assert names(answer["incidents"]) == ["i4", "i3"]
    await asyncio.sleep(10)
    room.put(5, {"incident_id": "i0", "status": "DONE"}, {"incident_id": "i9"})
    await asyncio.sleep(10)
    rest = await room.ask(limit=5, cursor=answer["nextCursor"], sandbox=room.another())
    assert [(each["incident_id"], each["status"]) for each in rest["incidents"]] == [
        ("i2", "NEW"),
        ("i1", "NEW"),
        ("i0", "NEW"),
    ]
    assert rest["position"] < at(5)


async def test_nothing_older_than_the_hours_of_the_feed_is_history() -> None:
    room = Room(FEED | {"FEED_HOURS": "1"})
    room.put(-3_700, {"incident_id": "old"})
    room.put(-3_500, {"incident_id": "new"})
    assert names((await room.ask())["incidents"]) == ["new"]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(-5_000, 0),
            st.lists(st.tuples(st.integers(0, 12), st.sampled_from([5, 50_000])), min_size=1, max_size=4),
        ),
        max_size=25,
    ),
    st.integers(1, 5),
    st.integers(1, 10),
)
def test_pages_of_any_feed_have_every_incident_once(batches: list[Any], page_size: int, limit: int) -> None:
    """In its newest state, newest change first."""

    async def check() -> None:
        room = Room(FEED)
        room.feed.page_size = page_size
        for seconds, changes in batches:
            room.put(seconds, *({"incident_id": number, "text": "x" * size} for number, size in changes))
        entries = sorted(room.feed.entries.values(), key=lambda each: each.position)
        newest: dict[int, Any] = {}
        for each in (payload for entry in entries for payload in entry.payloads):
            newest.pop(each["incident_id"], None)
            newest[each["incident_id"]] = each
        found = [each for page in await room.pages(limit=limit) for each in page]
        assert found == list(reversed(newest.values()))

    run_virtually(check())


# ── who may have what ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("environ", [TABLE, FEED], ids=["table", "feed"])
async def test_history_has_nothing_of_other_tenants(environ: dict[str, str]) -> None:
    """Whatever a client filters for, and wherever it says it has come to."""
    owners = ["mine", "theirs", None, ["mine"], 7, "*"]
    items = [item(number, **({} if owner is None else {"owner": owner})) for number, owner in enumerate(owners)]
    room = Room(environ | BY_TENANT, *items, tenants=frozenset({"mine"}))
    for number, owner in enumerate(owners):
        room.put(number - 90, {"incident_id": f"i{number}"} | ({} if owner is None else {"tenant": owner}))
    room.rows.add("theirs=", createdAt=OLD, tenants=frozenset({"theirs", "7"}))
    room.rows.add("all=", createdAt=OLD, tenants=frozenset({"*"}))
    room.rows.add("none=", createdAt=OLD)
    room.rows.add("odd=", createdAt=OLD, tenants="mine", interest="{}")
    assert names((await room.ask())["incidents"]) == ["i0"]
    assert names((await room.ask("theirs="))["incidents"]) == ["i4", "i1"]
    assert len((await room.ask("all="))["incidents"]) == 6
    for who in ("none=", "odd="):
        assert (await room.ask(who))["incidents"] == []
    cursor = (await room.ask("theirs=", limit=1))["nextCursor"]
    forged = [cursor, written(["t", False, -(2**60), "", at(0)]), written(["f", at(50), 5, at(50)])]
    for each in forged:
        for more in ({}, {"status": "NEW"}, {"severity": ["HIGH"]}, {"tenant": "theirs", "tenants": ["*"]}):
            answer = await room.ask(cursor=each, **more)
            assert answer == BAD_CURSOR or set(names(answer["incidents"])) <= {"i0"}


async def test_an_item_cannot_say_itself_whose_it_is() -> None:
    """The attribute named in the settings does, and no other."""
    room = Room(TABLE | BY_TENANT, item(1, tenant="mine", owner="theirs"), tenants=frozenset({"mine"}))
    assert (await room.ask())["incidents"] == []


async def test_a_list_that_is_shared_is_shared_by_everybody_as_they_may() -> None:
    """One read, and each gets its own."""
    room = Room(TABLE | BY_TENANT, *(item(number, owner=f"t{number % 10}") for number in range(100)))
    for number in range(10):
        room.rows.add(f"{number}=", createdAt=OLD, tenants=frozenset({f"t{number}"}))
        answer = await room.ask(f"{number}=")
        assert {each["owner"] for each in answer["incidents"]} == {f"t{number}"}
    assert room.table.reads == 1


@pytest.mark.parametrize("environ", [TABLE, FEED], ids=["table", "feed"])
async def test_interest_holds_in_history(environ: dict[str, str]) -> None:
    room = Room(environ, item(1), item(2, severity="LOW"), interest='{"severity":["HIGH"],"kind":["incident_update"]}')
    room.put(-90, {"incident_id": "i1", "severity": "HIGH"}, {"incident_id": "i2", "severity": "LOW"})
    assert names((await room.ask())["incidents"]) == ["i1"]
    room.rows.add("b=", createdAt=OLD, interest="{")
    assert (await room.ask("b="))["incidents"] == []
    room.rows.add("c=", createdAt=OLD, interest='{"kind":["remediation"]}')
    assert (await room.ask("c="))["incidents"] == []


# ── a wrong index ───────────────────────────────────────────────────────────────────────────────


async def test_a_wrong_index_is_an_error_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """The client cannot mend it, and is told so; every answer after it too."""
    room = Room(TABLE | {"INCIDENT_INDEX": "newest"}, item(1))

    async def wrong() -> Any:
        raise SettingsError("INCIDENT_INDEX is 'newest'; its sort key must be created_at")

    room.services.incidents = wrong  # type: ignore[method-assign]
    for _ in range(2):
        assert (await room.ask())["message"] == "Nobody can answer now; ask again later."
    assert "its sort key must be created_at" in caplog.text
