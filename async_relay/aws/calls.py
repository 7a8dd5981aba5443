"""Calls of DynamoDB and SQS on a pool of our own, for a tenth of what they cost through the SDK.

A call is one POST to ``/`` with the operation in X-Amz-Target and JSON both ways; a page of the table is
read by ``json`` alone. Each is tried once, but for a socket that turns out to have been closed meanwhile.

Source: DynamoDB API Reference and SQS API Reference, AWS JSON protocol 1.0.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from typing import Any

from ..errors import PostError, ServerError
from ..http.pool import SignedPool
from ..http.sigv4 import Credentials, Signer
from ..wire.messages import Message, compact_json

_SERVICES = {"dynamodb": "DynamoDB_20120810", "sqs": "AmazonSQS"}


class _Call:
    """One call: its operation, and the answer to come."""

    __slots__ = ("answer", "content", "operation")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.content: Any = None
        self.answer: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()


class SignedCalls(SignedPool):
    """Calls of one service."""

    most_read = most_kept = 16 * 1024 * 1024

    def __init__(
        self,
        service: str,
        endpoint: str,
        *,
        region: str,
        credentials: Callable[[], Awaitable[Credentials]],
        tls: ssl.SSLContext | None,
        max_sockets: int = 8,
        timeout: float = 5.0,
    ) -> None:
        """``service`` is ``dynamodb`` or ``sqs``, ``endpoint`` its URL in ``region``; ``timeout`` is in seconds."""
        super().__init__(endpoint, credentials=credentials, tls=tls, max_sockets=max_sockets, timeout=timeout)
        self._service = service
        self._region = region
        self._start = (
            f"POST / HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: application/x-amz-json-1.0\r\n".encode()
        )
        self._dated: Callable[[str], Callable[[str, str], bytes]]
        self._signs: dict[str, Callable[[str, str], bytes]] = {}

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Each operation is signed apart: its name is a signed header."""
        self._signs.clear()

        def dated(operation: str) -> Callable[[str, str], bytes]:
            target = f"{_SERVICES[self._service]}.{operation}"
            signer = Signer(self._netloc, "/", self._region, credentials, service=self._service, target=target)
            return signer.at(now)

        self._dated = dated

    def request(self, lane: Any, message: Message) -> bytes:
        """The call of ``lane``."""
        if lane.operation not in self._signs:
            self._signs[lane.operation] = self._dated(lane.operation)
        length = b"Content-Length: %d\r\n\r\n" % len(message.body)
        return self._start + self._signs[lane.operation]("", message.digest) + length + message.body

    def accept(self, lane: Any, body: bytes) -> PostError | None:
        """The content of an answer is a JSON object, nested no deeper than can be read."""
        with suppress(ValueError, RecursionError):
            content = json.loads(body)
            lane.content = content if isinstance(content, dict) else None
        return None

    async def call(self, operation: str, requests: Sequence[Any]) -> list[Any]:
        """Side by side, one call a request; returns the content of each answer, or the ``PostError`` it came to."""
        calls = [_Call(operation) for _ in requests]
        await self.begin()
        try:
            for call, request in zip(calls, requests, strict=True):
                body = compact_json(request)
                self.send(call, Message("", "", "", body, sha256(body).hexdigest()), _settle)
            errors = await asyncio.gather(*(call.answer for call in calls))
        finally:
            await self.forget(set(calls))
        return [error or call.content for call, error in zip(calls, errors, strict=True)]


def _settle(call: _Call, error: PostError | None) -> None:
    if error is None and call.content is None:
        error = ServerError("the answer is not a JSON object")
    if not call.answer.done():
        call.answer.set_result(error)
