"""Decides whether our own sockets or the SDK serve a call, and finds credentials, Region and trust for both.

Rules
- Our own sockets serve where the environment says plainly where to call; the SDK serves behind a proxy, with
  ``TRANSPORT=sdk``, and every call that our own sockets could not finish.
- The SDK is loaded in a thread and only when it is needed, since loading it takes some hundred milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import ConditionFailed, PostError, Refused, Unavailable
from ..http.sigv4 import Credentials
from ..http.tls import certificate_authorities, trust
from . import environment
from .calls import CONDITION_FAILED, SignedCalls
from .container import ContainerCredentials

if TYPE_CHECKING:
    from .sdk import Sdk

_log = logging.getLogger("async_relay")


class Aws:
    """The session that all calls to AWS share: credentials, Region, TLS contexts, and the SDK once it is loaded."""

    def __init__(self, environ: Mapping[str, str] = os.environ, *, own_sockets: bool = True) -> None:
        """``own_sockets`` False leaves every call to the SDK; a proxy does too, since our sockets would go past it."""
        self._environ = environ
        self._own_sockets = own_sockets and not environment.proxied(environ)
        self._container = ContainerCredentials(environ)
        self._tls: dict[tuple[str | None, bool], ssl.SSLContext] = {}
        self._sdk: Sdk | None = None
        self._sdk_opens = asyncio.Lock()
        self._services: dict[str, Service] = {}

    async def sdk(self) -> Sdk:
        """The SDK, loaded by the first caller; raises ``Unavailable``."""
        async with self._sdk_opens:
            if self._sdk is None:
                module = await self.load("sdk")
                self._sdk = module.Sdk(environment.region(self._environ))
            return self._sdk

    async def load(self, name: str) -> Any:
        """Import a module of this package that needs the SDK, in a thread; raises ``Unavailable``."""
        try:
            return await asyncio.to_thread(import_module, f"{__package__}.{name}")
        except Exception as error:
            # The boundary: hundreds of files are read, any of which may be missing, broken or one descriptor too many.
            _log.exception("the AWS SDK cannot be loaded")
            raise Unavailable(f"the AWS SDK cannot be loaded: {type(error).__name__}: {error}") from error

    async def region(self) -> str | None:
        """The Region: AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
        return environment.region(self._environ) or (await self.sdk()).region

    async def credentials(self) -> Credentials:
        """The current credentials: the environment's, the container's or the SDK's; raises ``Unavailable``."""
        found = environment.credentials(self._environ) or await self._container.current()
        return found or await (await self.sdk()).credentials()

    def service(self, name: str) -> Service:
        """The service called ``dynamodb`` or ``sqs``, always the same object."""
        if name not in self._services:
            self._services[name] = Service(self, name)
        return self._services[name]

    async def own_calls(self, service: str) -> SignedCalls | None:
        """Make a pool of our own sockets to a service; None where the SDK serves every call."""
        if not self._own_sockets:
            return None
        endpoint, region = environment.endpoint(self._environ, service), environment.region(self._environ)
        if endpoint is None or region is None:
            endpoint, region = await (await self.sdk()).where(service)
        tls = await self.tls(endpoint)
        return SignedCalls(service, endpoint, region=region, credentials=self.credentials, tls=tls)

    async def tls(self, url: str) -> ssl.SSLContext | None:
        """The TLS context for our own sockets to ``url``, None for plain HTTP; raises ``Unavailable``.

        A thread reads the CAs, since reading a hundred takes 40 ms in which the loop would stand still.
        """
        if not url.startswith("https:"):
            return None
        bundle = self._environ.get("AWS_CA_BUNDLE")
        ca_file = certificate_authorities(url, bundle)
        key = (ca_file, not bundle and ca_file is not None)
        if key not in self._tls:
            try:
                self._tls[key] = await asyncio.to_thread(trust, ca_file, falls_back=key[1])
            except OSError as error:
                source = f"the certificates of {ca_file}" if ca_file else "the system's certificates"
                raise Unavailable(f"{source} cannot be read: {error}") from error
        return self._tls[key]

    async def close(self) -> None:
        """Close every socket."""
        for service in self._services.values():
            await service.close()
        if self._sdk is not None:
            await self._sdk.close()


class Service:
    """Calls one service: on our own sockets first, and through the SDK where that does not succeed."""

    def __init__(self, aws: Aws, name: str) -> None:
        self._aws = aws
        self._name = name
        self._own: SignedCalls | None = None
        self._opened = False
        self._opens = asyncio.Lock()

    async def call(self, operation: str, request: Mapping[str, Any]) -> Any:
        """Call once; returns the content of the answer, or raises ``Unavailable`` or ``ConditionFailed``."""
        (answer,) = await self.call_each(operation, [request])
        if isinstance(answer, Unavailable | ConditionFailed):
            raise answer
        return answer

    async def call_each(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Call once per request, side by side.

        Returns for each request the content of its answer, or the ``Unavailable`` or ``ConditionFailed`` that it
        failed with; raises ``Unavailable`` where no call could be made at all.
        """
        own = await self._own_calls()
        if own is None:
            return [await self._call_sdk(operation, request) for request in requests]
        answers = await own.call(operation, requests)
        for at, request in enumerate(requests):
            if isinstance(answers[at], Refused) and CONDITION_FAILED in str(answers[at]):
                answers[at] = ConditionFailed(str(answers[at]))
            elif isinstance(answers[at], PostError):
                _log.warning("%s %s is left to the SDK: %s", self._name, operation, answers[at])
                answers[at] = await self._call_sdk(operation, request)
        return answers

    async def _call_sdk(self, operation: str, request: Mapping[str, Any]) -> Any:
        try:
            return await (await self._aws.sdk()).call(self._name, operation, request)
        except (Unavailable, ConditionFailed) as error:
            return error

    async def _own_calls(self) -> SignedCalls | None:
        async with self._opens:
            if not self._opened:
                self._own = await self._aws.own_calls(self._name)
                self._opened = True
            return self._own

    async def close(self) -> None:
        """Close our own sockets to the service."""
        if self._own is not None:
            await self._own.close()
