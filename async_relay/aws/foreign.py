"""Tells answers of AWS from pages of something in between. Importing this module loads the SDK.

Rules
- A proxy or a portal may answer with its own page and status 200. botocore takes a text that is no JSON for an answer
  in which nothing is said: an empty queue, a table without rows, a letter that was sent. So such a page is an error.
- This holds for the services whose every answer with content is a JSON object, DynamoDB and SQS among them. An answer
  may be empty where the operation returns nothing.
"""

from __future__ import annotations

import json
from typing import Any

from botocore.exceptions import BotoCoreError


class ForeignAnswer(BotoCoreError):
    """An answer with status 200 that is not the service's."""

    fmt = "the answer to {operation} is none of {service}'s, but a page of something in between: {start}"


def refuse_foreign_answers(events: Any) -> None:
    """Have every client that is made with these events of a session raise ``ForeignAnswer``."""
    events.register("before-parse", _check)


def _check(operation_model: Any, response_dict: Any, **_others: Any) -> None:
    service = operation_model.service_model
    if service.resolved_protocol != "json" or response_dict["status_code"] >= 300:
        return
    body = response_dict["body"]
    if not body and operation_model.output_shape is None:
        return
    if not _is_object(body):
        start = " ".join(bytes(body).decode(errors="replace")[:60].split()) or "nothing"
        raise ForeignAnswer(operation=operation_model.name, service=service.service_id, start=start)


def _is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except (ValueError, RecursionError):
        return False
