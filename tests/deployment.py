"""The handler module as Lambda would have it: loaded with an environment, on a table, queues and a gateway."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from uuid import uuid4

import boto3
from records import incident as plain_incident
from records import record
from records import remediation as plain_remediation

from async_relay.testing import Gateway

Failures = dict[str, list[dict[str, str]]]


@dataclass
class Context:
    seconds: float = 60.0

    def get_remaining_time_in_millis(self) -> int:
        return int(self.seconds * 1000)


class Deployed:
    """The handler module, loaded with an environment and called on a thread of its own."""

    def __init__(self, url: str, table: str, retry: str, letters: str) -> None:
        self.url = url
        self.table = table
        self.retry = retry
        self.letters = letters
        self.module: ModuleType | None = None
        self._thread = ThreadPoolExecutor(1)

    async def call(self, name: str, event: Any, seconds: float = 60.0) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._call, name, event, Context(seconds))

    def _call(self, name: str, event: Any, context: Context) -> Any:
        if self.module is None:
            sys.modules.pop("handler", None)
            self.module = importlib.import_module("handler")
        return getattr(self.module, name)(event, context)

    def kill(self) -> None:
        """Cut off the call under way, which raises ``CancelledError``."""
        assert self.module is not None
        loop = self.module._runner.get_loop()

        def cancel() -> None:
            for task in asyncio.all_tasks(loop):
                task.cancel()

        loop.call_soon_threadsafe(cancel)

    async def restart(self) -> None:
        """The next call is a cold start, with the environment as it is then."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)

    def close(self) -> None:
        self._thread.submit(self._close).result()
        self._thread.shutdown()

    def _close(self) -> None:
        if self.module is not None:
            self.module._runner.run(self.module._sandbox.close())
            self.module._runner.close()
            sys.modules.pop("handler", None)
            self.module = None

    def fill(self, *connection_ids: str, **attributes: Any) -> None:
        table = boto3.resource("dynamodb", endpoint_url=self.url).Table(self.table)
        with table.batch_writer() as writer:
            for connection_id in connection_ids:
                writer.put_item(Item={"connectionId": connection_id, **attributes})

    def rows(self) -> dict[str, Any]:
        pages = boto3.client("dynamodb", endpoint_url=self.url).get_paginator("scan").paginate(TableName=self.table)
        return {item["connectionId"]["S"]: item for page in pages for item in page["Items"]}

    def bodies(self, url: str) -> list[Any]:
        sqs = boto3.client("sqs", endpoint_url=self.url)
        found: list[Any] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return found

    def waiting(self, url: str) -> int:
        """How many messages of a queue are visible."""
        sqs = boto3.client("sqs", endpoint_url=self.url)
        name = "ApproximateNumberOfMessages"
        return int(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])

    def receive(self, url: str, count: int = 10) -> list[dict[str, Any]]:
        """A batch of messages as Lambda hands them to a function; they are in flight then."""
        received = boto3.client("sqs", endpoint_url=self.url).receive_message(
            QueueUrl=url, MaxNumberOfMessages=count, AttributeNames=["All"], VisibilityTimeout=360
        )
        return [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
            }
            for message in received.get("Messages", [])
        ]

    def settle(self, url: str, records: Sequence[Mapping[str, Any]], failures: Failures | None) -> None:
        """Delete what succeeded and show the rest again, as if its visibility timeout were over; None: it crashed."""
        sqs = boto3.client("sqs", endpoint_url=self.url)
        failed = None if failures is None else sequences(failures)
        for each in records:
            if failed is None or each["messageId"] in failed:
                sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=each["receiptHandle"], VisibilityTimeout=0)
            else:
                sqs.delete_message(QueueUrl=url, ReceiptHandle=each["receiptHandle"])

    async def work(self, url: str) -> list[list[dict[str, Any]]]:
        """Have ``deliver_handler`` empty a queue; the batches it got."""
        batches: list[list[dict[str, Any]]] = []
        while batch := self.receive(url):
            self.settle(url, batch, await self.call("deliver_handler", {"Records": batch}))
            batches.append(batch)
        return batches


def new_table(url: str, *, index: bool = False) -> str:
    name = f"connections-{uuid4()}"
    attributes = [{"AttributeName": "connectionId", "AttributeType": "S"}]
    options: dict[str, Any] = {}
    if index:
        attributes.append({"AttributeName": "shard", "AttributeType": "N"})
        keys = [
            {"AttributeName": "shard", "KeyType": "HASH"},
            {"AttributeName": "connectionId", "KeyType": "RANGE"},
        ]
        options["GlobalSecondaryIndexes"] = [
            {"IndexName": "by-shard", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
        ]
    dynamodb = boto3.client("dynamodb", endpoint_url=url)
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=attributes,
        KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        **options,
    )
    # dynalite answers a moment before the table is there.
    dynamodb.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    return name


def new_queue(url: str, *, fifo: bool = False) -> str:
    """A queue of its own; its URL."""
    name = f"{uuid4()}.fifo" if fifo else f"{uuid4()}"
    attributes = {"FifoQueue": "true"} if fifo else {}
    queue: str = boto3.client("sqs", endpoint_url=url).create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    return queue


def sequences(failures: Failures) -> list[str]:
    return [failure["itemIdentifier"] for failure in failures["batchItemFailures"]]


def incident(incident_id: str, *, sequence: str, event_name: str = "INSERT", **more: Any) -> dict[str, Any]:
    return record({**plain_incident(), "incident_id": incident_id, **more}, sequence=sequence, name=event_name)


def remediation(action: str, *, sequence: str) -> dict[str, Any]:
    return record({**plain_remediation(), "action": action}, sequence=sequence)


def incidents(count: int) -> list[Any]:
    return [incident(f"inc-{number}", sequence=str(100 + number)) for number in range(count)]


def payloads(gateway: Gateway, connection_id: str) -> list[Any]:
    return [json.loads(body) for body in gateway.received[connection_id]]


def order(gateway: Gateway, connection_id: str) -> list[str]:
    return [payload["sequence"] for payload in payloads(gateway, connection_id)]
