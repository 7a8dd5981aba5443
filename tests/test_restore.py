"""Sandboxes restored from one snapshot (SnapStart): each serves, by itself, and waits for no module and no SDK.

A fork stands for the restore: the child goes on where the import of the handler ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytest
from container_endpoint import HOUR, answer, serving
from deployment import Deployed  # noqa: TC002 - reads better in one place, and costs nothing here

from async_relay.testing import Gateway

SNAPSHOT = """
import asyncio, gc, json, os, random, ssl, sys, threading
from contextlib import suppress
import handler
from records import event, incident, record

def opened():
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the folder itself, closed by now
            if int(number) > 2:
                yield os.readlink(f"/proc/self/fd/{number}")

def made():
    # Loops, TLS contexts and sources of random numbers, which no two sandboxes may share.
    kinds = (asyncio.AbstractEventLoop, ssl.SSLContext, random.Random)
    return [repr(each) for each in gc.get_objects() if isinstance(each, kinds) and each is not random._inst]

def serve():
    failures = handler.lambda_handler(event(record(incident(1))))
    connected = handler.connect_handler({"requestContext": {"connectionId": f"of-{os.getpid()}="}})
    told = {
        "failures": failures["batchItemFailures"],
        "connected": connected["statusCode"],
        "random": handler._sandbox._relay._broadcaster.random.random(),
        "modules": sorted(sys.modules),
    }
    os.write(told_to, json.dumps(told).encode() + b"\\n")

held = {
    "open": list(opened()),
    "made": made(),
    "threads": threading.active_count(),
    "modules": sorted(sys.modules),
}
told_to = os.dup(1)
os.dup2(2, 1)
os.write(told_to, json.dumps(held).encode() + b"\\n")
for restored in range(int(sys.argv[2])):
    if os.fork() == 0:
        os.environ.update(json.loads(sys.argv[1]))
        status = 1
        try:
            serve()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    assert os.wait()[1] == 0
"""
SDK = {"aioboto3", "aiobotocore", "aiobotocore.session", "boto3", "botocore.session", "aiohttp"}


NOTHING = {"open": [], "made": [], "threads": 1}
LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="Lambda is a Linux, and only there a fork can be looked into"
)


async def snapshot_and_restore(
    environ: Mapping[str, str], entry_point: str = "lambda_handler", restored: int = 2
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the snapshot holds, and what each sandbox restored from it says after its invocations."""
    at_init = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_ACC", "AWS_SEC", "AWS_SES"))
    }
    at_init |= {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start", "_HANDLER": f"handler.{entry_point}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SNAPSHOT,
        json.dumps(dict(environ)),
        str(restored),
        env=at_init | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    held, *served = [json.loads(line) for line in out.splitlines()]
    return held, served


@LINUX
async def test_two_sandboxes_of_one_snapshot(deployed: Deployed, gateway: Gateway) -> None:
    """The snapshot holds nothing open and no random numbers; each sandbox has its own, and its own credentials."""
    deployed.fill("a=")
    async with serving(answer(time.time() + HOUR)) as endpoint:
        held, served = await snapshot_and_restore(endpoint.environ)
        assert {name: held[name] for name in NOTHING} == NOTHING
        assert not SDK & set(held["modules"])
        assert [(each["failures"], each["connected"]) for each in served] == [([], 200)] * 2
        assert served[0]["random"] != served[1]["random"]
        assert len(endpoint.asked) == 2
    assert len(gateway.received["a="]) == 2
    assert gateway.bad_signatures == 0
    assert len(deployed.rows()) == 3


@LINUX
async def test_credentials_of_the_container_load_no_sdk(deployed: Deployed, gateway: Gateway) -> None:
    """Nor any other module. Neither for a broadcast nor for $connect: table and posts are signed with them."""
    deployed.fill("a=")
    async with serving(answer(time.time() + HOUR)) as endpoint:
        held, served = await snapshot_and_restore(endpoint.environ)
    for each in served:
        assert not SDK & set(each["modules"])
        assert set(each["modules"]) - set(held["modules"]) == set()
    assert len(gateway.received["a="]) == 2


@LINUX
@pytest.mark.parametrize("entry_point", ["authorize_handler", "default_handler", "heartbeat_handler"])
async def test_what_is_loaded_ahead_opens_and_draws_nothing(entry_point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever modules the entry point takes: their import makes nothing that two sandboxes must not share."""
    monkeypatch.setenv("WS_ENDPOINT", "https://ws.example.com/prod")
    monkeypatch.setenv("CONNECTIONS_TABLE", "connections")
    held, _ = await snapshot_and_restore({}, entry_point, restored=0)
    assert {name: held[name] for name in NOTHING} == NOTHING
    assert {"uvloop", "aws_lambda_powertools"} <= set(held["modules"])
