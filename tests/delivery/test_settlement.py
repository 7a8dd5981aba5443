"""Where what was not delivered goes: nothing is dropped, nothing goes two ways."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outcomes import History, Rejection, messages, outcome_of

from async_relay.delivery.report import Undelivered
from async_relay.delivery.settlement import Requeued, RequeuePolicy, Settlement, settle
from async_relay.errors import (
    PostError,
    Refused,
    ServerError,
    StoreUnavailable,
    Throttled,
    TimedOut,
    TooLarge,
)
from async_relay.wire.jobs import Client, Job, Shard

NOW = 1_700_000_000_000
POLICY = RequeuePolicy()
A, B, C = Client("a"), Client("b", 5), Client("c")


STREAM = Job(messages(3), shard=Shard(), first_at=0)
QUEUED = Job(messages(3), (A, B, C), attempt=2, first_at=77, reason="throttled")


def test_what_was_delivered_needs_nothing() -> None:
    """Where everybody got everything there is nothing to do."""
    assert settle(outcome_of(STREAM), POLICY, NOW) == Settlement()


def test_a_client_that_failed_is_requeued_with_the_next_attempt() -> None:
    """Who was tried and failed lacks its messages from there on; they wait in the queue as its next attempt."""
    settled = settle(
        outcome_of(STREAM, undelivered=[Undelivered(Client("b", 5, 1), ServerError("HTTP 500"))]), POLICY, NOW
    )
    job = Job(STREAM.messages[1:], (Client("b", 5, 0),), attempt=1, first_at=NOW, reason="server_error")
    assert settled == Settlement(requeued=(Requeued(job, 5, range(1, 3)),))


def test_a_client_that_was_never_tried_is_requeued_at_once() -> None:
    """Who was never tried waits without delay, and no attempt is counted."""
    first = settle(outcome_of(STREAM, undelivered=[Undelivered(A, None)]), POLICY, NOW)
    assert first == Settlement(requeued=(Requeued(Job(STREAM.messages, (A,), first_at=NOW), 0, range(3)),))
    again = settle(outcome_of(QUEUED, undelivered=[Undelivered(A, None)]), POLICY, NOW)
    assert again == Settlement(requeued=(Requeued(replace(QUEUED, clients=(A,)), 0, range(3)),))


@pytest.mark.parametrize(
    ("attempt", "delay"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 640), (8, 900), (9, 900)]
)
def test_the_delay_doubles_with_each_attempt(attempt: int, delay: int) -> None:
    """The queue's delay starts at the base, doubles and ends at what SQS allows."""
    outcome = outcome_of(replace(QUEUED, attempt=attempt), undelivered=[Undelivered(A, TimedOut())])
    (requeued,) = settle(outcome, replace(POLICY, max_attempts=50), NOW).requeued
    assert (requeued.delay, requeued.job.attempt) == (delay, attempt + 1)
    assert settle(outcome, replace(POLICY, max_attempts=50, backoff_seconds=0), NOW).requeued[0].delay == 0


def test_clients_with_the_same_reason_go_together() -> None:
    """One job a reason, from the first message one of its clients lacks, each skipping what it has."""
    undelivered = [
        Undelivered(Client("a", None, 2), ServerError("HTTP 500")),
        Undelivered(Client("b", 5, 1), Throttled("HTTP 429")),
        Undelivered(Client("c", None, 1), ServerError("HTTP 503")),
        Undelivered(Client("d", None, 0), None),
    ]
    requeued = settle(outcome_of(STREAM, undelivered=undelivered), POLICY, NOW).requeued
    assert [(each.job.reason, each.job.clients, each.positions) for each in requeued] == [
        ("server_error", (Client("a", None, 1), Client("c", None, 0)), range(1, 3)),
        ("throttled", (Client("b", 5, 0),), range(1, 3)),
        ("", (Client("d"),), range(3)),
    ]
    assert [each.job.messages for each in requeued] == [STREAM.messages[1:], STREAM.messages[1:], STREAM.messages]


def test_the_unread_part_of_the_table_goes_on_at_its_cursor() -> None:
    """What was not read is the same job from the cursor on, continued once more, without delay or attempt."""
    cursor = {"connectionId": {"S": "m"}}
    job = replace(STREAM, shard=Shard(1, 8), attempt=2, continuation=3, cursor={"connectionId": {"S": "c"}})
    outcome = replace(outcome_of(job), unread=True, cursor=cursor)
    settled = settle(outcome, POLICY, NOW)
    assert settled == Settlement(
        requeued=(Requeued(replace(job, cursor=cursor, continuation=4, first_at=NOW), 0, range(3)),)
    )
    kept = settle(replace(outcome, job=replace(job, first_at=7)), POLICY, NOW).requeued[0].job.first_at
    assert kept == 7


def test_the_unread_part_of_a_table_that_stopped_answering_waits() -> None:
    """After a page it is requeued for the base delay, whatever the attempt; without one the job goes back."""
    job = replace(STREAM, shard=Shard(1, 8), attempt=2, continuation=3)
    outcome = replace(
        outcome_of(job), unread=True, cursor={"position": 2}, pages=1, failure=StoreUnavailable("throttled")
    )
    (requeued,) = settle(outcome, POLICY, NOW).requeued
    assert (requeued.delay, requeued.job.attempt, requeued.job.continuation, requeued.positions) == (5, 2, 4, range(3))
    assert settle(outcome, replace(POLICY, backoff_seconds=0), NOW).requeued[0].delay == 0
    everything = Settlement(back=frozenset({0, 1, 2}))
    assert settle(replace(outcome, pages=0), POLICY, NOW) == everything


def test_a_client_of_a_shard_is_requeued_by_its_name() -> None:
    """The job of a client from a part of the table has no shard, cursor or continuation."""
    job = replace(STREAM, shard=Shard(1, 8), cursor={"connectionId": {"S": "c"}}, continuation=3)
    (requeued,) = settle(outcome_of(job, undelivered=[Undelivered(A, None)]), POLICY, NOW).requeued
    assert (requeued.job.shard, requeued.job.cursor, requeued.job.continuation) == (None, None, 0)


def test_the_first_time_is_kept() -> None:
    """A job from the queue keeps the time of its first attempt."""
    (requeued,) = settle(outcome_of(QUEUED, undelivered=[Undelivered(A, TimedOut())]), POLICY, NOW).requeued
    assert requeued.job.first_at == 77


def test_after_the_last_attempt_comes_the_dead_letter() -> None:
    """The attempt after ``max_attempts`` is not made: the job is a dead letter with its clients and the last error."""
    undelivered = [Undelivered(Client("b", 5, 1), ServerError("HTTP 502"))]
    sixth = outcome_of(replace(QUEUED, attempt=5), undelivered=undelivered)
    assert [each.job.attempt for each in settle(sixth, POLICY, NOW).requeued] == [6]
    settled = settle(outcome_of(replace(QUEUED, attempt=6), undelivered=undelivered), POLICY, NOW)
    (dead,) = settled.dead_lettered
    assert (settled.requeued, settled.back, dead.positions) == ((), frozenset(), range(1, 3))
    letter = dead.letter
    assert (letter.reason, letter.last_at) == ("attempts_exhausted", NOW)
    assert letter.detail == "given up after 6 attempts from the queue; the last error: HTTP 502"
    assert letter.content == Job(
        QUEUED.messages[1:], (Client("b", 5, 0),), attempt=6, first_at=77, reason="server_error"
    )


def test_a_client_never_tried_is_never_exhausted() -> None:
    """Without an error there is no attempt to count: it is requeued again however often that happened."""
    outcome = outcome_of(replace(QUEUED, attempt=9), undelivered=[Undelivered(A, None)])
    assert [each.job.attempt for each in settle(outcome, POLICY, NOW).requeued] == [9]


def test_a_refused_message_is_a_letter_to_who_refused_it() -> None:
    """A 400 is one letter a message, with all clients that answered it."""
    rejected = [(each, 1, Refused("HTTP 400")) for each in (A, B)]
    settled = settle(outcome_of(STREAM, rejected=rejected), POLICY, NOW)
    (dead,) = settled.dead_lettered
    letter = dead.letter
    assert (settled.requeued, settled.back, dead.positions) == ((), frozenset(), range(1, 2))
    assert (letter.reason, letter.detail, letter.last_at) == ("refused", "2 clients answered HTTP 400", NOW)
    assert (letter.event_id, letter.sequence) == ("e1", "1")
    assert letter.content == Job(STREAM.messages[1:2], (A, B), first_at=NOW, reason="refused")


def test_each_message_and_reason_has_its_letter() -> None:
    """Two messages, or two reasons for one, are different letters."""
    rejected = [
        (A, 0, Refused("HTTP 400")),
        (B, 0, TooLarge("HTTP 413")),
        (A, 1, Refused("HTTP 400")),
    ]
    outcome = replace(outcome_of(STREAM, rejected=rejected), delivered=[1, 1, 3])
    letters = [each.letter for each in settle(outcome, POLICY, NOW).dead_lettered]
    assert [(letter.sequence, letter.reason) for letter in letters] == [
        ("0", "refused"),
        ("0", "too_large"),
        ("1", "refused"),
    ]


def test_a_message_too_large_for_some_is_a_letter_to_them() -> None:
    """A 413 while others took the message is its clients' letter."""
    outcome = replace(outcome_of(STREAM, rejected=[(A, 0, TooLarge("HTTP 413"))]), delivered=[5, 6, 6])
    (dead,) = settle(outcome, POLICY, NOW).dead_lettered
    assert dead.letter.detail == "1 clients answered HTTP 413"
    assert dead.letter.content == Job(STREAM.messages[:1], (A,), first_at=NOW, reason="too_large")


@pytest.mark.parametrize("blocked", [{}, {1: "too_large"}])
def test_a_message_too_large_for_everybody_is_one_letter(blocked: dict[int, str]) -> None:
    """A 413 from everybody is one letter for the message, to the part of the table it was for and no more of it."""
    rejected = [(each, 1, TooLarge("HTTP 413")) for each in (A, B)]
    job = replace(STREAM, shard=Shard(2, 4), cursor={"connectionId": {"S": "c"}}, first_at=9)
    delivered = [7, 1 if blocked else 0, 7]
    outcome = replace(outcome_of(job, rejected=rejected), delivered=delivered, blocked=blocked)
    (dead,) = settle(outcome, POLICY, NOW).dead_lettered
    assert dead.letter.detail == "everybody answered HTTP 413"
    assert dead.letter.content == replace(job, messages=job.messages[1:2], reason="too_large")


def test_a_job_too_large_for_everybody_names_who_was_to_get_it() -> None:
    """From the queue it is a letter to all the job's clients that lack the message and have no way of their own."""
    job = replace(QUEUED, clients=(A, B, C, Client("has", None, 2), Client("later"), Client("odd", None, 1)))
    rejected = [
        (A, 1, TooLarge("HTTP 413")),
        (Client("odd", None, 1), 1, Refused("HTTP 400")),
        (B, 0, Refused("HTTP 400")),
    ]
    undelivered = [Undelivered(Client("c", None, 2), TimedOut()), Undelivered(Client("later", None, 1), TimedOut())]
    outcome = replace(
        outcome_of(job, rejected=rejected, undelivered=undelivered), delivered=[5, 0, 2], blocked={1: "too_large"}
    )
    dead, others, _ = settle(outcome, POLICY, NOW).dead_lettered
    assert isinstance(dead.letter.content, Job)
    assert dead.letter.content.clients == (A, B, C)
    assert dead.letter.content.attempt == 2
    assert isinstance(others.letter.content, Job)
    assert others.letter.content.clients == (Client("odd"),)


def refusals(count: int, error: PostError) -> list[Rejection]:
    return [(Client(f"x{at}"), 0, error) for at in range(count)]


@pytest.mark.parametrize(("delivered", "count", "everybody"), [(0, 9, False), (0, 10, True), (1, 500, False)])
def test_a_message_refused_by_ten_and_taken_by_nobody_is_one_letter(
    delivered: int, count: int, everybody: bool
) -> None:
    """A 400 from ten clients and not one 200 is the message's own; fewer, or beside a 200, are those clients'."""
    outcome = replace(outcome_of(STREAM, rejected=refusals(count, Refused("HTTP 400"))), delivered=[delivered, 9, 9])
    (dead,) = settle(outcome, POLICY, NOW).dead_lettered
    assert isinstance(dead.letter.content, Job)
    assert (dead.letter.content.shard is not None) is everybody
    assert len(dead.letter.content.clients) == (0 if everybody else count)
    assert dead.letter.detail == f"{'everybody' if everybody else f'{count} clients'} answered HTTP 400"


def test_answers_that_differ_are_no_verdict_of_everybody() -> None:
    """Where some say 400 and some 413 each letter names its clients."""
    rejected = [*refusals(12, Refused("HTTP 400")), (A, 0, TooLarge("HTTP 413"))]
    contents = [
        each.letter.content for each in settle(outcome_of(STREAM, rejected=rejected), POLICY, NOW).dead_lettered
    ]
    assert [len(each.clients) for each in contents if isinstance(each, Job)] == [12, 1]


def test_a_job_refused_by_all_its_clients_names_who_was_to_get_it() -> None:
    """From the queue the letter is to the job's clients, each once, those requeued excepted."""
    clients = tuple(Client(f"x{at}") for at in range(12))
    outcome = outcome_of(replace(QUEUED, clients=clients), rejected=refusals(10, Refused("HTTP 400")))
    outcome.undelivered.append(Undelivered(Client("x11"), TimedOut()))
    (dead,) = settle(outcome, POLICY, NOW).dead_lettered
    assert isinstance(dead.letter.content, Job)
    assert dead.letter.content.clients == clients[:11]


# ── every outcome ───────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=100)
@given(st.randoms(use_true_random=False))
def test_positions_name_the_messages_that_are_lost_with_an_entry(random: Random) -> None:
    """If a queue refuses a job or a letter, its positions are those of exactly the messages in it."""
    settled = settle(History(random).outcome, POLICY, NOW)
    requeued = [(each.job, each.positions) for each in settled.requeued]
    letters = [(each.letter.content, each.positions) for each in settled.dead_lettered]
    for content, positions in requeued + letters:
        assert isinstance(content, Job)
        assert [int(message.sequence) for message in content.messages] == list(positions)
