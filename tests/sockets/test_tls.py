"""Which certificate authorities the sockets trust."""

from __future__ import annotations

import ssl
import time
from contextlib import suppress

import pytest
import trustme

from async_relay.aws import Aws
from async_relay.http.tls import certificate_authorities, trust

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
