"""The built-in formatter, and what ``COALESCE=latest`` keeps: all that is known of incidents. Pure.

Rules
- A non-empty ``incident_id`` makes an incident, and wins; else a non-empty ``action`` makes a
  remediation log; else there is no message.
- A key without a value is left out, never sent as null: the dashboard merges, and a null would
  wipe a good value. An incident never carries ``action`` nor ``type``.
- A message whose kind is ``incident_update`` is the state of its ``incident_id`` for its ``tenant``, whoever
  formatted it. Nothing else is a state of anything, so nothing else is ever coalesced. An incident that moves
  to another tenant keeps its last state for the tenant it leaves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .messages import Message, compact_json

_INCIDENT = "incident_update"


def format_item(item: dict[str, Any], event_id: str, sequence: str) -> dict[str, Any] | None:
    """The payload of a plain item, or None where the item is neither of the two kinds."""
    if not _empty(item.get("incident_id")):
        fields = _incident(item)
    elif not _empty(item.get("action")):
        fields = _remediation(item)
    else:
        return None
    payload = {key: value for key, value in fields.items() if value is not None}
    return payload | {"event_id": event_id, "sequence": sequence}


def latest(messages: Sequence[Message]) -> list[int]:
    """The positions of the newest state of each incident, and of every message that is no state of one."""
    incidents = [_incident_of(message) for message in messages]
    newest = {incident: at for at, incident in enumerate(incidents)}
    return [at for at, incident in enumerate(incidents) if incident is None or newest[incident] == at]


def _incident_of(message: Message) -> bytes | None:
    """The incident and the tenant it gives the state of, as JSON, so that 1 and "1" are two; None if it gives none."""
    if message.kind != _INCIDENT:
        return None
    payload = message.payload
    incident_id = payload.get("incident_id")
    return None if _empty(incident_id) else compact_json([incident_id, payload.get("tenant")])


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
