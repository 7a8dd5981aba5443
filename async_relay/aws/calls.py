"""Calls of DynamoDB and SQS over a pool of signed sockets, for a tenth of what they cost through the SDK.

A call is one POST to ``/`` with the operation in X-Amz-Target and JSON both ways; a page of the table is
read by ``json`` alone. Each call is tried once, or twice where its socket turns out to have been closed before.

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
from ..http.opening import Endpoint
from ..http.pool import SignedPool
from ..http.sigv4 import Credentials, Signer
from ..wire.messages import compact_json

#: DynamoDB's answer where a row is not as a write asked it to be: a 400 (API Reference, UpdateItem, "Errors").
CONDITION_FAILED = "ConditionalCheckFailedException"
_SERVICES = {"dynamodb": "DynamoDB_20120810", "sqs": "AmazonSQS"}


class Call:
    """One call: its operation, and the future of its answer."""

    __slots__ = ("answer", "content", "operation")

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.content: Any = None
        self.answer: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()

    def read(self, body: bytes) -> None:
        """Keep the content of an answer: a JSON object, nested no deeper than Python can read."""
        with suppress(ValueError, RecursionError):
            content = json.loads(body)
            self.content = content if isinstance(content, dict) else None

    def settle(self, error: PostError | None) -> None:
        """The call has come to this; an answer without content is an error."""
        if error is None and self.content is None:
            error = ServerError("the answer is not a JSON object")
        if not self.answer.done():
            self.answer.set_result(error)


class JsonRequests:
    """The requests of one service: the recipient is a ``Call``."""

    #: DynamoDB ends a page at 1 MB of items; their JSON may be a few times as long.
    most_read = most_kept = 16 * 1024 * 1024

    def __init__(self, service: str, endpoint: Endpoint, region: str) -> None:
        self._service = service
        self._netloc = endpoint.netloc
        self._region = region
        self._start = (
            f"POST / HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: application/x-amz-json-1.0\r\n".encode()
        )
        self._dated: Callable[[str], Callable[[str, str], bytes]]
        self._signs: dict[str, Callable[[str, str], bytes]] = {}

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Forget every operation's signer: an operation has its own, since its name is a signed header."""
        self._signs.clear()

        def dated(operation: str) -> Callable[[str, str], bytes]:
            target = f"{_SERVICES[self._service]}.{operation}"
            signer = Signer(self._netloc, "/", self._region, credentials, service=self._service, target=target)
            return signer.at(now)

        self._dated = dated

    def request(self, recipient: Call, body: bytes, digest: str) -> bytes:
        """The bytes of the call."""
        operation = recipient.operation
        if operation not in self._signs:
            self._signs[operation] = self._dated(operation)
        return self._start + self._signs[operation]("", digest) + b"Content-Length: %d\r\n\r\n" % len(body) + body

    def accept(self, recipient: Call, body: bytes) -> PostError | None:
        """See ``Call.read``."""
        recipient.read(body)
        return None


class SignedCalls:
    """Calls one service."""

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
        where = Endpoint.of(endpoint, tls)
        requests = JsonRequests(service, where, region)
        self.pool = SignedPool(where, requests, credentials=credentials, max_sockets=max_sockets, timeout=timeout)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return repr(self.pool)

    async def call(self, operation: str, requests: Sequence[Any]) -> list[Any]:
        """Call once per request, side by side; returns each answer's content, or the ``PostError`` it came to."""
        calls = [Call(operation) for _ in requests]
        await self.pool.begin()
        try:
            for call, request in zip(calls, requests, strict=True):
                body = compact_json(request)
                self.pool.send(call, body, sha256(body).hexdigest(), Call.settle)
            errors = await asyncio.gather(*(call.answer for call in calls))
        finally:
            await self.pool.forget(set(calls))
        return [error or call.content for call, error in zip(calls, errors, strict=True)]

    async def close(self) -> None:
        """Close every socket."""
        await self.pool.close()
