"""Keeps the relay for the life of a Lambda sandbox: opens its services once, and sets each invocation's deadline.

Rules
- Nothing is opened before the first invocation, and then only what that invocation needs: a sandbox restored
  from a snapshot (SnapStart) must not share sockets, credentials or random numbers with another.
- The deadline is Lambda's remaining time less the time the return takes; without a context, a minute.
- Opening has the same deadline, less the time it takes to log a failure. If nothing can be opened in time, or a
  service that everybody depends on does not answer, all records and jobs are handed back: nothing was sent, so
  nothing is lost and nobody gets a message twice. ``$connect`` and ``$disconnect`` raise.
- The authorizer opens neither the table nor the transport. It raises where the issuer's keys cannot be had in time.
- ``$default`` never raises for what it could not open: API Gateway gets 200, and the log says what it was. Nor does
  the heartbeat: Lambda would try it again, and the next one is on its way.
- An opening that is cut off keeps the services that were opened whole, and the next invocation opens the rest.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from .clients.connect import Answer, connect, disconnect
from .clients.refusals import KeysUnavailable
from .delivery.admission import Admission
from .delivery.broadcaster import Broadcaster, Limits
from .delivery.evidence import Evidence
from .delivery.outbox import Queues
from .delivery.pacing import Pacing
from .delivery.protocols import ConnectionStore, Feed, Queue, Transport
from .delivery.publishing import Publisher
from .delivery.rate import Rate
from .delivery.relay import EmitMetrics, Failures, Relay
from .delivery.settlement import RequeuePolicy
from .errors import RelayError, SettingsError, StoreUnavailable, Unavailable
from .http.descriptors import sockets_at_most
from .services import Services
from .settings import Settings
from .wire.streams import read_records

if TYPE_CHECKING:
    from .clients.requests import Doorkeeper
    from .delivery.heartbeat import Heartbeat

_log = logging.getLogger("async_relay")
T = TypeVar("T")

_ALL_BACK = "nobody can be served, all is handed back"
_NOBODY_SERVED = {"systemic": 1}

# Seconds kept back for the return: the answer is encoded and travels to the runtime, on a busy vCPU.
_RETURN = 0.2
# Seconds, or a quarter of the time where that is less: the first log line of a sandbox loads Powertools.
_LAST_WORDS = 0.5
# Seconds an invocation has where nobody says: a call by hand, without a context.
_NO_CONTEXT = 60.0


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, since it halves the cost of a post; else the standard loop."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class Sandbox:
    """Serves the invocations of one Lambda sandbox, and keeps its services between them."""

    def __init__(
        self,
        settings: Settings,
        services: Services,
        *,
        wall_clock: Callable[[], float] = time.time,
        emit_metrics: EmitMetrics = lambda _figures: None,
    ) -> None:
        """``emit_metrics`` gets the figures of each broadcast."""
        self._settings = settings
        self._services = services
        self._wall_clock = wall_clock
        self._emit_metrics = emit_metrics
        self._store: ConnectionStore | None = None
        self._transport: Transport | None = None
        self._rate: Rate | None = None
        self._relay: Relay | None = None
        self._pacing = Pacing()
        self._doorkeeper: Doorkeeper | None = None
        self._heartbeat: Heartbeat | None = None

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<sandbox of {self._settings.connections_table}, posting through {self._transport or 'nothing yet'}>"

    @property
    def rate_limit(self) -> float | None:
        """Posts a second the relay allows itself now; None: as many as it can."""
        return self._rate.limit if self._rate is not None else None

    async def on_stream(self, event: Any, context: Any) -> Failures:
        """Serve a stream event; see ``Relay.on_stream``."""
        end = _end(context)
        try:
            relay = await _opened(self._open(), end, _ALL_BACK)
        except RelayError:
            await self._pacing.wait(end)
            raise
        if relay is None:
            self._emit_metrics(_NOBODY_SERVED)
            await self._pacing.wait(end)
            return _all_back(record.sequence for record in read_records(event))
        return await relay.on_stream(event, end - asyncio.get_running_loop().time())

    async def on_jobs(self, event: Any, context: Any) -> Failures:
        """Serve an SQS event; see ``Relay.on_jobs``."""
        end = _end(context)
        relay = await _opened(self._open(), end, _ALL_BACK)
        if relay is None:
            self._emit_metrics(_NOBODY_SERVED)
            return _all_back(record["messageId"] for record in event["Records"])
        return await relay.on_jobs(event, end - asyncio.get_running_loop().time())

    async def on_authorize(self, event: Any, context: Any = None) -> Answer:
        """Say whether a client may connect; see ``clients.authorize``."""
        from .clients.authorize import authorize

        settings = self._settings
        if settings.auth_mode != "jwt" or settings.authorizer_arn is not None:
            raise SettingsError(
                "AUTH_MODE is not jwt, or AUTHORIZER_ARN names another authorizer: nobody is let in here"
            )
        try:
            async with asyncio.timeout_at(_end(context)):
                return await authorize(event, self._keeper().verifier, settings, self._wall_clock())
        except TimeoutError:
            raise KeysUnavailable(f"the keys of {settings.auth_issuer} did not come in time") from None

    async def on_connect(self, event: Any, context: Any = None) -> Answer:
        """Serve $connect; see ``clients.connect``."""
        async with self._table_until(_end(context)) as store:
            return await connect(event, store, self._wall_clock(), self._settings)

    async def on_disconnect(self, event: Any, context: Any = None) -> Answer:
        """Serve $disconnect; see ``clients.connect``."""
        async with self._table_until(_end(context)) as store:
            return await disconnect(event, store)

    async def on_request(self, event: Any, context: Any = None) -> Answer:
        """Serve $default; see ``clients.requests``."""
        from .clients.requests import on_request

        end = _end(context)
        try:
            async with asyncio.timeout_at(end):
                transport = await self._open_transport()
                await on_request(event, self._open_store, transport, self._keeper(), end)
        except (Unavailable, TimeoutError) as error:
            _log.error("a client could not be answered: %s", str(error) or "there was no time left")
        return {"statusCode": 200}

    async def on_heartbeat(self, _event: Any, context: Any = None) -> Answer:
        """Ping everybody; see ``delivery.heartbeat``."""
        end = _end(context)
        heartbeat = await _opened(self._open_heartbeat(), end, "nobody can be pinged")
        if heartbeat is None:
            self._emit_metrics(_NOBODY_SERVED)
        else:
            await heartbeat.beat(end - asyncio.get_running_loop().time())
        return {"statusCode": 200}

    async def close(self) -> None:
        """Close every socket; for programs that end, which a sandbox does not."""
        if self._transport is not None:
            await self._transport.close()
        await self._services.close()
        self._store = self._transport = self._rate = self._relay = self._doorkeeper = None
        self._heartbeat = None

    @asynccontextmanager
    async def _table_until(self, end: float) -> AsyncIterator[ConnectionStore]:
        """Open the table and lend it until ``end``; raises ``StoreUnavailable`` then."""
        try:
            async with asyncio.timeout_at(end):
                yield await self._open_store()
        except TimeoutError:
            raise StoreUnavailable(f"the table {self._settings.connections_table} did not answer in time") from None

    async def _open_store(self) -> ConnectionStore:
        if self._store is None:
            self._store = await self._services.store()
        return self._store

    def _keeper(self) -> Doorkeeper:
        """What clients' tokens and requests take; loading it takes 10 ms, which no relay waits for."""
        from .clients.feed_copy import FeedCopy
        from .clients.incident_list import IncidentReader
        from .clients.requests import Doorkeeper
        from .clients.tokens import Verifier

        settings, clock = self._settings, self._wall_clock
        if self._doorkeeper is None:
            feed = incidents = None
            if settings.feed_table is not None:
                feed = FeedCopy(self._services.feed, clock, settings.feed_hours)
            if settings.incident_table is not None:
                incidents = IncidentReader(self._services.incidents, clock, settings)
            verifier, evidence = Verifier(settings, clock), Evidence(clock)
            self._doorkeeper = Doorkeeper(settings, verifier, evidence, clock, feed, incidents)
        return self._doorkeeper

    async def _open_transport(self) -> Transport:
        if self._transport is None:
            self._transport = await self._services.transport()
        return self._transport

    async def _open(self) -> Relay:
        if self._relay is None:
            store = await self._open_store()
            transport = await self._open_transport()
            feed = await self._services.feed() if self._settings.feed_table is not None else None
            self._rate = Rate(self._settings.max_posts_per_second)
            self._relay = self._new_relay(transport, store, feed, self._rate)
        return self._relay

    def _new_relay(self, transport: Transport, store: ConnectionStore, feed: Feed | None, rate: Rate) -> Relay:
        settings = self._settings
        queues = Queues(
            retry=self._queue(settings.retry_queue_url),
            dead_letters=self._queue(settings.dead_letter_queue_url),
            fanout=self._queue(settings.fanout_queue_url if settings.fanout_mode != "direct" else None),
        )
        admission = Admission(settings.by_tenant, settings.needs_row)
        return Relay(
            self._new_broadcaster(transport, store, rate, admission),
            queues,
            RequeuePolicy(settings.retry_backoff_seconds, settings.max_delivery_attempts),
            wall_clock=self._wall_clock,
            shards=settings.fanout_shards,
            shard_kind=settings.shard_kind,
            auto_clients=settings.fanout_auto_clients if settings.fanout_mode == "auto" else None,
            coalesce=settings.coalesce,
            formatter=settings.message_formatter,
            tenant_attribute=settings.tenant_attribute,
            emit_metrics=self._emit_metrics,
            pacing=self._pacing,
            publisher=Publisher(feed, self._wall_clock, Random()) if feed is not None else None,
        )

    def _new_broadcaster(
        self, transport: Transport, store: ConnectionStore, rate: Rate, admission: Admission
    ) -> Broadcaster:
        settings = self._settings
        limits = Limits(sockets_at_most(settings.max_concurrency), settings.post_timeout_seconds, settings.frame_bytes)
        return Broadcaster(transport, store, limits, rate, Random(), self._wall_clock, admission)

    async def _open_heartbeat(self) -> Heartbeat:
        from .delivery.heartbeat import FOR_EVERYBODY, Heartbeat, Round

        if self._heartbeat is None:
            table = Round(await self._open_store())
            transport = await self._open_transport()
            self._rate = Rate(self._settings.max_posts_per_second)
            self._heartbeat = Heartbeat(
                self._new_broadcaster(transport, table, self._rate, FOR_EVERYBODY),
                table,
                wall_clock=self._wall_clock,
                random=Random(),
                has_feed=self._settings.feed_table is not None,
                emit_metrics=self._emit_metrics,
            )
        return self._heartbeat

    def _queue(self, url: str | None) -> Queue | None:
        return None if url is None else self._services.queue(url)


async def _opened(opening: Coroutine[None, None, T], end: float, without: str) -> T | None:
    """What is opened; None where it cannot be opened by ``end``, and the log says what that means (``without``)."""
    now = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout_at(end - min(_LAST_WORDS, (end - now) / 4)):
            return await opening
    except (Unavailable, TimeoutError) as error:
        _log.error("%s: %s", without, str(error) or "nothing was open in time")
        return None


def _all_back(identifiers: Iterable[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


def _end(context: Any) -> float:
    """When the loop's clock says that an invocation's time is over."""
    remaining = context.get_remaining_time_in_millis() / 1000 if context is not None else _NO_CONTEXT
    return asyncio.get_running_loop().time() + max(0.0, remaining - _RETURN)
