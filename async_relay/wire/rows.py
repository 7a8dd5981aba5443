"""A row of the connections table: what is written when a client connects. Pure.

    connectionId  S   the key                    createdAt  N   ms            ttl  N   s      clientId  S
    principal     S   whom the token names       expiresAt  N   s: until when the token is good
    tenants       SS  whose messages it may have interest   S   JSON object of lists
    frames        S   "array": many messages in one post    shard      N   where an index is used

Rules
- All but the key may be missing: other functions write rows too.
- What is there and cannot be read is taken as the stricter reading: an ``expiresAt`` as long past, ``tenants`` as
  none, an ``interest`` as one for nothing, ``frames`` as none but what every client reads: one object a post.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .audience import Access, Interest, read_interest
from .jobs import Client

#: The last second of the year 9999. What says that it ends later is in milliseconds, or nonsense: nobody may stay for
#: ever because somebody mixed up the units.
END_OF_TIME = 253_402_300_799
_NO_TENANTS: frozenset[str] = frozenset()
_NO_INTEREST = "{}"
#: The attribute ``frames`` of a client that reads arrays.
ARRAY = "array"
_ARRAY = {"S": ARRAY}


@dataclass(frozen=True, slots=True)
class Row:
    """A row to write: ``created_at`` in ms, ``ttl`` and ``expires_at`` in seconds since 1970."""

    connection_id: str
    client_id: str
    created_at: int
    ttl: int
    principal: str | None = None
    expires_at: int | None = None
    tenants: frozenset[str] = frozenset()
    interest: str | None = None
    frames: str | None = None

    def attributes(self) -> dict[str, Any]:
        """The row as plain values by attribute, without what it does not have."""
        attributes = {
            "connectionId": self.connection_id,
            "clientId": self.client_id,
            "createdAt": self.created_at,
            "ttl": self.ttl,
            "principal": self.principal,
            "expiresAt": self.expires_at,
            "tenants": self.tenants or None,
            "interest": self.interest,
            "frames": self.frames,
        }
        return {name: value for name, value in attributes.items() if value is not None}


def client_of(connection_id: str, row: Mapping[str, Any]) -> Client:
    """The client of a row of plain values: whole numbers, text, and a frozenset of tenants."""
    expires_at = _end(_whole(row["expiresAt"])) if "expiresAt" in row else None
    access = None
    if "tenants" in row or "interest" in row:
        tenants, interest = row.get("tenants", _NO_TENANTS), row.get("interest", _NO_INTEREST)
        access = Access(
            tenants if isinstance(tenants, frozenset) else _NO_TENANTS,
            read_interest(interest) if isinstance(interest, str) else None,
        )
    return Client(connection_id, _whole(row.get("createdAt")), 0, expires_at, access, row.get("frames") == ARRAY)


def typed_client(item: Mapping[str, Any]) -> Client:
    """The same for an item as DynamoDB returns it; raises ``KeyError`` or ``TypeError`` where its key is no text."""
    expires_at = _end(_second(item["expiresAt"])) if "expiresAt" in item else None
    access = None
    if "tenants" in item or "interest" in item:
        access = Access(
            _tenants(item["tenants"]) if "tenants" in item else _NO_TENANTS,
            _interest(item["interest"]) if "interest" in item else (),
        )
    created_at, frames = _time(item.get("createdAt")), "frames" in item and item["frames"] == _ARRAY
    return Client(item["connectionId"]["S"], created_at, 0, expires_at, access, frames)


def _time(typed: Any) -> int | None:
    """The whole number of an attribute; None where it is none."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _second(typed: Any) -> int | None:
    """The number of an attribute without its fraction; None where it is no number."""
    whole = _time(typed)
    if whole is not None:
        return whole
    try:
        return int(Decimal(typed["N"]))
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None


def _tenants(typed: Any) -> frozenset[str]:
    """The text of a set of text; none for anything else."""
    try:
        (names,) = typed.values()
        "".join(names)  # every one is text
        return frozenset(typed["SS"]) if isinstance(names, list) else _NO_TENANTS
    except (AttributeError, KeyError, TypeError, ValueError):
        return _NO_TENANTS


def _interest(typed: Any) -> Interest | None:
    try:
        (text,) = typed.values()
        return read_interest(typed["S"]) if isinstance(text, str) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _end(second: int | None) -> int:
    return 0 if second is None or second > END_OF_TIME else second
