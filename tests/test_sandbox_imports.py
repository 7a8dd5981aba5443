"""What a cold start loads: the relay and $connect pay for no token, and the authorizer for no AWS.

A sandbox that is made ahead (SnapStart, provisioned concurrency) has loaded at INIT what on demand comes late.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PREPARE = """
import handler
at_init = set(sys.modules)
from async_relay.testing.memory import MemoryServices, MemoryStore
from records import event, incident, record
handler._sandbox._services = MemoryServices(MemoryStore(["a="]))
route = {"requestContext": {"connectionId": "a="}, "body": '{"action":"ping"}'}
before = set(sys.modules)
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


DOOR = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "https://issuer.example", "AUTH_AUDIENCE": "relay"}
AHEAD = ("snap-start", "provisioned-concurrency")


def loaded_by(code: str, **environ: str) -> set[str]:
    """The packages that are loaded then."""
    return {name.split(".")[0] for name in modules_loaded_by(code, **environ)}


def modules_loaded_by(code: str, **environ: str) -> set[str]:
    return set(run(f"{code}\nprint(*sys.modules)", **environ).splitlines()[-1].split())


def lambdas(kind: str, entry_point: str) -> dict[str, str]:
    """What Lambda itself sets."""
    return {"AWS_LAMBDA_INITIALIZATION_TYPE": kind, "_HANDLER": f"handler.{entry_point}"}


def loaded_at_init(kind: str, entry_point: str, **environ: str) -> set[str]:
    """The modules, where Lambda makes the sandbox of ``kind`` for this entry point."""
    return set(run("print(*at_init)", **environ, **lambdas(kind, entry_point)).splitlines()[-1].split())


def loaded_late(kind: str, entry_point: str, call: str, **environ: str) -> set[str]:
    """The modules that the first invocation loads in such a sandbox."""
    said = run(f"{call}\nprint(*set(sys.modules) - before)", **environ, **lambdas(kind, entry_point))
    return set(said.splitlines()[-1].split())


def run(code: str, *, before: str = "", **environ: str) -> str:
    """What is said by a process that has loaded the handler, after what comes ``before`` it."""
    found = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "WS_ENDPOINT": "https://ws.example.com/prod",
        "CONNECTIONS_TABLE": "connections",
        **environ,
    }
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", f"import sys\n{before}{PREPARE}{code}"],
        env=found,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


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
    loaded = modules_loaded_by(AUTHORIZE, **DOOR)
    assert "jwt" in loaded
    assert not loaded & {"aiohttp", "aiobotocore", "botocore.session"}


@pytest.mark.parametrize(("entry_point", "call"), [*list(CALLS.items())[1:], ("authorize_handler", AUTHORIZE)])
def test_the_first_invocation_of_a_restored_sandbox_loads_nothing(entry_point: str, call: str) -> None:
    """All it needs is in the snapshot, what writes log lines and metrics too."""
    assert loaded_late("snap-start", entry_point, call, **DOOR if "authorize" in entry_point else {}) == set()


def test_a_snapshot_holds_no_aiohttp() -> None:
    """Its import makes TLS contexts; a provisioned sandbox, whose memory is its own, has it ready."""
    snapshot, provisioned = (loaded_at_init(kind, "authorize_handler", **DOOR) for kind in AHEAD)
    assert provisioned - snapshot >= {"aiohttp", "aiohttp.connector"}
    assert {"jwt", "cryptography"} <= snapshot


@pytest.mark.parametrize("kind", ["on-demand", "lambda-managed-instances", ""])
def test_nobody_who_waits_for_init_waits_for_more(kind: str) -> None:
    """On demand, or in whatever Lambda comes to call otherwise, each module is loaded when it is needed."""
    loaded = loaded_at_init(kind, "authorize_handler", **DOOR)
    assert not loaded & {"uvloop", "aws_lambda_powertools", "jwt", "aiohttp", "async_relay.clients.requests"}


def test_a_module_that_cannot_be_loaded_ahead_is_named_and_missed_by_nobody_else() -> None:
    """Without uvloop the standard loop serves, as it does on demand, and the others are loaded all the same."""
    code = f"{CALLS['lambda_handler']}\nprint(*at_init)"
    said = run(code, before="sys.modules['uvloop'] = None", **lambdas("snap-start", "lambda_handler"))
    warning, *_, loaded = said.splitlines()
    assert json.loads(warning)["message"] == "uvloop cannot be loaded ahead of the first invocation"
    assert "aws_lambda_powertools.metrics" in loaded.split()
