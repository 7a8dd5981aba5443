"""Posts without an SDK, signed by ``async_relay.sigv4``: four HTTP clients under the same loop of posts."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from async_relay.errors import PostError
from async_relay.http.direct import DirectTransport
from async_relay.http.sigv4 import Credentials, Signer, quote_id
from async_relay.sandbox import new_event_loop
from async_relay.wire.messages import Message

from .worker import ACCESS_KEY, REGION, SECRET_KEY, TOKEN, Setup

_CREDENTIALS = Credentials(ACCESS_KEY, SECRET_KEY, TOKEN)


class _OnUvloop:
    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._runner = self._new_runner()
        self._runner.run(self._open())

    def _new_runner(self) -> asyncio.Runner:
        return asyncio.Runner(loop_factory=new_event_loop)

    async def _open(self) -> None:
        raise NotImplementedError

    async def _post_all(self, ids: Sequence[str]) -> int:
        raise NotImplementedError

    def broadcast(self, ids: Sequence[str]) -> int:
        """The posts alone."""
        return self._runner.run(self._post_all(ids))


class ProtocolPosts(_OnUvloop):
    """The direct transport by itself."""

    async def _open(self) -> None:
        async def credentials() -> Credentials:
            return _CREDENTIALS

        self._transport = DirectTransport(
            self._setup.endpoint,
            region=REGION,
            credentials=credentials,
            tls=ssl.create_default_context(cafile=self._setup.ca_file),
            max_sockets=self._setup.concurrency,
        )

    async def _post_all(self, ids: Sequence[str]) -> int:
        body = self._setup.body
        message = Message("incident_update", "", "", body, sha256(body).hexdigest())
        await self._transport.begin()
        delivered = await _Run(self._transport, message, ids).over(self._setup.concurrency)
        await self._transport.end()
        return delivered


class _Addressee:
    __slots__ = ("connection_id",)

    def __init__(self, connection_id: str) -> None:
        self.connection_id = connection_id


class _Run:
    """The next post as soon as one is answered."""

    def __init__(self, transport: DirectTransport, message: Message, ids: Sequence[str]) -> None:
        self._transport = transport
        self._message = message
        self._left: Iterator[str] = iter(ids)
        self._open = len(ids)
        self._delivered = 0
        self._over: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def over(self, at_once: int) -> int:
        for _ in range(at_once):
            self._next()
        return await self._over

    def _next(self) -> None:
        for connection_id in self._left:
            self._transport.send(_Addressee(connection_id), self._message, self._answered)
            return

    def _answered(self, _addressee: _Addressee, error: PostError | None) -> None:
        self._delivered += error is None
        self._open -= 1
        self._next()
        if not self._open:
            self._over.set_result(self._delivered)


class AiofastnetPosts(ProtocolPosts):
    """The direct transport over aiofastnet's sockets and TLS in place of the loop's own."""

    def _new_runner(self) -> asyncio.Runner:
        return asyncio.Runner(loop_factory=import_module("aiofastnet").loop_factory(new_event_loop))


class _Workers(_OnUvloop):
    """As many tasks as places, each posting one after another: cheaper than a task per post."""

    async def _post_all(self, ids: Sequence[str]) -> int:
        left = iter(ids)
        sign = self._signer.at(datetime.now(UTC))
        digest = sha256(self._setup.body).hexdigest()

        async def work() -> int:
            delivered = 0
            for connection_id in left:
                quoted = quote_id(connection_id)
                lines = sign(quoted, digest).decode().split("\r\n")[:-1]
                headers = dict(line.split(": ", 1) for line in lines)
                delivered += await self._post(quoted, headers) == 200
            return delivered

        return sum(await asyncio.gather(*(work() for _ in range(self._setup.concurrency))))

    async def _open(self) -> None:
        url = urlsplit(self._setup.endpoint)
        self._signer = Signer(url.netloc, f"{url.path}/@connections/", REGION, _CREDENTIALS)
        self._prefix = f"{self._setup.endpoint}/@connections/"

    async def _post(self, quoted: str, headers: dict[str, str]) -> int:
        raise NotImplementedError


class AiohttpPosts(_Workers):
    """aiohttp's client."""

    async def _open(self) -> None:
        import aiohttp
        from yarl import URL

        await super()._open()
        self._url = URL
        context = ssl.create_default_context(cafile=self._setup.ca_file)
        connector = aiohttp.TCPConnector(limit=self._setup.concurrency, ssl=context)
        self._session = aiohttp.ClientSession(connector=connector)

    async def _post(self, quoted: str, headers: dict[str, str]) -> int:
        url = self._url(self._prefix + quoted, encoded=True)
        headers["Content-Type"] = "application/json"
        async with self._session.post(url, data=self._setup.body, headers=headers) as response:
            await response.read()
            return response.status


class PyreqwestPosts(_Workers):
    """pyreqwest, a client in Rust."""

    def __init__(self, setup: Setup) -> None:
        self._trusted = Path(setup.ca_file).read_bytes()
        super().__init__(setup)

    async def _open(self) -> None:
        await super()._open()
        builder = import_module("pyreqwest.client").ClientBuilder().max_connections(self._setup.concurrency)
        self._client = builder.add_root_certificate_pem(self._trusted).http1_only().build()

    async def _post(self, quoted: str, headers: dict[str, str]) -> int:
        headers["Content-Type"] = "application/json"
        request = self._client.post(self._prefix + quoted).headers(headers).body_bytes(self._setup.body).build()
        response = await request.send()
        await response.bytes()
        return int(response.status)
