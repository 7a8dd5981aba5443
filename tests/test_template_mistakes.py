"""Whole classes of mistakes in ``template.yaml``, each ruled out in every stack its parameters can make.

``test_template.py`` says what the stack is; here is what no resource of it may be, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from cloudformation import Stack, template

from async_relay.aws.dynamodb import DynamoStore
from async_relay.wire.rows import Row

STREAM = "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2026-01-01T00:00:00.000"
EXISTING = {"IncidentStreamArn": STREAM, "ConnectionsTableName": "WebSocketConnections", "WebSocketApiId": "kote8jrryb"}
FANOUT = {"FanoutMode": "fanout", "ConnectionsIndex": "by-shard"}
JWT = {"AuthMode": "jwt", "AuthIssuer": "https://issuer.example.com", "AuthAudience": "relay"}
KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OWN = {"AuthMode": "jwt", "AuthorizerArn": "arn:aws:lambda:eu-west-1:123456789012:function:door"}
#: Together these make every resource there is; a test below says so.
STACKS = [
    pytest.param(parameters, id=name)
    for name, parameters in {
        "open": {},
        "tokens": JWT,
        "authorizer": OWN,
        "iam": {"AuthMode": "iam", "AccessLogs": "on"},
        "fanout": FANOUT | JWT,
        "heartbeat": {"HeartbeatMinutes": "5", "IncidentIndex": "by-time"},
        "sparing": {"Feed": "off", "HeartbeatMinutes": "1"},
        "queue": FANOUT | {"StreamFailureDestination": "queue"},
        "existing": EXISTING | FANOUT | {"HeartbeatMinutes": "8"},
        "local": JWT | {"LocalEndpoint": "http://127.0.0.1:4566"},
        "key": FANOUT | JWT | {"KmsKeyArn": KEY, "HeartbeatMinutes": "5", "AccessLogs": "on"},
        "canary": FANOUT | JWT | {"Revision": "v1.2.0", "Rollout": "Canary10Percent5Minutes"},
    }.items()
]
each_stack = pytest.mark.parametrize("parameters", STACKS)
DAY = 86_400

#: What outlives the stack, since nothing else has it; all other stores and logs go with the stack.
KEPT = {
    "IncidentTable": "the owner's data",
    "DeadLetterQueue": "what was never delivered",
    "FanoutDeadLetterQueue": "what was never delivered",
    "StreamFailureQueue": "what Lambda gave up",
    "StreamFailureBucket": "what Lambda gave up",
    "DeadLetterQueuePolicy": "it guards the queue",
    "FanoutDeadLetterQueuePolicy": "it guards the queue",
    "StreamFailureQueuePolicy": "it guards the queue",
    "StreamFailureBucketPolicy": "it guards the bucket",
}
STORES = {
    "AWS::DynamoDB::Table",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
    "AWS::S3::Bucket",
    "AWS::S3::BucketPolicy",
    "AWS::Logs::LogGroup",
}

DEPTH, AGE = "ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"
#: Metric, what is looked at of a period, seconds, periods looked at, how many of them must be above, and
#: above what. Where a period has no data the alarm is quiet: no traffic is no trouble.
ALARMS: dict[str, tuple[str, str, int, int, int, int]] = {
    # One is one too many, for as long as it lies there.
    "DeadLetterAlarm": (DEPTH, "Maximum", 60, 1, 1, 0),
    "FanoutDeadLetterAlarm": (DEPTH, "Maximum", 60, 1, 1, 0),
    "StreamFailureQueueAlarm": (DEPTH, "Maximum", 60, 1, 1, 0),
    # One is one too many, but nothing shows it afterwards: it rings for an hour.
    "StreamFailureAlarm": ("OnFailureDestinationDeliveredEventCount", "Sum", 60, 60, 1, 0),
    "StreamLossAlarm": ("DroppedEventCount", "Sum", 60, 60, 1, 0),
    # A minute, in milliseconds, three minutes long: a cold start or a deployment passes.
    "IteratorAgeAlarm": ("IteratorAge", "Maximum", 60, 3, 3, 60_000),
    # Seconds: the longest delay is 900, and twice that is still a job in its turn.
    "RetryAgeAlarm": (AGE, "Maximum", 60, 1, 1, 1_800),
    "FanoutAgeAlarm": (AGE, "Maximum", 60, 3, 3, 60),
    # Seconds. A slow minute passes; three are none, however few changes there are between them.
    "LateAlarm": ("Age", "p99", 60, 20, 3, 60),
    "UnprovenAlarm": ("Unproven", "Maximum", 300, 1, 1, 0),
    # One may be a deployment and two are not; jobs that were handed back come again after six minutes.
    "SystemicAlarm": ("Systemic", "Maximum", 60, 10, 2, 0),
    # A burst passes; ten minutes at the limit are no burst.
    "AccountThrottledAlarm": ("AccountThrottled", "Sum", 60, 10, 10, 0),
    "IntegrationErrorAlarm": ("IntegrationError", "Sum", 60, 3, 3, 0),
    "ExecutionErrorAlarm": ("ExecutionError", "Sum", 60, 3, 3, 0),
}
FUNCTIONS = ["Relay", "Deliver", "Fanout", "Heartbeat", "Connect", "Disconnect", "Default", "Authorize"]
# A function that fails, or is refused, for three minutes does not mend itself.
ALARMS |= {
    f"{name}{metric}Alarm": (metric, "Sum", 60, 3, 3, 0) for name in FUNCTIONS for metric in ("Errors", "Throttles")
}
# Nor does one for three times; but a queue's job is tried every six minutes, and a heartbeat comes that seldom too.
ALARMS |= {f"{name}ErrorsAlarm": ("Errors", "Sum", 60, 20, 3, 0) for name in ("Deliver", "Fanout", "Heartbeat")}
ALARMS["HeartbeatThrottlesAlarm"] = ("Throttles", "Sum", 60, 20, 3, 0)


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in it, at any depth."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def seconds_of(function: dict[str, Any]) -> int:
    return int(function["Timeout"])


def sources(stack: Stack) -> Iterator[tuple[str, dict[str, Any], str, dict[str, Any]]]:
    """Each queue that a function reads, and the queue of its dead letters."""
    queues = stack.of("SQS::Queue")
    for mapping in stack.mappings().values():
        name = mapping["EventSourceArn"].removesuffix(".Arn")
        if name in queues:
            letters = queues[name]["RedrivePolicy"]["deadLetterTargetArn"].removesuffix(".Arn")
            yield name, queues[name], letters, queues[letters]


def test_the_stacks_here_have_every_resource() -> None:
    """So a new resource is looked at as well."""
    made = {name for each in STACKS for name in Stack(**each.values[0]).resources}  # type: ignore[arg-type]
    assert made == set(template()["Resources"])


@each_stack
def test_nobody_is_let_in_by_a_star(parameters: dict[str, str]) -> None:
    """Whoever may be anybody is refused something; what is allowed names action and resource."""
    statements = [each for each in walk(Stack(**parameters).resources) if "Effect" in each]
    assert statements
    for statement in statements:
        principals = [who for each in as_list(statement.get("Principal", [])) for who in walk_strings(each)]
        if statement["Effect"] == "Deny":
            assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
            assert principals == ["*"]
            continue
        assert statement["Effect"] == "Allow"
        assert not {"NotAction", "NotResource", "NotPrincipal"} & statement.keys()
        assert "*" not in principals
        assert not [action for action in as_list(statement["Action"]) if "*" in action]
        if "*" in as_list(statement.get("Resource", [])):
            reads = {"dynamodb:ListStreams", "cloudwatch:DescribeAlarms", "lambda:GetProvisionedConcurrencyConfig"}
            assert set(statement["Action"]) <= reads


def walk_strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in walk_strings(each)]
    return [text for each in value for text in walk_strings(each)] if isinstance(value, list) else [str(value)]


@each_stack
def test_only_this_api_may_call_its_functions(parameters: dict[str, str]) -> None:
    """A function's permission is one service's, for one route of this account's API or for its authorizer."""
    for name, permission in Stack(**parameters).of("Lambda::Permission").items():
        assert permission["Principal"] == "apigateway.amazonaws.com"
        assert permission["Action"] == "lambda:InvokeFunction"
        *arn, path = permission["SourceArn"].split(":")
        assert ":".join(arn) == "arn:aws:execute-api:eu-west-1:123456789012"
        api, *caller = path.split("/")
        assert api == "WebSocketApi"
        assert (
            caller
            == {
                "ConnectPermission": ["prod", "$connect"],
                "DisconnectPermission": ["prod", "$disconnect"],
                "DefaultPermission": ["prod", "$default"],
                "AuthorizePermission": ["authorizers", "WebSocketAuthorizer"],
                "ConnectAliasPermission": ["prod", "$connect"],
                "DisconnectAliasPermission": ["prod", "$disconnect"],
                "DefaultAliasPermission": ["prod", "$default"],
                "AuthorizeAliasPermission": ["authorizers", "*"],  # it has to be there before the authorizer is
            }[name]
        )


@each_stack
def test_the_door_is_as_it_was_said_to_be(parameters: dict[str, str]) -> None:
    """Where an API is made, $connect is open to everybody only if AuthMode is none, whatever else was given."""
    stack = Stack(**parameters)
    for route in stack.of("ApiGatewayV2::Route").values():
        if route["RouteKey"] == "$connect":
            mode = parameters.get("AuthMode", "none")
            assert route["AuthorizationType"] == {"jwt": "CUSTOM", "iam": "AWS_IAM", "none": "NONE"}[mode]
            assert ("AuthorizerId" in route) == (mode == "jwt")
            assert stack.outputs["Door"].startswith("OPEN") == (mode == "none")
    for authorizer in stack.of("ApiGatewayV2::Authorizer").values():
        assert not {"AuthorizerResultTtlInSeconds", "AuthorizerCredentialsArn"} & authorizer.keys()
        assert not authorizer.get("IdentitySource")
        assert ("IdentitySource" in authorizer) == ("LocalEndpoint" in parameters)
    for function in stack.functions().values():
        mode = "jwt" if parameters.get("AuthMode") == "jwt" else "none"
        assert function["Environment"]["AUTH_MODE"] == mode  # whoever forgets it serves as if the door were open


@each_stack
def test_only_those_that_post_may_close_a_connection(parameters: dict[str, str]) -> None:
    """Who may post to the connections of this API may close them, nothing else of any API, and nobody else may."""
    stack = Stack(**parameters)
    api = parameters.get("WebSocketApiId", "WebSocketApi")
    arn = f"arn:aws:execute-api:eu-west-1:123456789012:{api}/prod"
    managers = {"RelayRole", "DeliverRole", "FanoutRole", "DefaultRole", "HeartbeatRole"}
    for role in stack.of("IAM::Role"):
        managed = stack.statements(role).get(("execute-api:ManageConnections",))
        assert managed == ([f"{arn}/{how}/@connections/*" for how in ("POST", "DELETE")] if role in managers else None)


@each_stack
def test_every_store_says_what_becomes_of_it(parameters: dict[str, str]) -> None:
    """What nothing else has outlives the stack, but not a creation that failed; the rest goes."""
    for name, resource in Stack(**parameters).resources.items():
        policies = (resource.get("DeletionPolicy"), resource.get("UpdateReplacePolicy"))
        if resource["Type"] not in STORES:
            assert policies == (None, None), name
        else:
            assert policies == (("RetainExceptOnCreate", "Retain") if name in KEPT else ("Delete", "Delete")), name


@pytest.mark.parametrize("parameters", [each for each in STACKS if each.id != "key"])
def test_everything_at_rest_is_encrypted(parameters: dict[str, str]) -> None:
    """Queues and buckets say so; DynamoDB and CloudWatch Logs always do, unless told to use another key."""
    stack = Stack(**parameters)
    assert all(queue["SqsManagedSseEnabled"] is True for queue in stack.of("SQS::Queue").values())
    assert all("SSESpecification" not in table for table in stack.of("DynamoDB::Table").values())
    for bucket in stack.of("S3::Bucket").values():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


@pytest.mark.parametrize("failures", ["bucket", "queue"])
def test_a_key_of_ones_own_encrypts_whatever_holds_messages(failures: str) -> None:
    """Tables, queues, the bucket and the logs; and who reads them or sends may use it, and may do no more with it."""
    every = FANOUT | JWT | {"HeartbeatMinutes": "5", "AccessLogs": "on", "StreamFailureDestination": failures}
    stack = Stack(**every, KmsKeyArn=KEY)
    for queue in stack.of("SQS::Queue").values():
        assert (queue["SqsManagedSseEnabled"], queue["KmsMasterKeyId"]) == (False, KEY)
    for table in stack.of("DynamoDB::Table").values():
        assert table["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": KEY}
    for bucket in stack.of("S3::Bucket").values():
        [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}
    assert {group["KmsKeyId"] for group in stack.of("Logs::LogGroup").values()} == {KEY}
    allowed: dict[str, set[str]] = {}
    for policy in stack.of("IAM::Policy").values():
        [statement] = policy["PolicyDocument"]["Statement"]
        assert statement["Resource"] == KEY
        for role in policy["Roles"]:
            allowed.setdefault(role, set()).update(statement["Action"])
    touches = {
        name: {action for actions in stack.statements(name) for action in actions} for name in stack.of("IAM::Role")
    }
    assert allowed == {
        name: {"kms:Decrypt"} | ({"kms:GenerateDataKey"} if {"sqs:SendMessage", "s3:PutObject"} & actions else set())
        for name, actions in touches.items()
        if any(action.startswith(("dynamodb:", "sqs:", "s3:")) for action in actions)
    }


@each_stack
def test_no_queue_or_bucket_takes_plain_http(parameters: dict[str, str]) -> None:
    """Each has one policy, which refuses everything to everybody on a connection that is not TLS."""
    stack = Stack(**parameters)
    guarded = []
    for kind, action, of in (("SQS::QueuePolicy", "sqs:*", "Queues"), ("S3::BucketPolicy", "s3:*", "Bucket")):
        for name, policy in stack.of(kind).items():
            [statement] = policy["PolicyDocument"]["Statement"]
            store = name.removesuffix("Policy")
            assert [each.split("/")[-1].removesuffix(".fifo") for each in as_list(policy[of])] == [store]
            assert (statement["Effect"], statement["Action"]) == ("Deny", action)
            assert as_list(statement["Resource"])[0] == f"{store}.Arn"
            guarded.append(store)
    assert sorted(guarded) == sorted([*stack.of("SQS::Queue"), *stack.of("S3::Bucket")])


@each_stack
def test_a_queue_of_dead_letters_takes_them_from_its_source_alone(parameters: dict[str, str]) -> None:
    """Its policy names the source by the name that the source has; a queue of no queue's letters takes none."""
    stack = Stack(**parameters)
    expected: dict[str, Any] = {"StreamFailureQueue": {"redrivePermission": "denyAll"}}
    for _, queue, letters, _ in sources(stack):
        arn = f"arn:aws:sqs:eu-west-1:123456789012:{queue['QueueName']}"
        expected[letters] = {"redrivePermission": "byQueue", "sourceQueueArns": [arn]}
        assert queue["QueueName"].endswith(".fifo") == bool(queue.get("FifoQueue"))
        assert queue["QueueName"].startswith("relay-")
        assert "5f3a7c10" in queue["QueueName"]  # so a stack of the same name can be made again at once
    for name, queue in stack.of("SQS::Queue").items():
        assert queue.get("RedriveAllowPolicy") == expected.get(name), name


@each_stack
def test_a_message_is_hidden_tried_and_kept_long_enough(parameters: dict[str, str]) -> None:
    """No job is served twice at once, given up before the stream would be, or forgotten before it is given up."""
    stack = Stack(**parameters)
    outage = int(stack.parameter("StreamRecordAgeSeconds"))
    readers = {each["EventSourceArn"]: each["FunctionName"] for each in stack.mappings().values()}
    for name, queue, _, letters in sources(stack):
        timeout = seconds_of(stack.functions()[readers[f"{name}.Arn"].replace("Alias", "Function")])
        assert queue["VisibilityTimeout"] >= 6 * timeout  # as AWS advises
        tries = queue["RedrivePolicy"]["maxReceiveCount"] * queue["VisibilityTimeout"]
        assert outage <= tries < 2 * outage  # nor so long that nobody hears of it the same day
        assert 2 * tries < queue["MessageRetentionPeriod"] == 4 * DAY
        # A standard queue's dead letter keeps its first date.
        assert letters["MessageRetentionPeriod"] == 14 * DAY
        assert bool(queue.get("FifoQueue")) == bool(letters.get("FifoQueue"))
    for name, queue in stack.of("SQS::Queue").items():
        assert "DelaySeconds" not in queue, name
        assert queue["MessageRetentionPeriod"] == (14 if name in KEPT else 4) * DAY


@each_stack
def test_how_the_sources_are_read(parameters: dict[str, str]) -> None:
    """Sizes and limits of every mapping, each with its reason."""
    stack = Stack(**parameters)
    for name, mapping in stack.mappings().items():
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"], name
        assert not {"TumblingWindowInSeconds", "Enabled"} & mapping.keys(), name
        # A change is sent at once where nobody chose to wait, and a queue's jobs always are.
        assert int(mapping.get("MaximumBatchingWindowInSeconds", 0)) == 0, name
    stream = stack.mappings()["RelayFunctionStream"]
    assert int(stream["BatchSize"]) == 100
    assert stream["ParallelizationFactor"] == 1  # StreamShards counts the relay functions
    assert stream["BisectBatchOnFunctionError"] is True  # a record that kills the function ends alone
    assert int(stream["MaximumRetryAttempts"]) == -1  # nobody knows how long a number of tries takes
    assert 3 * 3600 <= int(stream["MaximumRecordAgeInSeconds"]) <= DAY // 2  # the stream itself forgets after a day
    assert stream["StartingPosition"] == "TRIM_HORIZON"  # LATEST may miss what is written meanwhile
    assert stack.mappings()["DeliverFunctionRetry"]["BatchSize"] == 10  # more needs a batching window
    if "FanoutFunctionShard" in stack.mappings():
        assert stack.mappings()["FanoutFunctionShard"]["BatchSize"] == 1  # one worker's share for one shard


@each_stack
def test_how_long_a_function_may_take(parameters: dict[str, str]) -> None:
    """API Gateway waits 29 seconds for a route; a broadcast has a minute, which the queues' times go by."""
    for name, function in Stack(**parameters).functions().items():
        posts = name.removesuffix("Function") in {"Relay", "Deliver", "Fanout", "Heartbeat"}
        assert seconds_of(function) == (60 if posts else 10), name
        whole = posts or name == "AuthorizeFunction"
        assert function["MemorySize"] == (1_769 if whole else 512), name
        assert "ReservedConcurrentExecutions" not in function, name


@each_stack
def test_a_stage_comes_after_the_routes_it_throttles(parameters: dict[str, str]) -> None:
    """API Gateway refuses settings of a route that is not there yet."""
    stack = Stack(**parameters)
    routes = {route["RouteKey"]: name for name, route in stack.of("ApiGatewayV2::Route").items()}
    for name, stage in stack.of("ApiGatewayV2::Stage").items():
        assert {routes[key] for key in stage["RouteSettings"]} == set(stack.resources[name]["DependsOn"])
        assert stage["RouteSettings"].keys() == routes.keys()  # a route without a throttle has the account's


@each_stack
def test_every_alarm_is_as_the_table_says(parameters: dict[str, str]) -> None:
    """Metric, statistic, time, threshold and direction; no alarm rings for want of data."""
    stack = Stack(**parameters)
    alarms = {name: each for name, each in stack.of("CloudWatch::Alarm").items() if "Metrics" not in each}
    assert alarms.keys() <= ALARMS.keys()
    assert bool(alarms) == ("LocalEndpoint" not in parameters)
    for name, alarm in alarms.items():
        periods = alarm["EvaluationPeriods"]
        assert (
            alarm["MetricName"],
            alarm.get("Statistic") or alarm["ExtendedStatistic"],
            alarm["Period"],
            periods,
            alarm.get("DatapointsToAlarm", periods),
            int(alarm["Threshold"]),
        ) == ALARMS[name], name
        assert alarm["ComparisonOperator"] == "GreaterThanThreshold", name
        assert alarm["TreatMissingData"] == "notBreaching", name
        assert alarm.get("ActionsEnabled", True) is True, name
        assert alarm["Namespace"] == namespace(*(each["Name"] for each in alarm["Dimensions"])), name


def namespace(*dimensions: str) -> str:
    """Whose metrics have these dimensions."""
    return {
        ("QueueName",): "AWS/SQS",
        ("FunctionName",): "AWS/Lambda",
        ("EventSourceMappingUUID",): "AWS/Lambda",
        ("ApiId", "Stage"): "AWS/ApiGateway",
        ("service",): "AsyncRelay",
    }[dimensions]


@each_stack
def test_an_alarm_watches_what_its_name_says(parameters: dict[str, str]) -> None:
    """Of two queues or functions that have the same metric, its own."""
    watched = {
        "DeadLetterAlarm": "DeadLetterQueue.QueueName",
        "FanoutDeadLetterAlarm": "FanoutDeadLetterQueue.QueueName",
        "StreamFailureQueueAlarm": "StreamFailureQueue.QueueName",
        "StreamFailureAlarm": "RelayFunctionStream",
        "StreamLossAlarm": "RelayFunctionStream",
        "IteratorAgeAlarm": "RelayFunction",
        "RetryAgeAlarm": "RetryQueue.QueueName",
        "FanoutAgeAlarm": "FanoutQueue.QueueName",
        "UnprovenAlarm": "relay",
        "SystemicAlarm": "relay",
        "LateAlarm": "relay",
        "AccountThrottledAlarm": "relay",
        "IntegrationErrorAlarm": "WebSocketApi",
        "ExecutionErrorAlarm": "WebSocketApi",
    }
    watched |= {f"{name}{metric}Alarm": f"{name}Function" for name in FUNCTIONS for metric in ("Errors", "Throttles")}
    for name, alarm in Stack(**parameters).of("CloudWatch::Alarm").items():
        if "Metrics" not in alarm:
            assert alarm["Dimensions"][0]["Value"] == watched[name]


@pytest.mark.parametrize(
    ("name", "seconds", "tries", "version"),
    [("AuthorizeErrorsAlarm", 300, 10, ()), ("RolloutDoorAlarm", 60, 3, ("live", "AuthorizeVersion.Version"))],
)
def test_bad_tokens_ring_no_alarm(name: str, seconds: int, tries: int, version: tuple[str, ...]) -> None:
    """Each is an error of the authorizer, so it rings only where of several invocations not one was anything else."""
    alarm = Stack(**JWT, Revision="v1.2.0", Rollout="Canary10Percent5Minutes").of("CloudWatch::Alarm")[name]
    told, failed, seen = alarm["Metrics"]
    assert told["Expression"] == f"IF(seen >= {tries} AND failed >= seen, failed, 0)"
    for each, identifier, metric in ((failed, "failed", "Errors"), (seen, "seen", "Invocations")):
        assert (each["Id"], each["ReturnData"], each["MetricStat"]["Metric"]["MetricName"]) == (
            identifier,
            False,
            metric,
        )
        assert (each["MetricStat"]["Period"], each["MetricStat"]["Stat"]) == (seconds, "Sum")
        function, *others = (dimension["Value"] for dimension in each["MetricStat"]["Metric"]["Dimensions"])
        assert function == "AuthorizeFunction"
        assert tuple(other.removeprefix("AuthorizeFunction:") for other in others) == version
    assert (alarm["EvaluationPeriods"], alarm["Threshold"]) == (1, 0)
    assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("GreaterThanThreshold", "notBreaching")


def test_one_error_of_a_new_version_takes_its_rollout_back() -> None:
    """Of any function but the authorizer, and of no version before it: the alarm adds up each one's own errors."""
    stack = Stack(**FANOUT, **JWT, Revision="v1.2.0", Rollout="Canary10Percent5Minutes")
    alarm = stack.of("CloudWatch::Alarm")["RolloutAlarm"]
    total, *added = alarm["Metrics"]
    assert total["Expression"] == "SUM(METRICS())"
    assert (alarm["EvaluationPeriods"], alarm["Threshold"]) == (1, 0)
    assert (alarm["ComparisonOperator"], alarm["TreatMissingData"]) == ("GreaterThanThreshold", "notBreaching")
    watched = {}
    for each in added:
        assert each["ReturnData"] is False
        stat, metric = each["MetricStat"], each["MetricStat"]["Metric"]
        assert (stat["Period"], stat["Stat"], metric["Namespace"], metric["MetricName"]) == (
            60,
            "Sum",
            "AWS/Lambda",
            "Errors",
        )
        dimensions = {dimension["Name"]: dimension["Value"] for dimension in metric["Dimensions"]}
        watched[dimensions["FunctionName"]] = (dimensions["Resource"], dimensions["ExecutedVersion"])
    names = {name.removesuffix("Version") for name in stack.of("Lambda::Version")} - {"Authorize"}
    assert watched == {f"{name}Function": (f"{name}Function:live", f"{name}Version.Version") for name in names}


def test_the_incident_tables_stream_has_new_images() -> None:
    """The relay reads nothing else; and what was deleted by mistake can be had again."""
    table = Stack().properties("IncidentTable")
    assert table["StreamSpecification"] == {"StreamViewType": "NEW_IMAGE"}
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}


async def test_rows_die_by_the_attribute_that_the_store_writes() -> None:
    """The code and the template name the same one."""
    written: list[Any] = []

    async def note(_done: str, _operation: str, requests: Sequence[Any]) -> None:
        written.extend(requests)

    store: Any = SimpleNamespace(_table="connections", _index=None, _each=note)
    await DynamoStore.put(store, Row("a=", "client", created_at=1, ttl=4_711))
    [dies_by] = [name for name, value in written[0]["Item"].items() if value == {"N": "4711"}]
    table = Stack().properties("ConnectionsTable")
    assert table["TimeToLiveSpecification"] == {"AttributeName": dies_by, "Enabled": True}


@each_stack
def test_tables_are_paid_by_use(parameters: dict[str, str]) -> None:
    """No table has a capacity that a burst could exceed, or an attribute that no key uses."""
    for table in Stack(**parameters).of("DynamoDB::Table").values():
        assert table["BillingMode"] == "PAY_PER_REQUEST"
        keys = [table["KeySchema"], *(index["KeySchema"] for index in table.get("GlobalSecondaryIndexes", []))]
        used = {each["AttributeName"] for schema in keys for each in schema}
        assert {each["AttributeName"] for each in table["AttributeDefinitions"]} == used
