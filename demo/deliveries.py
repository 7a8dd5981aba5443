"""What has become of the deliveries of late, in figures. Pure.

A delivery waits while its change is written, in a post, or parked in the retry queue; it is never lost, so in a quiet
moment none waits.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from .ledger import Ledger, percentile

_DELAYS_SECONDS = 10.0
# Longer than anything is parked in a demo: a job whose worker was killed is hidden for six minutes.
_WAITING_SECONDS = 900.0


def figures(ledger: Ledger, now: float) -> dict[str, Any]:
    """How many were made in all, how many wait and the oldest for how long, and the delays of the last ten seconds.

    Delays are in milliseconds, None where there was no delivery.
    """
    recent = list(takewhile(lambda write: now - write.at < _WAITING_SECONDS, reversed(ledger.writes)))
    waiting = [(now - write.at, len(write.audience - write.took.keys())) for write in recent if not write.complete]
    took = sorted(
        seconds for write in recent for seconds in write.took.values() if now - write.at - seconds < _DELAYS_SECONDS
    )
    return {
        "written": len(ledger.writes),
        "delivered": ledger.deliveries,
        "repeated": ledger.repeated,
        "waiting": sum(count for _, count in waiting),
        "oldest": round(max((age for age, _ in waiting), default=0.0), 1),
        "p50": _milliseconds(percentile(took, 0.5)),
        "p99": _milliseconds(percentile(took, 0.99)),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
