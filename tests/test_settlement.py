"""Where what was not delivered goes: nothing is dropped, nothing goes two ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.delivery.report import Outcome, Undelivered
from async_relay.delivery.settlement import Policy, Requeued, Settlement, settle
from async_relay.errors import (
    Forbidden,
    PostError,
    Refused,
    ServerError,
    StoreUnavailable,
    Throttled,
    TimedOut,
    TooLarge,
)
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.messages import Message

NOW = 1_700_000_000_000
BOTH = Policy(retries=True, dead_letters=True)
NO_RETRIES = Policy(retries=False, dead_letters=True)
NO_LETTERS = Policy(retries=True, dead_letters=False)
NEITHER = Policy(retries=False, dead_letters=False)
A, B, C = Client("a"), Client("b", 5), Client("c")


def messages(count: int) -> tuple[Message, ...]:
    return tuple(Message.encode({"incident_id": at, "event_id": f"e{at}", "sequence": str(at)}) for at in range(count))


Rejection = tuple[Client, int, PostError]


def of(job: Job, *, undelivered: list[Undelivered] | None = None, rejected: Iterable[Rejection] = ()) -> Outcome:
    outcome = Outcome(job, [0] * len(job.messages), undelivered=undelivered or [])
    for client, position, error in rejected:
        outcome.reject(client.connection_id, client.created_at, position, error)
    return outcome


STREAM = Job(messages(3), shard=Shard(), first_at=0)
QUEUED = Job(messages(3), (A, B, C), attempt=2, first_at=77, reason="throttled")


@pytest.mark.parametrize("policy", [BOTH, NEITHER])
def test_what_was_delivered_needs_nothing(policy: Policy) -> None:
    """Where everybody got everything there is nothing to do."""
    assert settle(of(STREAM), policy, NOW) == Settlement()


def test_a_client_that_failed_is_parked_with_the_next_attempt() -> None:
    """Who was tried and failed lacks its messages from there on; they wait in the queue as its next attempt."""
    settled = settle(of(STREAM, undelivered=[Undelivered(Client("b", 5, 1), ServerError("HTTP 500"))]), BOTH, NOW)
    job = Job(STREAM.messages[1:], (Client("b", 5, 0),), attempt=1, first_at=NOW, reason="server_error")
    assert settled == Settlement(requeued=(Requeued(job, 5, range(1, 3)),))


def test_a_client_that_was_never_tried_is_parked_at_once() -> None:
    """Who was never tried waits without delay, and no attempt is counted."""
    first = settle(of(STREAM, undelivered=[Undelivered(A, None)]), BOTH, NOW)
    assert first == Settlement(requeued=(Requeued(Job(STREAM.messages, (A,), first_at=NOW), 0, range(3)),))
    again = settle(of(QUEUED, undelivered=[Undelivered(A, None)]), BOTH, NOW)
    assert again == Settlement(requeued=(Requeued(replace(QUEUED, clients=(A,)), 0, range(3)),))


@pytest.mark.parametrize(
    ("attempt", "delay"), [(0, 5), (1, 10), (2, 20), (3, 40), (4, 80), (5, 160), (6, 320), (7, 640), (8, 900), (9, 900)]
)
def test_the_delay_doubles_with_each_attempt(attempt: int, delay: int) -> None:
    """The queue's delay starts at the base, doubles and ends at what SQS allows."""
    outcome = of(replace(QUEUED, attempt=attempt), undelivered=[Undelivered(A, TimedOut())])
    (parked,) = settle(outcome, replace(BOTH, max_attempts=50), NOW).requeued
    assert (parked.delay, parked.job.attempt) == (delay, attempt + 1)
    assert settle(outcome, replace(BOTH, max_attempts=50, backoff_seconds=0), NOW).requeued[0].delay == 0


def test_clients_with_the_same_reason_go_together() -> None:
    """One job a reason, from the first message one of its clients lacks, each skipping what it has."""
    undelivered = [
        Undelivered(Client("a", None, 2), ServerError("HTTP 500")),
        Undelivered(Client("b", 5, 1), Throttled("HTTP 429")),
        Undelivered(Client("c", None, 1), ServerError("HTTP 503")),
        Undelivered(Client("d", None, 0), None),
    ]
    parked = settle(of(STREAM, undelivered=undelivered), BOTH, NOW).requeued
    assert [(each.job.reason, each.job.clients, each.positions) for each in parked] == [
        ("server_error", (Client("a", None, 1), Client("c", None, 0)), range(1, 3)),
        ("throttled", (Client("b", 5, 0),), range(1, 3)),
        ("", (Client("d"),), range(3)),
    ]
    assert [each.job.messages for each in parked] == [STREAM.messages[1:], STREAM.messages[1:], STREAM.messages]


def test_the_unread_part_of_the_table_goes_on_at_its_cursor() -> None:
    """What was not read is the same job from the cursor on, continued once more, without delay or attempt."""
    cursor = {"connectionId": {"S": "m"}}
    job = replace(STREAM, shard=Shard(1, 8), attempt=2, continuation=3, cursor={"connectionId": {"S": "c"}})
    outcome = replace(of(job), unread=True, cursor=cursor)
    settled = settle(outcome, BOTH, NOW)
    assert settled == Settlement(
        requeued=(Requeued(replace(job, cursor=cursor, continuation=4, first_at=NOW), 0, range(3)),)
    )
    kept = settle(replace(outcome, job=replace(job, first_at=7)), BOTH, NOW).requeued[0].job.first_at
    assert kept == 7
    assert settle(outcome, NO_RETRIES, NOW) == Settlement(back=frozenset({0, 1, 2}))


def test_the_unread_part_of_a_table_that_stopped_answering_waits() -> None:
    """After a page it is parked for the base delay, whatever the attempt; without one the job goes back."""
    job = replace(STREAM, shard=Shard(1, 8), attempt=2, continuation=3)
    outcome = replace(of(job), unread=True, cursor={"position": 2}, pages=1, failure=StoreUnavailable("throttled"))
    (parked,) = settle(outcome, BOTH, NOW).requeued
    assert (parked.delay, parked.job.attempt, parked.job.continuation, parked.positions) == (5, 2, 4, range(3))
    assert settle(outcome, replace(BOTH, backoff_seconds=0), NOW).requeued[0].delay == 0
    everything = Settlement(back=frozenset({0, 1, 2}))
    assert settle(replace(outcome, pages=0), BOTH, NOW) == settle(outcome, NO_RETRIES, NOW) == everything


def test_a_client_of_a_shard_is_parked_by_its_name() -> None:
    """A leftover of a part of the table no longer has to do with shard, cursor and hops."""
    job = replace(STREAM, shard=Shard(1, 8), cursor={"connectionId": {"S": "c"}}, continuation=3)
    (parked,) = settle(of(job, undelivered=[Undelivered(A, None)]), BOTH, NOW).requeued
    assert (parked.job.shard, parked.job.cursor, parked.job.continuation) == (None, None, 0)


def test_the_first_time_is_kept() -> None:
    """A job from the queue keeps the time of its first attempt."""
    (parked,) = settle(of(QUEUED, undelivered=[Undelivered(A, TimedOut())]), BOTH, NOW).requeued
    assert parked.job.first_at == 77


def test_after_the_last_attempt_comes_the_dead_letter() -> None:
    """The attempt after ``max_attempts`` is not made: the job is buried with its clients and the last error."""
    undelivered = [Undelivered(Client("b", 5, 1), ServerError("HTTP 502"))]
    sixth = of(replace(QUEUED, attempt=5), undelivered=undelivered)
    assert [each.job.attempt for each in settle(sixth, BOTH, NOW).requeued] == [6]
    settled = settle(of(replace(QUEUED, attempt=6), undelivered=undelivered), BOTH, NOW)
    (buried,) = settled.dead_lettered
    assert (settled.requeued, settled.back, buried.positions) == ((), frozenset(), range(1, 3))
    letter = buried.letter
    assert (letter.reason, letter.last_at) == ("attempts_exhausted", NOW)
    assert letter.detail == "given up after 6 attempts from the queue; the last error: HTTP 502"
    assert letter.content == Job(
        QUEUED.messages[1:], (Client("b", 5, 0),), attempt=6, first_at=77, reason="server_error"
    )


def test_an_exhausted_job_without_dead_letters_goes_back() -> None:
    """With nowhere to bury it, an exhausted job is handed back; it is not parked for ever."""
    outcome = of(replace(QUEUED, attempt=6), undelivered=[Undelivered(Client("a", None, 2), TimedOut())])
    assert settle(outcome, NO_LETTERS, NOW) == Settlement(back=frozenset({2}))


def test_a_client_never_tried_is_never_exhausted() -> None:
    """Without an error there is no attempt to count: it is parked again however often that happened."""
    outcome = of(replace(QUEUED, attempt=9), undelivered=[Undelivered(A, None)])
    assert [each.job.attempt for each in settle(outcome, BOTH, NOW).requeued] == [9]


@pytest.mark.parametrize("error", [None, TimedOut()])
def test_without_a_retry_queue_leftovers_go_back(error: PostError | None) -> None:
    """The messages a client lacks are handed back, and no others."""
    outcome = of(STREAM, undelivered=[Undelivered(Client("a", None, 2), error)])
    assert settle(outcome, NO_RETRIES, NOW) == Settlement(back=frozenset({2}))


def test_a_refused_message_is_a_letter_to_who_refused_it() -> None:
    """A 400 is one letter a message, with all clients that answered it."""
    rejected = [(each, 1, Refused("HTTP 400")) for each in (A, B)]
    settled = settle(of(STREAM, rejected=rejected), BOTH, NOW)
    (buried,) = settled.dead_lettered
    letter = buried.letter
    assert (settled.requeued, settled.back, buried.positions) == ((), frozenset(), range(1, 2))
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
    outcome = replace(of(STREAM, rejected=rejected), delivered=[1, 1, 3])
    letters = [each.letter for each in settle(outcome, BOTH, NOW).dead_lettered]
    assert [(letter.sequence, letter.reason) for letter in letters] == [
        ("0", "refused"),
        ("0", "too_large"),
        ("1", "refused"),
    ]


def test_a_message_too_large_for_some_is_a_letter_to_them() -> None:
    """A 413 while others took the message is its clients' letter."""
    outcome = replace(of(STREAM, rejected=[(A, 0, TooLarge("HTTP 413"))]), delivered=[5, 6, 6])
    (buried,) = settle(outcome, BOTH, NOW).dead_lettered
    assert buried.letter.detail == "1 clients answered HTTP 413"
    assert buried.letter.content == Job(STREAM.messages[:1], (A,), first_at=NOW, reason="too_large")


@pytest.mark.parametrize("blocked", [{}, {1: "too_large"}])
def test_a_message_too_large_for_everybody_is_one_letter(blocked: dict[int, str]) -> None:
    """A 413 from everybody is one letter for the message, to the part of the table it was for and no more of it."""
    rejected = [(each, 1, TooLarge("HTTP 413")) for each in (A, B)]
    job = replace(STREAM, shard=Shard(2, 4), cursor={"connectionId": {"S": "c"}}, first_at=9)
    delivered = [7, 1 if blocked else 0, 7]
    outcome = replace(of(job, rejected=rejected), delivered=delivered, blocked=blocked)
    (buried,) = settle(outcome, BOTH, NOW).dead_lettered
    assert buried.letter.detail == "everybody answered HTTP 413"
    assert buried.letter.content == replace(job, messages=job.messages[1:2], reason="too_large")


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
        of(job, rejected=rejected, undelivered=undelivered), delivered=[5, 0, 2], blocked={1: "too_large"}
    )
    buried, others, _ = settle(outcome, BOTH, NOW).dead_lettered
    assert isinstance(buried.letter.content, Job)
    assert buried.letter.content.clients == (A, B, C)
    assert buried.letter.content.attempt == 2
    assert isinstance(others.letter.content, Job)
    assert others.letter.content.clients == (Client("odd"),)


def refusals(count: int, error: PostError) -> list[Rejection]:
    return [(Client(f"x{at}"), 0, error) for at in range(count)]


@pytest.mark.parametrize(("delivered", "count", "everybody"), [(0, 9, False), (0, 10, True), (1, 500, False)])
def test_a_message_refused_by_ten_and_taken_by_nobody_is_one_letter(
    delivered: int, count: int, everybody: bool
) -> None:
    """A 400 from ten clients and not one 200 is the message's own; fewer, or beside a 200, are those clients'."""
    outcome = replace(of(STREAM, rejected=refusals(count, Refused("HTTP 400"))), delivered=[delivered, 9, 9])
    (buried,) = settle(outcome, BOTH, NOW).dead_lettered
    assert isinstance(buried.letter.content, Job)
    assert (buried.letter.content.shard is not None) is everybody
    assert len(buried.letter.content.clients) == (0 if everybody else count)
    assert buried.letter.detail == f"{'everybody' if everybody else f'{count} clients'} answered HTTP 400"


def test_answers_that_differ_are_no_verdict_of_everybody() -> None:
    """Where some say 400 and some 413 each letter names its clients."""
    rejected = [*refusals(12, Refused("HTTP 400")), (A, 0, TooLarge("HTTP 413"))]
    contents = [each.letter.content for each in settle(of(STREAM, rejected=rejected), BOTH, NOW).dead_lettered]
    assert [len(each.clients) for each in contents if isinstance(each, Job)] == [12, 1]


def test_a_job_refused_by_all_its_clients_names_who_was_to_get_it() -> None:
    """From the queue the letter is to the job's clients, each once, those left over excepted."""
    clients = tuple(Client(f"x{at}") for at in range(12))
    outcome = of(replace(QUEUED, clients=clients), rejected=refusals(10, Refused("HTTP 400")))
    outcome.undelivered.append(Undelivered(Client("x11"), TimedOut()))
    (buried,) = settle(outcome, NO_RETRIES, NOW).dead_lettered
    assert isinstance(buried.letter.content, Job)
    assert buried.letter.content.clients == clients[:11]


@pytest.mark.parametrize("error", [Refused("HTTP 400"), TooLarge("HTTP 413")])
def test_without_dead_letters_a_rejected_message_goes_back(error: PostError) -> None:
    """The message is handed back alone."""
    outcome = of(STREAM, rejected=[(A, 1, error)])
    assert settle(outcome, NO_LETTERS, NOW) == Settlement(back=frozenset({1}))


# -- whatever happens to whom

ERRORS: list[PostError | None] = [None, ServerError("HTTP 500"), Throttled("HTTP 429"), TimedOut(), Forbidden()]


class History:
    """A broadcast of a job to named clients, one fate after the other; ``owed`` is what it leaves to settle."""

    def __init__(self, random: Random) -> None:
        count = random.randint(1, 4)
        clients = tuple(Client(f"c{at}", None, random.randrange(count)) for at in range(random.randint(1, 6)))
        job = Job(messages(count), clients, attempt=random.randint(0, 4), first_at=5)
        self.outcome = of(job)
        self.owed: set[tuple[str, int]] = set()
        self.skipped: set[int] = set()
        if random.random() < 0.3:
            self.outcome.blocked[random.randrange(count)] = "too_large"
        for client in clients:
            self.serve(client, random)
        self.outcome.blocked = {at: reason for at, reason in self.outcome.blocked.items() if at in self.skipped}

    def reject(self, client: Client, position: int, error: PostError) -> None:
        self.outcome.reject(client.connection_id, client.created_at, position, error)

    def serve(self, client: Client, random: Random) -> None:
        for position in range(client.skip, len(self.outcome.job.messages)):
            now = client._replace(skip=position)
            fate = random.random()
            if fate < 0.2:
                self.outcome.undelivered.append(Undelivered(now, random.choice(ERRORS)))
                self.owed |= {(client.connection_id, each) for each in range(position, len(self.outcome.delivered))}
                return
            if position in self.outcome.blocked:
                self.owed.add((client.connection_id, position))
                if position not in self.skipped or random.random() < 0.3:
                    self.reject(client, position, TooLarge("HTTP 413"))
                self.skipped.add(position)
            elif fate < 0.4:
                self.owed.add((client.connection_id, position))
                error = random.choice([Refused("HTTP 400"), TooLarge("HTTP 413")])
                self.reject(client, position, error)
            else:
                self.outcome.delivered[position] += 1


def in_job(job: Job) -> list[tuple[str, int]]:
    """What a job is to deliver: each client and the SequenceNumber of each message it lacks."""
    return [
        (client.connection_id, int(message.sequence))
        for client in job.clients
        for message in job.messages[client.skip :]
    ]


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False), st.sampled_from([BOTH, NO_RETRIES, NO_LETTERS, NEITHER]))
def test_what_is_owed_goes_exactly_one_way(random: Random, policy: Policy) -> None:
    """Each message a client is owed is in one parked job or in one letter, or its position goes back."""
    history = History(random)
    settled = settle(history.outcome, replace(policy, max_attempts=3), NOW)
    letters = [each.letter.content for each in settled.dead_lettered]
    jobs = [each.job for each in settled.requeued] + [content for content in letters if isinstance(content, Job)]
    ways = Counter(pair for job in jobs for pair in in_job(job))
    assert set(ways) <= history.owed
    assert set(ways.values()) <= {1}
    assert {position for _, position in history.owed - set(ways)} <= settled.back
    assert all(any(position == owed for _, owed in history.owed - set(ways)) for position in settled.back)


@settings(deadline=None, max_examples=100)
@given(st.randoms(use_true_random=False))
def test_positions_say_whose_messages_are_lost_with_a_parcel(random: Random) -> None:
    """If a queue refuses a parcel, its positions are those of exactly the messages in it."""
    history = History(random)
    settled = settle(history.outcome, BOTH, NOW)
    parked = [(each.job, each.positions) for each in settled.requeued]
    buried = [(each.letter.content, each.positions) for each in settled.dead_lettered]
    for content, positions in parked + buried:
        assert isinstance(content, Job)
        assert [int(message.sequence) for message in content.messages] == list(positions)


@pytest.mark.parametrize(("retries", "dead_letters"), [*product([True, False], repeat=2)])
def test_the_queues_there_are_decide(retries: bool, dead_letters: bool) -> None:
    """Nothing goes to a queue that is not there."""
    random = Random(1)
    policy = Policy(retries=retries, dead_letters=dead_letters, max_attempts=2)
    settled = [settle(History(random).outcome, policy, NOW) for _ in range(100)]
    assert any(each.requeued for each in settled) is retries
    assert any(each.dead_lettered for each in settled) is dead_letters
    assert any(each.back for each in settled) is not (retries and dead_letters)
