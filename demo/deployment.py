"""The zip built and the real ``template.yaml`` deployed, as SAM would do it.

Rules
- The template is deployed as it stands but for ``CodeUri``, which must name the uploaded zip:
  ``sam package`` does the same.
- The zip is for the local AWS's own interpreter: that is what its functions run on.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import DemoError
from .installation import last_error
from .local_aws import LocalAws
from .processes import run

ROOT = Path(__file__).parent.parent
_STACK = "async-relay-demo"
_BUCKET = "async-relay-demo"
_CODE = re.compile(r"^(\s*)CodeUri:\s*\S+[ \t]*$", re.MULTILINE)
_DEPLOY_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Stack:
    """What the demo needs to know of what it deployed."""

    websocket_url: str
    incident_table: str
    connections_table: str


async def build(zip_file: Path) -> None:
    """Make the Lambda zip for the interpreter the local AWS runs on."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    script = str(ROOT / "packaging" / "build.py")
    options = ("--python-version", version, "--arch", "native", "--output", str(zip_file))
    status, output = await run(sys.executable, script, *options)
    if status:
        raise DemoError(f"The Lambda zip could not be built: {last_error(output)}")


async def deploy(aws: LocalAws, template: str, zip_file: Path) -> Stack:
    """Upload the zip and create the stack; ``DemoError`` says which resource failed, and why."""
    code = await _upload(aws, zip_file)
    body, functions = _CODE.subn(rf"\g<1>CodeUri: {code}", template)
    if not functions:
        raise DemoError("The template has no CodeUri to put the zip in")
    async with aws.client("cloudformation") as cloudformation:
        await cloudformation.create_stack(
            StackName=_STACK,
            TemplateBody=body,
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": "LocalEndpoint", "ParameterValue": aws.endpoint}],
        )
        outputs = await _until_created(cloudformation)
    return _stack(aws, outputs)


async def _upload(aws: LocalAws, zip_file: Path) -> str:
    async with aws.client("s3") as s3:
        await s3.create_bucket(Bucket=_BUCKET)
        await s3.put_object(Bucket=_BUCKET, Key=zip_file.name, Body=await asyncio.to_thread(zip_file.read_bytes))
    return f"s3://{_BUCKET}/{zip_file.name}"


async def _until_created(cloudformation: Any) -> dict[str, str]:
    deadline = time.monotonic() + _DEPLOY_SECONDS
    while time.monotonic() < deadline:
        [stack] = (await cloudformation.describe_stacks(StackName=_STACK))["Stacks"]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        if stack["StackStatus"] != "CREATE_IN_PROGRESS":
            events = (await cloudformation.describe_stack_events(StackName=_STACK))["StackEvents"]
            raise DemoError(f"The template was not deployed: {_first_failure(events) or stack['StackStatus']}")
        await asyncio.sleep(0.2)
    raise DemoError(f"The template was not deployed within {_DEPLOY_SECONDS} seconds")


def _first_failure(events: Iterable[Mapping[str, Any]]) -> str:
    failed = [event for event in events if "FAILED" in event["ResourceStatus"] and event.get("ResourceStatusReason")]
    oldest = min(failed, key=lambda event: event["Timestamp"], default=None)
    return f"{oldest['LogicalResourceId']}: {oldest['ResourceStatusReason']}" if oldest else ""


def _stack(aws: LocalAws, outputs: Mapping[str, str]) -> Stack:
    """The local AWS serves an API under its own address, not under the API's."""
    host, stage = re.sub(r"^wss?://", "", outputs["WebSocketUrl"]).split("/", 1)
    path = f"_aws/execute-api/{host.split('.')[0]}/{stage}"
    return Stack(
        f"ws://{aws.endpoint.removeprefix('http://')}/{path}", outputs["IncidentTable"], outputs["ConnectionsTable"]
    )
