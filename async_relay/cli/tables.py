"""The connections table for the commands: a client for it, and its errors as one sentence.

botocore's synchronous client, as for the queues: a command has one user and no event loop to share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from .aws_errors import aws_errors
from .failure import CommandError

#: The table's key.
KEY = "connectionId"

#: Error codes of DynamoDB; what is the same for every service is in ``aws_errors``.
_CODES = {
    "ResourceNotFoundException": "there is no table {table}: check the name, the account and the region",
    "AccessDeniedException": "the credentials may not use {table}: allow dynamodb:{operation} on it",
    "ProvisionedThroughputExceededException": "{table} is too busy: run the command again with a lower --rate",
    "ThrottlingException": "{table} is too busy: run the command again with a lower --rate",
    "RequestLimitExceeded": "{table} is too busy: run the command again with a lower --rate",
    "ValidationException": "{table} refused {operation}: {message}",
}


def connect(table: str, *, connections: int) -> Any:
    """A client of DynamoDB for this table, for so many threads; raises ``CommandError``."""
    with aws_errors(f"the table {table}"):
        session = botocore.session.Session()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=connections,
        )
        return session.create_client("dynamodb", region_name=region, config=config)


def check(client: Any, table: str) -> int:
    """About how many rows there are; raises ``CommandError`` where it is no connections table."""
    with errors(table):
        description = client.describe_table(TableName=table)["Table"]
    keys = [key["AttributeName"] for key in description["KeySchema"]]
    if keys != [KEY]:
        raise CommandError(f"{table} is not a connections table: its key is {', '.join(keys)}, not {KEY}")
    count: int = description.get("ItemCount", 0)
    return count


@contextmanager
def errors(table: str) -> Iterator[None]:
    """Raise botocore's errors as a ``CommandError`` about this table."""
    with aws_errors(f"the table {table}"):
        try:
            yield
        except ClientError as error:
            details = error.response.get("Error", {})
            sentence = _CODES.get(details.get("Code", ""))
            if sentence is None:
                raise
            message = details.get("Message", "")
            raise CommandError(sentence.format(table=table, operation=error.operation_name, message=message)) from None
