"""One keep-alive socket: it writes a request, parses the answer, and tells its pool how the post ended.

Rules
- A socket carries one post at a time; there is no pipelining.
- A post that was the first of its invocation on this socket goes again, on another, if the socket fails before
  a byte of the answer: the server closed it while it lay idle, and has not seen the post. The pool does that;
  the socket says so by ``stale``.
- 200 is a good answer, and to a request without a body 204 as well (RFC 9110, section 15.3.5).
- 1xx answers are skipped. An answer that is not HTTP/1.1, or does not end, is a ``ServerError`` and ends the
  socket. So does a second answer to one post, after the first was taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, Protocol, cast

import httptools

from ..errors import Disconnected, PostError, Refused, ServerError, post_error
from .sigv4 import Credentials

Done = Callable[[Any, PostError | None], None]

# Characters of an answer that go into an error: API Gateway's own sentences are shorter.
_MAX_DETAIL = 200
_NO_CONTENT = 204


class Post(NamedTuple):
    """A body on its way to a recipient; ``expires`` is the sweep of the pool that finds it late."""

    recipient: Any
    body: bytes
    digest: str
    done: Done
    expires: int


class Requests(Protocol):
    """Writes the requests of a pool, and says which answers are good ones.

    ``most_read`` and ``most_kept`` bound an answer, in bytes: one that is longer than ``most_read`` is a failure,
    and about ``most_kept`` of its body are kept.
    """

    most_read: int
    most_kept: int

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Sign requests with these credentials and this date (UTC) from now on."""

    def request(self, recipient: Any, body: bytes, digest: str) -> bytes:
        """The bytes of a request, signed; ``digest`` is the SHA-256 of ``body`` in hex."""

    def accept(self, recipient: Any, body: bytes) -> PostError | None:
        """Take the body of a 200, or return what is wrong with it; not called for an empty body."""


class Owner(Protocol):
    """The pool, as a socket sees it."""

    def answered(self, socket: Socket, error: PostError | None) -> None:
        """The socket has a whole answer to its post."""

    def lost(self, socket: Socket, error: PostError) -> None:
        """The socket has ended, and with it the post it carried."""


class Socket(asyncio.Protocol):
    """One connection to the endpoint; ``post`` is the one it carries, None while it is idle."""

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
        "requests",
        "stale",
        "transport",
    )

    def __init__(self, pool: Owner, requests: Requests) -> None:
        self.pool = pool
        self.requests = requests
        self.post: Post | None = None
        self.alive = False
        self.stale = False
        self.invocation = 0
        self.keep = True
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._received = 0
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop: the connection is open, TLS included."""
        # uvloop's transports do what asyncio's do without descending from them.
        self.transport = cast("asyncio.Transport", transport)
        self.alive = True

    def carry(self, post: Post, invocation: int) -> None:
        """Write the request of ``post``; the pool hears of its end."""
        self.post = post
        self.stale = self.invocation != invocation
        self.invocation = invocation
        try:
            request = self.requests.request(post.recipient, post.body, post.digest)
        except Exception as error:  # noqa: BLE001 - an id that is no text in UTF-8 fails its own post, not the broadcast
            self.stale = False
            refused = Refused(f"it cannot be posted: {type(error).__name__}: {error}")
            asyncio.get_running_loop().call_soon(self.pool.answered, self, refused)
        else:
            self.transport.write(request)

    def on_body(self, body: bytes) -> None:
        """Called by the parser: keep the start of a body, and let the rest go."""
        if len(self._body) < self.requests.most_kept:
            self._body += body

    def on_message_complete(self) -> None:
        """Called by the parser at the end of each answer, of which a 1xx is none."""
        status = self._parser.get_status_code()
        if self._status:
            # Two answers to one post: the first counts, and a server that sends more gets no other post here.
            self.keep = False
        elif status >= 200:
            self._status = status
            self.keep = self._parser.should_keep_alive()

    def data_received(self, data: bytes) -> None:
        """Called by the loop: parse, and report the post once its answer is whole."""
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
            if self._received > self.requests.most_read:
                self.fail(ServerError("the answer does not end"))

    def _read(self, status: int) -> PostError | None:
        body = bytes(self._body)
        self._body.clear()
        if status == _NO_CONTENT and self.post is not None and not self.post.body:
            return None
        if status != 200:
            return post_error(status, body[:_MAX_DETAIL].decode(errors="replace"))
        return self.requests.accept(self.post.recipient, body) if self.post else None

    def eof_received(self) -> None:
        """Called by the loop where the server closes: this socket must not get another post."""
        self.alive = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop once the socket is closed."""
        self.fail(Disconnected(f"the socket was closed{f': {exc}' if exc else ''}"))

    def fail(self, error: PostError) -> None:
        """End the socket. If it was stale, the pool sends its post again; otherwise the post has failed."""
        self.alive = False
        self.transport.abort()
        self.pool.lost(self, error)
