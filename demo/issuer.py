"""An issuer of tokens for as long as a ``with`` block lasts: what Cognito or Auth0 is to a real stack.

Rules
- Its key is made at the start and never leaves this process; nothing else can sign what the API takes for good.
- It serves two documents, to this machine alone: OpenID Connect's discovery, and the public key.
- A token names who it is for, its end, and the tenants whose messages its owner may have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

AUDIENCE = "async-relay-demo"
#: The claim of a token with the tenants; the attribute of an item is ``feed.TENANT``.
TENANTS_CLAIM = "tenants"
_KEY_ID = "demo"
HOUR = 3_600


class Issuer:
    """Makes tokens; ``url`` is where its documents are, and what tokens name as their issuer."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = ec.generate_private_key(ec.SECP256R1())

    def token(self, subject: str, tenants: Collection[str], *, seconds: int = HOUR) -> str:
        """A token for ``subject`` that ends in so many seconds; below zero: one that has ended."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": min(now, now + seconds),
            "exp": now + seconds,
            TENANTS_CLAIM: sorted(tenants),
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": _KEY_ID})

    def documents(self) -> dict[str, Any]:
        """What is served, by path."""
        public = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/keys"},
            "/keys": {"keys": [{**public, "kid": _KEY_ID, "use": "sig", "alg": "ES256"}]},
        }


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer whose documents are served on a free port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    server.RequestHandlerClass = _handler(issuer.documents())
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()


def _handler(documents: dict[str, Any]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = documents.get(self.path)
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the view."""

    return Handler
