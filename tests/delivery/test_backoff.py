"""How long the next try waits: doubled, capped, and jittered within its bounds."""

from __future__ import annotations

from random import Random
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.delivery.backoff import BASE, CAP, MAX_QUEUE_DELAY, equal_jitter, exponential, full_jitter, queue_delay

PROPERTY = settings(deadline=None, max_examples=80)
TRIES = st.integers(1, 10**6)


@pytest.mark.parametrize(
    ("tries", "seconds"), [(1, 0.1), (2, 0.2), (3, 0.4), (4, 0.8), (5, 1.6), (6, 3.0), (7, 3.0), (10**9, 3.0)]
)
def test_the_wait_doubles_up_to_the_cap(tries: int, seconds: float) -> None:
    """A tenth of a second after the first try, doubled with each, three seconds at most."""
    assert exponential(tries) == pytest.approx(seconds)
    assert (BASE, CAP) == (0.1, 3.0)


@PROPERTY
@given(TRIES, st.integers())
def test_full_jitter_stays_within_the_wait(tries: int, seed: int) -> None:
    """Full jitter is anything from nothing to the whole wait."""
    assert 0.0 <= full_jitter(tries, Random(seed)) <= exponential(tries)


@PROPERTY
@given(TRIES, st.integers())
def test_equal_jitter_waits_at_least_half(tries: int, seed: int) -> None:
    """Equal jitter is anything from half of the wait to the whole."""
    assert exponential(tries) / 2 <= equal_jitter(tries, Random(seed)) <= exponential(tries)


def test_jitter_spreads_over_its_whole_range() -> None:
    """Many waits reach both ends of their range and lie around its middle."""
    random = Random(7)
    full = [full_jitter(5, random) / exponential(5) for _ in range(2_000)]
    equal = [equal_jitter(5, random) / exponential(5) for _ in range(2_000)]
    assert (min(full), max(full), mean(full)) == pytest.approx((0.0, 1.0, 0.5), abs=0.02)
    assert (min(equal), max(equal), mean(equal)) == pytest.approx((0.5, 1.0, 0.75), abs=0.02)


@pytest.mark.parametrize(
    ("attempt", "base", "seconds"),
    [
        *[(1, 5.0, 5), (2, 5.0, 10), (3, 5.0, 20), (8, 5.0, 640), (9, 5.0, 900), (1_000, 5.0, 900)],
        *[(1, 0.0, 0), (50, 0.0, 0), (1, 0.4, 0), (2, 0.5, 1), (1, 900.0, 900), (1, 1.9, 1)],
    ],
)
def test_a_queues_delay_is_whole_seconds_up_to_900(attempt: int, base: float, seconds: int) -> None:
    """The queue's delay doubles from its base, in whole seconds, as far as SQS allows; 0 stays at once."""
    assert queue_delay(attempt, base) == seconds
    assert MAX_QUEUE_DELAY == 900


@PROPERTY
@given(TRIES, st.floats(0, 900))
def test_no_queue_delay_is_one_that_sqs_refuses(attempt: int, base: float) -> None:
    """Any attempt and base make a delay from 0 to 900."""
    delay = queue_delay(attempt, base)
    assert isinstance(delay, int)
    assert 0 <= delay <= 900
