"""A message: one payload as it goes to every client. Pure.

Rules
- The payload is compact UTF-8 JSON, encoded and hashed once however many clients get it.
- What a payload means is the formatter's business; here only ``kind``, ``event_id`` and ``sequence``
  are read, and each may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

#: What API Gateway takes in one PostToConnection, in bytes (API Gateway quotas, "Message payload size").
MAX_POST_BYTES = 131_072
#: How deep a payload may nest: DynamoDB nests 32 levels, and what nests near the interpreter's own limit
#: (1,000 frames) could be written to a queue and not be read again.
MAX_DEPTH = 150


@dataclass(frozen=True, slots=True)
class Message:
    """One payload, ready to post: ``body`` in UTF-8 and its SHA-256 in hex, as SigV4 wants it.

    ``unpublished`` is the digest it had before it was published and given a position, empty where it was not.
    """

    kind: str
    event_id: str
    sequence: str
    body: bytes
    digest: str
    unpublished: str = field(default="", compare=False)

    @classmethod
    def encode(cls, payload: Mapping[str, Any], *, event_id: str = "", sequence: str = "") -> Message:
        """The message of a payload; raises ``TypeError`` or ``ValueError`` where JSON in UTF-8 cannot hold it.

        ``event_id`` and ``sequence`` are the record's; without them the payload's own count.
        """
        body = compact_json(payload)
        return cls(
            kind=str(payload.get("kind", "")),
            event_id=event_id or str(payload.get("event_id") or ""),
            sequence=sequence or str(payload.get("sequence", "")),
            body=body,
            digest=sha256(body).hexdigest(),
        )

    @property
    def payload(self) -> Any:
        """The body, read back."""
        return json.loads(self.body)

    @property
    def oversized(self) -> bool:
        """True where API Gateway would refuse it from everybody."""
        return len(self.body) > MAX_POST_BYTES


def compact_json(value: Any) -> bytes:
    """``value`` as JSON without spaces, in UTF-8, not escaped to ASCII; ``ValueError`` if it cannot be."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def is_shallow(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether lists and maps nest no deeper than ``levels``."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return levels >= 0 and all(is_shallow(each, levels - 1) for each in inner)
