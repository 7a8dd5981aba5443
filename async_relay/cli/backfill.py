"""``async-relay backfill``: write ``shard`` to the rows that lack it, so that an index has every row.

Rules
- A row is written only while it is there: one that is deleted meanwhile stays deleted.
- Only ``shard`` is written, and only where it is not what it must be, so the command can be stopped
  and run again at any time, beside a relay at work.
- Every row that is there from beginning to end is read (a consistent parallel Scan). One that another
  writer makes meanwhile without ``shard`` is not: first every writer, then this.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from async_relay.wire.jobs import shard_of

from . import screen, tables
from .account import with_account
from .failure import USAGE, CommandError
from .pacing import Pacer
from .tables import KEY

#: Parts of the table that are scanned side by side, each by a thread with a connection of its own; --rate bounds the
#: writes of all of them together.
_SEGMENTS = 8


@screen.report_errors
@with_account
def backfill(
    *,
    table: tables.Name = None,
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
    """Write shard to the rows that lack it, for an index. A row that has another is corrected."""
    table = tables.named(table)
    if shards is None:
        raise CommandError("no number of shards: give --shards or FANOUT_SHARDS", USAGE)
    rows = Rows(tables.connect(table, connections=_SEGMENTS), table, shards, Pacer(rate), write=not dry_run)
    total = rows.check()
    try:
        _run(rows, total)
    finally:
        _summary(rows, dry_run=dry_run)
    screen.say(_meaning(rows, dry_run=dry_run))


@dataclass(slots=True)
class Rows:
    """The rows of a connections table, and what was found and done."""

    client: Any
    table: str
    shards: int
    pacer: Pacer
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
        return tables.check(self.client, self.table)

    def fill(self, segment: int, advance: Callable[[int], None]) -> None:
        """Read one segment of the table and write what it lacks."""
        after: dict[str, Any] = {}
        while not self.stopped.is_set():
            with tables.errors(self.table):
                page = self.client.scan(
                    TableName=self.table,
                    ConsistentRead=True,
                    Segment=segment,
                    TotalSegments=_SEGMENTS,
                    ProjectionExpression=f"{KEY}, #shard",
                    ExpressionAttributeNames={"#shard": "shard"},
                    **after,
                )
            for item in page["Items"]:
                self._fill_row(item[KEY]["S"], item.get("shard"))
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
        with tables.errors(self.table):
            try:
                self.client.update_item(
                    TableName=self.table,
                    Key={KEY: {"S": connection_id}},
                    UpdateExpression="SET #shard = :shard",
                    ConditionExpression=f"attribute_exists({KEY})",
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
