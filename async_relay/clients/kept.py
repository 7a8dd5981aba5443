"""A message or an item as a sandbox keeps it, and how much of it fits an answer. Pure.

Rules
- What is kept is bytes, and the few labels that decide who may have it, which equal ones share: a tenth of what
  Python's maps take.
- An answer stays under what API Gateway takes. What is too large for one by itself loses its largest values and says
  ``"truncated": true``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..wire.audience import INTEREST_KEYS, Access, wants
from ..wire.messages import MAX_POST_BYTES, compact_json

#: Bytes of what an answer lists, with a comma each; the rest is for the words around it.
ANSWER_BYTES = MAX_POST_BYTES - 1_024
#: Bytes that Python takes for what is kept, beside its text; measured.
PER_MESSAGE = 400
# What guards it, and what clients can be interested in.
_LABELLED = ("tenant", *INTEREST_KEYS)
# Different combinations of labels that are remembered, and characters of one: some 10 MB in all. Longer ones are no
# words that many messages share.
_SHARED = 10_000
_LONGEST = 256


class Kept(NamedTuple):
    """``body`` is its JSON; ``state_of`` names the incident and the tenant it gives the state of, if it does."""

    body: bytes
    labels: Mapping[str, str]
    event_id: str = ""
    state_of: bytes | None = None

    @property
    def payload(self) -> Any:
        """The body, read back."""
        return json.loads(self.body)

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        labels = _length(self.labels.values())
        own = labels if labels > _LONGEST else 0
        return len(self.body) + len(self.event_id) + len(self.state_of or b"") + own + PER_MESSAGE

    def wanted_by(self, access: Access, *, by_tenant: bool) -> bool:
        """Whether a client with this access gets it; ``by_tenant``: tenants are on."""
        fields = self.labels
        if access.interest and not all(key in _LABELLED for key, _ in access.interest):
            fields = self.payload | fields
        return wants(access, fields, by_tenant=by_tenant)


class Labels:
    """Reads the labels of payloads; equal ones are one object."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, ...], Mapping[str, str]] = {}

    def of(self, payload: Mapping[str, Any]) -> Mapping[str, str]:
        """The labels of a payload, as ``wire.audience`` compares them."""
        labels = tuple(_label(payload.get(key)) for key in _LABELLED)
        if _length(labels) > _LONGEST:
            return _named(labels)
        if len(self._known) > _SHARED:
            self._known.clear()
        found = self._known.get(labels)
        if found is None:
            found = self._known[labels] = _named(labels)
        return found


def _named(labels: Iterable[str | None]) -> Mapping[str, str]:
    return {key: label for key, label in zip(_LABELLED, labels, strict=True) if label is not None}


def _length(labels: Iterable[str | None]) -> int:
    return sum(len(label) for label in labels if label is not None)


def _label(value: Any) -> str | None:
    """Text or a number as text; None for anything else."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def payloads_of(kept: Sequence[Kept]) -> list[Any]:
    """Their payloads, read back at once: several times as fast as one by one."""
    found: list[Any] = json.loads(b"[" + b",".join(each.body for each in kept) + b"]")
    return found


def fitting(payloads: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The payloads, those shortened that take more than their share of an answer where not all fit it."""
    if sum(len(compact_json(each)) + 1 for each in payloads) <= ANSWER_BYTES:
        return list(payloads)
    share = ANSWER_BYTES // len(payloads) - 1
    return [each if len(compact_json(each)) <= share else shortened(each, share) for each in payloads]


def shortened(payload: Mapping[str, Any], room: int = ANSWER_BYTES - 1) -> Mapping[str, Any]:
    """As many of its values as fit, the smallest first, and that it was truncated."""
    left = room - len(compact_json({"truncated": True}))
    sizes = {key: len(compact_json({key: value})) for key, value in payload.items()}
    stays = set()
    for key in sorted(sizes, key=lambda key: sizes[key]):
        left -= sizes[key]
        if left >= 0:
            stays.add(key)
    return {key: value for key, value in payload.items() if key in stays} | {"truncated": True}
