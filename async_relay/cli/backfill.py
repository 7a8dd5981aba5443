"""``async-relay backfill``: write ``shard`` to the rows that lack it, so that an index has every row.

Rules
- A row is written only while it is there: one that is deleted meanwhile stays deleted.
- Only ``shard`` is written, and only where it is not what it must be, so the command can be stopped
  and run again at any time, beside a relay at work.
- Every row that is there from beginning to end is read (a consistent parallel Scan). One that another
  writer makes meanwhile without ``shard`` is not: first every writer, then this.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import botocore.session
import typer
from botocore.config import Config
from botocore.exceptions import ClientError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from async_relay.wire.jobs import shard_of

from . import screen
from .aws_errors import aws_errors
from .failure import USAGE, CommandError

#: Parts of the table that are scanned side by side, each by a thread with a connection of its own; --rate bounds the
#: writes of all of them together.
_SEGMENTS = 8
_KEY = "connectionId"


@screen.report_errors
def backfill(
    *,
    table: Annotated[
        str | None, typer.Option("--table", envvar="CONNECTIONS_TABLE", metavar="NAME", help="Connections table.")
    ] = None,
    shards: Annotated[
        int | None,
        typer.Option(
            "--shards",
            envvar="FANOUT_SHARDS",
            metavar="N",
            min=1,
            max=1_000,
            help="The FANOUT_SHARDS of the functions.",
        ),
    ] = None,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, max=100_000, help="Rows written per second, at most.")
    ] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
) -> None:
    """Write the attribute shard to every connection's row that lacks it or has another."""
    if not table or not table.strip():
        raise CommandError("no table: give --table or CONNECTIONS_TABLE", USAGE)
    if shards is None:
        raise CommandError("no number of shards: give --shards or FANOUT_SHARDS", USAGE)
    rows = Rows(_connect(table), table.strip(), shards, _Pacer(rate), write=not dry_run)
    total = rows.check()
    try:
        _run(rows, total)
    finally:
        _summary(rows, dry_run=dry_run)
    screen.say(_meaning(rows, dry_run=dry_run))


@dataclass(slots=True)
class _Pacer:
    """Spreads turns evenly over every second, for all threads together."""

    rate: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _next: float = 0.0

    def wait(self) -> None:
        """Until it is the caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1 / self.rate
        time.sleep(turn - now)


@dataclass(slots=True)
class Rows:
    """The rows of a connections table, and what was found and done."""

    client: Any
    table: str
    shards: int
    pacer: _Pacer
    write: bool
    read: int = 0
    lacking: int = 0
    wrong: int = 0
    written: int = 0
    gone: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> int:
        """About how many rows there are; raises ``CommandError`` where it is no connections table."""
        with _dynamodb_errors(self.table):
            description = self.client.describe_table(TableName=self.table)["Table"]
        keys = [key["AttributeName"] for key in description["KeySchema"]]
        if keys != [_KEY]:
            raise CommandError(f"{self.table} is not a connections table: its key is {', '.join(keys)}, not {_KEY}")
        count: int = description.get("ItemCount", 0)
        return count

    def fill(self, segment: int, advance: Callable[[int], None]) -> None:
        """Read one segment of the table and write what it lacks."""
        after: dict[str, Any] = {}
        while not self.stopped.is_set():
            with _dynamodb_errors(self.table):
                page = self.client.scan(
                    TableName=self.table,
                    ConsistentRead=True,
                    Segment=segment,
                    TotalSegments=_SEGMENTS,
                    ProjectionExpression=f"{_KEY}, #shard",
                    ExpressionAttributeNames={"#shard": "shard"},
                    **after,
                )
            for item in page["Items"]:
                self._fill_row(item[_KEY]["S"], item.get("shard"))
            advance(len(page["Items"]))
            if "LastEvaluatedKey" not in page:
                return
            after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _fill_row(self, connection_id: str, shard: Any) -> None:
        wanted = {"N": str(shard_of(connection_id, self.shards))}
        with self._lock:
            self.read += 1
            self.lacking += shard is None
            self.wrong += shard is not None and shard != wanted
        if shard != wanted and self.write and not self.stopped.is_set():
            self.pacer.wait()
            there = self._update(connection_id, wanted)
            with self._lock:
                self.written += there
                self.gone += not there

    def _update(self, connection_id: str, shard: dict[str, str]) -> bool:
        """Whether the row was still there."""
        with _dynamodb_errors(self.table):
            try:
                self.client.update_item(
                    TableName=self.table,
                    Key={_KEY: {"S": connection_id}},
                    UpdateExpression="SET #shard = :shard",
                    ConditionExpression=f"attribute_exists({_KEY})",
                    ExpressionAttributeNames={"#shard": "shard"},
                    ExpressionAttributeValues={":shard": shard},
                )
            except self.client.exceptions.ConditionalCheckFailedException:
                return False
        return True


def _run(rows: Rows, total: int) -> None:
    """All segments side by side; the first error, or Ctrl-C, stops them."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen.stderr(), transient=True, disable=not screen.stderr().is_terminal) as bar:
        task = bar.add_task("rows", total=total or None)
        with ThreadPoolExecutor(_SEGMENTS) as pool:
            try:
                found = [
                    pool.submit(rows.fill, segment, lambda count: bar.advance(task, count))
                    for segment in range(_SEGMENTS)
                ]
                for each in as_completed(found):
                    each.result()
            finally:
                rows.stopped.set()


def _summary(rows: Rows, *, dry_run: bool) -> None:
    found = f"{rows.read:,} rows read: {rows.lacking:,} without shard, {rows.wrong:,} with another"
    done = "nothing is written" if dry_run else f"{rows.written:,} written, {rows.gone:,} deleted meanwhile"
    screen.say(f"{found}; {done}")


def _meaning(rows: Rows, *, dry_run: bool) -> str:
    missing = rows.lacking + rows.wrong
    if dry_run and missing:
        return f"CONNECTIONS_INDEX_SWEEP must stay on: an index of {rows.shards} shards would miss {missing:,} rows."
    return (
        f"An index on shard now has every row for FANOUT_SHARDS={rows.shards}. If everything that writes the table "
        "writes shard too, CONNECTIONS_INDEX_SWEEP=off reads the index instead of the table; a row written without "
        "shard after that is never served."
    )


def _connect(table: str) -> Any:
    with aws_errors(f"the table {table}"):
        session = botocore.session.Session()
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 8},
            connect_timeout=5,
            read_timeout=20,
            max_pool_connections=_SEGMENTS,
        )
        return session.create_client("dynamodb", region_name=region, config=config)


#: Error codes of DynamoDB; what is the same for every service is in ``aws_errors``.
_CODES = {
    "ResourceNotFoundException": "there is no table {table}: check the name, the account and the region",
    "AccessDeniedException": "the credentials may not use {table}: allow dynamodb:{operation} on it",
    "ProvisionedThroughputExceededException": "{table} is too busy: run the command again with a lower --rate",
    "ThrottlingException": "{table} is too busy: run the command again with a lower --rate",
    "RequestLimitExceeded": "{table} is too busy: run the command again with a lower --rate",
    "ValidationException": "{table} refused {operation}: {message}",
}


@contextmanager
def _dynamodb_errors(table: str) -> Iterator[None]:
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
