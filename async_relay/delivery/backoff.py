"""How long to wait before the next try. Pure; times in seconds.

Full jitter spreads a crowd of retries best (AWS Architecture Blog, "Exponential Backoff And
Jitter"); equal jitter waits at least half, for what needs time to come true.
"""

from __future__ import annotations

from random import Random

BASE = 0.1
CAP = 3.0
MAX_QUEUE_DELAY = 900


def exponential(tries: int, base: float = BASE, cap: float = CAP) -> float:
    """``base`` doubled with each try after the first, at most ``cap``."""
    return min(cap, base * 2.0 ** min(tries - 1, 60))


def full_jitter(tries: int, random: Random) -> float:
    """Anything from nothing to the exponential wait."""
    return random.random() * exponential(tries)


def equal_jitter(tries: int, random: Random) -> float:
    """At least half of the exponential wait."""
    return (1 + random.random()) * exponential(tries) / 2


def queue_delay(attempt: int, base: float) -> int:
    """Whole seconds a job waits in the queue before its ``attempt``; SQS allows 900."""
    return int(exponential(attempt, base, MAX_QUEUE_DELAY))
