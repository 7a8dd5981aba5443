"""When a client's token ends."""

from __future__ import annotations

import base64
import json

import pytest

from async_relay.client.tokens import expiry


@pytest.mark.parametrize("more", ["", "a", "ab", "abc", "ÿ?>~"])
def test_a_token_says_when_it_ends(more: str) -> None:
    """However long it is, and whatever characters its base64 has."""
    payload = json.dumps({"exp": 1_700_000_000, "sub": more}, ensure_ascii=False).encode()
    assert expiry(f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.x") == 1_700_000_000


@pytest.mark.parametrize("token", [None, "", "opaque", "a.b.c", "e30.e30.x", "e30.W10.x", "e30.eyJleHAiOiJ4In0.x"])
def test_other_tokens_say_nothing(token: str | None) -> None:
    """They end when the server says so."""
    assert expiry(token) is None
