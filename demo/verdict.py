"""Did every client get every message that it may have, once and in order, and no other? Pure.

A complaint is one sentence about one client; no complaints is a pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from .feed import Marker
from .ledger import Delivery, Ledger


def complaints(ledger: Ledger) -> list[str]:
    """What is wrong with what each client received."""
    clients = sorted({client for write in ledger.writes for client in write.audience} | ledger.received.keys())
    return [
        f"{client} {fault}"
        for client in clients
        for fault in faults(ledger.expected(client), ledger.received.get(client, []))
    ]


def faults(expected: Sequence[Marker], received: Sequence[Delivery]) -> Iterator[str]:
    """What is wrong with one client's messages."""
    markers = [delivery.marker for delivery in received]
    yield from miscounts(expected, markers)
    place = {marker: number for number, marker in enumerate(expected)}
    order = [place[marker] for marker in dict.fromkeys(markers) if marker in place]
    yield from _late(order, expected, "was written before what it got first")
    yield from _late_sequences(received)


def miscounts(expected: Iterable[Marker], received: Iterable[Marker]) -> Iterator[str]:
    """What is missing, what came more than once, and what should not have come at all."""
    wanted, counts = dict.fromkeys(expected), Counter(received)
    missing = [marker for marker in wanted if marker not in counts]
    if missing:
        yield f"lacks {len(missing)} of {len(wanted)} messages, the first of them {missing[0]}"
    for marker, count in counts.items():
        if marker not in wanted:
            yield f"got what was not meant for it: {marker}"
        elif count > 1:
            yield f"got {marker} {count} times"


def _late(order: Sequence[int], expected: Sequence[Marker], why: str) -> Iterator[str]:
    for before, after in pairwise(order):
        if after < before:
            yield f"got messages out of order: {expected[after]} {why}, {expected[before]}"


def _late_sequences(received: Sequence[Delivery]) -> Iterator[str]:
    for before, after in pairwise(received):
        if not (before.sequence.isdecimal() and after.sequence.isdecimal()):
            yield f"got a message without a sequence near {after.marker}"
        elif int(after.sequence) < int(before.sequence):
            yield f"got a lower sequence after a higher one, at {after.marker}"
