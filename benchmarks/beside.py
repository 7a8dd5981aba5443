"""What stands beside a cold start: an endpoint that hands out credentials, and an issuer of tokens.

Rules
- The endpoint hands out the stage's credentials, to who has its token, over plain HTTP as Lambda's does.
- The issuer serves discovery and its key over HTTPS; ``pem`` is what to trust for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from async_relay.testing.trust import Certificates, Tls

from .peers.worker import ACCESS_KEY, SECRET_KEY, TOKEN

CONTAINER_TOKEN = "Bearer of-this-sandbox"  # noqa: S105 - of this benchmark alone
_AUDIENCE = "relay"
_HOUR = 3_600


@dataclass(frozen=True, slots=True)
class Beside:
    """Where they are; ``token`` is one that the issuer gave to a client for ``audience``."""

    container_url: str
    issuer_url: str
    audience: str
    token: str
    pem: bytes


@contextmanager
def beside() -> Iterator[Beside]:
    """Serve both on free ports of this machine."""
    certificates = Certificates()
    key = rsa.generate_private_key(65_537, 2_048)
    with ExitStack() as stack:
        container = stack.enter_context(_serving(_credentials(), CONTAINER_TOKEN))
        documents: dict[str, Any] = {"/keys": {"keys": [RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)]}}
        documents["/keys"]["keys"][0] |= {"kid": "one", "use": "sig", "alg": "RS256"}
        issuer = stack.enter_context(_serving(documents, certificates=certificates))
        documents["/.well-known/openid-configuration"] = {"issuer": issuer, "jwks_uri": f"{issuer}/keys"}
        claims = {"iss": issuer, "aud": _AUDIENCE, "sub": "alice", "exp": int(time.time()) + _HOUR}
        token = jwt.encode(claims, key, algorithm="RS256", headers={"kid": "one"})
        yield Beside(f"{container}/credentials", issuer, _AUDIENCE, token, certificates.pem)


def _credentials() -> Mapping[str, Any]:
    expires = datetime.now(UTC) + timedelta(hours=6)
    found = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": TOKEN}
    return {"/credentials": {**found, "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}}


@contextmanager
def _serving(
    documents: Mapping[str, Any], authorization: str = "", certificates: Certificates | None = None
) -> Iterator[str]:
    """The URL of a server of JSON documents, by path, to who has the ``authorization``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path in documents and self.headers.get("Authorization", "") == authorization
            body = json.dumps(documents[self.path]).encode() if good else b"{}"
            self.send_response(200 if good else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the table."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificates is not None:
        server.socket = certificates.context(Tls()).wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"{'https' if certificates else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
