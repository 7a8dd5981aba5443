"""The direct transport: PostToConnection on a pool of our own.

Source: API Gateway Management API, ``POST /@connections/{connectionId}``.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from ..wire.messages import Message
from .pool import SignedPool
from .sigv4 import Credentials, Signer, quote_id

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]*=*").fullmatch


class DirectTransport(SignedPool):
    """Posts messages to the connections of one API."""

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
        super().__init__(endpoint, credentials=credentials, tls=tls, max_sockets=max_sockets, timeout=timeout)
        self._region = region
        self._prefix = f"{self._path}/@connections/"
        self._start = f"POST {self._prefix}".encode()
        self._middle = f" HTTP/1.1\r\nHost: {self._netloc}\r\nContent-Type: application/json\r\n".encode()
        self._signer: Signer | None = None
        self._signer_of: Credentials | None = None
        self._sign: Callable[[str, str], bytes] = _unsigned
        self._message: Message | None = None
        self._tail = b""

    def resign(self, credentials: Credentials, now: datetime) -> None:
        """For the path of the stage's connections."""
        if self._signer is None or credentials != self._signer_of:
            self._signer_of = credentials
            self._signer = Signer(self._netloc, self._prefix, self._region, credentials)
        self._sign = self._signer.at(now)

    def request(self, lane: Any, message: Message) -> bytes:
        """A post to ``lane.connection_id``; what all clients of a message share is made once."""
        if message is not self._message:
            self._message = message
            self._tail = b"Content-Length: %d\r\n\r\n%b" % (len(message.body), message.body)
        name = lane.connection_id
        quoted = name.replace("=", "%3D") if _PLAIN_ID(name) else quote_id(name)
        return self._start + quoted.encode() + self._middle + self._sign(quoted, message.digest) + self._tail


def _unsigned(_quoted_id: str, _digest: str) -> bytes:
    raise AssertionError("begin() comes before send()")
