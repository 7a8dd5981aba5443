"""Sandboxes restored from one snapshot (SnapStart): each serves, by itself, and waits for no SDK.

A fork stands for the restore: the child goes on where the import of the handler ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

import pytest
from container_endpoint import HOUR, Endpoint, answer, serving
from deployment import Deployed  # noqa: TC002 - reads better in one place, and costs nothing here

from async_relay.testing import Gateway

SNAPSHOT = """
import json, os, sys, threading
from contextlib import suppress
import handler
from records import event, incident, record

def opened():
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the folder itself, closed by now
            if int(number) > 2:
                yield os.readlink(f"/proc/self/fd/{number}")

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
    "threads": threading.active_count(),
    "modules": sorted(sys.modules),
}
told_to = os.dup(1)
os.dup2(2, 1)
os.write(told_to, json.dumps(held).encode() + b"\\n")
for restored in range(2):
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


async def snapshot_and_restore(endpoint: Endpoint) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the snapshot holds, and what each of two restored sandboxes says after an invocation."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_ACC", "AWS_SEC", "AWS_SES"))
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SNAPSHOT,
        json.dumps(endpoint.environ),
        env=environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    held, *served = [json.loads(line) for line in out.splitlines()]
    return held, served


@pytest.mark.skipif(sys.platform != "linux", reason="Lambda is a Linux, and only there a fork can be looked into")
async def test_two_sandboxes_of_one_snapshot(deployed: Deployed, gateway: Gateway) -> None:
    """The snapshot holds no socket, loop or thread; each sandbox has credentials and random numbers of its own."""
    deployed.fill("a=")
    async with serving(answer(time.time() + HOUR)) as endpoint:
        held, served = await snapshot_and_restore(endpoint)
        assert (held["open"], held["threads"]) == ([], 1)
        assert not {"aws_lambda_powertools", *SDK} & set(held["modules"])
        assert [(each["failures"], each["connected"]) for each in served] == [([], 200)] * 2
        assert served[0]["random"] != served[1]["random"]
        assert len(endpoint.asked) == 2
    assert len(gateway.received["a="]) == 2
    assert gateway.bad_signatures == 0
    assert len(deployed.rows()) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="Lambda is a Linux, and only there a fork can be looked into")
async def test_credentials_of_the_container_load_no_sdk(deployed: Deployed, gateway: Gateway) -> None:
    """Neither for a broadcast nor for $connect: table and posts are signed with them."""
    deployed.fill("a=")
    async with serving(answer(time.time() + HOUR)) as endpoint:
        _, served = await snapshot_and_restore(endpoint)
    for each in served:
        assert not SDK & set(each["modules"])
    assert len(gateway.received["a="]) == 2
