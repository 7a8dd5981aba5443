"""The report of a broadcast: when a message is refused by all, and the figures."""

from __future__ import annotations

from typing import Any

import pytest
from outcomes import messages, outcome_of

from async_relay.delivery.report import Outcome, Report, Undelivered
from async_relay.errors import Forbidden, PostError, Refused, TimedOut, TooLarge
from async_relay.wire.jobs import Client, Job, Shard

JOB = Job(messages(2), shard=Shard())


def refused_by(count: int, error: PostError) -> Outcome:
    """The outcome where so many clients refused the first message."""
    return outcome_of(JOB, rejected=[(Client(f"c{at}"), 0, error) for at in range(count)])


@pytest.mark.parametrize(
    ("error", "at_end", "enough"),
    [
        (TooLarge("HTTP 413"), False, 10),
        (TooLarge("HTTP 413"), True, 1),
        (Refused("HTTP 400"), False, 1_000),
        (Refused("HTTP 400"), True, 10),
    ],
)
def test_refused_by_all_takes_enough_clients_and_not_one_200(error: PostError, at_end: bool, enough: int) -> None:
    """Fewer for 413 than for 400, and fewer at the end than while posting goes on."""
    for count in {max(1, enough - 1), enough}:
        assert refused_by(count, error).refused_by_all(0, error.reason, at_end=at_end) is (count == enough)
    taken = refused_by(enough, error)
    taken.delivered[0] = 1
    assert not taken.refused_by_all(0, error.reason, at_end=at_end)


def test_at_the_end_all_must_agree_on_the_reason() -> None:
    """A single 413 beside the 400s says that something else is the matter; under way it does not count."""
    outcome = refused_by(1_000, Refused("HTTP 400"))
    outcome.reject("odd", None, 0, TooLarge("HTTP 413"))
    assert outcome.refused_by_all(0, "refused", at_end=False)
    assert not outcome.refused_by_all(0, "refused", at_end=True)
    assert not outcome.refused_by_all(0, "too_large", at_end=True)


def test_a_skipped_message_stays_refused_for_its_reason() -> None:
    """Once it is skipped no later answer changes that, whatever its reason."""
    outcome = refused_by(1, Refused("HTTP 400"))
    outcome.reject("c", None, 0, TooLarge("HTTP 413"))
    outcome.delivered[0], outcome.blocked[0] = 3, "too_large"
    for at_end in (False, True):
        assert outcome.refused_by_all(0, "too_large", at_end=at_end)
        assert not outcome.refused_by_all(0, "refused", at_end=at_end)


def test_the_figures_add_up_the_jobs() -> None:
    """By the names of the metrics; the rate limit is left out while there is none."""
    left = outcome_of(JOB, undelivered=[Undelivered(Client("a"), TimedOut())], rejected=[(Client("b"), 1, Refused())])
    left.delivered[:], left.gone = [5, 4], 2
    outcomes = (left, Outcome(JOB, [1, 1], gone=1))
    report = Report(outcomes, posts=20, throttled=3, account_throttled=2, most_in_flight=7, undeleted=1)
    assert report.figures() == {
        "delivered": 11,
        "expired": 0,
        "unclosed": 0,
        "gone": 3,
        "left_over": 1,
        "rejected": 1,
        "posts": 20,
        "throttled": 3,
        "account_throttled": 2,
        "most_in_flight": 7,
        "undeleted": 1,
        "unproven": 0,
        "systemic": 0,
    }
    systemic = Report((), systemic=Forbidden(), unproven=4, rate_limit=250.0).figures()
    assert (systemic["systemic"], systemic["unproven"], systemic["rate_limit"]) == (1, 4, 250.0)


def test_the_age_is_the_oldest_records_when_the_last_client_was_served() -> None:
    """In seconds, over the jobs of the broadcast; clocks that differ make no negative one."""
    outcomes = [Outcome(Job(messages(1), shard=Shard(), written_at=at), [1]) for at in (5_000, 3_000, 9_000)]
    assert Report(tuple(outcomes), served_at=10_500).figures()["age"] == 7.5
    assert Report(tuple(outcomes), served_at=2_000).figures()["age"] == 0


@pytest.mark.parametrize(
    ("delivered", "served_at", "more"),
    [
        (0, 10_500, {"written_at": 3_000}),
        (1, None, {"written_at": 3_000}),
        (1, 10_500, {}),
        (1, 10_500, {"written_at": 3_000, "attempt": 1}),
    ],
    ids=["nobody served", "no 200 seen", "unknown", "from the retry queue"],
)
def test_there_is_no_age_where_it_would_say_nothing(
    delivered: int, served_at: int | None, more: dict[str, Any]
) -> None:
    """A retried client's wait is the retry queue's, and would hide how late everybody else is."""
    outcome = Outcome(Job(messages(1), shard=Shard(), **more), [delivered])
    assert "age" not in Report((outcome,), served_at=served_at).figures()


def test_what_became_of_one_message_says_nothing_of_another() -> None:
    """Another reason, or a 200, at another message leaves the verdict about this one as it is."""
    outcome = refused_by(10, Refused("HTTP 400"))
    outcome.reject("odd", None, 1, TooLarge("HTTP 413"))
    outcome.delivered[1] = 5
    assert outcome.refused_by_all(0, "refused", at_end=True)
    assert not outcome.refused_by_all(1, "too_large", at_end=True)


def test_the_figures_count_clients() -> None:
    """Each client left over and each that refused a message, in every job, and not the jobs or the reasons."""
    left = [Undelivered(Client(f"c{at}"), None) for at in range(3)]
    rejected = [(Client(f"r{at}"), at % 2, Refused()) for at in range(5)]
    outcomes = tuple(outcome_of(JOB, undelivered=left, rejected=rejected) for _ in range(2))
    figures = Report(outcomes, undeleted=2, unproven=7).figures()
    assert {name: figures[name] for name in ("left_over", "rejected", "undeleted", "unproven")} == {
        "left_over": 6,
        "rejected": 10,
        "undeleted": 2,
        "unproven": 7,
    }


def test_a_rejection_keeps_the_first_answer_and_every_clients_age() -> None:
    """One group a message and reason, in the order of the answers."""
    outcome = Outcome(JOB, [0, 0])
    first = Refused("HTTP 400 first")
    outcome.reject("a", 1, 0, first)
    outcome.reject("b", 2, 0, Refused("HTTP 400 second"))
    outcome.reject("a", 1, 1, TooLarge("HTTP 413"))
    assert outcome.rejected[0, "refused"] == (first, [Client("a", 1), Client("b", 2)])
    assert outcome.rejected[1, "too_large"].clients == [Client("a", 1)]


def test_an_outcome_says_in_the_log_what_it_comes_to() -> None:
    """Counted over its messages; and whether the table was read to its end."""
    outcome = outcome_of(JOB, undelivered=[Undelivered(Client("a"), None)], rejected=[(Client("b"), 1, Refused())])
    outcome.delivered[:], outcome.gone = [5, 4], 2
    assert repr(outcome) == "<9 delivered of 2 messages, 2 gone, 1 undelivered, 1 rejected>"
    outcome.unread = True
    assert repr(outcome).endswith("1 rejected, part unread>")
