"""A pool of keep-alive HTTP/1.1 sockets to one endpoint, over which it sends signed requests.

No recipient is bound to a socket. The free socket that was used last carries the next post, so the others
may grow old and be closed. A post that finds no free socket waits for one. The pool opens as many sockets as
were wanted at once, a few at a time, since a TLS handshake costs as much CPU as fifty posts.

Rules
- A post is signed when it gets its socket: a signature is good for five minutes, and a post may wait longer.
- The timeout runs from ``send`` to the last byte of the answer. One sweep checks all posts, so no post costs
  a timer.
- A post that fails on a stale socket (see ``sockets``) goes again, on another.
- If no socket is open and none can be opened, each failed attempt ends one waiting post: ``Unreachable``.
- The pool never has more sockets than the process's file descriptors allow (``descriptors``). Where none is
  left all the same, see ``opening``.
- The signing date is renewed by the loop's clock, also when nothing was posted for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Container
from datetime import UTC, datetime
from math import ceil
from typing import Any

from ..errors import Disconnected, PostError, TimedOut, Unreachable
from .descriptors import sockets_at_most
from .opening import Endpoint, holders, open_socket
from .sigv4 import Credentials
from .sockets import Done, Post, Requests, Socket

_log = logging.getLogger("async_relay")

# Handshakes under way at most: more would keep the CPU from the posts on the sockets that are open already.
_HANDSHAKES = 16
# Seconds an invocation waits at its end for handshakes, so that the next one finds the sockets open.
_LAST_HANDSHAKES = 0.05
# Seconds between two looks at the time: a post may time out later by so much, which nobody notices.
_SWEEP = 0.1
# Short timeouts are swept more often, so that none is more than a fifth late.
_SWEEPS_PER_TIMEOUT = 5
# Seconds a date serves: far from the five minutes a signature is good for, whatever the clocks differ by.
_SIGNED_FOR = 20.0
# Turns of the loop in which it reads the end of sockets that the server closed between two invocations.
_TURNS = 3


class SignedPool:
    """A pool of sockets to one endpoint; ``requests`` says what it sends over them."""

    def __init__(
        self,
        endpoint: Endpoint,
        requests: Requests,
        *,
        credentials: Callable[[], Awaitable[Credentials]],
        max_sockets: int = 100,
        timeout: float = 3.0,
    ) -> None:
        """``timeout`` (s) is for one post, or for opening one socket; ``max_sockets`` may be cut to fit the process."""
        self.requests = requests
        self._endpoint = endpoint
        self._credentials = credentials
        self._max_sockets = sockets_at_most(max_sockets)
        self._timeout = timeout
        self._period = min(_SWEEP, timeout / _SWEEPS_PER_TIMEOUT)
        self._patience = ceil(timeout / self._period)
        self._signed_with: Credentials | None = None
        self._resign_at = 0.0
        self.loop: asyncio.AbstractEventLoop | None = None
        self._idle: list[Socket] = []
        self._busy: set[Socket] = set()
        self._pending: deque[Post] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeps = 0
        self._refused_at = -1
        self._wanted = 0
        self._invocation = 0
        self.opened = 0
        holders.add(self)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return (
            f"<{self._endpoint.netloc}: {len(self._busy)} busy, {len(self._idle)} idle, "
            f"{len(self._connecting)} opening, {len(self._pending)} waiting>"
        )

    @property
    def serving(self) -> bool:
        """Whether there is a socket, busy or idle."""
        return bool(self._busy or self._idle)

    async def begin(self) -> None:
        """Fetch the credentials, fix the date, and drop the sockets that the server closed meanwhile."""
        self.loop = asyncio.get_running_loop()
        self._signed_with = await self._credentials()
        self._resign(self.loop.time())
        self._invocation += 1
        self._wanted = 0
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        self._idle = [socket for socket in self._idle if socket.alive]

    def send(self, recipient: Any, body: bytes, digest: str, done: Done) -> None:
        """Send ``body``, whose SHA-256 in hex is ``digest``; ``done(recipient, error)`` follows once, later."""
        post = Post(recipient, body, digest, done, self._sweeps + self._patience)
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
        """Cut every post in flight, without a ``done``; idle sockets stay open."""
        self._pending.clear()
        for task in self._connecting:
            task.cancel()
        for socket in tuple(self._busy):
            socket.post = None
            socket.fail(Disconnected("stopped"))
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None

    async def forget(self, recipients: Container[Any]) -> None:
        """Cut the posts to these, without a ``done``; if there are no others, end the sweep and the handshakes too."""
        self._pending = deque(post for post in self._pending if post.recipient not in recipients)
        for socket in [each for each in self._busy if each.post is not None and each.post.recipient in recipients]:
            socket.post = None
            socket.fail(Disconnected("stopped"))
        if not self._busy and not self._pending:
            self.stop()
            await asyncio.gather(*self._connecting, return_exceptions=True)

    async def end(self) -> None:
        """Stop, and keep only idle sockets; a handshake under way may finish, for the next invocation."""
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
        for _ in range(_TURNS):
            await asyncio.sleep(0)

    def give_back(self) -> int:
        """Close the idle sockets, since their file descriptors are needed; returns how many."""
        idle = tuple(self._idle)
        for socket in idle:
            socket.fail(Disconnected("its file descriptor was needed"))
        return len(idle)

    def answered(self, socket: Socket, error: PostError | None) -> None:
        """Take the socket back, and report the post; the socket calls this with a whole answer."""
        post = socket.post
        if post is None or not socket.keep:
            self._drop(socket)
        else:
            self._busy.discard(socket)
            socket.post = None
            self._idle.append(socket)
        if post is not None:
            post.done(post.recipient, error)
        if self._pending:
            self._serve()

    def lost(self, socket: Socket, error: PostError) -> None:
        """Drop the socket, and send its post again or report it; the socket calls this when it has ended."""
        post, socket.post = socket.post, None
        self._drop(socket)
        if post is None:
            return
        if socket.stale:
            self._pending.appendleft(post)
        else:
            post.done(post.recipient, error)
        self._serve()

    def _drop(self, socket: Socket) -> None:
        socket.post = None
        socket.alive = False
        socket.transport.abort()
        self._busy.discard(socket)
        if socket in self._idle:
            self._idle.remove(socket)

    def _serve(self) -> None:
        """Give waiting posts to idle sockets, and open sockets for those still waiting."""
        while self._pending and self._idle:
            socket = self._idle.pop()
            if socket.alive:
                self._busy.add(socket)
                socket.carry(self._pending.popleft(), self._invocation)
        self._grow()

    def _grow(self) -> None:
        """Open sockets up to the number wanted, unless one was refused since the last sweep and others serve."""
        self._wanted = max(self._wanted, min(self._max_sockets, len(self._busy) + len(self._pending)))
        if self._refused_at == self._sweeps and self.serving:
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
                socket = await open_socket(self._endpoint, self._new_socket, self._timeout, self)
        except (OSError, TimeoutError) as error:
            # ssl.SSLError is an OSError too: an endpoint we cannot trust cannot be reached.
            self._unreachable(error)
            return
        except Exception as error:  # noqa: BLE001 - a malformed host name raises anything, and each post must hear of it
            _log.exception("a connection to %s failed unexpectedly", self._endpoint.netloc)
            self._unreachable(error)
            return
        self.opened += 1
        socket.invocation = self._invocation
        if socket.alive:
            self._idle.append(socket)

    def _new_socket(self) -> Socket:
        return Socket(self, self.requests)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        if not task.cancelled():
            task.result()
            self._serve()

    def _unreachable(self, error: Exception) -> None:
        """Let waiting posts wait for the other sockets; where there is none, end one of them."""
        self._refused_at = self._sweeps
        self._wanted = 0
        if self._pending and not self.serving:
            post = self._pending.popleft()
            reason = str(error) or type(error).__name__
            post.done(post.recipient, Unreachable(f"no connection to {self._endpoint.netloc}: {reason}"))

    def _resign(self, now: float) -> None:
        assert self._signed_with is not None
        self.requests.resign(self._signed_with, datetime.now(UTC))
        self._resign_at = now + _SIGNED_FOR

    def _start_sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the time counted from here on, and no post signed with a date that is too old."""
        now = loop.time()
        if now >= self._resign_at:
            self._resign(now)
        self._sweep = loop.call_later(self._period, self._sweep_up)

    def _sweep_up(self) -> None:
        """Count one period, end the posts whose time is over, and go on while there are posts."""
        self._sweeps += 1
        self._sweep = None
        # Before the sockets that hang are closed: they are a sign that the endpoint is there.
        late = TimedOut if self.serving else Unreachable
        for socket in [each for each in self._busy if each.post is not None and each.post.expires < self._sweeps]:
            socket.stale = False
            socket.fail(TimedOut(f"no answer within {self._timeout:g} s"))
        while self._pending and self._pending[0].expires < self._sweeps:
            post = self._pending.popleft()
            post.done(post.recipient, late(f"no free socket within {self._timeout:g} s"))
        if self._pending:
            self._serve()
        if self._sweep is None and (self._busy or self._pending):
            self._start_sweep(asyncio.get_running_loop())
