"""Which certificate authorities a socket trusts.

Rules
- ``AWS_CA_BUNDLE`` decides where it is set, as it does for every AWS SDK.
- Otherwise AWS's own hosts are checked against Amazon's five roots (``amazon_roots.pem``): no other CA vouches
  for AWS, and five are read forty times as fast as the hundred and more of the system.
- Every other host is checked against the system's CAs.
- Should AWS ever show a certificate that the five do not vouch for, the system's CAs are trusted too from then
  on, and an error in the log says so: a newer file is better, and an outage until then is worse.

Source: Amazon Trust Services, "Root CAs".
"""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakSet

_AMAZON_ROOTS = Path(__file__).with_name("amazon_roots.pem")
_AWS_DOMAIN = ".amazonaws.com"
#: The contexts that trust Amazon's roots alone.
_pinned: WeakSet[ssl.SSLContext] = WeakSet()
# OpenSSL's X509_V_ERR_* of a chain that ends in no CA we know; an old date or another name is none of them.
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21})


def certificate_authorities(url: str, ca_bundle: str | None) -> str | None:
    """The PEM file with the CAs to trust at ``url``, where ``ca_bundle`` is AWS_CA_BUNDLE; None: the system's."""
    if ca_bundle:
        return ca_bundle
    return str(_AMAZON_ROOTS) if (urlsplit(url).hostname or "").endswith(_AWS_DOMAIN) else None


def trust(ca_file: str | None) -> ssl.SSLContext:
    """A TLS context that verifies against ``ca_file`` (PEM), or the system's CAs; raises ``OSError``."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if ca_file == str(_AMAZON_ROOTS):
        _pinned.add(context)
    return context


def is_pinned(context: ssl.SSLContext | None) -> bool:
    """Whether a context trusts Amazon's five roots and no other CA."""
    return context in _pinned


def trust_system_too(context: ssl.SSLContext, error: ssl.SSLCertVerificationError) -> bool:
    """Add the system's CAs to a context whose own do not know an issuer; False where ``error`` says anything else."""
    if error.verify_code not in _UNKNOWN_ISSUER:
        return False
    context.load_default_certs()
    _pinned.discard(context)
    return True
