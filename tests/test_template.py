"""What ``template.yaml`` makes, resolved for given parameters as CloudFormation would resolve it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from cloudformation import ROOT, Stack, template

from async_relay.aws.feed import DynamoFeed
from async_relay.settings import Settings
from async_relay.wire.feed import FeedEntry, position_at

STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2026-01-01T00:00:00.000"
EXISTING = {"IncidentStreamArn": STREAM, "ConnectionsTableName": "WebSocketConnections", "WebSocketApiId": "kote8jrryb"}
FANOUT = {"FanoutMode": "fanout", "ConnectionsIndex": "by-shard"}
AUTHORIZER = "arn:aws:lambda:eu-west-1:123456789012:function:door"
JWT = {"AuthMode": "jwt", "AuthIssuer": "https://issuer.example.com", "AuthAudience": "relay"}
OWN = {"AuthMode": "jwt", "AuthorizerArn": AUTHORIZER}
CANARY = {"Revision": "v1.2.0", "Rollout": "Canary10Percent5Minutes"}
LOGS = ["logs:CreateLogStream", "logs:PutLogEvents"]
TABLE_OF_STACK = "ConnectionsTable.Arn"
CONNECTIONS = "arn:aws:execute-api:eu-west-1:123456789012:WebSocketApi/prod/{}/@connections/*"
#: To post, and to close what has expired.
MANAGE = {("execute-api:ManageConnections",): [CONNECTIONS.format("POST"), CONNECTIONS.format("DELETE")]}
ON_ROWS = ("dynamodb:Scan", "dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem")
BROADCAST = MANAGE | {ON_ROWS: [TABLE_OF_STACK]}
QUERY = {
    ("dynamodb:Query",): [f"{TABLE_OF_STACK}/index/by-shard"],
    ("dynamodb:DescribeTable",): [TABLE_OF_STACK],
}
RECEIVE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (
            "RelayRole",
            BROADCAST
            | {
                tuple(LOGS): ["RelayLogs.Arn"],
                ("dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords"): [
                    "IncidentTable.StreamArn"
                ],
                ("dynamodb:ListStreams",): ["*"],
                ("dynamodb:PutItem",): ["FeedTable.Arn"],
                ("sqs:SendMessage",): ["RetryQueue.Arn", "DeadLetterQueue.Arn"],
                ("s3:PutObject",): ["StreamFailureBucket.Arn/*"],
                ("s3:ListBucket",): ["StreamFailureBucket.Arn"],
            },
        ),
        (
            "DeliverRole",
            BROADCAST
            | {
                tuple(LOGS): ["DeliverLogs.Arn"],
                RECEIVE: ["RetryQueue.Arn"],
                ("sqs:SendMessage",): ["RetryQueue.Arn", "DeadLetterQueue.Arn"],
            },
        ),
        ("ConnectRole", {tuple(LOGS): ["ConnectLogs.Arn"], ("dynamodb:PutItem",): [TABLE_OF_STACK]}),
        ("DisconnectRole", {tuple(LOGS): ["DisconnectLogs.Arn"], ("dynamodb:DeleteItem",): [TABLE_OF_STACK]}),
        ("AuthorizeRole", {tuple(LOGS): ["AuthorizeLogs.Arn"]}),
        (
            "DefaultRole",
            MANAGE
            | {
                tuple(LOGS): ["DefaultLogs.Arn"],
                ("dynamodb:BatchGetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"): [TABLE_OF_STACK],
                ("dynamodb:Query",): ["FeedTable.Arn"],
                ("dynamodb:Scan",): ["IncidentTable.Arn"],
            },
        ),
        ("HeartbeatRole", BROADCAST | {tuple(LOGS): ["HeartbeatLogs.Arn"]}),
    ],
)
def test_a_role_allows(role: str, expected: Mapping[tuple[str, ...], list[str]]) -> None:
    """Each function may do what it does, to its own resources, and nothing else."""
    assert Stack(**JWT, HeartbeatMinutes="5").statements(role) == expected


@pytest.mark.parametrize(
    ("parameters", "table"),
    [({}, "IncidentTable.Arn"), ({"IncidentStreamArn": STREAM}, STREAM.partition("/stream")[0])],
)
def test_who_may_read_the_incident_table(parameters: dict[str, str], table: str) -> None:
    """The function that shows clients its history, and by its index alone where there is one."""
    named = {"IncidentTable.Arn": "IncidentTable"}.get(table, table)
    by_scan, by_index = Stack(**parameters), Stack(**parameters, IncidentIndex="by-time")
    assert by_scan.statements("DefaultRole")[("dynamodb:Scan",)] == [table]
    allowed = by_index.statements("DefaultRole")
    assert ("dynamodb:Scan",) not in allowed
    assert allowed[("dynamodb:DescribeTable",)] == [table]
    assert allowed[("dynamodb:Query", "dynamodb:Scan")] == [f"{table}/index/by-time"]
    for stack, index in ((by_scan, None), (by_index, "by-time")):
        assert not stack.refused
        told = Settings.from_env(stack.functions()["DefaultFunction"]["Environment"])
        assert (told.incident_table, told.incident_index) == (named, index)
        others = {name for name in stack.functions() if name != "DefaultFunction"}
        assert not [name for name in others if "INCIDENT_TABLE" in stack.functions()[name]["Environment"]]


def test_two_indexes_of_two_tables_are_both_described() -> None:
    """The function that answers clients checks that of the connections and that of the incidents."""
    allowed = Stack(ConnectionsIndex="by-shard", IncidentIndex="by-time").statements("DefaultRole")
    assert sorted(allowed[("dynamodb:DescribeTable",)]) == sorted([TABLE_OF_STACK, "IncidentTable.Arn"])


def test_history_of_the_feed_alone() -> None:
    """Then nobody may read the Incident table, and the function knows of none."""
    stack = Stack(History="feed")
    told = Settings.from_env(stack.functions()["DefaultFunction"]["Environment"])
    assert (told.incident_table, told.feed_table) == (None, "FeedTable")
    assert not who_may_touch("IncidentTable.Arn", stack)


def who_may_touch(arn: str, stack: Stack) -> list[str]:
    """The roles that are allowed something to it."""
    return [role for role in stack.of("IAM::Role") if any(arn in each for each in stack.statements(role).values())]


def test_history_shows_what_the_formatter_lets_out() -> None:
    """So the function that shows it knows the formatter, as the relay does."""
    told = door(MessageFormatter="builtins:pow")
    formatters: dict[str, object] = {name: each.message_formatter for name, each in told.items()}
    assert {name for name, each in formatters.items() if each is pow} == {"RelayFunction", "DefaultFunction"}


def test_the_feed() -> None:
    """Its table, who knows of it and for how long it keeps what was sent; its keys are those that are written."""
    parameters = {"FeedHours": "1.5", "HeartbeatMinutes": "5", "FanoutMode": "auto"}
    stack, told = Stack(**parameters), door(**parameters)
    table = stack.properties("FeedTable")
    assert table["KeySchema"] == [
        {"AttributeName": "bucket", "KeyType": "HASH"},
        {"AttributeName": "position", "KeyType": "RANGE"},
    ]
    assert {each["AttributeType"] for each in table["AttributeDefinitions"]} == {"S"}
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    unused: Any = None
    written = DynamoFeed(unused, "feed", 1.0)._put(FeedEntry("0", position_at(0), ()))["Item"]
    assert written.keys() == {"bucket", "position", "messages", "ttl"}
    assert stack.outputs["FeedTable"] == "FeedTable"
    knows = {"RelayFunction", "DefaultFunction", "HeartbeatFunction"}
    assert {name for name, each in told.items() if each.feed_table == "FeedTable"} == knows
    assert {told[name].feed_hours for name in ("RelayFunction", "DefaultFunction")} == {1.5}
    assert who_may_touch("FeedTable.Arn", stack) == ["RelayRole", "DefaultRole"]


@pytest.mark.parametrize("parameters", [{"Feed": "off"}, EXISTING], ids=["off", "existing"])
def test_stacks_without_a_feed(parameters: dict[str, str]) -> None:
    """Where it is off, and where the clients' requests go to functions that are not of this stack."""
    stack = Stack(**parameters, HeartbeatMinutes="5")
    assert "FeedTable" not in stack.resources | stack.outputs
    assert not [name for name, each in stack.functions().items() if "FEED_TABLE" in each["Environment"]]
    assert not who_may_touch("FeedTable.Arn", stack)


def test_the_heartbeat_is_off_until_it_is_asked_for() -> None:
    """By default nothing of it is made, and the retry queue has its whole fifth of the posts."""
    stack = Stack()
    assert not [name for name in stack.resources if name.startswith("Heartbeat")]
    assert stack.functions()["DeliverFunction"]["Environment"]["MAX_POSTS_PER_SECOND"] == "400"


def test_the_heartbeat() -> None:
    """A schedule of whole minutes, without tries of its own: the next one is on its way."""
    for minutes in ("1", "2", "5", "8"):
        stack = Stack(**EXISTING, HeartbeatMinutes=minutes)
        event = stack.functions()["HeartbeatFunction"]["Events"]["Minutes"]
        assert event == {"Type": "Schedule", "Properties": {"Schedule": f"cron(0/{minutes} * * * ? *)"}}
        assert stack.functions()["HeartbeatFunction"]["Handler"] == "handler.heartbeat_handler"
        assert stack.properties("HeartbeatInvocations") == {
            "FunctionName": "HeartbeatFunction",
            "Qualifier": "$LATEST",
            "MaximumRetryAttempts": 0,
            "MaximumEventAgeInSeconds": 60,
        }
    assert all(int(each) < 10 for each in template()["Parameters"]["HeartbeatMinutes"]["AllowedValues"])  # idle: closed


def test_the_roles_of_the_fanout() -> None:
    """With fan-out and an index, the relay may dispatch, and the workers read, continue and requeue."""
    stack = Stack(**FANOUT)
    assert stack.statements("RelayRole")[("sqs:SendMessage",)] == [
        "RetryQueue.Arn",
        "DeadLetterQueue.Arn",
        "FanoutQueue.Arn",
    ]
    assert stack.statements("FanoutRole") == BROADCAST | QUERY | {
        tuple(LOGS): ["FanoutLogs.Arn"],
        RECEIVE: ["FanoutQueue.Arn"],
        ("sqs:SendMessage",): ["FanoutQueue.Arn", "RetryQueue.Arn", "DeadLetterQueue.Arn"],
    }
    assert stack.statements("DeliverRole").items() >= QUERY.items()
    assert ("dynamodb:DescribeTable",) in stack.statements("ConnectRole")
    assert ("dynamodb:DescribeTable",) not in stack.statements("DisconnectRole")


def test_codedeploy_moves_the_aliases_and_nothing_else() -> None:
    """Its role reads alarms and what is provisioned, of whatever there is, and moves each alias of the stack."""
    for parameters, names in (
        (EXISTING | CANARY, ["Relay", "Deliver"]),
        (FANOUT | JWT | CANARY, ["Relay", "Deliver", "Fanout", "Connect", "Disconnect", "Authorize", "Default"]),
    ):
        role = Stack(**parameters).properties("RolloutRole")
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "codedeploy.amazonaws.com"}
        assert Stack(**parameters).statements("RolloutRole") == {
            ("cloudwatch:DescribeAlarms", "lambda:GetProvisionedConcurrencyConfig"): ["*"],
            ("lambda:GetAlias", "lambda:UpdateAlias"): [
                f"{name}Function.Arn{alias}" for name in names for alias in ("", ":live")
            ],
        }


@pytest.mark.parametrize(
    "parameters", [{}, FANOUT | JWT, EXISTING, EXISTING | FANOUT], ids=["new", "fanout", "old", "both"]
)
def test_no_role_is_wider_than_it_says(parameters: dict[str, str]) -> None:
    """Every role is one function's, Lambda alone may take it on, and no action or whole resource is a wildcard.

    Only connections and the objects of the bucket for failures have names nobody knows before, and
    the action that lists streams has no resource to name.
    """
    stack = Stack(**parameters, HeartbeatMinutes="5")
    roles = stack.of("IAM::Role")
    assert sorted(each["Role"] for each in stack.functions().values()) == sorted(f"{name}.Arn" for name in roles)
    for name, role in roles.items():
        [trust] = role["AssumeRolePolicyDocument"]["Statement"]
        assert trust["Principal"] == {"Service": "lambda.amazonaws.com"}
        assert "ManagedPolicyArns" not in role
        for actions, resources in stack.statements(name).items():
            if actions == ("dynamodb:ListStreams",):
                continue
            assert not [action for action in actions if "*" in action]
            assert not [
                each
                for each in resources
                if "*" in re.sub(r"/(POST|DELETE)/@connections/\*$|Bucket\.Arn/\*$", "", each)
            ]


def test_existing_resources_are_used_and_none_made() -> None:
    """With every existing resource named, the stack makes no table and no API, and its functions go to those."""
    stack = Stack(**EXISTING, ConnectionsIndex="by-shard", StageName="live")
    made = {each["Type"] for each in stack.resources.values()}
    assert not {kind for kind in made if kind.startswith(("AWS::DynamoDB::", "AWS::ApiGatewayV2::"))}
    assert set(stack.functions()) == {"RelayFunction", "DeliverFunction"}
    table = "arn:aws:dynamodb:eu-west-1:123456789012:table/WebSocketConnections"
    allowed = stack.statements("RelayRole")
    assert allowed[ON_ROWS] == [table]
    assert allowed[("dynamodb:Query",)] == [f"{table}/index/by-shard"]
    assert allowed[("dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords")] == [STREAM]
    assert stack.mappings()["RelayFunctionStream"]["EventSourceArn"] == STREAM
    settings = Settings.from_env(stack.functions()["RelayFunction"]["Environment"])
    assert settings.ws_endpoint == "https://kote8jrryb.execute-api.eu-west-1.amazonaws.com/live"
    assert settings.connections_table == "WebSocketConnections"
    assert stack.outputs["IncidentTable"] == "Incident"


def test_the_stream_is_read_as_the_relay_needs_it() -> None:
    """The stream's mapping drops REMOVE and takes partial answers."""
    mapping = Stack().mappings()["RelayFunctionStream"]
    assert mapping["EventSourceArn"] == "IncidentTable.StreamArn"
    [pattern] = mapping["FilterCriteria"]["Filters"]
    assert [name for name in ("INSERT", "MODIFY", "REMOVE") if matches(pattern["Pattern"], {"eventName": name})] == [
        "INSERT",
        "MODIFY",
    ]
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BisectBatchOnFunctionError"] is True
    assert mapping["ParallelizationFactor"] == 1
    assert Stack().properties("IncidentTable")["StreamSpecification"]["StreamViewType"] == "NEW_IMAGE"


def test_age_alone_ends_the_tries_of_a_record() -> None:
    """No number of tries gives a record up, since nobody knows how long those take; six hours do."""
    mapping = Stack().mappings()["RelayFunctionStream"]
    assert (mapping["MaximumRetryAttempts"], mapping["MaximumRecordAgeInSeconds"]) == ("-1", "21600")
    limited = Stack(StreamRetryAttempts="7", StreamRecordAgeSeconds="60").mappings()["RelayFunctionStream"]
    assert (limited["MaximumRetryAttempts"], limited["MaximumRecordAgeInSeconds"]) == ("7", "60")
    assert template()["Parameters"]["StreamRetryAttempts"]["MinValue"] == -1


def test_records_are_sent_at_once_unless_somebody_chose_to_wait() -> None:
    """A batch has at most a hundred of them, and both may be chosen within what Lambda takes."""
    mapping = Stack().mappings()["RelayFunctionStream"]
    assert (mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"]) == ("100", "0")
    chosen = Stack(StreamBatchSize="500", StreamBatchingWindowSeconds="2").mappings()["RelayFunctionStream"]
    assert (chosen["BatchSize"], chosen["MaximumBatchingWindowInSeconds"]) == ("500", "2")
    sizes = [int(size) for size in template()["Parameters"]["StreamBatchSize"]["AllowedValues"]]
    assert (sizes[0], sizes[-1]) == (1, 10_000)


def test_the_stream_is_read_from_its_beginning() -> None:
    """Nothing written while the mapping is made is missed, unless LATEST is asked for."""
    for parameters in ({}, EXISTING):
        assert Stack(**parameters).mappings()["RelayFunctionStream"]["StartingPosition"] == "TRIM_HORIZON"
    latest = Stack(**EXISTING, StreamStartingPosition="LATEST").mappings()["RelayFunctionStream"]
    assert latest["StartingPosition"] == "LATEST"


def test_what_lambda_gives_up_is_kept_whole() -> None:
    """Failures go to a bucket: private, encrypted, reached by TLS only, and it outlives the stack."""
    stack = Stack()
    mapping = stack.mappings()["RelayFunctionStream"]
    assert mapping["DestinationConfig"]["OnFailure"]["Destination"] == "StreamFailureBucket.Arn"
    assert mapping["MetricsConfig"] == {"Metrics": ["EventCount"]}
    assert "StreamFailureQueue" not in stack.resources
    assert (stack.outputs["StreamFailureBucketName"], "StreamFailureQueueUrl" in stack.outputs) == (
        "StreamFailureBucket",
        False,
    )
    assert stack.outputs["RelayFunctionName"] == "RelayFunction"
    bucket = stack.properties("StreamFailureBucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert bucket["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    [rule] = bucket["LifecycleConfiguration"]["Rules"]
    assert (rule["Status"], rule["ExpirationInDays"]) == ("Enabled", 90)
    for name in ("StreamFailureBucket", "StreamFailureBucketPolicy"):
        kept = stack.resources[name]
        assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("RetainExceptOnCreate", "Retain")
    [denied] = stack.properties("StreamFailureBucketPolicy")["PolicyDocument"]["Statement"]
    assert (denied["Effect"], denied["Principal"], denied["Action"]) == ("Deny", "*", "s3:*")
    assert denied["Resource"] == ["StreamFailureBucket.Arn", "StreamFailureBucket.Arn/*"]
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


@pytest.mark.parametrize(
    "parameters", [{"StreamFailureDestination": "queue"}, {"LocalEndpoint": "http://127.0.0.1:4566"}]
)
def test_a_queue_for_failures(parameters: dict[str, str]) -> None:
    """Where a queue is asked for, and on a local AWS, which delivers to no bucket, failures go to a queue alone."""
    stack = Stack(**parameters)
    destination = stack.mappings()["RelayFunctionStream"]["DestinationConfig"]["OnFailure"]["Destination"]
    assert destination == "StreamFailureQueue.Arn"
    assert "StreamFailureQueueUrl" in stack.outputs
    assert not [name for name, each in stack.resources.items() if each["Type"].startswith("AWS::S3::")]
    allowed = stack.statements("RelayRole")
    assert allowed[("sqs:SendMessage",)] == ["RetryQueue.Arn", "DeadLetterQueue.Arn", "StreamFailureQueue.Arn"]
    assert ("s3:PutObject",) not in allowed


def matches(pattern: str, event: Mapping[str, str]) -> bool:
    """Lambda's event filtering, as far as lists of strings at the top go."""
    return all(event.get(name) in allowed for name, allowed in json.loads(pattern).items())


@pytest.mark.parametrize(
    ("mapping", "function", "queue", "workers", "jobs"),
    [
        ("DeliverFunctionRetry", "DeliverFunction", "RetryQueue", "5", 10),
        ("FanoutFunctionShard", "FanoutFunction", "FanoutQueue", "8", 1),
    ],
)
def test_a_queue_is_read_with_partial_answers(mapping: str, function: str, queue: str, workers: str, jobs: int) -> None:
    """A queue's mapping takes partial answers, is bounded, and hides a message for six of the function's timeouts.

    A worker of the fan-out gets one shard at a time: it has one worker's share of the posts.
    """
    stack = Stack(**FANOUT)
    read = stack.mappings()[mapping]
    assert (read["FunctionName"], read["EventSourceArn"]) == (function, f"{queue}.Arn")
    assert read["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert read["BatchSize"] == jobs
    assert read["ScalingConfig"] == {"MaximumConcurrency": workers}
    assert stack.properties(queue)["VisibilityTimeout"] >= 6 * stack.functions()[function]["Timeout"]


def test_the_queues() -> None:
    """Queues are encrypted; what is given up goes to one of the same kind, for 14 days, which is longer."""
    queues = Stack(**FANOUT).of("SQS::Queue")
    fifo = {name for name, queue in queues.items() if queue.get("FifoQueue")}
    assert fifo == {"FanoutQueue", "FanoutDeadLetterQueue"}
    assert all(queue["SqsManagedSseEnabled"] is True for queue in queues.values())
    for name in ("RetryQueue", "FanoutQueue"):
        redrive = queues[name]["RedrivePolicy"]
        target = redrive["deadLetterTargetArn"].removesuffix(".Arn")
        assert redrive["maxReceiveCount"] * queues[name]["VisibilityTimeout"] >= 6 * 3600  # as long as the stream
        assert (target in fifo) == (name in fifo)
        assert queues[target]["MessageRetentionPeriod"] == 14 * 86_400 > queues[name]["MessageRetentionPeriod"]
    failures = Stack(StreamFailureDestination="queue").properties("StreamFailureQueue")
    assert (failures["MessageRetentionPeriod"], failures["SqsManagedSseEnabled"]) == (14 * 86_400, True)


def test_fifo_groups_have_high_throughput() -> None:
    """Deduplication and throughput of the fan-out queue count by group."""
    queue = Stack(**FANOUT).properties("FanoutQueue")
    assert queue["DeduplicationScope"] == "messageGroup"
    assert queue["FifoThroughputLimit"] == "perMessageGroupId"


def test_the_fanout_is_off_until_it_is_asked_for() -> None:
    """By default there is no FIFO queue, no worker for it, and the relay posts itself."""
    stack = Stack()
    assert not [name for name in stack.resources if name.startswith("Fanout")]
    assert "FANOUT_QUEUE_URL" not in stack.functions()["RelayFunction"]["Environment"]


def test_the_connections_table() -> None:
    """Its key is connectionId, its rows die by ttl, and it has an index only where one is named."""
    table = Stack().properties("ConnectionsTable")
    assert table["KeySchema"] == [{"AttributeName": "connectionId", "KeyType": "HASH"}]
    assert table["AttributeDefinitions"] == [{"AttributeName": "connectionId", "AttributeType": "S"}]
    assert table["TimeToLiveSpecification"] == {"AttributeName": "ttl", "Enabled": True}
    assert "GlobalSecondaryIndexes" not in table


def test_the_index_of_the_connections_table() -> None:
    """A named index is keyed by the number shard, then connectionId, and carries what deciding about a client needs."""
    table = Stack(**FANOUT).properties("ConnectionsTable")
    [index] = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "by-shard"
    assert [each["AttributeName"] for each in index["KeySchema"]] == ["shard", "connectionId"]
    assert index["Projection"]["NonKeyAttributes"] == ["createdAt", "expiresAt", "tenants", "interest", "frames"]
    assert {"AttributeName": "shard", "AttributeType": "N"} in table["AttributeDefinitions"]


#: The functions that read connections by the index, where there is one, write what it needs, or say that it is late.
INDEXED = {"RelayFunction", "DeliverFunction", "FanoutFunction", "ConnectFunction", "DefaultFunction"}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        FANOUT,
        FANOUT | {"ConnectionsIndexSweep": "off"},
        FANOUT | JWT | {"TenantAttribute": "tenant", "TenantClaim": "tenants"},
        FANOUT | OWN | {"TenantAttribute": "tenant"},
        FANOUT | {"AuthMode": "iam", "AuthOrigins": "https://app.example.com"},
        FANOUT | {"HeartbeatMinutes": "5", "IncidentIndex": "by-time"},
    ],
    ids=["plain", "fanout", "index", "tokens", "own authorizer", "iam", "heartbeat"],
)
def test_the_settings_of_every_function_are_accepted(parameters: dict[str, str]) -> None:
    """Every variable is a setting by name, and every function would start with what it is given."""
    others = {"AWS_ENDPOINT_URL", "POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL", "REVISION"}
    known = {field.name.upper() for field in fields(Settings)} | others
    for name, function in Stack(**parameters).functions().items():
        assert function["Environment"].keys() <= known, name
        settings = Settings.from_env(function["Environment"])
        assert settings.ws_endpoint == "https://WebSocketApi.execute-api.eu-west-1.amazonaws.com/prod"
        assert settings.connections_table == "ConnectionsTable"
        assert settings.retry_queue_url
        assert settings.dead_letter_queue_url
        index = parameters.get("ConnectionsIndex") if name in INDEXED else None
        assert settings.connections_index == index, name
        fans_out = bool(parameters) and name in {"RelayFunction", "FanoutFunction"}
        assert bool(settings.fanout_queue_url) == fans_out, name


def test_parameters_reach_the_settings() -> None:
    """Each setting has a parameter, and its value arrives."""
    stack = Stack(
        MaxConcurrency="7",
        PostTimeoutSeconds="1.5",
        RetryBackoffSeconds="0",
        MaxDeliveryAttempts="3",
        FanoutShards="64",
        FrameBytes="65536",
        Transport="sdk",
        TtlHours="3",
        AccountPostsPerSecond="2500",
        StreamShards="1",
        Coalesce="latest",
        MessageFormatter="builtins:pow",
        FanoutMode="auto",
        FanoutAutoClients="9",
        ConnectionsIndex="by-shard",
        ConnectionsIndexSweep="off",
    )
    assert not stack.refused
    settings = Settings.from_env(stack.functions()["RelayFunction"]["Environment"])
    assert (settings.max_concurrency, settings.post_timeout_seconds, settings.transport) == (7, 1.5, "sdk")
    assert (settings.retry_backoff_seconds, settings.max_delivery_attempts, settings.frame_bytes) == (0, 3, 65_536)
    assert (settings.fanout_shards, settings.ttl_hours, settings.max_posts_per_second) == (64, 3, 2000)
    assert (settings.fanout_mode, settings.fanout_auto_clients, settings.coalesce) == ("auto", 9, True)
    assert settings.connections_index_sweep is False
    formatter: object = settings.message_formatter
    assert formatter is pow
    assert settings.fanout_queue_url


def door(**parameters: str) -> dict[str, Settings]:
    """The settings of every function."""
    stack = Stack(**parameters)
    assert not stack.refused
    return {name: Settings.from_env(each["Environment"]) for name, each in stack.functions().items()}


def test_the_door_reaches_the_settings() -> None:
    """Every function knows whether tokens are checked and whether tenants are on; who reads tokens knows which."""
    told = door(
        **FANOUT,
        **JWT | {"AuthIssuer": "https://issuer.example.com/a", "AuthAudience": "one, two"},
        AuthScope="read",
        AuthOrigins="https://app.example.com, http://localhost:8080",
        AuthQueryToken="on",
        TenantAttribute="owner",
        TenantClaim="https://example.com/tenants",
    )
    assert {"AuthorizeFunction", "DefaultFunction", "ConnectFunction", "RelayFunction", "FanoutFunction"} <= told.keys()
    for each in told.values():
        assert (each.auth_mode, each.tenant_attribute, each.needs_row) == ("jwt", "owner", True)
        assert (each.auth_issuer, each.auth_audience) == ("https://issuer.example.com/a", ("one", "two"))
        assert each.authorizer_arn is None
    for name in ("AuthorizeFunction", "DefaultFunction"):
        assert (told[name].auth_scope, told[name].tenant_claim) == ("read", "https://example.com/tenants"), name
    for name in ("AuthorizeFunction", "ConnectFunction"):
        assert told[name].auth_origins == ("https://app.example.com", "http://localhost:8080"), name
    assert [name for name, each in told.items() if each.auth_query_token] == ["AuthorizeFunction"]


def test_an_authorizer_of_ones_own_is_known_to_every_function() -> None:
    """Then none of ours is made, and no function wants an issuer."""
    told = door(**FANOUT, **OWN, TenantAttribute="tenant")
    assert "AuthorizeFunction" not in told
    for each in told.values():
        assert (each.auth_mode, each.authorizer_arn, each.auth_issuer) == ("jwt", AUTHORIZER, "")


@pytest.mark.parametrize("mode", ["iam", "none"])
def test_without_tokens_no_function_looks_for_them(mode: str) -> None:
    """IAM is API Gateway's; the Origin is checked in every mode."""
    told = door(AuthMode=mode, AuthOrigins="https://app.example.com")
    assert {each.auth_mode for each in told.values()} == {"none"}
    assert told["ConnectFunction"].auth_origins == ("https://app.example.com",)


def test_whoever_posts_at_once_stays_within_the_quota() -> None:
    """For every allowed quota and number of functions: relays or workers, the retry workers beside them, the heartbeat.

    No share is smaller than it need be: the rest is less than a post for each function.
    """
    allowed = {name: each.get("AllowedValues", []) for name, each in template()["Parameters"].items()}
    steering = ("StreamShards", "FanoutWorkers", "RetryWorkers")
    for quota in allowed["AccountPostsPerSecond"]:
        for number, minutes in product(range(max(len(allowed[name]) for name in steering)), ("0", "5")):
            chosen = {name: str(allowed[name][number % len(allowed[name])]) for name in steering}
            stack = Stack(FanoutMode="auto", AccountPostsPerSecond=str(quota), HeartbeatMinutes=minutes, **chosen)
            mappings, shares = stack.mappings(), {}
            for name, function in stack.functions().items():
                shares[name] = Settings.from_env(function["Environment"]).max_posts_per_second or 0.0
            read = {"FanoutFunctionShard": "FanoutWorkers", "DeliverFunctionRetry": "RetryWorkers"}
            for mapping, steered in read.items():
                assert mappings[mapping]["ScalingConfig"]["MaximumConcurrency"] == chosen[steered]
            heartbeat = shares.get("HeartbeatFunction", 0)
            assert heartbeat == (0 if minutes == "0" else quota / 10)
            retry = shares["DeliverFunction"] * int(chosen["RetryWorkers"])
            assert quota / 5 - heartbeat - int(chosen["RetryWorkers"]) < retry <= quota / 5 - heartbeat
            for name, steered in (("RelayFunction", "StreamShards"), ("FanoutFunction", "FanoutWorkers")):
                posting = shares[name] * int(chosen[steered])
                assert quota * 4 / 5 - int(chosen[steered]) < posting <= quota * 4 / 5
                assert posting + retry + heartbeat <= quota


def test_four_relays_are_reckoned_with() -> None:
    """A new on-demand table's stream has about four shards, each with a relay function of its own."""
    stack = Stack()
    assert stack.parameter("StreamShards") == "4"
    assert stack.functions()["RelayFunction"]["Environment"]["MAX_POSTS_PER_SECOND"] == "2000"


def test_a_domain_of_ones_own() -> None:
    """Posts and clients go to WebSocketEndpoint, which has no stage, whoever made the API; roles name the API still."""
    for endpoint in ("https://ws.example.com", "https://ws.example.com/live/eu"):
        for parameters in ({}, EXISTING):
            stack = Stack(**parameters, WebSocketEndpoint=endpoint)
            assert not stack.refused
            for function in stack.functions().values():
                assert function["Environment"]["WS_ENDPOINT"] == endpoint
            api = parameters.get("WebSocketApiId", "WebSocketApi")
            arns = [CONNECTIONS.format(method).replace("WebSocketApi", api) for method in ("POST", "DELETE")]
            assert stack.statements("RelayRole")[("execute-api:ManageConnections",)] == arns
        assert Stack(WebSocketEndpoint=endpoint).outputs["WebSocketUrl"] == endpoint.replace("https", "wss")
    address = Stack().outputs["WebSocketUrl"]
    assert address == "wss://WebSocketApi.execute-api.eu-west-1.amazonaws.com/prod"


def test_the_endpoint_beside_a_domain_of_ones_own_can_be_closed() -> None:
    """It stays open until ExecuteApiEndpoint=off, so that clients have time to move."""
    domain = "https://ws.example.com"
    for parameters in ({}, {"WebSocketEndpoint": domain}):
        assert Stack(**parameters).properties("WebSocketApi")["DisableExecuteApiEndpoint"] is False
    closed = Stack(WebSocketEndpoint=domain, ExecuteApiEndpoint="off")
    assert not closed.refused
    assert closed.properties("WebSocketApi")["DisableExecuteApiEndpoint"] is True


@pytest.mark.parametrize(
    ("endpoint", "taken"),
    [
        ("", True),
        ("https://ws.example.com", True),
        ("https://ws.example.com/live", True),
        ("https://ws.example.com/", False),
        ("https://ws.example.com/live/", False),
        ("wss://ws.example.com", False),
        ("http://ws.example.com", False),
        ("ws.example.com", False),
        ("https://example", False),
        ("https://ws.example.com/live?x=1", False),
        ("https://a@ws.example.com", False),
        ("https://ws.example.com:8443", False),
        ("https://ws.example.com/$a-b_c.d+e!f*g'(h)/2", True),
        ("https://ws.example.com/a..b", False),
        ("https://ws.example.com/..", False),
        ("https://ws.example.com/./live", False),
        ("https://ws.example.com/.", False),
        ("https://ws.example.com/a.b", True),
        ("https://ws.example.com/live~", False),
        ("https://ws.example.com/@connections", False),
        ("https://execute-api.example.com", True),
        ("https://kote8jrryb.execute-api.eu-west-1.amazonaws.com", False),
        ("https://kote8jrryb.execute-api.eu-west-1.amazonaws.com/prod", False),
        ("https://KOTE8JRRYB.Execute-API.eu-west-1.amazonaws.com/prod", False),
        ("https://ws.example.com/.execute-api.", True),
        ("https://relay.localhost", False),
        ("https://relay.localhost/live", False),
        ("https://relay.localhost.example.com", True),
        ("https://10.0.0.1", False),
    ],
)
def test_what_is_a_domain_of_ones_own(endpoint: str, taken: bool) -> None:
    """An https URL, with the path of the mapping or without, that has nothing behind it."""
    assert allows("WebSocketEndpoint", endpoint) == taken


def allows(name: str, value: str) -> bool:
    """Whether CloudFormation would take this value of a parameter."""
    parameter = template()["Parameters"][name]
    if len(value) > parameter.get("MaxLength", 4_096):
        return False
    if "AllowedValues" in parameter:
        return value in map(str, parameter["AllowedValues"])
    if parameter["Type"] == "Number":
        low, high = (float(parameter.get(limit, value)) for limit in ("MinValue", "MaxValue"))
        return low <= float(value) <= high
    return bool(re.fullmatch(parameter.get("AllowedPattern", ".*"), value))


#: Of each parameter that reaches a function: the values at the edges of what it allows, and some beyond them.
EDGES: dict[str, tuple[list[str], list[str]]] = {
    "IncidentStreamArn": (
        ["", STREAM, f"arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/{'_' * 255}/stream/1"],
        [STREAM.replace("Incident", "ab"), STREAM.replace("Incident", "a" * 256), STREAM.partition("/stream")[0], "a"],
    ),
    "ConnectionsTableName": (["a-b", "_" * 255], ["ab", "a" * 256, "arn:aws:dynamodb:eu-west-1:123456789012:table/a"]),
    "ConnectionsIndex": (["a-b", "_" * 255], ["ab", "a" * 256]),
    "WebSocketApiId": (["", "kote8jrryb"], ["KOTE8JRRYB", "a/b", "a.b"]),
    "StageName": (["a", "-_" * 64], ["", "a" * 129, "a/b"]),
    "WebSocketEndpoint": (
        ["https://a.b", "https://1.2.3.4.com", "https://ws.example.com/$-_.+!*'()/x"],
        [
            "https://a",
            "https://1.2.3.4",
            "https://-.a/-",
            "https://dynamodb.eu-west-1.amazonaws.com",
            "https://a.execute-api.eu-west-1.amazonaws.com",
            "https://a.localhost",
        ],
    ),
    "StreamBatchingWindowSeconds": (
        ["0", "9", "10", "99", "100", "299", "300"],
        ["-1", "301", "400", "1000", "2.5", "05", ""],
    ),
    "FeedHours": (["1", "1.5", "8760"], ["0", "0.5", "8761", "-1"]),
    "IncidentIndex": (["a-b", "_" * 255], ["ab", "a" * 256, "a/b"]),
    "TtlHours": (["3", "3.5", "8760"], ["2", "8761"]),
    "MaxConcurrency": (["1", "99", "100", "900"], ["0", "-1", "2.5", "901", "1000", "007", "1e2", ""]),
    "PostTimeoutSeconds": (["0.05", "1.5", "60"], ["0", "0.04", "61", "-1"]),
    "FrameBytes": (
        ["1024", "1099", "1999", "9999", "99999", "129999", "130999", "131069", "131072"],
        ["0", "1023", "131073", "131080", "131100", "132000", "200000", "01024", "2048.5", "32KB", ""],
    ),
    "RetryBackoffSeconds": (["0", "0.5", "900"], ["-1", "901"]),
    "MaxDeliveryAttempts": (["1", "999", "1000"], ["0", "2.5", "1001", ""]),
    "FanoutAutoClients": (["1", "999999", "1000000"], ["0", "2.5", "1000001", ""]),
    "FanoutShards": (["1", "999", "1000"], ["0", "2.5", "1001", ""]),
    "MessageFormatter": (
        ["builtins:pow", "os.path:join"],
        ["a..b.:c", "a.:c", ".a:c", "a:b.c", "a:", ":c", "a", "1a:c", "a.1b:c"],
    ),
    "LocalEndpoint": (
        ["http://127.0.0.1", "http://localhost:1", "http://localhost:9999", "http://127.0.0.1:65535"],
        [
            "http://10.0.0.1:4566",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://localhost:0",
            "http://localhost:65536",
            "http://localhost:",
            "https://localhost",
        ],
    ),
    "AuthIssuer": (
        [
            "https://issuer.example.com",
            "https://issuer.example.com/",
            "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab1",
            "https://login.microsoftonline.com/8b1e/v2.0",
            "https://Issuer:8443/a/~b;c=d",
            "https://10.0.0.1:65535",
            "http://127.0.0.1:1/realm",
            "http://localhost:65535",
            "https://a/" + "b" * 502,
        ],
        [
            "http://issuer.example.com",
            "http://127.0.0.1.example.com",
            "http://127.0.0.1@example.com",
            "http://localhost.example.com:80",
            "http://localhost:0",
            "https://issuer.example.com:65536",
            "https://a@issuer.example.com",
            "https://issuer.example.com?x=1",
            "https://issuer.example.com/#x",
            "https://issuer.example.com/a b",
            "https://issuer..example.com",
            "https://-issuer.example.com",
            "https://",
            "https:///a",
            "issuer.example.com",
            "wss://issuer.example.com",
            "https://a/" + "b" * 503,
        ],
    ),
    "AuthAudience": (
        ["a", "api://relay, 2,3", "https://a/b?c=d", "~" * 512],
        [",", "a,", ",a", "a,,b", " ", "a b", "é"],
    ),
    "AuthScope": (["a", "api/read:all", "~" * 256], ["a b", '"', "\\", "é", "a" * 257]),
    "AuthOrigins": (
        [
            "https://app.example.com",
            "http://localhost:8080,https://a-b.c",
            "https://a, https://b",
            "http://10.0.0.1:65535",
        ],
        [
            "*",
            "null",
            "https://*.example.com",
            "https://app.example.com/",
            "https://App.example.com",
            "https://app.example.com:0",
            "https://app.example.com:65536",
            "https://a.b,",
            ",https://a.b",
            "https://a.b https://c.d",
            "wss://a.b",
            "app.example.com",
            "https://a@b.c",
        ],
    ),
    "AuthorizerArn": (
        [
            AUTHORIZER,
            f"{AUTHORIZER}:live",
            f"{AUTHORIZER}:$LATEST",
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:a_B-1",
        ],
        [
            "door",
            f"{AUTHORIZER}:",
            f"{AUTHORIZER}:a:b",
            AUTHORIZER.replace("lambda", "iam"),
            f"{AUTHORIZER}/invocations",
        ],
    ),
    "TenantAttribute": (["a", "whose item", "#a.b[0]", "~" * 255], [" ", " a", "a ", "é", "a\n", "a" * 256]),
    "TenantClaim": (["a", "https://example.com/tenants", "~" * 255], [" ", " a", "a ", "é", "a" * 256]),
    "Revision": (["", "1", "v1.2.0-3-g1f2e3d4", "_" * 64], [" ", "a b", "a/b", "é", "a" * 65]),
}
#: What a parameter needs beside it, so that no rule refuses it.
BESIDE = {
    "AuthIssuer": JWT,
    "AuthAudience": JWT,
    "AuthScope": JWT,
    "AuthQueryToken": JWT,
    "AuthorizerArn": {"AuthMode": "jwt"},
    "TenantAttribute": JWT | {"TenantClaim": "tenants"},
    "TenantClaim": JWT | {"TenantAttribute": "tenant"},
}


@pytest.mark.parametrize("name", EDGES)
def test_whatever_a_parameter_allows_is_a_setting(name: str) -> None:
    """No function ends at its cold start for a value that CloudFormation took."""
    taken, refused = EDGES[name]
    for value in taken:
        assert allows(name, value), value
        for parameters in ({}, FANOUT):
            for function in Stack(**(parameters | BESIDE.get(name, {}) | {name: value})).functions().values():
                Settings.from_env(function["Environment"])
    for value in refused:
        assert not allows(name, value), value


def test_every_parameter_that_reaches_a_function_has_its_edges() -> None:
    """Or names the values it takes, and then each of them is tried."""
    functions = [template()["Globals"]["Function"], *template()["Resources"].values()]
    environments = [each.get("Environment") or each.get("Properties", {}).get("Environment", {}) for each in functions]
    text, conditions = json.dumps(environments), dict(template()["Conditions"])
    while named := [name for name in conditions if f'"{name}"' in text]:
        text += "".join(json.dumps(conditions.pop(name)) for name in named)
    for name, parameter in template()["Parameters"].items():
        reaches = re.search(rf'"Ref": "{name}"|\$\{{{name}\}}', text)
        if reaches and "AllowedValues" in parameter:
            for value in map(str, parameter["AllowedValues"]):
                for parameters in (FANOUT, EXISTING | FANOUT):
                    beside = JWT if (name, value) == ("AuthMode", "jwt") else BESIDE.get(name, {})
                    for function in Stack(**(parameters | beside | {name: value})).functions().values():
                        Settings.from_env(function["Environment"])
        elif reaches:
            assert name in EDGES, name


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"WebSocketApiId": "kote8jrryb"}, "WebSocketApiId needs ConnectionsTableName"),
        (EXISTING | {"ExecuteApiEndpoint": "off", "WebSocketEndpoint": "https://ws.example.com"}, "stack's own API"),
        (EXISTING | {"AccessLogs": "on"}, "AccessLogs=on is for the stack's own API"),
        ({"ExecuteApiEndpoint": "off"}, "ExecuteApiEndpoint=off needs WebSocketEndpoint"),
        ({"ConnectionsIndexSweep": "off"}, "ConnectionsIndexSweep=off needs ConnectionsIndex"),
        ({"IncidentStreamArn": STREAM, "IncidentTableProtection": "on"}, "the stack's own table"),
        ({"Feed": "off", "History": "feed"}, "History=feed needs Feed=on"),
        ({"StreamBatchSize": "2000"}, "StreamBatchSize above 500 needs FanoutMode=fanout"),
        ({"StreamBatchSize": "10000", "FanoutMode": "auto"}, "StreamBatchSize above 500 needs FanoutMode=fanout"),
        ({"IncidentIndex": "by-time", "History": "feed"}, "IncidentIndex needs History=table"),
        (EXISTING | {"IncidentIndex": "by-time"}, "IncidentIndex is for the stack's own API"),
        ({"AuthMode": "jwt"}, "AuthMode=jwt needs AuthIssuer and AuthAudience, or AuthorizerArn"),
        (JWT | {"AuthIssuer": ""}, "AuthMode=jwt needs AuthIssuer and AuthAudience"),
        (JWT | {"AuthAudience": ""}, "AuthMode=jwt needs AuthIssuer and AuthAudience"),
        (JWT | {"AuthMode": "none"}, "AuthIssuer, AuthAudience and AuthScope need AuthMode=jwt"),
        (JWT | {"AuthMode": "iam"}, "AuthIssuer, AuthAudience and AuthScope need AuthMode=jwt"),
        ({"AuthMode": "none", "AuthAudience": "relay"}, "need AuthMode=jwt"),
        ({"AuthMode": "iam", "AuthScope": "read"}, "need AuthMode=jwt"),
        ({"AuthMode": "none", "AuthQueryToken": "on"}, "AuthQueryToken=on needs AuthMode=jwt"),
        ({"AuthMode": "iam", "AuthorizerArn": AUTHORIZER}, "AuthorizerArn needs AuthMode=jwt"),
        (JWT | OWN, "AuthorizerArn decides alone"),
        (OWN | {"AuthScope": "read"}, "AuthorizerArn decides alone"),
        (OWN | {"AuthQueryToken": "on"}, "AuthorizerArn decides alone"),
        (OWN | {"TenantAttribute": "tenant", "TenantClaim": "tenants"}, "AuthorizerArn decides alone"),
        (JWT | {"TenantClaim": "tenants"}, "TenantClaim needs TenantAttribute"),
        (EXISTING | {"TenantAttribute": "a", "TenantClaim": "b", "AuthMode": "iam"}, "TenantClaim needs AuthMode=jwt"),
        (JWT | {"TenantAttribute": "tenant"}, "TenantAttribute needs TenantClaim or AuthorizerArn"),
        ({"AuthMode": "none", "TenantAttribute": "tenant"}, "TenantAttribute needs TenantClaim or AuthorizerArn"),
        (EXISTING | {"AuthOrigins": "https://app.example.com"}, "AuthOrigins, AuthScope and AuthQueryToken=on"),
        (EXISTING | JWT | {"AuthScope": "read"}, "AuthOrigins, AuthScope and AuthQueryToken=on"),
        (EXISTING | JWT | {"AuthQueryToken": "on"}, "AuthOrigins, AuthScope and AuthQueryToken=on"),
        ({"Rollout": "Canary10Percent5Minutes"}, "Rollout needs Revision"),
        ({"SnapStart": "on"}, "SnapStart=on needs Revision"),
        ({"ProvisionedRelays": "1"}, "ProvisionedRelays and ProvisionedDoor need Revision"),
        ({"ProvisionedDoor": "1"}, "ProvisionedRelays and ProvisionedDoor need Revision"),
        (CANARY | {"Alarms": "false"}, "Rollout needs Alarms=true"),
        (CANARY | {"SnapStart": "on", "ProvisionedDoor": "1"}, "SnapStart=on takes no ProvisionedRelays"),
        (EXISTING | CANARY | {"ProvisionedDoor": "1"}, "ProvisionedDoor is for the stack's own API"),
    ],
)
def test_stacks_that_are_refused(parameters: dict[str, str], sentence: str) -> None:
    """Where nothing could arrive, or a parameter would not do what it says, one sentence says what is missing."""
    [refused] = Stack(**parameters).refused
    assert sentence in refused


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        EXISTING,
        EXISTING | FANOUT | {"ConnectionsIndexSweep": "off"},
        {"ConnectionsTableName": "WebSocketConnections"},
        {"IncidentStreamArn": STREAM},
        {"IncidentTableProtection": "on"},
        {"Feed": "off"},
        {"StreamBatchSize": "500", "StreamBatchingWindowSeconds": "300"},
        {"StreamBatchSize": "10000", "FanoutMode": "fanout"},
        {"History": "feed", "HeartbeatMinutes": "1"},
        EXISTING | {"Feed": "off", "HeartbeatMinutes": "8"},
        {"IncidentStreamArn": STREAM, "IncidentIndex": "by-time", "FeedHours": "1"},
        {"LocalEndpoint": "http://127.0.0.1:4566"},
        {"Alarms": "false", "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:oncall"},
        {"AuthMode": "iam", "AuthOrigins": "https://app.example.com", "DoorConcurrency": "20"},
        JWT | {"AuthScope": "read", "AuthQueryToken": "on", "TenantAttribute": "tenant", "TenantClaim": "tenants"},
        OWN | {"AuthOrigins": "https://app.example.com", "TenantAttribute": "tenant"},
        EXISTING | {"AuthMode": "iam", "TenantAttribute": "tenant"},
        EXISTING | JWT | {"TenantAttribute": "tenant", "TenantClaim": "tenants"},
        EXISTING | OWN,
        {"Revision": "1", "Alarms": "false", "ProvisionedRelays": "4"},
        EXISTING | CANARY | {"SnapStart": "on"},
    ],
)
def test_stacks_that_are_made(parameters: dict[str, str]) -> None:
    """The rules refuse nothing that works."""
    assert Stack(**parameters).refused == []


def test_the_incident_table_can_be_protected() -> None:
    """By default it is not: a table that nobody can delete stands in the way of a first deployment's rollback."""
    assert Stack().properties("IncidentTable")["DeletionProtectionEnabled"] is False
    assert Stack(IncidentTableProtection="on").properties("IncidentTable")["DeletionProtectionEnabled"] is True


def test_handlers_exist() -> None:
    """Every function's handler is a function of handler.py, and every function runs on Python 3.13."""
    defined = {
        each.name for each in ast.parse((ROOT / "handler.py").read_text()).body if isinstance(each, ast.FunctionDef)
    }
    for function in Stack(**FANOUT, **JWT, HeartbeatMinutes="5").functions().values():
        module, name = function["Handler"].split(".")
        assert module == "handler"
        assert name in defined
        assert function["Runtime"] == "python3.13"


def test_those_that_post_have_a_whole_processor() -> None:
    """The relay, both workers and the heartbeat have one vCPU and a minute."""
    functions = Stack(**FANOUT, HeartbeatMinutes="5").functions()
    for name in ("RelayFunction", "DeliverFunction", "FanoutFunction", "HeartbeatFunction"):
        assert (functions[name]["MemorySize"], functions[name]["Timeout"]) == (1769, 60)


def test_every_function_logs_json_to_a_group_that_forgets() -> None:
    """Each function has its own log group with a retention."""
    stack = Stack(**FANOUT, **JWT, LogRetentionDays="7", HeartbeatMinutes="5")
    groups = stack.of("Logs::LogGroup")
    used = [function["LoggingConfig"]["LogGroup"] for function in stack.functions().values()]
    assert sorted(used) == sorted(groups)
    assert {group["RetentionInDays"] for group in groups.values()} == {"7"}
    assert template()["Globals"]["Function"]["LoggingConfig"] == {"LogFormat": "JSON"}


def test_the_api_logs_who_came_if_asked_to() -> None:
    """To a group that forgets as the others do; never the query, where a token may be, and nothing by default."""
    assert "AccessLogSettings" not in Stack().properties("WebSocketStage")
    stack = Stack(AccessLogs="on", LogRetentionDays="7")
    settings = stack.properties("WebSocketStage")["AccessLogSettings"]
    assert settings["DestinationArn"] == "arn:aws:logs:eu-west-1:123456789012:log-group:AccessLogsGroup"
    assert json.loads(settings["Format"]).keys() >= {"connection", "event", "route", "status", "error"}
    assert "query" not in settings["Format"].lower()
    assert stack.properties("AccessLogsGroup") == {
        "LogGroupName": "/aws/apigateway/relay-access",
        "RetentionInDays": "7",
    }


ROUTES = {"Connect", "Disconnect", "Default"}


def test_without_a_revision_there_are_no_versions() -> None:
    """Nor anything that a rollout takes; who reads and who calls names the functions themselves."""
    stack = Stack(**FANOUT, **JWT)
    kinds = {each["Type"] for each in stack.resources.values()}
    assert not {"AWS::Lambda::Version", "AWS::Lambda::Alias"} & kinds
    assert not [kind for kind in kinds if kind.startswith("AWS::CodeDeploy::")]
    assert {each["FunctionName"] for each in stack.mappings().values()} == {
        "RelayFunction",
        "DeliverFunction",
        "FanoutFunction",
    }
    assert called_by_the_api(stack) == {f"{name}Function.Arn" for name in ROUTES | {"Authorize"}}


def test_a_revision_is_what_everybody_runs() -> None:
    """Who reads a stream or a queue, and the API, name the alias; the heartbeat alone is without.

    Another Revision is another version of each function: of another description, which makes CloudFormation publish
    it, and with another variable, without which Lambda would refuse to.
    """
    stack = Stack(**FANOUT, **JWT, HeartbeatMinutes="5", Revision="v1.2.0")
    names = {name.removesuffix("Function") for name in stack.functions()} - {"Heartbeat"}
    versions, aliases = stack.of("Lambda::Version"), stack.of("Lambda::Alias")
    assert versions == {
        f"{name}Version": {"FunctionName": f"{name}Function", "Description": "v1.2.0"} for name in names
    }
    assert aliases == {
        f"{name}Alias": {
            "Name": "live",
            "FunctionName": f"{name}Function",
            "FunctionVersion": f"{name}Version.Version",
        }
        for name in names
    }
    assert {function["Environment"]["REVISION"] for function in stack.functions().values()} == {"v1.2.0"}
    assert {each["FunctionName"] for each in stack.mappings().values()} == {"RelayAlias", "DeliverAlias", "FanoutAlias"}
    assert called_by_the_api(stack) == {f"{name}Alias" for name in ROUTES | {"Authorize"}}
    assert stack.outputs["RelayFunctionName"] == "RelayAlias"
    assert stack.properties("HeartbeatInvocations")["Qualifier"] == "$LATEST"
    assert Stack(**OWN, Revision="v1.2.0").properties("AuthorizePermission")["FunctionName"] == AUTHORIZER


def test_the_api_may_call_both_while_an_update_moves_it() -> None:
    """The alias before the API leads to it, and the function still, since an update without a Revision leads back."""
    stack = Stack(**JWT, Revision="v1.2.0")
    permissions = stack.of("Lambda::Permission")
    for name in ROUTES | {"Authorize"}:
        assert permissions[f"{name}Permission"]["FunctionName"] == f"{name}Function"
        assert permissions[f"{name}AliasPermission"]["FunctionName"] == f"{name}Alias"
        caller = "WebSocketAuthorizer" if name == "Authorize" else f"{name}Integration"
        assert stack.resources[caller]["Metadata"] == {"Follows": f"{name}AliasPermission"}
    without = Stack(**JWT)
    assert not [name for name in without.resources if name.endswith("AliasPermission")]
    for name in ROUTES | {"Authorize"}:
        assert without.properties(f"{name}Permission") == permissions[f"{name}Permission"]


def called_by_the_api(stack: Stack) -> set[str]:
    """The functions, as the integrations and the authorizer name them."""
    uris = [each["IntegrationUri"] for each in stack.of("ApiGatewayV2::Integration").values()]
    uris += [each["AuthorizerUri"] for each in stack.of("ApiGatewayV2::Authorizer").values()]
    return {re.fullmatch(r".*/functions/(.+)/invocations", uri)[1] for uri in uris}  # type: ignore[index]


@pytest.mark.parametrize("parameters", [FANOUT | JWT, EXISTING])
def test_a_rollout_moves_each_alias_and_goes_back_when_an_alarm_rings(parameters: dict[str, str]) -> None:
    """CodeDeploy moves them by what Rollout names; AllAtOnce, and a stack without alarms, take none of it."""
    stack = Stack(**parameters, **CANARY)
    groups = stack.of("CodeDeploy::DeploymentGroup")
    assert len(groups) == len(stack.of("Lambda::Alias")) > 0
    for name, group in groups.items():
        assert group["DeploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent5Minutes"
        rung = {each["Name"] for each in group["AlarmConfiguration"]["Alarms"]}
        door = {"RolloutDoorAlarm"} & stack.resources.keys()
        assert rung == {"RolloutAlarm", "SystemicAlarm"} | door
        assert bool(door) == ("AuthMode" in parameters)
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]
        alias = stack.resources[name.removesuffix("Rollout") + "Alias"]
        assert alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"] == {
            "ApplicationName": "RolloutApplication",
            "DeploymentGroupName": name,
        }
    for without in ({"Rollout": "AllAtOnce"}, {"Alarms": "false"}, {"LocalEndpoint": "http://127.0.0.1:4566"}):
        stack = Stack(**(parameters | CANARY | without))
        assert not [each for each in stack.resources.values() if "CodeDeploy" in each["Type"]]
        assert not [name for name in stack.resources if name.startswith("Rollout")]
        assert not [each for name, each in stack.resources.items() if name.endswith("Alias") and "UpdatePolicy" in each]


def test_sandboxes_can_be_kept_ready() -> None:
    """Of the relay function, or of those that let clients in; else of none."""
    for parameters, expected in (
        ({"ProvisionedRelays": "4"}, {"RelayAlias": "4"}),
        ({"ProvisionedDoor": "20"}, {"ConnectAlias": "20", "AuthorizeAlias": "20"}),
        ({}, {}),
    ):
        aliases = Stack(**JWT, Revision="1", **parameters).of("Lambda::Alias")
        ready = {name: each.get("ProvisionedConcurrencyConfig") for name, each in aliases.items()}
        assert {name: each["ProvisionedConcurrentExecutions"] for name, each in ready.items() if each} == expected
    for name in ("ProvisionedRelays", "ProvisionedDoor"):
        assert all(allows(name, value) for value in ("0", "1", "999"))
        assert not any(allows(name, value) for value in ("", "-1", "01", "2.5", "1000"))


def test_snapshots_are_taken_of_every_function_that_has_versions() -> None:
    """SnapStart is for published versions alone; without it no function has any."""
    snapped = Stack(**FANOUT, **JWT, HeartbeatMinutes="5", Revision="1", SnapStart="on")
    found = {name.removesuffix("Function") for name, each in snapped.functions().items() if "SnapStart" in each}
    assert found == {name.removesuffix("Version") for name in snapped.of("Lambda::Version")}
    assert all(
        each.get("SnapStart", {}).get("ApplyOn") == "PublishedVersions"
        for name, each in snapped.functions().items()
        if name != "HeartbeatFunction"
    )
    assert not [each for each in Stack(**JWT, Revision="1").functions().values() if "SnapStart" in each]


def test_every_role_has_the_boundary_that_an_account_demands() -> None:
    """And none of its own accord."""
    boundary, every = "arn:aws:iam::123456789012:policy/boundary", FANOUT | JWT | CANARY | {"HeartbeatMinutes": "5"}
    bounds = [role.get("PermissionsBoundary") for role in Stack(**every).of("IAM::Role").values()]
    assert bounds == [None] * 9
    bounded = Stack(**every, PermissionsBoundaryArn=boundary).of("IAM::Role").values()
    assert [role["PermissionsBoundary"] for role in bounded] == [boundary] * 9


def test_a_log_level_leaves_the_metrics_alone() -> None:
    """Each function's logger has it, and Lambda none: of its own it would drop the metrics' lines, which are INFO."""
    for level in ("INFO", "WARNING", "ERROR"):
        functions = Stack(**FANOUT, LogLevel=level).functions().values()
        assert {each["Environment"]["POWERTOOLS_LOG_LEVEL"] for each in functions} == {level}
    assert not [each for each in functions if "ApplicationLogLevel" in each["LoggingConfig"]]


def test_the_routes() -> None:
    """$connect, $disconnect and all else reach their functions, which only this stage of this API may call for them."""
    stack = Stack(StageName="live")
    routes = stack.of("ApiGatewayV2::Route")
    assert {each["RouteKey"] for each in routes.values()} == {"$connect", "$disconnect", "$default"}
    for name, key in (("Connect", "$connect"), ("Disconnect", "$disconnect"), ("Default", "$default")):
        assert routes[f"{name}Route"]["RouteKey"] == key
        assert stack.properties(f"{name}Route")["Target"] == f"integrations/{name}Integration"
        assert stack.properties(f"{name}Integration")["IntegrationUri"].endswith(f"/{name}Function.Arn/invocations")
        permission = stack.properties(f"{name}Permission")
        assert permission["FunctionName"] == f"{name}Function"
        assert permission["SourceArn"] == f"arn:aws:execute-api:eu-west-1:123456789012:WebSocketApi/live/{key}"
        handler = {"Connect": "connect", "Disconnect": "disconnect", "Default": "default"}[name]
        assert stack.functions()[f"{name}Function"]["Handler"] == f"handler.{handler}_handler"


def test_floods_are_bounded_by_the_stages_throttles() -> None:
    """Each route has its own; connecting leaves the account's other APIs most of its 500 new connections a second."""
    stage = Stack().properties("WebSocketStage")
    assert stage["AutoDeploy"] is True
    coming, asking = throttle("200"), throttle("500")
    assert stage["RouteSettings"] == {"$connect": coming, "$disconnect": coming, "$default": asking}
    assert "DefaultRouteSettings" not in stage  # nobody knows whether it would hold up the posts
    chosen = Stack(ConnectsPerSecond="7", RequestsPerSecond="9").properties("WebSocketStage")["RouteSettings"]
    assert chosen == {"$connect": throttle("7"), "$disconnect": throttle("7"), "$default": throttle("9")}


def throttle(limit: str) -> dict[str, str]:
    return {"ThrottlingRateLimit": limit, "ThrottlingBurstLimit": limit}


def test_nobody_opens_the_door_without_saying_so() -> None:
    """AuthMode has no default: CloudFormation asks, and takes nothing else than its three words."""
    parameter = template()["Parameters"]["AuthMode"]
    assert "Default" not in parameter
    assert parameter["AllowedValues"] == ["jwt", "iam", "none"]
    others = [name for name, each in template()["Parameters"].items() if "Default" not in each]
    assert others == ["AuthMode"]


@pytest.mark.parametrize(
    ("parameters", "authorization", "says"),
    [
        (JWT, "CUSTOM", "Closed. Who has a token of https://issuer.example.com for relay"),
        (OWN, "CUSTOM", f"Closed. Whom {AUTHORIZER} lets in"),
        ({"AuthMode": "iam"}, "AWS_IAM", "Closed. Who may execute-api:Invoke"),
        ({"AuthMode": "none"}, "NONE", "OPEN. ANYBODY who knows the URL may connect, and reads every message."),
    ],
    ids=["jwt", "own authorizer", "iam", "none"],
)
def test_who_may_connect(parameters: dict[str, str], authorization: str, says: str) -> None:
    """AuthMode decides on $connect, which API Gateway alone asks about, and the output Door says what that means."""
    stack = Stack(**parameters)
    routes = {each["RouteKey"]: each for each in stack.of("ApiGatewayV2::Route").values()}
    assert routes["$connect"]["AuthorizationType"] == authorization
    assert routes["$connect"].get("AuthorizerId") == ("WebSocketAuthorizer" if authorization == "CUSTOM" else None)
    for key in ("$disconnect", "$default"):
        assert (routes[key]["AuthorizationType"], "AuthorizerId" in routes[key]) == ("NONE", False)
    assert stack.outputs["Door"].startswith(says)
    assert bool(stack.of("ApiGatewayV2::Authorizer")) == (authorization == "CUSTOM")
    assert ("AuthorizeFunction" in stack.functions()) == (parameters == JWT)


@pytest.mark.parametrize(
    ("parameters", "function"),
    [
        (JWT, "AuthorizeFunction.Arn"),
        (OWN, AUTHORIZER),
        (OWN | {"AuthorizerArn": f"{AUTHORIZER}:live"}, f"{AUTHORIZER}:live"),
    ],
    ids=["ours", "own", "alias"],
)
def test_the_authorizer(parameters: dict[str, str], function: str) -> None:
    """It is asked about each request, and names no source of identity, of which each named one would be mandatory."""
    stack = Stack(**parameters)
    assert stack.properties("WebSocketAuthorizer") == {
        "ApiId": "WebSocketApi",
        "Name": "relay-authorize",
        "AuthorizerType": "REQUEST",
        "AuthorizerUri": f"arn:aws:apigateway:eu-west-1:lambda:path/2015-03-31/functions/{function}/invocations",
    }
    local = Stack(**parameters, LocalEndpoint="http://127.0.0.1:4566").properties("WebSocketAuthorizer")
    assert local["IdentitySource"] == []  # left out, it would be a header there
    permission = stack.properties("AuthorizePermission")
    assert permission["FunctionName"] == function.removesuffix(".Arn")
    api = "arn:aws:execute-api:eu-west-1:123456789012:WebSocketApi"
    assert permission["SourceArn"] == f"{api}/authorizers/WebSocketAuthorizer"


def test_the_authorizers_function() -> None:
    """It has a whole processor, since a client waits for its arithmetic, and API Gateway for ten seconds."""
    function = Stack(**JWT).functions()["AuthorizeFunction"]
    assert (function["Handler"], function["MemorySize"], function["Timeout"]) == ("handler.authorize_handler", 1769, 10)


@pytest.mark.parametrize("mode", [JWT, OWN, {"AuthMode": "iam"}, {"AuthMode": "none"}])
def test_another_stacks_api_keeps_its_own_door(mode: dict[str, str]) -> None:
    """With WebSocketApiId nothing here decides who comes in, and the output says so."""
    stack = Stack(**EXISTING, **mode)
    made = {each["Type"] for each in stack.resources.values()}
    assert not {kind for kind in made if kind.startswith("AWS::ApiGatewayV2::")} | (made & {"AWS::Lambda::Permission"})
    assert not {"AuthorizeFunction", "AuthorizeRole", "AuthorizeLogs", "DefaultFunction"} & stack.resources.keys()
    assert stack.outputs["Door"].startswith("Not of this stack. The API kote8jrryb lets clients in or not")


def test_concurrency_can_be_reserved_for_the_door() -> None:
    """For those that let clients in, and for nobody else; by default for nobody."""
    reserved = Stack(**JWT, DoorConcurrency="20").functions()
    assert {name: each["ReservedConcurrentExecutions"] for name, each in reserved.items() if RESERVED in each} == {
        "ConnectFunction": "20",
        "AuthorizeFunction": "20",
    }
    assert not [name for name, each in Stack(**JWT).functions().items() if RESERVED in each]
    assert [value for value in ("0", "1", "9999") if allows("DoorConcurrency", value)] == ["0", "1", "9999"]
    assert not [value for value in ("", "-1", "2.5", "01", "10000") if allows("DoorConcurrency", value)]


RESERVED = "ReservedConcurrentExecutions"


def test_a_local_aws_is_reached_at_its_own_address() -> None:
    """LocalEndpoint leads the functions, their SDK and the posts to an AWS on this machine; on AWS nothing says so."""
    local = Stack(LocalEndpoint="http://127.0.0.1:4566").functions()["RelayFunction"]["Environment"]
    assert local["WS_ENDPOINT"] == "http://127.0.0.1:4566/_aws/execute-api/WebSocketApi/prod"
    assert local["AWS_ENDPOINT_URL"] == "http://127.0.0.1:4566"
    assert "AWS_ENDPOINT_URL" not in Stack().functions()["RelayFunction"]["Environment"]


def test_cfn_lint_has_nothing_to_say() -> None:
    """cfn-lint passes, warnings included, with no rule switched off but one, whose reason is in the template."""
    done = subprocess.run(  # noqa: S603 our own words, no shell
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I", "--", ROOT / "template.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert template()["Metadata"]["cfn-lint"] == {"config": {"ignore_checks": ["W2530"]}}
    assert (ROOT / "template.yaml").read_text().count("cfn-lint") == 1
