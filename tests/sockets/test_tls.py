"""Which certificate authorities the sockets trust."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import trustme
from transports import CREDENTIALS, post_all

from async_relay.aws import Aws
from async_relay.errors import PostError, Unreachable
from async_relay.http.direct import DirectTransport
from async_relay.http.tls import certificate_authorities, context_for, fallback, trust
from async_relay.testing.gateway import Gateway

API = "https://abc.execute-api.eu-west-1.amazonaws.com/prod"


def test_aws_is_vouched_for_by_its_own_roots_alone() -> None:
    """Five CAs, all Amazon's, good for years."""
    certificates = trust(certificate_authorities(API, None)).get_ca_certs()
    names = sorted(str(dict(part[0] for part in each["subject"])["commonName"]) for each in certificates)  # type: ignore[misc]
    assert names == [
        *(f"Amazon Root CA {n}" for n in range(1, 5)),
        "Starfield Services Root Certificate Authority - G2",
    ]
    five_years = time.time() + 5 * 365 * 86_400
    assert all(ssl.cert_time_to_seconds(str(each["notAfter"])) > five_years for each in certificates)


@pytest.mark.parametrize(
    ("url", "bundle", "expected"),
    [
        (API, "/bundle.pem", "/bundle.pem"),
        ("https://localhost:8000/prod", None, None),
        ("https://ws.example.com/prod", None, None),
        ("https://amazonaws.com.example/prod", None, None),
        ("https://evil-amazonaws.com/prod", None, None),
    ],
)
def test_other_hosts_are_vouched_for_by_the_system_or_the_bundle(
    url: str, bundle: str | None, expected: str | None
) -> None:
    """AWS_CA_BUNDLE goes first; a host that is not AWS's own has the system's CAs."""
    assert certificate_authorities(url, bundle) == expected


def test_http_1_is_all_that_is_offered() -> None:
    """A server that prefers HTTP/2 is told that it cannot be."""
    authority = trustme.CA()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("localhost").configure_cert(theirs)
    with authority.cert_pem.tempfile() as file:
        ours = trust(file)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ours.wrap_bio(back, there, server_hostname="localhost")
    server = theirs.wrap_bio(there, back, server_side=True)
    for side in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.selected_alpn_protocol() == server.selected_alpn_protocol() == "http/1.1"


async def test_one_context_serves_all_sockets_to_aws() -> None:
    """It is read once, and names and certificates are checked; plain HTTP has none."""
    aws = Aws({})
    context = await aws.tls(API)
    assert context is await aws.tls("https://dynamodb.eu-west-1.amazonaws.com")
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert await aws.tls("http://localhost/prod") is None


@pytest.fixture
async def elsewhere(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """An endpoint whose certificate only the system's CAs vouch for."""
    async with Gateway(credentials=CREDENTIALS, tls=True) as gateway:
        monkeypatch.setenv("SSL_CERT_FILE", str(gateway.ca_file))
        yield gateway


def direct(gateway: Gateway, context: ssl.SSLContext) -> DirectTransport:
    async def credentials() -> object:
        return CREDENTIALS

    return DirectTransport(gateway.endpoint, region="us-east-1", credentials=credentials, tls=context)  # type: ignore[arg-type]


def pinned() -> ssl.SSLContext:
    return trust(certificate_authorities(API, None), falls_back=True)


async def posted(gateway: Gateway, context: ssl.SSLContext, count: int = 1) -> list[PostError | None]:
    transport = direct(gateway, context)
    await transport.begin()
    answers = await post_all(transport, [(f"client-{n}=", b"{}") for n in range(count)])
    await transport.close()
    return answers


async def test_a_new_root_of_amazons_is_no_outage(elsewhere: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """What the five do not vouch for, the system's CAs may; one error says so, and no post fails for it."""
    context = pinned()
    assert await posted(elsewhere, context, 30) == [None] * 30
    assert await posted(elsewhere, context) == [None]
    (error,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert "Amazon's roots do not vouch for localhost; the system's CAs do" in error
    assert context_for(context, "dynamodb.eu-west-1.amazonaws.com") is context
    assert len(context.get_ca_certs()) == 5


async def test_what_nobody_vouches_for_stays_refused_and_widens_nothing(
    elsewhere: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A forged certificate is asked about and refused; the next one that only the system knows is a first again."""
    context = pinned()
    with monkeypatch.context() as nobody:
        nobody.setenv("SSL_CERT_FILE", str(certificate_authorities(API, None)))
        (answer,) = await posted(elsewhere, context)
    assert isinstance(answer, Unreachable)
    assert elsewhere.posts.total() == 0
    assert caplog.records == []
    assert context_for(context, "localhost") is context


@pytest.mark.parametrize("code", [9, 10, 62, 64])
def test_only_an_unknown_issuer_is_asked_about(code: int) -> None:
    """A certificate that is too young, too old, or of another name is refused, whoever issued it."""
    error = ssl.SSLCertVerificationError("refused")
    error.verify_code = code
    assert fallback(pinned(), error) is None
    error.verify_code = 20
    assert fallback(pinned(), error) is not None


async def test_a_bundle_of_the_owners_is_never_widened(elsewhere: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    """AWS_CA_BUNDLE decides alone, although the system's CAs would vouch; also where it is Amazon's own file."""
    aws = Aws({"AWS_CA_BUNDLE": str(certificate_authorities(API, None))})
    context = await aws.tls(elsewhere.endpoint)
    assert context is not None
    (answer,) = await posted(elsewhere, context)
    assert isinstance(answer, Unreachable)
    assert caplog.records == []


async def test_only_awss_own_hosts_fall_back() -> None:
    """Every other host is checked against the system's CAs as it is."""
    error = ssl.SSLCertVerificationError("refused")
    error.verify_code = 20
    assert fallback(await Aws({}).tls(API), error) is not None
    assert fallback(await Aws({}).tls("https://ws.example.com"), error) is None
    assert fallback(None, error) is None
