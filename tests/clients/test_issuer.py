"""Getting the issuer's keys: discovery, and documents by HTTP that are bounded whatever the other end does."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from door import FakeIssuer, an_issuer, answer

from async_relay.clients.https_get import get_json
from async_relay.clients.issuer import Issuer
from async_relay.clients.refusals import KeysUnavailable


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    async with an_issuer() as issuer:
        yield issuer


DISCOVERY = "/.well-known/openid-configuration"


async def test_discovery_says_where_the_keys_are(issuer: FakeIssuer) -> None:
    """It is asked once; the request is a plain one, for one document."""
    found = Issuer(issuer.url)
    for _ in range(3):
        assert await found.keys() == {"keys": issuer.keys}
    assert issuer.asked == {DISCOVERY: 1, "/keys": 3}
    first = issuer.requests[0].decode()
    assert first.startswith(f"GET {DISCOVERY} HTTP/1.1\r\nHost: 127.0.0.1:")
    assert "Accept-Encoding: identity\r\n" in first


async def test_an_issuer_with_a_slash_at_its_end_is_asked_in_the_same_place(issuer: FakeIssuer) -> None:
    """Auth0's have one, and its document names it with it."""
    issuer.answers[DISCOVERY] = answer(issuer.discovery | {"issuer": f"{issuer.url}/"})
    assert await Issuer(f"{issuer.url}/").keys() == {"keys": issuer.keys}
    with pytest.raises(KeysUnavailable, match="does not name the issuer"):
        await Issuer(issuer.url).keys()


async def test_a_url_of_keys_needs_no_discovery(issuer: FakeIssuer) -> None:
    assert await Issuer("https://issuer.example", f"{issuer.url}/keys").keys() == {"keys": issuer.keys}
    assert issuer.asked == {"/keys": 1}


async def test_keys_that_moved_are_found_again(issuer: FakeIssuer) -> None:
    """After they could not be had where they were; a query belongs to the address."""
    found = Issuer(issuer.url)
    await found.keys()
    issuer.answers["/keys"] = answer({}, 404)
    issuer.answers["/new?p=policy"] = answer({"keys": [1]})
    issuer.answers[DISCOVERY] = answer(issuer.discovery | {"jwks_uri": f"{issuer.url}/new?p=policy"})
    with pytest.raises(KeysUnavailable, match="answers with status 404"):
        await found.keys()
    assert await found.keys() == {"keys": [1]}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"jwks_uri": "{url}/keys"},
        {"issuer": "https://other.example", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}/", "jwks_uri": "{url}/keys"},
        {"issuer": "{url}"},
        {"issuer": "{url}", "jwks_uri": "http://issuer.example/keys"},
        {"issuer": "{url}", "jwks_uri": "ftp://issuer.example/keys"},
        {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"},
        {"issuer": "{url}", "jwks_uri": "https://a@issuer.example/keys"},
        {"issuer": "{url}", "jwks_uri": ["{url}/keys"]},
        {"issuer": "{url}", "jwks_uri": "{url}/keys\r\nX: y"},
        {"issuer": "{url}", "jwks_uri": "{url}/keys?a\r\nX: y"},
    ],
)
async def test_a_document_that_speaks_for_another_is_refused(issuer: FakeIssuer, document: Any) -> None:
    """Another issuer's name, or keys that anybody on the way could replace."""
    if isinstance(document, dict):
        named = {
            name: each.replace("{url}", issuer.url) if isinstance(each, str) else each
            for name, each in document.items()
        }
        document = named
    issuer.answers[DISCOVERY] = answer(document)
    with pytest.raises(KeysUnavailable, match=r"does not name the issuer|names no https|is none that can be asked"):
        await Issuer(issuer.url).keys()
    assert issuer.asked == {DISCOVERY: 1}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (answer({}, 404), "answers with status 404"),
        (answer({}, 500), "answers with status 500"),
        (answer({}, 302, "Location: /keys\r\n"), "answers with status 302"),
        (answer({}, 204), "answers with status 204"),
        (answer(b"<html>"), "answers with something that is no JSON"),
        (answer(b""), "answers with something that is no JSON"),
        (answer(b"[" * 100_000), "answers with something that is no JSON"),
        (answer(b"\xff\xfe"), "answers with something that is no JSON"),
        (answer(b'"%b"' % (b"x" * 2_000_000)), "answers with more than we read"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300_000, "answers with more than we read"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "answers with something that is no JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "closes the connection before its answer is whole"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "answers with something that is no HTTP/1.1"),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello",
            "answers with something that is no",
        ),
        (b" ", "closes the connection before its answer is whole|is no HTTP"),
    ],
)
async def test_whatever_it_answers_is_a_failure_with_a_reason(issuer: FakeIssuer, said: bytes, reason: str) -> None:
    issuer.answers["/x"] = said
    with pytest.raises(KeysUnavailable, match=reason):
        await get_json(f"{issuer.url}/x")


@pytest.mark.parametrize(
    "said",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n',
        b'HTTP/1.1 200 OK\r\n\r\n{"a":1}',
        b'HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{"a":1}',
    ],
    ids=["in chunks", "until it closes", "of old", "after a 100"],
)
async def test_every_way_of_saying_it_is_read(issuer: FakeIssuer, said: bytes) -> None:
    issuer.answers["/x"] = said
    assert await get_json(f"{issuer.url}/x") == {"a": 1}


async def test_a_slow_or_missing_issuer_is_waited_for_no_longer_than_said(issuer: FakeIssuer) -> None:
    """Whether it accepts and says nothing, or nothing listens, or the name has no address."""
    issuer.delay = 60
    start = time.monotonic()
    with pytest.raises(KeysUnavailable, match=r"did not answer within 0\.05 s"):
        await get_json(f"{issuer.url}/x", timeout=0.05)
    assert time.monotonic() - start < 1
    for url in ("http://127.0.0.1:1/keys", "http://nowhere.invalid/keys", f"https://{'a' * 64}.example/"):
        with pytest.raises(KeysUnavailable, match=r"cannot be reached|did not answer"):
            await get_json(url, timeout=1)


async def test_a_certificate_must_be_one_we_trust(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """The system's authorities decide, or AWS_CA_BUNDLE where it is set; and the name must be right."""
    authority, issuer = trustme.CA(), FakeIssuer()
    issuer.answers["/keys"] = answer({"keys": []})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(issuer.serve, "localhost", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(KeysUnavailable, match="cannot be reached: SSLCertVerificationError"):
        await get_json(f"https://localhost:{port}/keys")
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    assert await get_json(f"https://localhost:{port}/keys") == {"keys": []}
    with pytest.raises(KeysUnavailable, match="cannot be reached"):
        await get_json(f"https://127.0.0.1:{port}/keys")
    server.close()
