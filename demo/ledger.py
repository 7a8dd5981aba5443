"""Who got what, how fast. Pure.

Rules
- A delivery belongs to the change of the same marker; one that fits none is kept all the same, for
  the verdict.
- The time of a delivery is from just before the write to the table until the dashboard has it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .feed import Change, Marker


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message at one dashboard."""

    marker: Marker
    sequence: str
    event_id: str

    @classmethod
    def of(cls, payload: dict[str, Any]) -> Delivery:
        """The delivery a payload is."""
        return cls(Marker.of(payload), str(payload.get("sequence", "")), str(payload.get("event_id", "")))


@dataclass(slots=True)
class Write:
    """One change written: whom it must reach, and how long it took to reach each, in seconds."""

    change: Change
    audience: frozenset[str]
    at: float
    took: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True where everybody has it."""
        return self.audience <= self.took.keys()


class Ledger:
    """Everything written and everything received."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        self.received: dict[str, list[Delivery]] = {}
        self.repeated = 0
        self._by_marker: dict[Marker, Write] = {}

    def wrote(self, change: Change, audience: Iterable[str], at: float) -> Write:
        """Note a change that is about to be written."""
        write = Write(change, frozenset(audience), at)
        self.writes.append(write)
        self._by_marker[change.marker] = write
        return write

    def got(self, client: str, payload: dict[str, Any], at: float) -> None:
        """Note what a dashboard received."""
        delivery = Delivery.of(payload)
        self.received.setdefault(client, []).append(delivery)
        write = self._by_marker.get(delivery.marker)
        if write is not None:
            self.repeated += client in write.took
            write.took.setdefault(client, at - write.at)

    def expected(self, client: str) -> list[Marker]:
        """What ``client`` must have got, in order."""
        return [write.change.marker for write in self.writes if client in write.audience]

    @property
    def complete(self) -> bool:
        """True where everybody has everything."""
        return all(write.complete for write in self.writes)

    @property
    def deliveries(self) -> int:
        """Messages received, by all together."""
        return sum(map(len, self.received.values()))

    def latencies(self, last: int = 0) -> list[float]:
        """How long each delivery took, of the ``last`` changes or of all, shortest first, in seconds."""
        return sorted(seconds for write in self.writes[-last:] for seconds in write.took.values())


def percentile(ordered: list[float], share: float) -> float | None:
    """The smallest value that at least ``share`` of ``ordered`` does not exceed; None of nothing."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]
