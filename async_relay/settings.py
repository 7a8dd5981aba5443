"""The settings, read from the environment once and frozen.

Rules: an empty variable counts as unset; a missing or wrong value raises ``SettingsError``
with one sentence that names the variable, shows what was found and says what is expected.
So does a value that means nothing without another variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .errors import SettingsError
from .http.descriptors import MOST_IN_A_LAMBDA
from .http.urls import is_private, is_this_machine, parts
from .wire.formatter import Formatter, load_formatter
from .wire.frames import FRAME_BYTES
from .wire.incidents import format_item
from .wire.jobs import ShardKind
from .wire.messages import MAX_POST_BYTES

T = TypeVar("T")

#: Posts in flight unless a setting says otherwise. With an answer after 23 ms (the mean of 20 ms in the middle) 230 use
#: up a default quota of 10,000 a second, and 300 leave room for slower ones. Only as many sockets are opened as posts
#: wait at once, so a small table never has so many.
POSTS_IN_FLIGHT = 300

_ENDPOINT = (
    "an https:// URL, with the stage, like https://abc.execute-api.eu-west-1.amazonaws.com/prod, or of the API's own "
    "domain, like https://ws.example.com; http:// only on this machine"
)
_ISSUER = "an https:// URL without a query, http:// only on this machine"
_ENDPOINT_URLS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS")
# An address, and AWS's own hosts.
_NOBODYS_OWN = re.compile(r"[\d.]+|.*:.*|.*\.amazonaws\.com(\.cn)?")
# The stage or a mapping, behind what a local AWS has before it ("Map API stages to a custom domain name").
_ENDPOINT_PATH = re.compile(r"(/+(?!\.{1,2}(/|$)|@connections)[A-Za-z0-9$_.+!*'()~-]+)*", re.ASCII | re.IGNORECASE)
_TABLE = re.compile(r"(arn:[\w-]+:dynamodb:[\w-]+:\d+:table/)?[A-Za-z0-9_.-]{3,255}")
_INDEX = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_BUILT_IN: Formatter = format_item
#: What a public key can verify (RFC 7518, section 3.1; RFC 8037): a shared secret would let whoever verifies tokens
#: make them too.
_ASYMMETRIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_AUTHORIZER = re.compile(r"arn:[\w-]+:lambda:[\w-]+:\d{12}:function:[A-Za-z0-9_-]+(:[A-Za-z0-9$_-]+)?", re.ASCII)
_PORTS = {"http": 80, "https": 443}
# DynamoDB's longest attribute name in a projection is 255 characters; a claim's name is often a URL.
_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Settings:
    """What the functions need to know; each field is the variable of the same name."""

    ws_endpoint: str
    connections_table: str
    connections_index: str | None = None
    max_concurrency: int = POSTS_IN_FLIGHT
    max_posts_per_second: float | None = None
    post_timeout_seconds: float = 3.0
    retry_queue_url: str | None = None
    retry_backoff_seconds: float = 5.0
    max_delivery_attempts: int = 6
    dead_letter_queue_url: str | None = None
    fanout_queue_url: str | None = None
    fanout_shards: int = 8
    fanout_mode: str = "fanout"
    fanout_auto_clients: int = 5_000
    connections_index_sweep: bool = True
    coalesce: bool = False
    frame_bytes: int = FRAME_BYTES
    message_formatter: Formatter = _BUILT_IN
    transport: str = "direct"
    incident_table: str | None = None
    incident_index: str | None = None
    feed_table: str | None = None
    feed_hours: float = 24.0
    ttl_hours: float = 24.0
    auth_mode: str = "none"
    auth_issuer: str = ""
    auth_audience: tuple[str, ...] = ()
    auth_jwks_url: str | None = None
    auth_algorithms: tuple[str, ...] = ("RS256", "ES256")
    auth_scope: str | None = None
    auth_origins: tuple[str, ...] = ()
    auth_query_token: bool = False
    authorizer_arn: str | None = None
    tenant_attribute: str | None = None
    tenant_claim: str | None = None

    @property
    def by_tenant(self) -> bool:
        """Whether tenants are on."""
        return self.tenant_attribute is not None

    @property
    def needs_row(self) -> bool:
        """Whether a client without a row may have nothing, since only its row says what it may have."""
        return self.auth_mode == "jwt" or self.by_tenant

    @property
    def shard_kind(self) -> ShardKind:
        """What the fan-out's shards are: index partitions only where every row is sure to be in one."""
        indexed = self.connections_index is not None and not self.connections_index_sweep
        return ShardKind.PARTITION if indexed else ShardKind.SEGMENT

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read and check every variable; raises ``SettingsError`` at the first bad one."""
        variables = _Variables(environ)
        read, required = variables.read, variables.required
        for name in _ENDPOINT_URLS:
            read(name, _url, "")
        variables.needed("FANOUT_QUEUE_URL", "FANOUT_MODE", "fanout", "auto")
        variables.needed("CONNECTIONS_INDEX", "CONNECTIONS_INDEX_SWEEP", "off")
        if variables.text("INCIDENT_INDEX") and not variables.text("INCIDENT_TABLE"):
            raise SettingsError("INCIDENT_INDEX is set, which needs INCIDENT_TABLE to be set too")
        _check_door(variables)
        return cls(
            ws_endpoint=required("WS_ENDPOINT", _endpoint, _ENDPOINT),
            connections_table=required("CONNECTIONS_TABLE", table_name, "a DynamoDB table's name"),
            connections_index=read("CONNECTIONS_INDEX", _index, None),
            max_concurrency=read("MAX_CONCURRENCY", _whole(1, MOST_IN_A_LAMBDA), POSTS_IN_FLIGHT),
            max_posts_per_second=read("MAX_POSTS_PER_SECOND", _number(0.1, 1_000_000), None),
            post_timeout_seconds=read("POST_TIMEOUT_SECONDS", _number(0.05, 60), 3.0),
            retry_queue_url=read("RETRY_QUEUE_URL", _standard_queue, None),
            retry_backoff_seconds=read("RETRY_BACKOFF_SECONDS", _number(0, 900), 5.0),
            max_delivery_attempts=read("MAX_DELIVERY_ATTEMPTS", _whole(1, 1_000), 6),
            dead_letter_queue_url=read("DEAD_LETTER_QUEUE_URL", _standard_queue, None),
            fanout_queue_url=read("FANOUT_QUEUE_URL", _fifo_queue, None),
            fanout_shards=read("FANOUT_SHARDS", _whole(1, 1_000), 8),
            fanout_mode=read("FANOUT_MODE", _one_of("direct", "fanout", "auto"), "fanout"),
            fanout_auto_clients=read("FANOUT_AUTO_CLIENTS", _whole(1, 1_000_000), 5_000),
            connections_index_sweep=read("CONNECTIONS_INDEX_SWEEP", _one_of("on", "off"), "on") == "on",
            coalesce=read("COALESCE", _one_of("off", "latest"), "off") == "latest",
            frame_bytes=read("FRAME_BYTES", _whole(1_024, MAX_POST_BYTES), FRAME_BYTES),
            message_formatter=read("MESSAGE_FORMATTER", load_formatter, _BUILT_IN),
            transport=read("TRANSPORT", _one_of("direct", "sdk"), "direct"),
            incident_table=read("INCIDENT_TABLE", table_name, None),
            incident_index=read("INCIDENT_INDEX", _index, None),
            feed_table=read("FEED_TABLE", table_name, None),
            feed_hours=read("FEED_HOURS", _number(0.5, 8_760), 24.0),
            ttl_hours=read("TTL_HOURS", _number(0.01, 8_760), 24.0),
            auth_mode=read("AUTH_MODE", _one_of("none", "jwt"), "none"),
            auth_issuer=read("AUTH_ISSUER", _issuer, ""),
            auth_audience=read("AUTH_AUDIENCE", _list_of("audiences", _text), ()),
            auth_jwks_url=read("AUTH_JWKS_URL", _issuer, None),
            auth_algorithms=read("AUTH_ALGORITHMS", _list_of("asymmetric algorithms", _algorithm), ("RS256", "ES256")),
            auth_scope=read("AUTH_SCOPE", _scope, None),
            auth_origins=read("AUTH_ORIGINS", _list_of("origins", _origin), ()),
            auth_query_token=read("AUTH_QUERY_TOKEN", _one_of("on", "off"), "off") == "on",
            authorizer_arn=read("AUTHORIZER_ARN", _authorizer, None),
            tenant_attribute=read("TENANT_ATTRIBUTE", _name, None),
            tenant_claim=read("TENANT_CLAIM", _name, None),
        )


def _check_door(variables: _Variables) -> None:
    """Refuse settings of the door that contradict each other: nobody may think it closed while it is open."""
    jwt = variables.text("AUTH_MODE") == "jwt"
    for name in ("AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL", "AUTH_ALGORITHMS", "AUTH_SCOPE", "AUTHORIZER_ARN"):
        if variables.text(name) and not jwt:
            raise SettingsError(f"{name} is set, which means nothing without AUTH_MODE=jwt: nobody would check a token")
    if variables.text("AUTH_QUERY_TOKEN") == "on" and not jwt:
        raise SettingsError("AUTH_QUERY_TOKEN is 'on', which needs AUTH_MODE to be jwt")
    if jwt and not variables.text("AUTHORIZER_ARN"):
        variables.required("AUTH_ISSUER", _issuer, f"{_ISSUER}, since AUTH_MODE is jwt")
        variables.required("AUTH_AUDIENCE", _text, "a comma list of audiences, since AUTH_MODE is jwt")
    if variables.text("TENANT_CLAIM") and not variables.text("TENANT_ATTRIBUTE"):
        raise SettingsError(
            f"TENANT_CLAIM is {variables.text('TENANT_CLAIM')!r}, which needs TENANT_ATTRIBUTE to be set too"
        )


class _Variables:
    """The environment, with white space around a value taken off."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str:
        """The value; empty where the variable is not set."""
        return self._environ.get(name, "").strip()

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """The parsed value; ``parse`` raises ``ValueError`` with what it expects."""
        text = self.text(name)
        if not text:
            return default
        try:
            return parse(text)
        except ValueError as expected:
            raise SettingsError(f"{name} is {text!r}; it must be {expected}") from None

    def required(self, name: str, parse: Callable[[str], str], expected: str) -> str:
        """The parsed value of a variable that has no default."""
        if not self.text(name):
            raise SettingsError(f"{name} is not set; it must be {expected}")
        return self.read(name, parse, "")

    def needed(self, other: str, name: str, *values: str) -> None:
        """Refuse these values of ``name`` where ``other`` is not set."""
        if self.text(name) in values and not self.text(other):
            raise SettingsError(f"{name} is {self.text(name)!r}, which needs {other} to be set too")


def _endpoint(text: str) -> str:
    # The console shows the address of the posts, which ends in this; the transports add it again.
    text = re.sub(r"/+(@|%40)connections(/+(\{connection_?id\})?)?$", "", text, flags=re.IGNORECASE).rstrip("/")
    url = parts(text)
    if url is None or not _ENDPOINT_PATH.fullmatch(url.path):
        raise ValueError(_ENDPOINT)
    host = url.hostname or ""
    if not (url.scheme == "https" or is_this_machine(host)) or not (url.path or _is_own(host)):
        raise ValueError(_ENDPOINT)
    return text


def _is_own(host: str) -> bool:
    """Whether the host may be a domain of the owner's, which API Gateway maps to a stage: the URL may have no path."""
    return "." in host and not is_this_machine(host) and not re.fullmatch(_NOBODYS_OWN, host)


def _url(text: str) -> str:
    if parts(text) is None:
        raise ValueError("an http:// or https:// URL")
    return text


def _issuer(text: str) -> str:
    if not is_private(text):
        raise ValueError(_ISSUER)
    return text


def _algorithm(text: str) -> str:
    if text not in _ASYMMETRIC:
        raise ValueError
    return text


def _origin(text: str) -> str:
    # What a browser sends: in small letters, and without a port that is the scheme's (RFC 6454, section 6.2).
    url = parts(text)
    if url is None or text != f"{url.scheme}://{url.netloc}".lower() or url.port == _PORTS[url.scheme]:
        raise ValueError
    return text


def _scope(text: str) -> str:
    if not re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", text):
        raise ValueError("one scope, without spaces or quotes")  # RFC 6749, section 3.3
    return text


def _authorizer(text: str) -> str:
    if not _AUTHORIZER.fullmatch(text):
        raise ValueError("the ARN of a Lambda function")
    return text


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise ValueError(f"a name of at most {_LONGEST_NAME} characters")
    return text


def _text(text: str) -> str:
    return text


def _list_of(what: str, parse: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Parse each part of a comma list."""
    examples = {"asymmetric algorithms": ", ".join(_ASYMMETRIC), "origins": "https://app.example.com"}
    expected = f"a comma list of {what}{f', like {examples[what]}' if what in examples else ''}"

    def parse_all(text: str) -> tuple[str, ...]:
        try:
            found = tuple(parse(part.strip()) for part in text.split(","))
        except ValueError:
            found = ()
        if not found or "" in found:
            raise ValueError(expected)
        return found

    return parse_all


def table_name(text: str) -> str:
    """The name or ARN of a table; raises ``ValueError`` with what it must be."""
    if not _TABLE.fullmatch(text):
        raise ValueError("a DynamoDB table's name, of 3 to 255 letters, digits, - _ and ., or its ARN")
    return text


def _index(text: str) -> str:
    if not _INDEX.fullmatch(text):
        raise ValueError("the name of a global secondary index")
    return text


def _queue(text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+/\S+", text):
        raise ValueError("the URL of an SQS queue")
    return text


def _standard_queue(text: str) -> str:
    if _queue(text).endswith(".fifo"):
        raise ValueError("a standard SQS queue, since a FIFO queue cannot delay one message")
    return text


def _fifo_queue(text: str) -> str:
    if not _queue(text).endswith(".fifo"):
        raise ValueError("the URL of a FIFO queue, which ends in .fifo")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{', '.join(words[:-1])} or {words[-1]}")
        return text

    return parse


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low:,} to {high:,}")
        return int(text)

    return parse


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) or not low <= float(text) <= high:
            raise ValueError(f"a number from {low:,g} to {high:,g}")
        return float(text)

    return parse
