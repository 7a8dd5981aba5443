"""Which client should have got which message, and which did. Pure.

Messages are numbered from 1 on, clients from 0 on. A client expects every message from the first batch that begins
after it came to the last one that was settled before it left; what it gets besides is fine. A message that comes again
is a repeat, one that comes behind a later one is late: both may happen, none may be missing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import NamedTuple


class Shortfall(NamedTuple):
    """The missing messages: how many, of how many clients, and a few of those clients."""

    messages: int
    clients: int
    examples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tally:
    """The messages that arrived so far."""

    arrived: int
    repeats: int
    late: int


class Ledger:
    """Eight bytes per client, whatever the number of messages, as long as they come in order."""

    def __init__(self) -> None:
        self._first = array("I")
        self._upto = array("I")
        self._ahead: dict[int, set[int]] = {}
        self._last: dict[int, int] = {}
        self._arrived = self._repeats = self._late = 0

    def join(self, count: int, first: int) -> range:
        """So many new clients, who expect everything from ``first`` on; their numbers."""
        start = len(self._first)
        self._first.extend([first] * count)
        self._upto.extend([first - 1] * count)
        return range(start, start + count)

    def expects(self, client: int, message: int) -> bool:
        """Whether it came before the batch of this message began."""
        return self._first[client] <= message

    def leave(self, client: int, last: int) -> None:
        """It expects nothing after ``last`` any more."""
        self._last[client] = min(last, self._last.get(client, last))

    def arrive(self, client: int, message: int) -> None:
        """It got this message."""
        upto, ahead = self._upto[client], self._ahead.get(client)
        if message == upto + 1:
            self._arrived += 1
            self._late += bool(ahead)
            self._advance(client, message)
        elif message <= upto and message >= self._first[client]:
            self._repeats += 1
        elif message > upto:
            self._skip(client, message)

    def _advance(self, client: int, message: int) -> None:
        ahead = self._ahead.get(client)
        while ahead and message + 1 in ahead:
            message += 1
            ahead.discard(message)
        if ahead is not None and not ahead:
            del self._ahead[client]
        self._upto[client] = message

    def _skip(self, client: int, message: int) -> None:
        ahead = self._ahead.setdefault(client, set())
        if message in ahead:
            self._repeats += 1
        else:
            self._arrived += 1
            self._late += message < max(ahead, default=0)
            ahead.add(message)

    def tally(self) -> Tally:
        """The messages that arrived so far at clients that expect them."""
        return Tally(self._arrived, self._repeats, self._late)

    def shortfall(self, last: int) -> Shortfall:
        """The messages that are missing if ``last`` was the last of all."""
        missing: dict[int, int] = {}
        for client, upto in enumerate(self._upto):
            end = self._last.get(client, last)
            if upto < end:
                lacks = end - upto - sum(message <= end for message in self._ahead.get(client, ()))
                if lacks > 0:
                    missing[client] = lacks
        return Shortfall(sum(missing.values()), len(missing), tuple(list(missing)[:5]))
