"""AWS as it would describe a stack of the template: the answers that a doctor gets, and a change to any of them.

Rules
- Answers are made of the template for given parameters; IAM's simulator decides by the statements of the template's
  roles. So whatever the template makes is what the examination has to find in order.
- An answer is the shape of the service's own, as botocore gives it.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from cloudformation import PSEUDO, Stack

from async_relay.checks.deployment import Absent, Answer, Endpoint, Unknown
from async_relay.cli.asking import Aws

ACCOUNT, REGION, API_ID = PSEUDO["AWS::AccountId"], PSEUDO["AWS::Region"], "a1b2c3d4"
STREAM = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/IncidentTable/stream/2026-01-01T00:00:00.000"
_FUNCTIONS = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:"
REACHED = Endpoint("", "TLSv1.3", "http/1.1", 0.4, 410)

Change = Callable[[Any], Any]


@cache
def _pristine(parameters: tuple[tuple[str, str], ...]) -> tuple[Stack, dict[str, Any]]:
    """The template resolved, and the answers that were made of it: it takes a while, and never changes."""
    return Stack(**dict(parameters)), {}


class DescribedStack(Aws):
    """Answers for one stack; ``asked`` are the calls, ``change`` alters what one of them answers."""

    def __init__(self, **parameters: str) -> None:
        self.region = REGION
        self.stack, self._answers = _pristine(tuple(sorted(parameters.items())))
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self.changes: list[tuple[str, str, Change]] = []
        self.zip = "http://127.0.0.1:9/nothing"

    def change(self, operation: str, about: str, change: Change) -> None:
        """Alter the answers of an operation to requests that name ``about``: in place, or by what is returned."""
        self.changes.append((operation, about, change))

    def ask(self, service: str, operation: str, **request: Any) -> Answer:
        self.asked.append((service, operation, request))
        answer = self._pristine_answer(operation, request)
        for changed, about, change in self.changes:
            if changed == operation and about in json.dumps(request):
                result = change(answer)
                answer = answer if result is None else result
        found: Answer = answer
        return found

    def _pristine_answer(self, operation: str, request: dict[str, Any]) -> Any:
        if operation == "get_function":
            configuration = self._get_function_configuration(**request)
            return {"Configuration": configuration, "Code": {"RepositoryType": "S3", "Location": self.zip}}
        key = json.dumps([operation, request])
        if key not in self._answers:
            self._answers[key] = getattr(self, f"_{operation}")(**request)
        return copy.deepcopy(self._answers[key])

    def connection(self, endpoint: str) -> int | Unknown:
        raise AssertionError(f"{endpoint} is not to be reached from here")

    def _named(self, value: Any) -> Any:
        """The value with the names that AWS gives to what the template names."""
        if isinstance(value, dict):
            return {key: self._named(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._named(each) for each in value]
        if not isinstance(value, str):
            return value
        value = value.replace("IncidentTable.StreamArn", STREAM)
        value = re.sub(r"\b(\w+)\.Arn\b", lambda match: self._arn(match[1]), value)
        value = re.sub(r"(?<=123456789012/)(\w+)(\.fifo)?", lambda match: self._queue(match[1]), value)
        return re.sub(r"(?<![\w:/])WebSocketApi(?!\w)|(?<=:)WebSocketApi(?=/)|(?<=//)WebSocketApi", API_ID, value)

    def _arn(self, name: str) -> str:
        match self.stack.resources[name]["Type"]:
            case "AWS::DynamoDB::Table":
                return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"
            case "AWS::SQS::Queue":
                return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self._queue(name)}"
            case "AWS::S3::Bucket":
                return f"arn:aws:s3:::{name.lower()}"
        return f"arn:aws:any:{REGION}:{ACCOUNT}:{name}"

    def _queue(self, name: str) -> str:
        if name not in self.stack.resources:
            return name
        properties = self.stack.properties(name)
        suffix = ".fifo" if properties.get("FifoQueue") and "QueueName" not in properties else ""
        return str(properties.get("QueueName", f"{name}{suffix}"))

    # ---- CloudFormation, STS, quotas
    def _describe_stacks(self, StackName: str) -> Any:  # noqa: N803 - AWS's name
        names = self.stack._template["Parameters"]
        told = [{"ParameterKey": name, "ParameterValue": self.stack.parameter(name)} for name in names]
        return {"Stacks": [{"StackName": StackName, "StackStatus": "UPDATE_COMPLETE", "Parameters": told}]}

    def _list_stack_resources(self, StackName: str, NextToken: str = "") -> Any:  # noqa: ARG002, N803 - AWS's name
        def described(name: str, kind: str) -> dict[str, str]:
            physical = API_ID if name == "WebSocketApi" else name
            kind = kind.replace("Serverless", "Lambda")
            if kind == "AWS::Lambda::Alias":
                physical = self._alias(name)
            return {"LogicalResourceId": name, "PhysicalResourceId": physical, "ResourceType": kind}

        told = [described(name, each["Type"]) for name, each in self.stack.resources.items()]
        page = {"StackResourceSummaries": told[20:] if NextToken else told[:20]}
        return page if NextToken else page | {"NextToken": "more"}

    def _get_caller_identity(self) -> Any:
        return {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:user/operator", "UserId": "AIDA"}

    def _get_service_quota(self, **_code: str) -> Any:
        return {"Quota": {"QuotaName": "Throttle rate", "Value": 10000.0}}

    # ---- Lambda and IAM
    def _get_function_configuration(self, FunctionName: str) -> Any:  # noqa: N803 - AWS's name
        name, _, alias = FunctionName.rpartition("function:")[2].partition(":")
        function = self.stack.functions()[name]
        environment = {name: str(value) for name, value in function["Environment"].items()}
        return {
            "FunctionName": name,
            "Description": self.stack.parameter("Revision") if alias else function["Description"],
            "Version": "7" if alias else "$LATEST",
            "Handler": function["Handler"],
            "Runtime": function["Runtime"],
            "Timeout": function["Timeout"],
            "MemorySize": function["MemorySize"],
            "Architectures": function["Architectures"],
            "Role": f"arn:aws:iam::{ACCOUNT}:role/{function['Role'].removesuffix('.Arn')}",
            "Environment": {"Variables": self._named(environment)},
            "State": "Active",
            "LastUpdateStatus": "Successful",
            "CodeSha256": "the same for all",
        }

    def _list_event_source_mappings(self, FunctionName: str = "", EventSourceArn: str = "") -> Any:  # noqa: N803 - AWS's names
        found = []
        for name, mapping in self.stack.mappings().items():
            function = mapping["FunctionName"]
            function = self._alias(function) if function.endswith("Alias") else function
            if function == (FunctionName or function):
                told = self._named(mapping)
                told["BatchSize"] = int(told["BatchSize"])
                for key in ("MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "ParallelizationFactor"):
                    if key in told:
                        told[key] = int(told[key])
                if told["EventSourceArn"] != (EventSourceArn or told["EventSourceArn"]):
                    continue
                told["FunctionArn"] = function if ":" in function else f"{_FUNCTIONS}{function}"
                found.append(told | {"UUID": f"uuid-of-{name}", "State": "Enabled", "LastProcessingResult": "OK"})
        return {"EventSourceMappings": found}

    def _get_alias(self, FunctionName: str, Name: str) -> Any:  # noqa: N803 - AWS's names
        return {"AliasArn": f"{_FUNCTIONS}{FunctionName}:{Name}", "Name": Name, "FunctionVersion": "7"}

    def _alias(self, name: str) -> str:
        properties = self.stack.properties(name)
        return f"{_FUNCTIONS}{properties['FunctionName']}:{properties['Name']}"

    def _simulate_principal_policy(self, PolicySourceArn: str, ActionNames: list[str], ResourceArns: list[str]) -> Any:  # noqa: N803 - AWS's names
        granted = self.grants(PolicySourceArn.rpartition("/")[2])

        def decide(action: str, resource: str) -> str:
            allowed = any(action == each and fnmatch.fnmatchcase(resource, place) for each, place in granted)
            return "allowed" if allowed else "implicitDeny"

        [resource] = ResourceArns
        return {
            "EvaluationResults": [
                {"EvalActionName": each, "EvalResourceName": resource, "EvalDecision": decide(each, resource)}
                for each in ActionNames
            ]
        }

    def grants(self, role: str) -> set[tuple[str, str]]:
        """Every action that a role is allowed, with its resource."""
        found = set()
        for policy in self.stack.properties(role)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                resources = statement["Resource"]
                for resource in resources if isinstance(resources, list) else [resources]:
                    found |= {(action, self._named(resource)) for action in statement["Action"]}
        return found

    # ---- DynamoDB and SQS
    def _describe_table(self, TableName: str) -> Any:  # noqa: N803 - AWS's name
        if TableName.rpartition("/")[2] not in self.stack.resources:
            return self._foreign_table(TableName)
        properties = copy.deepcopy(self.stack.properties(TableName))
        for index in properties.get("GlobalSecondaryIndexes", ()):
            index["IndexStatus"] = "ACTIVE"
        return {
            "Table": properties
            | {
                "TableName": TableName,
                "TableStatus": "ACTIVE",
                "TableArn": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{TableName}",
            }
        }

    def _foreign_table(self, name: str) -> Any:
        """A table that the stack was given."""
        return {
            "Table": {
                "TableName": name,
                "TableStatus": "ACTIVE",
                "AttributeDefinitions": [{"AttributeName": "connectionId", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "connectionId", "KeyType": "HASH"}],
            }
        }

    def _describe_time_to_live(self, TableName: str) -> Any:  # noqa: ARG002, N803 - AWS's name
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}}

    def _describe_stream(self, StreamArn: str, Limit: int) -> Any:  # noqa: ARG002, N803 - AWS's names
        return {"StreamDescription": {"StreamStatus": "ENABLED", "StreamViewType": "NEW_IMAGE"}}

    def _get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: ARG002, N803 - AWS's names
        physical = QueueUrl.rpartition("/")[2]
        name = next((each for each in self.stack.of("SQS::Queue") if self._queue(each) == physical), None)
        if name is None:
            return Absent()
        told = self._named(self.stack.properties(name))
        attributes = {
            key: json.dumps(value) if isinstance(value, dict) else str(value).lower()
            for key, value in told.items()
            if key not in ("QueueName", "RedrivePolicy", "RedriveAllowPolicy")
        }
        for key in ("RedrivePolicy", "RedriveAllowPolicy"):
            if key in told:
                attributes[key] = json.dumps(told[key])
        return {
            "Attributes": {"VisibilityTimeout": "30", "ApproximateNumberOfMessages": "0"}
            | attributes
            | {"QueueArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{physical}"}
        }

    # ---- API Gateway
    def _get_api(self, ApiId: str) -> Any:  # noqa: N803 - AWS's name
        properties = self.stack.of("ApiGatewayV2::Api").get("WebSocketApi", {"ProtocolType": "WEBSOCKET"})
        return {"ApiId": ApiId, **properties}

    def _get_stage(self, ApiId: str, StageName: str) -> Any:  # noqa: ARG002, N803 - AWS's names
        return {"StageName": StageName}

    def _get_api_mappings(self, DomainName: str, MaxResults: str) -> Any:  # noqa: ARG002, N803 - AWS's names
        endpoint = urlsplit(self.stack.parameter("WebSocketEndpoint"))
        if endpoint.hostname != DomainName:
            return Absent()
        led = {"ApiId": API_ID, "ApiMappingId": "m1", "Stage": self.stack.parameter("StageName")}
        key = endpoint.path.strip("/")
        return {"Items": [led | ({"ApiMappingKey": key} if key else {})]}

    def _get_routes(self, ApiId: str, MaxResults: str) -> Any:  # noqa: ARG002, N803 - AWS's names
        foreign = [{"RouteKey": "$connect", "AuthorizationType": "NONE"}]
        return {"Items": list(self.stack.of("ApiGatewayV2::Route").values()) or foreign}
