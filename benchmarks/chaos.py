"""A load test with everything wrong at once, beside a clean one: whether the healthy clients notice. Pure.

Each run measures every delivery from the moment its batch is handed to the handler. A sick client's own
deliveries are late whatever the relay does; they are few, so the 95th percentile is the others'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The options that ``--chaos`` sets where the command line says nothing else.
PRESET: Mapping[str, float] = {
    # One in a hundred has a full buffer, one in twenty has gone and left its row behind.
    "throttled": 0.01,
    "gone": 0.05,
    # Each of them holds a place for the whole timeout of a post, once a message.
    "hanging": 0.002,
    "erring": 0.005,
    # A fifth of API Gateway's default, and less than a machine posts by itself: the relay has to find it.
    "account_limit": 2_000.0,
    "churn": 20.0,
    # A batch of five messages lasts 15 s where somebody hangs at each: long enough for a second batch.
    "duration": 30.0,
}
#: How many times a clean run's p95 a chaotic one's may be.
WITHIN = 2.0
_POINTS = ("p50", "p95", "p99", "last")


def option(name: str, given: float | None, *, chaos: bool) -> float:
    """The value on the command line, else the preset's under ``--chaos``, else 0."""
    if given is not None:
        return given
    return PRESET[name] if chaos and name in PRESET else 0.0


def ratios(clean: Mapping[str, Any], chaotic: Mapping[str, Any]) -> dict[str, float]:
    """Each point of the chaotic run's deliveries as a multiple of the clean run's."""
    before, now = clean["delivery_seconds"], chaotic["delivery_seconds"]
    return {point: now[point] / before[point] if before[point] else float("inf") for point in _POINTS}


def problem(found: Mapping[str, float]) -> str | None:
    """A sentence where the chaotic run's p95 is too high."""
    if found["p95"] <= WITHIN:
        return None
    return f"p95 from event to delivery is {found['p95']:.2f} times that of the clean run; {WITHIN:g} are allowed"
