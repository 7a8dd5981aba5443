"""Signed posts over keep-alive HTTP/1.1 sockets of our own.

No lane is bound to a socket: a free socket takes the next post, the one used last first, so the
others may grow old and be closed. A post without a free socket waits for one, and as many are opened
as were wanted at once, a few at a time, since a TLS handshake costs as much CPU as fifty posts.

Rules
- A post is signed when it gets its socket: a signature is good for five minutes, a queue is not.
- The timeout runs from ``send`` to the last byte; one sweep serves all of them.
- A socket that was closed while it lay idle costs nothing: the first post of an invocation on it
  goes again, on another, if the socket fails before a byte of the answer.
- If no socket is open and none can be opened, each failure is one post's: ``Unreachable``.
- Never more sockets than the process's file descriptors allow (``descriptors``). Where none is left all
  the same, idle sockets are given back, this pool's and the others', and posts go on over the busy ones.
- A signature ages by the loop's clock, also while nothing is posted.
- 1xx answers are stepped over; what is not HTTP is a ``ServerError`` and the end of its socket.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Container
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit
from weakref import WeakSet

import httptools

from ..errors import Disconnected, PostError, Refused, ServerError, TimedOut, Unreachable, post_error
from ..wire.messages import Message
from .descriptors import exhausted, lacks_descriptors, sockets_at_most
from .dialling import TcpSocket, dial
from .sigv4 import Credentials

_log = logging.getLogger("async_relay")

_AMAZON_ROOTS = Path(__file__).with_name("amazon_roots.pem")
_HANDSHAKES = 16
_LAST_HANDSHAKES = 0.05
_SWEEP = 0.1
# Seconds a date serves: far from the five minutes a signature is good for, whatever the clocks differ by.
_SIGNED_FOR = 20.0
_MAX_DETAIL = 200
# Seconds until sockets that were aborted have given their descriptors back: some turns of the loop, more under TLS.
_CLOSING = 0.01

Done = Callable[[Any, PostError | None], None]

#: Every pool, since they share the process's file descriptors.
_pools: WeakSet[SignedPool] = WeakSet()


class _Post(NamedTuple):
    lane: Any
    message: Message
    done: Done
    expires: int


class _Socket(asyncio.Protocol):
    """One connection; ``post`` is what it carries, None while it is idle."""

    __slots__ = (
        "_body",
        "_parser",
        "_received",
        "_status",
        "alive",
        "invocation",
        "keep",
        "pool",
        "post",
        "stale",
        "transport",
    )

    def __init__(self, pool: SignedPool) -> None:
        self.pool = pool
        self.post: _Post | None = None
        self.alive = False
        self.stale = False
        self.invocation = 0
        self.keep = True
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._received = 0
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do what asyncio's do without descending from them.
        self.transport = cast("asyncio.Transport", transport)
        self.alive = True

    def carry(self, post: _Post, invocation: int) -> None:
        self.post = post
        self.stale = self.invocation != invocation
        self.invocation = invocation
        try:
            request = self.pool.request(post.lane, post.message)
        except Exception as error:  # noqa: BLE001 - an id that is no text in UTF-8 fails its own post, not the broadcast
            self.stale = False
            refused = Refused(f"it cannot be posted: {type(error).__name__}: {error}")
            asyncio.get_running_loop().call_soon(self.pool.answered, self, refused)
        else:
            self.transport.write(request)

    def on_body(self, body: bytes) -> None:
        if len(self._body) < self.pool.most_kept:
            self._body += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._status:
            # Two answers to one post: the first counts, and whoever sends more is not to be trusted with another.
            self.keep = False
        elif status >= 200:
            self._status = status
            self.keep = self._parser.should_keep_alive()

    def data_received(self, data: bytes) -> None:
        self.stale = False
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(ServerError("the answer is not HTTP/1.1"))
            return
        status = self._status
        if status:
            self._status = self._received = 0
            self.pool.answered(self, self._read(status) if status != 200 or self._body else None)
        else:
            self._received += len(data)
            if self._received > self.pool.most_read:
                self.fail(ServerError("the answer does not end"))

    def _read(self, status: int) -> PostError | None:
        body = bytes(self._body)
        self._body.clear()
        if status != 200:
            return post_error(status, body[:_MAX_DETAIL].decode(errors="replace"))
        return self.pool.accept(self.post.lane, body) if self.post else None

    def eof_received(self) -> None:
        self.alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(Disconnected(f"the socket was closed{f': {exc}' if exc else ''}"))

    def fail(self, error: PostError) -> None:
        """End the socket; what it carried goes again if the socket was stale, else it failed."""
        self.alive = False
        self.transport.abort()
        self.pool.lost(self, error)


class SignedPool:
    """A pool of sockets to one endpoint; what a request looks like is the subclass's."""

    #: Bytes of an answer: more than ``most_read`` are a failure, no more than about ``most_kept`` of a body are kept.
    most_read = 65_536
    most_kept = 200

    def __init__(
        self,
        endpoint: str,
        *,
        credentials: Callable[[], Awaitable[Credentials]],
        tls: ssl.SSLContext | None,
        max_sockets: int = 100,
        timeout: float = 3.0,
    ) -> None:
        """``timeout`` is in seconds, for one post or one connection; ``max_sockets`` is less where descriptors are."""
        url = urlsplit(endpoint)
        assert url.hostname is not None
        self._host = url.hostname
        self._port = url.port or (443 if url.scheme == "https" else 80)
        self._netloc = url.netloc
        self._path = url.path.rstrip("/")
        self._credentials = credentials
        self._tls = tls if url.scheme == "https" else None
        self._max_sockets = sockets_at_most(max_sockets)
        self._timeout = timeout
        self._period = min(_SWEEP, timeout / 5)
        self._patience = ceil(timeout / self._period)
        self._signed_with: Credentials | None = None
        self._resign_at = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[_Socket] = []
        self._busy: set[_Socket] = set()
        self._pending: deque[_Post] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeps = 0
        self._refused_at = -1
        self._wanted = 0
        self._invocation = 0
        self.opened = 0
        _pools.add(self)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return (
            f"<{self._netloc}: {len(self._busy)} busy, {len(self._idle)} idle, "
            f"{len(self._connecting)} opening, {len(self._pending)} waiting>"
        )

    async def begin(self) -> None:
        """Fetch the credentials, fix the date, and let the loop notice which sockets were closed meanwhile."""
        self.loop = asyncio.get_running_loop()
        self._signed_with = await self._credentials()
        self._resign(self.loop.time())
        self._invocation += 1
        self._wanted = 0
        for _ in range(3):
            await asyncio.sleep(0)
        self._idle = [socket for socket in self._idle if socket.alive]

    def send(self, lane: Any, message: Message, done: Done) -> None:
        """Post ``message`` to ``lane.connection_id``; ``done(lane, error)`` follows."""
        post = _Post(lane, message, done, self._sweeps + self._patience)
        if self._sweep is None:
            self._start_sweep(asyncio.get_running_loop())
        while self._idle:
            socket = self._idle.pop()
            if socket.alive:
                self._busy.add(socket)
                socket.carry(post, self._invocation)
                return
        self._pending.append(post)
        self._grow()

    def stop(self) -> None:
        """Cut every post in flight, without a ``done``; idle sockets stay."""
        self._pending.clear()
        for task in self._connecting:
            task.cancel()
        for socket in tuple(self._busy):
            socket.post = None
            socket.fail(Disconnected("stopped"))
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def forget(self, lanes: Container[Any]) -> None:
        """Cut the posts to these, without a ``done``, and leave no sweep or handshake that nobody needs."""
        self._pending = deque(post for post in self._pending if post.lane not in lanes)
        for socket in [each for each in self._busy if each.post is not None and each.post.lane in lanes]:
            socket.post = None
            socket.fail(Disconnected("stopped"))
        if not self._busy and not self._pending:
            self.stop()
            await asyncio.gather(*self._connecting, return_exceptions=True)

    async def end(self) -> None:
        """Stop, and leave nothing but idle sockets; a handshake under way may finish, for the next invocation."""
        self._wanted = 0
        if self._connecting and not self._busy and not self._pending:
            await asyncio.wait(self._connecting, timeout=_LAST_HANDSHAKES)
        self.stop()
        await asyncio.gather(*self._connecting, return_exceptions=True)

    async def close(self) -> None:
        """Close every socket."""
        await self.end()
        for socket in tuple(self._idle):
            socket.fail(Disconnected("closed"))
        await asyncio.sleep(0)

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Sign requests with these credentials and this date (UTC) from now on."""
        raise NotImplementedError

    def request(self, lane: Any, message: Message) -> bytes:
        """The bytes of a post, signed now."""
        raise NotImplementedError

    def accept(self, lane: Any, body: bytes) -> PostError | None:  # noqa: ARG002 - for the subclass that looks
        """Take the body of a 200, or say what is wrong with it."""
        return None

    def answered(self, socket: _Socket, error: PostError | None) -> None:
        """A whole answer came; called by the socket."""
        post = socket.post
        if post is None or not socket.keep:
            self._drop(socket)
        else:
            self._busy.discard(socket)
            socket.post = None
            self._idle.append(socket)
        if post is not None:
            post.done(post.lane, error)
        if self._pending:
            self._serve()

    def lost(self, socket: _Socket, error: PostError) -> None:
        """The socket is of no more use; called by the socket."""
        post, socket.post = socket.post, None
        self._drop(socket)
        if post is None:
            return
        if socket.stale:
            self._pending.appendleft(post)
        else:
            post.done(post.lane, error)
        self._serve()

    def _drop(self, socket: _Socket) -> None:
        socket.post = None
        socket.alive = False
        socket.transport.abort()
        self._busy.discard(socket)
        if socket in self._idle:
            self._idle.remove(socket)

    def _serve(self) -> None:
        """Give idle sockets what waits, and open more if it still does."""
        while self._pending and self._idle:
            socket = self._idle.pop()
            if socket.alive:
                self._busy.add(socket)
                socket.carry(self._pending.popleft(), self._invocation)
        self._grow()

    def _grow(self) -> None:
        self._wanted = max(self._wanted, min(self._max_sockets, len(self._busy) + len(self._pending)))
        if self._refused_at == self._sweeps and (self._busy or self._idle):
            return
        while (
            len(self._connecting) < _HANDSHAKES
            and len(self._connecting) + len(self._busy) + len(self._idle) < self._wanted
        ):
            task = asyncio.get_running_loop().create_task(self._connect())
            self._connecting.add(task)
            task.add_done_callback(self._connected)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                socket = await self._open()
        except (OSError, TimeoutError) as error:
            # ssl.SSLError is an OSError too: an endpoint we cannot trust cannot be reached.
            self._unreachable(error)
            return
        except Exception as error:  # noqa: BLE001 - a host name that is none raises anything, and each post must hear of it
            _log.exception("a connection to %s failed unexpectedly", self._netloc)
            self._unreachable(error)
            return
        self.opened += 1
        socket.invocation = self._invocation
        if socket.alive:
            self._idle.append(socket)

    async def _open(self) -> _Socket:
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: _Socket(self),
            sock=await self._dial(),
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
            # A handshake that is cancelled holds its 300 KB until this is over; it is a minute by default.
            ssl_handshake_timeout=self._timeout if self._tls else None,
        )
        return socket

    async def _dial(self) -> TcpSocket:
        """Where only descriptors are wanting: go on over the sockets there are, or try until the timeout."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await dial(self._host, self._port)
            except OSError as error:
                if not (lacks_descriptors(error) or exhausted()) or self._busy or self._idle:
                    raise
            if given_back := sum(pool.give_back() for pool in tuple(_pools) if pool.loop is loop):
                _log.warning("no file descriptor is left for %s: %d idle sockets are closed", self._netloc, given_back)
            await asyncio.sleep(_CLOSING)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            task.result()
            self._serve()

    def _unreachable(self, error: Exception) -> None:
        """While other sockets serve, what waits may wait for them; else somebody has to be told."""
        self._refused_at = self._sweeps
        self._wanted = 0
        if self._pending and not self._busy and not self._idle:
            post = self._pending.popleft()
            reason = str(error) or type(error).__name__
            post.done(post.lane, Unreachable(f"no connection to {self._netloc}: {reason}"))

    def _resign(self, now: float) -> None:
        assert self._signed_with is not None
        self.resign(self._signed_with, datetime.now(UTC))
        self._resign_at = now + _SIGNED_FOR

    def _start_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the time counted from here on, and no post signed with a date that is old by now."""
        now = loop.time()
        if now >= self._resign_at:
            self._resign(now)
        self._sweep = loop.call_later(self._period, self._sweep_up)

    def give_back(self) -> int:
        """Close the idle sockets, since their file descriptors are needed; returns how many."""
        idle = tuple(self._idle)
        for socket in idle:
            socket.fail(Disconnected("its file descriptor was needed"))
        return len(idle)

    def _sweep_up(self) -> None:
        """Count the time, and end what is out of it."""
        self._sweeps += 1
        self._sweep = None
        for socket in [each for each in self._busy if each.post is not None and each.post.expires < self._sweeps]:
            socket.stale = False
            socket.fail(TimedOut(f"no answer within {self._timeout:g} s"))
        while self._pending and self._pending[0].expires < self._sweeps:
            post = self._pending.popleft()
            late = TimedOut if self._busy or self._idle else Unreachable
            post.done(post.lane, late(f"no free socket within {self._timeout:g} s"))
        if self._pending:
            self._serve()
        if self._sweep is None and (self._busy or self._pending):
            self._start_sweep(asyncio.get_running_loop())


def trust(ca_file: str | None) -> ssl.SSLContext:
    """A verifying TLS context: the CAs of ``ca_file`` (PEM), else the system's; raises ``OSError``."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def certificate_authorities(url: str, ca_bundle: str | None) -> str | None:
    """The PEM file that says whom to trust at ``url``: AWS_CA_BUNDLE, else for AWS's own hosts its own roots.

    Five CAs are read forty times as fast as the system's hundred and more, and nobody else can vouch for
    AWS. None: the system's. Source: Amazon Trust Services, "Root CAs".
    """
    if ca_bundle:
        return ca_bundle
    return str(_AMAZON_ROOTS) if (urlsplit(url).hostname or "").endswith(".amazonaws.com") else None
