"""The picture of the Python client, where the scripted sequences do not reach."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_relay.client.picture import News, Picture, compare


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Seoul")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_a_time_without_a_zone_is_utc_wherever_one_is() -> None:
    """As it is for the JavaScript client."""
    assert compare({"updated_at": "2026-01-01T12:00:00"}, {"updated_at": "2026-01-01T12:00:00.5Z"}) == -1
    assert compare({"updated_at": "2026-01-01T12:00:00.5"}, {"updated_at": "2026-01-01T12:00:00Z"}) == 1


@pytest.mark.parametrize("odd", [None, True, "", "yesterday", "2026-13-01T00:00:00Z", [], {}])
def test_nobody_can_say_when_an_odd_time_is(odd: object) -> None:
    """And whatever came last counts."""
    assert compare({"updated_at": odd}, {"updated_at": 1}) is None
    picture = Picture(9)
    for each in (1, odd):
        assert picture.take({"incident_id": "a", "updated_at": each}) is News.NEWS


@given(st.permutations(range(8)), st.lists(st.integers(0, 7)))
def test_the_newest_state_shows_whatever_order_they_come_in(order: list[int], repeats: list[int]) -> None:
    """And each is news, stale or repeated; the sequences have one digit, or two."""
    picture = Picture(100)
    told = [
        picture.take({"incident_id": "a", "event_id": f"e-{each}", "sequence": str(each + 6)})
        for each in (*order, *repeats)
    ]
    assert picture.incidents["a"]["sequence"] == "13"
    assert told[8:] == [News.REPEATED] * len(repeats)
    assert told[:8].count(News.NEWS) + told[:8].count(News.STALE) == 8


@pytest.mark.parametrize("odd", [["a"], {"a": [1]}, [], 5, 1.5, True])
def test_a_message_may_be_as_odd_as_an_item_is(odd: object) -> None:
    """It is news once, and of an odd sequence nobody can say which is newer."""
    picture = Picture(9)
    message = {"incident_id": odd, "event_id": odd, "sequence": odd}
    assert picture.take(message) is News.NEWS
    assert picture.take({**message, "event_id": "another", "sequence": "7"}) is News.NEWS
    picture.read([{"incident_id": odd, "sequence": odd}])
    assert len(picture.incidents) == 1
