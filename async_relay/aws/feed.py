"""The feed in DynamoDB.

Rules
- Entries are put one by one, side by side: BatchWriteItem may leave some undone, and a put is there or is not.
- A put that finds its place taken fails: entries of two relays may have the same position, and neither may be lost.
- A page is a Query of each bucket, consistent and side by side.
- A caller gets a value or ``StoreUnavailable``. Of an entry nobody can read the place remains, and the log says so.

``bucket``, ``position`` and ``ttl`` are reserved words (DynamoDB Developer Guide, "Reserved words").
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from ..errors import StoreUnavailable, Unavailable
from ..wire.feed import BUCKETS, FeedEntry, FeedPage, merged, ms_of
from .session import Service

_log = logging.getLogger("async_relay")

# Entries of one bucket in a page: of a quiet feed minutes in one call. With 60 KB each DynamoDB ends it after 1 MB.
_PAGE = 100


class DynamoFeed:
    """A table with the keys ``bucket`` and ``position``, and the TTL ``ttl``."""

    def __init__(self, dynamodb: Service, table: str, hours: float) -> None:
        """``hours``: for how long entries are kept."""
        self._dynamodb = dynamodb
        self._table = table
        self._hours = hours

    async def append(self, entries: Sequence[FeedEntry]) -> None:
        """Put the entries."""
        await self._each("written", "PutItem", [self._put(each) for each in entries])

    def _put(self, entry: FeedEntry) -> dict[str, Any]:
        # An hour more: an entry that is about to go must not leave a hole in what is read meanwhile.
        ttl = ms_of(entry.position) // 1000 + int((self._hours + 1) * 3600)
        item = {
            "bucket": {"S": entry.bucket},
            "position": {"S": entry.position},
            "messages": {"S": entry.encode()},
            "ttl": {"N": str(ttl)},
        }
        return {
            "TableName": self._table,
            "Item": item,
            "ConditionExpression": "attribute_not_exists(#bucket)",
            "ExpressionAttributeNames": {"#bucket": "bucket"},
        }

    async def read(self, after: str, before: str, *, newest_first: bool = False) -> FeedPage:
        """Query every bucket between the two positions."""
        if after >= before:
            return FeedPage((), more=False)
        requests = [self._query(bucket, after, before, newest_first=newest_first) for bucket in BUCKETS]
        answers = await self._each("read", "Query", requests)
        try:
            return merged(map(self._page, answers), newest_first=newest_first)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            _log.exception("the table %s was answered for in an unexpected way", self._table)
            raise StoreUnavailable(f"the feed {self._table} cannot be read: {type(error).__name__}") from error

    def _page(self, answer: Any) -> tuple[list[FeedEntry], bool]:
        entries, more = [self._entry(item) for item in answer["Items"]], bool(answer.get("LastEvaluatedKey"))
        if more and not entries:
            raise ValueError("a page without entries is not the last")
        return entries, more

    def _entry(self, item: Any) -> FeedEntry:
        bucket, position = item["bucket"]["S"], item["position"]["S"]
        try:
            return FeedEntry.decode(bucket, position, item["messages"]["S"])
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            _log.error("the entry %s of bucket %s in %s cannot be read", position, bucket, self._table)
            return FeedEntry(bucket, position, ())

    def _query(self, bucket: str, after: str, before: str, *, newest_first: bool) -> dict[str, Any]:
        return {
            "TableName": self._table,
            "ConsistentRead": True,
            "ScanIndexForward": not newest_first,
            "Limit": _PAGE,
            # A key has one condition, and BETWEEN includes both ends: no position is as long as these two.
            "KeyConditionExpression": "#bucket = :bucket AND #position BETWEEN :after AND :before",
            "ExpressionAttributeNames": {"#bucket": "bucket", "#position": "position"},
            "ExpressionAttributeValues": {
                ":bucket": {"S": bucket},
                ":after": {"S": after + "~"},
                ":before": {"S": before[:-1] + chr(ord(before[-1]) - 1) + "~"},
            },
        }

    async def _each(self, done: str, operation: str, requests: Sequence[dict[str, Any]]) -> list[Any]:
        try:
            answers = await self._dynamodb.call_each(operation, requests)
        except Unavailable as error:
            raise StoreUnavailable(f"the feed {self._table} cannot be {done}: {error}") from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise StoreUnavailable(f"the feed {self._table} cannot be {done}: {answer}") from answer
        return answers
