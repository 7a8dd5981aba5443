"""Credentials, Region and endpoints as the environment says them, beside what botocore makes of the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import botocore.session
import pytest

from async_relay.aws import environment
from async_relay.http.sigv4 import Credentials

PLAIN = {"AWS_REGION": "eu-west-1", "AWS_CONFIG_FILE": "/nonexistent"}
KEY = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
REGIONS = ["eu-west-1", "us-east-1", "us-gov-west-1", "ap-southeast-2", "cn-north-1", "mx-central-1", "il-central-1"]


def botocores(environ: dict[str, str], service: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    client = botocore.session.Session().create_client(service, region_name=environment.region(environ))
    return str(client.meta.endpoint_url)


@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
@pytest.mark.parametrize("region", REGIONS)
def test_a_service_is_where_botocore_finds_it(service: str, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host of a Region, in every partition we know."""
    environ = PLAIN | {"AWS_REGION": region}
    assert environment.endpoint(environ, service) == botocores(environ, service, monkeypatch)


@pytest.mark.parametrize(
    "named",
    [
        {"AWS_ENDPOINT_URL": "http://localhost:4566"},
        {"AWS_ENDPOINT_URL_SQS": "http://localhost:9324"},
        {"AWS_ENDPOINT_URL": "http://localhost:4566", "AWS_ENDPOINT_URL_SQS": "http://localhost:9324"},
        {"AWS_ENDPOINT_URL_DYNAMODB": "http://localhost:8000"},
    ],
)
@pytest.mark.parametrize("service", ["dynamodb", "sqs"])
def test_a_named_endpoint_comes_first(service: str, named: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own variable, then the one for all, as botocore has it."""
    environ = PLAIN | named
    assert environment.endpoint(environ, service) == botocores(environ, service, monkeypatch)


@pytest.mark.parametrize(
    "more",
    [
        {"AWS_REGION": ""},
        {"AWS_REGION": "us-iso-east-1"},
        {"AWS_REGION": "moon-1"},
        {"AWS_REGION": "eu-west-1-atl-1a"},
        {"AWS_PROFILE": "other"},
        {"AWS_DEFAULT_PROFILE": "other"},
        {"AWS_ACCOUNT_ID_ENDPOINT_MODE": "required"},
        {"AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_CONFIG_FILE": __file__},
        {"AWS_ENDPOINT_URL": "localhost:8000"},
        {"AWS_ENDPOINT_URL": "https://"},
    ],
)
def test_what_is_not_plain_is_the_sdks(more: dict[str, str]) -> None:
    """Where anything else has a say there is no answer."""
    assert environment.endpoint(PLAIN | more, "dynamodb") is None


def test_the_config_file_is_looked_for_where_the_sdk_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """~/.aws/config, where no other is named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    environ = {"AWS_REGION": "eu-west-1"}
    assert environment.endpoint(environ, "sqs") == "https://sqs.eu-west-1.amazonaws.com"
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("")
    assert environment.endpoint(environ, "sqs") is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (KEY, Credentials("AKID", "secret")),
        (KEY | {"AWS_SESSION_TOKEN": "t"}, Credentials("AKID", "secret", "t")),
        (KEY | {"AWS_SESSION_TOKEN": "t", "AWS_SECURITY_TOKEN": "u"}, Credentials("AKID", "secret", "u")),
        (KEY | {"AWS_CREDENTIAL_EXPIRATION": "2026-01-01T00:00:00Z"}, None),
        (KEY | {"AWS_SESSION_TOKEN": ""}, Credentials("AKID", "secret")),
        ({"AWS_ACCESS_KEY_ID": "AKID"}, None),
        ({"AWS_SECRET_ACCESS_KEY": "secret"}, None),
        ({}, None),
    ],
)
def test_credentials_are_those_of_the_environment(environ: Mapping[str, str], expected: Credentials | None) -> None:
    """A key with its secret, the token botocore would take, and none that expire."""
    assert environment.credentials(environ) == expected


def test_lambdas_own_region_comes_first() -> None:
    """AWS_REGION before AWS_DEFAULT_REGION, either alone, and an empty one is none."""
    both = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}
    assert environment.region(both) == "eu-west-1"
    assert environment.region(both | {"AWS_REGION": ""}) == "us-east-1"
    assert environment.region({"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}) is None


def test_a_proxy_is_seen_in_capitals_and_without() -> None:
    """As curl and botocore do."""
    assert environment.proxied({"HTTPS_PROXY": "http://proxy"})
    assert environment.proxied({"https_proxy": "http://proxy"})
    assert environment.proxied({"http_proxy": "http://proxy"})
    assert environment.proxied({"HTTP_PROXY": "http://proxy"})
    assert not environment.proxied({"HTTPS_PROXY": "", "NO_PROXY": "*"})


def test_without_a_home_there_is_no_config_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME and a user the machine does not know: what is plain is plain all the same."""

    def homeless(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    assert environment.endpoint({"AWS_REGION": "eu-west-1"}, "sqs") == "https://sqs.eu-west-1.amazonaws.com"


@pytest.mark.parametrize("path", ["\0", "/" + "x" * 5_000])
def test_a_config_file_nobody_can_look_at_is_the_sdks(path: str) -> None:
    """A path that is none has no answer, and raises nothing."""
    assert environment.endpoint(PLAIN | {"AWS_CONFIG_FILE": path}, "sqs") in (
        None,
        "https://sqs.eu-west-1.amazonaws.com",
    )


def test_a_config_file_that_may_not_be_looked_at_is_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be one, so nothing is plain."""

    def forbidden(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert environment.endpoint(PLAIN, "sqs") is None
