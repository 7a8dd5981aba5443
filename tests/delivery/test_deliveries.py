"""From an event to the jobs to serve, and to dead letters for the items nobody can be sent."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from outcomes import messages
from records import incident, record, remediation

from async_relay.delivery.deliveries import Received, dead_letters_of, delivery_of, next_run, read_jobs
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
