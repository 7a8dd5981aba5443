"""The pace of a command: so many calls a second, however many threads make them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# Seconds until somebody who waits sees that the command is to end.
_NAP = 0.2


@dataclass(slots=True)
class Pacer:
    """Spreads turns evenly over every second, for all threads together."""

    rate: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0

    def wait(self, turns: int = 1, ended: Callable[[], bool] = lambda: False) -> None:
        """Until it is the caller's turn, which counts as so many, or ``ended`` says that nobody waits any more."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + turns / self.rate
        while (left := turn - time.monotonic()) > 0 and not ended():
            time.sleep(min(left, _NAP))
