"""From an event to the jobs to serve, and to dead letters for the items nobody can be sent."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from outcomes import messages
from records import incident, record, remediation

from async_relay.delivery.deliveries import (
    Delivery,
    Received,
    dead_letters_of,
    delivery_of,
    next_run,
    read_jobs,
    stop_behind,
)
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.streams import read_record

NOW = 1_700_000_000_000
CURSOR = {"connectionId": {"S": "m"}}


def stream(*raw: Any) -> list[Any]:
    return [read_record(each) for each in raw]


def test_a_message_keeps_the_item_it_came_with() -> None:
    """Records that give no message, or none that can be posted, leave gaps; each of the latter has a letter."""
    bad = {"eventID": "e", "dynamodb": {"SequenceNumber": "3"}}
    records = stream(
        record({"other": "item"}, sequence="1"),
        record(incident(2), sequence="2"),
        bad,
        record(incident(4, arn="x" * 131_072), sequence="4"),
        record(incident(5), sequence="5"),
    )
    delivery = delivery_of(records, coalesce=False)
    assert delivery is not None
    assert delivery.items == (1, 4)
    assert [message.sequence for message in delivery.job.messages] == ["2", "5"]
    assert delivery.job.shard == Shard()
    letters = dict(dead_letters_of(records, NOW))
    assert {item: letter.reason for item, letter in letters.items()} == {2: "undecodable", 3: "too_large"}


def test_a_job_is_as_old_as_its_oldest_message() -> None:
    """Records without a message, or without a time, do not count."""
    times = {"1": 3, "2": 9, "3": 7, "4": None}
    raws = [record(incident(at) if at > 1 else {"other": 1}, sequence=str(at)) for at in (1, 2, 3, 4)]
    for raw in raws:
        raw["dynamodb"]["ApproximateCreationDateTime"] = times[raw["dynamodb"]["SequenceNumber"]]
    delivery = delivery_of(stream(*raws), coalesce=False)
    assert delivery is not None
    assert delivery.job.written_at == 7_000


def test_a_run_is_as_old_as_its_oldest_job() -> None:
    """Of those that know."""
    jobs = [Job(messages(1), shard=Shard(), written_at=at) for at in (0, 900, 500)]
    run = next_run(deque(Received(item, "g", job) for item, job in enumerate(jobs)))
    assert (len(run.items), run.job.written_at) == (3, 500)


def test_coalescing_leaves_the_newest_state_and_its_item() -> None:
    """Of each incident; remediation logs all stay."""
    records = stream(
        record(incident(1), sequence="1"),
        record(remediation(), sequence="2"),
        record(incident(1), sequence="3"),
    )
    delivery = delivery_of(records, coalesce=True)
    assert delivery is not None
    assert delivery.items == (1, 2)


def test_a_batch_without_messages_is_no_delivery() -> None:
    """There is nothing to read the table for."""
    assert delivery_of(stream(record({"other": "item"})), coalesce=False) is None


def run_of(*jobs: Job) -> list[tuple[tuple[int, ...], int]]:
    """The runs of a group: their items, and how often they were continued."""
    waiting = deque(Received(item, "0", job) for item, job in enumerate(jobs))
    runs = []
    while waiting:
        run = next_run(waiting)
        runs.append((run.items, run.job.continuation))
        assert run.group == "0"
        assert len(run.items) == len(run.job.messages)
    return runs


def test_jobs_of_one_shard_share_a_run() -> None:
    """Their messages are one job's, in order, continued as often as the one continued most."""
    jobs = [Job(messages(count), shard=Shard(0, 2), continuation=count) for count in (2, 3, 1)]
    assert run_of(*jobs) == [((0, 0, 1, 1, 1, 2), 3)]


@pytest.mark.parametrize(
    "other",
    [
        Job(messages(1), shard=Shard(1, 2)),
        Job(messages(1), shard=Shard(0, 2), cursor=CURSOR),
        Job(messages(1), shard=Shard(0, 2), attempt=1),
        Job(messages(1), (Client("c"),)),
    ],
)
def test_a_job_that_needs_another_read_is_a_run_of_its_own(other: Job) -> None:
    """Before such a job and after it."""
    job = Job(messages(1), shard=Shard(0, 2))
    assert run_of(job, other, job) == [((0,), 0), ((1,), 0), ((2,), 0)]


def test_jobs_are_read_by_group() -> None:
    """A standard job is a group of its own, and a body that is no job a dead letter of its item."""
    job = Job(messages(1), shard=Shard())
    bodies = [("a", job.encode()), ("", job.encode()), ("", "not json"), ("a", job.encode()), ("", job.encode())]
    records = [
        {"messageId": f"m{at}", "body": body} | ({"attributes": {"MessageGroupId": group}} if group else {})
        for at, (group, body) in enumerate(bodies)
    ]
    groups, letters = read_jobs(records, NOW)
    found = {name: [(each.item, each.group) for each in waiting] for name, waiting in groups.items()}
    assert found == {"a": [(0, "a"), (3, "a")], "m1": [(1, "")], "m4": [(4, "")]}
    assert [(item, letter.reason, letter.content) for item, letter in letters] == [(2, "unreadable_job", "not json")]


def test_a_letter_names_its_record_and_says_what_is_wrong() -> None:
    """Its ids, its keys and the whole record, so that an operator finds it; if it is large the size and the limit."""
    large = record(incident(4, arn="x" * 131_072), sequence="4")
    bad = record(incident(3), sequence="3") | {"eventName": "UPSERT"}
    (at_bad, undecodable), (at_large, too_large) = dead_letters_of(stream(bad, large), NOW)
    assert (at_bad, at_large) == (0, 1)
    for letter, raw in ((undecodable, bad), (too_large, large)):
        assert (letter.event_id, letter.sequence) == (raw["eventID"], raw["dynamodb"]["SequenceNumber"])
        assert (letter.content, letter.keys, letter.last_at) == (raw, raw["dynamodb"]["Keys"], NOW)
    message = read_record(large).message
    assert message is not None
    assert f"{len(message.body):,} bytes; API Gateway takes 131,072" in too_large.detail


def test_the_log_names_what_is_wrong_and_tells_nothing_of_what_is_in_it(caplog: pytest.LogCaptureFixture) -> None:
    """One line a record or message, with its id; what a record or body holds is for the dead letters alone."""
    bad = record(incident(3, arn="classified"), sequence="3") | {"eventName": "UPSERT"}
    large = record(incident(4, arn="classified" * 20_000), sequence="4")
    assert len(list(dead_letters_of(stream(bad, large), NOW))) == 2
    read_jobs([{"messageId": "m-1", "body": '{"job": "classified"}'}], NOW)
    lines = [each.getMessage() for each in caplog.records]
    for line, name in zip(lines, ("event-3", "event-4", "m-1"), strict=True):
        assert name in line
        assert "classified" not in line


def test_what_is_behind_an_item_that_goes_back_goes_back_too() -> None:
    """Of its group: the jobs before it stay to be served, other groups and standard jobs are left alone."""
    job = Job(messages(1), shard=Shard())
    names = ["a", "b", "a", "a", "b", ""]
    records = [
        {"messageId": f"m{at}", "body": job.encode(), "attributes": {"MessageGroupId": name} if name else {}}
        for at, name in enumerate(names)
    ]
    groups, _ = read_jobs(records, NOW)
    assert stop_behind(groups, records, {5}) == frozenset()
    assert stop_behind(groups, records, {2}) == {3}
    left = {name: [each.item for each in waiting] for name, waiting in groups.items()}
    assert left == {"a": [0], "b": [1, 4], "m5": [5]}
    assert stop_behind(groups, records, {1}) == {4}
    assert "b" not in groups


def test_jobs_to_named_clients_are_each_a_run() -> None:
    """Two that name different clients would otherwise be one job to the first one's."""
    jobs = [Job(messages(1), (Client(each),)) for each in ("c", "d")]
    assert run_of(*jobs) == [((0,), 0), ((1,), 0)]


def test_a_whole_read_is_never_joined_by_a_continuation() -> None:
    """The continuation's clients before its cursor have its messages; nor does a job join a continuation."""
    whole, rest = Job(messages(1), shard=Shard(0, 2)), Job(messages(2), shard=Shard(0, 2), cursor=CURSOR)
    waiting = deque(Received(item, "0", job) for item, job in enumerate((whole, whole, rest, rest, whole)))
    runs = []
    while waiting:
        run = next_run(waiting)
        runs.append((run.items, run.job.cursor))
    assert runs == [((0, 1), None), ((2, 2), CURSOR), ((3, 3), CURSOR), ((4,), None)]


def test_a_group_goes_back_from_the_first_lost_message_on() -> None:
    """In a group nothing overtakes what is lost; elsewhere each item is alone."""
    run = Delivery(Job(messages(4), shard=Shard()), (4, 4, 6, 9), "0")
    assert [run.at_stake(each) for each in ((), (3,), (2, 3), (1,))] == [set(), {9}, {6, 9}, {4, 6, 9}]
    assert Delivery(run.job, run.items).at_stake((0, 1, 2)) == {4, 6}
