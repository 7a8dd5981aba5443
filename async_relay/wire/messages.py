"""From a plain item to the message a dashboard reads. Pure.

Rules
- A non-empty ``incident_id`` makes an incident, and wins; else a non-empty ``action`` makes a
  remediation log; else there is no message.
- A key without a value is left out, never sent as null: the dashboard merges, and a null would
  wipe a good value. An incident never carries ``action`` nor ``type``.
- The payload is compact UTF-8 JSON, encoded and hashed once however many clients get it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

#: What API Gateway takes in one PostToConnection, in bytes (API Gateway quotas, "Message payload size").
MAX_POST_BYTES = 131_072
_INCIDENT = "incident_update"


@dataclass(frozen=True, slots=True)
class Message:
    """One payload, ready to post: ``body`` in UTF-8 and its SHA-256 in hex, as SigV4 wants it.

    ``subject`` is the incident it gives the state of, as JSON; empty for what is no state.
    """

    kind: str
    event_id: str
    sequence: str
    body: bytes
    digest: str
    subject: str = ""

    @classmethod
    def encode(cls, payload: Mapping[str, Any]) -> Message:
        """The message of a payload; raises ``ValueError`` where JSON in UTF-8 cannot hold it."""
        body = compact_json(payload)
        kind = str(payload.get("kind", ""))
        return cls(
            kind=kind,
            event_id=str(payload.get("event_id", "")),
            sequence=str(payload.get("sequence", "")),
            body=body,
            digest=sha256(body).hexdigest(),
            subject=compact_json(payload.get("incident_id")).decode() if kind == _INCIDENT else "",
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


def latest(messages: Sequence[Message]) -> list[int]:
    """The positions of what is left if only the newest state of each incident counts; remediation logs all do."""
    newest = {message.subject: at for at, message in enumerate(messages)}
    return [at for at, message in enumerate(messages) if not message.subject or newest[message.subject] == at]


def format_item(item: Mapping[str, Any], *, event_id: str, sequence: str) -> Message | None:
    """The message of a plain item, or None where the item is neither of the two kinds."""
    if not _empty(item.get("incident_id")):
        fields = _incident(item)
    elif not _empty(item.get("action")):
        fields = _remediation(item)
    else:
        return None
    payload = {key: value for key, value in fields.items() if value is not None}
    return Message.encode(payload | {"event_id": event_id, "sequence": sequence})


def _incident(item: Mapping[str, Any]) -> dict[str, Any]:
    status = _first(item, "status")
    resource = _first(item, "arn", "resource", "sg")
    return {
        "kind": _INCIDENT,
        "incident_id": item["incident_id"],
        "status": "UNKNOWN" if status is None else status,
        "severity": item.get("severity"),
        "event_type": _first(item, "event_type", "type"),
        "resource": "-" if resource is None else resource,
        "created_at": item.get("created_at"),
        "updated_at": item.get("updated_at"),
    }


def _remediation(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "remediation",
        "action": item["action"],
        "target": _first(item, "target", "resource"),
        "status": item.get("status"),
        "time": _first(item, "timestamp", "created_at"),
    }


def _first(item: Mapping[str, Any], *keys: str) -> Any:
    """The first value that is not empty, else None."""
    return next((item[key] for key in keys if not _empty(item.get(key))), None)


def _empty(value: Any) -> bool:
    """Absent, NULL, an empty string, list, set or map; zero and false are values."""
    return value is None or value in ("", [], {})
