"""``async-relay doctor``: the template on a local AWS, settings on moto and a scripted gateway, and no answer."""

from __future__ import annotations

import io
import itertools
import json
import re
import time
import zipfile
from collections.abc import Iterator
from typing import Any

import botocore.client
import botocore.session
import pytest
from botocore.exceptions import ClientError
from cloudformation import ROOT
from described_stack import REACHED, DescribedStack
from typer.testing import CliRunner

from async_relay.checks.deployment import Absent, Answer, Unknown
from async_relay.cli import asking, describing, doctor
from async_relay.cli.app import app
from async_relay.testing import GatewayProcess, gateway_process

_NUMBERS = itertools.count()
_LOCAL_REGION = "us-east-1"
_READING = ("Describe", "Get", "List", "Simulate")
#: What the local AWS does not know, and takes its time to say.
_UNKNOWN_THERE = "service-quotas"


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "80"})


def words(result: Any) -> str:
    """The output, wherever its lines are wrapped."""
    return " ".join(result.output.split())


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The operations that are really called."""
    calls: list[str] = []
    really = botocore.client.BaseClient._make_api_call  # type: ignore[attr-defined]  # private, and not in the stubs

    def call(self: Any, operation: str, arguments: Any) -> Any:
        calls.append(operation)
        return really(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return calls


# ---- The template on a local AWS


class Local:
    """The template, deployed on the local AWS."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.stack = f"doctor-{next(_NUMBERS)}"
        self.bucket = f"code-of-{self.stack}"

    def client(self, service: str) -> Any:
        return botocore.session.Session().create_client(
            service,
            region_name=_LOCAL_REGION,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def deploy(self) -> None:
        s3, held = self.client("s3"), io.BytesIO()
        s3.create_bucket(Bucket=self.bucket)
        with zipfile.ZipFile(held, "w") as file:
            file.writestr("handler.py", "")
            file.writestr("uvloop/loop.cpython-313-aarch64-linux-gnu.so", b"")
        s3.put_object(Bucket=self.bucket, Key="code.zip", Body=held.getvalue())
        template = (ROOT / "template.yaml").read_text()
        template = template.replace("CodeUri: .\n", f"CodeUri: s3://{self.bucket}/code.zip\n")
        s3.put_object(Bucket=self.bucket, Key="template", Body=template.encode())
        self.change("create_stack", Revision="v1.2.0")
        for name in ("ConnectionsTable", "FeedTable"):
            self.set_ttl(name, on=True)  # the local AWS does not do it from the template

    def change(self, operation: str, **parameters: str) -> None:
        """Create the stack or update it, and wait until that is done."""
        cloudformation = self.client("cloudformation")
        given = {"LocalEndpoint": self.url, "AuthMode": "none"} | parameters
        getattr(cloudformation, operation)(
            StackName=self.stack,
            TemplateURL=f"{self.url}/{self.bucket}/template",
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
        )
        while (status := self._status(cloudformation)).endswith("PROGRESS"):
            time.sleep(0.05)
        assert status == f"{operation.partition('_')[0].upper()}_COMPLETE"

    def _status(self, cloudformation: Any) -> str:
        [stack] = cloudformation.describe_stacks(StackName=self.stack)["Stacks"]
        return str(stack["StackStatus"])

    def physical(self, name: str) -> str:
        resources = self.client("cloudformation").describe_stack_resources(StackName=self.stack)["StackResources"]
        return next(str(each["PhysicalResourceId"]) for each in resources if each["LogicalResourceId"] == name)

    def set_ttl(self, name: str, *, on: bool) -> None:
        self.client("dynamodb").update_time_to_live(
            TableName=self.physical(name), TimeToLiveSpecification={"Enabled": on, "AttributeName": "ttl"}
        )


@pytest.fixture(scope="module")
def deployed_locally(ministack_url: str) -> Local:
    local = Local(ministack_url)
    local.deploy()
    return local


@pytest.fixture
def local(deployed_locally: Local, monkeypatch: pytest.MonkeyPatch) -> Local:
    monkeypatch.setenv("AWS_ENDPOINT_URL", deployed_locally.url)
    monkeypatch.setenv("AWS_REGION", _LOCAL_REGION)
    ask = asking.Aws.ask

    def ask_what_is_known(self: asking.Aws, service: str, operation: str, **request: Any) -> Answer:
        unknown = service == _UNKNOWN_THERE
        return Unknown("nobody knows it here") if unknown else ask(self, service, operation, **request)

    monkeypatch.setattr(asking.Aws, "ask", ask_what_is_known)
    return deployed_locally


@pytest.mark.end_to_end
def test_what_was_deployed_under_the_same_revision_serves_nobody(local: Local) -> None:
    """The doctor finds it; another Revision publishes it, and none leads back to the functions themselves.

    Meanwhile the stream is read by one and the same mapping, which keeps its place.
    """
    updated = Local(local.url)
    updated.deploy()
    mapping = updated.physical("RelayFunctionStream")
    updated.change("update_stack", Revision="v1.2.0", MaxConcurrency="200")
    result = run("--stack", updated.stack)
    assert result.exit_code == 1
    assert "Function were deployed again under the same Revision, with another MAX_CONCURRENCY." in words(result)
    updated.change("update_stack", Revision="v1.3.0", MaxConcurrency="200")
    result = run("--stack", updated.stack)
    assert result.exit_code == 0, result.output
    assert "The functions are those of v1.3.0." in words(result)
    updated.change("update_stack", MaxConcurrency="200")
    result = run("--stack", updated.stack)
    assert result.exit_code == 0, result.output
    assert "The functions are those of" not in words(result)
    assert updated.physical("RelayFunctionStream") == mapping


@pytest.mark.end_to_end
def test_a_deployed_stack_is_in_order_and_only_read(local: Local, called: list[str]) -> None:
    """Nothing is wrong, each line fits a terminal, and every operation that was called only reads."""
    result = run("--stack", local.stack)
    assert result.exit_code == 0, result.output
    assert "Nothing that was checked is wrong (" in result.output
    assert re.search(r"quota +│ not checked │ nobody knows it here", result.output)
    assert all(len(line) <= 80 for line in result.output.splitlines())
    assert len(set(called)) > 12
    assert [each for each in called if not each.startswith(_READING)] == []


@pytest.fixture
def broken(local: Local) -> Iterator[Local]:
    """Time to Live off, a mapping off, the stage gone; mended afterwards."""
    stage = {"ApiId": local.physical("WebSocketApi"), "StageName": "prod"}
    mapping = {"UUID": local.physical("RelayFunctionStream")}
    local.set_ttl("ConnectionsTable", on=False)
    local.client("lambda").update_event_source_mapping(**mapping, Enabled=False)
    local.client("apigatewayv2").delete_stage(**stage)
    yield local
    local.set_ttl("ConnectionsTable", on=True)
    local.client("lambda").update_event_source_mapping(**mapping, Enabled=True)
    local.client("apigatewayv2").create_stage(**stage)


@pytest.mark.end_to_end
def test_what_is_broken_in_a_deployed_stack_is_found(broken: Local) -> None:
    """All three faults are said, and the exit code is 1."""
    result = run("--stack", broken.stack)
    assert result.exit_code == 1
    assert "Wrong: Time to Live" in result.output
    assert re.search(r"Wrong: mapping of RelayFunction\n +It is Disabl", result.output)
    assert "has no stage prod. Nobody can connect by that stage" in words(result)
    assert "Traceback" not in result.output


# ---- Settings alone


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with gateway_process() as gateway:
        yield gateway


class Place:
    """Tables and queues as the settings name them, on moto."""

    def __init__(self, url: str) -> None:
        session: Any = botocore.session.Session()
        session.set_credentials("test", "test")
        where = {"region_name": "eu-west-1", "endpoint_url": url}
        self.dynamodb = session.create_client("dynamodb", **where)
        self.sqs = session.create_client("sqs", **where)
        number = next(_NUMBERS)
        self.table = f"doctor-{number}"
        self.dynamodb.create_table(
            TableName=self.table,
            AttributeDefinitions=[{"AttributeName": "connectionId", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        self.set_ttl(on=True)
        self.letters = self.queue(f"letters-{number}", MessageRetentionPeriod="1209600")
        arn = self.sqs.get_queue_attributes(QueueUrl=self.letters, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 60})
        self.retry = self.queue(f"retry-{number}", RedrivePolicy=redrive)

    def queue(self, name: str, **attributes: str) -> str:
        url: str = self.sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        return url

    def set_ttl(self, *, on: bool) -> None:
        specification = {"Enabled": on, "AttributeName": "ttl"}
        self.dynamodb.update_time_to_live(TableName=self.table, TimeToLiveSpecification=specification)


@pytest.fixture(scope="module")
def healthy(moto_url: str) -> Place:
    return Place(moto_url)


@pytest.fixture
def place(healthy: Place, moto_url: str, gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = healthy
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("WS_ENDPOINT", gateway.endpoint)
    monkeypatch.setenv("CONNECTIONS_TABLE", place.table)
    monkeypatch.setenv("RETRY_QUEUE_URL", place.retry)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", place.letters)
    yield place
    place.set_ttl(on=True)


def findings(result: Any) -> dict[str, list[tuple[str, str]]]:
    """State to what it is about and what was seen."""
    found: dict[str, list[tuple[str, str]]] = {}
    for each in json.loads(result.output)["findings"]:
        found.setdefault(each["state"], []).append((each["about"], each["seen"]))
    return found


def test_settings_alone(place: Place, called: list[str]) -> None:
    """What they name is looked at; what only a stack tells is not checked, and the reason says how to have it."""
    result = run("--json")
    assert result.exit_code == 0, result.output
    found = findings(result)
    ok = [about for about, _ in found["ok"]]
    assert ok == [
        *("credentials", "settings", "endpoint", "connections table", "Time to Live"),
        *("retry queue", "dead-letter queue"),
    ]
    assert place.table in dict(found["ok"])["connections table"]
    unknown = dict(found["not checked"])
    assert set(unknown) >= {"stack", "functions", "architecture", "permissions", "door", "quota", "stream", "mapping"}
    assert all("--stack" in unknown[about] for about in ("permissions", "door", "quota", "stream"))
    assert any("ANYBODY who knows the URL may connect" in seen for _, seen in found["note"])
    assert {each for each in called if not each.startswith(_READING)} == set()


def test_the_json_is_what_the_table_says(place: Place) -> None:
    """The same findings and verdict, with the three sentences of what is wrong."""
    place.set_ttl(on=False)
    shown, told = run(), json.loads(run("--json").output)
    assert (shown.exit_code, told["exitCode"]) == (1, 1)
    assert shown.output.rstrip().endswith(told["verdict"])
    assert told["counts"]["wrong"] == 1
    [fault] = [each for each in told["findings"] if each["state"] == "wrong"]
    for sentence in (fault["seen"], fault["effect"], fault["remedy"]):
        assert sentence
        assert sentence in words(shown)


def test_what_settings_name_and_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, a queue and a feed that AWS does not know, and a queue that gives up into nothing."""
    monkeypatch.setenv("CONNECTIONS_TABLE", "nobodys")
    monkeypatch.setenv("FEED_TABLE", "nobodys-feed")
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", f"{place.letters}-not")
    monkeypatch.setenv("RETRY_QUEUE_URL", place.queue(f"plain-{next(_NUMBERS)}"))
    result = run("--json")
    assert result.exit_code == 1
    wrong = dict(findings(result)["wrong"])
    assert wrong["connections table"] == "There is no table nobodys."
    assert wrong["feed table"] == "There is no table nobodys-feed."
    assert wrong["dead-letter queue"] == f"There is no queue {place.letters}-not."
    assert wrong["retry queue"] == "It has no redrive policy."


def test_settings_that_end_a_cold_start(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """The sentence is the function's own, and all else is not checked for it."""
    monkeypatch.setenv("MAX_CONCURRENCY", "many")
    result = run("--json")
    assert result.exit_code == 1
    [(about, seen)] = findings(result)["wrong"]
    assert about == "settings"
    assert seen == "MAX_CONCURRENCY is 'many'; it must be a whole number from 1 to 900."


def test_no_queues(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Without them a batch goes back to the stream for one client: that is said."""
    monkeypatch.delenv("RETRY_QUEUE_URL")
    monkeypatch.delenv("DEAD_LETTER_QUEUE_URL")
    wrong = dict(findings(run("--json"))["wrong"])
    assert wrong == {
        "retry queue": "RETRY_QUEUE_URL is not set.",
        "dead-letter queue": "DEAD_LETTER_QUEUE_URL is not set.",
    }


def test_an_endpoint_that_is_not_there(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """It is said in three sentences; its protocol and its clock are not checked for it."""
    monkeypatch.setenv("WS_ENDPOINT", "http://localhost:9/prod")
    found = findings(run("--json"))
    [(about, seen)] = found["wrong"]
    assert (about, seen.startswith("http://localhost:9/prod cannot be reached: ")) == ("endpoint", True)
    assert {"clock", "protocol"} <= {about for about, _ in found["not checked"]}


def test_behind_a_proxy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    """Its sockets are not the endpoint's: nothing of them is passed for it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:9")
    found = findings(run("--json"))
    assert dict(found["not checked"])["protocol"] == "a proxy is set here, and would answer in place of the endpoint"


# ---- Who gets no answer


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        ((), {}, "Error: nothing to look at: give --stack, or the functions' settings"),
        (("--stack", " "), {}, "Error: --stack is empty: name one"),
        (("--stack", "x"), {"AWS_DEFAULT_REGION": ""}, "Error: no AWS region: give --region, or set AWS_REGION"),
        (("--stack", "x", "--region", "not a region"), {}, "Error: Provided region_name 'not a region'"),
        (("--stack", "x", "--profile", "nobody"), {}, "Error: The config profile (nobody) could not be found"),
        (("--stack", "x"), {"AWS_PROFILE": "nobody"}, "Error: The config profile (nobody) could not be found"),
        (("--stack", "x"), {"AWS_REGION": "not a region"}, "Error: Provided region_name 'not a region'"),
        (
            ("--stack", "x"),
            {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
            "Error: no AWS credentials: sign in",
        ),
        (("--stack", "x"), {"AWS_ENDPOINT_URL": "http://localhost:9"}, "Error: no answer for AWS (cloudformation)"),
        (("--stack", "x"), {"AWS_ENDPOINT_URL": "nonsense"}, "Error: AWS (cloudformation) cannot be used: Invalid end"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(
    arguments: tuple[str, ...], environment: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the exit code is 2."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.output.startswith(sentence)
    assert result.output.count("\n") == 1


@pytest.mark.end_to_end
def test_a_stack_that_is_not_there(local: Local) -> None:  # noqa: ARG001
    """Its name is in the sentence, which says what to look at."""
    result = run("--stack", "nobodys")
    assert result.exit_code == 2
    assert result.output == "Error: there is no stack nobodys: check the name, the account and the region\n"


def test_without_credentials_settings_alone_can_say_nothing(monkeypatch: pytest.MonkeyPatch, moto_url: str) -> None:
    """Each thing is not checked with that reason, and that is no verdict of health."""
    monkeypatch.setattr(describing, "probe", lambda _url, _connection: REACHED)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("WS_ENDPOINT", "https://a1b2c3d4.execute-api.eu-west-1.amazonaws.com/prod")
    monkeypatch.setenv("CONNECTIONS_TABLE", "connections")
    monkeypatch.setenv("RETRY_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/retry")
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/letters")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    result = run("--json")
    assert result.exit_code == 2
    told = json.loads(result.output)
    assert told["verdict"].startswith("AWS could not be asked (")
    unknown = dict(findings(result)["not checked"])
    assert "no AWS credentials" in unknown["credentials"]
    assert "no AWS credentials" in unknown["connections table"]


def test_what_aws_says_cannot_write_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control sequences in an answer are shown as text, in the table and below it."""
    monkeypatch.setattr(describing, "probe", lambda _url, _connection: REACHED)
    aws = DescribedStack(AuthMode="none")
    evil = "FAILED\x1b[2J\u202e"
    aws.change("describe_stacks", "", lambda answer: answer["Stacks"][0].update(StackStatus=evil))
    monkeypatch.setattr(doctor, "Aws", lambda: aws)
    result = run("--stack", "relay")
    assert result.exit_code == 1
    assert "\x1b[2J" not in result.output
    assert "\u202e" not in result.output
    assert "FAILED\\u001b[2J\\u202e" in result.output


# ---- Asking


@pytest.fixture
def codes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every answer of AWS is the error with the last of these codes."""
    codes: list[str] = []

    def call(_self: Any, operation: str, _arguments: Any) -> Any:
        raise ClientError({"Error": {"Code": codes[-1], "Message": "no"}}, operation)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return codes


@pytest.mark.parametrize(
    ("service", "operation", "request_", "action"),
    [
        ("dynamodb", "describe_table", {"TableName": "t"}, "dynamodb:DescribeTable"),
        ("dynamodbstreams", "describe_stream", {"StreamArn": "a"}, "dynamodb:DescribeStream"),
        ("apigatewayv2", "get_api", {"ApiId": "a"}, "apigateway:GET"),
        ("service-quotas", "get_service_quota", {}, "servicequotas:GetServiceQuota"),
    ],
)
def test_a_denied_call_names_what_to_allow(
    service: str, operation: str, request_: dict[str, str], action: str, codes: list[str]
) -> None:
    """By IAM's name for it."""
    aws = asking.Aws()
    for code in ("AccessDenied", "AccessDeniedException"):
        codes.append(code)
        assert aws.ask(service, operation, **request_) == Unknown(f"the credentials may not {action}")


def test_what_is_not_there_is_no_error(codes: list[str]) -> None:
    """Each service has its own word for it, which no other error has."""
    aws = asking.Aws()
    for code in ("ResourceNotFoundException", "NotFoundException", "NoSuchEntity", "QueueDoesNotExist"):
        codes.append(code)
        assert aws.ask("sts", "get_caller_identity") == Absent()
    codes.append("ExpiredToken")
    answer = aws.ask("sts", "get_caller_identity")
    assert answer == Unknown("the credentials have expired: sign in again")


def test_an_operation_that_may_change_something_is_never_called(called: list[str]) -> None:
    """Not even by a mistake of ours."""
    with pytest.raises(AssertionError, match="delete_table may change something"):
        asking.Aws().ask("dynamodb", "delete_table", TableName="t")
    assert called == []
