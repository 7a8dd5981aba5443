"""The test kit: an API Gateway that does what a test tells it to, over real sockets, and doubles in memory.

scripts   what it answers, and to whom        pure
trust     signatures and certificates         botocore's signer, trustme
gateway   the server
process   the same, and any other object, in a process of its own
memory    transport, connection store, queue, and the services of a sandbox in memory, with scripted faults
"""

from ..http.sigv4 import Credentials
from .gateway import Counters, Gateway
from .process import GatewayProcess, gateway_process
from .scripts import (
    Answer,
    Choice,
    Cut,
    Drip,
    Garbage,
    Half,
    Hang,
    Plan,
    RateLimit,
    Script,
    SlowHeader,
    Until,
    huge_header,
)
from .trust import Tls

__all__ = [
    "Answer",
    "Choice",
    "Counters",
    "Credentials",
    "Cut",
    "Drip",
    "Garbage",
    "Gateway",
    "GatewayProcess",
    "Half",
    "Hang",
    "Plan",
    "RateLimit",
    "Script",
    "SlowHeader",
    "Tls",
    "Until",
    "gateway_process",
    "huge_header",
]
