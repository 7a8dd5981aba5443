"""A row of the connections table: what is written when a client connects. Pure.

    connectionId  S   the key                    createdAt  N   ms            ttl  N   s      clientId  S
    principal     S   whom the token names       expiresAt  N   s: until when the token is good
    tenants       SS  whose messages it may have interest   S   JSON object of lists
    frames        S   "array": many messages in one post    shard      N   where an index is used

Rules
- All but the key may be missing: other functions write rows too.
- What is there and cannot be read is taken as the stricter reading: an ``expiresAt`` as long past, ``tenants`` as
  none, an ``interest`` as one for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .audience import Access, read_interest
from .jobs import Client

#: The second after which no time is taken seriously: the end of the year 9999.
END_OF_TIME = 253_402_300_799


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
    expires_at = _expiry(row["expiresAt"]) if "expiresAt" in row else None
    access = _access(row) if "tenants" in row or "interest" in row else None
    return Client(connection_id, _whole(row.get("createdAt")), 0, expires_at, access)


def typed_client(item: Mapping[str, Any]) -> Client:
    """The same for an item as DynamoDB returns it; raises ``KeyError`` or ``TypeError`` where its key is no text."""
    expires_at = _expiry(_second(item["expiresAt"])) if "expiresAt" in item else None
    access = None
    if "tenants" in item or "interest" in item:
        access = _access({name: _plain(item[name]) for name in ("tenants", "interest") if name in item})
    return Client(item["connectionId"]["S"], _time(item.get("createdAt")), 0, expires_at, access)


def _time(typed: Any) -> int | None:
    """The whole number of an attribute; None where it is none."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _second(typed: Any) -> int | None:
    """The number of an attribute without its fraction; None where it is no number."""
    try:
        return int(Decimal(typed["N"]))
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None


def _plain(typed: Any) -> Any:
    """The text or the set of text of an attribute; None for anything else."""
    if isinstance(typed, Mapping) and len(typed) == 1:
        ((tag, value),) = typed.items()
        if tag == "S" and isinstance(value, str):
            return value
        if tag == "SS" and isinstance(value, list) and all(isinstance(each, str) for each in value):
            return frozenset(value)
    return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _expiry(value: Any) -> int:
    whole = _whole(value)
    return 0 if whole is None else min(whole, END_OF_TIME)


def _access(row: Mapping[str, Any]) -> Access:
    tenants, interest = row.get("tenants"), row.get("interest", "{}")
    return Access(
        tenants if isinstance(tenants, frozenset) else frozenset(),
        read_interest(interest) if isinstance(interest, str) else None,
    )
