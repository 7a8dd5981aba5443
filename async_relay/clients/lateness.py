"""What may have gone past a client that has only just come. Pure.

Rules
- A message goes past a client when its broadcast read the connections without finding the client's row. What was read
  of a table or a feed after the row was written has that message; what was read before may lack it.
- A consistent read finds a row once it is written. An index may lack it for a moment more, so where rows are read from
  an index a young client has to ask again.

A row's ``createdAt`` is in ms, and may be missing or nonsense: then nobody knows.
Source: DynamoDB Developer Guide, "Using Global Secondary Indexes", "Data synchronization".
"""

from __future__ import annotations

from ..settings import Settings
from ..wire.jobs import Client, ShardKind

# Seconds by which a row's time and ours may differ.
_MARGIN = 1.0
# A createdAt before API Gateway had WebSockets is none: seconds, or nonsense.
_FIRST_CONNECTION_MS = 1_543_622_400_000
# Seconds for which an index may lack a new row: DynamoDB brings it up to date within a second, save for a rare failure.
_INDEX_LATE = 5


def came_before(created_at: int | None, read_at: float) -> bool:
    """Whether a row was surely there when something was read, at ``read_at`` in seconds since 1970."""
    known = created_at is not None and created_at >= _FIRST_CONNECTION_MS
    return known and (created_at or 0) / 1000 + _MARGIN <= read_at


def ask_again(client: Client, settings: Settings, now: float, read_at: float | None = None) -> dict[str, int]:
    """``again``, the seconds after which a client has to resume from the answer's position; nothing where it need not.

    ``now``: when the feed was looked at, where it was. ``read_at``: when the answer's data was read, if that may have
    been before the row was written.
    """
    if settings.feed_table is None:
        return {}
    if read_at is not None and not came_before(client.created_at, read_at):
        return {"again": 0}
    indexed = settings.shard_kind is ShardKind.PARTITION
    young = client.created_at is not None and abs(now - client.created_at / 1000) < _INDEX_LATE
    return {"again": _INDEX_LATE} if indexed and young else {}
