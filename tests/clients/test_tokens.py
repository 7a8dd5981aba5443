"""Which tokens are good: found where they may be, made by the issuer, for us, now."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from door import AUDIENCE, NOW, FakeIssuer, an_issuer, claims, connecting, door, jwk, private, sign, with_headers
from hypothesis import given
from hypothesis import strategies as st

from async_relay.clients.refusals import BadToken
from async_relay.clients.tokens import LONGEST_TOKEN, Identity, Verifier, find_token
from async_relay.wire.rows import END_OF_TIME

# Newer releases of PyJWT refuse some of it themselves.
CRITICAL = "it calls critical what nobody here understands|its header cannot be read"


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with an_issuer() as issuer:
        yield issuer


async def verified(issuer: FakeIssuer, token: Any, now: float = NOW, **settings: str) -> Identity:
    return await Verifier(door(issuer.url, **settings), lambda: now).verify(token, now)


async def refusal(issuer: FakeIssuer, token: Any, now: float = NOW, **settings: str) -> str:
    with pytest.raises(BadToken) as error:
        await verified(issuer, token, now, **settings)
    return str(error.value)


# ── where it is ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer  ", "BEARER\t"])
def test_authorization_is_read_in_any_case(name: str, scheme: str) -> None:
    """The header's name and the scheme have no case (RFC 9110)."""
    assert find_token(with_headers((name, f"{scheme}T")), in_query=False) == "T"


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_subprotocol_carries_the_token_on_whichever_line(line: int) -> None:
    """A browser sends one line, a proxy may make several of it."""
    lines = [("Sec-WebSocket-Protocol", "async-relay.v2, chat"), ("sec-websocket-protocol", "x"), ("X", "bearer.no")]
    lines[line] = ("SEC-WebSocket-protocol", "async-relay.v1 ,bearer.T")
    assert find_token(with_headers(*lines), in_query=False) == "T"


def test_the_query_counts_only_where_the_settings_say_so() -> None:
    """URLs end up in logs."""
    event = connecting(queryStringParameters={"access_token": "T"})
    assert find_token(event, in_query=True) == "T"
    with pytest.raises(BadToken, match="there is none"):
        find_token(event, in_query=False)


def test_the_first_place_wins() -> None:
    """Authorization, then the subprotocols, then the query."""
    event = with_headers(("Authorization", "Bearer A"), ("Sec-WebSocket-Protocol", "bearer.B"))
    event |= {"queryStringParameters": {"access_token": "C"}}
    assert find_token(event, in_query=True) == "A"
    del event["headers"]["Authorization"], event["multiValueHeaders"]["Authorization"]
    assert find_token(event, in_query=True) == "B"


def test_two_tokens_in_one_place_are_none() -> None:
    """Whoever sits between could have checked the other one; the same twice is one."""
    for lines in (
        [("Authorization", "Bearer A"), ("Authorization", "Bearer B")],
        [("Authorization", "Bearer A"), ("authorization", "Bearer B")],
        [("Sec-WebSocket-Protocol", "bearer.A, bearer.B")],
    ):
        with pytest.raises(BadToken, match="several"):
            find_token(with_headers(*lines), in_query=False)
    assert find_token(with_headers(("Authorization", "Bearer A"), ("authorization", "Bearer A")), in_query=False) == "A"


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic QTpC", "Bearer a b", "xBearer a", "Bearer\na"])
def test_what_is_no_bearer_token_is_none(value: str) -> None:
    with pytest.raises(BadToken, match="there is none"):
        find_token(with_headers(("Authorization", value)), in_query=True)


# ── whether it is good ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("key", "algorithm"), [("rsa", "RS256"), ("ec", "ES256")])
async def test_a_good_token_names_somebody_until_its_end(issuer: FakeIssuer, key: str, algorithm: str) -> None:
    token = sign(claims(issuer.url), key, algorithm)
    assert await verified(issuer, token) == Identity("alice", NOW + 3_600, frozenset(), in_scope=True)


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", None])
async def test_the_usual_types_are_taken(issuer: FakeIssuer, typ: str | None) -> None:
    token = sign(claims(issuer.url), typ=typ)
    if typ is None:  # PyJWT would write one
        token = signed_by_hand({"alg": "RS256", "kid": "rsa"}, claims(issuer.url))
    assert (await verified(issuer, token)).principal == "alice"


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["x", AUDIENCE], "other"])
async def test_any_of_our_audiences_will_do(issuer: FakeIssuer, audience: Any) -> None:
    assert (await verified(issuer, sign(claims(issuer.url, aud=audience)))).principal == "alice"


async def test_an_access_token_of_cognito_has_a_client_id_instead(issuer: FakeIssuer) -> None:
    """No ``aud``, and ``token_use`` says access."""
    token = sign(claims(issuer.url, aud=None, client_id=AUDIENCE, token_use="access", scope="openid"))
    assert (await verified(issuer, token)).principal == "alice"


BAD_CLAIMS: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://other.example"}, "its issuer is another"),
    ({"iss": None}, "its issuer is another"),
    ({"iss": ["x"]}, "its issuer is another"),
    ({"aud": "relay "}, "it is for another audience"),
    ({"aud": "Relay"}, "it is for another audience"),
    ({"aud": []}, "it is for another audience"),
    ({"aud": [{"relay": 1}, 5]}, "it is for another audience"),
    ({"aud": {"relay": 1}}, "it is for another audience"),
    ({"aud": None}, "it is for another audience"),
    ({"aud": "x", "client_id": AUDIENCE}, "it is for another audience"),
    ({"aud": None, "client_id": [["relay"]]}, "it is for another audience"),
    ({"token_use": "id"}, "it is an ID token, and not one for access"),
    ({"exp": None}, "it has no exp that is a second"),
    ({"exp": str(NOW + 60)}, "it has no exp that is a second"),
    ({"exp": True}, "it has no exp that is a second"),
    ({"exp": float("inf")}, "it has no exp that is a second"),
    ({"exp": (NOW + 60) * 1_000}, "it has no exp that is a second"),
    ({"exp": float("nan")}, "it has no exp that is a second"),
    ({"exp": NOW}, "it has expired"),
    ({"exp": NOW - 1}, "it has expired"),
    ({"exp": NOW + 0.9}, "it has expired"),
    ({"exp": -(10**30)}, "it has expired"),
    ({"nbf": NOW + 61}, "its nbf is no time, or still to come"),
    ({"nbf": "now"}, "its nbf is no time, or still to come"),
    ({"iat": NOW + 61}, "its iat is no time, or still to come"),
    ({"iat": [NOW]}, "its iat is no time, or still to come"),
    ({"sub": None}, "it names nobody in sub"),
    ({"sub": ""}, "it names nobody in sub"),
    ({"sub": 7}, "it names nobody in sub"),
    ({"sub": "alice\r\nX: y"}, "it names nobody in sub"),
    ({"sub": "\ud800"}, "it names nobody in sub"),
    ({"sub": "é" * 513}, "it names nobody in sub"),
]


@pytest.mark.parametrize(("more", "reason"), BAD_CLAIMS, ids=[str(at) for at in range(len(BAD_CLAIMS))])
async def test_a_claim_that_is_wrong_is_refused(issuer: FakeIssuer, more: dict[str, Any], reason: str) -> None:
    assert await refusal(issuer, sign(claims(issuer.url, **more))) == reason


async def test_an_audience_of_null_is_no_missing_one(issuer: FakeIssuer) -> None:
    """Only a token without ``aud`` is looked at for ``client_id``."""
    payload = claims(issuer.url, client_id=AUDIENCE) | {"aud": None}
    assert await refusal(issuer, sign(payload)) == "it is for another audience"


@pytest.mark.parametrize("name", ["nbf", "iat"])
async def test_clocks_may_differ_by_a_minute_but_not_for_the_end(issuer: FakeIssuer, name: str) -> None:
    assert (await verified(issuer, sign(claims(issuer.url, **{name: NOW + 60})))).principal == "alice"
    token = sign(claims(issuer.url))
    assert (await verified(issuer, token, NOW + 3_599.9)).expires_at == NOW + 3_600
    assert await refusal(issuer, token, NOW + 3_600) == "it has expired"


@pytest.mark.parametrize(("until", "expires"), [(NOW + 9.9, NOW + 9), (END_OF_TIME, END_OF_TIME), (NOW + 1, NOW + 1)])
async def test_the_end_is_a_whole_second_of_this_era(issuer: FakeIssuer, until: float, expires: int) -> None:
    assert (await verified(issuer, sign(claims(issuer.url, exp=until)))).expires_at == expires


@pytest.mark.parametrize(
    ("more", "has"),
    [
        ({"scope": "openid relay/read"}, True),
        ({"scp": "relay/read"}, True),
        ({"scp": ["openid", "relay/read"]}, True),
        ({"scope": "openid", "scp": ["relay/read"]}, True),
        ({"scope": "relay/read2 xrelay/read"}, False),
        ({"scope": "RELAY/READ"}, False),
        ({"scope": {"relay/read": True}}, False),
        ({"scp": [["relay/read"]]}, False),
        ({}, False),
    ],
)
async def test_the_scope_is_one_of_the_words(issuer: FakeIssuer, more: dict[str, Any], has: bool) -> None:
    identity = await verified(issuer, sign(claims(issuer.url, **more)), AUTH_SCOPE="relay/read")
    assert identity.in_scope is has


@pytest.mark.parametrize(
    ("value", "tenants"),
    [
        ("acme", {"acme"}),
        (["acme", "umbra", "acme"], {"acme", "umbra"}),
        (["acme", 7, 1.5], {"acme", "7", "1.5"}),
        ("*", {"*"}),
        ([], set()),
        ("", set()),
        (7, set()),
        ({"acme": 1}, set()),
        (["acme", None], set()),
        (["acme", True], set()),
        (["acme", ["umbra"]], set()),
        (["acme", ""], set()),
        (["acme", "\ud800"], set()),
        (None, set()),
    ],
)
async def test_tenants_are_a_text_or_a_list_and_nothing_odd(issuer: FakeIssuer, value: Any, tenants: set[str]) -> None:
    token = sign(claims(issuer.url, **{"https://x/t": value}))
    found = await verified(issuer, token, TENANT_ATTRIBUTE="tenant", TENANT_CLAIM="https://x/t")
    assert found.tenants == tenants


# ── what it says of itself ──────────────────────────────────────────────────────────────────────


def segment(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed_by_hand(header: Any, payload: Any, key: str = "rsa") -> str:
    """A token whose header PyJWT would not write."""
    text = f"{segment(header)}.{segment(payload)}"
    algorithm = jwt.get_algorithm_by_name("RS256")
    return f"{text}.{segment(algorithm.sign(text.encode(), private(key)))}"


async def test_a_secret_made_of_the_public_key_signs_nothing(issuer: FakeIssuer) -> None:
    """HS256 over the PEM that everybody can have, and over the modulus."""
    pem = private("rsa").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{segment({'alg': 'HS256', 'kid': 'rsa'})}.{segment(claims(issuer.url))}"
    for secret in (pem, jwk("rsa")["n"].encode(), b""):
        forged = f"{text}.{segment(jwt.get_algorithm_by_name('HS256').sign(text.encode(), secret))}"
        assert await refusal(issuer, forged) == "its algorithm is none of AUTH_ALGORITHMS"
    assert issuer.asked == {}


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS256", "RS512", "PS256", "rs256", None, 5, ["RS256"]]
)
async def test_only_the_algorithms_of_the_settings_count(issuer: FakeIssuer, algorithm: Any) -> None:
    token = signed_by_hand({"alg": algorithm, "kid": "rsa"}, claims(issuer.url))
    assert await refusal(issuer, token) == "its algorithm is none of AUTH_ALGORITHMS"
    unsigned = token.rpartition(".")[0] + "."
    assert await refusal(issuer, unsigned) == "it is no signed token of a size we read"


async def test_keys_in_the_token_are_nobodys(issuer: FakeIssuer) -> None:
    """``jwk``, ``jku`` and ``x5u`` bring a key of the attacker's: none is read, and no address asked."""
    header = {"alg": "RS256", "jwk": jwk("other"), "jku": f"{issuer.url}/evil", "x5u": f"{issuer.url}/evil"}
    for kid in ("rsa", "other", None):
        token = signed_by_hand({**header, **({"kid": kid} if kid else {})}, claims(issuer.url), "other")
        assert await refusal(issuer, token) in (
            "its signature is not the issuer's",
            "its key is not one of the issuer's",
        )
    assert "/evil" not in issuer.asked
    good = signed_by_hand({**header, "kid": "rsa"}, claims(issuer.url))
    assert (await verified(issuer, good)).principal == "alice"


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, CRITICAL),
        ({"crit": []}, CRITICAL),
        ({"crit": ["b64"], "b64": True}, CRITICAL),
        ({"typ": "id+jwt"}, "it is a token of another type"),
        ({"typ": "dpop+jwt"}, "it is a token of another type"),
        ({"typ": 5}, "it is a token of another type"),
        ({"kid": ["rsa"]}, "its header cannot be read"),
        ({"kid": "ec"}, "its key is for another algorithm"),
        ({"kid": "rsa "}, "its key is not one of the issuer's"),
    ],
)
async def test_a_header_that_is_odd_is_refused(issuer: FakeIssuer, header: dict[str, Any], reason: str) -> None:
    token = signed_by_hand({"alg": "RS256", "kid": "rsa", **header}, claims(issuer.url))
    assert re.fullmatch(reason, await refusal(issuer, token))


async def test_a_token_without_kid_needs_one_key_that_fits(issuer: FakeIssuer) -> None:
    token = signed_by_hand({"alg": "RS256"}, claims(issuer.url))
    assert (await verified(issuer, token)).principal == "alice"
    issuer.keys.append(jwk("other"))
    assert await refusal(issuer, token) == "it names no key, and the issuer has several"


async def test_a_token_that_was_changed_is_refused(issuer: FakeIssuer) -> None:
    """Its claims, its signature, or both of another key."""
    header, _, signature = sign(claims(issuer.url)).split(".")
    changed = f"{header}.{segment(claims(issuer.url, sub='admin'))}.{signature}"
    assert await refusal(issuer, changed) == "its signature is not the issuer's"
    assert await refusal(issuer, sign(claims(issuer.url), "other", kid="rsa")) == "its signature is not the issuer's"
    short = sign(claims(issuer.url), "ec", "ES256").rpartition(".")[0] + "." + segment(bytes(8))
    assert await refusal(issuer, short) == "its signature is not the issuer's"


@pytest.mark.parametrize("payload", [b"no JSON", b"[]", b"5", b"null", b"[" * 4_000, b"\xff\xfe", b'{"exp":1e999'])
async def test_claims_nobody_can_read_are_refused(issuer: FakeIssuer, payload: bytes) -> None:
    assert (await refusal(issuer, sign(payload))).startswith("its claims ")


async def test_a_token_larger_than_any_is_not_parsed(issuer: FakeIssuer) -> None:
    token = sign(claims(issuer.url, x="x" * 100_000))
    for large in (token, "a.b." + "c" * 100_000, "e30." * 30_000):
        assert len(large) > LONGEST_TOKEN
        assert await refusal(issuer, large) == "it is no signed token of a size we read"
    assert issuer.asked == {}


@pytest.mark.parametrize(
    "token", [None, 5, b"a.b.c", "", "a", "a.b", "a.b.c.d", "a.b.c\n", "é.b.c", "a.b.c ", {"a": 1}]
)
async def test_what_is_no_token_is_refused(issuer: FakeIssuer, token: Any) -> None:
    assert await refusal(issuer, token) == "it is no signed token of a size we read"


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: f"{segment(raw)}.{segment(raw)}.AA"))
async def test_any_text_is_refused_and_nothing_else_happens(token: str) -> None:
    """No text that nobody signed raises anything but the refusal, or asks anybody for keys."""
    with pytest.raises(BadToken):
        await Verifier(door("http://127.0.0.1:9"), lambda: NOW).verify(token, NOW)
