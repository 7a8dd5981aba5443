"""Positions sort as time goes, entries hold what was published, and pages of several buckets leave no holes."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.wire.feed import (
    BUCKETS,
    POSITION_BYTES,
    FeedEntry,
    FeedPage,
    is_position,
    merged,
    ms_of,
    position_at,
    publish,
)
from async_relay.wire.jobs import Job, Shard
from async_relay.wire.messages import MAX_POST_BYTES, Message, compact_json

PROPERTY = settings(deadline=None, max_examples=80)
NOW = 1_700_000_000_123
TIMES = st.integers(0, 36**9 - 2)


def message(number: int, size: int = 0, **more: Any) -> Message:
    payload = {"kind": "incident_update", "event_id": f"e{number}", "sequence": str(number), "note": "x" * size}
    return Message.encode(payload | more)


def without_position(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name != "position"}


# -- positions


@PROPERTY
@given(TIMES, TIMES, st.integers(0, 3_000), st.integers(0, 3_000))
def test_positions_sort_as_time_goes(one: int, other: int, number: int, after: int) -> None:
    """As text: first the time, then the number of the entry, whatever keeps entries of one ms apart."""
    assert (position_at(one, 0, "zzz") < position_at(other)) == (one < other)
    assert (position_at(one, number, "zzz") < position_at(one, after)) == (number < after)


@PROPERTY
@given(TIMES)
def test_a_position_says_when_it_was(ms: int) -> None:
    """To the ms; and it is one that a client may have."""
    assert ms_of(position_at(ms, 7, "abc")) == ms
    assert is_position(position_at(ms, 7, "abc"))


@pytest.mark.parametrize(
    "text", ["", "0" * 13, "0" * 15, "0" * 13 + "A", "0" * 13 + "\n", "\u0660" * 14, None, 5, ["0" * 14]]
)
def test_anything_else_is_no_position(text: Any) -> None:
    """Another length, another letter, another type."""
    assert not is_position(text)


def test_a_time_before_1970_is_the_first_position() -> None:
    """A clock that was never set, or an overlap longer than time itself."""
    assert position_at(-5) == position_at(0) == "0" * 14


# -- publishing

SIZES = st.lists(st.sampled_from([0, 100, 600, 9_000, 29_000, 59_000, 61_000, 130_000]), max_size=40)


@PROPERTY
@given(SIZES, st.integers(0, 2**32))
def test_everything_is_published_once_and_in_order(sizes: list[int], seed: int) -> None:
    """Messages and entries hold the same payloads, each with the position of its entry, and nothing else is new."""
    messages = [message(number, size) for number, size in enumerate(sizes)]
    published, entries = publish(messages, NOW, Random(seed))
    assert [each.payload for each in published] == [payload for entry in entries for payload in entry.payloads]
    assert [without_position(each.payload) for each in published] == [each.payload for each in messages]
    assert [payload["position"] for entry in entries for payload in entry.payloads] == [
        entry.position for entry in entries for _ in entry.payloads
    ]
    assert all(entry.bucket in BUCKETS and ms_of(entry.position) == NOW and entry.payloads for entry in entries)
    assert all(one.position < other.position for one, other in pairwise(entries))
    assert [len(each.body) for each in published] == [len(each.body) + POSITION_BYTES for each in messages]


@PROPERTY
@given(SIZES)
def test_an_entry_has_60_kb_at_most_or_one_message(sizes: list[int]) -> None:
    """And it is filled as far as the next message allows."""
    _, entries = publish([message(number, size) for number, size in enumerate(sizes)], NOW, Random(1))
    encoded = [len(entry.encode().encode()) for entry in entries]
    for entry, size in zip(entries, encoded, strict=True):
        assert size <= 60_001 or len(entry.payloads) == 1
    for (size, _), (_, following) in pairwise(zip(encoded, entries, strict=True)):
        assert size + len(compact_json(following.payloads[0])) > 59_990


def test_positions_count_in_the_size_of_an_entry() -> None:
    """Small messages grow most by them."""
    _, entries = publish([message(number) for number in range(2_000)], NOW, Random(1))
    assert all(len(entry.encode()) <= 60_001 for entry in entries)


@PROPERTY
@given(SIZES)
def test_an_entry_survives_the_table(sizes: list[int]) -> None:
    """What was written is what is read."""
    _, entries = publish(
        [message(number, size, status="größer ✓ 🚨") for number, size in enumerate(sizes)], NOW, Random(1)
    )
    assert [FeedEntry.decode(entry.bucket, entry.position, entry.encode()) for entry in entries] == entries


@pytest.mark.parametrize(
    ("position", "messages"),
    [("x", "[]"), ("0" * 14, "{}"), ("0" * 14, "null"), ("0" * 14, "["), ("0" * 14, "")],
)
def test_what_is_no_entry_is_a_value_error(position: str, messages: str) -> None:
    """A row of somebody else's in the table."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reader names the entry
        FeedEntry.decode("0", position, messages)


@pytest.mark.parametrize("payload", [{}, {"position": 5}, {"a": {"position": "p"}}, {"a": '"position"'}, {"n": 1e300}])
def test_a_published_message_is_the_message_of_its_payload(payload: dict[str, Any]) -> None:
    """Whatever is in it already: its body and digest are those of the payload with the position."""
    ((published,), (entry,)) = publish([Message.encode(payload)], NOW, Random(1))
    assert published == Message.encode({**payload, "position": entry.position})


def test_a_message_keeps_what_it_is_known_by() -> None:
    """Its kind, its record's eventID and SequenceNumber, though the payload has none of them."""
    bare = Message.encode({"note": 1}, event_id="record-1", sequence="42")
    ((published,), _) = publish([bare], NOW, Random(1))
    assert (published.kind, published.event_id, published.sequence) == ("", "record-1", "42")


def test_a_position_of_the_formatters_own_is_replaced() -> None:
    """The feed's is what a client must send back."""
    ((published,), (entry,)) = publish([message(1, position="left of the door")], NOW, Random(1))
    assert published.payload["position"] == entry.position


def test_more_entries_than_a_number_has_room_for_are_a_ms_later() -> None:
    """1,296 entries of one ms, and those behind them still sort behind them."""
    _, entries = publish([message(number, 59_990) for number in range(1_300)], NOW, Random(1))
    assert all(one.position < other.position for one, other in pairwise(entries))
    assert [ms_of(entry.position) - NOW for entry in (entries[0], entries[1_295], entries[1_296])] == [0, 0, 1]


def test_entries_of_one_position_meet_in_one_bucket() -> None:
    """There the second is refused; in two they would both be written, and who reads on behind the first loses one."""
    buckets: dict[str, set[str]] = {}
    # The first entry's number comes again after 1,296, a ms later.
    messages = [message(number, 59_000) for number in range(1_300)]
    for seed in range(3):
        for later in (0, 1):
            for entry in publish(messages, NOW + later, Random(seed))[1]:
                buckets.setdefault(entry.position, set()).add(entry.bucket)
    assert len(buckets) < 6 * len(messages)
    assert all(len(each) == 1 for each in buckets.values())


def test_entries_go_to_all_buckets() -> None:
    """One bucket is one partition of the table, which takes 1 MB a second."""
    _, entries = publish([message(number, 59_990) for number in range(200)], NOW, Random(1))
    assert {entry.bucket for entry in entries} == set(BUCKETS)


def test_nothing_is_published_of_nothing() -> None:
    """No message, no entry."""
    assert publish([], NOW, Random(1)) == ((), [])


def test_a_batch_that_comes_again_has_the_same_deduplication_id() -> None:
    """Its positions are others, and its jobs are the same: a FIFO queue takes them once."""
    messages = (message(1), Message.encode({"n": 2}, event_id="record-2"))
    first, second = (Job(publish(messages, ms, Random(ms))[0], shard=Shard(1, 8)) for ms in (NOW, NOW + 60_000))
    assert first.encode() != second.encode()
    assert first.deduplication_id(0) == second.deduplication_id(0)
    assert first.deduplication_id(0) == Job(messages, shard=Shard(1, 8)).deduplication_id(0)


def test_a_published_job_read_back_is_the_job_it_was() -> None:
    """What a message was before it was published is not in the queue, and makes it no other message."""
    job = Job(publish([message(1), message(2)], NOW, Random(1))[0], shard=Shard(1, 8), first_at=5)
    assert Job.decode(job.encode()) == job


def test_continuations_of_two_publications_are_two_jobs() -> None:
    """What a worker puts back has the position its clients are to get: neither is a repeat of the other."""
    bodies = [Job(publish([message(1)], ms, Random(1))[0], shard=Shard(), continuation=1).encode() for ms in (1, 2)]
    assert len({Job.decode(body).deduplication_id(0) for body in bodies}) == 2


def test_a_message_may_grow_by_its_position_and_no_more() -> None:
    """The room that is kept for a position is what it takes, to the byte."""
    empty = len(message(1).body)
    ((published,), _) = publish([message(1, MAX_POST_BYTES - POSITION_BYTES - empty)], NOW, Random(1))
    assert len(published.body) == MAX_POST_BYTES
    assert not published.oversized


# -- pages


@st.composite
def feeds(draw: st.DrawFn) -> list[FeedEntry]:
    """Entries of any buckets, each at a position of its own."""
    times = draw(st.lists(st.integers(0, 60), unique=True, max_size=40))
    return [FeedEntry(draw(st.sampled_from(BUCKETS)), position_at(ms), ()) for ms in times]


def page_of(
    feed: list[FeedEntry], sizes: dict[str, int], after: str, before: str, *, newest_first: bool, coy: bool
) -> FeedPage:
    """A page as DynamoDB's buckets give it; ``coy``: where a page ends with the last entry, more is said to follow."""
    pages = []
    for bucket in BUCKETS:
        found = sorted(
            (each for each in feed if each.bucket == bucket and after < each.position < before),
            key=lambda each: each.position,
            reverse=newest_first,
        )
        size = sizes[bucket]
        pages.append((found[:size], len(found) >= size if coy else len(found) > size))
    return merged(pages, newest_first=newest_first)


@settings(deadline=None, max_examples=200)
@given(feeds(), st.tuples(*[st.integers(1, 6)] * len(BUCKETS)), st.booleans(), st.booleans())
def test_pages_leave_no_holes(feed: list[FeedEntry], sizes: tuple[int, ...], newest_first: bool, coy: bool) -> None:
    """However many entries of each bucket a page reads: page for page, every entry once and in order."""
    after, before = position_at(0)[:-1], position_at(100)
    read: list[FeedEntry] = []
    for _ in range(100):
        page = page_of(feed, dict(zip(BUCKETS, sizes, strict=True)), after, before, newest_first=newest_first, coy=coy)
        assert page.entries or not page.more, "a page leads nowhere"
        read += page.entries
        if not page.more:
            break
        after, before = (after, read[-1].position) if newest_first else (read[-1].position, before)
    assert read == sorted(feed, key=lambda each: each.position, reverse=newest_first)
