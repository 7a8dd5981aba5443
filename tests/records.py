"""Stream records as DynamoDB writes them, and the items in them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

TypedImage = dict[str, dict[str, Any]]


def typed(value: Any) -> dict[str, Any]:
    """``value`` as DynamoDB's low-level API writes it; bytes as base64 text, as Lambda's event has them."""
    match value:
        case list():
            return {"L": [typed(each) for each in value]}
        case set() | frozenset():
            scalars = [next(iter(_scalar(each).items())) for each in value]
            return {f"{scalars[0][0]}S": [text for _, text in scalars]}
        case Mapping():
            return {"M": image(value)}
    return _scalar(value)


def _scalar(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": value}
        case bytes():
            return {"B": base64.b64encode(value).decode()}
    return {"N": str(value)}


def image(item: Mapping[str, Any]) -> TypedImage:
    """A typed image of a plain item."""
    return {key: typed(value) for key, value in item.items()}


def record(item: Mapping[str, Any], *, sequence: str = "100", name: str = "INSERT") -> dict[str, Any]:
    """A record of one change; the eventID follows from the SequenceNumber, as the same record keeps its own."""
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": 1_700_000_000.0,
        "Keys": image({key: item[key] for key in ("incident_id",) if key in item}),
        "SequenceNumber": sequence,
        "SizeBytes": 250,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    if name != "REMOVE":
        change["NewImage"] = image(item)
    if name != "INSERT":
        change["OldImage"] = image(item)
    return {
        "eventID": f"event-{sequence}",
        "eventName": name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": change,
        "eventSourceARN": "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2024-01-01T00:00:00.000",
    }


def event(*records: Any) -> dict[str, Any]:
    """What Lambda hands a function for these records."""
    return {"Records": list(records)}


def incident(number: int = 1, **more: Any) -> dict[str, Any]:
    """A plain incident as the security pipeline writes it."""
    return {
        "incident_id": f"inc-{number}",
        "status": "OPEN",
        "severity": "HIGH",
        "event_type": "AuthorizeSecurityGroupIngress",
        "arn": f"arn:aws:ec2:eu-west-1:123456789012:security-group/sg-{number:08x}",
        "sg": f"sg-{number:08x}",
        "created_at": "2024-05-01T10:00:00Z",
        "updated_at": "2024-05-01T10:00:05Z",
    } | more


def remediation(number: int = 1, **more: Any) -> dict[str, Any]:
    """A plain remediation log."""
    return {
        "action": "RevokeSecurityGroupIngress",
        "target": f"sg-{number:08x}",
        "status": "SUCCEEDED",
        "timestamp": "2024-05-01T10:00:07Z",
    } | more
