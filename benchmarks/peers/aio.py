"""aioboto3 as most people write it, the same as a whole handler, and aiobotocore with everything tuned."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import ClientError

from async_relay.sandbox import new_event_loop

from .worker import TABLE, Setup


class NaivePosts:
    """A semaphore and gather; one loop and one client for life, which is kinder than most handlers are."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._stack = AsyncExitStack()
        self._runner = self._new_runner()
        self._client = self._open("apigatewaymanagementapi", endpoint_url=setup.endpoint, config=self._config())

    def _new_runner(self) -> asyncio.Runner:
        return asyncio.Runner()

    def _config(self) -> AioConfig | None:
        return None

    def _open(self, service: str, **options: Any) -> Any:
        client: Any = aioboto3.Session().client(service, **options)  # type: ignore[call-overload]  # any service
        return self._runner.run(self._stack.enter_async_context(client))

    def broadcast(self, ids: Sequence[str]) -> int:
        """The posts alone."""
        return self._runner.run(self._post_all(ids, self._setup.body))

    async def _post_all(self, ids: Sequence[str], body: bytes) -> int:
        places = asyncio.Semaphore(self._setup.concurrency)

        async def post(connection_id: str) -> bool:
            async with places:
                try:
                    await self._client.post_to_connection(ConnectionId=connection_id, Data=body)
                except ClientError:
                    return False
                return True

        return sum(await asyncio.gather(*(post(each) for each in ids)))


class NaiveHandler(NaivePosts):
    """The whole handler: decode the record, scan the table page by page, format, post to everybody."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._table = self._open("dynamodb")

    def broadcast(self, ids: Sequence[str]) -> int:  # noqa: ARG002 - it reads them from the table
        """The event, from its record to the last answer."""
        return self._runner.run(self._handle())

    async def _handle(self) -> int:
        delivered = 0
        for record in self._setup.event["Records"]:
            item = {key: next(iter(value.values())) for key, value in record["dynamodb"]["NewImage"].items()}
            body = json.dumps({"kind": "incident_update", "resource": item.pop("arn"), **item}).encode()
            delivered += await self._post_all(await self._scan(), body)
        return delivered

    async def _scan(self) -> list[str]:
        found: list[str] = []
        after: dict[str, Any] = {}
        while True:
            page = await self._table.scan(TableName=TABLE, ProjectionExpression="connectionId", **after)
            found += [item["connectionId"]["S"] for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                return found
            after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class TunedPosts(NaivePosts):
    """A pool as large as the bound, no validation, no retries, uvloop: what tuning can do for it."""

    def _new_runner(self) -> asyncio.Runner:
        return asyncio.Runner(loop_factory=new_event_loop)

    def _config(self) -> AioConfig:
        one_try: Any = {"total_max_attempts": 1, "mode": "standard"}
        return AioConfig(max_pool_connections=self._setup.concurrency, parameter_validation=False, retries=one_try)
