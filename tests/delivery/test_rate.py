"""The rate's rules one by one, on answers that are made up and a clock that is a number."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.delivery.rate import ROUND, Rate, _Tries

PROPERTY = settings(deadline=None, max_examples=60)


class Traffic:
    """Feeds a rate with answers, round by round."""

    def __init__(self, rate: Rate, start: float = 1_000.0) -> None:
        self.rate = rate
        self.now = start
        self.answers = 0
        rate.begin(start)

    def served(self, count: int) -> None:
        """First tries that were let through: the rate hears of them in ``answers`` only."""
        self.answers += count

    def served_again(self, count: int) -> None:
        for _ in range(count):
            self.answers += 1
            self.rate.taken(1)

    def refused(self, count: int, in_a_row: int = 1, *, lately: bool = False) -> list[bool]:
        verdicts = []
        for _ in range(count):
            self.answers += 1
            verdicts.append(self.rate.refused(in_a_row, self.now, self.answers, lately=lately))
        return verdicts

    def tick(self, seconds: float = ROUND) -> None:
        self.now += seconds
        self.rate.tick(self.now, self.answers)

    def round(self, served: int = 0, refused: int = 0, served_again: int = 0, refused_again: int = 0) -> float | None:
        """A round of these answers in which the limit held somebody back; the limit after it."""
        self.served(served)
        self.served_again(served_again)
        self.refused(refused)
        self.refused(refused_again, 2)
        if self.rate.limit is not None:
            while not self.rate.wait(self.now):
                pass
        self.tick()
        return self.rate.limit


def cut(served: int = 40, ceiling: float | None = None) -> Traffic:
    """A rate that has found a limit, in a round in which so many were let through."""
    traffic = Traffic(Rate(ceiling))
    assert traffic.round(served, max(60, 3 * served // 2)) == pytest.approx(served / ROUND)
    return traffic


def limit(traffic: Traffic) -> float:
    assert traffic.rate.limit is not None
    return traffic.rate.limit


# -- places


def test_without_a_ceiling_it_goes_as_fast_as_it_goes() -> None:
    """There is no limit until the account's is found."""
    traffic = Traffic(Rate())
    for _ in range(50):
        assert traffic.round(1_000) is None
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
    for _ in range(300):
        assert rate.limit is not None
        assert 0 < rate.limit <= ceiling
        wait = rate.wait(now)
        if not wait:
            granted.append(now)
            answers += 1
            if refusing and random.random() < 0.6:
                rate.refused(random.choice((1, 1, 2, 3, 4)), now, answers, lately=False)
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


# -- the ratio


def test_both_groups_alike_are_the_account() -> None:
    """Where clients refused lately fare as the others do, all refusals are the account's."""
    assert _Tries(1_000, 300, 200, 60).ratio(limited=True) == pytest.approx(1, abs=0.01)
    assert _Tries(1_000, 300, 200, 60).ratio(limited=False) == pytest.approx(1, abs=0.02)


def test_refused_again_far_more_often_are_full_buffers() -> None:
    """A tenth of all, and half of those refused lately: a fifth of a tenth is put down to the account."""
    tries = _Tries(1_000, 100, 200, 100)
    assert tries.ratio(limited=True) == pytest.approx(0.2, abs=0.01)
    assert tries.accounts(0.2) == pytest.approx(0.2 * 100 + 0.04 * 100)


def test_clients_refused_less_often_again_change_nothing() -> None:
    """The ratio is one at most."""
    assert _Tries(100, 50, 100, 10).ratio(limited=True) == 1.0


def test_no_first_refusal_is_no_account() -> None:
    """Where only clients refused lately are refused, nothing is the account's."""
    assert _Tries(100, 0, 16, 16).ratio(limited=True) == 0.0
    assert _Tries().ratio(limited=True) == _Tries().ratio(limited=False) == 0.0


def test_without_evidence_it_leans_to_what_is_known() -> None:
    """Before second tries a found limit explains refusals, and without one full buffers do."""
    assert _Tries(98, 30).ratio(limited=True) == 1.0
    assert _Tries(98, 30).ratio(limited=False) == pytest.approx(0.3)


@PROPERTY
@given(st.tuples(*[st.tuples(st.integers(0, 500), st.integers(0, 500))] * 2), st.booleans())
def test_the_accounts_part_is_a_part(groups: tuple[tuple[int, int], tuple[int, int]], limited: bool) -> None:
    """Never fewer than none, never more than all that were refused."""
    (first, of_first), (again, of_again) = ((min(pair), max(pair)) for pair in groups)
    tries = _Tries(of_first, first, of_again, again)
    assert 0 <= tries.accounts(tries.ratio(limited=limited)) <= first + again


# -- the first cut


def test_the_first_limit_is_what_was_let_through() -> None:
    """A crowd refused, and refused again no more often than that: the limit is the rate of the others."""
    traffic = Traffic(Rate())
    assert traffic.round(served=300, refused=300, served_again=10, refused_again=10) == pytest.approx(310 / ROUND)
    assert repr(traffic.rate) == "at most 3,100 posts a second"


@pytest.mark.parametrize("full", [0.01, 0.1, 0.25])
def test_full_buffers_are_no_limit(full: float) -> None:
    """Clients that refuse each message twice cut nothing, however many of them there are up to a quarter."""
    traffic = Traffic(Rate())
    count = int(1_000 * full)
    for _ in range(50):
        assert traffic.round(1_000 - count, count, count, count) is None


def test_four_refusals_are_no_crowd() -> None:
    """They may be four full buffers by chance, even where nobody else is answered."""
    traffic = Traffic(Rate())
    assert traffic.round(refused=4) is None


def test_a_share_of_a_seventh_is_let_be() -> None:
    """14 % refused cost less than a wrong cut would; 20 % are too many."""
    assert Traffic(Rate()).round(860, 140, 172, 28) is None
    assert Traffic(Rate()).round(800, 200, 160, 40) == pytest.approx(960 / ROUND)


def test_a_flood_is_not_waited_for() -> None:
    """64 refused and hardly anybody let through end the round at once."""
    traffic = Traffic(Rate())
    traffic.served(10)
    traffic.now += 0.02
    traffic.refused(63)
    assert traffic.rate.limit is None
    traffic.refused(1)
    assert traffic.rate.limit == pytest.approx(10 / 0.02)


def test_a_flood_that_lets_nobody_through_leaves_room_for_one() -> None:
    """There is a limit to find out with, whatever is refused."""
    traffic = Traffic(Rate())
    traffic.now += 0.02
    traffic.refused(64)
    assert traffic.rate.limit == pytest.approx(50)


def test_under_a_ceiling_the_first_cut_needs_as_much() -> None:
    """A ceiling alone is no limit that was found."""
    assert Traffic(Rate(50_000)).round(860, 140, 172, 28) == 50_000
    assert Traffic(Rate(50_000)).round(800, 200, 160, 40) == pytest.approx(9_600)


def test_after_the_first_cut_the_places_saved_up_are_gone() -> None:
    """The first post after it waits its turn."""
    traffic = Traffic(Rate())
    traffic.round(40, 60, 0, 20)
    traffic.rate.begin(traffic.now)
    assert traffic.rate.wait(traffic.now) == pytest.approx(1 / limit(traffic))


# -- growing and shrinking


def test_a_limit_grows_by_half_its_root() -> None:
    """Each calm round adds a step that is relatively smaller for a large limit."""
    traffic = cut(served=40)
    before = limit(traffic)
    assert traffic.round(40) == pytest.approx(before + 0.5 * sqrt(before))


def test_a_small_limit_grows_by_a_tenth() -> None:
    """Below 25 a second the step is a tenth, and half of that where one answer is all there is."""
    assert cut(served=2).round(4) == pytest.approx(20 * 1.1)
    assert cut(served=2).round(1) == pytest.approx(20 * 1.05)


def test_a_limit_shrinks_by_the_accounts_share() -> None:
    """A quarter refused, and the step that is due anyway."""
    traffic = cut(served=400)
    before = limit(traffic)
    assert traffic.round(240, 80) == pytest.approx(before * (0.75 + 0.5 / sqrt(before)), rel=0.01)


def test_it_settles_where_step_and_share_are_equal() -> None:
    """At 400 a second that is one refusal in forty."""
    traffic = cut(served=40)
    assert traffic.round(39, 1) == pytest.approx(400, rel=0.001)


def test_no_round_shrinks_a_limit_below_what_it_let_through() -> None:
    """A third refused of twice as many as the limit allows: those let through are still more than it."""
    traffic = cut(served=40)
    assert traffic.round(80, 40) == pytest.approx(400)
    assert traffic.round(38, 38) == pytest.approx(380)


def test_one_round_takes_three_fifths_at_most() -> None:
    """A round in which everybody is refused may be an accident."""
    traffic = cut(served=400)
    assert traffic.round(0, 40) == pytest.approx(1_600)


def test_a_lone_refusal_takes_a_quarter_less_the_step() -> None:
    """One answer and it refused: no share of 100 %."""
    traffic = cut(served=4)
    assert traffic.round(0, 1) == pytest.approx(40 * (1 - 0.25 + 0.5 * 0.5 / sqrt(40)))


def test_a_limit_never_falls_below_one_a_second() -> None:
    """Even where nothing at all is let through there is something to find out with."""
    traffic = cut(served=1)
    for _ in range(40):
        traffic.round(0, 3)
    assert traffic.rate.limit == 1.0


def test_calm_rounds_make_the_step_grow() -> None:
    """A limit ten times too low is made good within a second and a half, by growing 30 % a round at most."""
    traffic = cut(served=40)
    limits = [limit(traffic)]
    while limits[-1] < 4_000:
        traffic.round(round(limits[-1] * ROUND))
        limits.append(limit(traffic))
    assert len(limits) <= 16
    assert max(later / before for before, later in pairwise(limits)) == pytest.approx(1.3)


def test_a_refusal_ends_the_calm() -> None:
    """After it the step is small again: less than twice half the root, where it was 30 % before."""
    traffic = cut(served=40)
    for _ in range(8):
        traffic.round(round(limit(traffic) * ROUND))
    traffic.round(round(limit(traffic) * ROUND) - 1, 1)
    before = limit(traffic)
    grown = traffic.round(round(before * ROUND))
    assert grown is not None
    assert grown < before + sqrt(before)


def test_a_limit_that_holds_nobody_back_does_not_grow() -> None:
    """What is not used is no evidence that there is more."""
    traffic = cut(served=40)
    before = limit(traffic)
    for _ in range(20):
        traffic.served(10)
        traffic.tick()
    assert traffic.rate.limit == before


def test_a_round_without_answers_is_none() -> None:
    """Seconds without an answer change nothing."""
    traffic = cut(served=40)
    before = limit(traffic)
    traffic.rate.wait(traffic.now)
    for _ in range(50):
        traffic.tick()
    assert traffic.rate.limit == before


def test_a_tick_before_its_time_ends_no_round() -> None:
    """A round lasts a tenth of a second, and a tenth of that is its play."""
    for part, ends in [(0.89, False), (0.91, True)]:
        traffic = cut(served=40)
        before = limit(traffic)
        traffic.refused(40)
        traffic.tick(ROUND * part)
        assert (limit(traffic) < before) is ends


def test_it_grows_no_higher_than_the_ceiling() -> None:
    """The ceiling holds always."""
    traffic = cut(served=40, ceiling=410)
    for _ in range(20):
        traffic.round(40)
    assert traffic.rate.limit == 410


def test_two_limits_on_one_account_drift_to_equal_shares() -> None:
    """Refused alike, the larger gives way to the smaller: four times as much becomes about twice within 40 s."""
    small, large = cut(served=20), cut(served=80)
    for _ in range(400):
        share = max(0.0, 1 - 1_000 / (limit(small) + limit(large)))
        for each in (small, large):
            posts = limit(each) * ROUND
            each.round(round(posts * (1 - share)), round(posts * share))
    assert limit(large) / limit(small) < 2.5


def test_full_buffers_under_a_limit_are_left_to_it() -> None:
    """A tenth of the clients refusing twice takes next to nothing from a limit, however long."""
    traffic = cut(served=400)
    for _ in range(50):
        traffic.round(360, 40, 40, 40)
    assert limit(traffic) > 3_000


# -- what is no evidence


def test_a_client_refused_over_and_over_says_nothing() -> None:
    """Tries after three refusals in a row are no evidence: the limit stays."""
    traffic = cut(served=40)
    before = limit(traffic)
    for _ in range(20):
        traffic.refused(10, 4)
        traffic.tick()
    assert traffic.rate.limit == before


def test_a_tail_of_full_buffers_says_nothing() -> None:
    """At a batch's end only the full are left: without others beside them they move no limit."""
    traffic = cut(served=400)
    for _ in range(20):
        traffic.round(360, 40, 40, 40)
    before = limit(traffic)
    for _ in range(50):
        traffic.round(0, 0, 10, 20)
    assert traffic.rate.limit == before


def test_a_tail_under_the_accounts_limit_goes_on_adapting() -> None:
    """Where refusals have been the account's, they still are when everybody was refused once."""
    traffic = cut(served=40)
    for _ in range(20):
        traffic.round(0, 0, 10, 30)
    assert limit(traffic) < 150


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1, max_size=40), st.integers(10, 400))
def test_without_account_refusals_it_never_falls_below_what_was_accepted(
    rounds: list[tuple[int, int]], found: int
) -> None:
    """Whatever full buffers refuse: no limit sinks under the rate at which posts were let through meanwhile."""
    traffic = cut(served=found)
    for served, full in rounds:
        before = limit(traffic)
        traffic.round(served, full, full, full)
        assert limit(traffic) >= min(before, (served + full) / ROUND) * (1 - 1e-9)


# -- which refusals count as tries


def test_a_lone_full_buffer_counts_its_tries() -> None:
    """One client that is refused and nobody else: from the third refusal on it must be its own."""
    traffic = Traffic(Rate())
    verdicts = [traffic.refused(1, in_a_row)[0] for in_a_row in range(1, 8)]
    assert not any(verdicts[2:])
    assert traffic.rate.limit is None


def test_a_full_buffer_among_many_counts_each_try() -> None:
    """Where others are let through no refusal is put down to the account."""
    traffic = Traffic(Rate())
    traffic.served(500)
    assert traffic.refused(1) == [False]


def test_under_the_accounts_limit_refusals_count_no_try() -> None:
    """Half of all refused: four in a row are nothing unusual, five are."""
    traffic = cut(served=40)
    for _ in range(3):
        traffic.round(20, 20, 20, 20)
    verdicts = [traffic.refused(1, in_a_row)[0] for in_a_row in range(1, 7)]
    assert verdicts == [True] * 4 + [False] * 2


def test_eleven_refusals_in_a_row_count_in_any_case() -> None:
    """However many others are refused, a client is given up at last."""
    traffic = Traffic(Rate())
    traffic.refused(500)
    assert traffic.refused(1, 10) == [True]
    assert traffic.refused(1, 11) == [False]


# -- forgetting


@pytest.mark.parametrize("ceiling", [None, 9_000.0])
def test_a_limit_is_forgotten_after_thirty_seconds(ceiling: float | None) -> None:
    """A limit outlives its invocation, but no invocation 30 s after the account's last refusal."""
    traffic = cut(ceiling=ceiling)
    before = limit(traffic)
    traffic.rate.begin(traffic.now + 29.9)
    assert traffic.rate.limit == before
    traffic.rate.begin(traffic.now + 30.1)
    assert traffic.rate.limit == ceiling


def test_each_refusal_of_the_account_renews_a_limit() -> None:
    """The thirty seconds count from the last of them."""
    traffic = cut()
    traffic.now += 20
    traffic.round(38, 2)
    before = limit(traffic)
    traffic.rate.begin(traffic.now + 29)
    assert traffic.rate.limit == before


def test_an_invocation_starts_a_new_round() -> None:
    """What the last invocation's answers came to does not count in the next."""
    rate = Rate()
    Traffic(rate).refused(40)
    again = Traffic(rate, 1_000.05)
    assert again.round(refused=4) is None


def test_what_was_learnt_is_forgotten_with_the_limit() -> None:
    """Half a minute later a rate judges refusals and finds its first limit as one that knows nothing."""
    known = cut()
    for _ in range(5):
        known.round(30, 10, served_again=3, refused_again=8)
    seen = []
    for rate in (known.rate, Rate()):
        traffic = Traffic(rate, known.now + 31)
        traffic.served(20)
        verdicts = [traffic.refused(2, in_a_row) for in_a_row in (1, 2, 3)]
        seen.append((verdicts, traffic.round(40, 2, 4, 6), traffic.round(40, 30), traffic.round(30, 2, 1, 2)))
    assert seen[0] == seen[1]
