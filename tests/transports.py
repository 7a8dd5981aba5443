"""What the transport and fault tests share: opening either transport on a gateway, and posting through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from async_relay.aws import Aws
from async_relay.aws.management_api import SdkTransport
from async_relay.delivery.protocols import Transport
from async_relay.errors import PostError
from async_relay.http.direct import DirectTransport
from async_relay.http.sigv4 import Credentials
from async_relay.http.tls import trust
from async_relay.wire.messages import Message

CREDENTIALS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "a-session-token")
KINDS = ["direct", "sdk"]


@dataclass(eq=False)
class To:
    """Whoever a post is for."""

    connection_id: str


@asynccontextmanager
async def opened(
    kind: str,
    endpoint: str,
    ca_file: str,
    *,
    max_sockets: int = 10,
    timeout: float = 2.0,
    credentials: Callable[[], Awaitable[Credentials]] | None = None,
) -> AsyncIterator[Transport]:
    aws = Aws()
    transport: Transport
    if kind == "sdk":
        transport = await SdkTransport.open(
            aws, endpoint, region="us-east-1", max_sockets=max_sockets, timeout=timeout, ca_file=ca_file or None
        )
    else:
        transport = DirectTransport(
            endpoint,
            region="us-east-1",
            credentials=credentials or aws.credentials,
            tls=trust(ca_file or None) if endpoint.startswith("https") else None,
            max_sockets=max_sockets,
            timeout=timeout,
        )
    try:
        await transport.begin()
        yield transport
    finally:
        await transport.close()
        await aws.close()


async def post(transport: Transport, connection_id: str, body: bytes = b"{}") -> PostError | None:
    """One post, and what came of it."""
    (answer,) = await post_all(transport, [(connection_id, body)])
    return answer


async def post_all(transport: Transport, posts: Sequence[tuple[str, bytes]]) -> list[PostError | None]:
    """Many posts at once, and what came of each."""
    loop = asyncio.get_running_loop()
    answers: list[asyncio.Future[PostError | None]] = []
    for connection_id, body in posts:
        answer: asyncio.Future[PostError | None] = loop.create_future()
        answers.append(answer)
        transport.send(To(connection_id), raw_message(body), partial(_settle, answer))
    return await asyncio.gather(*answers)


async def close(transport: Transport, connection_id: str) -> PostError | None:
    """Close one connection, and what came of it."""
    answer: asyncio.Future[PostError | None] = asyncio.get_running_loop().create_future()
    transport.disconnect(To(connection_id), partial(_settle, answer))
    return await answer


def _settle(answer: asyncio.Future[PostError | None], _to: To, error: PostError | None) -> None:
    answer.set_result(error)


def raw_message(body: bytes) -> Message:
    return Message("", "", "", body, sha256(body).hexdigest())
