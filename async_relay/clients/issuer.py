"""The issuer of tokens: where its keys are, by OpenID Connect Discovery or as ``AUTH_JWKS_URL`` says.

Rules
- The document must name exactly the issuer that was asked: else another could speak for it.
- The keys are read over TLS or from this machine, as the issuer is.
- Where the keys are is asked once, and again after they could not be had there.

Source: OpenID Connect Discovery 1.0, sections 4.1 to 4.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..http.urls import is_private
from .https_get import get_json
from .refusals import KeysUnavailable

Get = Callable[[str], Awaitable[Any]]


class Issuer:
    """Who makes the tokens, by the URL that ``iss`` holds."""

    def __init__(self, url: str, jwks_url: str | None = None, get: Get = get_json) -> None:
        """``jwks_url`` of None: as the issuer's discovery document says."""
        self.url = url
        self._jwks_url = jwks_url
        self._found: str | None = None
        self._get = get

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<issuer {self.url}>"

    async def keys(self) -> Any:
        """The key set, as JSON has it; raises ``KeysUnavailable``."""
        if self._found is None:
            self._found = self._jwks_url or await self._discover()
        try:
            return await self._get(self._found)
        except KeysUnavailable:
            self._found = None
            raise

    async def _discover(self) -> str:
        where = f"{self.url.rstrip('/')}/.well-known/openid-configuration"
        document = await self._get(where)
        if not isinstance(document, dict) or document.get("issuer") != self.url:
            raise KeysUnavailable(f"{where} does not name the issuer that AUTH_ISSUER names, {self.url}")
        found = document.get("jwks_uri")
        # Some issuers have a query there (Azure AD B2C: ?p=policy).
        if not isinstance(found, str) or not found.isprintable() or not is_private(found.partition("?")[0]):
            raise KeysUnavailable(f"{where} names no https:// URL of keys")
        return found
