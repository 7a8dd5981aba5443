"""Whether the two sides can trust each other: the posts' signatures, the gateway's certificate.

Rules of a signature (Signature Version 4), recomputed with botocore's own signer from what was received
- Method, path as on the wire, query, body, and the headers it names: ``host`` and every ``x-amz-*`` must be among them.
- Its scope is the given access key, the day of its date, the Region and ``execute-api``; its date is within five
  minutes of now; the session token is the given one, or absent where there is none.
- What breaks a rule is a 403 with the error API Gateway gives.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from json import dumps
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..http.sigv4 import SERVICE, Credentials
from .scripts import Answer

if TYPE_CHECKING:
    from trustme import CA

_DATE = "%Y%m%dT%H%M%SZ"
_GOOD_FOR = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<scope>[^,\s]+),\s*SignedHeaders=(?P<names>[^,\s]+),\s*Signature=(?P<sign>[^,\s]+)"
).fullmatch


class Request(NamedTuple):
    """One request as it came: nothing decoded, header names in lower case."""

    method: bytes
    target: bytes
    body: bytes
    headers: list[tuple[bytes, bytes]]


class _Untrusted(Exception):
    """What is wrong with a signature: API Gateway's error type, and its sentence."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SignatureCheck:
    """Checks every ``every``-th signature against botocore's (0: none)."""

    def __init__(self, credentials: Credentials, region: str, every: int = 1) -> None:
        # botocore takes a quarter of a second to load, and who checks nothing need not have it.
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import ReadOnlyCredentials

        self._credentials = credentials
        self._region = region
        self._every = every
        self._seen = 0
        self._request = AWSRequest
        self._signer = SigV4Auth(
            ReadOnlyCredentials(credentials.access_key, credentials.secret_key, credentials.token), SERVICE, region
        )

    def refusal(self, request: Request) -> Answer | None:
        """None for a good signature and for one that is not looked at, else the 403."""
        self._seen += 1
        if not self._every or self._seen % self._every:
            return None
        try:
            self._verify(request)
        except _Untrusted as error:
            body = dumps({"message": str(error)}).encode()
            return Answer(403, body=body, headers=(("x-amzn-ErrorType", error.kind),))
        return None

    def _verify(self, request: Request) -> None:
        headers = _joined(request.headers)
        parts = _AUTHORIZATION(headers.get("authorization", ""))
        if parts is None:
            raise _Untrusted("MissingAuthenticationTokenException", "Missing Authentication Token")
        date = headers.get("x-amz-date", "")
        self._verify_token(headers.get("x-amz-security-token"))
        self._verify_date(date)
        self._verify_scope(parts["scope"], date)
        names = parts["names"].split(";")
        _verify_names(names, headers)
        digest = headers.get("x-amz-content-sha256")
        right = self._sign(request, {name: headers[name] for name in names}, date)
        if parts["sign"] != right or digest not in (None, sha256(request.body).hexdigest()):
            raise _Untrusted(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided. "
                "Check your AWS Secret Access Key and signing method.",
            )

    def _verify_token(self, token: str | None) -> None:
        if token != self._credentials.token:
            raise _Untrusted("UnrecognizedClientException", "The security token included in the request is invalid.")

    def _verify_date(self, date: str) -> None:
        try:
            signed_at = datetime.strptime(date, _DATE).replace(tzinfo=UTC)
        except ValueError:
            raise _Untrusted("IncompleteSignatureException", f"'{date}' is no date of a signature.") from None
        now = datetime.now(UTC)
        if abs(now - signed_at) > _GOOD_FOR:
            tense = "expired" if signed_at < now else "not yet current"
            raise _Untrusted("InvalidSignatureException", f"Signature {tense}: {date} against {now:{_DATE}}")

    def _verify_scope(self, scope: str, date: str) -> None:
        access_key, _, rest = scope.partition("/")
        if access_key != self._credentials.access_key:
            raise _Untrusted("UnrecognizedClientException", "The security token included in the request is invalid.")
        if rest != f"{date[:8]}/{self._region}/{SERVICE}/aws4_request":
            raise _Untrusted("InvalidSignatureException", f"Credential should not be scoped to '{rest}'.")

    def _sign(self, request: Request, headers: dict[str, str], date: str) -> str:
        url = f"https://{headers['host']}{request.target.decode('latin-1')}"
        again = self._request(method=request.method.decode(), url=url, headers=headers, data=request.body)
        again.context["timestamp"] = date
        to_sign = self._signer.string_to_sign(again, self._signer.canonical_request(again))
        return self._signer.signature(to_sign, again)


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def _verify_names(names: list[str], headers: dict[str, str]) -> None:
    needed = {"host"} | {name for name in headers if name.startswith("x-amz-")}
    if not needed <= set(names) <= set(headers):
        raise _Untrusted(
            "IncompleteSignatureException", f"Sent and signed must be {', '.join(sorted(needed))}; signed: {names}."
        )


@dataclass(frozen=True, slots=True)
class Tls:
    """What a client meets when it asks for TLS; all but the first of each kind must make it give up."""

    certificate: Literal["valid", "wrong host", "expired", "self-signed"] = "valid"
    handshake: Literal["done", "refused", "hangs"] = "done"


class Certificates:
    """A certificate authority of its own; ``pem`` is what a client has to trust."""

    def __init__(self) -> None:
        """Raise ``ImportError`` where trustme is missing."""
        try:
            import trustme  # Late: plain HTTP does without.
        except ImportError:
            raise ImportError("TLS needs trustme: install it from the checkout: pip install '.[testing]'") from None

        self._new_authority = trustme.CA
        self._authority: CA = trustme.CA()
        self.pem: bytes = self._authority.cert_pem.bytes()

    def context(self, tls: Tls) -> ssl.SSLContext:
        """The server's side of ``tls``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        if tls.certificate == "self-signed":
            stranger = self._new_authority()
            with stranger.private_key_pem.tempfile() as key, stranger.cert_pem.tempfile() as certificate:
                context.load_cert_chain(certificate, key)
            return context
        host = "elsewhere.example" if tls.certificate == "wrong host" else "localhost"
        ends = datetime.now(UTC) + timedelta(days=-1 if tls.certificate == "expired" else 30)
        leaf = self._authority.issue_cert(host, not_before=ends - timedelta(days=60), not_after=ends)
        leaf.configure_cert(context)
        return context
