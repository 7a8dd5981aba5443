"""The transport of ``TRANSPORT=sdk``: it posts through aioboto3's client for the Management API.

Rules
- Each post is a task of its own, and the SDK tries it once: ``delivery`` decides on retries.
- The SDK's pool of sockets is as large as the bound, so no post waits in it.
- Every failure reaches the caller as a ``PostError``; no botocore exception leaves this module.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from aiobotocore.config import AioConfig
from aiohttp import ClientConnectorError
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

from ..errors import Disconnected, PostError, ServerError, TimedOut, Unreachable, post_error
from ..wire.messages import Message
from .sdk import VerifyingSession
from .session import Aws

_log = logging.getLogger("async_relay")

#: botocore's exceptions for a post without an answer, and ours. The first row that fits counts.
_POST_FAILURES: tuple[tuple[type[Exception], type[PostError]], ...] = (
    (ConnectTimeoutError, Unreachable),
    (ProxyConnectionError, Unreachable),
    (SSLError, Unreachable),
    (ReadTimeoutError, TimedOut),
    (TimeoutError, TimedOut),
    (ResponseParserError, ServerError),
    (BotoCoreError, Disconnected),
    (OSError, Disconnected),
)
_POSTED = frozenset({200})
_CLOSED = frozenset({200, 204})


class SdkTransport:
    """Posts through one client of the SDK, in one task per post."""

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(
        cls,
        aws: Aws,
        endpoint: str,
        *,
        region: str,
        max_sockets: int = 100,
        timeout: float = 3.0,
        ca_file: str | None = None,
    ) -> SdkTransport:
        """Make the SDK's client; ``timeout`` is in seconds, and ``ca_file`` goes before AWS_CA_BUNDLE."""
        one_try: Any = {"total_max_attempts": 1}
        config = AioConfig(
            retries=one_try,
            max_pool_connections=max_sockets,
            connect_timeout=timeout,
            read_timeout=timeout,
            http_session_cls=VerifyingSession,
        )
        options = {"endpoint_url": endpoint, "region_name": region, "verify": ca_file}
        return cls(await (await aws.sdk()).client("apigatewaymanagementapi", config, **options), timeout)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._tasks)} busy>"

    async def begin(self) -> None:
        """Do nothing: the SDK fetches its credentials itself."""

    def send(self, recipient: Any, message: Message, done: Callable[[Any, PostError | None], None]) -> None:
        """Post to ``recipient.connection_id`` in a task of its own; ``done(recipient, error)`` follows."""
        post = partial(self._client.post_to_connection, ConnectionId=recipient.connection_id, Data=message.body)
        self._begin(self._call(post, _POSTED, recipient, done))

    def disconnect(self, recipient: Any, done: Callable[[Any, PostError | None], None]) -> None:
        """Close the connection ``recipient.connection_id`` in a task of its own; ``done(recipient, error)`` follows."""
        close = partial(self._client.delete_connection, ConnectionId=recipient.connection_id)
        self._begin(self._call(close, _CLOSED, recipient, done))

    def _begin(self, call: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _call(
        self,
        call: Callable[[], Awaitable[Any]],
        good: frozenset[int],
        recipient: Any,
        done: Callable[[Any, PostError | None], None],
    ) -> None:
        error: PostError | None = None
        try:
            async with asyncio.timeout(self._timeout):
                answer = await call()
            status = answer["ResponseMetadata"]["HTTPStatusCode"]
            if status not in good:
                error = post_error(status)
        except ClientError as refusal:
            answer = refusal.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            error = post_error(status, str(answer.get("Error", {}).get("Code", "")))
        except (BotoCoreError, OSError) as failure:
            # TimeoutError is an OSError.
            error = _post_failure(failure)
        except Exception as failure:  # noqa: BLE001 - the boundary: an answer botocore cannot parse must not hang its client
            _log.exception("the AWS SDK failed unexpectedly")
            error = ServerError(f"an answer nobody can read ({type(failure).__name__}: {failure})")
        done(recipient, error)

    def stop(self) -> None:
        """Cancel every post in flight."""
        for task in self._tasks:
            task.cancel()

    async def end(self) -> None:
        """Stop, and wait until the tasks are gone."""
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        """End; the client itself is closed with the SDK's session."""
        await self.end()


def _post_failure(failure: Exception) -> PostError:
    if isinstance(failure, EndpointConnectionError):
        # aiobotocore says so of a reset too, when the connection was there before.
        opened = not isinstance(failure.kwargs.get("error"), ClientConnectorError)
        return (Disconnected if opened else Unreachable)(str(failure))
    ours = next(ours for theirs, ours in _POST_FAILURES if isinstance(failure, theirs))
    return ours(str(failure) or type(failure).__name__)
