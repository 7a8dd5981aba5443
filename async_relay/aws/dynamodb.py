"""The connections table in DynamoDB.

Rules
- BatchWriteItem takes 25 rows, refuses all of them where two are the same, and may leave some undone
  (DynamoDB API Reference, BatchWriteItem).
- A caller gets a value or ``StoreUnavailable``, and nothing else: an answer of another shape than the API
  Reference's counts as no answer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..delivery.protocols import Page
from ..errors import SettingsError, StoreUnavailable, Unavailable
from ..wire.jobs import Client, Cursor, Shard, ShardKind, is_in_partition, shard_of
from .session import Service

_log = logging.getLogger("async_relay")

# Rows in one BatchWriteItem (DynamoDB quotas).
_BATCH = 25
# Without it a row written a moment ago may be missing: DynamoDB Developer Guide, "Read consistency".
_CONSISTENT: dict[str, Any] = {"ConsistentRead": True}


class DynamoStore:
    """The connections table in DynamoDB.

    The kind of shard decides how ``read`` reads it.
    - A segment is a consistent Scan, which finds every row that was written before it began.
    - A partition is a Query of the index, which DynamoDB brings up to date a moment after the table.
      While rows may lack their ``shard``, or have that of another number of partitions, the index cannot be
      relied on. Then ``read`` scans the whole table consistently, and keeps the clients whose ids belong to
      the partition.
    """

    def __init__(
        self, dynamodb: Service, table: str, *, index: str | None = None, shards: int = 8, sweep: bool = True
    ) -> None:
        """``index`` is a global secondary index on the number ``shard``, written for ``shards`` partitions.

        ``sweep`` says that some rows may have no ``shard``, or one of another number of partitions.
        """
        self._dynamodb = dynamodb
        self._table = table
        self._index = index
        self._shards = shards
        self._sweep = sweep

    @classmethod
    async def open(
        cls, dynamodb: Service, table: str, *, index: str | None = None, shards: int = 8, sweep: bool = True
    ) -> DynamoStore:
        """Make a store, and check its index; raises ``SettingsError`` for a wrong index, or ``StoreUnavailable``."""
        store = cls(dynamodb, table, index=index, shards=shards, sweep=sweep)
        if index is not None:
            with store._only_unavailable("described"):
                await _check_index(dynamodb, table, index)
        return store

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """Read a page of the shard; a cursor of another kind of read starts again at the first page."""
        if shard.kind is ShardKind.SEGMENT:
            return await self._page("Scan", _after(cursor, indexed=False), _CONSISTENT | _segment(shard))
        if self._index is not None and not self._sweep and shard.count == self._shards:
            query = {"IndexName": self._index} | _partition(shard)
            return await self._page("Query", _after(cursor, indexed=True), query)
        page = await self._page("Scan", _after(cursor, indexed=False), _CONSISTENT)
        return page._replace(clients=[each for each in page.clients if is_in_partition(each.connection_id, shard)])

    async def _page(self, operation: str, start: Cursor | None, options: Mapping[str, Any]) -> Page:
        with self._only_unavailable("read"):
            answer = await self._read(operation, {"ProjectionExpression": "connectionId, createdAt", **options}, start)
            items = answer["Items"]
            clients = [Client(item["connectionId"]["S"], _created_at(item.get("createdAt"))) for item in items]
            # One call for all of them: every id is text, and text that can be sent.
            "".join([client.connection_id for client in clients]).encode()
            return Page(clients, _last_key(answer))

    async def count(self, enough: int) -> int:
        """Count rows page by page, and stop at ``enough``: it never reads much more than that."""
        found = 0
        start: Cursor | None = None
        with self._only_unavailable("read"):
            while found < enough:
                answer = await self._read("Scan", {"Select": "COUNT", "Limit": enough}, start)
                found += _counted(answer)
                start = _last_key(answer)
                if start is None:
                    break
        return found

    async def _read(self, operation: str, request: Mapping[str, Any], start: Cursor | None) -> Any:
        after = {"ExclusiveStartKey": dict(start)} if start else {}
        return await self._dynamodb.call(operation, {"TableName": self._table, **request, **after})

    @contextmanager
    def _only_unavailable(self, done: str) -> Iterator[None]:
        """Turn every exception into ``StoreUnavailable``: the table cannot be read, written or described (``done``)."""
        try:
            yield
        except (StoreUnavailable, SettingsError):
            raise
        except Unavailable as error:
            raise StoreUnavailable(f"the table {self._table} cannot be {done}: {error}") from error
        except Exception as error:
            _log.exception("the table %s was answered for in an unexpected way", self._table)
            reason = f"an answer nobody can read ({type(error).__name__}: {error})"
            raise StoreUnavailable(f"the table {self._table} cannot be {done}: {reason}") from error

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
        """Delete one row by DeleteItem, several by BatchWriteItem, which is called again for rows it left undone."""
        rows = list(dict.fromkeys(connection_ids))
        if len(rows) == 1:
            await self._write("DeleteItem", [{"TableName": self._table, "Key": _key(rows[0])}])
            return
        for _ in range(2):
            requests = [{"DeleteRequest": {"Key": _key(row)}} for row in rows]
            batches = [requests[at : at + _BATCH] for at in range(0, len(requests), _BATCH)]
            answers = await self._write("BatchWriteItem", [{"RequestItems": {self._table: batch}} for batch in batches])
            with self._only_unavailable("written"):
                rows = list(dict.fromkeys(row for answer in answers for row in _unprocessed(answer)))
        if rows:
            raise StoreUnavailable(f"the table {self._table} is too busy to delete rows")

    async def _write(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        with self._only_unavailable("written"):
            answers = await self._dynamodb.call_each(operation, requests)
            for answer in answers:
                if isinstance(answer, Unavailable):
                    raise answer
        return answers


async def _check_index(dynamodb: Service, table: str, index: str) -> None:
    description = (await dynamodb.call("DescribeTable", {"TableName": table}))["Table"]
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
    return {
        "KeyConditionExpression": "#shard = :shard",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"N": str(shard.index)}},
    }


def _after(cursor: Cursor | None, *, indexed: bool) -> Cursor | None:
    """The cursor, if it fits the read: a Scan cannot start at a key of the index, nor a Query at one of the table."""
    names = {"connectionId", "shard"} if indexed else {"connectionId"}
    return cursor if cursor is not None and set(cursor) == names else None


def _key(connection_id: str) -> dict[str, dict[str, str]]:
    return {"connectionId": {"S": connection_id}}


def _unprocessed(answer: Any) -> list[str]:
    """The rows that a BatchWriteItem left undone."""
    left = answer.get("UnprocessedItems", {}).values()
    return [str(each["DeleteRequest"]["Key"]["connectionId"]["S"]) for requests in left for each in requests]


def _last_key(answer: Any) -> Cursor | None:
    """The key that the next page starts after, which jobs carry too; None on the last page."""
    key = answer.get("LastEvaluatedKey")
    if key is None or key == {}:
        return None
    for name, typed in key.items():
        if not (isinstance(name, str) and isinstance(typed, dict) and all(isinstance(v, str) for v in typed.values())):
            raise TypeError("LastEvaluatedKey is not the key of a row")
    cursor: Cursor = key
    return cursor


def _counted(answer: Any) -> int:
    count = answer["Count"]
    if not isinstance(count, int) or count < 0:
        raise TypeError("Count is not a number of rows")
    return count


def _created_at(typed: Any) -> int | None:
    """The row's time in ms; None, which counts as old, where it is no number."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
