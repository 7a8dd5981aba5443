"""The rate falls when a crowd is refused, creeps up again, and never passes its ceiling. Time is a number here."""

from __future__ import annotations

from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.rate import ROUND, Rate

PROPERTY = settings(deadline=None, max_examples=60)


class Traffic:
    """Feeds a rate with answers, round by round, on a clock of its own."""

    def __init__(self, rate: Rate, start: float = 1_000.0) -> None:
        self.rate = rate
        self.now = start
        self.answers = 0
        rate.begin(start)

    def served(self, count: int) -> None:
        self.answers += count

    def refused(self, *names: str) -> list[bool]:
        verdicts = []
        for name in names:
            self.answers += 1
            verdicts.append(self.rate.refused(name, self.now, self.answers))
        return verdicts

    def tick(self, seconds: float = ROUND) -> None:
        self.now += seconds
        self.rate.tick(self.now, self.answers)

    def cut(self, served: int = 50) -> None:
        """A round in which so many are served and then a crowd is refused, just large enough for a cut."""
        self.now += ROUND
        self.served(served)
        for number in range(10_000):
            before = self.rate.limit
            self.refused(f"crowd-{number}")
            if self.rate.limit != before:
                return
        raise AssertionError("no crowd is large enough")


def crowd(count: int, prefix: str = "c") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


# -- without refusals


def test_without_a_ceiling_it_goes_as_fast_as_it_goes() -> None:
    """Nothing is counted a post until the account's limit is known."""
    traffic = Traffic(Rate())
    for _ in range(50):
        traffic.served(1_000)
        traffic.tick()
    assert traffic.rate.limit is None
    assert repr(traffic.rate) == "as fast as it goes"


def test_a_ceiling_is_the_first_limit() -> None:
    """With a ceiling there is a limit from the start, and the repr says it."""
    rate = Rate(1_234.4)
    assert rate.limit == 1_234.4
    assert repr(rate) == "at most 1,234 posts a second"


@PROPERTY
@given(
    st.floats(0.1, 20_000),
    st.randoms(use_true_random=False),
    st.sampled_from([0.0, 0.0005, 0.01, 3.0]),
    st.booleans(),
)
def test_the_ceiling_is_never_passed(ceiling: float, random: Random, pause: float, refusing: bool) -> None:
    """In any stretch of time no more is let through than the ceiling allows, and a burst of 20 ms."""
    rate = Rate(ceiling)
    now, answers = 50.0, 0
    rate.begin(now)
    granted: list[float] = []
    for step in range(300):
        assert rate.limit is not None
        assert 0 < rate.limit <= ceiling
        wait = rate.wait(now)
        if not wait:
            granted.append(now)
            answers += 1
            if refusing and random.random() < 0.4:
                rate.refused(f"c{step}", now, answers)
        now += wait or random.random() * pause
        rate.tick(now, answers)
    burst = max(1.0, ceiling * 0.02)
    for width in (1, 2, 3, 5, 20, 100, 250):
        for first, last in zip(granted, granted[width:], strict=False):
            assert width + 1 <= ceiling * (last - first) * (1 + 1e-9) + burst + 1e-6


@pytest.mark.parametrize("ceiling", [0.5, 7.0, 100.0, 4_000.0])
def test_a_limit_is_used_up(ceiling: float) -> None:
    """Who waits as told gets nearly all of what the limit allows, and is not told to wait less than a millisecond."""
    rate = Rate(ceiling)
    now, granted = 0.0, 0
    rate.begin(now)
    while now < 2_000 / ceiling:
        wait = rate.wait(now)
        assert wait == 0.0 or wait >= 0.001
        granted += not wait
        now += wait
    assert 1_960 <= granted <= 2_000 + max(1.0, ceiling * 0.02)


def test_no_time_is_saved_up_between_invocations() -> None:
    """After an hour's freeze there is no more at once than a burst."""
    rate = Rate(100.0)
    rate.begin(0.0)
    assert rate.wait(0.0) == 0.0
    rate.begin(3_600.0)
    assert rate.wait(3_600.0) == pytest.approx(0.01)
    rate.begin(7_200.0)
    assert [rate.wait(9_000.0) == 0.0 for _ in range(4)] == [True, True, False, False]


def test_a_small_limit_saves_up_one_place_at_most() -> None:
    """Below fifty a second a burst is one post, however long nobody asked."""
    rate = Rate(5.0)
    rate.begin(0.0)
    assert rate.wait(60.0) == 0.0
    assert rate.wait(60.0) == pytest.approx(0.2)


# -- who is refused


def test_a_lone_client_is_its_own_trouble() -> None:
    """One client refused over and over is its full buffer: nothing is cut, and its tries count."""
    traffic = Traffic(Rate())
    for _ in range(100):
        assert not any(traffic.refused(*["sick"] * 10))
        traffic.tick()
    assert traffic.rate.limit is None


def test_a_few_clients_are_their_own_trouble() -> None:
    """Four are no crowd, even where nobody else is answered; the fifth makes one."""
    traffic = Traffic(Rate())
    assert traffic.refused(*crowd(4)) == [False] * 4
    assert traffic.rate.limit is None
    assert traffic.refused("fifth") == [True]
    assert traffic.rate.limit is not None


def test_a_small_share_is_no_crowd() -> None:
    """Eighteen refused among a hundred answers are fewer than 4 and 15 %; twenty-two are more."""
    traffic = Traffic(Rate())
    traffic.served(100)
    traffic.now += ROUND
    verdicts = traffic.refused(*crowd(30))
    assert verdicts.index(True) == 22
    assert traffic.rate.limit is not None


def test_answers_of_earlier_rounds_do_not_count() -> None:
    """The share is that of the round: what was served before says nothing about now."""
    traffic = Traffic(Rate())
    traffic.served(10_000)
    traffic.tick()
    assert traffic.refused(*crowd(5)) == [False] * 4 + [True]
    fresh = Traffic(Rate())
    fresh.refused(*crowd(4))
    fresh.tick()
    assert fresh.refused(*crowd(4, "d")) == [False] * 4


def test_an_invocation_starts_a_new_round() -> None:
    """What the last invocation's answers came to does not count in the next."""
    rate = Rate()
    first = Traffic(rate)
    first.served(1_000)
    first.refused(*crowd(4))
    second = Traffic(rate, first.now + 0.05)
    assert second.refused(*crowd(4, "d")) == [False] * 4
    assert second.refused("fifth") == [True]


def test_full_buffers_say_nothing_about_the_account_for_a_second() -> None:
    """Clients once found to be slow do not make a crowd with others, until they are forgotten after a second."""
    traffic = Traffic(Rate())
    traffic.tick()
    assert not any(traffic.refused("a", "b", "c", "d"))
    for _ in range(9):
        traffic.tick()
        assert not any(traffic.refused("a", "b", "c", "d", "e"))
    traffic.tick()
    traffic.tick()
    assert traffic.refused("a", "b", "c", "d", "e") == [False] * 4 + [True]


def test_who_was_refused_with_the_crowd_is_not_taken_for_slow() -> None:
    """Clients whose refusals gave the account's limit away count again in the next round."""
    traffic = Traffic(Rate())
    traffic.tick()
    assert traffic.refused(*crowd(5))[-1]
    traffic.tick()
    traffic.tick()
    before = traffic.rate.limit
    assert traffic.refused(*crowd(5))[-1]
    assert traffic.rate.limit != before or before == 1.0


# -- cutting


def test_a_cut_leaves_four_fifths_of_what_was_let_through() -> None:
    """The first limit is 80 % of the rate at which posts were accepted in the round."""
    traffic = Traffic(Rate())
    traffic.served(50)
    traffic.now += ROUND
    assert traffic.refused(*crowd(14)) == [False] * 13 + [True]
    assert traffic.rate.limit == pytest.approx(0.8 * 50 / ROUND)


def test_a_cut_is_made_once_a_round() -> None:
    """After a cut all refusals of the next 100 ms are the account's, even a lone one's, and cut no further."""
    traffic = Traffic(Rate())
    traffic.cut()
    limit = traffic.rate.limit
    traffic.now += ROUND * 0.95
    assert all(traffic.refused("lone", *crowd(50)))
    assert traffic.rate.limit == limit


def test_after_a_cut_the_places_saved_up_are_gone() -> None:
    """The first post after a cut waits its turn."""
    traffic = Traffic(Rate())
    traffic.cut()
    assert traffic.rate.limit is not None
    assert traffic.rate.wait(traffic.now) == pytest.approx(1 / traffic.rate.limit)


def test_under_a_limit_a_smaller_share_is_a_crowd() -> None:
    """Once cut, 4 and 5 % are enough for the next cut; without a cut it takes 4 and 15 %."""
    cut, fresh = Traffic(Rate()), Traffic(Rate())
    cut.cut()
    for traffic in (cut, fresh):
        traffic.tick(2 * ROUND)
        traffic.served(100)
    assert any(cut.refused(*crowd(11)))
    assert not any(fresh.refused(*crowd(11)))


def test_under_a_ceiling_the_first_crowd_must_be_a_large_share() -> None:
    """A ceiling alone is no cut: the account's limit has still to be found out."""
    traffic = Traffic(Rate(50_000.0))
    traffic.served(100)
    traffic.now += ROUND
    assert traffic.refused(*crowd(30)).index(True) == 22


def test_a_further_cut_is_bounded() -> None:
    """However few were accepted, a limit falls to 40 % of itself at once, and however many, to 80 %."""
    for served, part in [(0, 0.4), (20_000, 0.8)]:
        traffic = Traffic(Rate())
        traffic.cut(served=5_000)
        limit = traffic.rate.limit
        assert limit is not None
        traffic.cut(served=served)
        assert traffic.rate.limit == pytest.approx(part * limit)


def test_a_rate_never_falls_below_one_a_second() -> None:
    """Even where nothing at all is accepted there is something to find out with."""
    traffic = Traffic(Rate())
    for _ in range(4):
        traffic.now += ROUND
        assert traffic.refused(*crowd(8))[-1]
        assert traffic.rate.limit == 1.0


# -- creeping


def test_without_a_crowd_the_rate_creeps_up() -> None:
    """Each round adds half the square root of the limit, from two rounds after the cut on."""
    traffic = Traffic(Rate())
    traffic.cut()
    limit = traffic.rate.limit
    assert limit is not None
    traffic.tick()
    traffic.tick(ROUND * 0.99)
    assert traffic.rate.limit == limit
    traffic.tick()
    assert traffic.rate.limit == pytest.approx(limit + 0.5 * sqrt(limit))


def test_a_late_tick_makes_up_for_five_rounds_at_most() -> None:
    """A pause of the loop counts as the rounds it took, a long one as five."""
    for seconds, rounds in [(3 * ROUND, 3.0), (60 * ROUND, 5.0)]:
        traffic = Traffic(Rate())
        traffic.cut()
        limit = traffic.rate.limit
        assert limit is not None
        traffic.tick(seconds)
        assert traffic.rate.limit == pytest.approx(limit + 0.5 * sqrt(limit) * rounds)


def test_a_tick_before_its_time_ends_no_round() -> None:
    """A round lasts a tenth of a second, and a tenth of that is its play."""
    traffic = Traffic(Rate())
    traffic.refused(*crowd(4))
    traffic.tick(ROUND * 0.89)
    assert traffic.refused("fifth") == [True]
    traffic = Traffic(Rate())
    traffic.refused(*crowd(4))
    traffic.tick(ROUND * 0.91)
    assert traffic.refused("fifth") == [False]


def test_it_creeps_no_higher_than_the_ceiling() -> None:
    """The ceiling holds always."""
    traffic = Traffic(Rate(410.0))
    traffic.cut()
    assert traffic.rate.limit == pytest.approx(0.8 * 410.0, rel=0.3)
    for _ in range(100):
        traffic.tick()
    assert traffic.rate.limit == 410.0


def test_two_rates_on_one_account_drift_to_equal_shares() -> None:
    """A small share grows more quickly for its size than a large one, so the larger gives way over time."""
    small, large = Traffic(Rate()), Traffic(Rate())
    small.cut(served=50)
    large.cut(served=5_000)
    assert small.rate.limit is not None
    assert large.rate.limit is not None
    before = large.rate.limit / small.rate.limit
    for _ in range(300):
        small.tick()
        large.tick()
    assert large.rate.limit / small.rate.limit < before / 2


# -- vain cuts


def full_buffers(traffic: Traffic, rounds: int, share: float = 0.3, posts: int = 200) -> list[float | None]:
    """Rounds in which the same share is refused, whatever the rate; the limit after each."""
    limits = []
    for _ in range(rounds):
        traffic.now += ROUND * 1.05
        for number in range(posts):
            if number * share % 1 < share:
                traffic.refused(f"full-{number}")
            else:
                traffic.served(1)
        limits.append(traffic.rate.limit)
        traffic.rate.tick(traffic.now, traffic.answers)
    return limits


def test_cuts_that_change_nothing_are_taken_back() -> None:
    """Four cuts in a row that make refusals no rarer were wrong: the fifth gives the old limit back."""
    traffic = Traffic(Rate())
    limits = full_buffers(traffic, 5)
    assert None not in limits[:4]
    assert limits[4] is None
    assert full_buffers(traffic, 20) == [None] * 20


def test_after_vain_cuts_such_refusals_count_as_the_clients() -> None:
    """What is expected of full buffers is no crowd, so each of those clients waits for itself."""
    traffic = Traffic(Rate())
    full_buffers(traffic, 5)
    traffic.now += 2 * ROUND
    traffic.served(140)
    assert not any(traffic.refused(*crowd(60)))


def test_after_vain_cuts_more_than_twice_as_many_are_a_crowd() -> None:
    """What is expected has its bounds: where nearly everybody is refused it is the account again."""
    traffic = Traffic(Rate())
    full_buffers(traffic, 5)
    traffic.tick(2 * ROUND)
    assert traffic.refused(*crowd(60))[-1]
    assert traffic.rate.limit is not None


def test_the_expectation_fades() -> None:
    """After some ten seconds without them so many refusals are a crowd again."""
    traffic = Traffic(Rate())
    full_buffers(traffic, 5)
    for _ in range(150):
        traffic.tick()
    traffic.tick()
    traffic.served(140)
    assert any(traffic.refused(*crowd(60)))


def test_a_ceiling_comes_back_after_vain_cuts() -> None:
    """With a ceiling, what is given back is the ceiling."""
    traffic = Traffic(Rate(5_000.0))
    limits = full_buffers(traffic, 5)
    assert limits[3] is not None
    assert limits[3] < 5_000
    assert limits[4] == 5_000.0


def test_cuts_apart_from_each_other_are_not_counted_together() -> None:
    """A cut more than three rounds after the last one starts a new count."""
    traffic = Traffic(Rate())
    for _ in range(12):
        traffic.tick(2.4 * ROUND)
        assert None not in full_buffers(traffic, 1)


def test_refusals_of_the_majority_are_the_accounts() -> None:
    """Where half and more are refused it cannot be their buffers: the cuts stand."""
    traffic = Traffic(Rate())
    assert None not in full_buffers(traffic, 12, share=0.7)


def test_refusals_that_follow_the_rate_are_the_accounts() -> None:
    """Where a lower rate makes refusals rarer the cuts stand, and the rate settles at what the account allows."""
    account = 2_000.0
    rate = Rate()
    now, answers, tokens, demand = 0.0, 0, 20.0, 6_000.0
    rate.begin(now)
    step = 0.002
    sent = 0.0
    refused = limits = 0.0
    for at in range(int(20 / step)):
        now += step
        tokens = min(40.0, tokens + account * step)
        sent += demand * step
        while sent >= 1 and (rate.limit is None or not rate.wait(now)):
            sent -= 1
            answers += 1
            if tokens >= 1:
                tokens -= 1
            else:
                refused += now > 5
                rate.refused(f"c{answers % 9_973}", now, answers)
        sent = min(sent, 100)
        if at % 50 == 0:
            rate.tick(now, answers)
            limits += (rate.limit or 0) if now > 5 else 0
    assert rate.limit is not None
    assert 0.7 * account < limits / 150 < 1.2 * account
    assert refused / (15 * account) < 0.1


# -- forgetting


@pytest.mark.parametrize("ceiling", [None, 9_000.0])
def test_what_was_learnt_is_forgotten_after_thirty_seconds(ceiling: float | None) -> None:
    """A limit outlives its invocation, as the account's does, but no invocation 30 s after the last cut."""
    traffic = Traffic(Rate(ceiling))
    traffic.cut()
    limit = traffic.rate.limit
    traffic.rate.begin(traffic.now + 29.9)
    assert traffic.rate.limit == limit
    traffic.rate.begin(traffic.now + 30.1)
    assert traffic.rate.limit == ceiling


def test_expected_refusals_are_forgotten_too() -> None:
    """Thirty seconds after vain cuts, a share that was expected then is a crowd again."""
    rate = Rate()
    traffic = Traffic(rate)
    full_buffers(traffic, 5)
    later = Traffic(rate, traffic.now + 31)
    later.served(140)
    assert any(later.refused(*crowd(60)))
