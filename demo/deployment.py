"""The zip built and the real ``template.yaml`` deployed, as SAM would do it.

Rules
- The template is deployed as it stands but for ``CodeUri``, which must name the uploaded zip:
  ``sam package`` does the same.
- The zip is for the local AWS's own interpreter: that is what its functions run on.
"""

from __future__ import annotations

import asyncio
import platform
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import DemoError
from .feed import TENANT
from .installation import last_error
from .issuer import AUDIENCE, TENANTS_CLAIM, Issuer
from .local_aws import LocalAws
from .processes import run

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "template.yaml"
STACK = "async-relay-demo"
_BUCKET = "async-relay-demo"
_CODE = re.compile(r"^(\s*)CodeUri:\s*\S+[ \t]*$", re.MULTILINE)
_DEPLOY_SECONDS = 60
_PROCESSOR = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


@dataclass(frozen=True, slots=True)
class Stack:
    """What the demo needs to know of what it deployed."""

    websocket_url: str
    incident_table: str
    connections_table: str
    retry_queue: str


@dataclass(frozen=True, slots=True)
class Artefacts:
    """What is deployed; with a revision, its functions have versions."""

    template: Path
    zip_file: Path
    revision: str = ""


def is_built(zip_file: Path) -> bool:
    """True where the zip was made of these sources, for this interpreter."""
    stamp = _stamp(zip_file)
    return zip_file.is_file() and stamp.is_file() and stamp.read_text() == _fingerprint()


async def build(zip_file: Path) -> None:
    """Make the zip for this interpreter, which is the local AWS's too; ``DemoError`` where it cannot be made."""
    wanted = _fingerprint()
    script = str(ROOT / "packaging" / "build.py")
    status, output = await run(sys.executable, script, "--arch", "native", "--output", str(zip_file))
    if status:
        raise DemoError(last_error(output))
    _stamp(zip_file).write_text(wanted)


def _stamp(zip_file: Path) -> Path:
    return zip_file.with_suffix(".made-of")


def _fingerprint() -> str:
    """Changes with whatever the zip is made of."""
    sources = [ROOT / "handler.py", ROOT / "packaging" / "requirements.lock", ROOT / "packaging" / "build.py"]
    sources += sorted((ROOT / "async_relay").rglob("*.py"))
    digest = sha256(sys.version.encode())
    for source in sources:
        digest.update(str(source.relative_to(ROOT)).encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def released(folder: Path) -> Artefacts:
    """A release's template and zip, once each of its files is as its sums say; ``DemoError`` where one is not."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise DemoError(f"{sums} is not there; make release makes one")
    files = {}
    for digest, name in (line.split("  ", 1) for line in sums.read_text().splitlines()):
        path = folder / name
        if not path.is_file() or sha256(path.read_bytes()).hexdigest() != digest:
            raise DemoError(f"{path} is not as {sums} says")
        files[path.suffix] = path
    return Artefacts(files[".yaml"], files[".zip"], revision=files[".zip"].stem)


async def deploy(aws: LocalAws, artefacts: Artefacts, parameters: Mapping[str, str]) -> Stack:
    """Upload the zip and create the stack; ``DemoError`` says which resource failed, and why."""
    location = f"s3://{_BUCKET}/{artefacts.zip_file.name}"
    body, functions = _CODE.subn(rf"\g<1>CodeUri: {location}", artefacts.template.read_text())
    if not functions:
        raise DemoError("The template has no CodeUri to put the zip in")
    await _upload(aws, artefacts.zip_file, body)
    values = {"LocalEndpoint": aws.endpoint, "Architecture": _PROCESSOR, "Revision": artefacts.revision, **parameters}
    async with aws.client("cloudformation") as cloudformation:
        await cloudformation.create_stack(
            StackName=STACK,
            TemplateURL=f"{aws.endpoint}/{_BUCKET}/{TEMPLATE.name}",
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()],
        )
        outputs = await _until_created(cloudformation)
    await _turn_time_to_live_on(aws, outputs["ConnectionsTable"], outputs["FeedTable"])
    return _stack(aws, outputs)


def door(issuer: Issuer) -> dict[str, str]:
    """The parameters that close the stack's door: tokens of this issuer, and tenants."""
    return {
        "AuthMode": "jwt",
        "AuthIssuer": issuer.url,
        "AuthAudience": AUDIENCE,
        "AuthQueryToken": "on",  # the local AWS loses the subprotocol; on AWS a page offers its token there
        "TenantAttribute": TENANT,
        "TenantClaim": TENANTS_CLAIM,
    }


async def _upload(aws: LocalAws, zip_file: Path, template: str) -> None:
    """Both go through S3, as by ``sam deploy``: CloudFormation takes 51,200 bytes of a template directly."""
    async with aws.client("s3") as s3:
        await s3.create_bucket(Bucket=_BUCKET)
        await s3.put_object(Bucket=_BUCKET, Key=zip_file.name, Body=await asyncio.to_thread(zip_file.read_bytes))
        await s3.put_object(Bucket=_BUCKET, Key=TEMPLATE.name, Body=template.encode())


async def _turn_time_to_live_on(aws: LocalAws, *names: str) -> None:
    """The template asks for it, and the local AWS does it when it is asked by itself."""
    async with aws.client("dynamodb") as dynamodb:
        for name in names:
            await dynamodb.update_time_to_live(
                TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
            )


async def _until_created(cloudformation: Any) -> dict[str, str]:
    deadline = time.monotonic() + _DEPLOY_SECONDS
    while time.monotonic() < deadline:
        [stack] = (await cloudformation.describe_stacks(StackName=STACK))["Stacks"]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        if stack["StackStatus"] != "CREATE_IN_PROGRESS":
            events = (await cloudformation.describe_stack_events(StackName=STACK))["StackEvents"]
            raise DemoError(f"The template was not deployed: {_first_failure(events) or stack['StackStatus']}")
        await asyncio.sleep(0.2)
    raise DemoError(f"The template was not deployed within {_DEPLOY_SECONDS} seconds")


async def what_functions_said(aws: LocalAws) -> dict[str, list[str]]:
    """The log of each function, line by line."""
    said: dict[str, list[str]] = {}
    async with aws.client("logs") as logs:
        for group in (await logs.describe_log_groups())["logGroups"]:
            events = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
            function = group["logGroupName"].removeprefix(f"/aws/lambda/{STACK}-")
            said[function] = [event["message"].rstrip() async for page in events for event in page["events"]]
    return said


def _first_failure(events: Iterable[Mapping[str, Any]]) -> str:
    failed = [event for event in events if "FAILED" in event["ResourceStatus"] and event.get("ResourceStatusReason")]
    oldest = min(failed, key=lambda event: event["Timestamp"], default=None)
    return f"{oldest['LogicalResourceId']}: {oldest['ResourceStatusReason']}" if oldest else ""


def _stack(aws: LocalAws, outputs: Mapping[str, str]) -> Stack:
    """The local AWS serves an API under its own address, not under the API's."""
    host, stage = re.sub(r"^wss?://", "", outputs["WebSocketUrl"]).split("/", 1)
    path = f"_aws/execute-api/{host.split('.')[0]}/{stage}"
    return Stack(
        f"ws://{aws.endpoint.removeprefix('http://')}/{path}",
        outputs["IncidentTable"],
        outputs["ConnectionsTable"],
        outputs["RetryQueueUrl"],
    )
