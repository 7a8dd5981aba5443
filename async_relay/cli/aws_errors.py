"""Turns botocore's errors into one sentence that names the queue, table or bucket and says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own: no endpoint, TLS, a proxy
    HTTPClientError,
    InvalidRegionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)

from .failure import FAILED, USAGE, CommandError

#: What an option or a variable that the command was given makes impossible.
_CALLED_WRONGLY = (NoRegionError, InvalidRegionError, ProfileNotFound)


@contextmanager
def answers(thing: str, sentences: Mapping[str, str], name: str) -> Iterator[None]:
    """Raise botocore's errors about ``thing``, with the service's own ``sentences`` by code.

    A sentence may have ``{name}``, ``{operation}`` and ``{message}``; other codes are told as by ``aws_errors``.
    """
    with aws_errors(thing):
        try:
            yield
        except ClientError as error:
            details = error.response.get("Error", {})
            sentence = sentences.get(details.get("Code", ""))
            if sentence is None:
                raise
            told = sentence.format(name=name, operation=error.operation_name, message=details.get("Message", ""))
            raise CommandError(told) from None


@contextmanager
def aws_errors(url: str, *, ignored: str = "") -> Iterator[None]:
    """Raise botocore's errors as a ``CommandError`` about ``url``; ignore a code that starts with ``ignored``."""
    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if ignored and code.startswith(ignored):
            return
        raise CommandError(_refused(code, error, url)) from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise CommandError(_failed(error, url), USAGE if isinstance(error, _CALLED_WRONGLY) else FAILED) from None


#: Error codes of SQS and of its signatures, without the prefix AWS.SimpleQueueService.
_CODES = {
    "NonExistentQueue": "there is no queue {url}: check the URL, the account and the region",
    "QueueDoesNotExist": "there is no queue {url}: check the URL, the account and the region",
    "InvalidAddress": "{url} is not a queue of this region or endpoint: check the URL, AWS_REGION and AWS_ENDPOINT_URL",
    "AccessDenied": "the credentials may not use {url}: allow sqs:{operation} on it",
    "AccessDeniedException": "the credentials may not use {url}: allow sqs:{operation} on it",
    "InvalidAccessKeyId": "AWS does not know the access key: check the credentials",
    "InvalidClientTokenId": "AWS does not know the access key: check the credentials",
    "UnrecognizedClientException": "AWS does not know the access key or session token: check the credentials",
    "SignatureDoesNotMatch": "AWS refuses the signature: check the secret access key and the clock",
    "ExpiredToken": "the credentials have expired: sign in again",
    "ExpiredTokenException": "the credentials have expired: sign in again",
    "RequestExpired": "the request came too late: check the clock",
}

#: Codes of SQS for a message that became visible, or was received by another, since we received it.
_LOST = ("MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue")


def _refused(code: str, error: ClientError, url: str) -> str:
    code = code.removeprefix("AWS.SimpleQueueService.")
    if error.operation_name == "ChangeMessageVisibility" and code in _LOST:
        return "it was held too long and is no longer ours: run the command again"
    sentence = _CODES.get(code)
    if sentence is None:
        return f"{url} refused {error.operation_name}: {code} {error.response.get('Error', {}).get('Message', '')}"
    return sentence.format(url=url, operation=error.operation_name)


def _failed(error: Exception, url: str) -> str:
    match error:
        case NoCredentialsError() | PartialCredentialsError():
            return "no AWS credentials: sign in, or give --profile, AWS_PROFILE or AWS_ACCESS_KEY_ID"
        case NoRegionError():
            return "no AWS region: give --region or AWS_REGION"
        case InvalidRegionError() | ProfileNotFound():
            return f"{str(error).rstrip('.')}: check AWS_REGION and AWS_PROFILE, or --region and --profile"
        case ConnectionError() | HTTPClientError():
            return f"no answer for {url}: {error} (check the network, AWS_ENDPOINT_URL and AWS_CA_BUNDLE)"
        case _:
            said = " ".join(str(error).split())
            return f"{url} cannot be used: {said} (check AWS_ENDPOINT_URL and the AWS configuration)"
