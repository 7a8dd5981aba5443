"""An examination of the template's own stack: whole, and with one thing wrong at a time."""

from __future__ import annotations

import http.client
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from cloudformation import ROOT, template
from described_stack import ACCOUNT, API_ID, REACHED, REGION, DescribedStack

from async_relay.checks import examination
from async_relay.checks.deployment import Absent, Deployment, Endpoint, Unknown
from async_relay.checks.examination import examine
from async_relay.checks.findings import Finding, Report, State, note, ok, unchecked, wrong
from async_relay.checks.permissions import needs
from async_relay.cli import asking, describing, describing_functions
from async_relay.cli.failure import CommandError

JWT = {"AuthMode": "jwt", "AuthIssuer": "https://issuer.example.com", "AuthAudience": "relay"}
FANOUT = {"FanoutMode": "fanout", "ConnectionsIndex": "by-shard", "ConnectionsIndexSweep": "off"}
GIVEN = {
    "IncidentStreamArn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/Incident/stream/2026-01-01T00:00:00.000",
    "ConnectionsTableName": "WebSocketConnections",
    "WebSocketApiId": API_ID,
}
EVERYTHING = JWT | FANOUT | {"HeartbeatMinutes": "5", "IncidentIndex": "by-time"}
REVISION = EVERYTHING | {"Revision": "v1.2.0"}
OWN_DOMAIN = EVERYTHING | {"WebSocketEndpoint": "https://ws.example.com/live", "ExecuteApiEndpoint": "off"}
BOTH = [f"uvloop/loop.cpython-313-{machine}-linux-gnu.so" for machine in ("aarch64", "x86_64")]


class Bucket:
    """Where Lambda has the zip; ``names`` are the files in it."""

    def __init__(self) -> None:
        self.names = [*BOTH, "handler.py"]
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(bucket.content())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/zip"

    def content(self) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w") as file:
            for name in self.names:
                file.writestr(name, b"")
        return held.getvalue()


@pytest.fixture(scope="module")
def served() -> Iterator[Bucket]:
    bucket = Bucket()
    thread = threading.Thread(target=bucket.server.serve_forever, args=(0.02,))
    thread.start()
    yield bucket
    bucket.server.shutdown()
    thread.join()
    bucket.server.server_close()


@pytest.fixture
def bucket(served: Bucket) -> Bucket:
    served.names = [*BOTH, "handler.py"]
    return served


@pytest.fixture
def stack(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DescribedStack]:
    """A stack for these parameters, whose endpoint answers."""
    monkeypatch.setattr(describing, "probe", lambda _url, _connection: REACHED)

    def described(**parameters: str) -> DescribedStack:
        aws = DescribedStack(**parameters)
        aws.zip = bucket.url
        if "IncidentIndex" in parameters:
            aws.change("describe_table", '"IncidentTable"', _with_time_index)
        return aws

    return described


def _with_time_index(answer: Any) -> None:
    keys = [{"AttributeName": "all", "KeyType": "HASH"}, {"AttributeName": "created_at", "KeyType": "RANGE"}]
    index = {"IndexName": "by-time", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
    answer["Table"]["GlobalSecondaryIndexes"] = [index]


def described(aws: DescribedStack) -> Deployment:
    return describing.describe_stack(aws, "relay")


def examined(aws: DescribedStack) -> Report:
    return examine(described(aws))


@pytest.mark.parametrize(
    "parameters",
    [
        {"AuthMode": "none"},
        {"AuthMode": "iam"},
        JWT,
        JWT | FANOUT,
        EVERYTHING,
        GIVEN,
        {"Feed": "off"},
        OWN_DOMAIN,
        REVISION,
    ],
    ids=["open", "iam", "jwt", "fanout", "everything", "given", "without a feed", "a domain of its own", "a revision"],
)
def test_what_the_template_makes_is_in_order(parameters: dict[str, str], stack: Callable[..., DescribedStack]) -> None:
    """Whatever its parameters, nothing is wrong with it, and there is nothing that was not checked."""
    report = examined(stack(**parameters))
    assert report.of(State.WRONG) == []
    assert report.of(State.UNCHECKED) == []
    assert report.exit_code == 0
    assert report.verdict.startswith("Nothing that was checked is wrong (")


@pytest.mark.parametrize("parameters", [{"AuthMode": "none"}, EVERYTHING, GIVEN], ids=["open", "everything", "given"])
def test_a_role_needs_what_the_template_grants(
    parameters: dict[str, str], stack: Callable[..., DescribedStack]
) -> None:
    """Neither more nor less, but for the logs."""
    aws = stack(**parameters)
    deployment = described(aws)
    for function in deployment.functions:
        role = aws.stack.functions()[function.name]["Role"].removesuffix(".Arn")
        granted = {each for each in aws.grants(role) if not each[0].startswith("logs:")}
        assert {(action, each.resource) for each in needs(deployment, function) for action in each.actions} == granted


def set_in(*path: Any, to: Any) -> Callable[[Any], None]:
    """Set what an answer has at a path."""

    def change(answer: Any) -> None:
        for key in path[:-1]:
            answer = answer[key]
        answer[path[-1]] = to

    return change


def without(*path: Any) -> Callable[[Any], None]:
    """Take out what an answer has at a path."""

    def change(answer: Any) -> None:
        for key in path[:-1]:
            answer = answer[key]
        del answer[path[-1]]

    return change


def mapping(name: str, to: Any) -> Callable[[Any], None]:
    return set_in("EventSourceMappings", 0, name, to=to)


def read_too_by(function: str, state: str = "Enabled") -> Callable[[Any], None]:
    """The stream has one reader more."""
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
    return lambda answer: answer["EventSourceMappings"].append({"UUID": "theirs", "FunctionArn": arn, "State": state})


def variable(name: str, to: str) -> Callable[[Any], None]:
    return set_in("Environment", "Variables", name, to=to)


def gone(_answer: Any) -> Absent:
    return Absent()


def denies(action: str) -> Callable[[Any], None]:
    def change(answer: Any) -> None:
        for each in answer["EvaluationResults"]:
            if each["EvalActionName"] == action:
                each["EvalDecision"] = "implicitDeny"

    return change


KEYS = ("Table", "KeySchema")
MINE = '{"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:1:mine", "maxReceiveCount": 60}'
OTHERS = '{"redrivePermission": "byQueue", "sourceQueueArns": ["arn:aws:sqs:eu-west-1:1:other"]}'
#: What is wrong: the operation and what its request names, the change to its answer, and what is found about what.
FAULTS: dict[str, tuple[str, str, Callable[[Any], Any], str, str]] = {
    "another queue": (
        "list_event_source_mappings",
        '"DeliverFunction"',
        set_in("EventSourceMappings", 0, "EventSourceArn", to=f"arn:aws:sqs:{REGION}:{ACCOUNT}:another"),
        "mapping of DeliverFunction",
        "It reads another, and the functions send to relay-retry-",
    ),
    "another fan-out queue": (
        "list_event_source_mappings",
        '"FanoutFunction"',
        set_in("EventSourceMappings", 0, "EventSourceArn", to=f"arn:aws:sqs:{REGION}:{ACCOUNT}:another.fifo"),
        "mapping of FanoutFunction",
        "It reads another.fifo, and the functions send to relay-fanout-",
    ),
    "throttled by hand": (
        "get_function",
        '"RelayFunction"',
        set_in("Concurrency", to={"ReservedConcurrentExecutions": 0}),
        "functions",
        "The reserved concurrency of RelayFunction is 0.",
    ),
    "stack failed": (
        "describe_stacks",
        "relay",
        set_in("Stacks", 0, "StackStatus", to="UPDATE_ROLLBACK_FAILED"),
        "stack",
        "UPDATE_ROLLBACK_FAILED",
    ),
    "never made": (
        "describe_stacks",
        "relay",
        set_in("Stacks", 0, "StackStatus", to="ROLLBACK_COMPLETE"),
        "stack",
        "ROLLBACK_COMPLETE",
    ),
    "bad setting": (
        "get_function_configuration",
        "DeliverFunction",
        variable("MAX_CONCURRENCY", "many"),
        "settings",
        "DeliverFunction: MAX_CONCURRENCY is 'many'",
    ),
    "settings disagree": (
        "get_function_configuration",
        "ConnectFunction",
        variable("TENANT_ATTRIBUTE", "owner"),
        "settings",
        "agree about TENANT_ATTRIBUTE: None in HeartbeatFunction, owner in ConnectFunction",
    ),
    "function gone": ("get_function_configuration", "DefaultFunction", gone, "functions", "DefaultFunction is gone"),
    "function failed": (
        "get_function_configuration",
        "DefaultFunction",
        set_in("State", to="Failed"),
        "functions",
        "State of DefaultFunction is Failed: no reason is told",
    ),
    "update failed": (
        "get_function_configuration",
        "DefaultFunction",
        set_in("LastUpdateStatus", to="Failed"),
        "functions",
        "LastUpdateStatus of DefaultFunction is Failed",
    ),
    "wrong runtime": (
        "get_function_configuration",
        "RelayFunction",
        set_in("Runtime", to="python3.12"),
        "architecture",
        "RelayFunction runs on arm64 with python3.12, and the zip is for aarch64 with Python 3.13",
    ),
    "may not post": (
        "simulate_principal_policy",
        "RelayRole",
        denies("execute-api:ManageConnections"),
        "permissions",
        "may not execute-api:ManageConnections on arn:aws:execute-api:",
    ),
    "may not scan": (
        "simulate_principal_policy",
        "DeliverRole",
        denies("dynamodb:Scan"),
        "permissions",
        "The role of DeliverFunction may not dynamodb:Scan on arn:",
    ),
    "no api": ("get_api", API_ID, gone, "API and stage", f"There is no WebSocket API {API_ID}"),
    "http api": ("get_api", API_ID, set_in("ProtocolType", to="HTTP"), "API and stage", "There is no WebSocket API"),
    "no stage": ("get_stage", "prod", gone, "API and stage", "has no stage prod"),
    "endpoint closed": (
        "get_api",
        API_ID,
        set_in("DisableExecuteApiEndpoint", to=True),
        "API and stage",
        "endpoint is closed",
    ),
    "no $connect": ("get_routes", API_ID, without("Items", 0), "door", "no route $connect"),
    "door open": (
        "get_routes",
        API_ID,
        set_in("Items", 0, "AuthorizationType", to="NONE"),
        "door",
        "asks for NONE, and AuthMode is jwt, which is CUSTOM",
    ),
    "nobody at the door": ("get_routes", API_ID, without("Items", 0, "AuthorizerId"), "door", "none is attached"),
    "small quota": (
        "get_service_quota",
        "apigateway",
        set_in("Quota", "Value", to=2500.0),
        "quota",
        "is 10,000, and the account's quota 2,500",
    ),
    "stream gone": ("describe_stream", "stream", gone, "stream", "is gone"),
    "stream off": (
        "describe_stream",
        "stream",
        set_in("StreamDescription", "StreamStatus", to="DISABLED"),
        "stream",
        "It is DISABLED",
    ),
    "keys only": (
        "describe_stream",
        "stream",
        set_in("StreamDescription", "StreamViewType", to="KEYS_ONLY"),
        "stream",
        "view type is KEYS_ONLY",
    ),
    "no mapping": (
        "list_event_source_mappings",
        "RelayFunction",
        set_in("EventSourceMappings", to=[]),
        "mapping of RelayFunction",
        "Nothing makes Lambda run",
    ),
    "mapping off": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("State", "Disabled"),
        "mapping of RelayFunction",
        "It is Disabled",
    ),
    "mapping fails": (
        "list_event_source_mappings",
        "DeliverFunction",
        mapping("LastProcessingResult", "PROBLEM: Function call failed"),
        "mapping of DeliverFunction",
        "PROBLEM: Function call failed",
    ),
    "no partial batches": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("FunctionResponseTypes", []),
        "mapping of RelayFunction",
        "ReportBatchItemFailures is not set",
    ),
    "no partial queue batches": (
        "list_event_source_mappings",
        "FanoutFunction",
        mapping("FunctionResponseTypes", []),
        "mapping of FanoutFunction",
        "ReportBatchItemFailures is not set",
    ),
    "no bisecting": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("BisectBatchOnFunctionError", to=False),
        "mapping of RelayFunction",
        "BisectBatchOnFunctionError is off",
    ),
    "side by side": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("ParallelizationFactor", 10),
        "mapping of RelayFunction",
        "ParallelizationFactor is 10",
    ),
    "no failure destination": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("DestinationConfig", {}),
        "mapping of RelayFunction",
        "no destination",
    ),
    "no maximum": (
        "list_event_source_mappings",
        "DeliverFunction",
        mapping("ScalingConfig", {}),
        "mapping of DeliverFunction",
        "no maximum concurrency",
    ),
    "no connections": ("describe_table", '"ConnectionsTable"', gone, "connections table", "no table ConnectionsTable"),
    "connections not ready": (
        "describe_table",
        '"ConnectionsTable"',
        set_in("Table", "TableStatus", to="INACCESSIBLE_ENCRYPTION_CREDENTIALS"),
        "connections table",
        "is INACCESSIBLE_ENCRYPTION_CREDENTIALS",
    ),
    "another key": (
        "describe_table",
        '"ConnectionsTable"',
        set_in(*KEYS, to=[{"AttributeName": "shard", "KeyType": "HASH"}]),
        "connections table",
        "are shard (N), not connectionId (S)",
    ),
    "no index": (
        "describe_table",
        '"ConnectionsTable"',
        without("Table", "GlobalSecondaryIndexes"),
        "connections table",
        "has no such index",
    ),
    "index lacks": (
        "describe_table",
        '"ConnectionsTable"',
        set_in("Table", "GlobalSecondaryIndexes", 0, "Projection", to={"ProjectionType": "KEYS_ONLY"}),
        "connections table",
        "must project createdAt",
    ),
    "index being made": (
        "describe_table",
        '"ConnectionsTable"',
        set_in("Table", "GlobalSecondaryIndexes", 0, "IndexStatus", to="CREATING"),
        "connections table",
        "by-shard is CREATING, and the sweep is off",
    ),
    "rows stay": (
        "describe_time_to_live",
        '"ConnectionsTable"',
        set_in("TimeToLiveDescription", to={"TimeToLiveStatus": "DISABLED"}),
        "Time to Live",
        "is off for ConnectionsTable",
    ),
    "other ttl": (
        "describe_time_to_live",
        '"FeedTable"',
        set_in("TimeToLiveDescription", "AttributeName", to="expires"),
        "Time to Live",
        "is on the attribute expires, not ttl",
    ),
    "no feed": ("describe_table", '"FeedTable"', gone, "feed table", "no table FeedTable"),
    "feed key": (
        "describe_table",
        '"FeedTable"',
        set_in(*KEYS, to=[{"AttributeName": "bucket", "KeyType": "HASH"}]),
        "feed table",
        "are bucket (S), not bucket (S) and position (S)",
    ),
    "no incidents": ("describe_table", '"IncidentTable"', gone, "incident table", "no table IncidentTable"),
    "incident index": (
        "describe_table",
        '"IncidentTable"',
        set_in("Table", "GlobalSecondaryIndexes", 0, "Projection", to={"ProjectionType": "KEYS_ONLY"}),
        "incident table",
        "must project all attributes",
    ),
    "retry gone": ("get_queue_attributes", "-retry-", gone, "retry queue", "no queue https://"),
    "retry fifo": (
        "get_queue_attributes",
        "-retry-",
        set_in("Attributes", "FifoQueue", to="true"),
        "retry queue",
        "is a FIFO queue",
    ),
    "retry never gives up": (
        "get_queue_attributes",
        "-retry-",
        without("Attributes", "RedrivePolicy"),
        "retry queue",
        "no redrive policy",
    ),
    "retry gives up elsewhere": (
        "get_queue_attributes",
        "-retry-",
        set_in("Attributes", "RedrivePolicy", to=MINE),
        "retry queue",
        "gives up into mine, not into DeadLetterQueue",
    ),
    "retry shows too soon": (
        "get_queue_attributes",
        "-retry-",
        set_in("Attributes", "VisibilityTimeout", to="60"),
        "retry queue",
        "hides a job for 60 s, and DeliverFunction may take 60 s",
    ),
    "letters gone": ("get_queue_attributes", "/DeadLetterQueue", gone, "dead-letter queue", "no queue https://"),
    "letters fifo": (
        "get_queue_attributes",
        "/DeadLetterQueue",
        set_in("Attributes", "FifoQueue", to="true"),
        "dead-letter queue",
        "is a FIFO queue",
    ),
    "letters forgotten": (
        "get_queue_attributes",
        "/DeadLetterQueue",
        set_in("Attributes", "MessageRetentionPeriod", to="345600"),
        "dead-letter queue",
        "keeps a letter for 345,600 s",
    ),
    "letters refuse": (
        "get_queue_attributes",
        "/DeadLetterQueue",
        set_in("Attributes", "RedriveAllowPolicy", to='{"redrivePermission": "denyAll"}'),
        "dead-letter queue",
        "does not let the retry queue",
    ),
    "letters of others": (
        "get_queue_attributes",
        "/DeadLetterQueue",
        set_in("Attributes", "RedriveAllowPolicy", to=OTHERS),
        "dead-letter queue",
        "does not let the retry queue",
    ),
    "fanout gone": ("get_queue_attributes", "-fanout-", gone, "fan-out queue", "no queue https://"),
    "fanout standard": (
        "get_queue_attributes",
        "-fanout-",
        without("Attributes", "FifoQueue"),
        "fan-out queue",
        "is a standard queue",
    ),
    "fanout never gives up": (
        "get_queue_attributes",
        "-fanout-",
        without("Attributes", "RedrivePolicy"),
        "fan-out queue",
        "no redrive policy",
    ),
    "fanout shows too soon": (
        "get_queue_attributes",
        "-fanout-",
        set_in("Attributes", "VisibilityTimeout", to="359"),
        "fan-out queue",
        "hides a job for 359 s, and FanoutFunction may take 60 s",
    ),
    "fanout letters gone": (
        "get_queue_attributes",
        "/FanoutDeadLetterQueue",
        gone,
        "dead-letter queue of the fan-out",
        "There is no queue https://sqs.eu-west-1.amazonaws.com/123456789012/FanoutDeadLetterQueue.fifo.",
    ),
    "fanout letters standard": (
        "get_queue_attributes",
        "/FanoutDeadLetterQueue",
        without("Attributes", "FifoQueue"),
        "dead-letter queue of the fan-out",
        "is a standard queue, which takes nothing of a FIFO queue",
    ),
    "fanout letters refuse": (
        "get_queue_attributes",
        "/FanoutDeadLetterQueue",
        set_in("Attributes", "RedriveAllowPolicy", to='{"redrivePermission": "denyAll"}'),
        "dead-letter queue of the fan-out",
        "does not let the fan-out queue put",
    ),
    "fanout letters of others": (
        "get_queue_attributes",
        "/FanoutDeadLetterQueue",
        set_in("Attributes", "RedriveAllowPolicy", to=OTHERS),
        "dead-letter queue of the fan-out",
        "does not let the fan-out queue put",
    ),
    "fanout letters elsewhere": (
        "get_queue_attributes",
        "-fanout-",
        set_in("Attributes", "RedrivePolicy", to=MINE),
        "dead-letter queue of the fan-out",
        "There is no queue https://sqs.eu-west-1.amazonaws.com/123456789012/mine.",
    ),
    "no such domain": ("get_api_mappings", "", gone, "API and stage", "API Gateway has no domain ws.example.com in"),
    "no mapping of the domain": (
        "get_api_mappings",
        "",
        set_in("Items", to=[]),
        "API and stage",
        "ws.example.com/live, and the domain has no API mapping /live (it has: none)",
    ),
    "another path": (
        "get_api_mappings",
        "",
        set_in("Items", 0, "ApiMappingKey", to="liv"),
        "API and stage",
        "the domain has no API mapping /live (it has: /liv)",
    ),
    "no path": (
        "get_api_mappings",
        "",
        without("Items", 0, "ApiMappingKey"),
        "API and stage",
        "the domain has no API mapping /live (it has: /)",
    ),
    "mapping of another API": (
        "get_api_mappings",
        "",
        set_in("Items", 0, "ApiId", to="other"),
        "API and stage",
        "leads to other/prod, and the stack's functions serve the clients of a1b2c3d4/prod",
    ),
    "mapping of another stage": (
        "get_api_mappings",
        "",
        set_in("Items", 0, "Stage", to="test"),
        "API and stage",
        "leads to a1b2c3d4/test, and",
    ),
}


@pytest.mark.parametrize(("operation", "request_of", "change", "about", "seen"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_and_said_in_three_sentences(
    operation: str,
    request_of: str,
    change: Callable[[Any], Any],
    about: str,
    seen: str,
    stack: Callable[..., DescribedStack],
) -> None:
    """It is what is said to be wrong, alone, and the exit code is 1."""
    aws = stack(**(OWN_DOMAIN if operation == "get_api_mappings" else EVERYTHING))
    aws.change(operation, request_of, change)
    report = examined(aws)
    found = [each for each in report.of(State.WRONG) if seen in each.seen]
    assert found
    assert {each.about for each in report.of(State.WRONG)} == {about}
    for each in report.of(State.WRONG):
        assert_sentences(each)
    assert report.exit_code == 1
    assert report.verdict.startswith(
        "One thing is wrong (" if len(report.of(State.WRONG)) == 1 else "2 things are wrong"
    )


@pytest.mark.parametrize(
    ("fault", "command"),
    [
        (
            "rows stay",
            "--table-name ConnectionsTable --time-to-live-specification Enabled=true,AttributeName=ttl ",
        ),
        ("mapping off", "aws lambda update-event-source-mapping --uuid uuid-of-RelayFunctionStream --enabled "),
        ("throttled by hand", "aws lambda delete-function-concurrency --function-name RelayFunction "),
    ],
)
def test_a_remedy_names_the_whole_command(fault: str, command: str, stack: Callable[..., DescribedStack]) -> None:
    """With the name of what is wrong, so that it can be run as it stands."""
    aws = stack(**EVERYTHING)
    aws.change(*FAULTS[fault][:3])
    [found] = examined(aws).of(State.WRONG)
    assert command in found.remedy


def assert_sentences(finding: Finding) -> None:
    for sentence in (finding.seen, finding.effect, finding.remedy):
        assert re.fullmatch(r"\S.*[^.]\.", sentence), finding
        assert "\n" not in sentence


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CodeSha256", "another"),
        ("Timeout", 30),
        ("Architectures", ["x86_64"]),
        ("SnapStart", {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}),
    ],
)
def test_a_revision_that_was_deployed_twice(name: str, value: Any, stack: Callable[..., DescribedStack]) -> None:
    """What was deployed last waits for a Revision of its own, and the alias leads to what was published before."""
    aws = stack(**REVISION)
    aws.change("get_function", '"FunctionName": "RelayFunction"', set_in("Configuration", name, to=value))
    [found] = examined(aws).of(State.WRONG)
    assert_sentences(found)
    assert found.about == "revision"
    assert found.seen == f"RelayFunction was deployed again under the same Revision, with another {name}."
    assert "another Revision" in found.remedy


def test_another_parameter_under_the_same_revision(stack: Callable[..., DescribedStack]) -> None:
    """It is one finding, which names the variable and every function that waits for it."""
    aws = stack(**REVISION)
    for name in ("RelayFunction", "DeliverFunction"):
        change = set_in("Configuration", "Environment", "Variables", "MAX_CONCURRENCY", to="500")
        aws.change("get_function", f'"FunctionName": "{name}"', change)
    [found] = examined(aws).of(State.WRONG)
    assert_sentences(found)
    assert found.seen == (
        "RelayFunction, DeliverFunction were deployed again under the same Revision, with another MAX_CONCURRENCY."
    )


def test_a_revision_is_what_is_examined(stack: Callable[..., DescribedStack]) -> None:
    """Its settings, not those of what was deployed last; and its name is told."""
    aws = stack(**REVISION)
    [told] = [each for each in examined(aws).findings if each.about == "revision"]
    assert told == ok("revision", "The functions are those of v1.2.0.")
    aws.change("get_function_configuration", "DeliverFunction:live", variable("MAX_CONCURRENCY", "many"))
    assert [each.about for each in examined(aws).of(State.WRONG)] == ["settings", "revision"]


def test_functions_of_two_revisions(stack: Callable[..., DescribedStack]) -> None:
    """An update that broke off, or somebody who published by hand."""
    aws = stack(**REVISION)
    aws.change("get_function_configuration", "ConnectFunction:live", set_in("Description", to="v1.1.0"))
    [found] = [each for each in examined(aws).findings if each.about == "revision"]
    assert found == note("revision", "The functions are those of v1.1.0 and v1.2.0.")


def deployed_as(revision: str, aws: DescribedStack) -> None:
    """The relay is deployed as this Revision, and its alias leads to v1.2.0."""
    told = {"Variables": {"REVISION": revision}}
    aws.change("get_function", '"FunctionName": "RelayFunction"', set_in("Configuration", "Environment", to=told))


def test_a_rollout_that_is_under_way(stack: Callable[..., DescribedStack]) -> None:
    """Or was left half-way: how much goes where. What was deployed last is another Revision then, as it should be."""
    aws = stack(**REVISION)
    deployed_as("v1.3.0", aws)
    aws.change("get_alias", "RelayFunction", set_in("RoutingConfig", to={"AdditionalVersionWeights": {"8": 0.1}}))
    report = examined(aws)
    assert note("revision", "10% of RelayFunction's invocations go to version 8.") in report.findings
    assert report.exit_code == 0


def test_a_revision_that_nothing_leads_to(stack: Callable[..., DescribedStack]) -> None:
    """Nothing is wrong as long as the update goes on."""
    aws = stack(**REVISION)
    deployed_as("v1.3.0", aws)
    [found] = examined(aws).of(State.WRONG)
    assert_sentences(found)
    assert found.about == "revision"
    assert found.seen == "RelayFunction was deployed as v1.3.0, and clients are served by v1.2.0."
    aws.change("describe_stacks", "", set_in("Stacks", 0, "StackStatus", to="UPDATE_IN_PROGRESS"))
    report = examined(aws)
    assert note("revision", f"{found.seen} The update is under way.") in report.findings
    assert report.exit_code == 0


def test_snapshots_are_of_versions_alone(stack: Callable[..., DescribedStack]) -> None:
    """So a function that is to have them differs from its version, and nothing is wrong."""
    aws = stack(**REVISION)
    of_version, of_latest = ({"ApplyOn": "PublishedVersions", "OptimizationStatus": each} for each in ("On", "Off"))
    aws.change("get_function_configuration", "RelayFunction:live", set_in("SnapStart", to=of_version))
    aws.change("get_function", '"FunctionName": "RelayFunction"', set_in("Configuration", "SnapStart", to=of_latest))
    assert not examined(aws).of(State.WRONG)


def test_an_alias_that_cannot_be_asked_about(stack: Callable[..., DescribedStack]) -> None:
    """Is not taken for one that leads where it should."""
    aws = stack(**REVISION)
    aws.change("get_alias", "DefaultFunction", lambda _: Unknown("AWS does not let you"))
    assert unchecked("revision", "AWS does not let you") in examined(aws).findings


def test_a_zip_for_the_other_processor(stack: Callable[..., DescribedStack], bucket: Bucket) -> None:
    """What a function cannot load ends each of its cold starts, so it is named."""
    bucket.names = [BOTH[1]]
    [found] = examined(stack(AuthMode="none")).of(State.WRONG)
    assert found.seen.startswith("RelayFunction, DeliverFunction, ConnectFunction, D")
    assert found.seen.endswith("Function run on arm64 with python3.13, and the zip is for x86_64 with Python 3.13.")
    bucket.names = ["handler.py"]
    report = examined(stack(AuthMode="none"))
    [unknown] = report.of(State.UNCHECKED)
    assert unknown.seen.startswith("RelayFunction, DeliverFunction, ConnectFunction")
    assert unknown.seen.endswith("Function: no file in its zip says what it was made for")


def test_a_download_that_breaks_off_costs_its_check_alone(
    stack: Callable[..., DescribedStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip of many megabytes may end half way; all else is still checked."""
    aws = stack(AuthMode="none")

    def broken_off(*_: Any, **__: Any) -> Any:
        raise http.client.IncompleteRead(b"half of it")

    monkeypatch.setattr(describing_functions, "urlopen", broken_off)
    report = examined(aws)
    assert [each.about for each in report.of(State.UNCHECKED)] == ["architecture"]
    assert report.of(State.WRONG) == []


def test_posts_that_go_to_another_api(stack: Callable[..., DescribedStack]) -> None:
    """Every client counts as gone there: nothing else looks wrong."""
    aws = stack(AuthMode="none")
    other = variable("WS_ENDPOINT", "https://other.execute-api.eu-west-1.amazonaws.com/prod")
    aws.change("get_function_configuration", "Function", other)
    [found] = examined(aws).of(State.WRONG)
    assert found.about == "API and stage"
    assert_sentences(found)


def test_a_domain_may_be_one_of_a_wildcards(stack: Callable[..., DescribedStack]) -> None:
    """API Gateway has ``*.example.com`` then, with the mappings of all its names."""
    led = {"Items": [{"ApiId": API_ID, "ApiMappingKey": "live", "Stage": "prod"}]}
    aws = stack(**OWN_DOMAIN)
    aws.change("get_api_mappings", '"ws.example.com"', gone)
    aws.change("get_api_mappings", '"*.example.com"', lambda _: led)
    assert examined(aws).of(State.WRONG) == []


def test_jobs_that_the_fanout_gave_up_are_worth_knowing(stack: Callable[..., DescribedStack]) -> None:
    """With the command that shows them; a policy that nobody can read is not checked."""
    aws = stack(**EVERYTHING)
    waiting = set_in("Attributes", "ApproximateNumberOfMessages", to="3")
    aws.change("get_queue_attributes", "/FanoutDeadLetterQueue", waiting)
    [told] = [each.seen for each in examined(aws).of(State.NOTE) if each.about.endswith("fan-out")]
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/FanoutDeadLetterQueue.fifo"
    assert told == f"About 3 jobs wait: async-relay dead-letters list --queue-url {url} shows them."
    for unreadable in ("no JSON", "[]", "{}", '{"deadLetterTargetArn": 7}'):
        aws = stack(**EVERYTHING)
        aws.change("get_queue_attributes", "-fanout-", set_in("Attributes", "RedrivePolicy", to=unreadable))
        reasons = {each.about: each.seen for each in examined(aws).of(State.UNCHECKED)}
        assert reasons["dead-letter queue of the fan-out"] == "the redrive policy of its source cannot be read"


def test_a_batch_that_one_function_cannot_post(stack: Callable[..., DescribedStack]) -> None:
    """The template refuses it; a mapping that was changed by hand may have it."""
    aws = stack(AuthMode="none")
    aws.change("list_event_source_mappings", "RelayFunction", mapping("BatchSize", 2_000))
    [found] = examined(aws).of(State.WRONG)
    assert "BatchSize is 2,000" in found.seen
    assert_sentences(found)
    fanned_out = stack(**JWT | FANOUT)
    fanned_out.change("list_event_source_mappings", "RelayFunction", mapping("BatchSize", 2_000))
    assert examined(fanned_out).of(State.WRONG) == []


def test_functions_that_want_a_principal_which_nobody_gives_them(stack: Callable[..., DescribedStack]) -> None:
    """AUTH_MODE=jwt behind a route without an authorizer refuses everybody."""
    aws = stack(**JWT)
    aws.change("get_routes", API_ID, set_in("Items", 0, "AuthorizationType", to="NONE"))
    aws.change(
        "describe_stacks",
        "relay",
        set_in("Stacks", 0, "Parameters", to=[{"ParameterKey": "StageName", "ParameterValue": "prod"}]),
    )
    found = [each for each in examined(aws).of(State.WRONG) if each.about == "door"]
    assert ["no authorizer gives them one" in each.seen for each in found] == [True]


@pytest.mark.parametrize(
    ("met", "about", "seen"),
    [
        (Endpoint("the name has no address"), "endpoint", "cannot be reached: the name has no address"),
        (replace(REACHED, connection=404), "endpoint", "answers 404 for @connections"),
        (replace(REACHED, ahead_seconds=301.0), "clock", "clock is 301 s ahead of"),
        (replace(REACHED, ahead_seconds=-4_000.0), "clock", "clock is 4,000 s behind"),
    ],
)
def test_what_a_socket_meets(
    met: Endpoint, about: str, seen: str, stack: Callable[..., DescribedStack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that does not answer as API Gateway does, and a clock AWS would not take a signature from."""
    monkeypatch.setattr(describing, "probe", lambda _url, _connection: met)
    [found] = examined(stack(AuthMode="none")).of(State.WRONG)
    assert found.about == about
    assert seen in found.seen
    assert_sentences(found)


@pytest.mark.parametrize(
    ("met", "state", "seen"),
    [
        (replace(REACHED, protocol="h2"), State.NOTE, "the endpoint chose HTTP/2 (h2), over TLSv1.3"),
        (replace(REACHED, protocol=""), State.NOTE, "chose no protocol and not h2"),
        (replace(REACHED, protocol=Unknown("plain HTTP")), State.UNCHECKED, "plain HTTP"),
        (replace(REACHED, ahead_seconds=75.0), State.NOTE, "75 s ahead of the endpoint's; from 300 s on"),
        (replace(REACHED, connection=403), State.UNCHECKED, "which it also does to credentials that may not"),
        (
            replace(REACHED, connection=429),
            State.UNCHECKED,
            "answers 429, as API Gateway does while",
        ),
        (replace(REACHED, connection=Unknown("no credentials")), State.UNCHECKED, "stage is there: no credentials"),
        (replace(REACHED, ahead_seconds=Unknown("no Date")), State.UNCHECKED, "no Date"),
        (Unknown("a proxy is set"), State.UNCHECKED, "a proxy is set"),
    ],
)
def test_what_a_socket_does_not_tell(
    met: Endpoint | Unknown,
    state: State,
    seen: str,
    stack: Callable[..., DescribedStack],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is said aloud or not checked, and nothing is wrong."""
    monkeypatch.setattr(describing, "probe", lambda _url, _connection: met)
    report = examined(stack(AuthMode="none"))
    assert [each for each in report.of(state) if seen in each.seen]
    assert report.exit_code == 0


NOTES: dict[str, tuple[str, str, Callable[[Any], Any], str]] = {
    "open": ("get_api", API_ID, lambda _: None, "OPEN: AuthMode is none, so ANYBODY"),
    "letters wait": (
        "get_queue_attributes",
        "/DeadLetterQueue",
        set_in("Attributes", "ApproximateNumberOfMessages", to="1234"),
        "About 1,234 dead letters wait",
    ),
    "few tries": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("MaximumRetryAttempts", 3),
        "gives a batch up after 3 tries",
    ),
    "a predecessor": (
        "list_event_source_mappings",
        "EventSourceArn",
        read_too_by("IncidentStreamProcessor"),
        "IncidentStreamProcessor reads it too: where that posts as well, clients get every change twice",
    ),
    "a filter": (
        "list_event_source_mappings",
        '"RelayFunction"',
        mapping("FilterCriteria", {"Filters": [{"Pattern": '{"eventName": ["INSERT"]}'}]}),
        'What its filter leaves out is never sent: {"eventName": ["INSERT"]}.',
    ),
    "a filter by content": (
        "list_event_source_mappings",
        '"RelayFunction"',
        mapping("FilterCriteria", {"Filters": [{"Pattern": '{"dynamodb": {"NewImage": {"a": {"S": ["b"]}}}}'}]}),
        "What its filter leaves out is never sent: ",
    ),
    "a filter by beginnings": (
        "list_event_source_mappings",
        '"RelayFunction"',
        mapping("FilterCriteria", {"Filters": [{"Pattern": '{"eventName": [{"prefix": "IN"}]}'}]}),
        "What its filter leaves out is never sent: ",
    ),
    "a filter of jobs": (
        "list_event_source_mappings",
        '"DeliverFunction"',
        mapping("FilterCriteria", {"Filters": [{"Pattern": '{"body": {"attempt": [1]}}'}]}),
        "What its filter leaves out is never sent: ",
    ),
    "on its way": (
        "describe_stacks",
        "relay",
        set_in("Stacks", 0, "StackStatus", to="UPDATE_IN_PROGRESS"),
        "relay is UPDATE_IN_PROGRESS",
    ),
    "rolled back": (
        "describe_stacks",
        "relay",
        set_in("Stacks", 0, "StackStatus", to="UPDATE_ROLLBACK_COMPLETE"),
        "relay is UPDATE_ROLLBACK_COMPLETE",
    ),
    "long stream": (
        "list_event_source_mappings",
        "RelayFunction",
        mapping("MaximumRecordAgeInSeconds", 86_400),
        "a job up after 21,600 s, and the stream a record after 86,400 s",
    ),
}


@pytest.mark.parametrize(("operation", "request_of", "change", "seen"), NOTES.values(), ids=NOTES)
def test_what_is_worth_knowing_is_no_fault(
    operation: str, request_of: str, change: Callable[[Any], Any], seen: str, stack: Callable[..., DescribedStack]
) -> None:
    """It is a note, and the exit code stays 0."""
    aws = stack(AuthMode="none")
    aws.change(operation, request_of, change)
    report = examined(aws)
    assert [each for each in report.of(State.NOTE) if seen in each.seen]
    assert report.exit_code == 0


def test_the_templates_filter_leaves_out_nothing(stack: Callable[..., DescribedStack]) -> None:
    """Nor does one of several that lets everything through."""
    for patterns in ([], ['{"eventName": ["REMOVE"]}', "{}"]):
        aws = stack(AuthMode="none")
        if patterns:
            told = {"Filters": [{"Pattern": each} for each in patterns]}
            aws.change("list_event_source_mappings", '"RelayFunction"', mapping("FilterCriteria", told))
        assert [each for each in examined(aws).findings if "filter" in each.seen] == []


def test_a_predecessor_that_is_off_is_nothing_to_say(stack: Callable[..., DescribedStack]) -> None:
    """Nor is the relay itself, which reads the stream as well."""
    aws = stack(AuthMode="none")
    aws.change("list_event_source_mappings", "EventSourceArn", read_too_by("IncidentStreamProcessor", "Disabled"))
    assert [each.seen for each in examined(aws).findings if each.about == "stream"] == ["It is on, with NEW_IMAGE."]


def operations(aws: DescribedStack) -> list[str]:
    described(aws)
    return list(dict.fromkeys(operation for _, operation, _ in aws.asked))


def test_what_may_not_be_asked_is_not_checked(stack: Callable[..., DescribedStack]) -> None:
    """Each operation denied by itself: something is not checked for it, with the reason, and less is ok than before."""
    healthy = examined(stack(**OWN_DOMAIN))
    for operation in operations(stack(**OWN_DOMAIN)):
        aws = stack(**OWN_DOMAIN)
        aws.change(operation, "", lambda _: Unknown("the credentials may not"))
        if operation in ("describe_stacks", "list_stack_resources"):
            with pytest.raises(CommandError, match="the credentials may not"):
                described(aws)
            continue
        report = examined(aws)
        assert [each for each in report.of(State.UNCHECKED) if "the credentials may not" in each.seen], operation
        assert len(report.of(State.OK)) < len(healthy.of(State.OK)), operation
        assert report.of(State.WRONG) == [], operation


def paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """Where something can be taken out of an answer."""
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (key,)
        yield from ((key, *path) for path in paths(each))


def test_an_answer_that_lacks_something_is_never_a_traceback(stack: Callable[..., DescribedStack]) -> None:
    """Every key of every kind of answer taken out: a report, or one sentence."""
    aws = stack(**OWN_DOMAIN)
    described(aws)
    tried = 0
    for service, operation, request in {each[1]: each for each in aws.asked}.values():
        answer = aws.ask(service, operation, **request)
        for path in [path for path in paths(answer) if "Variables" not in path[:-1] and "Parameters" not in path[:-1]]:
            one = stack(**OWN_DOMAIN)
            one.change(operation, json.dumps(request)[1:-1], without(*path))
            with suppress(CommandError):
                assert all(each.seen for each in examined(one).findings)
            tried += 1
    assert tried > 150


@pytest.mark.parametrize("nothing", [{}, {"unheard": "of"}], ids=["empty", "foreign"])
def test_an_empty_answer_is_not_ok(nothing: Any, stack: Callable[..., DescribedStack]) -> None:
    """Of no operation; where the stack itself is not told, that is one sentence."""
    for operation in operations(stack(**OWN_DOMAIN)):
        aws = stack(**OWN_DOMAIN)
        aws.change(operation, "", lambda _: dict(nothing))
        try:
            report = examined(aws)
        except CommandError:
            assert operation in ("describe_stacks", "list_stack_resources")
        else:
            assert report.of(State.UNCHECKED) or report.of(State.WRONG), operation


def test_a_stack_of_somebody_elses(stack: Callable[..., DescribedStack]) -> None:
    """One sentence: nothing of it is judged by what the relay needs."""
    aws = stack(AuthMode="none")
    aws.change("list_stack_resources", "relay", lambda _: {"StackResourceSummaries": []})
    with pytest.raises(CommandError, match="the stack relay has no RelayFunction, so it is none of async-relay's"):
        described(aws)


def test_what_the_simulator_leaves_out_is_not_allowed(stack: Callable[..., DescribedStack]) -> None:
    """Nor denied: that role is not checked, and the others are."""
    aws = stack(AuthMode="none")
    aws.change("simulate_principal_policy", "DisconnectRole", set_in("EvaluationResults", to=[]))
    report = examined(aws)
    assert [each.seen for each in report.of(State.UNCHECKED)] == [
        "DisconnectFunction: IAM's simulator says nothing of dynamodb:DeleteItem"
    ]
    assert any("lets 4 roles do" in each.seen for each in report.of(State.OK))


def test_a_role_whose_needs_cannot_be_told(stack: Callable[..., DescribedStack]) -> None:
    """Settings that end a cold start, and mappings that may not be listed: IAM is not asked about half of them."""
    aws = stack(AuthMode="none")
    aws.change("get_function_configuration", "DeliverFunction", variable("MAX_CONCURRENCY", "many"))
    aws.change("list_event_source_mappings", "RelayFunction", lambda _: Unknown("nobody may"))
    seen = [each.seen for each in examined(aws).of(State.UNCHECKED) if each.about == "permissions"]
    assert seen == [
        "RelayFunction: what it needs cannot be told: nobody may",
        "DeliverFunction: what it needs cannot be told: its settings cannot be read",
    ]


def test_a_formatter_of_the_owners(stack: Callable[..., DescribedStack]) -> None:
    """Its module is in the zip and not here, so it is not checked and no fault."""
    report = examined(stack(AuthMode="none", MessageFormatter="orders:format_order"))
    assert report.of(State.WRONG) == []
    assert [each.seen for each in report.of(State.UNCHECKED)] == [
        "RelayFunction, DefaultFunction: only its cold start shows whether orders:format_order is there"
    ]


def test_a_function_that_the_owner_added(stack: Callable[..., DescribedStack]) -> None:
    """What it needs is the owner's business."""
    aws = stack(AuthMode="none")
    aws.change("get_function_configuration", "DisconnectFunction", set_in("Handler", to="reports.handler"))
    aws.change("get_function_configuration", "DisconnectFunction", set_in("Environment", to={}))
    report = examined(aws)
    assert report.of(State.WRONG) == []
    assert any(each.seen == "4 are there and ready." for each in report.findings)


def test_the_verdict_is_that_of_the_findings() -> None:
    """Whatever they are, it counts them, and the exit code follows."""
    fault, known = wrong("a", "It is.", "It does.", "Do."), ok("credentials", "Known.")
    sound = "Nothing that was checked is wrong"
    for findings, code, verdict in [
        ((), 2, "AWS could not be asked ()."),
        ((unchecked("credentials", "why"),), 2, "AWS could not be asked (1 not checked)."),
        ((unchecked("credentials", "why"), ok("a", "Good.")), 2, "AWS could not be asked (1 ok, 1 not checked)."),
        ((unchecked("credentials", "why"), fault), 1, "One thing is wrong (1 wrong, 1 not checked)."),
        ((known, note("a", "Well."), unchecked("a", "why")), 0, f"{sound} (1 ok, 1 note, 1 not checked)."),
        ((known, fault), 1, "One thing is wrong (1 ok, 1 wrong)."),
        ((fault, fault, known), 1, "2 things are wrong (1 ok, 2 wrong)."),
    ]:
        report = Report(findings)
        assert (report.exit_code, report.verdict) == (code, verdict)


def test_remedies_name_what_there_is() -> None:
    """Each parameter named in a check is the template's, and each place in a document is there."""
    source = "".join(path.read_text() for path in sorted(examination_files()))
    parameters = set(template()["Parameters"])
    named = set(re.findall(r"\b([A-Z][a-z]+(?:[A-Z][a-z]+)+)=", source))
    assert named - {"AttributeName"} <= parameters  # that one is an option's of the AWS CLI
    places = re.findall(r"(docs/[\w-]+\.md)#([\w-]+)", source)
    assert len(places) > 10
    for file, anchor in places:
        titles = re.findall(r"^#+ (.*)$", (ROOT / file).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, (file, anchor)


def test_the_document_lists_what_is_asked(stack: Callable[..., DescribedStack]) -> None:
    """Whoever gives the doctor a policy by the document gives it all it asks for, and nothing more."""
    aws = stack(**REVISION)
    aws.change("get_service_quota", "", gone)
    aws.change("get_aws_default_service_quota", "", lambda _: {"Quota": {"Value": 10_000.0}})
    aws._get_aws_default_service_quota = lambda **_: {}  # type: ignore[attr-defined]  # only here
    assert examined(aws).exit_code == 0
    asked = {
        asking._action(service, "".join(part.capitalize() for part in operation.split("_"))).replace("Aws", "AWS")
        for service, operation, _ in aws.asked
    }
    section = (ROOT / "docs" / "operations.md").read_text().partition("It asks for ")[2].partition(" and\n`execute")[0]
    assert set(re.findall(r"`(\S+)`", section)) == asked - {"sts:GetCallerIdentity"}


def examination_files() -> list[Any]:
    assert examination.__file__ is not None
    return list((ROOT / "async_relay" / "checks").glob("*.py"))
