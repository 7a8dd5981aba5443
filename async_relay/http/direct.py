"""The direct transport: PostToConnection and DeleteConnection over a pool of signed sockets.

Rules
- A request without a body is a DELETE: no message is empty. It has its own signature, since the method is signed.
- What requests with the same body share is made once, the method included.

Source: API Gateway Management API, ``POST`` and ``DELETE /@connections/{connectionId}``.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from hashlib import sha256
from typing import Any

from ..errors import PostError
from ..wire.messages import Message
from .opening import Endpoint
from .pool import SignedPool
from .sigv4 import Credentials, Signer, quote_id
from .sockets import Done

# The ids that API Gateway makes: of these only the equals sign must be quoted, which costs less than ``quote_id``.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]*=*").fullmatch


_NO_BODY = b""
_NO_BODY_DIGEST = sha256(_NO_BODY).hexdigest()


class ConnectionRequests:
    """The requests of the direct transport: the recipient is an object with a ``connection_id``."""

    most_read = 65_536
    most_kept = 200

    def __init__(self, endpoint: Endpoint, region: str) -> None:
        self._netloc = endpoint.netloc
        self._region = region
        self._prefix = f"{endpoint.path}/@connections/"
        self._start = b""
        self._middle = f" HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: application/json\r\n".encode()
        self._signers: dict[str, Signer] = {}
        self._signers_of: Credentials | None = None
        self._signs: dict[str, Callable[[str, str], bytes]] = {}
        self._sign: Callable[[str, str], bytes] = _unsigned
        self._body: bytes | None = None
        self._tail = b""

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """Sign for the path of the stage's connections."""
        if credentials != self._signers_of:
            self._signers_of = credentials
            self._signers = {
                method: Signer(self._netloc, self._prefix, self._region, credentials, method=method)
                for method in ("POST", "DELETE")
            }
        self._signs = {method: signer.at(now) for method, signer in self._signers.items()}
        self._body = None

    def request(self, recipient: Any, body: bytes, digest: str) -> bytes:
        """A post to ``recipient.connection_id``, or without a body its DELETE."""
        if body is not self._body:
            self._prepare(body)
        name = recipient.connection_id
        quoted = name.replace("=", "%3D") if _PLAIN_ID(name) else quote_id(name)
        return self._start + quoted.encode() + self._middle + self._sign(quoted, digest) + self._tail

    def _prepare(self, body: bytes) -> None:
        """Make what all recipients of a body share."""
        method = "POST" if body else "DELETE"
        self._sign = self._signs.get(method, _unsigned)
        self._start = f"{method} {self._prefix}".encode()
        self._tail = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        self._body = body

    def accept(self, _recipient: Any, _body: bytes) -> PostError | None:
        """A 200 is a delivered message, whatever it says."""
        return None


class DirectTransport:
    """Posts messages to the clients of one API, over ``pool``."""

    def __init__(
        self,
        endpoint: str,
        *,
        region: str,
        credentials: Callable[[], Awaitable[Credentials]],
        tls: ssl.SSLContext | None,
        max_sockets: int = 100,
        timeout: float = 3.0,
    ) -> None:
        """``endpoint`` is the URL with the stage; ``timeout`` in seconds, for one post or one connection."""
        where = Endpoint.of(endpoint, tls)
        requests = ConnectionRequests(where, region)
        self.pool = SignedPool(where, requests, credentials=credentials, max_sockets=max_sockets, timeout=timeout)
        self._send = self.pool.send

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return repr(self.pool)

    async def begin(self) -> None:
        """See ``SignedPool.begin``."""
        await self.pool.begin()

    def send(self, recipient: Any, message: Message, done: Done) -> None:
        """Post ``message`` to ``recipient.connection_id``; ``done(recipient, error)`` follows."""
        self._send(recipient, message.body, message.digest, done)

    def disconnect(self, recipient: Any, done: Done) -> None:
        """Close the connection ``recipient.connection_id``; ``done(recipient, error)`` follows."""
        self._send(recipient, _NO_BODY, _NO_BODY_DIGEST, done)

    def stop(self) -> None:
        """See ``SignedPool.stop``."""
        self.pool.stop()

    async def end(self) -> None:
        """See ``SignedPool.end``."""
        await self.pool.end()

    async def close(self) -> None:
        """See ``SignedPool.close``."""
        await self.pool.close()


def _unsigned(_quoted_id: str, _digest: str) -> bytes:
    raise AssertionError("begin() comes before send()")
