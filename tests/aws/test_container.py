"""Credentials from the container endpoint: asked for once, kept while they are good, else left to the SDK."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from container_endpoint import FULL, GIVEN, HOUR, NOON, PLAIN, TOKEN, answer, document, serving
from transports import CREDENTIALS, opened, post

from async_relay.aws import Aws, container, environment
from async_relay.aws.container import ContainerCredentials
from async_relay.aws.environment import Container
from async_relay.http.sigv4 import Credentials
from async_relay.testing import Answer, Cut, Drip, Garbage, Gateway, Half, Hang
from async_relay.testing.scripts import Script

SECRETS = (TOKEN, "of-the-sandbox", CREDENTIALS.secret_key, str(CREDENTIALS.token))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever happens."""
    logger = logging.getLogger("async_relay")
    logger.handlers, logger.propagate = [], True
    caplog.set_level(logging.DEBUG)
    yield
    logged = "\n".join(each.getMessage() for each in caplog.get_records("call"))
    assert not [secret for secret in SECRETS if secret in logged]


async def test_credentials_are_handed_out_to_who_has_the_token(clock: Clock) -> None:
    """All of them, over one request, whose socket is closed."""
    async with serving(answer()) as endpoint:
        found = await ContainerCredentials(endpoint.environ, clock).current()
        assert found == CREDENTIALS
        assert endpoint.asked == [endpoint.environ[FULL].split("/")[2]]


@pytest.mark.parametrize("token", [None, "Bearer of-another", ""])
async def test_without_the_right_token_there_are_none(clock: Clock, token: str | None) -> None:
    """A 403 that quotes the request is the SDK's matter, and quoted nowhere."""
    async with serving(answer()) as endpoint:
        environ = {name: value for name, value in endpoint.environ.items() if name != GIVEN}
        assert await ContainerCredentials(environ | ({} if token is None else {GIVEN: token}), clock).current() is None
        assert (endpoint.asked, endpoint.refused) == ([], token != "")


NOT_GOOD: dict[str, Script] = {
    "500 with a good document": Answer(500, body=json.dumps(document()).encode()),
    "404 that quotes": Answer(404, body=f"not for {TOKEN}".encode()),
    "elsewhere": Answer(301, headers=(("Location", "http://127.0.0.1/"),)),
    "nothing": Answer(200, body=b""),
    "204": Answer(204),
    "an array": Answer(body=b"[]"),
    "half a document": Answer(body=b'{"AccessKeyId": "A"'),
    "nested deep": Answer(body=b"[" * 10_000),
    "huge": Answer(body=json.dumps(document(Extra="x" * 1_000_000)).encode()),
    "no key": answer(AccessKeyId=None),
    "no secret": answer(SecretAccessKey=None),
    "no token": answer(Token=None),
    "no end": answer(Expiration=None),
    "a number": answer(AccessKeyId=7),
    "an empty token": answer(Token=""),
    "a header more": answer(Token="t\r\nX-Injected: yes"),
    "a key with a space": answer(AccessKeyId="AK ID"),
    "no time": answer(Expiration="soon"),
    "no zone": answer(Expiration="2026-05-01T18:00:00"),
    "seconds": answer(Expiration=NOON + HOUR),
    "ends now": answer(expires=NOON),
    "has ended": answer(expires=NOON - 1),
    "garbage": Garbage(),
    "half an answer": Half(),
    "cut": Cut(),
    "reset": Cut(reset=True),
    "hangs": Hang(),
    "drips": Drip(pause=0.05),
}


@pytest.mark.parametrize("said", NOT_GOOD)
async def test_whatever_else_it_says_is_the_sdks(
    clock: Clock, said: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the deadline, after one request; the log says so once, and the endpoint is asked no more."""
    if said in ("hangs", "drips"):
        monkeypatch.setattr(container, "_TIMEOUT", 0.2)
    async with serving(NOT_GOOD[said], answer()) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        assert await asyncio.gather(*(credentials.current() for _ in range(5))) == [None] * 5
        clock.now += 10 * HOUR
        assert await credentials.current() is None
        assert len(endpoint.asked) == 1
    assert [each.message for each in caplog.records].count("credentials are left to the SDK") == 1


async def test_where_nobody_listens_it_is_the_sdks(clock: Clock) -> None:
    """A refused connection."""
    async with serving(answer()) as endpoint:
        environ = endpoint.environ
    assert await ContainerCredentials(environ, clock).current() is None


async def test_many_at_once_ask_once(clock: Clock) -> None:
    """And again once the credentials have to be renewed."""
    first, second = answer(NOON + HOUR), answer(NOON + 9 * HOUR, AccessKeyId="NEXT")
    async with serving(first, second) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        assert await asyncio.gather(*(credentials.current() for _ in range(50))) == [CREDENTIALS] * 50
        clock.now += HOUR - 900
        found = await asyncio.gather(*(credentials.current() for _ in range(50)))
        assert {each.access_key for each in found if each} == {"NEXT"}
        assert len(endpoint.asked) == 2


async def test_they_are_kept_until_a_quarter_of_an_hour_before_their_end(clock: Clock) -> None:
    """The longest an invocation lasts, which signs with what it began with."""
    async with serving(answer(NOON + HOUR), answer(NOON + 9 * HOUR)) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        kept = await credentials.current()
        clock.now += HOUR - 901
        assert await credentials.current() is kept
        assert len(endpoint.asked) == 1
        clock.now += 2
        assert await credentials.current() is not kept
        assert len(endpoint.asked) == 2


@pytest.mark.parametrize("said", ["204", "garbage", "hangs", "has ended", "no token"])
async def test_good_ones_outlive_a_renewal_that_fails(clock: Clock, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To their end, with a request every half minute; then the SDK is asked."""
    async with serving(answer(NOON + HOUR), NOT_GOOD[said]) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        await credentials.current()
        if said == "hangs":
            monkeypatch.setattr(container, "_TIMEOUT", 0.1)
        clock.now += HOUR - 100
        assert [await credentials.current() for _ in range(3)] == [CREDENTIALS] * 3
        assert len(endpoint.asked) == 2
        clock.now += 31
        assert await credentials.current() == CREDENTIALS
        assert len(endpoint.asked) == 3
        clock.now += 69
        assert await credentials.current() is None


async def test_a_renewal_that_failed_once_is_tried_again(clock: Clock) -> None:
    """And what it brings then is taken."""
    async with serving(answer(NOON + HOUR), Answer(500), answer(NOON + 9 * HOUR, AccessKeyId="NEXT")) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        for step, expected in ((0, "AKIDEXAMPLE"), (HOUR - 100, "AKIDEXAMPLE"), (31, "NEXT"), (7 * HOUR, "NEXT")):
            clock.now += step
            found = await credentials.current()
            assert found is not None
            assert found.access_key == expected


async def test_credentials_that_end_soon_are_not_asked_for_at_every_call(clock: Clock) -> None:
    """They serve for half a minute at a time, and never after their end."""
    async with serving(answer(NOON + 40), answer(NOON + 40), answer(NOON + 50), answer(NOON + HOUR)) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        asked = []
        for now in (0, 1, 29, 30, 39, 40, 49, 50):
            clock.now = NOON + now
            assert await credentials.current() == CREDENTIALS
            asked.append(len(endpoint.asked))
        assert asked == [1, 1, 1, 2, 2, 3, 3, 4]


async def test_one_who_gives_up_costs_the_others_nothing(clock: Clock) -> None:
    """The one whose request hangs is cancelled; the next one asks, and everybody else gets what it brings."""
    async with serving(Hang(), answer()) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        first = asyncio.create_task(credentials.current())
        await endpoint.arrived.wait()
        others = [asyncio.create_task(credentials.current()) for _ in range(3)]
        await asyncio.sleep(0)
        others[0].cancel()
        first.cancel()
        found = await asyncio.gather(first, *others, return_exceptions=True)
        assert [type(each) for each in found[:2]] == [asyncio.CancelledError] * 2
        assert found[2:] == [CREDENTIALS] * 2
        assert len(endpoint.asked) == 2


async def test_another_endpoint_is_asked_anew(clock: Clock) -> None:
    """A restored sandbox finds another environment than the one that was snapshotted."""
    async with serving(answer()) as before, serving(answer(AccessKeyId="RESTORED")) as after:
        environ = dict(before.environ)
        credentials = ContainerCredentials(environ, clock)
        assert await credentials.current() == CREDENTIALS
        environ |= after.environ
        found = await credentials.current()
        assert found is not None
        assert found.access_key == "RESTORED"
        del environ[FULL]
        assert await credentials.current() is None


async def test_nothing_shows_a_secret(clock: Clock) -> None:
    """Neither what is asked nor what came of it."""
    async with serving(answer()) as endpoint:
        credentials = ContainerCredentials(endpoint.environ, clock)
        shown = repr(credentials)
        await credentials.current()
        shown += repr(credentials) + repr(credentials._held) + repr(environment.container(endpoint.environ))
        assert not [secret for secret in SECRETS if secret in shown]


# ── the session ─────────────────────────────────────────────────────────────────────────────────


class NoSdk(Aws):
    async def sdk(self) -> Any:
        raise AssertionError("the SDK is asked")


async def test_a_post_is_signed_with_them() -> None:
    """By a gateway that checks signatures, and without the SDK."""
    later = datetime.now(UTC).timestamp() + HOUR
    async with serving(answer(later)) as endpoint, Gateway(credentials=CREDENTIALS) as gateway:
        async with opened("direct", gateway.endpoint, "", credentials=NoSdk(endpoint.environ).credentials) as transport:
            assert await post(transport, "a=", b"one") is None
        assert gateway.received["a="] == [b"one"]


async def test_the_environments_keys_come_first() -> None:
    """As botocore has it, where both are set; the endpoint hears nothing."""
    async with serving(answer()) as endpoint:
        keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
        assert await NoSdk(endpoint.environ | keys).credentials() == Credentials("AKID", "secret")
        assert endpoint.asked == []


async def test_the_sdk_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left to it, it does: the same endpoint, asked by botocore, gives the same credentials."""
    later = datetime.now(UTC).timestamp() + HOUR
    async with serving(Answer(500), answer(later)) as endpoint:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
        for name, value in endpoint.environ.items():
            monkeypatch.setenv(name, value)
        aws = Aws(endpoint.environ | {"AWS_REGION": "eu-west-1"})
        assert await aws.credentials() == CREDENTIALS
        assert len(endpoint.asked) == 2
        assert await aws.credentials() == CREDENTIALS
        assert len(endpoint.asked) == 2
        await aws.close()


# ── which endpoint may be asked ─────────────────────────────────────────────────────────────────

GOOD = "http://127.0.0.1:9001/credentials"


@pytest.mark.parametrize(
    "url",
    [
        GOOD,
        "http://127.0.0.1",
        "http://127.8.8.8:1/a?b=c",
        "http://localhost:9001/a",
        "http://169.254.170.2/a",
        "http://169.254.170.23/v1/credentials",
        "http://[::1]:9001/a",
        "http://[fd00:ec2::23]/v1/credentials",
    ],
)
def test_these_hosts_may_hand_out_credentials(url: str) -> None:
    """Those botocore takes, over plain HTTP."""
    assert environment.container({**PLAIN, FULL: url, GIVEN: TOKEN}) == Container(url, TOKEN)
    assert environment.container({**PLAIN, FULL: url}) == Container(url, None)
    _botocore()._validate_allowed_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "http:///a",
        "http://169.254.169.254/a",
        "http://10.0.0.1/a",
        "http://127.0.0.1.example.com/a",
        "http://localhost.example.com/a",
        "http://127.0.0.1@example.com/a",
        "http://example.com#@127.0.0.1/",
        "http://user@127.0.0.1/a",
        "http://[::2]/a",
        "http://[::1/a",
        "http://127.0.0.1:99999/a",
        "http://127.0.0.1:x/a",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/a\r\nX: y",
        "http://127.0.0.1/\u00e9",
        "https://127.0.0.1/a",
        "ftp://127.0.0.1/a",
        "/a",
    ],
)
def test_any_other_is_the_sdks(url: str) -> None:
    """Our token goes nowhere else, and nothing is added to the request."""
    assert environment.container({**PLAIN, FULL: url, GIVEN: TOKEN}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/a"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ""},
        {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/token"},
        {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": ""},
        {GIVEN: "Bearer a\r\nX: y"},
        {GIVEN: "Bearer a\n"},
        {GIVEN: "Bearer \u00e9"},
        {GIVEN: ""},
        {"AWS_ACCESS_KEY_ID": "AKID"},
        {"AWS_PROFILE": "other"},
        {"AWS_DEFAULT_PROFILE": "other"},
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
        {"AWS_CREDENTIAL_FILE": "/keys"},
        {"BOTO_CONFIG": "/boto"},
        {"AWS_CONFIG_FILE": __file__},
        {"AWS_SHARED_CREDENTIALS_FILE": __file__},
    ],
    ids=str,
)
def test_what_comes_before_the_container_is_the_sdks(more: Mapping[str, str]) -> None:
    """Another way to ask it, a token that is no header's value, and all that botocore looks at before it."""
    assert environment.container({**PLAIN, FULL: GOOD, GIVEN: TOKEN, **more}) is None


def test_the_file_of_keys_is_looked_for_where_the_sdk_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """~/.aws/credentials, where no other is named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.container({FULL: GOOD}) == Container(GOOD)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("")
    assert environment.container({FULL: GOOD}) is None


@pytest.mark.parametrize("keys", [{}, {"AWS_SECRET_ACCESS_KEY": "secret"}], ids=str)
def test_botocore_asks_it_too_where_we_do(
    keys: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its chain of providers, with the same environment, comes to the container."""
    from botocore import credentials, session, utils

    asked: list[tuple[str, Any]] = []

    def retrieve(_self: Any, url: str, headers: Any = None) -> dict[str, Any]:
        asked.append((url, headers))
        return document(NOON + 100 * 365 * 24 * HOUR)

    monkeypatch.setattr(utils.ContainerMetadataFetcher, "retrieve_full_uri", retrieve)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    environ = {**PLAIN, FULL: GOOD, GIVEN: TOKEN, **keys}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert environment.container(environ) == Container(GOOD, TOKEN)
    found = credentials.create_credential_resolver(session.Session()).load_credentials()
    assert found is not None
    assert (found.access_key, found.secret_key, found.token) == (
        CREDENTIALS.access_key,
        CREDENTIALS.secret_key,
        CREDENTIALS.token,
    )
    assert asked == [(GOOD, {"Authorization": TOKEN})]


def _botocore() -> Any:
    from botocore.utils import ContainerMetadataFetcher

    return ContainerMetadataFetcher()
