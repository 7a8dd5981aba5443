"""What API Gateway's events say, whatever shape they come in. Pure.

Rules
- Names of headers and of query parameters have no case. A header may come on several lines, and one value may be
  told twice: API Gateway has all of them under ``multiValue…``, and the last one again under the other key.
- Nothing here raises for what a client sent. A value that is no text counts as an empty one: it is there, and is
  nothing anybody asked for.

Sources: API Gateway Developer Guide, "Input to an API Gateway Lambda authorizer", and "Set up AWS Lambda proxy
integrations" for multi-value headers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import RelayError
from ..wire.audience import INTEREST_KEYS
from ..wire.rows import END_OF_TIME

#: The best subprotocol first.
PROTOCOLS = ("async-relay.v2", "async-relay.v1")
#: The one whose clients read arrays of messages.
ARRAYS = PROTOCOLS[0]
# Bytes of UTF-8: OpenID Connect allows 255 characters, and the answer of an authorizer holds it beside the rest.
_LONGEST_PRINCIPAL = 1_024
# Bytes, of all of a context (API Gateway quotas, "Lambda authorizer result size").
_LARGEST_CONTEXT = 8_192
# What would end a line of somebody's log, or cannot be written as UTF-8.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SECONDS = re.compile(r"[0-9]{1,15}", re.ASCII)


def connection_id(event: Any) -> str:
    """The id of the connection an event is about."""
    try:
        return str(event["requestContext"]["connectionId"])
    except (KeyError, TypeError):
        raise RelayError(
            "the event has no requestContext.connectionId; this function belongs on a WebSocket route"
        ) from None


def headers(event: Any, name: str) -> list[str]:
    """The values of a header, each once, in order."""
    return _values(event, "multiValueHeaders", "headers", name)


def query(event: Any, name: str) -> list[str]:
    """The values of a query parameter, each once, in order."""
    return _values(event, "multiValueQueryStringParameters", "queryStringParameters", name)


def _values(event: Any, many: str, single: str, name: str) -> list[str]:
    found: dict[str, None] = {}
    for place in (many, single):
        for key, value in _map(event, place).items():
            if isinstance(key, str) and key.lower() == name.lower():
                values = value if isinstance(value, list) else [value]
                found |= {each if isinstance(each, str) else "": None for each in values if each is not None}
    return list(found)


def _map(event: Any, name: str) -> Mapping[str, Any]:
    value = event.get(name) if isinstance(event, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def offered_protocols(event: Any) -> list[str]:
    """The subprotocols a client offers in headers, on whichever line."""
    lines = headers(event, "Sec-WebSocket-Protocol")
    return [word for line in lines for word in (part.strip(" \t") for part in line.split(",")) if word]


def chosen_protocol(event: Any) -> str | None:
    """The best of ours that was offered in a header: a browser fails on an answer with any other."""
    offered = set(offered_protocols(event))
    return next((each for each in PROTOCOLS if each in offered), None)


def reads_arrays(event: Any) -> bool:
    """Whether the client offers, in a header or in the query, the protocol in which posts are arrays."""
    return ARRAYS in offered_protocols(event) or ARRAYS in query(event, "protocol")


def is_origin_listed(event: Any, origins: Collection[str]) -> bool:
    """Whether the page that opens the connection may; who names no origin is no browser, and passes."""
    named = headers(event, "Origin")
    return not origins or not named or (len(named) == 1 and named[0] in origins)


def context(event: Any) -> Mapping[str, Any]:
    """What the authorizer says about the client; empty where there is none."""
    return _map(_map(event, "requestContext"), "authorizer")


def principal(event: Any) -> str | None:
    """Whom the authorizer let in; None where it says nobody one could write down."""
    return as_principal(context(event).get("principalId"))


def as_principal(value: Any) -> str | None:
    """A name as it is; None where it is none: no text, empty, too long, or with what ends a line."""
    if not isinstance(value, str) or not value or _UNFIT.search(value):
        return None
    return value if len(value.encode()) <= _LONGEST_PRINCIPAL else None


def as_second(value: Any) -> int | None:
    """A whole second from 1970 to the year 9999, which API Gateway hands on as text; None where it is none."""
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= END_OF_TIME else None


def tenants_in(text: Any) -> frozenset[str]:
    """The tenants of an authorizer's context: JSON text of a list; none where it is anything else."""
    if not isinstance(text, str) or len(text) > _LARGEST_CONTEXT:
        return frozenset()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return frozenset()
    return as_tenants(found) if isinstance(found, list) else frozenset()


def as_tenants(value: Any) -> frozenset[str]:
    """The tenants of a text, or of a list of text and numbers; none where there is anything else in it."""
    values = value if isinstance(value, list) else [value] if isinstance(value, str) else []
    found = [_tenant(each) for each in values]
    return frozenset(each for each in found if each is not None) if None not in found else frozenset()


def _tenant(value: Any) -> str | None:
    """Text and numbers as text; None for what cannot be a tenant."""
    if isinstance(value, str):
        return value if value and not _UNFIT.search(value) else None
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return str(value) if number else None


def interest(event: Any) -> str | None:
    """What a client asks for, as a row's ``interest``; None where it asks for everything.

    Raises ``ValueError`` where it cannot be written as UTF-8.
    """
    wanted = {key: sorted({word for each in query(event, key) for word in _words(each)}) for key in INTEREST_KEYS}
    wanted = {key: words for key, words in sorted(wanted.items()) if words}
    if not wanted:
        return None
    text = json.dumps(wanted, ensure_ascii=False, separators=(",", ":"))
    text.encode()
    return text


def _words(text: str) -> list[str]:
    return [word for word in (part.strip() for part in text.split(",")) if word]
