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
from ..errors import ConditionFailed, SettingsError, StoreUnavailable, Unavailable
from ..wire.jobs import Client, Cursor, Shard, ShardKind, is_in_partition, shard_of
from ..wire.rows import Row, typed_client
from .session import Service

_log = logging.getLogger("async_relay")

# Rows in one BatchWriteItem (DynamoDB quotas).
_BATCH = 25
# Rows in one BatchGetItem (DynamoDB quotas).
_READ_BATCH = 100
# Bytes of a partition key (DynamoDB quotas).
_LONGEST_KEY = 2_048
# Calls for the rows a BatchGetItem left out: a table that leaves out three times is too busy.
_LOOKS = 3
# What decides about a client, which an index must hold beside its keys.
_PROJECTED = ("createdAt", "expiresAt", "tenants", "interest", "frames")
_PROJECTION = "connectionId, createdAt, expiresAt, tenants, interest, frames"
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
                check_index((await dynamodb.call("DescribeTable", {"TableName": table}))["Table"], table, index)
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
            answer = await self._read(operation, {"ProjectionExpression": _PROJECTION, **options}, start)
            return Page(_clients(answer["Items"]), _last_key(answer))

    async def look_up(self, connection_ids: Sequence[str]) -> Mapping[str, Client]:
        """Read these rows consistently, a hundred at a time side by side, and again those DynamoDB left out."""
        found: dict[str, Client] = {}
        # An id that no row can have would have the whole call refused.
        rows = [each for each in connection_ids if 0 < len(each.encode()) <= _LONGEST_KEY]
        for _ in range(_LOOKS):
            keys = [_key(row) for row in rows]
            batches = [keys[at : at + _READ_BATCH] for at in range(0, len(keys), _READ_BATCH)]
            answers = await self._each("read", "BatchGetItem", [self._looks_up(batch) for batch in batches])
            with self._only_unavailable("read"):
                items = [item for answer in answers for each in answer["Responses"].values() for item in each]
                found |= {client.connection_id: client for client in _clients(items)}
                rows = [row for answer in answers for row in _unread(answer)]
            if not rows:
                return found
        raise StoreUnavailable(f"the table {self._table} is too busy to read rows")

    def _looks_up(self, keys: Sequence[Any]) -> dict[str, Any]:
        return {"RequestItems": {self._table: {"Keys": keys, "ProjectionExpression": _PROJECTION, **_CONSISTENT}}}

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
        except (StoreUnavailable, SettingsError, ConditionFailed):
            raise
        except Unavailable as error:
            raise StoreUnavailable(f"the table {self._table} cannot be {done}: {error}") from error
        except Exception as error:
            _log.exception("the table %s was answered for in an unexpected way", self._table)
            reason = f"an answer nobody can read ({type(error).__name__}: {error})"
            raise StoreUnavailable(f"the table {self._table} cannot be {done}: {reason}") from error

    async def put(self, row: Row) -> None:
        """Write a row, with its shard where there is an index."""
        item = {name: _typed(value) for name, value in row.attributes().items()}
        if self._index:
            item["shard"] = {"N": str(shard_of(row.connection_id, self._shards))}
        await self._each("written", "PutItem", [{"TableName": self._table, "Item": item}])

    async def refresh(
        self, connection_id: str, principal: str, expires_at: int, tenants: frozenset[str] | None
    ) -> None:
        """Update a row, on the condition that it is there and this principal's."""
        change = "SET expiresAt = :expiresAt"
        if tenants is not None:
            change += ", tenants = :tenants" if tenants else " REMOVE tenants"
        values = {":expiresAt": _typed(expires_at), ":principal": _typed(principal)}
        request = {
            "TableName": self._table,
            "Key": _key(connection_id),
            "UpdateExpression": change,
            "ConditionExpression": "principal = :principal",
            "ExpressionAttributeValues": values | ({":tenants": _typed(tenants)} if tenants else {}),
        }
        await self._each("written", "UpdateItem", [request])

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete one row by DeleteItem, several by BatchWriteItem, which is called again for rows it left undone."""
        rows = list(dict.fromkeys(connection_ids))
        if len(rows) == 1:
            await self._each("written", "DeleteItem", [{"TableName": self._table, "Key": _key(rows[0])}])
            return
        for _ in range(2):
            deletes = [{"DeleteRequest": {"Key": _key(row)}} for row in rows]
            batches = [deletes[at : at + _BATCH] for at in range(0, len(deletes), _BATCH)]
            requests = [{"RequestItems": {self._table: batch}} for batch in batches]
            answers = await self._each("written", "BatchWriteItem", requests)
            with self._only_unavailable("written"):
                rows = list(dict.fromkeys(row for answer in answers for row in _unprocessed(answer)))
        if rows:
            raise StoreUnavailable(f"the table {self._table} is too busy to delete rows")

    async def _each(self, done: str, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Call once per request; raises ``StoreUnavailable`` or ``ConditionFailed`` where one of them failed."""
        with self._only_unavailable(done):
            answers = await self._dynamodb.call_each(operation, requests)
            for answer in answers:
                if isinstance(answer, Unavailable | ConditionFailed):
                    raise answer
        return answers


def check_index(description: Mapping[str, Any], table: str, index: str) -> None:
    """Raise ``SettingsError`` unless a table, as DescribeTable shows it, can be read by this index."""
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
        lacks = [name for name in _PROJECTED if name not in projection.get("NonKeyAttributes", ())]
        if projection["ProjectionType"] != "ALL" and lacks:
            raise SettingsError(
                f"CONNECTIONS_INDEX is {index!r}; it must project {', '.join(lacks)}; make another index that does, "
                "since a projection cannot be changed"
            )
        return
    raise SettingsError(f"CONNECTIONS_INDEX is {index!r}; the table {table} has no such index")


def _clients(items: Sequence[Any]) -> list[Client]:
    clients = [typed_client(item) for item in items]
    # One call for all of them: every id is text, and text that can be sent.
    "".join([client.connection_id for client in clients]).encode()
    return clients


def _typed(value: Any) -> dict[str, Any]:
    """A value as DynamoDB takes it: text, a number or a set of text."""
    match value:
        case str():
            return {"S": value}
        case frozenset():
            return {"SS": sorted(value)}
    return {"N": str(value)}


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


def _unread(answer: Any) -> list[str]:
    """The rows that a BatchGetItem left out."""
    left = answer.get("UnprocessedKeys", {}).values()
    return [str(key["connectionId"]["S"]) for request in left for key in request["Keys"]]


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
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise TypeError("Count is not a number of rows")
    return count
