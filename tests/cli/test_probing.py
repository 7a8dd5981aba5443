"""What a socket to the endpoint meets: real TLS on loopback with each choice of protocol, and odd servers."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from async_relay.checks.deployment import Endpoint, Unknown
from async_relay.cli.probing import _between, probe
from async_relay.testing import Tls
from async_relay.testing.trust import Certificates

Answer = Callable[[], bytes]


def dated(seconds: float = 0.0) -> bytes:
    """An answer of API Gateway, whose clock is that far from ours."""
    return f"HTTP/1.1 403 Forbidden\r\nDate: {formatdate(time.time() + seconds, usegmt=True)}\r\n\r\n".encode()


@pytest.fixture(scope="module")
def certificates() -> Certificates:
    return Certificates()


@pytest.fixture
def trusted(certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(certificates.pem)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))


@contextmanager
def server(answer: Answer = dated, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Its URL: it answers each request with the same, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=_serve, args=(listening, answer, context))
        thread.start()
        scheme = "https" if context else "http"
        try:
            yield f"{scheme}://localhost:{listening.getsockname()[1]}/prod"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listening: socket.socket, answer: Answer, context: ssl.SSLContext | None) -> None:
    while True:
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(listening.accept()[0])
            except OSError:
                return
            try:
                if context is not None:
                    connection = stack.enter_context(context.wrap_socket(connection, server_side=True))
                if connection.recv(4096):
                    connection.sendall(answer())
            except OSError:
                pass


def connected() -> int:
    return 410


def never() -> int:
    raise AssertionError("nobody is to be asked where no connection opens")


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize(("offered", "chosen"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], "")])
def test_the_protocol_that_tls_chooses(offered: list[str], chosen: str, certificates: Certificates) -> None:
    """h2 where the server has it, and HTTP/1.1 is spoken all the same; none where it has no opinion."""
    context = certificates.context(Tls())
    context.set_alpn_protocols(offered)
    with server(context=context) as url:
        met = probe(url, connected)
    assert (met.problem, met.protocol, met.connection) == ("", chosen, 410)
    assert met.tls.startswith("TLSv1.")
    assert met.ahead_seconds == 0.0


def test_plain_http_has_no_protocol_to_choose() -> None:
    """It is not checked, with the reason."""
    with server() as url:
        met = probe(url, connected)
    assert met == Endpoint("", "", Unknown("plain HTTP has no TLS to offer a protocol in"), 0.0, 410)


@pytest.mark.parametrize("certificate", ["wrong host", "expired", "self-signed"])
@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_the_relay_would_not_trust(certificate: Any, certificates: Certificates) -> None:
    """The endpoint cannot be reached, and the sentence says that it is the certificate."""
    with server(context=certificates.context(Tls(certificate))) as url:
        met = probe(url, never)
    assert met.problem.startswith("its certificate is not trusted (")
    assert isinstance(met.protocol, Unknown)


@pytest.mark.parametrize(("seconds", "ahead"), [(-400.0, 400.0), (400.0, -400.0), (-3_600.0, 3_600.0)])
def test_a_clock_that_is_wrong(seconds: float, ahead: float) -> None:
    """By the Date of any answer, to a second or two."""
    with server(lambda: dated(seconds)) as url:
        met = probe(url, connected)
    assert isinstance(met.ahead_seconds, float)
    assert abs(met.ahead_seconds - ahead) <= 2


def test_a_slow_answer_is_no_wrong_clock() -> None:
    """Date has whole seconds, and was written some time between the request and the answer."""
    assert _between(100.9, 100.0, 107.0) == 0.0
    assert _between(100.9, 106.0, 107.0) == 0.0
    assert _between(100.0, 90.0, 107.0) == 9.0
    assert _between(100.0, 110.0, 107.0) == -3.0


@pytest.mark.parametrize("line", [b"", b"Date: yesterday\r\n"])
def test_an_answer_without_a_date(line: bytes) -> None:
    """The clock is not known, and the endpoint is there."""
    with server(lambda: b"HTTP/1.1 403 Forbidden\r\n" + line + b"\r\n") as url:
        met = probe(url, connected)
    assert met.ahead_seconds == Unknown("the endpoint's answer has no Date")
    assert met.problem == ""


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 403 Forbidden\r\n" + b"X: y\r\n" * 200 + b"\r\n"]
)
def test_an_answer_that_is_no_http(answer: bytes) -> None:
    """One sentence, whatever answers there."""
    with server(lambda: answer) as url:
        met = probe(url, never)
    assert met.problem
    assert "\n" not in met.problem


@pytest.mark.parametrize("url", ["http://localhost:9/prod", f"https://{'a' * 70}.example.com/prod"])
def test_where_nobody_listens(url: str) -> None:
    """A port that is closed, and a name that no resolver takes."""
    met = probe(url, never)
    assert met.problem
    assert not met.problem.endswith(".")
