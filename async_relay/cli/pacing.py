"""The pace of a command: so many calls a second, however many threads make them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Pacer:
    """Spreads turns evenly over every second, for all threads together."""

    rate: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0

    def wait(self, turns: int = 1) -> None:
        """Until it is the caller's turn, which counts as so many."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + turns / self.rate
        time.sleep(turn - now)
