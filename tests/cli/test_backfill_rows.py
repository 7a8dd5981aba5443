"""``async-relay backfill``, request by request: how the table is read, what is written, and at what pace."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from async_relay.cli import backfill
from async_relay.cli.failure import CommandError
from async_relay.cli.pacing import Pacer
from async_relay.wire.jobs import shard_of


class Conflict(Exception):
    """The row is gone."""


class Table:
    """Pages by segment, the first for the start; ``written`` are the updates."""

    class exceptions:  # noqa: N801 - botocore's name
        ConditionalCheckFailedException = Conflict

    def __init__(self, *pages: list[dict[str, Any]], gone: tuple[str, ...] = (), broken: int | None = None) -> None:
        self.pages = pages or ([],)
        self.gone = gone
        self.broken = broken
        self.scans: list[dict[str, Any]] = []
        self.written: list[dict[str, Any]] = []

    def scan(self, **request: Any) -> dict[str, Any]:
        self.scans.append(request)
        if request["Segment"] == self.broken:
            raise ValueError("no such table")
        at = request.get("ExclusiveStartKey", {"at": 0})["at"]
        last = {} if at + 1 == len(self.pages) else {"LastEvaluatedKey": {"at": at + 1}}
        return {"Items": self.pages[at] if request["Segment"] == 0 else [], **last}

    def update_item(self, **request: Any) -> None:
        self.written.append(request)
        if request["Key"]["connectionId"]["S"] in self.gone:
            raise Conflict

    def names(self) -> list[str]:
        return [request["Key"]["connectionId"]["S"] for request in self.written]


def row(name: str, shard: int | None = None) -> dict[str, Any]:
    return {"connectionId": {"S": name}} | ({} if shard is None else {"shard": {"N": str(shard)}})


def rows_of(table: Table, *, write: bool = True, rate: float = 1e6) -> backfill.Rows:
    return backfill.Rows(table, "connections", 8, Pacer(rate), write=write)


def test_the_table_is_read_consistently_segment_by_segment() -> None:
    """Every page of it, also those behind an empty one; only the key and the shard."""
    table = Table([row("a=")], [], [row("b=")])
    rows, advanced = rows_of(table), list[int]()
    rows.fill(0, advanced.append)
    assert table.names() == ["a=", "b="]
    assert advanced == [1, 0, 1]
    assert [scan.get("ExclusiveStartKey") for scan in table.scans] == [None, {"at": 1}, {"at": 2}]
    for scan in table.scans:
        assert (scan["ConsistentRead"], scan["Segment"], scan["TotalSegments"]) == (True, 0, backfill._SEGMENTS)
        assert scan["ProjectionExpression"] == "connectionId, #shard"


def test_a_row_is_written_where_its_shard_is_not_what_it_must_be() -> None:
    """And only while it is there: each is counted as what it was and what became of it."""
    right = shard_of("right=", 8)
    table = Table([row("right=", right), row("wrong=", 9), row("bare="), row("gone=")], gone=("gone=",))
    rows = rows_of(table)
    rows.fill(0, lambda _count: None)
    assert table.names() == ["wrong=", "bare=", "gone="]
    assert (rows.read, rows.lacking, rows.wrong, rows.written, rows.gone) == (4, 2, 1, 2, 1)
    assert table.written[0] == {
        "TableName": "connections",
        "Key": {"connectionId": {"S": "wrong="}},
        "UpdateExpression": "SET #shard = :shard",
        "ConditionExpression": "attribute_exists(connectionId)",
        "ExpressionAttributeNames": {"#shard": "shard"},
        "ExpressionAttributeValues": {":shard": {"N": str(shard_of("wrong=", 8))}},
    }


def test_a_dry_run_counts_all_that_would_be_missed() -> None:
    """Rows without a shard and rows with another's; nothing is written."""
    table = Table([row("a="), row("b=", 9)])
    rows = rows_of(table, write=False)
    backfill._run(rows, 2)
    assert (table.written, rows.lacking, rows.wrong) == ([], 1, 1)
    assert "would miss 2 rows" in backfill._meaning(rows, dry_run=True)


def test_every_segment_is_read() -> None:
    table = Table()
    backfill._run(rows_of(table), 0)
    assert sorted(scan["Segment"] for scan in table.scans) == list(range(8))


def test_an_error_stops_all_segments_and_is_told() -> None:
    """One cannot be read: the others write no more, and the command ends with its sentence."""
    table = Table([row("a=")], broken=3)
    rows = rows_of(table)
    with pytest.raises(CommandError, match="no such table"):
        backfill._run(rows, 0)
    assert rows.stopped.is_set()
    table.written.clear()
    rows.fill(0, lambda _count: None)
    assert table.written == []


def test_threads_share_the_rate() -> None:
    """Five threads at once, a hundred turns a second: twenty-five turns take a quarter of a second."""
    pacer = Pacer(100.0)
    began = time.monotonic()

    def wait() -> None:
        for _ in range(5):
            pacer.wait()

    threads = [threading.Thread(target=wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.24 <= time.monotonic() - began < 2


def test_another_table_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key tells; a connections table says about how many rows it has."""
    table: Any = Table()
    for key, count in (("connectionId", 17), ("id", None)):
        description = {"KeySchema": [{"AttributeName": key}], "ItemCount": 17}
        monkeypatch.setattr(
            table, "describe_table", lambda described=description, **_: {"Table": described}, raising=False
        )
        if count is None:
            with pytest.raises(CommandError, match="its key is id, not connectionId"):
                rows_of(table).check()
        else:
            assert rows_of(table).check() == count
