"""The connections table in DynamoDB.

Rules
- A page is read with ``json`` before botocore would parse it: a sixth of the time.
- BatchWriteItem takes 25 rows and may leave some undone (DynamoDB API Reference, "UnprocessedItems").
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..errors import SettingsError, StoreUnavailable
from ..jobs import Client, Cursor, Shard, shard_of
from ..protocols import Page
from .row_deletions import BATCH, RowDeletions
from .session import FAILURES, Aws, patient

_SWEEP = "sweep"


class DynamoStore:
    """The connections table in DynamoDB.

    With an index, the part ``shard.index`` of as many shards as rows are written for is a Query of one
    of its partitions, and then a sweep: a Scan of the segment for rows the index does not have, written
    before there was one or by somebody else. Any other number of shards is a Scan of segments, which is
    right whatever the rows say.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        index: str | None = None,
        shards: int = 8,
        sweep: bool = True,
        bulk: Callable[[], Awaitable[RowDeletions]] | None = None,
    ) -> None:
        """``index``: a global secondary index on the number ``shard``, of which there are ``shards``.

        ``bulk`` gives what deletes many rows; without it the SDK does.
        """
        self._client = client
        self._table = table
        self._index = index
        self._shards = shards
        self._sweep = sweep
        self._bulk = bulk
        client.meta.events.register("before-parse.dynamodb.Scan", _read_page)
        client.meta.events.register("before-parse.dynamodb.Query", _read_page)

    @classmethod
    async def open(
        cls, aws: Aws, table: str, *, index: str | None = None, shards: int = 8, sweep: bool = True
    ) -> DynamoStore:
        """A store with a client of its own; raises ``SettingsError`` where the index is not what it must be."""
        client = await aws.client("dynamodb", patient())
        if index is not None:
            await _check_index(client, table, index)
        return cls(client, table, index=index, shards=shards, sweep=sweep, bulk=_row_deletions(aws, client, table))

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """A page of the shard; the cursor of a sweep says so."""
        if self._index is None or shard.count != self._shards or shard.count == 1:
            return await self._page(self._client.scan, cursor, **_segment(shard))
        if cursor is not None and _SWEEP in cursor:
            page = await self._page(self._client.scan, cursor[_SWEEP], **_segment(shard), **_not_in_index(shard))
            return page._replace(cursor=page.cursor and {_SWEEP: page.cursor})
        page = await self._page(self._client.query, cursor, IndexName=self._index, **_partition(shard))
        return page._replace(cursor={_SWEEP: None}) if page.cursor is None and self._sweep else page

    async def _page(self, call: Any, start: Cursor | None, **options: Any) -> Page:
        after = {"ExclusiveStartKey": dict(start)} if start else {}
        try:
            answer = await call(
                TableName=self._table, ProjectionExpression="connectionId, createdAt", **options, **after
            )
        except FAILURES as error:
            raise StoreUnavailable(f"the table {self._table} cannot be read: {error}") from error
        page: Page = answer["Page"]
        return page

    async def count(self, enough: int) -> int:
        """Count rows page by page, and stop at ``enough``: it never reads much more than that."""
        found = 0
        after: dict[str, Any] = {}
        while found < enough:
            try:
                answer = await self._client.scan(TableName=self._table, Select="COUNT", Limit=enough, **after)
            except FAILURES as error:
                raise StoreUnavailable(f"the table {self._table} cannot be read: {error}") from error
            found += answer["Count"]
            if "LastEvaluatedKey" not in answer:
                break
            after = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        return found

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
        await self._write(self._client.put_item(TableName=self._table, Item=item))

    async def delete(self, connection_ids: Sequence[str]) -> None:
        """Delete rows: one by DeleteItem, many on sockets of our own, and what those do not do by the SDK."""
        rows = list(connection_ids)
        if len(rows) > 1 and self._bulk is not None:
            rows = await (await self._bulk()).delete(rows)
        if len(rows) == 1:
            await self._write(self._client.delete_item(TableName=self._table, Key=_key(rows[0])))
            return
        for at in range(0, len(rows), BATCH):
            requests = [{"DeleteRequest": {"Key": _key(row)}} for row in rows[at : at + BATCH]]
            answer = await self._write(self._client.batch_write_item(RequestItems={self._table: requests}))
            if answer.get("UnprocessedItems"):
                raise StoreUnavailable(f"the table {self._table} is too busy to delete rows")

    async def _write(self, call: Any) -> Any:
        try:
            return await call
        except FAILURES as error:
            raise StoreUnavailable(f"the table {self._table} cannot be written: {error}") from error


def _row_deletions(aws: Aws, client: Any, table: str) -> Callable[[], Awaitable[RowDeletions]]:
    """Opened when the first crowd of clients is gone: most sandboxes never see one."""
    opened: list[RowDeletions] = []

    async def bulk() -> RowDeletions:
        if not opened:
            meta = client.meta
            tls = await aws.tls(meta.endpoint_url)
            deletions = RowDeletions(
                meta.endpoint_url, table, region=meta.region_name, credentials=aws.credentials, tls=tls
            )
            aws.closing(deletions.close)
            opened.append(deletions)
        return opened[0]

    return bulk


async def _check_index(client: Any, table: str, index: str) -> None:
    try:
        description = (await client.describe_table(TableName=table))["Table"]
    except FAILURES as error:
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
    return {
        "KeyConditionExpression": "#shard = :shard",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"N": str(shard.index)}},
    }


def _not_in_index(shard: Shard) -> dict[str, Any]:
    """Rows that no partition from 0 to the count holds."""
    return {
        "FilterExpression": "NOT attribute_type(#shard, :number) OR #shard >= :count OR #shard < :zero",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":number": {"S": "N"}, ":count": {"N": str(shard.count)}, ":zero": {"N": "0"}},
    }


def _key(connection_id: str) -> dict[str, dict[str, str]]:
    return {"connectionId": {"S": connection_id}}


def _read_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Take the page out of the body before botocore's parser sees it."""
    if response_dict["status_code"] != 200:
        return
    body = json.loads(response_dict["body"])
    if "Items" not in body:
        return
    clients = [Client(item["connectionId"]["S"], _created_at(item.get("createdAt"))) for item in body["Items"]]
    customized_response_dict["Page"] = Page(clients, body.get("LastEvaluatedKey"))
    response_dict["body"] = b"{}"


def _created_at(typed: Any) -> int | None:
    """A row without a sensible time counts as old."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError):
        return None
