"""Answers to one client: each is a post of one object.

Rules
- A temporary failure is tried once more, since whoever asked waits; then it is left, and the client asks again.
- Posts are made only between ``begin`` and ``end`` of the transport, which ``Answers`` sees to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..delivery.backoff import BASE
from ..delivery.protocols import Transport
from ..errors import PostError
from ..wire.messages import Message

Done = Callable[["Recipient", PostError | None], None]


@dataclass(slots=True, eq=False)
class Recipient:
    """The client a post is for."""

    connection_id: str


class Answers:
    """Posts to one client, as an async context."""

    def __init__(self, transport: Transport, connection_id: str) -> None:
        self._transport = transport
        self._connection_id = connection_id

    async def __aenter__(self) -> Self:
        """Get the transport ready; raises ``Unavailable``."""
        await self._transport.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave nothing in flight."""
        await self._transport.end()

    async def post(self, payload: Mapping[str, Any]) -> PostError | None:
        """Answer with an object; what came of it."""
        message = Message.encode(payload)
        return await self._twice(lambda recipient, done: self._transport.send(recipient, message, done))

    async def close(self) -> PostError | None:
        """Close the client's connection; what came of it."""
        return await self._twice(self._transport.disconnect)

    async def _twice(self, call: Callable[[Recipient, Done], None]) -> PostError | None:
        error = await self._once(call)
        if error is not None and error.temporary:
            await asyncio.sleep(BASE)
            error = await self._once(call)
        return error

    async def _once(self, call: Callable[[Recipient, Done], None]) -> PostError | None:
        answered: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()

        def done(_recipient: Recipient, error: PostError | None) -> None:
            if not answered.done():
                answered.set_result(error)

        call(Recipient(self._connection_id), done)
        return await answered
