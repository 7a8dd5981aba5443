"""When a token ends, if it is a JWT. Nothing is checked: that is the server's."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode


def expiry(token: str | None) -> float | None:
    """The second in which a token ends, if it says so."""
    try:
        payload = (token or "").split(".")[1]
        return float(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]) or None
    except (IndexError, KeyError, TypeError, ValueError):
        return None
