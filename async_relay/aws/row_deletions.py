"""BatchWriteItem on a pool of our own: a row costs a tenth of what it costs through the SDK.

Gone clients come in crowds, when an office or a network goes away; deleting their rows must not take
the time that the living need. What does not succeed at once is left to the SDK and its retries.

Source: DynamoDB API Reference, BatchWriteItem; its JSON protocol is one POST to ``/``.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Any

from ..errors import PostError, ServerError
from ..messages import Message, compact_json
from ..pool import SignedPool
from ..sigv4 import Credentials, Signer

BATCH = 25
_TARGET = "DynamoDB_20120810.BatchWriteItem"
_DONE = (b'{"UnprocessedItems":{}}', b"{}")


class RowDeletions(SignedPool):
    """Deletes rows of one table, 25 a request."""

    def __init__(
        self,
        endpoint: str,
        table: str,
        *,
        region: str,
        credentials: Callable[[], Awaitable[Credentials]],
        tls: ssl.SSLContext | None,
        max_sockets: int = 4,
        timeout: float = 5.0,
    ) -> None:
        """``endpoint`` is DynamoDB's URL in ``region``; ``timeout`` in seconds, for one request."""
        super().__init__(endpoint, credentials=credentials, tls=tls, max_sockets=max_sockets, timeout=timeout)
        self._table = table
        self._region = region
        self._start = (
            f"POST / HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: application/x-amz-json-1.0\r\n".encode()
        )

    def signer(self, credentials: Credentials) -> Signer:
        """For DynamoDB's one path and operation."""
        return Signer(self._netloc, "/", self._region, credentials, service="dynamodb", target=_TARGET)

    def request(self, _lane: Any, message: Message) -> bytes:
        """One BatchWriteItem."""
        length = b"Content-Length: %d\r\n\r\n" % len(message.body)
        return self._start + self._sign("", message.digest) + length + message.body

    def refusal(self, body: bytes) -> PostError | None:
        """Rows left unprocessed make a request a failure."""
        return None if body.replace(b" ", b"") in _DONE else ServerError("rows were left unprocessed")

    async def delete(self, connection_ids: Sequence[str]) -> list[str]:
        """Delete rows; returns those that are not known to be deleted. One call at a time."""
        batches = [connection_ids[at : at + BATCH] for at in range(0, len(connection_ids), BATCH)]
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[PostError | None]] = [loop.create_future() for _ in batches]
        await self.begin()
        try:
            for batch, answer in zip(batches, answers, strict=True):
                self.send(answer, self._message(batch), _settle)
            outcomes = await asyncio.gather(*answers)
        finally:
            await self.end()
        return [row for batch, error in zip(batches, outcomes, strict=True) if error for row in batch]

    def _message(self, rows: Sequence[str]) -> Message:
        requests = [{"DeleteRequest": {"Key": {"connectionId": {"S": row}}}} for row in rows]
        body = compact_json({"RequestItems": {self._table: requests}})
        return Message("", "", "", body, sha256(body).hexdigest())


def _settle(answer: asyncio.Future[PostError | None], error: PostError | None) -> None:
    if not answer.done():
        answer.set_result(error)
