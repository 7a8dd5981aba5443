"""The connections table for the commands: a client for it, and its errors as one sentence.

botocore's synchronous client, as for the queues: a command has one user and no event loop to share.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer
from botocore.config import Config

from async_relay.settings import table_name

from . import account
from .aws_errors import answers, aws_errors
from .failure import USAGE, CommandError

#: The option that names it, or the functions' own variable.
Name = Annotated[
    str | None, typer.Option("--table", envvar="CONNECTIONS_TABLE", metavar="NAME", help="Connections table.")
]
#: The table's key.
KEY = "connectionId"

#: Error codes of DynamoDB; what is the same for every service is in ``aws_errors``.
_CODES = {
    "ResourceNotFoundException": "there is no table {name}: check the name, the account and the region",
    "AccessDeniedException": "the credentials may not use {name}: allow dynamodb:{operation} on it",
    "ProvisionedThroughputExceededException": "{name} is too busy: run the command again with a lower --rate",
    "ThrottlingException": "{name} is too busy: run the command again with a lower --rate",
    "RequestLimitExceeded": "{name} is too busy: run the command again with a lower --rate",
    "ValidationException": "{name} refused {operation}: {message}",
}


def named(table: str | None) -> str:
    """The table that an option or a variable names; raises ``CommandError`` where it can be no table's name."""
    if not table or not table.strip():
        raise CommandError("no table: give --table or CONNECTIONS_TABLE", USAGE)
    try:
        return table_name(table.strip())
    except ValueError as expected:
        sentence = f"--table or CONNECTIONS_TABLE is {table.strip()!r}; it must be {expected}"
        raise CommandError(sentence, USAGE) from None


def connect(table: str, *, connections: int) -> Any:
    """A client of DynamoDB for this table, for so many threads; raises ``CommandError``."""
    with aws_errors(f"the table {table}"):
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=connections,
        )
        return account.client("dynamodb", config)


def check(client: Any, table: str) -> int:
    """About how many rows there are; raises ``CommandError`` where it is no connections table."""
    with errors(table):
        description = client.describe_table(TableName=table).get("Table")
    if description is None:
        raise CommandError(f"the answer for the table {table} is not DynamoDB's: check AWS_ENDPOINT_URL and the proxy")
    keys = [key["AttributeName"] for key in description["KeySchema"]]
    if keys != [KEY]:
        raise CommandError(f"{table} is not a connections table: its key is {', '.join(keys)}, not {KEY}")
    count: int = description.get("ItemCount", 0)
    return count


def errors(table: str) -> AbstractContextManager[None]:
    """Raise botocore's errors as a ``CommandError`` about this table."""
    return answers(f"the table {table}", _CODES, table)


def whole(attribute: Any) -> int | None:
    """The whole number that a clock can show; None for anything else, which another function may have written."""
    text = (attribute or {}).get("N", "")
    return int(text) if re.fullmatch("[0-9]{1,14}", text) else None
