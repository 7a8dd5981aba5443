"""What docs/adopting.md starts from: a function that Scans the connections and posts to one after the other.

It stands for every such function, with the three of the WebSocket API beside it. The local AWS runs it from this file.
"""

from __future__ import annotations

import json
import os
import time
from decimal import Decimal
from typing import Any

import boto3
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError

connections = boto3.resource("dynamodb").Table(os.environ["CONNECTIONS_TABLE"])
plain = TypeDeserializer().deserialize


def process(event: Any, _context: Any) -> None:
    """The Stream: whatever cannot be posted is dropped."""
    gateway = boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["WS_ENDPOINT"])
    for record in event["Records"]:
        if record["eventName"] not in ("INSERT", "MODIFY"):
            continue
        item = {name: plain(value) for name, value in record["dynamodb"]["NewImage"].items()}
        message = formatted(item)
        if message is None:
            continue
        # Step 2 of the guide puts its two lines here.
        data = json.dumps(message, default=number).encode()
        for row in connections.scan()["Items"]:
            try:
                gateway.post_to_connection(ConnectionId=row["connectionId"], Data=data)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 410:
                    connections.delete_item(Key={"connectionId": row["connectionId"]})


def formatted(item: dict[str, Any]) -> dict[str, Any] | None:
    if item.get("incident_id"):
        return {
            "kind": "incident_update",
            "incident_id": item["incident_id"],
            "status": item.get("status", "UNKNOWN"),
            "severity": item.get("severity"),
            "event_type": item.get("event_type"),
            "resource": item.get("arn") or item.get("resource") or item.get("sg") or "-",
            "created_at": item.get("created_at"),
            "updated_at": item.get("updated_at"),
        }
    if item.get("action"):
        return {
            "kind": "remediation",
            "action": item["action"],
            "target": item.get("target"),
            "status": item.get("status"),
            "time": item.get("timestamp"),
        }
    return None


def number(value: Decimal) -> int | float:
    return int(value) if value % 1 == 0 else float(value)


def connect(event: Any, _context: Any) -> dict[str, int]:
    write_row(event["requestContext"]["connectionId"])
    return {"statusCode": 200}


def write_row(connection_id: str) -> None:
    now = time.time()
    row = {"createdAt": int(now * 1000), "ttl": int(now) + 86_400, "clientId": "unknown"}
    connections.put_item(Item={"connectionId": connection_id, **row})


def disconnect(event: Any, _context: Any) -> dict[str, int]:
    connections.delete_item(Key={"connectionId": event["requestContext"]["connectionId"]})
    return {"statusCode": 200}


def subscribe(event: Any, _context: Any) -> dict[str, int]:
    """``$default``: the newest incidents, for a page that has just been opened, and its row once more.

    ``process`` may have deleted it: a client that is still shaking hands is answered 410.
    """
    connection_id = event["requestContext"]["connectionId"]
    write_row(connection_id)
    items = boto3.resource("dynamodb").Table(os.environ["INCIDENT_TABLE"]).scan()["Items"]
    found = sorted((each for each in items if "incident_id" in each), key=lambda each: str(each["created_at"]))
    answer = {"kind": "incident_history", "incidents": found[::-1][:50], "nextCursor": None}
    boto3.client("apigatewaymanagementapi", endpoint_url=os.environ["WS_ENDPOINT"]).post_to_connection(
        ConnectionId=connection_id, Data=json.dumps(answer, default=number).encode()
    )
    return {"statusCode": 200}
