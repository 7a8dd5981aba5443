"""Asks AWS without changing anything: an answer, that there is no such thing, or why it could not be asked.

Rules
- Only operations that read are called: Describe, Get, List and Simulate.
- An error is an answer too: ``Absent``, or ``Unknown`` with a phrase that names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from async_relay.checks.deployment import Absent, Answer, Unknown
from async_relay.http.urls import endpoint_region

from . import account
from .aws_errors import aws_errors
from .failure import USAGE, CommandError

_READING = ("describe_", "get_", "list_", "simulate_")
_ABSENT = frozenset(
    {
        "AWS.SimpleQueueService.NonExistentQueue",
        "NoSuchEntity",
        "NoSuchResourceException",
        "NotFoundException",
        "QueueDoesNotExist",
        "ResourceNotFoundException",
    }
)
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"})
#: A service whose actions IAM knows by another name.
_IN_IAM = {"dynamodbstreams": "dynamodb", "service-quotas": "servicequotas"}
#: An id as API Gateway makes them, which nobody has.
_NOBODY = "AAAAAAAAAAAAAAA="


class Aws:
    """Clients of one Region."""

    def __init__(self) -> None:
        """Raises ``CommandError`` where no Region is named, or a profile is wrong."""
        with aws_errors("this"):
            self._session = account.session()
            self.region: str = account.region(self._session) or ""
        if not self.region:
            raise CommandError("no AWS region: give --region, or set AWS_REGION", USAGE)
        self._clients: dict[str, Any] = {}

    def ask(self, service: str, operation: str, **request: Any) -> Answer:
        """What the operation answers."""
        try:
            with aws_errors(f"AWS ({service})"):
                try:
                    answer: Answer = self._call(service, operation, request)
                except ClientError as error:
                    code = error.response.get("Error", {}).get("Code", "")
                    if code in _ABSENT:
                        return Absent()
                    if code in _DENIED:
                        return Unknown(f"the credentials may not {_action(service, error.operation_name)}")
                    raise
        except CommandError as error:
            return Unknown(str(error))
        except ResponseParserError:
            return Unknown(f"what AWS ({service}) answers to {operation} cannot be read")
        return answer

    def connection(self, endpoint: str) -> int | Unknown:
        """The status with which the endpoint answers GET @connections/{an id nobody has}."""
        region = account.region(self._session, endpoint_region(endpoint))
        try:
            with aws_errors(endpoint):
                client = self._client("apigatewaymanagementapi", region_name=region, endpoint_url=endpoint)
                try:
                    answer = client.get_connection(ConnectionId=_NOBODY)
                except ClientError as error:
                    answer = error.response
        except CommandError as error:
            return Unknown(str(error))
        except ResponseParserError:
            return Unknown("its answer cannot be read")
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])

    def _call(self, service: str, operation: str, request: dict[str, Any]) -> Any:
        if not operation.startswith(_READING):
            raise AssertionError(f"{operation} may change something")
        if service not in self._clients:
            self._clients[service] = self._client(service, region_name=self.region)
        return getattr(self._clients[service], operation)(**request)

    def _client(self, service: str, **where: Any) -> Any:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=10,
        )
        return self._session.create_client(service, config=config, **where)


def answered(answer: Answer, name: str) -> tuple[Mapping[str, Any], ...] | Unknown:
    """A list that an answer has."""
    if isinstance(answer, Absent):
        return ()
    if isinstance(answer, Unknown):
        return answer
    return tuple(answer[name]) if name in answer else Unknown(f"AWS's answer has no {name}")


def part(answer: Answer, name: str) -> Answer:
    """What an answer is about."""
    if not isinstance(answer, Mapping):
        return answer
    part: Answer = answer.get(name, Unknown(f"AWS's answer has no {name}"))
    return part


def _action(service: str, operation: str) -> str:
    """The action to allow for it."""
    if service == "apigatewayv2":
        return "apigateway:GET"
    return f"{_IN_IAM.get(service, service)}:{operation}"
