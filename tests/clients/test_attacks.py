"""Attacks on a closed door, by way of the sandbox: each is refused as it should be, and the log keeps nothing of it.

A sandbox over doubles in memory, with an issuer on this machine. ``test_tokens`` has the forged tokens one by one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from door import (
    METHOD,
    NOW,
    ORIGIN,
    FakeIssuer,
    an_issuer,
    answer,
    asking,
    claims,
    connecting,
    environ,
    jwk,
    sign,
    with_headers,
)

from async_relay.clients.refusals import KeysUnavailable
from async_relay.errors import SettingsError
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryServices, MemoryStore, MemoryTransport

TENANTS = {"TENANT_ATTRIBUTE": "tenant", "TENANT_CLAIM": "org"}
#: What no log may hold: parts of claims, payloads and tokens (every one of ours begins with the same letters).
SECRETS = ("s3cret", "mallory", "alice", "eyJ", "umbra", "acme")


class Stage:
    """A closed door, and everything that happens at it."""

    def __init__(self, issuer: FakeIssuer, **more: str) -> None:
        self.issuer = issuer
        self.now = [float(NOW)]
        self.rows, self.posts = MemoryStore(index=False), MemoryTransport()
        settings = Settings.from_env(environ(issuer.url, **more))
        self.sandbox = Sandbox(settings, MemoryServices(self.rows, self.posts), wall_clock=lambda: self.now[0])

    def token(self, **more: Any) -> str:
        return sign(claims(self.issuer.url, **more))

    async def effect(self, event: Any) -> str:
        """``Allow``, ``Deny``, ``Unauthorized`` or ``500``."""
        try:
            policy = await self.sandbox.on_authorize(event)
        except KeysUnavailable:
            return "500"
        except Exception as error:  # noqa: BLE001 - API Gateway looks at the message alone
            return str(error)
        (statement,) = policy["policyDocument"]["Statement"]
        assert statement["Resource"] == METHOD
        return str(statement["Effect"])

    async def connect(self, token: str, name: str = "a=") -> dict[str, Any]:
        """Come in as API Gateway lets in, with the context of the authorizer; the row."""
        said = await self.sandbox.on_authorize(connecting(token))
        context = {"principalId": said["principalId"], **said["context"]}
        event = connecting() | {"requestContext": {"connectionId": name, "authorizer": context}}
        assert (await self.sandbox.on_connect(event))["statusCode"] == 200
        return dict(self.rows.rows[name])

    async def ask(self, body: Any, name: str = "a=") -> list[Any]:
        before = len(self.posts.received[name])
        assert await self.sandbox.on_request(asking(body, name)) == {"statusCode": 200}
        return [json.loads(message.body) for message in self.posts.received[name][before:]]


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """All that is logged, by anybody, at any level, in any of these tests."""
    with caplog.at_level(logging.DEBUG):
        yield caplog
    said = [record.getMessage() + (record.exc_text or "") for record in caplog.get_records("call")]
    assert not [line for line in said if any(secret in line for secret in SECRETS)]


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with an_issuer() as issuer:
        yield issuer


def chars(text: str) -> Callable[[Stage], Any]:
    return lambda stage: connecting(stage.token(sub=f"alice{text}"))


ATTACKS: dict[str, tuple[Callable[[Stage], Any], str]] = {
    "no token": (lambda _stage: connecting(), "Unauthorized"),
    "expired": (lambda stage: connecting(stage.token(exp=NOW)), "Unauthorized"),
    "not yet valid": (lambda stage: connecting(stage.token(nbf=NOW + 61)), "Unauthorized"),
    "made in the future": (lambda stage: connecting(stage.token(iat=NOW + 61)), "Unauthorized"),
    "for ever": (lambda stage: connecting(stage.token(exp=None)), "Unauthorized"),
    "another issuer": (lambda stage: connecting(stage.token(iss="https://mallory.example")), "Unauthorized"),
    "an issuer with a slash": (lambda stage: connecting(stage.token(iss=f"{stage.issuer.url}/")), "Unauthorized"),
    "another audience": (lambda stage: connecting(stage.token(aud="mallory")), "Unauthorized"),
    "an ID token": (lambda stage: connecting(stage.token(token_use="id")), "Unauthorized"),
    "nobody": (lambda stage: connecting(stage.token(sub="")), "Unauthorized"),
    "another key": (lambda stage: connecting(sign(claims(stage.issuer.url), "other", kid="rsa")), "Unauthorized"),
    "an unknown key": (lambda stage: connecting(sign(claims(stage.issuer.url), "other")), "Unauthorized"),
    "its own key": (
        lambda stage: connecting(sign(claims(stage.issuer.url), "other", kid="rsa", jwk=jwk("other"))),
        "Unauthorized",
    ),
    "100 KB": (lambda stage: connecting(stage.token(x="s3cret" * 17_000)), "Unauthorized"),
    "a line in the name": (chars("\r\nX: s3cret"), "Unauthorized"),
    "half a letter": (chars("\ud800"), "Unauthorized"),
    "a name in every script": (chars(" Ünïcødé 名 😀"), "Allow"),
    "a thousand subprotocols": (
        lambda _stage: with_headers(("Sec-WebSocket-Protocol", ",".join(f"s3cret{each}" for each in range(1_000)))),
        "Unauthorized",
    ),
    "a thousand tokens": (
        lambda stage: with_headers(
            ("Sec-WebSocket-Protocol", ",".join(f"bearer.{stage.token()}x{each}" for each in range(1_000)))
        ),
        "Unauthorized",
    ),
    "two tokens": (
        lambda stage: with_headers(("Authorization", f"Bearer {stage.token()}"), ("Authorization", "Bearer x.y.z")),
        "Unauthorized",
    ),
    "in the query": (
        lambda stage: connecting(queryStringParameters={"access_token": stage.token()}),
        "Unauthorized",
    ),
    "in a cookie": (lambda stage: with_headers(("Cookie", f"access_token={stage.token()}")), "Unauthorized"),
    "a line in the token": (lambda stage: connecting(f"{stage.token()}\r\n"), "Unauthorized"),
    "no policy for all": (lambda stage: connecting(stage.token(), methodArn=METHOD), "Allow"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_who_may_not_come_in_does_not(issuer: FakeIssuer, name: str) -> None:
    attack, expected = ATTACKS[name]
    stage = Stage(issuer)
    assert await stage.effect(attack(stage)) == expected
    assert stage.rows.rows == {}


@pytest.mark.parametrize("origin", [f"{ORIGIN}.evil.example", ORIGIN.replace("app", "app-"), f"{ORIGIN} ", "null", ""])
async def test_an_origin_that_only_looks_right_is_denied(issuer: FakeIssuer, origin: str) -> None:
    """By the authorizer, and by $connect, should the authorizer be another's."""
    stage = Stage(issuer, AUTH_ORIGINS=ORIGIN)
    event = with_headers(("Authorization", f"Bearer {stage.token()}"), ("oRIGIN", origin))
    assert await stage.effect(event) == "Deny"
    event["requestContext"]["authorizer"] = {"principalId": "alice"}
    assert await stage.sandbox.on_connect(event) == {"statusCode": 403}
    assert stage.rows.rows == {}


async def test_the_scope_is_asked_for_at_the_door_and_in_refresh(issuer: FakeIssuer) -> None:
    stage = Stage(issuer, AUTH_SCOPE="relay/read")
    assert await stage.effect(connecting(stage.token(scope="relay/readx"))) == "Deny"
    await stage.connect(stage.token(scope="relay/read"))
    answers = await stage.ask({"action": "refresh", "access_token": stage.token(exp=NOW + 9_000)})
    assert answers == [{"kind": "error", "message": "The token lacks the scope."}]
    assert stage.rows.rows["a="]["expiresAt"] == NOW + 3_600


async def test_a_flood_of_unknown_keys_is_one_fetch_in_ten_seconds(issuer: FakeIssuer) -> None:
    """At the door and in refresh together, since they share the keys."""
    stage = Stage(issuer)
    await stage.connect(stage.token())
    for second in range(20):
        stage.now[0] = NOW + 10.0 + second
        for number in range(10):
            kid = f"s3cret-{second}-{number}"
            assert await stage.effect(connecting(sign(claims(issuer.url), "other", kid=kid))) == "Unauthorized"
            await stage.ask({"action": "refresh", "access_token": sign(claims(issuer.url), "other", kid=kid)})
    assert issuer.asked == {"/.well-known/openid-configuration": 1, "/keys": 3}


async def test_an_issuer_that_is_down_lets_nobody_in(issuer: FakeIssuer) -> None:
    """Not even who was right: 500, and a second later it is asked again."""
    stage = Stage(issuer)
    issuer.answers["/keys"] = answer({"keys": []}, 503)
    assert await stage.effect(connecting(stage.token())) == "500"
    assert await stage.effect(connecting("s3cret")) == "Unauthorized"
    del issuer.answers["/keys"]
    assert await stage.effect(connecting(stage.token())) == "500"
    stage.now[0] += 1
    assert await stage.effect(connecting(stage.token())) == "Allow"


async def test_an_issuer_that_is_silent_is_waited_for_until_the_deadline(issuer: FakeIssuer) -> None:
    stage = Stage(issuer)
    issuer.delay = 60

    class Context:
        def get_remaining_time_in_millis(self) -> int:
            return 300

    with pytest.raises(KeysUnavailable, match="in time"):
        await stage.sandbox.on_authorize(connecting(stage.token()), Context())


async def test_a_client_that_came_past_no_authorizer_is_refused(issuer: FakeIssuer) -> None:
    """Whatever it brings: a token that nobody has looked at is none."""
    stage = Stage(issuer)
    assert await stage.sandbox.on_connect(connecting(stage.token())) == {"statusCode": 401}
    assert stage.rows.rows == {}


async def test_the_token_is_neither_answered_nor_kept(issuer: FakeIssuer) -> None:
    """It travels among the subprotocols, and none of it comes back or goes into the row."""
    stage = Stage(issuer)
    token = stage.token()
    event = with_headers(("Sec-WebSocket-Protocol", f"async-relay.v2, bearer.{token}"))
    policy = await stage.sandbox.on_authorize(event)
    event["requestContext"]["authorizer"] = {"principalId": policy["principalId"], **policy["context"]}
    event["queryStringParameters"] = {"access_token": token}
    said = await stage.sandbox.on_connect(event)
    assert said == {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "async-relay.v2"}}
    assert not [part for part in token.split(".") if part in f"{policy}{said}{stage.rows.rows}"]


async def test_a_closed_connection_s_id_opens_nothing(issuer: FakeIssuer) -> None:
    """Who replays it finds no row, is told so once, and is closed."""
    stage = Stage(issuer)
    await stage.connect(stage.token())
    await stage.sandbox.on_disconnect(connecting())
    for body in ({"action": "ping"}, {"action": "refresh", "access_token": stage.token()}):
        stage.posts.disconnected.clear()
        assert await stage.ask(body) == [{"kind": "error", "message": "Nobody knows this connection; connect again."}]
        assert stage.posts.disconnected == {"a="}
    assert stage.rows.rows == {}


async def test_refresh_lets_the_same_principal_stay(issuer: FakeIssuer) -> None:
    """With the new token's end and tenants; a tenant taken away is taken."""
    stage = Stage(issuer, **TENANTS)
    row = await stage.connect(stage.token(org=["acme", "umbra"]))
    assert (row["expiresAt"], row["tenants"]) == (NOW + 3_600, {"acme", "umbra"})
    answers = await stage.ask({"action": "refresh", "access_token": stage.token(exp=NOW + 7_200.5, org="acme")})
    assert answers == [{"kind": "refreshed", "expiresAt": NOW + 7_200}]
    assert stage.rows.rows["a="] == row | {"expiresAt": NOW + 7_200, "tenants": {"acme"}}
    assert await stage.ask({"action": "refresh", "access_token": stage.token(exp=NOW + 7_300)})
    assert "tenants" not in stage.rows.rows["a="]


async def test_refresh_leaves_tenants_alone_that_no_token_brings(issuer: FakeIssuer) -> None:
    """Without TENANT_CLAIM somebody else wrote them; a new token says nothing about them."""
    stage = Stage(issuer, TENANT_ATTRIBUTE="org")
    await stage.connect(stage.token())
    stage.rows.rows["a="] = {**stage.rows.rows["a="], "tenants": frozenset({"acme"})}
    await stage.ask({"action": "refresh", "access_token": stage.token(exp=NOW + 7_200)})
    assert stage.rows.rows["a="]["expiresAt"] == NOW + 7_200
    assert stage.rows.rows["a="]["tenants"] == {"acme"}


async def test_refresh_takes_nobody_else_s_token_and_no_bad_one(issuer: FakeIssuer) -> None:
    stage = Stage(issuer, **TENANTS)
    row = await stage.connect(stage.token(org=["acme"]))
    others = {"kind": "error", "message": "The token is for somebody else than this connection."}
    assert await stage.ask({"action": "refresh", "access_token": stage.token(sub="mallory", org=["*"])}) == [others]
    bad: list[Any] = [
        stage.token(exp=NOW),
        stage.token(aud="x"),
        sign(claims(issuer.url), "other", kid="rsa"),
        "s3cret",
        None,
        5,
        {},
    ]
    for token in bad:
        answers = await stage.ask({"action": "refresh", "access_token": token})
        assert answers == [{"kind": "error", "message": "The token is not good."}]
    assert stage.rows.rows["a="] == row


async def test_refresh_waits_for_no_issuer_that_is_down(issuer: FakeIssuer) -> None:
    stage = Stage(issuer)
    await stage.connect(stage.token())
    issuer.answers["/keys"] = answer({}, 503)
    stage.now[0] += 10
    token = sign(claims(issuer.url), "other")
    answers = await stage.ask({"action": "refresh", "access_token": token})
    assert answers == [{"kind": "error", "message": "Nobody can answer now; ask again later."}]


async def test_nobody_outstays_a_token(issuer: FakeIssuer) -> None:
    """Past its end a client is closed, and not answered; nor can it refresh."""
    stage = Stage(issuer)
    await stage.connect(stage.token(exp=NOW + 60))
    stage.now[0] = NOW + 59.9
    assert await stage.ask({"action": "ping"}) == [{"type": "pong"}]
    stage.now[0] = NOW + 60.0
    assert await stage.ask({"action": "refresh", "access_token": stage.token()}) == []
    assert stage.posts.disconnected == {"a="}
    assert stage.rows.rows == {}


@pytest.mark.parametrize(
    "more", [{"AUTH_MODE": "none"}, {"AUTHORIZER_ARN": "arn:aws:lambda:eu-west-1:123456789012:function:f"}]
)
async def test_an_authorizer_without_an_issuer_lets_nobody_in(more: dict[str, str]) -> None:
    """A function that was attached where it should not be must not stand open."""
    found = {
        "WS_ENDPOINT": "https://ws.example.com/prod",
        "CONNECTIONS_TABLE": "connections",
        "AUTH_MODE": "jwt",
        **more,
    }
    sandbox = Sandbox(Settings.from_env(found), MemoryServices())
    with pytest.raises(SettingsError, match="nobody is let in here"):
        await sandbox.on_authorize(connecting("a.b.c"))


async def test_the_authorizer_opens_neither_table_nor_transport(issuer: FakeIssuer) -> None:
    """Its role has no rights to either."""
    stage = Stage(issuer)

    async def forbidden() -> Any:
        raise AssertionError("opened")

    stage.sandbox._services.store = forbidden  # type: ignore[method-assign]
    stage.sandbox._services.transport = forbidden  # type: ignore[method-assign]
    assert await stage.effect(connecting(stage.token())) == "Allow"
