"""An aioboto3 session, and the clients made from it.

Rule: the host name in a certificate counts. botocore makes its TLS contexts for urllib3, which checks
names by itself; aiohttp leaves that to the context, so aiobotocore alone would take any host's
certificate of a trusted CA for the right one.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore.exceptions import BotoCoreError, ClientError

from ..errors import Unavailable
from ..pool import certificate_authorities, trust
from ..sigv4 import Credentials

#: What a call of the SDK raises when it fails.
FAILURES = (BotoCoreError, ClientError)


class VerifyingSession(AIOHTTPSession):
    """aiobotocore's HTTP session, with host names checked."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()  # type: ignore[misc]  # the stubs leave it out
        context.check_hostname = True
        return context


def patient() -> AioConfig:
    """For calls that everybody waits for: three tries, and no wait so long that it would eat the deadline."""
    retries: Any = {"max_attempts": 3, "mode": "standard"}
    return AioConfig(
        retries=retries, connect_timeout=2, read_timeout=5, tcp_keepalive=True, http_session_cls=VerifyingSession
    )


class Aws:
    """An aioboto3 session and the clients made from it, closed together."""

    def __init__(self, session: aioboto3.Session | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._session = session or aioboto3.Session()
        self._environ = environ
        self._tls: dict[str | None, ssl.SSLContext] = {}
        self._stack = AsyncExitStack()
        self._sqs: Any = None
        self._sqs_opens = asyncio.Lock()

    @property
    def region(self) -> str | None:
        """The session's Region: AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
        region: str | None = self._session.region_name
        return region

    async def credentials(self) -> Credentials:
        """The credentials of now, refreshed if they have to be; raises ``Unavailable``."""
        try:
            session: Any = self._session
            provider = await session.get_credentials()
            if provider is None:
                raise Unavailable("no AWS credentials were found; give the function a role, or set AWS_ACCESS_KEY_ID")
            frozen = await provider.get_frozen_credentials()
        except BotoCoreError as error:
            raise Unavailable(f"no AWS credentials: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def client(self, service: str, config: AioConfig, **options: Any) -> Any:
        """A client that lives as long as the session."""
        make: Any = self._session.client
        return await self._stack.enter_async_context(make(service, config=config, **options))

    async def sqs(self) -> Any:
        """The one SQS client, opened when a queue is first needed: most invocations send nothing."""
        async with self._sqs_opens:
            if self._sqs is None:
                self._sqs = await self.client("sqs", patient())
            return self._sqs

    async def tls(self, url: str) -> ssl.SSLContext | None:
        """The TLS context for our own sockets to ``url``, None for plain HTTP.

        Reading a hundred CAs takes 40 ms, so not in the loop.
        """
        if not url.startswith("https:"):
            return None
        ca_file = certificate_authorities(url, self._environ.get("AWS_CA_BUNDLE"))
        if ca_file not in self._tls:
            self._tls[ca_file] = await asyncio.to_thread(trust, ca_file)
        return self._tls[ca_file]

    def closing(self, close: Callable[[], Awaitable[None]]) -> None:
        """Also call this when the session closes."""
        self._stack.push_async_callback(close)

    async def close(self) -> None:
        """Close every client."""
        await self._stack.aclose()
