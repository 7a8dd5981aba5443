"""The two tables, as the demo uses them: it writes changes to one and looks into the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from .deployment import Stack
from .feed import Change
from .local_aws import LocalAws

_BATCH = 25  # what BatchWriteItem takes


class Tables:
    """The Incident table to write to, the connections table to look into."""

    def __init__(self, dynamodb: Any, stack: Stack) -> None:
        self._dynamodb = dynamodb
        self._stack = stack

    async def write(self, change: Change) -> None:
        """PutItem what is new, UpdateItem what has changed."""
        key = _key(change)
        if not change.updated:
            await self._dynamodb.put_item(TableName=self._stack.incident_table, Item=_whole(change))
            return
        await self._dynamodb.update_item(
            TableName=self._stack.incident_table,
            Key=key,
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in change.updated),
            ExpressionAttributeNames={f"#{name}": name for name in change.updated},
            ExpressionAttributeValues={f":{name}": {"S": change.item[name]} for name in change.updated},
        )

    async def write_all(self, changes: Iterable[Change]) -> None:
        """Put many that are new, in no order."""
        items = [{"PutRequest": {"Item": _whole(change)}} for change in changes]
        portions = (items[at : at + _BATCH] for at in range(0, len(items), _BATCH))
        await asyncio.gather(
            *(self._dynamodb.batch_write_item(RequestItems={self._stack.incident_table: each}) for each in portions)
        )

    async def remove(self, change: Change) -> None:
        """Delete an item, which no dashboard may hear of."""
        await self._dynamodb.delete_item(TableName=self._stack.incident_table, Key=_key(change))

    async def connections(self) -> dict[str, dict[str, Any]]:
        """The rows of the connections table by their ``clientId``."""
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=self._stack.connections_table)
        return {row["clientId"]["S"]: row async for page in pages for row in page["Items"]}

    async def restore(self, row: dict[str, Any]) -> None:
        """Put a connection's row back, an hour old: what a ``$disconnect`` that never came leaves."""
        created_at = int(row["createdAt"]["N"]) - 3_600_000
        await self._dynamodb.put_item(
            TableName=self._stack.connections_table, Item=row | {"createdAt": {"N": str(created_at)}}
        )


@asynccontextmanager
async def tables(aws: LocalAws, stack: Stack) -> AsyncIterator[Tables]:
    """The tables of a stack."""
    async with aws.client("dynamodb") as dynamodb:
        yield Tables(dynamodb, stack)


def _whole(change: Change) -> dict[str, Any]:
    return {name: {"S": value} for name, value in change.item.items()} | _key(change)


def _key(change: Change) -> dict[str, Any]:
    item = change.item
    return {"id": {"S": item.get("incident_id") or f"{item['action']}#{item['target']}#{item['timestamp']}"}}
