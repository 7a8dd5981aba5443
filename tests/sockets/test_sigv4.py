"""Our signature is botocore's, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from async_relay.http import sigv4
from async_relay.http.sigv4 import Credentials, Signer, quote_id, signing_key

KEY = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOON = datetime(2024, 5, 1, 12, 0, 0, tzinfo=UTC)
HOST = "abc.execute-api.eu-west-1.amazonaws.com"
PREFIX = "/prod/@connections/"

HOSTILE = st.text(st.one_of(st.sampled_from("=/+%&?#:;@ .~-_*'\\\"<>"), st.characters(codec="utf-8")), min_size=1)
IDS = st.one_of(HOSTILE, st.sampled_from([".", "..", "..."]), st.from_regex(r"[A-Za-z0-9_-]{12,15}=", fullmatch=True))
STAGES = st.lists(st.from_regex(r"[A-Za-z0-9_$~-][A-Za-z0-9_.$~-]{0,8}", fullmatch=True), min_size=1, max_size=3)
# Ports other than a scheme's own, which botocore leaves out of the Host header.
PORTS = st.one_of(st.just(""), st.integers(1_024, 65_535).map(":{}".format))
HOSTS = st.builds("{}{}".format, st.sampled_from([HOST, "localhost", "127.0.0.1", "xn--bcher-kva.example"]), PORTS)
REGIONS = st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1", "local"])
DATES = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis wants them naive
TOKENS = st.one_of(st.none(), st.just(""), st.from_regex(r"[A-Za-z0-9+/]{1,300}={0,2}", fullmatch=True))
SECRETS = st.from_regex(r"[A-Za-z0-9+/]{1,80}", fullmatch=True)


@contextmanager
def botocores_clock_at(now: datetime) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: now.replace(tzinfo=None))
        yield


def botocores_headers(url: str, body: bytes, region: str, credentials: Credentials, now: datetime) -> list[str]:
    """The header lines of botocore's signature of the same request, in the order we send them."""
    request = AWSRequest("POST", url, data=body)
    theirs = ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token)
    with botocores_clock_at(now):
        botocore.auth.SigV4Auth(theirs, "execute-api", region).add_auth(request)
    assert set(request.headers) <= {"X-Amz-Date", "X-Amz-Security-Token", "Authorization"}
    names = ("X-Amz-Date", "X-Amz-Security-Token", "Authorization")
    return [f"{name}: {request.headers[name]}" for name in names if name in request.headers]


@settings(deadline=None, max_examples=250)
@given(IDS, STAGES, HOSTS, REGIONS, DATES, SECRETS, TOKENS, st.binary(max_size=50))
@example("Zx=", ["prod"], HOST, "eu-west-1", NOON, SECRET, "a-token", b"{}")
@example("a=/+%25 ü✓=", ["pröd".encode().hex()], f"{HOST}:8443", "eu-west-1", NOON, SECRET, None, b"")
def test_the_headers_are_botocores(
    connection_id: str,
    stages: list[str],
    host: str,
    region: str,
    now: datetime,
    secret: str,
    token: str | None,
    body: bytes,
) -> None:
    """Authorization, X-Amz-Date and the token's header equal botocore's for the same wire request."""
    prefix = f"/{'/'.join(stages)}/@connections/"
    credentials = Credentials(KEY, secret, token)
    sign = Signer(host, prefix, region, credentials).at(now)
    ours = sign(quote_id(connection_id), sha256(body).hexdigest())
    theirs = botocores_headers(f"https://{host}{prefix}{quote_id(connection_id)}", body, region, credentials, now)
    assert ours.decode().split("\r\n") == [*theirs, ""]


@settings(deadline=None, max_examples=50)
@given(DATES, TOKENS, st.sampled_from(["DynamoDB_20120810.BatchWriteItem", "AmazonSQS.SendMessageBatch"]))
def test_another_services_operation_is_signed_too(now: datetime, token: str | None, target: str) -> None:
    """A service of the JSON protocol has its operation in X-Amz-Target, and that is among the signed headers."""
    credentials = Credentials(KEY, SECRET, token)
    host = "dynamodb.eu-west-1.amazonaws.com"
    sign = Signer(host, "/", "eu-west-1", credentials, service="dynamodb", target=target).at(now)
    request = AWSRequest("POST", f"https://{host}/", data=b"{}", headers={"X-Amz-Target": target})
    with botocores_clock_at(now):
        theirs = ReadOnlyCredentials(KEY, SECRET, token)
        botocore.auth.SigV4Auth(theirs, "dynamodb", "eu-west-1").add_auth(request)
    ours = dict(line.split(": ", 1) for line in sign("", sha256(b"{}").hexdigest()).decode().splitlines())
    assert ours == dict(request.headers.items())


def test_one_signature_is_a_known_value() -> None:
    """A fixed request has this signature, whatever libraries are installed."""
    sign = Signer(HOST, PREFIX, "eu-west-1", Credentials(KEY, SECRET)).at(NOON)
    assert sign("L0SM9cOFvHcCIhw%3D", sha256(b"hello").hexdigest()) == (
        b"X-Amz-Date: 20240501T120000Z\r\n"
        b"Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240501/eu-west-1/execute-api/aws4_request, "
        b"SignedHeaders=host;x-amz-date, "
        b"Signature=ea9c17fe4f74e1e5bb1ae8c30e3c8cf0124982226bd94ffeb69f0b795b5549d1\r\n"
    )


def test_the_signing_key_is_a_known_value() -> None:
    """The key of this secret, day and Region is this, whatever libraries are installed."""
    key = signing_key(SECRET, "20150830", "us-east-1")
    assert key.hex() == "93b1c5eb2fe9ca2ea35c60c8c2216092743113fd16a90223462cdd68ec95b5a7"


def test_one_sign_serves_many_posts() -> None:
    """Signing one post leaves nothing behind that changes another's signature."""
    signer = Signer(HOST, PREFIX, "eu-west-1", Credentials(KEY, SECRET, "token"))
    sign = signer.at(NOON)
    first = sign("a", "0" * 64)
    assert sign("b", "0" * 64) != first
    assert sign("a", "1" * 64) != first
    assert sign("a", "0" * 64) == first
    assert signer.at(NOON)("a", "0" * 64) == first


def test_the_signing_key_is_derived_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is derived once a day (UTC), and the signature is botocore's on both sides of midnight."""
    derived: list[str] = []

    def counting(secret_key: str, day: str, *scope: str) -> bytes:
        derived.append(day)
        return signing_key(secret_key, day, *scope)

    monkeypatch.setattr(sigv4, "signing_key", counting)
    credentials = Credentials(KEY, SECRET)
    signer = Signer(HOST, PREFIX, "eu-west-1", credentials)
    moments = [NOON, NOON.replace(hour=23, minute=59, second=59), datetime(2024, 5, 2, tzinfo=UTC)]
    for now in moments:
        ours = signer.at(now)("x", sha256(b"").hexdigest()).decode().split("\r\n")
        assert ours == [*botocores_headers(f"https://{HOST}{PREFIX}x", b"", "eu-west-1", credentials, now), ""]
    assert derived == ["20240501", "20240502"]


@pytest.mark.parametrize(
    ("connection_id", "quoted"),
    [
        ("L0SM9cOFvHcCIhw=", "L0SM9cOFvHcCIhw%3D"),
        ("AZaz09-._~", "AZaz09-._~"),
        ("a/b+c%d e", "a%2Fb%2Bc%25d%20e"),
        ("é", "%C3%A9"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
    ],
)
def test_an_id_is_percent_encoded_once_in_the_path(connection_id: str, quoted: str) -> None:
    """Everything but the unreserved characters of RFC 3986 is encoded, in UTF-8 and capital letters."""
    assert quote_id(connection_id) == quoted


def test_credentials_show_no_secret() -> None:
    """A repr in a log holds the access key's name, but neither the secret nor the token."""
    assert repr(Credentials(KEY, SECRET, "token")) == "Credentials(access_key='AKIDEXAMPLE')"
