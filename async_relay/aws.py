"""DynamoDB, SQS and the Management API through aioboto3: the one place that knows botocore's errors.

Rules
- One retry policy each: botocore's standard one for the table and the queues, ours for posts.
- A Scan page is read with ``json`` before botocore would parse it: a sixth of the time.
- SendMessageBatch takes ten entries; a call carries 256 KiB at most (SQS quotas).
- BatchWriteItem takes 25 rows and may leave some undone (DynamoDB API Reference, "UnprocessedItems").
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from botocore.parsers import ResponseParserError

from .errors import (
    Disconnected,
    PostError,
    QueueUnavailable,
    ServerError,
    StoreUnavailable,
    TimedOut,
    Unavailable,
    Unreachable,
    post_error,
)
from .jobs import MAX_BODY_BYTES, Client, Cursor, Shard, shard_of
from .messages import Message
from .protocols import Entry, Page
from .sigv4 import Credentials

_PATIENT: Any = {"max_attempts": 3, "mode": "standard"}
_ONE_TRY: Any = {"total_max_attempts": 1}
_FAILURES = (BotoCoreError, ClientError)
_BATCH_WRITE = 25
_BATCH_SEND = 10

#: What botocore raises for a post that has no answer. The first that fits counts.
_POST_FAILURES: tuple[tuple[type[Exception], type[PostError]], ...] = (
    (EndpointConnectionError, Unreachable),
    (ConnectTimeoutError, Unreachable),
    (ProxyConnectionError, Unreachable),
    (SSLError, Unreachable),
    (ReadTimeoutError, TimedOut),
    (TimeoutError, TimedOut),
    (ResponseParserError, ServerError),
    (BotoCoreError, Disconnected),
)


class Aws:
    """An aioboto3 session and the clients made from it, closed together."""

    def __init__(self, session: aioboto3.Session | None = None) -> None:
        self._session = session or aioboto3.Session()
        self._stack = AsyncExitStack()

    @property
    def region(self) -> str | None:
        """The session's Region: AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
        region: str | None = self._session.region_name
        return region

    async def credentials(self) -> Credentials:
        """The credentials of now, refreshed if they have to be; raises ``Unavailable``."""
        try:
            session: Any = self._session
            provider = await session.get_credentials()
            if provider is None:
                raise Unavailable("no AWS credentials were found; give the function a role, or set AWS_ACCESS_KEY_ID")
            frozen = await provider.get_frozen_credentials()
        except BotoCoreError as error:
            raise Unavailable(f"no AWS credentials: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def client(self, service: str, config: AioConfig, **options: Any) -> Any:
        """A client that lives as long as the session."""
        make: Any = self._session.client
        return await self._stack.enter_async_context(make(service, config=config, **options))

    async def close(self) -> None:
        """Close every client."""
        await self._stack.aclose()


class DynamoStore:
    """The connections table in DynamoDB."""

    def __init__(self, client: Any, table: str, *, index: str | None = None, shards: int = 8) -> None:
        """``index``: a global secondary index on the number ``shard``, of which there are ``shards``."""
        self._client = client
        self._table = table
        self._index = index
        self._shards = shards
        client.meta.events.register("before-parse.dynamodb.Scan", _read_page)
        client.meta.events.register("before-parse.dynamodb.Query", _read_page)

    @classmethod
    async def open(cls, aws: Aws, table: str, *, index: str | None = None, shards: int = 8) -> DynamoStore:
        """A store with a client of its own."""
        config = AioConfig(retries=_PATIENT, connect_timeout=2, read_timeout=5, tcp_keepalive=True)
        return cls(await aws.client("dynamodb", config), table, index=index, shards=shards)

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:
        """A page of the Scan segment ``shard.index`` of ``shard.count``."""
        start = {"ExclusiveStartKey": dict(cursor)} if cursor else {}
        segment = {"Segment": shard.index, "TotalSegments": shard.count} if shard.count > 1 else {}
        try:
            answer = await self._client.scan(
                TableName=self._table, ProjectionExpression="connectionId, createdAt", **segment, **start
            )
        except _FAILURES as error:
            raise StoreUnavailable(f"the table {self._table} cannot be read: {error}") from error
        page: Page = answer["Page"]
        return page

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
        """Delete rows, 25 a call."""
        if len(connection_ids) == 1:
            await self._write(self._client.delete_item(TableName=self._table, Key=_key(connection_ids[0])))
            return
        for at in range(0, len(connection_ids), _BATCH_WRITE):
            rows = connection_ids[at : at + _BATCH_WRITE]
            requests = [{"DeleteRequest": {"Key": _key(connection_id)}} for connection_id in rows]
            answer = await self._write(self._client.batch_write_item(RequestItems={self._table: requests}))
            if answer.get("UnprocessedItems"):
                raise StoreUnavailable(f"the table {self._table} is too busy to delete rows")

    async def _write(self, call: Any) -> Any:
        try:
            return await call
        except _FAILURES as error:
            raise StoreUnavailable(f"the table {self._table} cannot be written: {error}") from error


def _key(connection_id: str) -> dict[str, dict[str, str]]:
    return {"connectionId": {"S": connection_id}}


def _read_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Take the page out of the body before botocore's parser sees it."""
    if response_dict["status_code"] != 200:
        return
    body = json.loads(response_dict["body"])
    clients = [Client(item["connectionId"]["S"], _created_at(item.get("createdAt"))) for item in body["Items"]]
    customized_response_dict["Page"] = Page(clients, body.get("LastEvaluatedKey"))
    response_dict["body"] = b"{}"


def _created_at(typed: Any) -> int | None:
    """A row without a sensible time counts as old."""
    try:
        return int(typed["N"])
    except (KeyError, TypeError, ValueError):
        return None


class SqsQueue:
    """A queue in SQS, standard or FIFO."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @classmethod
    async def open(cls, aws: Aws, url: str) -> SqsQueue:
        """A queue with a client of its own."""
        return cls(await aws.client("sqs", AioConfig(retries=_PATIENT, connect_timeout=2, read_timeout=5)), url)

    async def send(self, entries: Sequence[Entry]) -> None:
        """Send in batches, in order; raises ``QueueUnavailable`` with what was not taken."""
        failed: set[int] = set()
        reason = ""
        for batch in _batches(entries):
            try:
                answer = await self._client.send_message_batch(
                    QueueUrl=self._url, Entries=[_entry(at, entries[at]) for at in batch]
                )
            except _FAILURES as error:
                failed.update(batch)
                reason = str(error)
                continue
            for failure in answer.get("Failed", ()):
                failed.add(int(failure["Id"]))
                reason = f"{failure.get('Code')}: {failure.get('Message', '')}"
        if failed:
            raise QueueUnavailable(
                f"the queue {self._url} did not take {len(failed)} of {len(entries)}: {reason}", frozenset(failed)
            )


def _batches(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """Positions of consecutive entries that fit in one call."""
    batch: list[int] = []
    size = 0
    for at, entry in enumerate(entries):
        need = len(entry.body.encode())
        if batch and (len(batch) == _BATCH_SEND or size + need > MAX_BODY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(at)
        size += need
    if batch:
        yield batch


def _entry(at: int, entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = {"Id": str(at), "MessageBody": entry.body}
    if entry.delay:
        fields["DelaySeconds"] = entry.delay
    if entry.group:
        fields["MessageGroupId"] = entry.group
        fields["MessageDeduplicationId"] = entry.deduplication_id
    return fields


class SdkTransport:
    """The Management API through aioboto3: a task a post, one try a post, a pool as large as the bound."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls, aws: Aws, endpoint: str, *, region: str, max_sockets: int = 100, timeout: float = 3.0
    ) -> SdkTransport:
        """A transport with a client of its own; ``timeout`` in seconds."""
        config = AioConfig(
            retries=_ONE_TRY,
            max_pool_connections=max_sockets,
            connect_timeout=timeout,
            read_timeout=timeout,
        )
        options = {"endpoint_url": endpoint, "region_name": region}
        return cls(await aws.client("apigatewaymanagementapi", config, **options), timeout)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._tasks)} busy>"

    async def begin(self) -> None:
        """Nothing: the SDK asks for credentials itself."""

    def send(self, lane: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        """Post in a task of its own."""
        task = asyncio.get_running_loop().create_task(self._post(lane, message, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _post(self, lane: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        error: PostError | None = None
        try:
            async with asyncio.timeout(self._timeout):
                await self._client.post_to_connection(ConnectionId=lane.connection_id, Data=message.body)
        except ClientError as refusal:
            answer = refusal.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            error = post_error(status, str(answer.get("Error", {}).get("Code", "")))
        except (BotoCoreError, TimeoutError) as failure:
            error = _post_failure(failure)
        done(lane, error)

    def stop(self) -> None:
        """Cancel every post in flight."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Stop, and wait for the tasks."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """The client closes with its session."""
        await self.end()


def _post_failure(failure: Exception) -> PostError:
    ours = next(ours for theirs, ours in _POST_FAILURES if isinstance(failure, theirs))
    return ours(str(failure) or type(failure).__name__)
