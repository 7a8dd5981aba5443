"""Credentials, Region and endpoints, where environment variables alone decide them. Pure.

Lambda sets credentials and Region, and a service's host follows from the Region. Where a profile, a config
file, a FIPS endpoint or anything else decides too, the answer is None, and the caller asks the SDK.

Source: AWS SDKs and Tools Reference Guide, "Settings reference".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

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
# botocore, like curl, reads them in capitals too.
_PROXIES = ("http_proxy", "https_proxy")
# The suffix of host names in the Regions that follow the common pattern; the SDK is asked about any other Region.
_SUFFIXES = (
    (re.compile(r"cn-[a-z]+-\d"), "amazonaws.com.cn"),
    (re.compile(r"(us|us-gov|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d"), "amazonaws.com"),
)


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


def _configured(environ: Mapping[str, str]) -> bool:
    """Whether there is a config file, or it cannot be told."""
    path = Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config")
    # expanduser raises where the user has no home directory; the SDK finds no file then either.
    with suppress(RuntimeError):
        path = path.expanduser()
    try:
        return path.is_file()
    except (OSError, ValueError):
        return True
