"""Every environment variable: its default, its good values, and one clear sentence for each bad one."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.errors import SettingsError
from async_relay.settings import Settings
from async_relay.wire.incidents import format_item

ENDPOINT = "https://abc.execute-api.eu-west-1.amazonaws.com/prod"
LEAST = {"WS_ENDPOINT": ENDPOINT, "CONNECTIONS_TABLE": "Connections"}
QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/retries"
FIFO = f"{QUEUE}.fifo"
TABLE_ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/Connections"

AN_ENDPOINT = (
    "an https:// URL, with the stage, like https://abc.execute-api.eu-west-1.amazonaws.com/prod, or of the API's own "
    "domain, like https://ws.example.com; http:// only on this machine"
)
A_TABLE = "a DynamoDB table's name, of 3 to 255 letters, digits, - _ and ., or its ARN"
AN_AWS = "an http:// or https:// URL"
AN_INDEX = "the name of a global secondary index"
A_QUEUE = "the URL of an SQS queue"
A_STANDARD_QUEUE = "a standard SQS queue, since a FIFO queue cannot delay one message"
A_FUNCTION = "a function, as package.module:function"
A_FIFO_QUEUE = "the URL of a FIFO queue, which ends in .fifo"
AN_ISSUER = "an https:// URL without a query, http:// only on this machine"
SOME_ALGORITHMS = (
    "a comma list of asymmetric algorithms, like RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
)
SOME_ORIGINS = "a comma list of origins, like https://app.example.com"

DEFAULTS: dict[str, Any] = {
    "CONNECTIONS_INDEX": None,
    "CONNECTIONS_INDEX_SWEEP": True,
    "MAX_CONCURRENCY": 300,
    "MAX_POSTS_PER_SECOND": None,
    "POST_TIMEOUT_SECONDS": 3.0,
    "RETRY_QUEUE_URL": None,
    "RETRY_BACKOFF_SECONDS": 5.0,
    "MAX_DELIVERY_ATTEMPTS": 6,
    "DEAD_LETTER_QUEUE_URL": None,
    "FANOUT_QUEUE_URL": None,
    "FANOUT_SHARDS": 8,
    "FANOUT_MODE": "fanout",
    "FANOUT_AUTO_CLIENTS": 5_000,
    "COALESCE": False,
    "FRAME_BYTES": 32_768,
    "MESSAGE_FORMATTER": format_item,
    "TRANSPORT": "direct",
    "INCIDENT_TABLE": None,
    "INCIDENT_INDEX": None,
    "FEED_TABLE": None,
    "FEED_HOURS": 24.0,
    "TTL_HOURS": 24.0,
    "AUTH_MODE": "none",
    "AUTH_ISSUER": "",
    "AUTH_AUDIENCE": (),
    "AUTH_JWKS_URL": None,
    "AUTH_ALGORITHMS": ("RS256", "ES256"),
    "AUTH_SCOPE": None,
    "AUTH_ORIGINS": (),
    "AUTH_QUERY_TOKEN": False,
    "AUTHORIZER_ARN": None,
    "TENANT_ATTRIBUTE": None,
    "TENANT_CLAIM": None,
}
ISSUER = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbCdEfGhI"
AUTHORIZER = "arn:aws:lambda:eu-west-1:123456789012:function:tickets"
#: A closed door: what the variables of tokens mean nothing without.
DOOR = {"AUTH_MODE": "jwt", "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": "relay"}

GOOD: list[tuple[str, str, Any]] = [
    ("AUTH_MODE", "jwt", "jwt"),
    ("AUTH_MODE", "none", "none"),
    ("AUTH_ISSUER", ISSUER, ISSUER),
    ("AUTH_ISSUER", "https://tenant.eu.auth0.com/", "https://tenant.eu.auth0.com/"),
    ("AUTH_ISSUER", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("AUTH_AUDIENCE", "relay", ("relay",)),
    ("AUTH_AUDIENCE", "relay , api://relay", ("relay", "api://relay")),
    ("AUTH_JWKS_URL", f"{ISSUER}/keys", f"{ISSUER}/keys"),
    ("AUTH_ALGORITHMS", "PS256", ("PS256",)),
    ("AUTH_ALGORITHMS", "ES384, EdDSA", ("ES384", "EdDSA")),
    ("AUTH_SCOPE", "https://relay.example/read", "https://relay.example/read"),
    ("AUTH_ORIGINS", "https://app.example.com", ("https://app.example.com",)),
    (
        "AUTH_ORIGINS",
        "https://a.example:8443, http://localhost:3000",
        ("https://a.example:8443", "http://localhost:3000"),
    ),
    ("AUTH_QUERY_TOKEN", "on", True),
    ("AUTH_QUERY_TOKEN", "off", False),
    ("AUTHORIZER_ARN", AUTHORIZER, AUTHORIZER),
    ("AUTHORIZER_ARN", f"{AUTHORIZER}:live", f"{AUTHORIZER}:live"),
    ("TENANT_ATTRIBUTE", "tenant", "tenant"),
    ("TENANT_ATTRIBUTE", "t" * 255, "t" * 255),
    ("TENANT_CLAIM", "https://relay.example/tenants", "https://relay.example/tenants"),
    ("WS_ENDPOINT", ENDPOINT, ENDPOINT),
    ("WS_ENDPOINT", f"{ENDPOINT}/", ENDPOINT),
    ("WS_ENDPOINT", f" {ENDPOINT}//\n", ENDPOINT),
    (
        "WS_ENDPOINT",
        "http://localhost:4566/_aws/execute-api/abc/prod",
        "http://localhost:4566/_aws/execute-api/abc/prod",
    ),
    ("WS_ENDPOINT", "HTTPS://[::1]:8443/dev", "HTTPS://[::1]:8443/dev"),
    ("WS_ENDPOINT", "https://ws.example.com", "https://ws.example.com"),
    ("WS_ENDPOINT", "https://ws.example.com//", "https://ws.example.com"),
    ("WS_ENDPOINT", "https://ws.example.com/mapping", "https://ws.example.com/mapping"),
    ("WS_ENDPOINT", "https://ws.example.com/@connections", "https://ws.example.com"),
    ("WS_ENDPOINT", f"{ENDPOINT}/@connections", ENDPOINT),
    ("WS_ENDPOINT", f"{ENDPOINT}/%40connections/", ENDPOINT),
    ("WS_ENDPOINT", f"{ENDPOINT}/@connections/{{connection_id}}", ENDPOINT),
    ("WS_ENDPOINT", f"{ENDPOINT}/@Connections/{{connectionId}}", ENDPOINT),
    ("WS_ENDPOINT", "https://ws.example.com/a/b-c_d.~$+!*'()", "https://ws.example.com/a/b-c_d.~$+!*'()"),
    ("WS_ENDPOINT", "https://localhost:8443/prod", "https://localhost:8443/prod"),
    ("WS_ENDPOINT", "https://192.0.2.1/prod", "https://192.0.2.1/prod"),
    ("WS_ENDPOINT", "http://127.0.0.9:80/prod", "http://127.0.0.9:80/prod"),
    ("WS_ENDPOINT", "http://[::1]/prod", "http://[::1]/prod"),
    ("WS_ENDPOINT", "http://aws.localhost/prod", "http://aws.localhost/prod"),
    ("CONNECTIONS_TABLE", "a-b_c.9", "a-b_c.9"),
    ("CONNECTIONS_TABLE", "abc", "abc"),
    ("CONNECTIONS_TABLE", "t" * 255, "t" * 255),
    ("CONNECTIONS_TABLE", TABLE_ARN, TABLE_ARN),
    ("CONNECTIONS_INDEX", "by-shard", "by-shard"),
    ("CONNECTIONS_INDEX_SWEEP", "on", True),
    ("CONNECTIONS_INDEX_SWEEP", "off", False),
    ("MAX_CONCURRENCY", "1", 1),
    ("MAX_CONCURRENCY", " 900 ", 900),
    ("MAX_POSTS_PER_SECOND", "0.1", 0.1),
    ("MAX_POSTS_PER_SECOND", "1000000", 1_000_000.0),
    ("POST_TIMEOUT_SECONDS", "0.05", 0.05),
    ("POST_TIMEOUT_SECONDS", ".5", 0.5),
    ("POST_TIMEOUT_SECONDS", "60", 60.0),
    ("RETRY_QUEUE_URL", QUEUE, QUEUE),
    ("RETRY_QUEUE_URL", "http://localhost:4566/000000000000/q", "http://localhost:4566/000000000000/q"),
    ("RETRY_BACKOFF_SECONDS", "0", 0.0),
    ("RETRY_BACKOFF_SECONDS", "900", 900.0),
    ("MAX_DELIVERY_ATTEMPTS", "1", 1),
    ("MAX_DELIVERY_ATTEMPTS", "1000", 1_000),
    ("DEAD_LETTER_QUEUE_URL", QUEUE, QUEUE),
    ("FANOUT_QUEUE_URL", FIFO, FIFO),
    ("FANOUT_SHARDS", "1", 1),
    ("FANOUT_SHARDS", "1000", 1_000),
    ("FANOUT_MODE", "direct", "direct"),
    ("FANOUT_MODE", "fanout", "fanout"),
    ("FANOUT_MODE", "auto", "auto"),
    ("FANOUT_AUTO_CLIENTS", "1", 1),
    ("FANOUT_AUTO_CLIENTS", "1000000", 1_000_000),
    ("COALESCE", "off", False),
    ("COALESCE", "latest", True),
    ("FRAME_BYTES", "1024", 1_024),
    ("FRAME_BYTES", "131072", 131_072),
    ("MESSAGE_FORMATTER", "async_relay.wire.incidents:format_item", format_item),
    ("TRANSPORT", "direct", "direct"),
    ("TRANSPORT", "sdk", "sdk"),
    ("INCIDENT_TABLE", "Incident", "Incident"),
    ("INCIDENT_INDEX", "by-date", "by-date"),
    ("FEED_TABLE", "feed", "feed"),
    ("FEED_HOURS", "0.5", 0.5),
    ("FEED_HOURS", "72", 72.0),
    ("TTL_HOURS", "0.01", 0.01),
    ("TTL_HOURS", "8760", 8_760.0),
]


def refused(name: str, expected: str, *values: str) -> list[tuple[str, str, str]]:
    return [(name, value, expected) for value in values]


BAD = [
    *refused(
        "WS_ENDPOINT", AN_ENDPOINT, "wss://abc.execute-api.eu-west-1.amazonaws.com/prod", "ftp://a/b", "abc.com/x"
    ),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https:///prod", "https://", "prod", "https:///", "https://:443"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, ENDPOINT.removesuffix("/prod"), "https://localhost:8443", "http://[::1]"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, ENDPOINT.replace("https", "http"), "http://ws.example.com/prod"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, f"{ENDPOINT}/@connections/abc=", f"{ENDPOINT}/@connections/@connections"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://:pw@host/prod", "https://@host/prod", "https://ws.example.com?"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, f"{ENDPOINT}#", "https://..", "https://-.example", "https://ws,a.example"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://192.0.2.1", "https://[2001:db8::1]", "https://w\xdf.example"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://dynamodb.eu-west-1.amazonaws.com", "https://ws.example.com/prod/.."),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://abc.execute-api-fips.us-east-1.amazonaws.com", "https://host"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "http://10.0.0.1/prod", "http://localhost.example/prod", "http://[::2]/prod"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, f"{ENDPOINT}?x=1", f"{ENDPOINT}#top", "https://user:word@abc.com/prod"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://abc.com:0/prod", "https://abc.com:99999/p", "https://abc.com:x/p"),
    *refused("WS_ENDPOINT", AN_ENDPOINT, "https://[::1/prod", "https://abc.com/a b", "https://abc.com/a\r\nHost: evil"),
    *refused("CONNECTIONS_TABLE", A_TABLE, "ab", "t" * 256, "a b c", "table/x", "täble", f"{TABLE_ARN}/index/x"),
    *refused("INCIDENT_TABLE", A_TABLE, "x", "arn:aws:s3:::bucket", "a\nb\nc"),
    *refused("INCIDENT_INDEX", "the name of a global secondary index", "x", "by date"),
    *refused("FEED_TABLE", A_TABLE, "x", "arn:aws:s3:::bucket"),
    *refused("FEED_HOURS", "a number from 0.5 to 8,760", "0", "0.4", "8761", "a day"),
    *refused("CONNECTIONS_INDEX", AN_INDEX, "ab", "i" * 256, TABLE_ARN),
    *refused("CONNECTIONS_INDEX_SWEEP", "on or off", "yes", "ON", "1"),
    *refused(
        "MAX_CONCURRENCY", "a whole number from 1 to 900", "0", "901", "10000", "-1", "1.5", "ten", "1e3", "+5", "1_0"
    ),
    *refused("MAX_CONCURRENCY", "a whole number from 1 to 900", "9" * 5_000, "\u0661"),
    *refused("MAX_POSTS_PER_SECOND", "a number from 0.1 to 1e+06", "0", "0.09", "1000001", "-5", "nan", "inf", "fast"),
    *refused("POST_TIMEOUT_SECONDS", "a number from 0.05 to 60", "0", "0.049", "60.1", "3s", "1e1", "1.", "\u0663"),
    *refused(
        "RETRY_QUEUE_URL", A_QUEUE, "retries", "arn:aws:sqs:eu-west-1:1:q", "ftp://a/b", "https://host", "https://h/"
    ),
    *refused("RETRY_QUEUE_URL", A_QUEUE, "https://h/a b", "https:///q"),
    *refused("RETRY_QUEUE_URL", A_STANDARD_QUEUE, FIFO),
    *refused("RETRY_BACKOFF_SECONDS", "a number from 0 to 900", "-1", "901", "soon"),
    *refused("MAX_DELIVERY_ATTEMPTS", "a whole number from 1 to 1,000", "0", "1001", "6.0"),
    *refused("DEAD_LETTER_QUEUE_URL", A_QUEUE, "q"),
    *refused("DEAD_LETTER_QUEUE_URL", A_STANDARD_QUEUE, FIFO),
    *refused("FANOUT_QUEUE_URL", A_QUEUE, "q.fifo"),
    *refused("FANOUT_QUEUE_URL", A_FIFO_QUEUE, QUEUE),
    *refused("FANOUT_SHARDS", "a whole number from 1 to 1,000", "0", "1001", "all"),
    *refused("FANOUT_MODE", "direct, fanout or auto", "Auto", "none"),
    *refused("FANOUT_AUTO_CLIENTS", "a whole number from 1 to 1,000,000", "0", "1000001"),
    *refused("COALESCE", "off or latest", "on", "Latest"),
    *refused("FRAME_BYTES", "a whole number from 1,024 to 131,072", "0", "1023", "131073", "32KB", "32768.0"),
    *refused(
        "MESSAGE_FORMATTER", A_FUNCTION, "orders", "orders:", ":format", "a b:c", "a..b:c", "a:b:c", "a:b.c", "/a:b"
    ),
    *refused("MESSAGE_FORMATTER", f"{A_FUNCTION}, and there is no module no_such", "no_such:f", "no_such.orders:f"),
    *refused("MESSAGE_FORMATTER", f"{A_FUNCTION}, and there is no module json.no_such", "json.no_such:f"),
    *refused("MESSAGE_FORMATTER", f"{A_FUNCTION}, and json has no format", "json:format"),
    *refused("MESSAGE_FORMATTER", f"{A_FUNCTION}, and pi is no function but 3.141592653589793", "math:pi"),
    *refused("TRANSPORT", "direct or sdk", "Direct", "boto3", "direct,sdk"),
    *refused("AUTH_MODE", "none or jwt", "iam", "JWT", "on", "true"),
    *refused(
        "AUTH_ISSUER", AN_ISSUER, "http://issuer.example", "issuer.example", "ftp://a", f"{ISSUER}?a", f"{ISSUER}#"
    ),
    *refused("AUTH_AUDIENCE", "a comma list of audiences", ",", "relay,", "a,,b"),
    *refused("AUTH_JWKS_URL", AN_ISSUER, "http://issuer.example/keys", "/keys"),
    *refused("AUTH_ALGORITHMS", SOME_ALGORITHMS, "none", "HS256", "RS256,HS256", "rs256", "RS256,"),
    *refused("AUTH_SCOPE", "one scope, without spaces or quotes", "a b", 'a"b', "a\\b", "é"),
    *refused(
        "AUTH_ORIGINS",
        SOME_ORIGINS,
        "*",
        "https://A.example",
        "https://a.example:443",
        "https://a.example/",
        "https://*.example",
        "a.example",
        "null",
        "https://a,",
    ),
    *refused("AUTH_QUERY_TOKEN", "on or off", "yes", "true"),
    *refused("AUTHORIZER_ARN", "the ARN of a Lambda function", "tickets", f"{AUTHORIZER}:", "arn:aws:iam::1:role/x"),
    *refused("TENANT_ATTRIBUTE", "a name of at most 255 characters", "t" * 256),
    *refused("TENANT_CLAIM", "a name of at most 255 characters", "t" * 256),
    *refused("TTL_HOURS", "a number from 0.01 to 8,760", "0", "0.009", "8761", "-24", "day"),
]


#: What some values mean nothing without.
NEEDED = {
    ("FANOUT_MODE", "fanout"): {"FANOUT_QUEUE_URL": FIFO},
    ("FANOUT_MODE", "auto"): {"FANOUT_QUEUE_URL": FIFO},
    ("CONNECTIONS_INDEX_SWEEP", "off"): {"CONNECTIONS_INDEX": "by-shard"},
}
#: Variables that are checked here and read by others.
CHECKED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_SQS")
NO_URLS: tuple[str, ...] = (
    "nonsense",
    "https://",
    "ftp://a",
    "http://a b",
    "http://a:99999",
    "http://a:b",
    "http://:80",
    "http://@",
)
NO_URLS += ("http://[::1", "http://]", "http://a/?b", "http://a#b")
BAD += [each for name in CHECKED for each in refused(name, AN_AWS, *NO_URLS)]


def beside(name: str, text: str = "") -> dict[str, str]:
    """What a variable means nothing without."""
    if (name.startswith("AUTH") and name not in ("AUTH_MODE", "AUTH_ORIGINS")) or text == "jwt":
        return DOOR
    if name == "INCIDENT_INDEX":
        return {"INCIDENT_TABLE": "Incident"}
    return {"TENANT_ATTRIBUTE": "tenant"} if name == "TENANT_CLAIM" else NEEDED.get((name, text), {})


def value_of(name: str, environ: dict[str, str]) -> Any:
    return getattr(Settings.from_env(environ), name.lower())


def test_two_variables_are_enough() -> None:
    """With the endpoint and the table alone, every other variable has the default that is documented."""
    found = Settings.from_env(LEAST)
    assert {name: getattr(found, name.lower()) for name in DEFAULTS} == DEFAULTS
    assert (found.ws_endpoint, found.connections_table) == (ENDPOINT, "Connections")
    assert {field.name.upper() for field in fields(Settings)} == {*DEFAULTS, *LEAST}
    assert Settings(ENDPOINT, "Connections") == found


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
@pytest.mark.parametrize("name", list(DEFAULTS))
def test_an_empty_variable_counts_as_unset(name: str, blank: str) -> None:
    """A blank value, as a template leaves it for a parameter not given, means the default."""
    assert value_of(name, LEAST | {name: blank}) == DEFAULTS[name]


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_good_value_is_taken(name: str, text: str, value: Any) -> None:
    """A good value, white space around it or not, becomes the setting of that name and type."""
    found = value_of(name, LEAST | beside(name, text) | {name: text})
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(("name", "text", "expected"), BAD)
def test_a_bad_value_is_refused_in_one_sentence(name: str, text: str, expected: str) -> None:
    """The sentence names the variable, shows what it found and says what it expects."""
    with pytest.raises(SettingsError) as error:
        Settings.from_env(LEAST | beside(name) | {name: text})
    assert str(error.value) == f"{name} is {text!r}; it must be {expected}"
    assert "\n" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("blank", [None, "", "  "])
@pytest.mark.parametrize(
    ("name", "expected"), [("WS_ENDPOINT", AN_ENDPOINT), ("CONNECTIONS_TABLE", "a DynamoDB table's name")]
)
def test_a_required_variable_is_missed(name: str, expected: str, blank: str | None) -> None:
    """Without the endpoint or the table nothing starts, and the sentence says what to set."""
    environ = {key: value for key, value in LEAST.items() if key != name}
    if blank is not None:
        environ[name] = blank
    with pytest.raises(SettingsError) as error:
        Settings.from_env(environ)
    assert str(error.value) == f"{name} is not set; it must be {expected}"


def test_every_variable_has_a_bad_value_here() -> None:
    """No variable is left without a test of what it refuses."""
    assert {name for name, _, _ in BAD} == {*DEFAULTS, *LEAST, *CHECKED}


@pytest.mark.parametrize(("name", "value"), NEEDED)
def test_a_value_that_means_nothing_alone_is_refused(name: str, value: str) -> None:
    """A mode without its queue, or a sweep turned off without an index, would silently do something else."""
    (other,) = NEEDED[name, value]
    for blank in ({}, {other: ""}, {other: " "}):
        with pytest.raises(SettingsError) as error:
            Settings.from_env(LEAST | {name: value} | blank)
        assert str(error.value) == f"{name} is {value!r}, which needs {other} to be set too"


@pytest.mark.parametrize("name", ["AUTH_ISSUER", "AUTH_AUDIENCE", "AUTH_JWKS_URL", "AUTH_ALGORITHMS", "AUTH_SCOPE"])
def test_no_variable_of_tokens_stands_by_an_open_door(name: str) -> None:
    """Whoever set it thinks that tokens are checked."""
    text = next(text for found, text, _ in GOOD if found == name)
    for mode in ({}, {"AUTH_MODE": "none"}):
        with pytest.raises(SettingsError, match=f"^{name} is set, which means nothing without AUTH_MODE=jwt"):
            Settings.from_env(LEAST | mode | {name: text})


def test_no_token_is_read_from_a_query_at_an_open_door() -> None:
    with pytest.raises(SettingsError, match=r"^AUTH_QUERY_TOKEN is 'on', which needs AUTH_MODE to be jwt$"):
        Settings.from_env(LEAST | {"AUTH_QUERY_TOKEN": "on"})


@pytest.mark.parametrize("name", ["AUTH_ISSUER", "AUTH_AUDIENCE"])
@pytest.mark.parametrize("blank", [None, "", " "])
def test_a_closed_door_needs_an_issuer_and_an_audience(name: str, blank: str | None) -> None:
    """Unless an authorizer of the owner's own stands there."""
    environ = (
        LEAST | {key: value for key, value in DOOR.items() if key != name} | ({} if blank is None else {name: blank})
    )
    with pytest.raises(SettingsError, match=f"^{name} is not set; it must be .*, since AUTH_MODE is jwt$"):
        Settings.from_env(environ)
    assert Settings.from_env(environ | {"AUTHORIZER_ARN": AUTHORIZER}).auth_mode == "jwt"


def test_a_claim_of_tenants_needs_the_attribute() -> None:
    with pytest.raises(SettingsError, match=r"^TENANT_CLAIM is 'org', which needs TENANT_ATTRIBUTE to be set too$"):
        Settings.from_env(LEAST | DOOR | {"TENANT_CLAIM": "org"})


def test_rows_decide_where_the_door_is_closed_or_tenants_are_on() -> None:
    """A client without a row gets nothing then."""
    assert not Settings.from_env(LEAST).needs_row
    assert Settings.from_env(LEAST | DOOR).needs_row
    tenants = Settings.from_env(LEAST | {"TENANT_ATTRIBUTE": "tenant"})
    assert tenants.needs_row
    assert tenants.by_tenant


@pytest.mark.parametrize("name", CHECKED)
def test_an_address_of_aws_is_checked_where_the_others_are(name: str) -> None:
    """A good one changes nothing here: the SDK's rules say who reads it."""
    for url in (
        "http://localhost:4566",
        "HTTP://[::1]:80",
        "https://dynamodb.eu-west-1.amazonaws.com/",
        "http://a_b:1/a",
    ):
        assert Settings.from_env(LEAST | {name: url}) == Settings.from_env(LEAST)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([*DEFAULTS, *LEAST, *CHECKED]),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30),
)
def test_any_text_is_taken_or_refused(name: str, text: str) -> None:
    """Whatever an environment holds, it is a setting or the sentence that names it."""
    try:
        Settings.from_env(LEAST | beside(name) | {name: text})
    except SettingsError as error:
        assert str(error).startswith(f"{name} is ")  # noqa: PT017 - both outcomes are right
