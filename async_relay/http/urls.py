"""URLs in settings: their parts, and whether they lead anywhere but to this machine. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

# A name of DNS labels, or an IPv6 address without its brackets.
_LABEL = "[a-z0-9]([a-z0-9_-]*[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*|[0-9a-f.]*:[0-9a-f:.]*", re.ASCII)


def parts(text: str) -> SplitResult | None:
    """The parts of an http(s) URL that names a host and maybe a port and a path, and nothing else; None: it is none."""
    try:
        url = urlsplit(text)
        named = url.scheme in ("http", "https") and _HOST.fullmatch(url.hostname or "") and url.port != 0
    except ValueError:
        return None
    plain = not re.search(r"[\s\x00-\x20?#]", text) and "@" not in url.netloc
    return url if named and plain else None


def is_this_machine(host: str) -> bool:
    """Whether nobody on a network can read what is sent there."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")  # RFC 6761, section 6.3


def endpoint_region(endpoint: str) -> str | None:
    """The Region in an API Gateway host name, which is the one to sign for; None for any other host."""
    match (urlsplit(endpoint).hostname or "").split("."):
        case [_, "execute-api" | "execute-api-fips", region, *_]:
            return region
    return None


def is_private(text: str) -> bool:
    """Whether a URL leads over TLS, or to this machine: nobody on a network can read or answer what is sent there."""
    url = parts(text)
    return url is not None and (url.scheme == "https" or is_this_machine(url.hostname or ""))
