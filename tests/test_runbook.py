"""The first symptoms of docs/operations.md, brought about on a local AWS and mended by what the document says.

The commands are read from the document and run as they stand there, but for the names in capitals.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
import shlex
import site
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import uuid4

import boto3
import jmespath
import pytest
from botocore import xform_name
from cloudformation import ROOT, Stack
from deployment import Context, incidents, new_table
from lambda_models import run_virtually, wall_clock
from records import event, incident

from async_relay.client.picture import News, Picture
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing import Gateway
from async_relay.testing.memory import MemoryServices, MemoryStore

#: What a function of the local AWS runs: the handler of this checkout, with the packages of these tests.
ENTRY = f"import sys\nsys.path[:0] = {[str(ROOT), *site.getsitepackages()]!r}\nfrom handler import lambda_handler\n"


# ── the document ────────────────────────────────────────────────────────────────────────────────


def section(title: str) -> str:
    """What the runbook says about a symptom."""
    text = (ROOT / "docs" / "operations.md").read_text()
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(title: str) -> list[list[str]]:
    """What is to be run, command by command."""
    (block,) = re.findall(r"^```\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]


def run_aws(url: str, command: list[str], names: Mapping[str, str]) -> Any:
    """The answer of the AWS CLI, which takes its options from the same description of the services as boto3."""
    _, service, operation, *words = (names.get(word, word) for word in command)
    client = boto3.client(service, endpoint_url=url)
    method = operation.replace("-", "_")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    members = {xform_name(name, "-"): (name, shape.type_name) for name, shape in model.input_shape.members.items()}
    arguments: dict[str, Any] = {}
    query = "@"
    options = iter(words)
    for option in options:
        name, kind = members.get(option.removeprefix("--").removeprefix("no-"), ("", ""))
        if option == "--query":
            query = next(options)
        elif option == "--output":
            next(options)
        else:
            arguments[name] = not option.startswith("--no-") if kind == "boolean" else next(options)
    return jmespath.search(query, getattr(client, method)(**arguments))


# ── a local AWS ─────────────────────────────────────────────────────────────────────────────────


class Account:
    """An Incident table with a stream, one client's row, and functions of a local AWS that read the stream."""

    def __init__(self, url: str, endpoint: str = "") -> None:
        self.url = url
        self.rows = new_table(url)
        self._endpoint = endpoint
        self._mappings: list[str] = []
        self._incidents = f"incidents-{uuid4()}"
        self.dynamodb = boto3.client("dynamodb", endpoint_url=url)
        self._lambda = boto3.client("lambda", endpoint_url=url)
        table = self.dynamodb.create_table(
            TableName=self._incidents,
            AttributeDefinitions=[{"AttributeName": "incident_id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "incident_id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        self.stream = table["TableDescription"]["LatestStreamArn"]
        self.dynamodb.put_item(TableName=self.rows, Item={"connectionId": {"S": "a="}})

    def deploy(self, *, enabled: bool = True) -> str:
        """A relay function that reads the stream, or would; its name."""
        name, code = f"relay-{uuid4()}", io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("entry.py", ENTRY)
        self._lambda.create_function(
            FunctionName=name,
            Runtime=f"python3.{sys.version_info.minor}",
            Role="arn:aws:iam::000000000000:role/relay",
            Handler="entry.lambda_handler",
            Timeout=20,
            Code={"ZipFile": code.getvalue()},
            Environment={
                "Variables": {
                    "WS_ENDPOINT": self._endpoint,
                    "CONNECTIONS_TABLE": self.rows,
                    "AWS_ENDPOINT_URL": self.url,
                }
            },
        )
        mapping = self._lambda.create_event_source_mapping(
            EventSourceArn=self.stream,
            FunctionName=name,
            StartingPosition="TRIM_HORIZON",
            Enabled=enabled,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
        self._mappings.append(mapping["UUID"])
        return name

    def write(self, number: int) -> None:
        """A change of an incident."""
        item = {name: {"S": value} for name, value in incident(number).items()}
        self.dynamodb.put_item(TableName=self._incidents, Item=item)

    def close(self) -> None:
        for uuid in self._mappings:
            self._lambda.delete_event_source_mapping(UUID=uuid)


@pytest.fixture
def account(gateway: Gateway, ministack_url: str) -> Iterator[Account]:
    made = Account(ministack_url, gateway.endpoint)
    yield made
    made.close()


@pytest.fixture
async def gateway() -> Any:
    """It takes any signature: the local AWS gives its functions credentials of its own."""
    async with Gateway() as opened:
        yield opened


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 - another process makes it happen
            await asyncio.sleep(0.02)


def got(gateway: Gateway) -> list[Any]:
    return [json.loads(body) for body in gateway.received["a="]]


def numbers(gateway: Gateway) -> list[str]:
    return [each["incident_id"] for each in got(gateway)]


# ── the symptoms ────────────────────────────────────────────────────────────────────────────────


async def test_nothing_arrives(gateway: Gateway, account: Account) -> None:
    """A mapping that is switched off: found and switched on by the two commands, and nothing was lost meanwhile."""
    show, mend = commands("Nothing arrives")
    names = {"RELAY_FUNCTION": account.deploy(enabled=False)}
    account.write(1)
    [[uuid, state, _]] = run_aws(account.url, show, names)
    assert state == "Disabled"
    assert f"| `{state}` | nobody reads the stream |" in section("Nothing arrives")
    assert got(gateway) == []

    run_aws(account.url, mend, names | {"UUID": uuid})
    account.write(2)
    await until(lambda: len(got(gateway)) == 2)
    assert numbers(gateway) == ["inc-1", "inc-2"]


async def test_repeated(gateway: Gateway, account: Account) -> None:
    """Two functions read the stream: each change comes twice, one is switched off, and each comes once."""
    show, mend = commands("Repeated")
    names = {"STREAM_ARN": account.stream}
    relay, old = account.deploy(), account.deploy()
    account.write(1)
    await until(lambda: len(got(gateway)) == 2)
    first, second = got(gateway)
    assert first["event_id"] == second["event_id"]
    picture = Picture(100)
    assert [picture.take(first), picture.take(second)] == [News.NEWS, News.REPEATED]

    readers = {arn.split(":")[-1]: (uuid, state) for uuid, state, arn in run_aws(account.url, show, names)}
    assert {name: state for name, (_, state) in readers.items()} == {relay: "Enabled", old: "Enabled"}
    run_aws(account.url, mend, {"UUID": readers[old][0]})
    after = {arn.split(":")[-1]: state for _, state, arn in run_aws(account.url, show, names)}
    assert after == {relay: "Enabled", old: "Disabled"}

    for number in (2, 3):
        account.write(number)
        await until(lambda number=number: f"inc-{number}" in numbers(gateway))  # type: ignore[misc]  # bound at once
    assert numbers(gateway)[2:] == ["inc-2", "inc-3"]


def test_late(ministack_url: str) -> None:
    """Too many StreamShards give the relay too small a share: the number that the stream has makes it quick again."""
    show, mend = commands("Late")
    shards = run_aws(ministack_url, show, {"STREAM_ARN": Account(ministack_url).stream})
    still_open = [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]
    assert mend[:3] == ["sam", "deploy", "--parameter-overrides"]
    mended = dict(word.split("=") for word in mend[3:])
    assert mended == {"StreamShards": str(len(still_open))}

    wrong = {"AccountPostsPerSecond": "2500", "StreamShards": "32"}
    late_from = int(Stack().of("CloudWatch::Alarm")["LateAlarm"]["Threshold"])
    before, after = broadcast(Stack(**wrong)), broadcast(Stack(**(wrong | mended)))
    assert "`RateLimit` is steady and `AccountThrottled` is 0" in section("Late")
    assert {(each["rate_limit"], each["account_throttled"]) for each in before[:1]} == {(62, 0)}
    assert max(each["age"] for each in before) > late_from
    assert max(each["age"] for each in after) < late_from / 10


def broadcast(stack: Stack) -> list[Mapping[str, float]]:
    """The figures until 700 clients have seven changes, in the functions of this stack; on virtual time."""
    clients, figures = [f"c{number}=" for number in range(700)], list[Mapping[str, float]]()
    services = MemoryServices(MemoryStore(clients))

    def sandbox(name: str) -> Sandbox:
        settings = Settings.from_env(stack.functions()[name]["Environment"])
        return Sandbox(settings, services, wall_clock=wall_clock, emit_metrics=figures.append)

    async def history() -> None:
        relay, deliver = sandbox("RelayFunction"), sandbox("DeliverFunction")
        answers = [await relay.on_stream(event(*incidents(7)), Context(60))]
        retry = services.queues[stack.functions()["DeliverFunction"]["Environment"]["RETRY_QUEUE_URL"]]
        while entries := retry.take():
            await asyncio.sleep(max(each.delay for each in entries))
            records = [{"messageId": str(at), "body": each.body} for at, each in enumerate(entries)]
            answers.append(await deliver.on_jobs({"Records": records}, Context(60)))
        assert answers == [{"batchItemFailures": []}] * len(answers)

    run_virtually(history())
    assert all(len(services.posts.received[each]) == 7 for each in clients)
    return figures
