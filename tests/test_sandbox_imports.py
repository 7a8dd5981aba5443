"""What a cold start loads: the relay and $connect pay for no token, and the authorizer for no AWS."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PREPARE = """
import sys, handler
from async_relay.testing.memory import MemoryServices, MemoryStore
from records import event, incident, record
handler._sandbox._services = MemoryServices(MemoryStore(["a="]))
route = {"requestContext": {"connectionId": "a="}, "body": '{"action":"ping"}'}
"""
CALLS = {
    "nothing": "",
    "lambda_handler": "assert handler.lambda_handler(event(record(incident(1)))) == {'batchItemFailures': []}",
    "deliver_handler": "handler.deliver_handler({'Records': []})",
    "connect_handler": "assert handler.connect_handler(route) == {'statusCode': 200}",
    "disconnect_handler": "assert handler.disconnect_handler(route) == {'statusCode': 200}",
    "heartbeat_handler": "assert handler.heartbeat_handler({}) == {'statusCode': 200}",
    "default_handler": "assert handler.default_handler(route) == {'statusCode': 200}",
}
AUTHORIZE = """
try:
    handler.authorize_handler({"methodArn": "arn", "headers": {"Authorization": "Bearer e30.e30.AA"}})
except Exception as error:
    assert str(error) == "Unauthorized", error
"""


def loaded_by(code: str, **environ: str) -> set[str]:
    """The packages that are loaded then."""
    return {name.split(".")[0] for name in modules_loaded_by(code, **environ)}


def modules_loaded_by(code: str, **environ: str) -> set[str]:
    found = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WS_ENDPOINT": "https://ws.example.com/prod",
        "CONNECTIONS_TABLE": "connections",
        **environ,
    }
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", f"{PREPARE}{code}\nprint(*sys.modules)"],
        env=found,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("entry_point", CALLS)
def test_no_other_entry_point_pays_for_tokens(entry_point: str) -> None:
    """PyJWT and cryptography stay where they are, and the SDK's aiohttp; Powertools loads a part of botocore."""
    assert not loaded_by(CALLS[entry_point]) & {"jwt", "cryptography", "aiohttp"}


def test_the_relay_waits_for_no_part_of_the_door() -> None:
    """What tokens and requests take is loaded with the first of them."""
    parts = {"authorize", "https_get", "issuer", "jwks", "requests", "tokens"}
    door = {f"async_relay.clients.{part}" for part in parts}
    for entry_point in ("lambda_handler", "deliver_handler", "connect_handler", "disconnect_handler"):
        assert not modules_loaded_by(CALLS[entry_point]) & door
    assert modules_loaded_by(CALLS["default_handler"]) >= door - {"async_relay.clients.authorize"}


def test_the_authorizer_pays_for_nothing_else() -> None:
    """It loads what checks tokens, and nothing that calls AWS."""
    door = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "https://issuer.example", "AUTH_AUDIENCE": "relay"}
    loaded = modules_loaded_by(AUTHORIZE, **door)
    assert "jwt" in loaded
    assert not loaded & {"aiohttp", "aiobotocore", "botocore.session"}
