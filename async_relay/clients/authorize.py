"""The $connect authorizer: lets in who has a good token, and says until when and for which tenants.

Rules
- The policy is for exactly the one call that API Gateway asks about.
- No token, or a bad one: ``Exception("Unauthorized")``, which API Gateway answers with 401. A good one without the
  scope, or an Origin that is not listed: a Deny, 403. Keys that cannot be had: any other error, 500.
- The context is a contract (``expiresAt``, ``tenants``), flat and of text, since API Gateway takes nothing else.
- Reasons are logged, and nothing of a token.

Source: API Gateway Developer Guide, "Output from an API Gateway Lambda authorizer"; its quotas for the 8 KB.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from ..errors import RelayError
from ..settings import Settings
from .events import is_origin_listed
from .refusals import BadToken
from .tokens import Identity, Verifier, find_token

_log = logging.getLogger("async_relay")

Policy = dict[str, Any]
# Bytes; API Gateway's 8 KB may be 8,000.
_LARGEST_RESULT = 8_000
# A policy for a name with one of these is one for many calls.
_WILDCARD = re.compile(r"[*?]")


async def authorize(event: Any, verifier: Verifier, settings: Settings, now: float) -> Policy:
    """The policy for a client that wants to connect; raises ``Exception("Unauthorized")`` or ``KeysUnavailable``."""
    method = _method(event)
    identity = await _identify(event, verifier, settings, now)
    if not identity.in_scope:
        return _deny(identity, method, "the token lacks the scope")
    if not is_origin_listed(event, settings.auth_origins):
        return _deny(identity, method, "the Origin is not one of AUTH_ORIGINS")
    policy = _policy("Allow", identity, method) | {"context": _context(identity, settings)}
    if len(json.dumps(policy)) >= _LARGEST_RESULT:
        return _deny(identity, method, "the token names more tenants than API Gateway takes from an authorizer")
    return policy


async def _identify(event: Any, verifier: Verifier, settings: Settings, now: float) -> Identity:
    try:
        return await verifier.verify(find_token(event, in_query=settings.auth_query_token), now)
    except BadToken as reason:
        _log.info("nobody is let in with this token: %s", reason)
        # API Gateway compares the message, and answers with 401.
        raise Exception("Unauthorized") from None  # noqa: TRY002


def _method(event: Any) -> str:
    """The call that API Gateway asks about."""
    method = event.get("methodArn") if isinstance(event, Mapping) else None
    if not isinstance(method, str) or not method or _WILDCARD.search(method):
        raise RelayError("the event has no methodArn; this function belongs on a WebSocket API, as REQUEST authorizer")
    return method


def _context(identity: Identity, settings: Settings) -> dict[str, str]:
    context = {"expiresAt": str(identity.expires_at)}
    if settings.tenant_claim:
        context["tenants"] = json.dumps(sorted(identity.tenants), separators=(",", ":"))
    return context


def _policy(effect: str, identity: Identity, method: str) -> Policy:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": method}
    return {
        "principalId": identity.principal,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
    }


def _deny(identity: Identity, method: str, reason: str) -> Policy:
    _log.warning("somebody is refused: %s", reason)
    return _policy("Deny", identity, method)
