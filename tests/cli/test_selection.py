"""Which dead letters a command is about, where a mistake would take another one's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from async_relay.cli import screen
from async_relay.cli.failure import USAGE, CommandError
from async_relay.cli.parsing import Event, Form, ParsedDeadLetter
from async_relay.cli.selection import Selection, check_ids, parse_age, parse_time

NOON = int(datetime(2025, 1, 31, 12, tzinfo=UTC).timestamp() * 1_000)


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata"])
def somewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The operator's own time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("somewhere")
def test_a_time_is_utc_wherever_the_operator_is() -> None:
    """Unless it says otherwise; and times are shown in UTC."""
    for text in ("2025-01-31T12:00", "2025-01-31T12:00Z", "2025-01-31T07:00-05:00"):
        assert parse_time("--since", text, 0) == NOON
    assert screen.clock(NOON) == "2025-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("3d", 259_200_000)]
)
def test_an_age_is_a_number_and_its_unit(text: str, milliseconds: int) -> None:
    """Before now."""
    assert parse_age("--older", text) == milliseconds
    assert parse_time("--since", text, NOON) == NOON - milliseconds


def test_an_id_that_begins_two_messages_means_none() -> None:
    """Before anything is done: two are too many, and three."""
    for count in (2, 3):
        with pytest.raises(CommandError, match=f"{count} messages have an id that starts with 'abcd'") as caught:
            Selection(ids=("abcd",)).check([f"abcd{at}" for at in range(count)])
        assert caught.value.code == USAGE
    Selection(ids=("abcd",)).check(["abcd1", "abce2"])
    with pytest.raises(CommandError, match="too short"):
        check_ids(["abc"])


def letter(name: str, at: int | None, reason: str = "gone", client: str = "a=") -> ParsedDeadLetter:
    return ParsedDeadLetter(
        name, "", at, Form.JOB, reason, events=(Event(event_id=name),), clients=(client,), last_at=at
    )


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), ["old", "mid", "new"]),
        (Selection(limit=2), ["old", "mid"]),
        (Selection(since=20), ["mid", "new"]),
        (Selection(until=20), ["old"]),
        (Selection(since=20, until=30), ["mid"]),
        (Selection(reasons=("gone", "slow")), ["old", "mid", "new"]),
        (Selection(reasons=("slow",)), ["mid"]),
        (Selection(client="b="), ["new"]),
        (Selection(client="b=", reasons=("slow",)), []),
        (Selection(event_id="mid"), ["mid"]),
        (Selection(ids=("new", "old")), ["old", "new"]),
    ],
    ids=repr,
)
def test_what_is_selected_is_the_oldest_first(selection: Selection, expected: list[str]) -> None:
    """``since`` takes its moment in and ``until`` leaves it out; every filter must match."""
    letters = [letter("new", 30, client="b="), letter("old", 10), letter("mid", 20, "slow")]
    assert [each.message_id for each in selection.pick(letters)] == expected
    assert selection.filtered == (selection not in (Selection(), Selection(limit=2), Selection(ids=("new", "old"))))
