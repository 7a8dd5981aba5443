"""A client's token: where it is found, and whether it is good.

Rules
- First found: ``Authorization: Bearer T``, the subprotocol ``bearer.T``, and ``?access_token=T`` only where the
  settings say so, since URLs end up in logs. Two different tokens in one place are none.
- The signature is checked with a key of the issuer's and an algorithm of the settings'. What a token says of its own
  keys (``jku``, ``jwk``, ``x5u``) is never read, and what it calls critical is not understood.
- ``iss`` is the issuer's, letter for letter. ``aud`` names us; where there is none ``client_id`` does, as in Cognito's
  access tokens. ``exp`` is there and has no leeway; ``nbf`` and ``iat`` have a minute, since clocks differ.
- An ID token says who somebody is, and is for the application that asked: Cognito's, which can be told, are refused.
- Nothing of a token is logged or is in an error.

PyJWT and cryptography take 60 ms of CPU and 9 MB to load, so only a first token loads them.

Sources: RFC 7519; RFC 8725, section 3; RFC 9068, section 4; Cognito Developer Guide, "Verifying JSON web tokens".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from ..settings import Settings
from ..wire.rows import END_OF_TIME
from .events import as_principal, as_tenants, headers, offered_protocols, query
from .issuer import Issuer
from .jwks import KeySet
from .refusals import BadToken

#: Bytes: an authorizer gets no more than 10 KB of headers from API Gateway.
LONGEST_TOKEN = 8_192
_PROTOCOL = "bearer."
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Seconds that the issuer's clock may be ahead.
_LEEWAY = 60
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a good token names, until when (s), whose messages they may have, and whether it has the scope."""

    principal: str
    expires_at: int
    tenants: frozenset[str]
    in_scope: bool


def find_token(event: Any, *, in_query: bool) -> str:
    """The token of an event; raises ``BadToken`` where there is none, or one place has different ones."""
    bearer = re.compile(r"bearer[ \t]+(\S+)[ \t]*", re.ASCII | re.IGNORECASE)
    places = [
        [match[1] for match in map(bearer.fullmatch, headers(event, "Authorization")) if match],
        [each[len(_PROTOCOL) :] for each in offered_protocols(event) if each.startswith(_PROTOCOL)],
        query(event, "access_token") if in_query else [],
    ]
    for found in ({token for token in place if token} for place in places):
        if len(found) > 1:
            raise BadToken("there are several in one place")
        if found:
            return found.pop()
    raise BadToken("there is none")


class Verifier:
    """Says whom tokens name; keeps the issuer's keys."""

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        """``clock``: seconds since 1970."""
        self._settings = settings
        self._keys = KeySet(Issuer(settings.auth_issuer, settings.auth_jwks_url).keys, settings.auth_algorithms, clock)

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<verifier of the tokens of {self._settings.auth_issuer}>"

    async def verify(self, token: Any, now: float) -> Identity:
        """Whom the token names as of ``now`` (s); raises ``BadToken`` or ``KeysUnavailable``."""
        if not isinstance(token, str) or len(token) > LONGEST_TOKEN or not _COMPACT.fullmatch(token):
            raise BadToken("it is no signed token of a size we read")
        kid, algorithm = self._read_header(token)
        claims = _claims(token, await self._keys.find(kid, algorithm), algorithm)
        self._check_parties(claims)
        principal = as_principal(claims.get("sub"))
        if principal is None:
            raise BadToken("it names nobody in sub")
        settings = self._settings
        return Identity(
            principal,
            _check_times(claims, now),
            as_tenants(claims.get(settings.tenant_claim)) if settings.tenant_claim else frozenset(),
            settings.auth_scope is None or settings.auth_scope in _scopes(claims),
        )

    def _read_header(self, token: str) -> tuple[str | None, str]:
        """The key and the algorithm that it names, which is one of the settings'."""
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.InvalidTokenError, RecursionError, ValueError):
            raise BadToken("its header cannot be read") from None
        kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ")
        if not isinstance(algorithm, str) or algorithm not in self._settings.auth_algorithms:
            raise BadToken("its algorithm is none of AUTH_ALGORITHMS")
        if kind is not None and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise BadToken("it is a token of another type")
        if "crit" in header:
            raise BadToken("it calls critical what nobody here understands")
        if kid is not None and not isinstance(kid, str):
            raise BadToken("its kid is no text")
        return kid, algorithm

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        """Who made it, for whom, and for what."""
        if claims.get("iss") != self._settings.auth_issuer:
            raise BadToken("its issuer is another")
        audience = claims["aud"] if "aud" in claims else claims.get("client_id")
        named = audience if isinstance(audience, list) else [audience]
        if not any(isinstance(each, str) and each in self._settings.auth_audience for each in named):
            raise BadToken("it is for another audience")
        if claims.get("token_use") == "id":
            raise BadToken("it is an ID token, and not one for access")


def _claims(token: str, key: Any, algorithm: str) -> Mapping[str, Any]:
    """What it claims, once its signature is right."""
    import jwt

    try:
        claims = json.loads(jwt.PyJWS().decode(token, key, algorithms=[algorithm]))
    except (jwt.InvalidTokenError, jwt.InvalidKeyError):
        raise BadToken("its signature is not the issuer's") from None
    except (ValueError, RecursionError):
        raise BadToken("its claims cannot be read") from None
    if not isinstance(claims, dict):
        raise BadToken("its claims are no JSON object")
    return claims


def _check_times(claims: Mapping[str, Any], now: float) -> int:
    """The second it ends; raises ``BadToken`` where now is not within its time."""
    for name in ("nbf", "iat"):
        since = claims.get(name, 0)
        if not _is_time(since) or since > now + _LEEWAY:
            raise BadToken(f"its {name} is no time, or still to come")
    until = claims.get("exp")
    if not _is_time(until) or until > END_OF_TIME:
        raise BadToken("it has no exp that is a second")
    ends = math.floor(until)
    if ends <= now:
        raise BadToken("it has expired")
    return ends


def _is_time(value: Any) -> TypeGuard[int | float]:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and math.isfinite(value)
    )


def _scopes(claims: Mapping[str, Any]) -> set[str]:
    """``scope`` (RFC 8693), and ``scp``, which is text at Entra ID and a list at Okta."""
    found: set[str] = set()
    for value in (claims.get("scope"), claims.get("scp")):
        words = value.split(" ") if isinstance(value, str) else value if isinstance(value, list) else []
        found |= {each for each in words if isinstance(each, str)}
    return found
