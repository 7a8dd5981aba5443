"""The surroundings of every script: the gateway and the table, each in its process, and an environment of its own.

Rules
- Children get this environment and nothing of the machine's: no proxy, no profile, no CA bundle, no endpoint.
- Both servers speak TLS with certificates of their own; a bundle of the two authorities is all that is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from async_relay.testing import Credentials, GatewayProcess, gateway_process
from async_relay.testing.process import RemoteObject
from async_relay.wire.streams import read_records

from .peers.worker import ACCESS_KEY, REGION, SECRET_KEY, TOKEN, Setup

ROOT = Path(__file__).resolve().parent.parent
CREDENTIALS = Credentials(ACCESS_KEY, SECRET_KEY, TOKEN)


@dataclass(frozen=True, slots=True)
class Stage:
    """The servers, and how a child reaches them."""

    gateway: GatewayProcess
    table: RemoteObject
    scratch: Path
    environ: Mapping[str, str]

    @property
    def bundle(self) -> Path:
        """The file of the authorities to trust."""
        return self.scratch / "trusted.pem"

    def setup(self, concurrency: int, body_bytes: int) -> Setup:
        """The setup that a peer is sent."""
        event = stream_event(body_bytes)
        return Setup(self.gateway.endpoint, str(self.bundle), concurrency, body_of(event), event)


@contextmanager
def stage(*, latency: float = 0.0, verify: bool = False) -> Iterator[Stage]:
    """Open both servers; ``latency`` in seconds, ``verify``: signatures are checked, and everything is kept."""
    options: dict[str, Any] = {"credentials": CREDENTIALS, "region": REGION} if verify else {"keep": False}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(TemporaryDirectory(prefix="async-relay-")))
        gateway = stack.enter_context(gateway_process(tls=True, latency=latency, **options))
        table = stack.enter_context(closing(RemoteObject("benchmarks.table", "Table", {}, environment())))
        url, pem = table.call("facts")
        here = Stage(gateway, table, scratch, environment(scratch / "trusted.pem", url))
        here.bundle.write_bytes(Path(gateway.ca_file).read_bytes() + pem)
        yield here


def environment(bundle: Path | None = None, table_url: str = "") -> dict[str, str]:
    """The whole environment of a child."""
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    if bundle is not None:
        environ |= {"AWS_CA_BUNDLE": str(bundle), "NODE_EXTRA_CA_CERTS": str(bundle)}
    if table_url:
        environ |= {"AWS_ENDPOINT_URL_DYNAMODB": table_url}
    return environ


def take_over(environ: Mapping[str, str]) -> None:
    """Make it this process's own AWS environment."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ |= {name: value for name, value in environ.items() if name.startswith("AWS_")}


def stream_event(body_bytes: int, sequences: range = range(1, 2)) -> dict[str, Any]:
    """A stream event of incidents, one a sequence, each a message of ``body_bytes``."""
    records = [_record(sequence, "") for sequence in sequences]
    for at, sequence in enumerate(sequences):
        padding = body_bytes - len(body_of({"Records": records[at : at + 1]}))
        records[at] = _record(sequence, "x" * max(0, padding))
    return {"Records": records}


def body_of(event: Mapping[str, Any]) -> bytes:
    """The payload of its first record."""
    message = read_records(event)[0].message
    assert message is not None
    return message.body


def least_body() -> int:
    """The size of the smallest message there is."""
    return len(body_of({"Records": [_record(10**12, "")]}))


def _record(sequence: int, padding: str) -> dict[str, Any]:
    item = {
        "incident_id": f"inc-{sequence:012d}",
        "status": "OPEN",
        "severity": "HIGH",
        "event_type": "AuthorizeSecurityGroupIngress",
        "arn": f"arn:aws:ec2:eu-west-1:123456789012:security-group/sg-0a1b2c3d{padding}",
        "created_at": "2025-01-01T10:00:00Z",
        "updated_at": "2025-01-01T10:00:05Z",
    }
    return {
        "eventID": f"event-{sequence:012d}",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": REGION,
        "dynamodb": {
            "Keys": {"incident_id": {"S": item["incident_id"]}},
            "NewImage": {name: {"S": value} for name, value in item.items()},
            "SequenceNumber": str(sequence),
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }
