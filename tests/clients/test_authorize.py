"""The authorizer's answers: a policy for one call, 401, 403 or 500, and a context that API Gateway takes."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from door import METHOD, NOW, ORIGIN, FakeIssuer, an_issuer, answer, claims, connecting, door, sign

from async_relay.clients.authorize import authorize
from async_relay.clients.refusals import KeysUnavailable
from async_relay.clients.tokens import Verifier
from async_relay.errors import RelayError


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with an_issuer() as issuer:
        yield issuer


async def authorized(issuer: FakeIssuer, event: Any, **settings: str) -> dict[str, Any]:
    found = door(issuer.url, **settings)
    return await authorize(event, Verifier(found, lambda: NOW), found, NOW)


def policy(effect: str, resource: str = METHOD) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}


async def test_a_good_token_lets_in_for_this_one_call(issuer: FakeIssuer) -> None:
    assert await authorized(issuer, connecting(sign(claims(issuer.url)))) == {
        "principalId": "alice",
        "policyDocument": policy("Allow"),
        "context": {"expiresAt": str(NOW + 3_600)},
    }


async def test_tenants_are_json_in_a_text(issuer: FakeIssuer) -> None:
    """API Gateway takes no list in a context; a token without any has an empty list."""
    tenants = {"TENANT_ATTRIBUTE": "tenant", "TENANT_CLAIM": "org"}
    for value, text in ((["b", "a", 7], '["7","a","b"]'), (None, "[]"), ({"a": 1}, "[]")):
        found = await authorized(issuer, connecting(sign(claims(issuer.url, org=value))), **tenants)
        assert found["context"] == {"expiresAt": str(NOW + 3_600), "tenants": text}


@pytest.mark.parametrize("event", [connecting(), connecting("no token"), connecting("a.b.c"), connecting("é" * 9_000)])
async def test_without_a_good_token_it_raises_the_one_word(issuer: FakeIssuer, event: Any) -> None:
    """API Gateway compares the message, and answers with 401."""
    with pytest.raises(Exception, match=r"^Unauthorized$") as error:
        await authorized(issuer, event)
    assert type(error.value) is Exception
    assert error.value.__suppress_context__


async def test_a_good_token_without_the_scope_is_denied(issuer: FakeIssuer) -> None:
    found = await authorized(issuer, connecting(sign(claims(issuer.url, scope="x"))), AUTH_SCOPE="relay/read")
    assert found == {"principalId": "alice", "policyDocument": policy("Deny")}


async def test_an_origin_that_is_not_listed_is_denied(issuer: FakeIssuer) -> None:
    token = sign(claims(issuer.url))
    for origin, effect in ((None, "Allow"), (ORIGIN, "Allow"), ("https://evil.example", "Deny"), ("", "Deny")):
        event = connecting(token)
        if origin is not None:
            event["headers"]["Origin"] = origin
        found = await authorized(issuer, event, AUTH_ORIGINS=f"https://b.example, {ORIGIN}")
        assert found["policyDocument"] == policy(effect), origin


async def test_keys_that_cannot_be_had_are_no_unauthorized(issuer: FakeIssuer) -> None:
    """Any other error: API Gateway answers with 500, and the client comes again."""
    issuer.answers["/keys"] = answer({}, 503)
    with pytest.raises(KeysUnavailable):
        await authorized(issuer, connecting(sign(claims(issuer.url))))


@pytest.mark.parametrize("method", [None, "", 5, "*", "arn:aws:execute-api:eu-west-1:1:a/prod/*", "arn:?"])
async def test_a_call_that_is_none_gets_no_policy(issuer: FakeIssuer, method: Any) -> None:
    """Nobody is let in to more than the one call."""
    with pytest.raises(RelayError, match="REQUEST authorizer"):
        await authorized(issuer, connecting(sign(claims(issuer.url)), methodArn=method))
    with pytest.raises(RelayError, match="REQUEST authorizer"):
        await authorized(issuer, method)


@pytest.mark.parametrize("letter", ["x", "é", "😀", '"', "\\"])
async def test_the_answer_stays_under_eight_kilobytes(
    issuer: FakeIssuer, letter: str, caplog: pytest.LogCaptureFixture
) -> None:
    """More tenants than that are a Deny, and a line that says so and names none."""
    effects = set()
    tenants = {"TENANT_ATTRIBUTE": "tenant", "TENANT_CLAIM": "org"}
    with caplog.at_level(logging.INFO, "async_relay"):
        for count in (1, 10, 100, 300, 600, 1_000):
            value = [letter * 3 + str(number) for number in range(count)]
            token = sign(json.dumps(claims(issuer.url, org=value), ensure_ascii=False).encode())
            try:
                found = await authorized(issuer, connecting(token), **tenants)
            except Exception as refused:  # noqa: BLE001 - the token itself is too long then
                assert str(refused) == "Unauthorized"  # noqa: PT017
                continue
            assert len(json.dumps(found)) < 8_000
            effects.add(found["policyDocument"]["Statement"][0]["Effect"])
    assert "Allow" in effects
    assert letter * 3 not in caplog.text
    assert ("more tenants than API Gateway takes" in caplog.text) is ("Deny" in effects)
