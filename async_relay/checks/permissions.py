"""What each function's role has to be allowed, and what IAM's simulator says of it. Pure.

Rules
- The list is the template's (a test compares them), without the logs, which a function runs without.
- The simulator knows the role's policies and boundary, not what a resource's own policy or a KMS key says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..settings import Settings
from .deployment import (
    AUTHORIZE,
    CONNECT,
    DEFAULT,
    DELIVER,
    DISCONNECT,
    ENVIRONMENT,
    HEARTBEAT,
    RELAY,
    Deployment,
    Function,
    NotCheckedError,
    Unknown,
    asked,
    known,
)
from .findings import Finding, ok, unchecked_of, wrong

PERMISSIONS = "permissions"
_ROWS = ("dynamodb:Scan", "dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:BatchWriteItem")
_RECEIVE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")


class Need(NamedTuple):
    """Actions on one resource, ``*`` where an action has none."""

    actions: tuple[str, ...]
    resource: str


def needs(deployment: Deployment, function: Function) -> list[Need]:
    """What a function's role has to be allowed; raises ``NotCheckedError`` where that cannot be told."""
    if not isinstance(function.settings, Settings):
        raise NotCheckedError("its settings cannot be read")
    by_handler: dict[str, Callable[[Deployment, Function], Iterator[Need]]] = {
        RELAY: _relay,
        DELIVER: _deliver,
        HEARTBEAT: _heartbeat,
        CONNECT: _connect,
        DISCONNECT: _disconnect,
        AUTHORIZE: lambda _deployment, _function: iter(()),
        DEFAULT: _default,
    }
    find = by_handler.get(function.handler)
    return list(find(deployment, function)) if find else []


def permissions(deployment: Deployment) -> Iterator[Finding]:
    """Each role is allowed what its function does."""
    silent, reasons = True, {}
    for each in deployment.functions:
        if each.name == ENVIRONMENT:
            raise NotCheckedError("settings alone do not say whose role it is: give --stack")
        if isinstance(each.decisions, Unknown):
            reasons[each.name] = each.decisions.reason
            continue
        denied: dict[str, list[str]] = {}
        for decision in each.decisions:
            if decision.decision != "allowed":
                denied.setdefault(decision.resource, []).append(decision.action)
        for resource, actions in denied.items():
            silent = False
            yield wrong(
                PERMISSIONS,
                f"The role of {each.name} may not {' or '.join(actions)} on {resource}.",
                _EFFECTS.get(actions[0], "The function fails at it, and what depends on it is not done."),
                "Allow it (docs/deploy.md#iam); deploying the stack again does, unless a permissions boundary or a "
                "policy of the organisation refuses it.",
            )
    yield from unchecked_of(PERMISSIONS, reasons)
    asked = [each.name for each in deployment.functions if isinstance(each.decisions, tuple) and each.decisions]
    if asked and silent:
        yield ok(PERMISSIONS, f"IAM's simulator lets {len(asked)} roles do what their functions do.")


_EFFECTS = {
    "execute-api:ManageConnections": "Posts or closings are answered 403: clients get nothing or stay past their time.",
    "dynamodb:Scan": "The function cannot read whom to send to, so nobody gets anything.",
    "dynamodb:PutItem": "Nothing can be written: no client connects, or no batch is sent.",
    "sqs:SendMessage": "What is not delivered at once sends its batch back, and everybody gets it again.",
    "sqs:ReceiveMessage": "Jobs are not fetched, so clients that lack a message wait for it until it is forgotten.",
    "dynamodb:DescribeStream": "Lambda cannot read the stream, so nobody gets anything.",
    "s3:PutObject": "Records that Lambda gives up are lost.",
}


def _relay(deployment: Deployment, function: Function) -> Iterator[Need]:
    for mapping in asked(function.mappings):
        yield Need(
            ("dynamodb:DescribeStream", "dynamodb:GetShardIterator", "dynamodb:GetRecords"), mapping["EventSourceArn"]
        )
        yield from _on_failure(mapping)
    yield Need(("dynamodb:ListStreams",), "*")
    if function.has("feed_table"):
        yield Need(("dynamodb:PutItem",), _table(deployment, function.has("feed_table")))
    yield from _broadcast(deployment, function)
    yield from _send(deployment, function, "retry_queue_url", "dead_letter_queue_url", "fanout_queue_url")


def _on_failure(mapping: Mapping[str, Any]) -> Iterator[Need]:
    destination = mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination", "")
    if ":s3:" in destination:
        yield Need(("s3:PutObject",), f"{destination}/*")
        yield Need(("s3:ListBucket",), destination)
    elif destination:
        yield Need(("sqs:SendMessage",), destination)


def _deliver(deployment: Deployment, function: Function) -> Iterator[Need]:
    own = function.has("fanout_queue_url") or function.has("retry_queue_url")
    if own:
        yield Need(_RECEIVE, _queue(deployment, own))
    yield from _broadcast(deployment, function)
    yield from _send(deployment, function, "retry_queue_url", "dead_letter_queue_url", "fanout_queue_url")


def _heartbeat(deployment: Deployment, function: Function) -> Iterator[Need]:
    yield Need(_ROWS, _rows(deployment, function))
    yield from _manage(deployment)


def _connect(deployment: Deployment, function: Function) -> Iterator[Need]:
    yield Need(("dynamodb:PutItem",), _rows(deployment, function))
    yield from _indexed(deployment, function)


def _disconnect(deployment: Deployment, function: Function) -> Iterator[Need]:
    yield Need(("dynamodb:DeleteItem",), _rows(deployment, function))


def _default(deployment: Deployment, function: Function) -> Iterator[Need]:
    yield Need(("dynamodb:BatchGetItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"), _rows(deployment, function))
    yield from _indexed(deployment, function)
    if function.has("feed_table"):
        yield Need(("dynamodb:Query",), _table(deployment, function.has("feed_table")))
    if function.has("incident_table"):
        incidents, index = _table(deployment, function.has("incident_table")), function.has("incident_index")
        if index:
            yield Need(("dynamodb:DescribeTable",), incidents)
            yield Need(("dynamodb:Query", "dynamodb:Scan"), f"{incidents}/index/{index}")
        else:
            yield Need(("dynamodb:Scan",), incidents)
    yield from _manage(deployment)


def _broadcast(deployment: Deployment, function: Function) -> Iterator[Need]:
    yield Need(_ROWS, _rows(deployment, function))
    yield from _indexed(deployment, function)
    if function.has("connections_index"):
        yield Need(("dynamodb:Query",), f"{_rows(deployment, function)}/index/{function.has('connections_index')}")
    yield from _manage(deployment)


def _indexed(deployment: Deployment, function: Function) -> Iterator[Need]:
    if function.has("connections_index"):
        yield Need(("dynamodb:DescribeTable",), _rows(deployment, function))


def _manage(deployment: Deployment) -> Iterator[Need]:
    place = f"{_arn(deployment, 'execute-api')}:{deployment.api_id}/{deployment.parameters['StageName']}"
    for method in ("POST", "DELETE"):
        yield Need(("execute-api:ManageConnections",), f"{place}/{method}/@connections/*")


def _send(deployment: Deployment, function: Function, *settings: str) -> Iterator[Need]:
    for name in settings:
        if function.has(name):
            yield Need(("sqs:SendMessage",), _queue(deployment, function.has(name)))


def _rows(deployment: Deployment, function: Function) -> str:
    return _table(deployment, function.has("connections_table"))


def _table(deployment: Deployment, name: str) -> str:
    return name if name.startswith("arn:") else f"{_arn(deployment, 'dynamodb')}:table/{name}"


def _queue(deployment: Deployment, url: str) -> str:
    return f"{_arn(deployment, 'sqs')}:{url.rpartition('/')[2]}"


def _arn(deployment: Deployment, service: str) -> str:
    """Where the stack's resources of a service are; raises ``NotCheckedError`` where nobody knows the account."""
    identity = known(deployment.identity)
    if identity is None:
        raise NotCheckedError("the account is not known")
    return f"arn:{identity['Arn'].split(':')[1]}:{service}:{deployment.region}:{identity['Account']}"
