"""Puts the relay together from its settings, and keeps it for the life of a Lambda sandbox.

Rules
- Nothing is opened before the first invocation, and only what that needs: a sandbox restored from
  a snapshot (SnapStart) must not share sockets, credentials or random numbers with another.
- The deadline is Lambda's remaining time less what the return takes; without a context, a minute.
- Opening has the same deadline, less what it takes to say so. If nothing can be opened in time, or what
  everybody depends on does not answer, all records and jobs are handed back: nothing was sent, so nothing
  is lost and nobody gets a message twice. ``$connect`` and ``$disconnect`` raise.
- An opening that is cut off leaves what was opened whole, and the next invocation goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlsplit

from .aws import Aws, DynamoStore, SqsQueue
from .delivery.broadcaster import Broadcaster, Limits
from .delivery.pacing import Pacing
from .delivery.protocols import ConnectionStore, Queue, Transport
from .delivery.rate import Rate
from .delivery.relay import Failures, Measure, Queues, Relay
from .delivery.settlement import Policy
from .errors import RelayError, StoreUnavailable, Unavailable
from .http.descriptors import sockets_at_most
from .http.direct import DirectTransport
from .settings import Settings
from .wire.streams import read_records

_log = logging.getLogger("async_relay")

_RETURN = 0.2
# Seconds, or a quarter of the time where that is less: the first log line of a sandbox loads Powertools.
_LAST_WORDS = 0.5
_NO_CONTEXT = 60.0
_CLIENT_ID_LENGTH = 256


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, since it halves the cost of a post; else the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Sandbox:
    """What one Lambda sandbox keeps between invocations."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] = os.environ,
        *,
        wall_clock: Callable[[], float] = time.time,
        measure: Measure = lambda _figures: None,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._wall_clock = wall_clock
        self._measure = measure
        self._opened_aws: Aws | None = None
        self._store: ConnectionStore | None = None
        self._transport: Transport | None = None
        self._relay: Relay | None = None
        self._pacing = Pacing()

    async def on_stream(self, event: Any, context: Any) -> Failures:
        """A stream event; see ``Relay.on_stream``."""
        end = _end(context)
        try:
            relay = await self._ready(end)
        except RelayError:
            await self._pacing.wait(end)
            raise
        if relay is None:
            await self._pacing.wait(end)
            return _all_back(record.sequence for record in read_records(event))
        return await relay.on_stream(event, end - asyncio.get_running_loop().time())

    async def on_jobs(self, event: Any, context: Any) -> Failures:
        """An SQS event; see ``Relay.on_jobs``."""
        end = _end(context)
        relay = await self._ready(end)
        if relay is None:
            return _all_back(record["messageId"] for record in event["Records"])
        return await relay.on_jobs(event, end - asyncio.get_running_loop().time())

    async def on_connect(self, event: Any, context: Any = None) -> dict[str, int]:
        """Write the row; a failure refuses the connection, since a client without a row gets nothing."""
        now = self._wall_clock()
        query = event.get("queryStringParameters") or {}
        client_id = str(query.get("clientId") or "unknown")[:_CLIENT_ID_LENGTH]
        ttl = int(now + self._settings.ttl_hours * 3600)
        async with self._table_by(_end(context)) as store:
            await store.put(_connection_id(event), client_id, int(now * 1000), ttl)
        return {"statusCode": 200}

    async def on_disconnect(self, event: Any, context: Any = None) -> dict[str, int]:
        """Delete the row."""
        async with self._table_by(_end(context)) as store:
            await store.delete([_connection_id(event)])
        return {"statusCode": 200}

    async def close(self) -> None:
        """Close every socket; for programs that end, which a sandbox does not."""
        if self._transport is not None:
            await self._transport.close()
        if self._opened_aws is not None:
            await self._opened_aws.close()
        self._opened_aws = self._store = self._transport = self._relay = None

    async def _ready(self, end: float) -> Relay | None:
        """The relay, or None where it cannot be opened by ``end``; the log says why."""
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(end - min(_LAST_WORDS, (end - now) / 4)):
                return await self._open()
        except (Unavailable, TimeoutError) as error:
            _log.error("nobody can be served, all is handed back: %s", str(error) or "nothing was open in time")
            return None

    @asynccontextmanager
    async def _table_by(self, end: float) -> AsyncIterator[ConnectionStore]:
        """The table, opened and used until ``end``; raises ``StoreUnavailable`` then."""
        try:
            async with asyncio.timeout_at(end):
                yield await self._open_store()
        except TimeoutError:
            raise StoreUnavailable(f"the table {self._settings.connections_table} did not answer in time") from None

    async def _open(self) -> Relay:
        if self._relay is None:
            settings = self._settings
            store = await self._open_store()
            self._transport = await self._open_transport()
            queues = Queues(
                retry=self._queue(settings.retry_queue_url),
                dead_letters=self._queue(settings.dead_letter_queue_url),
                fanout=self._queue(settings.fanout_queue_url if settings.fanout_mode != "direct" else None),
            )
            limits = Limits(
                sockets_at_most(settings.max_concurrency), settings.post_timeout_seconds, queues.retry is None
            )
            rate = Rate(settings.max_posts_per_second)
            self._relay = Relay(
                Broadcaster(self._transport, store, limits, rate, Random(), self._wall_clock),
                queues,
                Policy(
                    queues.retry is not None,
                    queues.dead_letters is not None,
                    settings.retry_backoff_seconds,
                    settings.max_delivery_attempts,
                ),
                wall_clock=self._wall_clock,
                shards=settings.fanout_shards,
                shard_kind=settings.shard_kind,
                auto_clients=settings.fanout_auto_clients if settings.fanout_mode == "auto" else None,
                coalesce=settings.coalesce,
                formatter=settings.message_formatter,
                measure=self._measure,
                pacing=self._pacing,
            )
        return self._relay

    def _aws(self) -> Aws:
        if self._opened_aws is None:
            self._opened_aws = Aws(self._environ, own_sockets=self._settings.transport == "direct")
        return self._opened_aws

    async def _open_store(self) -> ConnectionStore:
        if self._store is None:
            settings = self._settings
            self._store = await DynamoStore.open(
                self._aws().service("dynamodb"),
                settings.connections_table,
                index=settings.connections_index,
                shards=settings.fanout_shards,
                sweep=settings.connections_index_sweep,
            )
        return self._store

    async def _open_transport(self) -> Transport:
        settings = self._settings
        bounds: dict[str, Any] = {
            "region": endpoint_region(settings.ws_endpoint) or await self._aws().region() or "us-east-1",
            "max_sockets": sockets_at_most(settings.max_concurrency),
            "timeout": settings.post_timeout_seconds,
        }
        if settings.transport == "sdk":
            management_api = await self._aws().load("management_api")
            transport: Transport = await management_api.SdkTransport.open(self._aws(), settings.ws_endpoint, **bounds)
            return transport
        tls = await self._aws().tls(settings.ws_endpoint)
        return DirectTransport(settings.ws_endpoint, credentials=self._aws().credentials, tls=tls, **bounds)

    def _queue(self, url: str | None) -> Queue | None:
        return None if url is None else SqsQueue(self._aws().service("sqs"), url)


def endpoint_region(endpoint: str) -> str | None:
    """The Region in an API Gateway host name, which is the one to sign for; None for any other host."""
    match (urlsplit(endpoint).hostname or "").split("."):
        case [_, "execute-api", region, *_]:
            return region
    return None


def _all_back(identifiers: Iterable[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


def _end(context: Any) -> float:
    remaining = context.get_remaining_time_in_millis() / 1000 if context is not None else _NO_CONTEXT
    return asyncio.get_running_loop().time() + max(0.0, remaining - _RETURN)


def _connection_id(event: Any) -> str:
    try:
        return str(event["requestContext"]["connectionId"])
    except (KeyError, TypeError):
        raise RelayError(
            "the event has no requestContext.connectionId; this function belongs on a WebSocket route"
        ) from None
