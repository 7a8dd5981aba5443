"""A socket to the endpoint: whether it opens, what its TLS chooses, what time it is there.

Rules
- TLS is verified as the relay verifies it. The one difference: h2 is offered beside http/1.1, to see which is chosen.
- One request without a signature follows on a connection of its own: any answer has the time in its ``Date``.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from async_relay.checks.deployment import Endpoint, Unknown
from async_relay.http.tls import certificate_authorities, trust

_SECONDS = 5


def probe(url: str, connection: Callable[[], int | Unknown]) -> Endpoint:
    """What a socket to ``url`` meets; ``connection`` asks for the status of GET @connections/{id}, once it opens."""
    where = urlsplit(url)
    try:
        if where.scheme == "https":
            tls, protocol = _handshake(where)
            shown: str | Unknown = protocol
        else:
            tls, shown = "", Unknown("plain HTTP has no TLS to offer a protocol in")
        ahead = _ahead(where)
    except (OSError, UnicodeError, http.client.HTTPException) as error:
        return Endpoint(problem=_sentence(error))
    return Endpoint("", tls, shown, ahead, connection())


def verifying(url: str) -> ssl.SSLContext:
    """A context that trusts at ``url`` whom the relay trusts, the system's CAs it falls back on included."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    context = trust(certificate_authorities(url, bundle))
    if not bundle:
        context.load_default_certs()
    return context


def _handshake(where: SplitResult) -> tuple[str, str]:
    """TLS's version, and the protocol that was chosen of the two offered; empty where none was."""
    context = verifying(where.geturl())
    context.set_alpn_protocols(["h2", "http/1.1"])
    host = where.hostname or ""
    with (
        socket.create_connection((host, where.port or 443), _SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secure,
    ):
        return secure.version() or "", secure.selected_alpn_protocol() or ""


def _ahead(where: SplitResult) -> float | Unknown:
    """By how many seconds this machine's clock is ahead, at least."""
    host, port = where.hostname or "", where.port
    connection = (
        http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=verifying(where.geturl()))
        if where.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=_SECONDS)
    )
    try:
        before = time.time()
        connection.request("GET", where.path or "/")
        date = connection.getresponse().getheader("Date", "")
        return _between(before, parsedate_to_datetime(date).timestamp(), time.time())
    except ValueError:
        return Unknown("the endpoint's answer has no Date")
    finally:
        connection.close()


def _between(before: float, date: float, after: float) -> float:
    """How far our clock is ahead at least, if the other one showed ``date``, in whole seconds, some time between."""
    return min(after - date, 0.0) or max(before - (date + 1), 0.0)


def _sentence(error: Exception) -> str:
    """What went wrong, without a full stop."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
