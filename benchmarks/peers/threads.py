"""boto3: one post after another, and with a pool of threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from .worker import Setup

_THREADS = 50


class OneByOne:
    """A loop."""

    def __init__(self, setup: Setup) -> None:
        self._body = setup.body
        config = Config(max_pool_connections=_THREADS)
        self._client = boto3.client("apigatewaymanagementapi", endpoint_url=setup.endpoint, config=config)

    def broadcast(self, ids: Sequence[str]) -> int:
        """One post after another."""
        return sum(map(self._post, ids))

    def _post(self, connection_id: str) -> bool:
        try:
            self._client.post_to_connection(ConnectionId=connection_id, Data=self._body)
        except ClientError:
            return False
        return True


class Threads(OneByOne):
    """Fifty threads over one client, whose pool is as large."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._threads = ThreadPoolExecutor(_THREADS)

    def broadcast(self, ids: Sequence[str]) -> int:
        """All at once, fifty at a time."""
        return sum(self._threads.map(self._post, ids))
