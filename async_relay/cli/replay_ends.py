"""Where a replay reads and where it sends: the bucket of what Lambda gave up, and the relay function.

botocore's synchronous clients, as for queues and tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError

from async_relay.errors import SettingsError
from async_relay.wire.streams import Record

from . import account
from .aws_errors import answers, aws_errors
from .failure import CommandError
from .given_up import NoBatch, Stored, event_of, time_of
from .parsing import parse_json

#: A function may take so many seconds, and Lambda answers no earlier.
_LONGEST_INVOCATION = 900
_S3_CODES = {
    "NoSuchBucket": "there is no bucket {name}: check the name, the account and the region",
}
_LAMBDA_CODES = {
    "ResourceNotFoundException": "there is no function {name}: check the name, the account and the region",
    "AccessDeniedException": "the credentials may not use {name}: allow lambda:InvokeFunction on it",
    "TooManyRequestsException": "{name} is too busy: run the command again with a lower --rate",
}
#: Lambda's codes for an event that no function would get.
_OF_EVENT = {
    "InvalidRequestContentException": "Lambda cannot read its records as an event: {message}",
    "RequestTooLargeException": "{name} takes no event as large: send its records in parts, by --event-id",
    "RequestEntityTooLargeException": "{name} takes no event as large: send its records in parts, by --event-id",
}
#: How the type of an error begins where the function did not start; one that was killed is among its records' errors.
_NOT_STARTED = ("Extension.", "Runtime.", SettingsError.__name__)
_KILLED = "Runtime.ExitError"


class Refused(CommandError):
    """The function, which could be called, failed on these records: others may fare better."""


class Bucket:
    """The bucket of ``StreamFailureDestination``."""

    def __init__(self, name: str) -> None:
        self.name = name
        with aws_errors(f"the bucket {name}"):
            config = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30)
            self._s3 = account.client("s3", config)

    def list(self, prefix: str) -> Iterator[Stored]:
        """Every object under the prefix; raises ``CommandError``."""
        after: dict[str, str] = {}
        while True:
            with self._errors("ListBucket"):
                page = self._s3.list_objects_v2(Bucket=self.name, Prefix=prefix, **after)
            if "Name" not in page:
                sentence = f"the answer for the bucket {self.name} is not S3's: check AWS_ENDPOINT_URL and the proxy"
                raise CommandError(sentence)
            for each in page.get("Contents", []):
                yield Stored(each["Key"], time_of(each["Key"], each["LastModified"]), each["Size"])
            if not page.get("IsTruncated"):
                return
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def read(self, key: str) -> bytes:
        """What the object holds; raises ``NoBatch`` where it cannot be had alone, and ``CommandError``."""
        with self._errors("GetObject"):
            try:
                body: bytes = self._s3.get_object(Bucket=self.name, Key=key)["Body"].read()
            except self._s3.exceptions.NoSuchKey:
                raise NoBatch("it is no longer there") from None
            except self._s3.exceptions.InvalidObjectState:
                raise NoBatch("it is archived: restore it, and run the command again") from None
        return body

    def delete(self, key: str) -> None:
        """Delete the object; raises ``CommandError``."""
        with self._errors("DeleteObject"):
            self._s3.delete_object(Bucket=self.name, Key=key)

    def _errors(self, action: str) -> AbstractContextManager[None]:
        denied = {"AccessDenied": f"the credentials may not use the bucket {{name}}: allow s3:{action} on it"}
        return answers(f"the bucket {self.name}", _S3_CODES | denied, self.name)


class RelayFunction:
    """The function whose handler is ``lambda_handler``."""

    def __init__(self, name: str) -> None:
        self.name = name
        with aws_errors(f"the function {name}"):
            config = Config(
                retries={"mode": "standard", "total_max_attempts": 4},
                connect_timeout=5,
                read_timeout=_LONGEST_INVOCATION + 10,
            )
            self._lambda = account.client("lambda", config)

    def send(self, records: Sequence[Record]) -> list[Record]:
        """Hand it the records as the stream does; those that it hands back.

        Raises ``Refused`` where it failed on them, and ``CommandError`` where it cannot be used for any.
        """
        with answers(f"the function {self.name}", _LAMBDA_CODES, self.name):
            try:
                answer = self._lambda.invoke(FunctionName=self.name, Payload=event_of(records))
            except ClientError as error:
                said = error.response.get("Error", {})
                if sentence := _OF_EVENT.get(said.get("Code", "")):
                    raise Refused(sentence.format(name=self.name, message=said.get("Message", ""))) from None
                raise
            body = answer["Payload"].read()
        result = parse_json(body)
        if answer.get("FunctionError"):
            failure = CommandError if _never_started(result) else Refused
            raise failure(f"{self.name} failed: {_cause(result)} (its log says more)")
        try:
            failures = {each["itemIdentifier"] for each in result["batchItemFailures"]}
        except (KeyError, TypeError):
            raise CommandError(
                f"{self.name} answered {json.dumps(result)[:60]}, so it is not the relay's stream function"
            ) from None
        # Lambda takes an unknown identifier as one for the whole batch, and so does this.
        known = failures <= {each.sequence for each in records}
        return [each for each in records if not known or each.sequence in failures]


def _never_started(result: Any) -> bool:
    kind = str(result.get("errorType")) if isinstance(result, dict) else ""
    return kind.startswith(_NOT_STARTED) and kind != _KILLED


def _cause(result: Any) -> str:
    told = result if isinstance(result, dict) else {}
    return ": ".join(str(told[name])[:300] for name in ("errorType", "errorMessage") if told.get(name)) or "no reason"
