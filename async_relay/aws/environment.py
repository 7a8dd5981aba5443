"""Credentials, Region and endpoints, where environment variables alone decide them. Pure.

Lambda sets credentials and Region, and a service's host follows from the Region. With SnapStart it names an
endpoint that hands credentials out, in place of keys. Where a profile, a config file, a FIPS endpoint or anything
else decides too, the answer is None, and the caller asks the SDK.

Source: AWS SDKs and Tools Reference Guide, "Settings reference" and "Container credential provider"; Lambda
Developer Guide, "Activating and managing Lambda SnapStart". The hosts that may hand out credentials are botocore's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from ..http.sigv4 import Credentials

#: With any of these set, a host name or a Region may differ from the one that the other variables give.
_DECIDING = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
# With any of these set, even empty, the container's credentials are asked for in another way.
_OTHER_CONTAINERS = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")
# With any of these set, the SDK finds credentials elsewhere before it asks the container, or fails.
_BEFORE_CONTAINERS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CREDENTIAL_FILE",
    "BOTO_CONFIG",
)
# Beside loopback addresses: the agents of ECS and EKS. Over plain HTTP no other host gets the token.
_CONTAINER_HOSTS = ("localhost", "169.254.170.2", "169.254.170.23", "fd00:ec2::23")
# What may stand in a header or a request line: a space or a new line would begin another.
_VISIBLE = re.compile(r"[!-~]+").fullmatch
_HEADER_VALUE = re.compile(r"[!-~]+( [!-~]+)*").fullmatch
# botocore, like curl, reads them in capitals too.
_PROXIES = ("http_proxy", "https_proxy")
# The suffix of host names in the Regions that follow the common pattern; the SDK is asked about any other Region.
_SUFFIXES = (
    (re.compile(r"cn-[a-z]+-\d"), "amazonaws.com.cn"),
    (re.compile(r"(us|us-gov|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d"), "amazonaws.com"),
)


@dataclass(frozen=True, slots=True)
class Container:
    """An endpoint that hands out credentials, and what its header Authorization says, if anything."""

    url: str
    token: str | None = field(default=None, repr=False)


def region(environ: Mapping[str, str]) -> str | None:
    """The Region: AWS_REGION, else AWS_DEFAULT_REGION."""
    return environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None


def credentials(environ: Mapping[str, str]) -> Credentials | None:
    """The key, its secret and its token; None where they expire, since only the SDK can refresh them."""
    access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret_key or environ.get("AWS_CREDENTIAL_EXPIRATION"):
        return None
    token = environ.get("AWS_SECURITY_TOKEN") or environ.get("AWS_SESSION_TOKEN")
    return Credentials(access_key, secret_key, token or None)


def container(environ: Mapping[str, str]) -> Container | None:
    """The endpoint that hands out credentials; None where there is none, or the SDK must be asked."""
    url, token = environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"), environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN")
    if not url or any(name in environ for name in _OTHER_CONTAINERS):
        return None
    if any(environ.get(name) for name in _BEFORE_CONTAINERS) or _configured(environ) or _has_keys(environ):
        return None
    if not _hands_out(url) or not (token is None or _HEADER_VALUE(token)):
        return None
    return Container(url, token)


def endpoint(environ: Mapping[str, str], service: str) -> str | None:
    """The URL of ``dynamodb`` or ``sqs``; None where the SDK must be asked."""
    where = region(environ)
    if where is None or any(environ.get(name) for name in _DECIDING) or _configured(environ):
        return None
    named = environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or environ.get("AWS_ENDPOINT_URL")
    if named:
        return named if re.match(r"https?://[^/?#\s]", named) else None
    suffix = next((suffix for pattern, suffix in _SUFFIXES if pattern.fullmatch(where)), None)
    return suffix and f"https://{service}.{where}.{suffix}"


def proxied(environ: Mapping[str, str]) -> bool:
    """Whether a proxy is set, which our own sockets would bypass."""
    return any(environ.get(name) or environ.get(name.upper()) for name in _PROXIES)


def _hands_out(url: str) -> bool:
    """Whether credentials may come from there, and from nowhere that the SDK would not take them from."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not _VISIBLE(url) or parts.scheme != "http" or "@" in parts.netloc or host is None:
        return False
    with suppress(ValueError):
        return host in _CONTAINER_HOSTS or ip_address(host).is_loopback
    return False


def _configured(environ: Mapping[str, str]) -> bool:
    """Whether there is a config file, or it cannot be told."""
    return _is_file(environ.get("AWS_CONFIG_FILE") or "~/.aws/config")


def _has_keys(environ: Mapping[str, str]) -> bool:
    """Whether there is a file with credentials, or it cannot be told."""
    return _is_file(environ.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")


def _is_file(named: str) -> bool:
    path = Path(named)
    # expanduser raises where the user has no home directory; the SDK finds no file then either.
    with suppress(RuntimeError):
        path = path.expanduser()
    try:
        return path.is_file()
    except (OSError, ValueError):
        return True
