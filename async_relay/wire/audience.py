"""Who may have which messages: tenants, which guard, and interest, which saves posts. Pure.

Rules
- Tenants fail closed. Where they are on, a row without ``tenants`` gets nothing, and a message without a tenant goes
  to ``*`` alone. A tenant is text or a whole number, and compared as text.
- Interest guards nothing. A message that lacks a key the interest names is not excluded by it. An interest nobody can
  read lets no message through.
- What is ``for_all`` is everybody's, whatever their rows say: a ping.
- Whether a client wants one message never depends on its other messages, so a client that has some of them already is
  decided about like any other.

``wants`` says it for one message. ``Audience`` gives the same answers for a whole job, and looks at no message twice:
with 10,000 tenants and 1,000 messages it costs a client one look per tenant of its own, and not one per message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .messages import Message, is_shallow

#: A row with this tenant may have everything.
EVERY_TENANT = "*"
#: What a client can be interested in: the keys of a message.
INTEREST_KEYS = ("kind", "severity", "status", "event_type")
# Rows hold few different interests, and one of these is a kilobyte at most.
_REMEMBERED = 1_024
# A map of lists.
_LEVELS = 2

#: For each key the values wanted, in one order, so that equal interests are equal.
Interest = tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True, slots=True)
class Access:
    """The messages a row lets its client have, and those it wants; an ``interest`` of None cannot be read."""

    tenants: frozenset[str] = frozenset()
    interest: Interest | None = ()


def wants(access: Access, payload: Mapping[str, Any], *, by_tenant: bool) -> bool:
    """Whether a client with this access gets the message with this payload; ``by_tenant``: tenants are on."""
    if access.interest is None:
        return False
    if by_tenant and EVERY_TENANT not in access.tenants and tenant_of(payload) not in access.tenants:
        return False
    labels = ((_label(payload.get(key)), values) for key, values in access.interest)
    return all(label is None or label in values for label, values in labels)


def tenant_of(payload: Mapping[str, Any]) -> str | None:
    """The tenant a message is for, as text; None where it has none. Fractions are none: two may be the same float."""
    tenant = payload.get("tenant")
    return None if isinstance(tenant, float) else _label(tenant) or None


@lru_cache(maxsize=_REMEMBERED)
def read_interest(text: str) -> Interest | None:
    """The interest of a row's attribute; None where it is not a JSON object of lists of text or numbers."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or not is_shallow(fields, _LEVELS):
        return None
    if not all(isinstance(values, list) and None not in map(_label, values) for values in fields.values()):
        return None
    return tuple((key, frozenset(map(str, fields[key]))) for key in sorted(fields))


def _label(value: Any) -> str | None:
    """Text or a number as text; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


class Audience:
    """The messages of a job, ready for the question which of them a client gets.

    An answer is a bit mask: bit 0 stands for the first message.
    """

    def __init__(self, messages: Sequence[Message], *, by_tenant: bool, for_all: bool = False) -> None:
        """``by_tenant``: tenants are on; ``for_all``: whatever a row says, its client gets all messages."""
        self.by_tenant = by_tenant and not for_all
        self._for_all = for_all
        self._messages = messages
        self._payloads: list[Mapping[str, Any]] | None = None
        self._all = (1 << len(messages)) - 1
        self._indexes: dict[str, dict[str | None, int]] = {}

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._messages)} messages{', by tenant' * self.by_tenant}>"

    def wanted(self, access: Access) -> int:
        """The messages that a client with this access gets."""
        if self._for_all:
            return self._all
        if access.interest is None:
            return 0
        mask = self._all
        if self.by_tenant and EVERY_TENANT not in access.tenants:
            mask = self._of("tenant", access.tenants)
        for key, values in access.interest:
            mask &= self._of(key, values) | self._index(key).get(None, 0)
        return mask

    def _of(self, key: str, values: frozenset[str]) -> int:
        index = self._index(key)
        mask = 0
        for value in values:
            mask |= index.get(value, 0)
        return mask

    def _index(self, key: str) -> dict[str | None, int]:
        """The messages by their value of ``key``; under None those that have none."""
        index = self._indexes.get(key)
        if index is None:
            if self._payloads is None:
                self._payloads = [message.payload for message in self._messages]
            index = self._indexes[key] = {}
            for at, payload in enumerate(self._payloads):
                label = tenant_of(payload) if key == "tenant" else _label(payload.get(key))
                index[label] = index.get(label, 0) | 1 << at
        return index
