"""The next step for a client whose post was not delivered, one answer after the other."""

from __future__ import annotations

from random import Random

import pytest
from outcomes import messages

from async_relay.delivery.lanes import Lane
from async_relay.delivery.rate import Rate
from async_relay.delivery.report import Outcome
from async_relay.delivery.retry_policy import RetryPolicy, Step
from async_relay.errors import (
    Disconnected,
    Forbidden,
    Gone,
    PostError,
    Refused,
    ServerError,
    Throttled,
    TimedOut,
    TooLarge,
    Unreachable,
)
from async_relay.wire.jobs import Client, Job, Shard

NOW = 1_700_000_000
YOUNG, OLD = NOW * 1000 - 9_000, NOW * 1000 - 11_000
OUTCOME = Outcome(Job(messages(3), shard=Shard()), [0, 0, 0])
#: A retry job whose clients were forbidden while others were served.
FORBIDDEN_BEFORE = Outcome(Job(messages(3), (Client("c"),), attempt=1, reason="forbidden"), [0, 0, 0])


class Puts(Rate):
    """A rate that puts every refusal down to the account, or none, and notes which posts were let through."""

    def __init__(self, *, to_the_account: bool) -> None:
        super().__init__()
        self.to_the_account = to_the_account
        self.let_through: list[int] = []
        self.heard: list[tuple[int, int, bool]] = []

    def refused(self, in_a_row: int, now: float, answers: int, *, lately: bool) -> bool:
        self.heard.append((in_a_row, answers, lately))
        super().refused(in_a_row, now, answers, lately=lately)
        return self.to_the_account

    def taken(self, refusals: int) -> None:
        self.let_through.append(refusals)


def policy(rate: Rate | None = None, *, retry_until_deadline: bool = False) -> RetryPolicy:
    return RetryPolicy(rate or Rate(), Random(1), lambda: NOW, retry_until_deadline=retry_until_deadline)


def lane(name: str = "c", created_at: int | None = None, outcome: Outcome = OUTCOME) -> Lane:
    return Lane(Client(name, created_at), outcome)


def steps(decides: RetryPolicy, lane: Lane, error: PostError, count: int) -> list[Step]:
    """The steps of so many tries that all end with this error."""
    return [decides.decide(lane, error, 0.0)[0] for _ in range(count)]


# ── one client ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("error", "tries"), [(ServerError(), 5), (Disconnected(), 5), (TimedOut(), 3)])
def test_a_client_is_given_up_after_five_tries_of_which_a_timeout_counts_two(error: PostError, tries: int) -> None:
    """It waits between them."""
    assert steps(policy(), lane(), error, tries) == [Step.WAIT] * (tries - 1) + [Step.GIVE_UP]


def test_until_the_deadline_no_client_is_given_up() -> None:
    """Without a retry queue the tries go on, at most three seconds apart."""
    decides, sick = policy(retry_until_deadline=True), lane()
    decided = [decides.decide(sick, ServerError(), 0.0) for _ in range(50)]
    assert {step for step, _ in decided} == {Step.WAIT}
    assert 0 < max(wait for _, wait in decided) <= 3.0


def test_waits_grow_with_the_tries() -> None:
    """Between nothing and 0.1, 0.2, 0.4 and 0.8 s."""
    waits: list[list[float]] = [[], [], [], []]
    decides = policy()
    for _ in range(200):
        sick = lane()
        for of_try in waits:
            of_try.append(decides.decide(sick, ServerError(), 0.0)[1])
    assert [round(max(of_try), 1) for of_try in waits] == [0.1, 0.2, 0.4, 0.8]
    assert all(min(of_try) < 0.05 * max(of_try) for of_try in waits)


@pytest.mark.parametrize("error", [Refused(), TooLarge()])
def test_an_answer_that_no_retry_changes_rejects_the_message(error: PostError) -> None:
    """Neither is tried again."""
    assert policy().decide(lane(), error, 0.0) == (Step.REJECT, 0.0)


def test_the_next_message_starts_afresh() -> None:
    """Tries count per message: four failures at one and four at the next give nobody up."""
    decides, shaky = policy(), lane()
    for _ in range(3):
        assert steps(decides, shaky, ServerError(), 4) == [Step.WAIT] * 4
        decides.recovered(shaky)
        assert (shaky.tries, shaky.error, shaky.troubled) == (0, None, False)


# ── 410 ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("created_at", [None, OLD, NOW * 1000 + 11_000])
def test_a_gone_client_is_forgotten(created_at: int | None) -> None:
    """At the first 410, where its row is old, has no time, or one that cannot be."""
    assert policy().decide(lane(created_at=created_at), Gone(), 0.0) == (Step.FORGET, 0.0)


def test_a_young_rows_410_is_tried_again() -> None:
    """Its handshake may still be finishing: it waits at least half the backoff, and keeps its row if given up."""
    decides, young = policy(), lane(created_at=YOUNG)
    decided = [decides.decide(young, Gone(), 0.0) for _ in range(5)]
    assert [step for step, _ in decided] == [Step.WAIT] * 4 + [Step.GIVE_UP]
    for (_, wait), least in zip(decided, [0.05, 0.1, 0.2, 0.4], strict=False):
        assert least <= wait <= 2 * least


# ── 429 ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_accounts_429_counts_no_try() -> None:
    """However many of them: the client waits, and has all its tries left."""
    decides, refused = policy(Puts(to_the_account=True)), lane()
    assert steps(decides, refused, Throttled(), 30) == [Step.WAIT] * 30
    assert (refused.tries, refused.refusals, decides.throttled) == (0, 30, 30)
    assert steps(decides, refused, ServerError(), 5)[-1] is Step.GIVE_UP


@pytest.mark.parametrize("to_the_account", [True, False])
def test_refusals_are_counted_by_whose_limit_they_are_of(to_the_account: bool) -> None:
    """All of them, and those that are the account's apart."""
    decides = policy(Puts(to_the_account=to_the_account))
    steps(decides, lane(), Throttled(), 3)
    assert (decides.throttled, decides.account_throttled) == (3, 3 * to_the_account)


def test_waits_for_the_account_grow_with_the_refusals_in_a_row() -> None:
    """No try is counted, and yet each wait may be twice as long as the one before, up to three seconds."""
    waits: list[list[float]] = [[] for _ in range(8)]
    decides = policy(Puts(to_the_account=True))
    for _ in range(300):
        refused = lane()
        for of_refusal in waits:
            of_refusal.append(decides.decide(refused, Throttled(), 0.0)[1])
    assert [max(each) for each in waits] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0], rel=0.1)


def test_the_rate_hears_of_each_refusal_with_all_there_is_to_know() -> None:
    """How many in a row, among how many answers, and whether the client was refused at the message before."""
    rate = Puts(to_the_account=True)
    decides, refused = policy(rate), lane()
    steps(decides, lane("another"), ServerError(), 2)
    decides.served = 10
    steps(decides, refused, Throttled(), 2)
    decides.recovered(refused)
    steps(decides, refused, Throttled(), 1)
    assert rate.heard == [(1, 13, False), (2, 14, False), (1, 15, True)]


def test_refused_all_is_refusals_and_not_one_200() -> None:
    """Nothing refused is not all refused, and one 200 ends it."""
    decides, said = policy(), []
    for error, served in ((ServerError(), 0), (Throttled(), 0), (Throttled(), 1)):
        steps(decides, lane(), error, 1)
        decides.served = served
        said.append(decides.refused_all)
    assert said == [False, True, False]


def test_a_full_buffers_429_counts_a_try() -> None:
    """The client's own refusals give it up like any other failure."""
    refused = lane()
    assert steps(policy(Puts(to_the_account=False)), refused, Throttled(), 5) == [Step.WAIT] * 4 + [Step.GIVE_UP]


def test_any_other_answer_says_the_account_let_the_post_through() -> None:
    """The rate hears of it once per message, also for the message after the refused one, and then no more."""
    rate = Puts(to_the_account=True)
    decides, refused = policy(rate), lane()
    steps(decides, refused, Throttled(), 3)
    decides.recovered(refused)
    assert (rate.let_through, refused.refusals, refused.refused_lately, refused.troubled) == ([3], 0, True, True)
    decides.recovered(refused)
    assert (rate.let_through, refused.refused_lately, refused.troubled) == ([3, 0], False, False)


def test_a_rejection_is_let_through_once() -> None:
    """It is counted when it is decided, and not again when the lane goes on."""
    rate = Puts(to_the_account=True)
    decides, refused = policy(rate), lane()
    steps(decides, refused, Throttled(), 2)
    decides.decide(refused, Refused(), 0.0)
    decides.recovered(refused)
    assert rate.let_through == [2]


# ── 403 ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_tenth_forbidden_client_aborts() -> None:
    """Nine may be odd; with ten and nobody served it is everybody."""
    decides = policy()
    decided = [decides.decide(lane(f"c{at}"), Forbidden(), 0.0)[0] for at in range(10)]
    assert decided == [Step.WAIT] * 9 + [Step.ABORT]


def test_ten_forbidden_after_a_200_are_not_systemic() -> None:
    """They fail alone, and are given up after their tries."""
    decides = policy()
    decides.served = 1
    assert [decides.decide(lane(f"c{at}"), Forbidden(), 0.0)[0] for at in range(30)] == [Step.WAIT] * 30
    assert steps(decides, lane(), Forbidden(), 5)[-1] is Step.GIVE_UP


def test_one_client_forbidden_ten_times_is_one() -> None:
    """Only distinct clients are counted."""
    decides = policy(retry_until_deadline=True)
    assert Step.ABORT not in steps(decides, lane(), Forbidden(), 20)


def test_clients_forbidden_before_are_not_counted() -> None:
    """A retry job says they were forbidden while others were served: they are given up, and nothing is systemic."""
    decides = policy()
    lanes = [lane(f"c{at}", outcome=FORBIDDEN_BEFORE) for at in range(20)]
    assert [decides.decide(each, Forbidden(), 0.0)[0] for each in lanes] == [Step.WAIT] * 20
    assert steps(decides, lanes[0], Forbidden(), 4)[-1] is Step.GIVE_UP
    left = Outcome(FORBIDDEN_BEFORE.job, [0, 0, 0], undelivered=[lanes[0].undelivered()])
    assert decides.systemic([left]) is None


@pytest.mark.parametrize("retry_until_deadline", [False, True])
def test_a_client_whose_tries_are_used_up_before_anybody_was_served_is_undecided(retry_until_deadline: bool) -> None:
    """Cleared by a 200 it is given up, or goes on where only the deadline ends the tries."""
    decides, forbidden = policy(retry_until_deadline=retry_until_deadline), lane()
    assert steps(decides, forbidden, Forbidden(), 5) == [Step.WAIT] * 4 + [Step.UNDECIDED]
    step, wait = decides.clear(forbidden)
    assert step is (Step.WAIT if retry_until_deadline else Step.GIVE_UP)
    assert (wait > 0) is retry_until_deadline


def test_an_undecided_client_with_tries_left_goes_on_once_cleared() -> None:
    """The tenth forbidden client is undecided after a single try, and has the other four."""
    decides, tenth = policy(), lane()
    tenth.tries = 1
    assert decides.clear(tenth)[0] is Step.WAIT


# ── no connection ───────────────────────────────────────────────────────────────────────────────


def test_ten_posts_without_a_connection_abort() -> None:
    """With no answer of any kind so far."""
    decides = policy()
    decided = [decides.decide(lane(f"c{at}"), Unreachable(), 0.0)[0] for at in range(10)]
    assert decided == [Step.WAIT] * 9 + [Step.ABORT]


def test_two_without_a_connection_for_one_client_abort() -> None:
    """A lone client's second try says as much as ten clients' first."""
    assert steps(policy(), lane(), Unreachable(), 2) == [Step.WAIT, Step.ABORT]


@pytest.mark.parametrize("error", [ServerError(), TimedOut(), Throttled()])
def test_an_endpoint_that_once_answered_is_reachable(error: PostError) -> None:
    """From then on a connection that fails is that client's trouble."""
    decides = policy()
    decides.decide(lane("first"), error, 0.0)
    assert [decides.decide(lane(f"c{at}"), Unreachable(), 0.0)[0] for at in range(20)] == [Step.WAIT] * 20


# ── at the end ──────────────────────────────────────────────────────────────────────────────────


def failed(error: PostError) -> Outcome:
    client = lane()
    client.tries, client.error = 1, error
    return Outcome(OUTCOME.job, [0, 0, 0], undelivered=[client.undelivered()])


@pytest.mark.parametrize(("error", "systemic"), [(Forbidden(), True), (Unreachable(), True), (ServerError(), False)])
def test_what_is_systemic_at_the_end(error: PostError, systemic: bool) -> None:
    """With nobody served, 403 or no connection; never beside a 200."""
    decides = policy()
    assert decides.systemic([OUTCOME, failed(error)]) is (error if systemic else None)
    decides.served = 1
    assert decides.systemic([failed(error)]) is None


def test_unreachable_is_not_systemic_where_something_answered() -> None:
    """A 5xx came over a connection."""
    decides = policy()
    decides.decide(lane(), ServerError(), 0.0)
    assert decides.systemic([failed(Unreachable())]) is None
