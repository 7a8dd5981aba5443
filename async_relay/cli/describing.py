"""Describes a deployment by asking AWS; what is asked of its functions is in ``describing_functions``.

Rules
- With a stack, CloudFormation says what there is and Lambda what the functions are told. Without one, the
  environment is read as a function reads it.
- What one answer is missing keeps nothing else from being asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from async_relay.aws.environment import proxied
from async_relay.checks.deployment import (
    ENVIRONMENT,
    Absent,
    Answer,
    Deployment,
    Endpoint,
    Function,
    NotCheckedError,
    Queue,
    Unknown,
)
from async_relay.http.urls import endpoint_region

from .asking import Aws, answered, part
from .describing_functions import describe_functions, read_settings, with_decisions
from .failure import USAGE, CommandError
from .probing import probe

#: API Gateway's throttle rate, in requests a second for the whole account.
_THROTTLE_RATE = {"ServiceCode": "apigateway", "QuotaCode": "L-8A5B8E43"}
#: A function that every stack of the template has.
_RELAY = "RelayFunction"
_ALONE = Unknown("settings alone do not say: give --stack")


def describe_stack(aws: Aws, stack: str) -> Deployment:
    """What is deployed; raises ``CommandError`` where CloudFormation knows no such stack or cannot be asked."""
    try:
        return _described_stack(aws, stack)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        sentence = f"AWS's answer about {stack} is not as documented ({type(error).__name__}: {error})"
        raise CommandError(sentence, USAGE) from None


def _described_stack(aws: Aws, stack: str) -> Deployment:
    described = _required(aws.ask("cloudformation", "describe_stacks", StackName=stack), stack)["Stacks"][0]
    found = _resources(aws, stack)
    if _RELAY not in found:
        raise CommandError(f"the stack {stack} has no {_RELAY}, so it is none of async-relay's: name another", USAGE)
    parameters = {each["ParameterKey"]: each.get("ParameterValue", "") for each in described.get("Parameters", ())}
    functions = describe_functions(aws, found)
    api_id = found.get("WebSocketApi", {}).get("PhysicalResourceId") or parameters.get("WebSocketApiId", "")
    deployment = _described(aws, functions)
    deployment = replace(
        deployment,
        stack=stack,
        status=described["StackStatus"],
        parameters=parameters,
        stream=_stream(aws, functions),
        readers=_readers(aws, functions),
        api_id=api_id,
        api=aws.ask("apigatewayv2", "get_api", ApiId=api_id),
        stage=aws.ask("apigatewayv2", "get_stage", ApiId=api_id, StageName=parameters.get("StageName", "")),
        connect_route=_connect_route(aws, api_id),
        api_mappings=_api_mappings(aws, _setting(deployment, "ws_endpoint")),
        quota=_quota(aws),
    )
    return replace(deployment, functions=tuple(with_decisions(aws, deployment, each) for each in functions))


def _resources(aws: Aws, stack: str) -> dict[str, Mapping[str, Any]]:
    """What the stack has, by logical name."""
    found: dict[str, Mapping[str, Any]] = {}
    after: dict[str, str] = {}
    while True:
        page = _required(aws.ask("cloudformation", "list_stack_resources", StackName=stack, **after), stack)
        found |= {each["LogicalResourceId"]: each for each in page["StackResourceSummaries"]}
        if "NextToken" not in page:
            return found
        after = {"NextToken": page["NextToken"]}


def describe_environment(aws: Aws, environ: Mapping[str, str]) -> Deployment:
    """What the settings alone lead to."""
    return _described(aws, (Function(ENVIRONMENT, _ALONE, read_settings(environ), _ALONE, _ALONE, _ALONE),))


def _required(answer: Answer, stack: str) -> Mapping[str, Any]:
    if isinstance(answer, Absent):
        raise CommandError(_no_stack(stack), USAGE)
    if isinstance(answer, Unknown):
        raise CommandError(_no_stack(stack) if "does not exist" in answer.reason else answer.reason, USAGE)
    return answer


def _no_stack(stack: str) -> str:
    return f"there is no stack {stack}: check the name, the account and the region"


def _described(aws: Aws, functions: tuple[Function, ...]) -> Deployment:
    """What settings lead to: endpoint, tables and queues."""
    plain = Deployment(
        functions, aws.ask("sts", "get_caller_identity"), Unknown("WS_ENDPOINT is not known"), aws.region
    )
    names = {name: _setting(plain, f"{name}_table") for name in ("connections", "feed", "incident")}
    fanout = _queue(aws, _setting(plain, "fanout_queue_url"))
    return replace(
        plain,
        endpoint=_endpoint(aws, _setting(plain, "ws_endpoint")),
        connections=_table(aws, names["connections"]),
        connections_ttl=_ttl(aws, names["connections"]),
        feed=_table(aws, names["feed"]),
        feed_ttl=_ttl(aws, names["feed"]),
        incidents=_table(aws, names["incident"]),
        retry=_queue(aws, _setting(plain, "retry_queue_url")),
        dead_letters=_queue(aws, _setting(plain, "dead_letter_queue_url")),
        fanout=fanout,
        fanout_letters=_letters(aws, fanout),
    )


def _setting(deployment: Deployment, name: str) -> str | Unknown | None:
    try:
        value: str | None = deployment.setting(name)
    except NotCheckedError as error:
        return Unknown(str(error))
    return value


def _endpoint(aws: Aws, url: str | Unknown | None) -> Endpoint | Unknown:
    if not isinstance(url, str):
        return url or Unknown("WS_ENDPOINT is not known")
    if proxied(os.environ):
        return Unknown("a proxy is set here, and would answer in place of the endpoint")
    return probe(url, lambda: aws.connection(url))


def _table(aws: Aws, name: str | Unknown | None) -> Answer:
    if not isinstance(name, str):
        return name or Unknown("no table is named")
    return part(aws.ask("dynamodb", "describe_table", TableName=name), "Table")


def _ttl(aws: Aws, name: str | Unknown | None) -> Answer:
    if not isinstance(name, str):
        return name or Unknown("no table is named")
    return part(aws.ask("dynamodb", "describe_time_to_live", TableName=name), "TimeToLiveDescription")


def _queue(aws: Aws, url: str | Unknown | None) -> Queue | Unknown | None:
    if not isinstance(url, str):
        return url
    answer = aws.ask("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
    return Queue(url, part(answer, "Attributes"))


def _letters(aws: Aws, source: Queue | Unknown | None) -> Queue | Unknown | None:
    """Where a queue gives up to, which is in its own account and Region; None: nowhere."""
    if not isinstance(source, Queue):
        return source
    if not isinstance(source.attributes, Mapping):
        return source.attributes if isinstance(source.attributes, Unknown) else None
    if "RedrivePolicy" not in source.attributes:
        return None
    try:
        name = json.loads(source.attributes["RedrivePolicy"])["deadLetterTargetArn"].rpartition(":")[2]
    except (LookupError, TypeError, ValueError, AttributeError):
        return Unknown("the redrive policy of its source cannot be read")
    return _queue(aws, f"{source.url.rpartition('/')[0]}/{name}")


def _stream(aws: Aws, functions: tuple[Function, ...]) -> Answer:
    arn = _stream_arn(functions)
    if isinstance(arn, Unknown):
        return arn
    return part(aws.ask("dynamodbstreams", "describe_stream", StreamArn=arn, Limit=1), "StreamDescription")


def _readers(aws: Aws, functions: tuple[Function, ...]) -> tuple[Mapping[str, Any], ...] | Unknown:
    arn = _stream_arn(functions)
    if isinstance(arn, Unknown):
        return arn
    return answered(aws.ask("lambda", "list_event_source_mappings", EventSourceArn=arn), "EventSourceMappings")


def _stream_arn(functions: tuple[Function, ...]) -> str | Unknown:
    for function in functions:
        for mapping in function.mappings if isinstance(function.mappings, tuple) else ():
            arn = str(mapping.get("EventSourceArn", ""))
            if ":dynamodb:" in arn:
                return arn
    return Unknown("no mapping says which stream it is")


def _connect_route(aws: Aws, api_id: str) -> Answer:
    answer = aws.ask("apigatewayv2", "get_routes", ApiId=api_id, MaxResults="500")
    if not isinstance(answer, Mapping):
        return answer
    return next((each for each in answer.get("Items", ()) if each.get("RouteKey") == "$connect"), Absent())


def _api_mappings(aws: Aws, endpoint: str | Unknown | None) -> Answer:
    """Those of the endpoint's domain, or of the wildcard domain that it belongs to."""
    if not isinstance(endpoint, str):
        return endpoint or Unknown("WS_ENDPOINT is not known")
    if endpoint_region(endpoint) is not None:
        return Unknown("WS_ENDPOINT is no domain of the owner's own")
    host = urlsplit(endpoint).hostname or ""
    answer = aws.ask("apigatewayv2", "get_api_mappings", DomainName=host, MaxResults="500")
    if isinstance(answer, Absent):
        wildcard = f"*.{host.partition('.')[2]}"
        answer = aws.ask("apigatewayv2", "get_api_mappings", DomainName=wildcard, MaxResults="500")
    return answer


def _quota(aws: Aws) -> Answer:
    """The quota that applies to the account, or AWS's default where it never asked for another."""
    answer = aws.ask("service-quotas", "get_service_quota", **_THROTTLE_RATE)
    if isinstance(answer, Absent):
        answer = aws.ask("service-quotas", "get_aws_default_service_quota", **_THROTTLE_RATE)
    return part(answer, "Quota")
