"""Who serves a call: sockets of our own, or the SDK, and where credentials, Region and trust come from."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import PostError, Unavailable
from ..http.sigv4 import Credentials
from ..http.tls import certificate_authorities, trust
from . import environment
from .calls import SignedCalls

if TYPE_CHECKING:
    from .sdk import Sdk

_log = logging.getLogger("async_relay")


class Aws:
    """What all calls to AWS share."""

    def __init__(self, environ: Mapping[str, str] = os.environ, *, own_sockets: bool = True) -> None:
        """``own_sockets``: False leaves every call to the SDK, as a proxy does too."""
        self._environ = environ
        self._own_sockets = own_sockets and not environment.proxied(environ)
        self._tls: dict[str | None, ssl.SSLContext] = {}
        self._sdk: Sdk | None = None
        self._sdk_opens = asyncio.Lock()
        self._services: dict[str, Service] = {}

    async def sdk(self) -> Sdk:
        """The SDK, loaded when it is first needed, beside the loop: that takes some hundred milliseconds."""
        async with self._sdk_opens:
            if self._sdk is None:
                module = await self.load("sdk")
                self._sdk = module.Sdk(environment.region(self._environ))
            return self._sdk

    async def load(self, name: str) -> Any:
        """A module beside this one that needs the SDK; raises ``Unavailable`` where it cannot be loaded."""
        try:
            return await asyncio.to_thread(import_module, f"{__package__}.{name}")
        except Exception as error:
            # The boundary: hundreds of files are read, any of which may be missing, broken or one descriptor too many.
            _log.exception("the AWS SDK cannot be loaded")
            raise Unavailable(f"the AWS SDK cannot be loaded: {type(error).__name__}: {error}") from error

    async def region(self) -> str | None:
        """AWS_REGION, AWS_DEFAULT_REGION or the profile's."""
        return environment.region(self._environ) or (await self.sdk()).region

    async def credentials(self) -> Credentials:
        """The credentials of now, refreshed if they have to be; raises ``Unavailable``."""
        return environment.credentials(self._environ) or await (await self.sdk()).credentials()

    def service(self, name: str) -> Service:
        """``dynamodb`` or ``sqs``."""
        if name not in self._services:
            self._services[name] = Service(self, name)
        return self._services[name]

    async def own_calls(self, service: str) -> SignedCalls | None:
        """Sockets of our own to a service; None where the SDK is to serve all."""
        if not self._own_sockets:
            return None
        endpoint, region = environment.endpoint(self._environ, service), environment.region(self._environ)
        if endpoint is None or region is None:
            endpoint, region = await (await self.sdk()).where(service)
        tls = await self.tls(endpoint)
        return SignedCalls(service, endpoint, region=region, credentials=self.credentials, tls=tls)

    async def tls(self, url: str) -> ssl.SSLContext | None:
        """The TLS context for our own sockets to ``url``, None for plain HTTP; raises ``Unavailable``.

        Reading a hundred CAs takes 40 ms, so not in the loop.
        """
        if not url.startswith("https:"):
            return None
        ca_file = certificate_authorities(url, self._environ.get("AWS_CA_BUNDLE"))
        if ca_file not in self._tls:
            try:
                self._tls[ca_file] = await asyncio.to_thread(trust, ca_file)
            except OSError as error:
                what = f"the certificates of {ca_file}" if ca_file else "the system's certificates"
                raise Unavailable(f"{what} cannot be read: {error}") from error
        return self._tls[ca_file]

    async def close(self) -> None:
        """Close every socket."""
        for service in self._services.values():
            await service.close()
        if self._sdk is not None:
            await self._sdk.close()


class Service:
    """One service, by whoever serves it."""

    def __init__(self, aws: Aws, name: str) -> None:
        self._aws = aws
        self._name = name
        self._own: SignedCalls | None = None
        self._opened = False
        self._opens = asyncio.Lock()

    async def call(self, operation: str, request: Mapping[str, Any]) -> Any:
        """The content of the answer; raises ``Unavailable``."""
        (answer,) = await self.call_each(operation, [request])
        if isinstance(answer, Unavailable):
            raise answer
        return answer

    async def call_each(self, operation: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        """One call a request: what each was answered, or the ``Unavailable`` it came to; may raise that too."""
        own = await self._own_calls()
        if own is None:
            return [await self._call_sdk(operation, request) for request in requests]
        answers = await own.call(operation, requests)
        for at, request in enumerate(requests):
            if isinstance(answers[at], PostError):
                _log.warning("%s %s is left to the SDK: %s", self._name, operation, answers[at])
                answers[at] = await self._call_sdk(operation, request)
        return answers

    async def _call_sdk(self, operation: str, request: Mapping[str, Any]) -> Any:
        try:
            return await (await self._aws.sdk()).call(self._name, operation, request)
        except Unavailable as error:
            return error

    async def _own_calls(self) -> SignedCalls | None:
        async with self._opens:
            if not self._opened:
                self._own = await self._aws.own_calls(self._name)
                self._opened = True
            return self._own

    async def close(self) -> None:
        """Close its sockets."""
        if self._own is not None:
            await self._own.close()
