"""aioboto3's session and clients, and our errors for its own. Importing this module loads the SDK.

Rules
- The host name in a certificate counts. botocore makes its TLS contexts for urllib3, which checks
  names by itself; aiohttp leaves that to the context, so aiobotocore alone would take any host's
  certificate of a trusted CA for the right one.
- Every exception of the SDK leaves this module as ``Unavailable``, or as ``ConditionFailed`` where it says so.
  botocore's own errors are expected; an answer of a shape that botocore does not know makes it raise
  AttributeError, KeyError, RecursionError and others.
- A Lambda process may end without anybody closing the clients; then they are closed here, since aiohttp would
  print "Unclosed client session" for each.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError

from ..errors import ConditionFailed, Unavailable
from ..http.sigv4 import Credentials
from .calls import CONDITION_FAILED
from .foreign import refuse_foreign_answers

_log = logging.getLogger("async_relay")


class VerifyingSession(AIOHTTPSession):
    """aiobotocore's HTTP session, with host names checked."""

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()  # type: ignore[misc]  # the stubs leave it out
        context.check_hostname = True
        return context


def _patient() -> AioConfig:
    """The configuration for calls that everybody waits for.

    Three tries, and timeouts so short that a call that hangs does not take the whole invocation.
    """
    # ``max_attempts`` would count the tries after the first.
    retries: Any = {"total_max_attempts": 3, "mode": "standard"}
    return AioConfig(
        retries=retries, connect_timeout=2, read_timeout=5, tcp_keepalive=True, http_session_cls=VerifyingSession
    )


@contextmanager
def _only_unavailable(doing: str = "") -> Iterator[None]:
    """Turn every exception into ``Unavailable``; ``doing`` comes before the SDK's own words."""
    try:
        yield
    except Unavailable:
        raise
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == CONDITION_FAILED:
            raise ConditionFailed(str(error)) from error
        raise Unavailable(f"{doing}{error}") from error
    except (BotoCoreError, ValueError) as error:
        # ValueError: an endpoint that is no URL, among others.
        raise Unavailable(f"{doing}{error}") from error
    except Exception as error:
        _log.exception("the AWS SDK failed unexpectedly")
        raise Unavailable(f"{doing}{type(error).__name__}: {error}") from error


class Sdk:
    """An aioboto3 session and the clients made from it, closed together."""

    def __init__(self, region: str | None) -> None:
        """Use ``region``, or where it is None the Region that the SDK finds.

        Raises ``Unavailable`` where AWS_PROFILE names no profile.
        """
        with _only_unavailable("the AWS SDK cannot start: "):
            self._session = aioboto3.Session(region_name=region)
            refuse_foreign_answers(self._session.events)
        self._stack = AsyncExitStack()
        self._closes: weakref.finalize[..., Sdk] | None = None
        self._clients: dict[str, Any] = {}

    @property
    def region(self) -> str | None:
        """The Region of the session: the one it was given, or its profile's."""
        region: str | None = self._session.region_name
        return region

    async def credentials(self) -> Credentials:
        """The current credentials, refreshed where they are about to expire; raises ``Unavailable``."""
        with _only_unavailable("no AWS credentials: "):
            session: Any = self._session
            provider = await session.get_credentials()
            if provider is None:
                raise Unavailable("no AWS credentials were found; give the function a role, or set AWS_ACCESS_KEY_ID")
            frozen = await provider.get_frozen_credentials()
            return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    async def client(self, service: str, config: AioConfig, **options: Any) -> Any:
        """Make a client, which is closed with the session; raises ``Unavailable``."""
        make: Any = self._session.client
        if self._closes is None:
            self._closes = weakref.finalize(self, _close_at_end, self._stack, asyncio.get_running_loop())
        with _only_unavailable():
            return await self._stack.enter_async_context(make(service, config=config, **options))

    async def where(self, service: str) -> tuple[str, str]:
        """The URL and the Region that the SDK would use for a service; raises ``Unavailable``."""
        meta = (await self._patient(service)).meta
        return str(meta.endpoint_url), str(meta.region_name)

    async def call(self, service: str, operation: str, request: Any) -> Any:
        """Call an operation, at most three times; raises ``Unavailable``."""
        client = await self._patient(service)
        with _only_unavailable():
            return await getattr(client, xform_name(operation))(**request)

    async def _patient(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = await self.client(service, _patient())
        return self._clients[service]

    async def close(self) -> None:
        """Close every client."""
        if self._closes is not None:
            self._closes.detach()
            self._closes = None
        await self._stack.aclose()


def _close_at_end(stack: AsyncExitStack, loop: asyncio.AbstractEventLoop) -> None:
    """Close what nobody closed, on the loop it was opened on, where that stands still."""
    if not loop.is_closed() and not loop.is_running():
        loop.run_until_complete(stack.aclose())
