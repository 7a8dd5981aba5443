"""docs/adopting.md as somebody follows it: its steps, its commands as the AWS CLI would read them, its code.

And what is there before: ``scan_and_loop.py`` as four functions of the local AWS, with an API and tables.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import shlex
import sysconfig
import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import jmespath
from botocore import xform_name
from documented_commands import ROOT, commands_in

GUIDE = (ROOT / "docs" / "adopting.md").read_text()
OLD_SOURCE = (Path(__file__).parent / "scan_and_loop.py").read_text()
STACK = "adopting"
OLD, TABLE = "IncidentStreamProcessor", "WebSocketConnections"
_REGION = "us-east-1"
#: What the guide's commands leave to whoever types them.
_NAMED = re.compile(r"\b(STACK|STREAM_ARN|API_ID|CONNECTION_ID|OLD_MAPPING|RELAY_MAPPING)\b")
_DEPLOY_SECONDS = 60


def step(number: int) -> str:
    """The text of a step."""
    found = re.search(rf"^### {number}\. .*?(?=^###? )", GUIDE, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the guide has no step {number}"
    return found[0]


def code(number: int, language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", step(number), re.MULTILINE | re.DOTALL)
    return str(found)


class Operator:
    """Somebody who types what the guide says; ``known`` is what to write for the words in capitals."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.known: dict[str, str] = {"STACK": STACK}
        self.parameters: dict[str, str] = {}
        self._session: Any = botocore.session.Session()
        self._session.set_credentials("test", "test")
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            where = {"region_name": _REGION, "endpoint_url": self.url}
            self._clients[service] = self._session.create_client(service, **where)
        return self._clients[service]

    def commands(self, number: int) -> list[str]:
        """The commands of a step that are typed to AWS."""
        return [each for each in commands_in(step(number)) if each.startswith(("aws ", "sam deploy "))]

    def type(self, command: str) -> Any:
        """Run a command; what it prints."""
        words = [_NAMED.sub(lambda found: self.known[found[0]], word) for word in shlex.split(command)]
        if words[:2] == ["sam", "deploy"]:
            return self.deploy(dict(word.split("=", 1) for word in words[3:]))
        return self._ask(words[1], words[2], words[3:])

    def _ask(self, service: str, operation: str, words: Sequence[str]) -> Any:
        client = self.client(service)
        name = operation.replace("-", "_")
        members = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[name]).input_shape.members
        options = {xform_name(member, "-"): (member, shape) for member, shape in members.items()}
        request, printed, left = {}, {"query": "@"}, list(words)
        while left:
            option = left.pop(0).removeprefix("--")
            if option in ("query", "output"):
                printed[option] = left.pop(0)
                continue
            values = list(itertools.takewhile(lambda word: not word.startswith("--"), left))
            del left[: len(values)]
            member, shape = options[option.removeprefix("no-")]
            request[member] = _value(shape, values) if values else not option.startswith("no-")
        return jmespath.search(printed["query"], getattr(client, name)(**request))

    async def follow(self, number: int) -> list[Any]:
        """Type all commands of a step; what they print."""
        return [await asyncio.to_thread(self.type, command) for command in self.commands(number)]

    def connections(self) -> set[str]:
        return {row["connectionId"]["S"] for row in self.client("dynamodb").scan(TableName=TABLE)["Items"]}

    def deploy(self, overrides: dict[str, str]) -> None:
        """As ``sam deploy`` does: what is not named stays as it was."""
        is_new = not self.parameters
        self.parameters |= {"LocalEndpoint": self.url, **overrides}
        cloudformation = self.client("cloudformation")
        (cloudformation.create_stack if is_new else cloudformation.update_stack)(
            StackName=STACK,
            TemplateURL=f"{self.url}/adopting-code/template",
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in self.parameters.items()],
        )
        waiter = cloudformation.get_waiter("stack_create_complete" if is_new else "stack_update_complete")
        waiter.config.delay, waiter.config.max_attempts = 0.1, _DEPLOY_SECONDS * 10
        waiter.wait(StackName=STACK)


def _value(shape: Any, words: Sequence[str]) -> Any:
    """An option's words as the AWS CLI reads them: JSON, its shorthand, or text."""
    if shape.type_name == "list":
        return [_value(shape.member, [word]) for word in words]
    (word,) = words
    if shape.type_name in ("structure", "map"):
        return json.loads(word) if word[0] == "{" else dict(pair.split("=") for pair in word.split(","))
    return word


# ---- What there was before


def _zip(name: str, source: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        file.writestr(name, source)
    return held.getvalue()


@dataclass
class Before:
    """The old functions on tables and an API of their own."""

    operator: Operator
    api: str = ""

    def make(self) -> None:
        for table, key in (("Incident", "id"), (TABLE, "connectionId")):
            streamed = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"} if table == "Incident" else None
            self.operator.client("dynamodb").create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                **({"StreamSpecification": streamed} if streamed else {}),
            )
        gateway = self.operator.client("apigatewayv2")
        self.api = gateway.create_api(
            Name=OLD, ProtocolType="WEBSOCKET", RouteSelectionExpression="$request.body.action"
        )["ApiId"]
        self._function(OLD, "process")
        for route, name in (("$connect", "connect"), ("$disconnect", "disconnect"), ("$default", "subscribe")):
            arn = self._function(name, name)
            uri = f"arn:aws:apigateway:{_REGION}:lambda:path/2015-03-31/functions/{arn}/invocations"
            target = gateway.create_integration(ApiId=self.api, IntegrationType="AWS_PROXY", IntegrationUri=uri)
            gateway.create_route(ApiId=self.api, RouteKey=route, Target=f"integrations/{target['IntegrationId']}")
        gateway.create_stage(ApiId=self.api, StageName="prod")
        stream = self.operator.client("dynamodb").describe_table(TableName="Incident")["Table"]["LatestStreamArn"]
        self.operator.client("lambda").create_event_source_mapping(
            FunctionName=OLD, EventSourceArn=stream, StartingPosition="LATEST", BatchSize=10
        )

    def _function(self, name: str, entry: str) -> str:
        variables = {
            "CONNECTIONS_TABLE": TABLE,
            "INCIDENT_TABLE": "Incident",
            "WS_ENDPOINT": f"{self.operator.url}/_aws/execute-api/{self.api}/prod/",
            "AWS_ENDPOINT_URL": self.operator.url,
        }
        made = self.operator.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role="arn:aws:iam::000000000000:role/old",
            Handler=f"scan_and_loop.{entry}",
            Code={"ZipFile": _zip("scan_and_loop.py", OLD_SOURCE)},
            Timeout=60,
            Environment={"Variables": variables},
        )
        return str(made["FunctionArn"])

    def change(self, lines: str) -> None:
        """Put lines into the old function, where it has a message made of a record."""
        place = re.compile(r"^( *)# Step 2 of the guide.*$", re.MULTILINE)
        source = place.sub(lambda found: textwrap.indent(lines, found[1]), OLD_SOURCE)
        assert source != OLD_SOURCE
        self.operator.client("lambda").update_function_code(FunctionName=OLD, ZipFile=_zip("scan_and_loop.py", source))

    def offer_relay(self) -> None:
        """The code and the template where ``sam deploy`` has them; the code is the checkout's."""
        s3 = self.operator.client("s3")
        s3.create_bucket(Bucket="adopting-code")
        path = [str(ROOT), sysconfig.get_path("purelib")]
        start = f"import sys\nsys.path[:0] = {path!r}\nexec(open({str(ROOT / 'handler.py')!r}).read())\n"
        s3.put_object(Bucket="adopting-code", Key="code.zip", Body=_zip("handler.py", start))
        template = (ROOT / "template.yaml").read_text()
        template = template.replace("CodeUri: .\n", "CodeUri: s3://adopting-code/code.zip\n")
        s3.put_object(Bucket="adopting-code", Key="template", Body=template.encode())
