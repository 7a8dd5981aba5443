"""Who serves a call: our own sockets, and the SDK for what those did not finish."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from async_relay.aws import Aws
from async_relay.aws import session as session_module
from async_relay.aws.sdk import Sdk, _patient
from async_relay.aws.session import Service
from async_relay.errors import ServerError, Unavailable

PLAIN = {"AWS_REGION": "eu-west-1", "AWS_CONFIG_FILE": "/nonexistent"}
KEY = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}


class Own:
    """Our own sockets, to which some requests come to nothing."""

    def __init__(self, *bad: int) -> None:
        self.bad = bad
        self.closed = False

    async def call(self, _operation: str, requests: Sequence[Any]) -> list[Any]:
        return [ServerError("no") if at in self.bad else ("own", each) for at, each in enumerate(requests)]

    async def close(self) -> None:
        self.closed = True


class Session(Aws):
    """Our own sockets as given, or the errors that opening them comes to; the SDK answers, but to some requests."""

    def __init__(self, *opening: Any, unavailable: Sequence[Any] = ()) -> None:
        super().__init__({})
        self.opened = 0
        self.asked: list[Any] = []
        self.closed = False
        self._opening = list(opening)
        self._unavailable = unavailable

    async def own_calls(self, _service: str) -> Any:
        self.opened += 1
        await asyncio.sleep(0)
        found = self._opening.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def sdk(self) -> Any:
        return self

    async def call(self, service: str, operation: str, request: Any) -> Any:
        self.asked.append((service, operation, request))
        if request in self._unavailable:
            raise Unavailable("the SDK does not know either")
        return "sdk", request

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("bad", [(), (0,), (1,), (3,), (0, 1, 2, 3)])
async def test_what_our_sockets_did_not_finish_is_the_sdks(bad: tuple[int, ...]) -> None:
    """Those requests and no others, and each answer is in its request's place."""
    aws = Session(Own(*bad))
    found = await Service(aws, "sqs").call_each("Send", [{"n": at} for at in range(4)])
    assert found == [("sdk" if at in bad else "own", {"n": at}) for at in range(4)]
    assert aws.asked == [("sqs", "Send", {"n": at}) for at in bad]


@pytest.mark.parametrize("own", [Own(0, 2), None], ids=["after our own sockets", "where it serves every call"])
async def test_what_the_sdk_could_not_finish_fails_alone(own: Own | None) -> None:
    """Its error is that request's answer; a single call raises it."""
    aws = Session(own, unavailable=[{"n": 2}])
    service = Service(aws, "sqs")
    found = await service.call_each("Send", [{"n": at} for at in range(3)])
    assert [isinstance(each, Unavailable) for each in found] == [False, False, True]
    if own is None:
        with pytest.raises(Unavailable, match="does not know either"):
            await service.call("Send", {"n": 2})


async def test_callers_at_once_open_one_pool() -> None:
    """The second waits for the first."""
    aws = Session(Own(), Own())
    service = Service(aws, "sqs")
    await asyncio.gather(*(service.call("Send", {"n": at}) for at in range(5)))
    assert aws.opened == 1


async def test_opening_that_failed_is_tried_again_by_the_next_call() -> None:
    """A file with the CAs that could not be read does not leave every later call to the SDK."""
    aws = Session(Unavailable("the certificates cannot be read"), Own())
    service = Service(aws, "sqs")
    with pytest.raises(Unavailable, match="certificates"):
        await service.call("Send", {})
    assert await service.call("Send", {}) == ("own", {})
    assert aws.asked == []


async def test_closing_closes_our_sockets_and_the_sdk() -> None:
    """Of every service that was used; one that was not has nothing to close."""
    aws = Aws(PLAIN)
    used = [aws.service("sqs"), aws.service("dynamodb")]
    assert used[0] is aws.service("sqs")
    pools = [Own(), Own()]
    sdk: Any = Session()
    for service, pool in zip(used, pools, strict=True):
        service._own = pool  # type: ignore[assignment]
    aws._sdk = sdk
    await aws.close()
    assert [pool.closed for pool in pools] == [True, True]
    assert sdk.closed
    await Aws(PLAIN).close()


async def test_a_key_of_the_environment_needs_no_sdk() -> None:
    """Nor does a Region."""
    aws = Aws(PLAIN | KEY)
    assert (await aws.credentials()).access_key == "AKID"
    assert await aws.region() == "eu-west-1"
    assert aws._sdk is None


@pytest.mark.parametrize("environ", [PLAIN | {"https_proxy": "http://proxy"}, PLAIN | {"HTTP_PROXY": "http://proxy"}])
async def test_behind_a_proxy_and_where_the_sdk_is_wanted_it_serves_every_call(environ: dict[str, str]) -> None:
    """Plainly set otherwise, our own sockets serve."""
    assert await Aws(environ).own_calls("sqs") is None
    assert await Aws(PLAIN, own_sockets=False).own_calls("sqs") is None
    assert await Aws(PLAIN).own_calls("sqs") is not None


async def test_the_cas_of_a_host_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS's for its own hosts, the system's for others: a context each, and both are kept."""
    read: list[str | None] = []

    def trust(ca_file: str | None, *, falls_back: bool) -> ssl.SSLContext:
        assert falls_back == (ca_file is not None)
        read.append(ca_file)
        return ssl.create_default_context()

    monkeypatch.setattr(session_module, "trust", trust)
    aws = Aws(PLAIN)
    urls = ["https://sqs.eu-west-1.amazonaws.com", "https://localhost:8000"]
    first, second = [await aws.tls(url) for url in urls]
    assert first is not second
    assert [await aws.tls(url) for url in urls] == [first, second]
    assert len(read) == 2


async def test_cas_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    """AWS_CA_BUNDLE decides, and names a file that is not there."""
    aws = Aws(PLAIN | {"AWS_CA_BUNDLE": str(tmp_path / "nothing.pem")})
    with pytest.raises(Unavailable, match=r"the certificates of .*nothing\.pem cannot be read"):
        await aws.tls("https://sqs.eu-west-1.amazonaws.com")


# ── the SDK ─────────────────────────────────────────────────────────────────────────────────────


async def test_keys_of_a_profile_come_with_their_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All three of them."""
    path = tmp_path / "credentials"
    path.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = B\naws_session_token = C\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    found = await Sdk("eu-west-1").credentials()
    assert (found.access_key, found.secret_key, found.token) == ("A", "B", "C")


def test_the_sdk_tries_three_times_and_leaves_half_of_an_invocation() -> None:
    """A table that hangs, or cannot be connected to, is given up in less than thirty seconds."""
    config: Any = _patient()
    assert config.retries["total_max_attempts"] == 3
    assert config.retries["mode"] == "standard"
    assert 3 * (config.connect_timeout + config.read_timeout) < 30


async def test_a_service_has_one_client_which_is_closed_with_the_sdk() -> None:
    """And it says where it is."""
    sdk = Sdk("eu-west-1")
    ended: list[str] = []

    class Client:
        class meta:  # noqa: N801 - botocore's name
            endpoint_url = "https://sqs.eu-west-1.amazonaws.com"
            region_name = "eu-west-1"

        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_exc: object) -> None:
            ended.append("closed")

        async def send_message(self, **request: Any) -> Any:
            return request

    made: list[str] = []

    def client(service: str, **_options: Any) -> Client:
        made.append(service)
        return Client()

    sdk._session.client = client  # type: ignore[assignment]
    assert await sdk.where("sqs") == ("https://sqs.eu-west-1.amazonaws.com", "eu-west-1")
    assert await sdk.call("sqs", "SendMessage", {"a": 1}) == {"a": 1}
    assert made == ["sqs"]
    await sdk.close()
    assert ended == ["closed"]


@pytest.mark.parametrize("error", [AttributeError("no get"), KeyError("Error"), RecursionError(), ValueError("no URL")])
async def test_whatever_the_sdk_falls_over_is_unavailable(error: Exception) -> None:
    """An answer of a shape that botocore does not know makes it raise anything."""

    class Client:
        async def __aenter__(self) -> Client:
            return self

        async def __aexit__(self, *_exc: object) -> None:
            pass

        async def scan(self, **_request: Any) -> Any:
            raise error

    sdk = Sdk("eu-west-1")
    sdk._session.client = lambda *_, **__: Client()  # type: ignore[assignment]
    with pytest.raises(Unavailable):
        await sdk.call("dynamodb", "Scan", {})
    await sdk.close()
