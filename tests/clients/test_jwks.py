"""The issuer's keys: kept, asked for again no more often than they may be, and only those that can be used."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from door import clock_at, jwk, private

from async_relay.clients.jwks import KeySet, UnusableKey, read_key
from async_relay.clients.refusals import BadToken, KeysUnavailable

ALGORITHMS = frozenset({"RS256", "ES256"})


class Source:
    """Gives keys, or fails, and counts."""

    def __init__(self, *keys: Any) -> None:
        self.keys: list[Any] = list(keys)
        self.fetches = 0
        self.down = False
        self.delay = 0.0
        self.time = [1_000.0]
        self.set = KeySet(self.fetch, ALGORITHMS, clock_at(self.time))

    async def fetch(self) -> Any:
        self.fetches += 1
        await asyncio.sleep(self.delay)
        if self.down:
            raise KeysUnavailable("down")
        return {"keys": self.keys}

    async def has(self, kid: str | None, algorithm: str = "RS256") -> bool:
        try:
            return (await self.set.find(kid, algorithm)) is not None
        except BadToken:
            return False


async def test_keys_are_kept_for_ten_minutes() -> None:
    source = Source(jwk("rsa"))
    for seconds, fetches in ((0, 1), (599, 1), (600, 2), (1_199, 2), (1_200, 3)):
        source.time[0] = 1_000.0 + seconds
        assert await source.has("rsa")
        assert source.fetches == fetches


async def test_a_clock_that_was_set_back_keeps_no_key_for_longer() -> None:
    source = Source(jwk("rsa"))
    await source.has("rsa")
    source.time[0] = 500.0
    assert await source.has("rsa")
    assert source.fetches == 2


async def test_an_unknown_key_is_asked_for_once_in_ten_seconds() -> None:
    """However many tokens name one; then a new key is found without waiting for the ten minutes."""
    source = Source(jwk("rsa"))
    for kid in map(str, range(1_000)):
        assert not await source.has(kid)
    assert source.fetches == 1
    source.keys.append(jwk("ec"))
    source.time[0] += 9.9
    assert not await source.has("ec", "ES256")
    source.time[0] += 0.1
    assert await source.has("ec", "ES256")
    for kid in map(str, range(1_000)):
        assert not await source.has(kid)
    assert source.fetches == 2


async def test_tokens_at_once_make_one_fetch() -> None:
    """At the start, and where all name keys nobody has."""
    source = Source(jwk("rsa"))
    source.delay = 0.01
    assert all(await asyncio.gather(*(source.has("rsa") for _ in range(50))))
    assert source.fetches == 1
    source.time[0] += 10
    assert not any(await asyncio.gather(*(source.has(str(number)) for number in range(50))))
    assert source.fetches == 2


async def test_a_first_fetch_that_failed_is_tried_again_after_a_second() -> None:
    source = Source(jwk("rsa"))
    source.down = True
    for seconds, fetches in ((0, 1), (0.9, 1), (1.0, 2), (2.0, 3)):
        source.time[0] = 1_000.0 + seconds
        for _ in range(3):
            with pytest.raises(KeysUnavailable):
                await source.has("rsa")
        assert source.fetches == fetches
    source.down, source.time[0] = False, 1_003.0
    assert await source.has("rsa")


async def test_old_keys_stay_good_while_new_ones_cannot_be_had() -> None:
    """But nobody can say whether an unknown one is good: that is no bad token."""
    source = Source(jwk("rsa"))
    await source.has("rsa")
    source.down = True
    source.time[0] += 700
    for seconds in range(10):
        source.time[0] += 0.9
        assert await source.has("rsa"), seconds
        with pytest.raises(KeysUnavailable):
            await source.has("new")
    assert source.fetches == 2
    source.time[0] += 10
    assert await source.has("rsa")
    assert source.fetches == 3


async def test_a_fetch_that_was_cut_off_has_failed() -> None:
    """An invocation ended: the next one asks again, after the second."""
    source = Source(jwk("rsa"))
    source.delay = 60
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(source.has("rsa"), 0.01)
    source.delay = 0
    with pytest.raises(KeysUnavailable):
        await source.has("rsa")
    source.time[0] += 1
    assert await source.has("rsa")


@pytest.mark.parametrize("document", [None, [], {}, {"keys": {}}, "keys", {"keys": None}])
async def test_what_is_no_key_set_is_a_failure(document: Any) -> None:
    async def fetch() -> Any:
        return document

    with pytest.raises(KeysUnavailable):
        await KeySet(fetch, ALGORITHMS, lambda: 0.0).find("rsa", "RS256")


UNUSABLE: list[tuple[Any, str]] = [
    (None, "it is no JSON object"),
    ("rsa", "it is no JSON object"),
    ({}, "its kty is none of RSA, EC and OKP"),
    ({"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"}, "its kty is none of RSA, EC and OKP"),
    ({"kty": ["RSA"]}, "its kty is none of RSA, EC and OKP"),
    (jwk("rsa", kid=5), "its kid is no text"),
    (jwk("rsa", use="enc"), "it is not for verifying signatures"),
    (jwk("rsa", use=["sig"]), "it is not for verifying signatures"),
    (jwk("rsa", key_ops=["sign"]), "it is not for verifying signatures"),
    (jwk("rsa", key_ops="verify"), "it is not for verifying signatures"),
    (jwk("rsa", d="AQAB"), "it has private parts"),
    (jwk("rsa", alg="RS512"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("rsa", alg="HS256"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("rsa", alg=["RS256"]), "it fits none of AUTH_ALGORITHMS"),
    (jwk("ec384"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("ed"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("ec", crv=["P-256"]), "it fits none of AUTH_ALGORITHMS"),
    (jwk("ec", crv="Ed25519"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("ed", crv="P-256"), "it fits none of AUTH_ALGORITHMS"),
    (jwk("small"), "it is RSA of less than 2,048 bits"),
    ({"kty": "RSA", "kid": "x"}, "it cannot be read"),
    (jwk("rsa", n=5), "it cannot be read"),
    (jwk("rsa", n="é"), "it cannot be read"),
    (jwk("rsa", e="AQ"), "it cannot be read"),
    (jwk("ec", x="AAAA"), "it cannot be read"),
    (jwk("ec", y=jwk("ec")["x"]), "it cannot be read"),
]


@pytest.mark.parametrize(("key", "reason"), UNUSABLE, ids=[str(at) for at in range(len(UNUSABLE))])
def test_a_key_we_cannot_use_says_why(key: Any, reason: str) -> None:
    """And nothing of the key."""
    with pytest.raises(UnusableKey) as error:
        read_key(key, ALGORITHMS)
    assert str(error.value) == reason


@pytest.mark.parametrize(
    ("key", "algorithms"),
    [
        (jwk("rsa"), {"RS256", "PS256"}),
        (jwk("rsa", alg="PS256"), {"PS256"}),
        (jwk("rsa", use=None, key_ops=["verify"]), {"RS256", "PS256"}),
        (jwk("ec"), {"ES256"}),
        (jwk("ec384"), {"ES384"}),
        (jwk("ed"), {"EdDSA"}),
    ],
)
def test_a_key_serves_what_fits_it(key: Any, algorithms: set[str]) -> None:
    """Its type and curve decide, and its own ``alg`` where it has one."""
    found = read_key(key, frozenset({"RS256", "PS256", "ES256", "ES384", "EdDSA"}))
    assert found.algorithms == algorithms
    assert (
        found.public.public_numbers() == private(found.kid or "").public_key().public_numbers() if "n" in key else True
    )


async def test_keys_we_cannot_use_are_skipped_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """By reason, whatever many there are, and nothing of any key."""
    source = Source(*(key for key, _ in UNUSABLE), jwk("rsa"))
    with caplog.at_level(logging.DEBUG, "async_relay"):
        assert await source.has("rsa")
        source.time[0] += 600
        assert await source.has("rsa")
    assert sorted(record.getMessage() for record in caplog.records) == sorted(
        f"a key of the issuer is not used: {reason}" for reason in {reason for _, reason in UNUSABLE}
    )
    assert jwk("rsa")["n"] not in caplog.text
    assert "secret" not in caplog.text


async def test_of_two_keys_of_one_name_the_one_that_fits_is_taken() -> None:
    source = Source(jwk("ec", kid="k"), jwk("rsa", kid="k"))
    assert await source.has("k", "RS256")
    assert await source.has("k", "ES256")
    assert not await source.has("k", "PS256")


async def test_a_token_that_names_no_key_needs_exactly_one_that_fits() -> None:
    assert await Source(jwk("rsa"), jwk("ec")).has(None)
    assert not await Source(jwk("rsa"), jwk("other")).has(None)
    assert not await Source(jwk("ec")).has(None)


async def test_a_set_without_a_key_lets_nobody_in() -> None:
    assert not await Source().has("rsa")
    assert not await Source().has(None)
