"""What every test may rely on: made-up credentials, nothing of the machine's own AWS settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

_OURS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "a-session-token",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(scope="session", autouse=True)
def no_loop_by_accident() -> None:
    """looptime asks for the current loop before every test, and asyncio would make one for it that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("AWS_", "SSL_CERT", "POWERTOOLS_"))]:
        monkeypatch.delenv(name)
    for name, value in _OURS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
