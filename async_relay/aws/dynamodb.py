"""The connections table in DynamoDB.

Rule: BatchWriteItem takes 25 rows and may leave some undone (DynamoDB API Reference, "UnprocessedItems").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import SettingsError, StoreUnavailable, Unavailable
from ..jobs import Client, Cursor, Shard, ShardKind, shard_of
from ..protocols import Page
from .session import Service

_BATCH = 25
# Without it a row written a moment ago may be missing: DynamoDB Developer Guide, "Read consistency".
_CONSISTENT: dict[str, Any] = {"ConsistentRead": True}


class DynamoStore:
    """The connections table in DynamoDB.

    The shard says how it is read. A segment is a consistent Scan: a row that was written before is in it.
    A partition is a Query of the index, which DynamoDB brings up to date a moment after the table; where
    the index is no longer set, a consistent Scan of the whole table picks the partition's rows out.
    """

    def __init__(self, dynamodb: Service, table: str, *, index: str | None = None, shards: int = 8) -> None:
        """``index``: a global secondary index on the number ``shard``; rows are written for ``shards`` of them."""
        self._dynamodb = dynamodb
        self._table = table
        self._index = index
        self._shards = shards

    @classmethod
    async def open(cls, dynamodb: Service, table: str, *, index: str | None = None, shards: int = 8) -> DynamoStore:
        """A store; raises ``SettingsError`` where the index is not what it must be."""
        if index is not None:
            await _check_index(dynamodb, table, index)
        return cls(dynamodb, table, index=index, shards=shards)

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """A page of the shard, from its start where the cursor is of another kind of read."""
        if shard.kind is ShardKind.SEGMENT:
            return await self._page("Scan", _after(cursor, indexed=False), _CONSISTENT | _segment(shard))
        if self._index is None:
            return await self._page("Scan", _after(cursor, indexed=False), _CONSISTENT | _rows_of(shard))
        return await self._page("Query", _after(cursor, indexed=True), {"IndexName": self._index} | _partition(shard))

    async def _page(self, operation: str, start: Cursor | None, options: Mapping[str, Any]) -> Page:
        answer = await self._read(operation, {"ProjectionExpression": "connectionId, createdAt", **options}, start)
        clients = [Client(item["connectionId"]["S"], _created_at(item.get("createdAt"))) for item in answer["Items"]]
        return Page(clients, answer.get("LastEvaluatedKey"))

    async def count(self, enough: int) -> int:
        """Count rows page by page, and stop at ``enough``: it never reads much more than that."""
        found = 0
        start: Cursor | None = None
        while found < enough:
            answer = await self._read("Scan", {"Select": "COUNT", "Limit": enough}, start)
            found += answer["Count"]
            start = answer.get("LastEvaluatedKey")
            if start is None:
                break
        return found

    async def _read(self, operation: str, request: Mapping[str, Any], start: Cursor | None) -> Any:
        after = {"ExclusiveStartKey": dict(start)} if start else {}
        try:
            return await self._dynamodb.call(operation, {"TableName": self._table, **request, **after})
        except Unavailable as error:
            raise StoreUnavailable(f"the table {self._table} cannot be read: {error}") from error

    async def put(self, connection_id: str, client_id: str, created_at: int, ttl: int) -> None:
        """Write a row, with its shard where there is an index."""
        item = {
            "connectionId": {"S": connection_id},
            "clientId": {"S": client_id},
            "createdAt": {"N": str(created_at)},
            "ttl": {"N": str(ttl)},
        }
        if self._index:
            item["shard"] = {"N": str(shard_of(connection_id, self._shards))}
        await self._write("PutItem", [{"TableName": self._table, "Item": item}])

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows: one by DeleteItem, more by BatchWriteItem, and what that leaves undone once more."""
        if len(connection_ids) == 1:
            await self._write("DeleteItem", [{"TableName": self._table, "Key": _key(connection_ids[0])}])
            return
        requests = [{"DeleteRequest": {"Key": _key(row)}} for row in connection_ids]
        for _ in range(2):
            batches = [requests[at : at + _BATCH] for at in range(0, len(requests), _BATCH)]
            answers = await self._write("BatchWriteItem", [{"RequestItems": {self._table: batch}} for batch in batches])
            requests = [each for answer in answers for each in _unprocessed(answer)]
        if requests:
            raise StoreUnavailable(f"the table {self._table} is too busy to delete rows")

    async def _write(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        try:
            answers = await self._dynamodb.call_each(operation, requests)
            for answer in answers:
                if isinstance(answer, Unavailable):
                    raise answer
        except Unavailable as error:
            raise StoreUnavailable(f"the table {self._table} cannot be written: {error}") from error
        return answers


async def _check_index(dynamodb: Service, table: str, index: str) -> None:
    try:
        description = (await dynamodb.call("DescribeTable", {"TableName": table}))["Table"]
    except Unavailable as error:
        raise SettingsError(f"CONNECTIONS_TABLE is {table!r}; it cannot be described: {error}") from error
    types = {each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]}
    for each in description.get("GlobalSecondaryIndexes", ()):
        if each["IndexName"] != index:
            continue
        keys = [key["AttributeName"] for key in each["KeySchema"] if key["KeyType"] == "HASH"]
        if keys != ["shard"] or types["shard"] != "N":
            raise SettingsError(
                f"CONNECTIONS_INDEX is {index!r}; its partition key must be the number shard, not {', '.join(keys)}"
            )
        projection = each["Projection"]
        if projection["ProjectionType"] != "ALL" and "createdAt" not in projection.get("NonKeyAttributes", ()):
            raise SettingsError(f"CONNECTIONS_INDEX is {index!r}; it must project createdAt")
        return
    raise SettingsError(f"CONNECTIONS_INDEX is {index!r}; the table {table} has no such index")


def _segment(shard: Shard) -> dict[str, Any]:
    return {"Segment": shard.index, "TotalSegments": shard.count} if shard.count > 1 else {}


def _partition(shard: Shard) -> dict[str, Any]:
    return {"KeyConditionExpression": "#shard = :shard"} | _shard_value(shard)


def _rows_of(shard: Shard) -> dict[str, Any]:
    return {"FilterExpression": "#shard = :shard"} | _shard_value(shard)


def _shard_value(shard: Shard) -> dict[str, Any]:
    return {
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"N": str(shard.index)}},
    }


def _after(cursor: Cursor | None, *, indexed: bool) -> Cursor | None:
    """Where the read goes on. A key of the index means nothing to a Scan, nor a key of the table to the index."""
    return cursor if cursor is not None and ("shard" in cursor) == indexed else None


def _key(connection_id: str) -> dict[str, dict[str, str]]:
    return {"connectionId": {"S": connection_id}}


def _unprocessed(answer: Any) -> list[Any]:
    return [request for requests in answer.get("UnprocessedItems", {}).values() for request in requests]


def _created_at(typed: Any) -> int | None:
    """A row without a sensible time counts as old."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError):
        return None
