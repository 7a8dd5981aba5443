"""The issuer's public keys: kept for ten minutes, and asked for again when a token names one that is not known.

Rules
- At most one fetch in ten seconds, however many tokens name keys nobody has, and however many wait at once. Until a
  first fetch has succeeded it is one a second.
- Where a fetch fails, the keys of before stay good: a sandbox lives for hours at most.
- A key serves the algorithms that fit it, of those that the settings name, and no other: which one a token names is
  its own word, and proves nothing.
- A key we cannot use is skipped and logged once by its reason, without anything of the key.

Sources: RFC 7517, section 4; RFC 7518, sections 3.1 and 6; NIST SP 800-131A for the 2,048 bits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

from ..errors import RelayError
from .refusals import BadToken, KeysUnavailable

_log = logging.getLogger("async_relay")

# Seconds.
_KEPT = 600.0
_BETWEEN_FETCHES = 10.0
_BEFORE_THE_FIRST = 1.0
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_KEY_TYPES = ("RSA", "EC", "OKP")
_SMALLEST_RSA = 2_048
# Of RSA, EC and OKP, and of RSA's primes.
_PRIVATE_PARTS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class UnusableKey(RelayError):
    """Why a key cannot verify a token; nothing of the key is in it."""


class Key(NamedTuple):
    """A public key, its id and the algorithms it serves."""

    kid: str | None
    algorithms: frozenset[str]
    public: Any


class KeySet:
    """The keys of one issuer, for the life of a sandbox."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Any]],
        algorithms: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        """``fetch`` raises ``KeysUnavailable``; ``clock`` in seconds, and goes on while the sandbox is frozen."""
        self._fetch = fetch
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        self._keys: list[Key] | None = None
        self._fetched_at = self._tried_at = -float("inf")
        self._failure: KeysUnavailable | None = None
        self._one_fetch = asyncio.Lock()
        self._logged: set[str] = set()

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._keys)} keys>" if self._keys is not None else "<no keys yet>"

    async def find(self, kid: str | None, algorithm: str) -> Any:
        """The public key for a token that names this; raises ``BadToken`` or ``KeysUnavailable``."""
        if self._is_over(self._fetched_at, _KEPT):
            await self._refresh()
        if kid is not None and not any(key.kid == kid for key in self._keys or ()):
            await self._refresh()
            if self._failure is not None and not any(key.kid == kid for key in self._keys or ()):
                raise KeysUnavailable("the token's key is not known, and the issuer's keys cannot be had now")
        return self._pick(kid, algorithm)

    def _pick(self, kid: str | None, algorithm: str) -> Any:
        if self._keys is None:
            raise KeysUnavailable(str(self._failure or "the issuer's keys cannot be had now"))
        named = [key for key in self._keys if kid is None or key.kid == kid]
        fitting = [key for key in named if algorithm in key.algorithms]
        if not fitting:
            raise BadToken("its key is not one of the issuer's" if not named else "its key is for another algorithm")
        if kid is None and len(fitting) > 1:
            raise BadToken("it names no key, and the issuer has several")
        return fitting[0].public

    async def _refresh(self) -> None:
        """Fetch the keys, unless it is too early to try again: whoever waited for a fetch makes none."""
        async with self._one_fetch:
            between = _BEFORE_THE_FIRST if self._keys is None else _BETWEEN_FETCHES
            if not self._is_over(self._tried_at, between):
                return
            self._tried_at = self._clock()
            # Should the fetch be cut off, it has failed.
            self._failure = KeysUnavailable("the issuer's keys did not come in time")
            try:
                self._keys = self._usable(await self._fetch())
            except KeysUnavailable as failure:
                self._failure = failure
                _log.error("the keys of tokens cannot be had: %s", failure)
                return
            self._fetched_at, self._failure = self._tried_at, None

    def _is_over(self, since: float, seconds: float) -> bool:
        """Whether so much time has gone by; a clock that was set back tells nothing, so it has."""
        return not 0 <= self._clock() - since < seconds

    def _usable(self, document: Any) -> list[Key]:
        keys = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(keys, list):
            raise KeysUnavailable("what the issuer calls its keys is no key set")
        usable = []
        for each in keys:
            try:
                usable.append(read_key(each, self._algorithms))
            except UnusableKey as reason:
                self._skip(str(reason))
        return usable

    def _skip(self, reason: str) -> None:
        if reason not in self._logged:
            self._logged.add(reason)
            _log.warning("a key of the issuer is not used: %s", reason)


def read_key(jwk: Any, algorithms: frozenset[str]) -> Key:
    """The key of a JWK, for those of the algorithms that fit it; raises ``UnusableKey``."""
    if not isinstance(jwk, Mapping):
        raise UnusableKey("it is no JSON object")
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise UnusableKey("its kid is no text")
    if jwk.get("kty") not in _KEY_TYPES:
        raise UnusableKey("its kty is none of RSA, EC and OKP")
    if not _PRIVATE_PARTS.isdisjoint(jwk):
        raise UnusableKey("it has private parts")
    if not _is_to_verify(jwk):
        raise UnusableKey("it is not for verifying signatures")
    fitting = _fitting(jwk) & algorithms
    if not fitting:
        raise UnusableKey("it fits none of AUTH_ALGORITHMS")
    return Key(kid, fitting, _public(jwk))


def _is_to_verify(jwk: Mapping[str, Any]) -> bool:
    operations = jwk.get("key_ops")
    verifies = operations is None or (isinstance(operations, list) and "verify" in operations)
    return jwk.get("use") in (None, "sig") and verifies


def _fitting(jwk: Mapping[str, Any]) -> frozenset[str]:
    """The algorithms of a key's type and curve, or the one of them that it says it is for."""
    curve = jwk.get("crv")
    known = _RSA if jwk["kty"] == "RSA" else _BY_CURVE.get(curve, ()) if isinstance(curve, str) else ()
    if (jwk["kty"] == "OKP") != (known == ("EdDSA",)):
        return frozenset()
    return frozenset(each for each in known if jwk.get("alg") in (None, each))


def _public(jwk: Mapping[str, Any]) -> Any:
    from jwt import InvalidKeyError
    from jwt.algorithms import get_default_algorithms

    name = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[jwk["kty"]]
    try:
        public: Any = get_default_algorithms()[name].from_jwk(dict(jwk))
    except (InvalidKeyError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise UnusableKey("it cannot be read") from None
    if jwk["kty"] == "RSA" and public.key_size < _SMALLEST_RSA:
        raise UnusableKey(f"it is RSA of less than {_SMALLEST_RSA:,} bits")
    return public
