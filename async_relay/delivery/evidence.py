"""Which rows may go because their clients answered 410. Decides, does no I/O.

Another API's endpoint answers 410 to every id, and looks the same as a table of clients that have all
left. Deleting a row cannot be taken back while the client is connected.

Rules
- A 200 proves the endpoint, for the life of the sandbox: from then on every 410 is believed.
- Before it, a row goes whose connection is older than API Gateway lets any live; and of the others a
  few, in all the sandbox's life.
- The rest is held until the first 200, or stays.

Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable

# API Gateway closes a WebSocket connection after two hours ("Quotas", "Connection duration for WebSocket API"); ten
# minutes more are for clocks that disagree and for the time between the handshake and the row.
_LONGEST_CONNECTION_MS = (2 * 60 + 10) * 60_000
# API Gateway has had WebSockets since December 2018: an earlier time is in seconds, or nonsense, and proves nothing.
_FIRST_CONNECTION_MS = 1_543_622_400_000
# One call of BatchWriteItem takes so many: few to lose, and enough to empty a table whose last clients have left.
_ON_TRUST = 25


class Evidence:
    """The answers that tell one sandbox whether its endpoint is the right one; ``proven`` once it answered 200."""

    __slots__ = ("_on_trust", "_wall_clock", "proven")

    def __init__(self, wall_clock: Callable[[], float]) -> None:
        self.proven = False
        self._on_trust: set[str] = set()
        self._wall_clock = wall_clock

    def __repr__(self) -> str:
        """A sentence for logs."""
        return "the endpoint answered 200" if self.proven else f"no 200 yet; {len(self._on_trust)} rows went on trust"

    def suffices(self, connection_id: str, created_at: int | None) -> bool:
        """Whether the row of a client that answered 410 may go now; one that goes on trust is remembered."""
        if self.proven or self._outlived(created_at):
            return True
        if len(self._on_trust) < _ON_TRUST:
            self._on_trust.add(connection_id)
        return connection_id in self._on_trust

    def _outlived(self, created_at: int | None) -> bool:
        if created_at is None or created_at < _FIRST_CONNECTION_MS:
            return False
        return self._wall_clock() * 1000 - created_at > _LONGEST_CONNECTION_MS
