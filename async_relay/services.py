"""Where a sandbox gets the table, the transport and the queues from.

``AwsServices`` makes them from the settings. A load test, a leak test or a program of one's own passes
another implementation of ``Services``; ``testing.memory`` has one that needs no AWS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from .aws import Aws, DynamoFeed, DynamoIncidents, DynamoStore, SqsQueue
from .delivery.protocols import ConnectionStore, Feed, IncidentTable, Queue, Transport
from .http.descriptors import sockets_at_most
from .http.direct import DirectTransport
from .http.urls import endpoint_region
from .settings import Settings


class Services(Protocol):
    """Opens what a sandbox needs from outside.

    A sandbox calls ``store`` and ``transport`` until each has succeeded once, keeps the result, and closes the
    transport before it calls ``close``. Both raise ``Unavailable``, or ``SettingsError`` where a setting is wrong.
    """

    async def store(self) -> ConnectionStore:
        """Open the connections table."""

    async def transport(self) -> Transport:
        """Open the transport that posts to the clients."""

    async def feed(self) -> Feed | None:
        """Open the feed; None where there is none."""

    async def incidents(self) -> IncidentTable | None:
        """Open the incident table for reading; None where none is named."""

    def queue(self, url: str) -> Queue:
        """The queue with this URL; nothing is opened before the first ``send``."""

    async def close(self) -> None:
        """Close everything but the transport."""


class AwsServices:
    """DynamoDB, API Gateway and SQS, as the settings name them.

    Nothing is read from the environment before the first call, since a sandbox restored from a snapshot has
    other credentials than the one that was snapshotted.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environ = environ
        self._aws: Aws | None = None

    @property
    def aws(self) -> Aws:
        """The session all calls share, made when it is first needed."""
        if self._aws is None:
            self._aws = Aws(self._environ, own_sockets=self._settings.transport == "direct")
        return self._aws

    async def store(self) -> ConnectionStore:
        """Open the connections table; with an index, check that the index is as it must be."""
        settings = self._settings
        return await DynamoStore.open(
            self.aws.service("dynamodb"),
            settings.connections_table,
            index=settings.connections_index,
            shards=settings.fanout_shards,
            sweep=settings.connections_index_sweep,
        )

    async def transport(self) -> Transport:
        """Open the transport that ``TRANSPORT`` names."""
        settings = self._settings
        bounds: dict[str, Any] = {
            "region": endpoint_region(settings.ws_endpoint) or await self.aws.region() or "us-east-1",
            "max_sockets": sockets_at_most(settings.max_concurrency),
            "timeout": settings.post_timeout_seconds,
        }
        if settings.transport == "sdk":
            management_api = await self.aws.load("management_api")
            transport: Transport = await management_api.SdkTransport.open(self.aws, settings.ws_endpoint, **bounds)
            return transport
        tls = await self.aws.tls(settings.ws_endpoint)
        return DirectTransport(settings.ws_endpoint, credentials=self.aws.credentials, tls=tls, **bounds)

    async def feed(self) -> Feed | None:
        """Make the feed in the table that ``FEED_TABLE`` names."""
        table = self._settings.feed_table
        return None if table is None else DynamoFeed(self.aws.service("dynamodb"), table, self._settings.feed_hours)

    async def incidents(self) -> IncidentTable | None:
        """Open the table that ``INCIDENT_TABLE`` names; with an index, check that the index is as it must be."""
        table, index = self._settings.incident_table, self._settings.incident_index
        return None if table is None else await DynamoIncidents.open(self.aws.service("dynamodb"), table, index)

    def queue(self, url: str) -> Queue:
        """The SQS queue with this URL."""
        return SqsQueue(self.aws.service("sqs"), url)

    async def close(self) -> None:
        """Close the sockets to DynamoDB and SQS, and the SDK's clients."""
        if self._aws is not None:
            await self._aws.close()
        self._aws = None
