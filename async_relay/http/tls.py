"""Which certificate authorities a socket trusts.

Rules
- ``AWS_CA_BUNDLE`` decides where it is set, as it does for every AWS SDK.
- Otherwise AWS's own hosts are checked against Amazon's five roots (``amazon_roots.pem``): no other CA vouches
  for AWS, and five are read forty times as fast as the hundred and more of the system.
- Every other host is checked against the system's CAs.
- Should one of AWS's hosts show a certificate that the five do not vouch for, the system's CAs are asked. If they
  vouch for it, they are trusted too for that host from then on, and an error in the log says so: a newer file is
  better, and an outage until then is worse.

Source: Amazon Trust Services, "Root CAs".
"""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

_AMAZON_ROOTS = Path(__file__).with_name("amazon_roots.pem")
_AWS_DOMAIN = ".amazonaws.com"
#: The contexts that fall back on the system's CAs, each with those that took its place, by host.
_fallbacks: WeakKeyDictionary[ssl.SSLContext, dict[str, ssl.SSLContext]] = WeakKeyDictionary()
# OpenSSL's X509_V_ERR_* of a chain that ends in no CA we know; an old date or another name is none of them.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})


def certificate_authorities(url: str, ca_bundle: str | None) -> str | None:
    """The PEM file with the CAs to trust at ``url``, where ``ca_bundle`` is AWS_CA_BUNDLE; None: the system's."""
    if ca_bundle:
        return ca_bundle
    return str(_AMAZON_ROOTS) if (urlsplit(url).hostname or "").endswith(_AWS_DOMAIN) else None


def trust(ca_file: str | None, *, falls_back: bool = False) -> ssl.SSLContext:
    """A TLS context that verifies against ``ca_file`` (PEM), or the system's CAs; raises ``OSError``.

    ``falls_back``: where the file does not know an issuer, the system's CAs may.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if falls_back:
        _fallbacks[context] = {}
    return context


def context_for(context: ssl.SSLContext | None, host: str) -> ssl.SSLContext | None:
    """The context, or what took its place for this host."""
    return _fallbacks.get(context, {}).get(host, context) if context is not None else None


def fallback(context: ssl.SSLContext | None, error: ssl.SSLCertVerificationError) -> ssl.SSLContext | None:
    """A context that trusts the system's CAs too, to try once more with; None where ``error`` is to stand.

    Reads the system's CAs, which takes 40 ms.
    """
    if context not in _fallbacks or error.verify_code not in _UNKNOWN_ISSUER:
        return None
    wider = trust(None)
    wider.load_verify_locations(_AMAZON_ROOTS)
    return wider


def replace_for(host: str, context: ssl.SSLContext | None, wider: ssl.SSLContext) -> bool:
    """Use ``wider`` for this host from now on, since it has proved right; False where that was so already."""
    known = _fallbacks.get(context, {}) if context is not None else {}
    first = host not in known
    known[host] = wider
    return first
