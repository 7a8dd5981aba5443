"""AWS Signature Version 4 for many posts that differ only in the end of their path and their body. Pure.

Posts with the same date share most of the work, which is done once: the hash of the canonical request up to
the path, and the two keyed states of the HMAC, are copied for each post.

Rules (AWS General Reference, "Create a signed AWS API request")
- The wire path carries the id percent-encoded once; the canonical path encodes that again.
- A canonical path has no dot segments: an id that looks like one is percent-encoded whole.
- The signed headers are host, x-amz-date and, where there is one, x-amz-security-token and x-amz-target.
- The signing key is good for a day; a signature for five minutes from its date.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from hashlib import sha256
from hmac import digest
from urllib.parse import quote

SERVICE = "execute-api"
# HMAC (RFC 2104): the key is XORed with these bytes for the inner and the outer hash.
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
# The block size of SHA-256 in bytes, to which HMAC pads its key.
_HASH_BLOCK = 64
_DOT_SEGMENTS = (".", "..")


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, and the session token of a temporary one; its repr shows no secret."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def quote_id(connection_id: str) -> str:
    """A connection id as the path on the wire has it."""
    if connection_id in _DOT_SEGMENTS:
        return connection_id.replace(".", "%2E")
    return quote(connection_id, safe="-._~")


def signing_key(secret_key: str, day: str, region: str, service: str = SERVICE) -> bytes:
    """The key of one day (``YYYYMMDD``), Region and service."""
    first = f"AWS4{secret_key}".encode()
    return reduce(lambda key, part: digest(key, part.encode(), "sha256"), (day, region, service, "aws4_request"), first)


class Signer:
    """Signs posts to one host and path prefix, once ``at`` has fixed the date."""

    def __init__(
        self,
        host: str,
        prefix: str,
        region: str,
        credentials: Credentials,
        *,
        service: str = SERVICE,
        target: str = "",
        method: str = "POST",
    ) -> None:
        """``host`` as in the Host header; ``prefix`` is the part of the path that all posts share, as on the wire.

        ``target`` is the operation of a service of the JSON protocol, for the header X-Amz-Target.
        """
        self._region = region
        self._credentials = credentials
        self._head = f"{method}\n{quote(prefix, safe='/-._~')}"
        self._token = "" if not credentials.token else f"x-amz-security-token:{credentials.token}\n"
        self._target = f"x-amz-target:{target}\n" if target else ""
        names = ("host", "x-amz-date", "x-amz-security-token" * bool(self._token), "x-amz-target" * bool(target))
        self._names = ";".join(filter(None, names))
        self._service = service
        self._host = host
        self._day = ""
        self._key = b""

    def at(self, now: datetime) -> Callable[[str, str], bytes]:
        """``sign(quoted id, body digest)`` for posts at ``now`` (UTC): the headers of the signature, as on the wire."""
        date = now.strftime("%Y%m%dT%H%M%SZ")
        if self._day != date[:8]:
            self._day = date[:8]
            self._key = signing_key(self._credentials.secret_key, self._day, self._region, self._service)
        scope = f"{self._day}/{self._region}/{self._service}/aws4_request"
        start = sha256(self._head.encode())
        rest = f"\n\nhost:{self._host}\nx-amz-date:{date}\n{self._token}{self._target}\n{self._names}\n"
        block = self._key.ljust(_HASH_BLOCK, b"\0")
        inner = sha256(block.translate(_INNER) + f"AWS4-HMAC-SHA256\n{date}\n{scope}\n".encode())
        outer = sha256(block.translate(_OUTER))
        headers = self._headers(date, scope)

        def sign(quoted_id: str, body_digest: str) -> bytes:
            request = start.copy()
            request.update(f"{quoted_id.replace('%', '%25')}{rest}{body_digest}".encode())
            within = inner.copy()
            within.update(request.hexdigest().encode())
            signature = outer.copy()
            signature.update(within.digest())
            return headers + signature.hexdigest().encode() + b"\r\n"

        return sign

    def _headers(self, date: str, scope: str) -> bytes:
        token = f"X-Amz-Security-Token: {self._credentials.token}\r\n" if self._token else ""
        target = f"X-Amz-Target: {self._target.removeprefix('x-amz-target:').strip()}\r\n" if self._target else ""
        key = self._credentials.access_key
        authorization = f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={self._names}, Signature="
        return f"X-Amz-Date: {date}\r\n{token}{target}Authorization: {authorization}".encode()
