"""The incident table in DynamoDB, as history reads it.

Rules
- Without an index: a consistent Scan, which gives the items in no order of use.
- With one: a Query, newest first. An index has an order only within a partition, so it must be made for it: the sort
  key is ``created_at``, and the partition key is the same value in every item (an attribute like ``all`` = ``"1"``).
  Items that lack one of them are not in the index, and not in the history.
- The index is described once, and its partition's value taken from an item in it. A few items from all over the index
  are looked at: where they differ, the index is refused.
- A caller gets a value, ``StoreUnavailable``, or ``SettingsError`` for a wrong index. An item nobody can read is left
  out, and logged without anything of it.

Sources: DynamoDB Developer Guide, "Using Global Secondary Indexes", and "Working with scans" for segments.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..delivery.protocols import ItemPage
from ..errors import SettingsError, StoreUnavailable, Unavailable, UndecodableRecord
from ..wire.jobs import Cursor
from ..wire.streams import decode_item
from .session import Service

_log = logging.getLogger("async_relay")

_SORT_KEY = "created_at"
# Places in the index that are looked at.
_SEGMENTS = 8


class DynamoIncidents:
    """A table of incidents, and perhaps an index of it."""

    def __init__(self, dynamodb: Service, table: str, index: str | None = None, partition_key: str = "") -> None:
        """``partition_key`` is the index's."""
        self._dynamodb = dynamodb
        self._table = table
        self._index = index
        self._partition_key = partition_key
        self._partition: Any = None

    @classmethod
    async def open(cls, dynamodb: Service, table: str, index: str | None = None) -> DynamoIncidents:
        """Make a reader, and check its index; raises ``SettingsError`` for a wrong one, or ``StoreUnavailable``."""
        if index is None:
            return cls(dynamodb, table)
        with _only_unavailable(table, "described"):
            description = (await dynamodb.call("DescribeTable", {"TableName": table}))["Table"]
            return cls(dynamodb, table, index, partition_key_of(description, table, index))

    async def read(self, cursor: Cursor | None) -> ItemPage:
        """A page of the Scan, or of the Query."""
        with _only_unavailable(self._table, "read"):
            if self._index is None:
                return await self._page("Scan", {"ConsistentRead": True}, cursor)
            if self._partition is None:
                self._partition = await self._learn()
            return ItemPage((), None) if self._partition is None else await self._page("Query", self._query(), cursor)

    async def _learn(self) -> Any:
        """The value of the partition key; None where the index is empty."""
        look = {
            "TableName": self._table,
            "IndexName": self._index,
            "Limit": 1,
            "ProjectionExpression": "#key",
            "ExpressionAttributeNames": {"#key": self._partition_key},
            "TotalSegments": _SEGMENTS,
        }
        answers = await self._dynamodb.call_each("Scan", [look | {"Segment": at} for at in range(_SEGMENTS)])
        found: list[Any] = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
            found += [item[self._partition_key] for item in answer["Items"]]
        if any(each != found[0] for each in found):
            raise SettingsError(
                f"INCIDENT_INDEX is {self._index!r}; its partition key {self._partition_key} must be the same value in "
                "every item, since an index has an order only within one partition"
            )
        return found[0] if found else None

    def _query(self) -> dict[str, Any]:
        return {
            "IndexName": self._index,
            "ScanIndexForward": False,
            "KeyConditionExpression": "#key = :key",
            "ExpressionAttributeNames": {"#key": self._partition_key},
            "ExpressionAttributeValues": {":key": self._partition},
        }

    async def _page(self, operation: str, options: Mapping[str, Any], cursor: Cursor | None) -> ItemPage:
        after = {"ExclusiveStartKey": dict(cursor)} if cursor else {}
        answer = await self._dynamodb.call(operation, {"TableName": self._table, **options, **after})
        return ItemPage(_items(answer["Items"]), answer.get("LastEvaluatedKey") or None)


@contextmanager
def _only_unavailable(table: str, done: str) -> Iterator[None]:
    """Turn every exception into ``StoreUnavailable``: the table cannot be read or described (``done``)."""
    try:
        yield
    except SettingsError:
        raise
    except Unavailable as error:
        raise StoreUnavailable(f"the table {table} cannot be {done}: {error}") from error
    except Exception as error:
        _log.exception("the table %s was answered for in an unexpected way", table)
        raise StoreUnavailable(f"the table {table} cannot be {done}: {type(error).__name__}") from error


def partition_key_of(description: Mapping[str, Any], table: str, index: str) -> str:
    """The partition key of an index; raises ``SettingsError`` unless history can be read by it."""
    for each in description.get("GlobalSecondaryIndexes", ()):
        if each["IndexName"] != index:
            continue
        keys = {key["KeyType"]: str(key["AttributeName"]) for key in each["KeySchema"]}
        if keys.get("RANGE") != _SORT_KEY:
            raise SettingsError(f"INCIDENT_INDEX is {index!r}; its sort key must be {_SORT_KEY}")
        if each["Projection"]["ProjectionType"] != "ALL":
            raise SettingsError(f"INCIDENT_INDEX is {index!r}; it must project all attributes")
        return keys["HASH"]
    raise SettingsError(f"INCIDENT_INDEX is {index!r}; the table {table} has no such index")


def _items(items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in items:
        try:
            found.append(decode_item(item))
        except UndecodableRecord:
            _log.warning("an item of the incident table is left out: it cannot be read")
    return found
