"""An issuer of tokens on this machine, its keys, and API Gateway's events that carry a token."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from async_relay.settings import Settings

NOW = 1_700_000_000
AUDIENCE = "relay"
ORIGIN = "https://app.example.com"
METHOD = "arn:aws:execute-api:eu-west-1:123456789012:abc123/prod/$connect"


@cache
def private(name: str) -> Any:
    """A private key, made once: ``rsa``, ``small``, ``ec``, ``ec384``, ``ed``, or ``other``, which no issuer has."""
    return {
        "rsa": lambda: rsa.generate_private_key(65_537, 2_048),
        "other": lambda: rsa.generate_private_key(65_537, 2_048),
        "small": lambda: rsa.generate_private_key(65_537, 1_024),  # noqa: S505 - which no issuer should have
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed": ed25519.Ed25519PrivateKey.generate,
    }[name]()


def jwk(name: str, **more: Any) -> dict[str, Any]:
    """The public key as an issuer shows it, its id being its name."""
    public = private(name).public_key()
    algorithm: Any = ECAlgorithm if name.startswith("ec") else OKPAlgorithm if name == "ed" else RSAAlgorithm
    return {**algorithm.to_jwk(public, as_dict=True), "kid": name, "use": "sig"} | more


def claims(issuer: str, **more: Any) -> dict[str, Any]:
    """The claims of a good token for an hour; one of None is left out."""
    good = {"iss": issuer, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 3_600, "iat": NOW, "nbf": NOW}
    return {name: value for name, value in (good | more).items() if value is not None}


def sign(payload: Any, key: str = "rsa", algorithm: str = "RS256", **header: Any) -> str:
    """A token; a header of None is left out. ``payload`` may be bytes that are no JSON."""
    headers = {"kid": key, **header}
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    dropped = {name for name, value in headers.items() if value is None}
    return jwt.PyJWS().encode(
        body,
        private(key),
        algorithm,
        {name: value for name, value in headers.items() if name not in dropped},
    )


class FakeIssuer:
    """Serves discovery and keys over HTTP; ``answers`` may replace what a path answers, ``asked`` counts."""

    def __init__(self) -> None:
        self.url = ""
        self.keys: list[Any] = [jwk("rsa", alg="RS256"), jwk("ec", alg="ES256")]
        self.asked: Counter[str] = Counter()
        self.requests: list[bytes] = []
        self.delay = 0.0
        self.answers: dict[str, bytes] = {}

    @property
    def discovery(self) -> dict[str, Any]:
        return {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ")[1].decode()
            self.asked[path] += 1
            self.requests.append(request)
            await asyncio.sleep(self.delay)
            documents = {"/.well-known/openid-configuration": self.discovery, "/keys": {"keys": self.keys}}
            writer.write(self.answers.get(path) or answer(documents.get(path), 200 if path in documents else 404))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def answer(document: Any, status: int = 200, headers: str = "") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@asynccontextmanager
async def an_issuer() -> AsyncIterator[FakeIssuer]:
    issuer = FakeIssuer()
    server = await asyncio.start_server(issuer.serve, "127.0.0.1", 0)
    issuer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield issuer
    finally:
        server.close()


def environ(issuer: str, **more: str) -> dict[str, str]:
    """What a function of a closed door is deployed with."""
    return {
        "WS_ENDPOINT": "https://ws.example.com/prod",
        "CONNECTIONS_TABLE": "connections",
        "AUTH_MODE": "jwt",
        "AUTH_ISSUER": issuer,
        "AUTH_AUDIENCE": f"other,{AUDIENCE}",
        **more,
    }


def door(issuer: str, **more: str) -> Settings:
    return Settings.from_env(environ(issuer, **more))


def connecting(token: str | None = None, **more: Any) -> dict[str, Any]:
    """A REQUEST authorizer's event; the token is in Authorization."""
    headers = {"Host": "ws.example.com"} | ({"Authorization": f"Bearer {token}"} if token is not None else {})
    return {
        "type": "REQUEST",
        "methodArn": METHOD,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "requestContext": {"connectionId": "a=", "routeKey": "$connect", "eventType": "CONNECT"},
        **more,
    }


def with_headers(*lines: tuple[str, str]) -> dict[str, Any]:
    """An event with these header lines, as API Gateway tells them: the last of a name, and all of them."""
    many: dict[str, list[str]] = {}
    for name, value in lines:
        many.setdefault(name, []).append(value)
    return connecting(headers={name: values[-1] for name, values in many.items()}, multiValueHeaders=many)


def asking(body: Any, connection_id: str = "a=") -> dict[str, Any]:
    """An event of $default."""
    text = body if isinstance(body, str) else json.dumps(body)
    return {"requestContext": {"connectionId": connection_id, "routeKey": "$default"}, "body": text}


def clock_at(seconds: list[float]) -> Callable[[], float]:
    """A clock that shows whatever the test has put into the list."""
    return lambda: seconds[0]
