"""How long to wait before the next try. Pure; times in seconds.

Full jitter spreads many retries best (AWS Architecture Blog, "Exponential Backoff And
Jitter"); equal jitter waits at least half, where a wait is needed for
the next try to fare better.
"""

from __future__ import annotations

from random import Random

# Seconds: a socket that was cut or a loaded server is often well again after a few round trips.
BASE = 0.1
# Seconds: the longest wait within an invocation; a client that is back is found within a post timeout.
CAP = 3.0
# Seconds: SQS delays a message no longer (SendMessage, "DelaySeconds").
MAX_QUEUE_DELAY = 900


def exponential(tries: int, base: float = BASE, cap: float = CAP) -> float:
    """``base`` doubled with each try after the first, at most ``cap``."""
    return min(cap, base * 2.0 ** min(tries - 1, 60))


def full_jitter(tries: int, random: Random) -> float:
    """A random wait from nothing to the exponential one."""
    return random.random() * exponential(tries)


def equal_jitter(tries: int, random: Random) -> float:
    """At least half of the exponential wait."""
    return (1 + random.random()) * exponential(tries) / 2


def queue_delay(attempt: int, base: float) -> int:
    """Whole seconds a job waits in the queue before its ``attempt``; SQS allows 900."""
    return int(exponential(attempt, base, MAX_QUEUE_DELAY))
