"""``async-relay backfill`` against moto's DynamoDB over HTTP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from async_relay.cli import backfill, tables
from async_relay.cli.app import app
from async_relay.cli.pacing import Pacer
from async_relay.wire.jobs import shard_of

_NUMBERS = itertools.count()
Run = Callable[..., Any]


@pytest.fixture
def dynamodb(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    return botocore.session.Session().create_client("dynamodb", region_name="eu-west-1")


@pytest.fixture
def table(dynamodb: Any) -> Iterator[str]:
    name = f"connections-{next(_NUMBERS)}"
    _make(dynamodb, name, "connectionId")
    yield name
    dynamodb.delete_table(TableName=name)


def _make(dynamodb: Any, name: str, key: str) -> None:
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )


def _put(dynamodb: Any, table: str, connection_id: str, **attributes: Any) -> None:
    dynamodb.put_item(TableName=table, Item={"connectionId": {"S": connection_id}, **attributes})


def _rows(dynamodb: Any, table: str) -> dict[str, Any]:
    return {item["connectionId"]["S"]: item for item in dynamodb.scan(TableName=table)["Items"]}


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["backfill", *arguments])


def test_rows_without_shard_get_it(dynamodb: Any, table: str) -> None:
    """Every row has the shard of its id afterwards, and nothing else of it changes."""
    for at in range(60):
        _put(dynamodb, table, f"c{at}=", clientId={"S": f"k{at}"})
    result = _run("--table", table, "--shards", "8", "--rate", "5000")
    assert result.exit_code == 0, result.output
    assert "60 rows read: 60 without shard, 0 with another; 60 written, 0 deleted meanwhile" in result.output
    for connection_id, item in _rows(dynamodb, table).items():
        assert item["shard"] == {"N": str(shard_of(connection_id, 8))}
        assert item["clientId"]["S"].startswith("k")


def test_rows_with_another_shard_get_theirs(dynamodb: Any, table: str) -> None:
    """A shard of another number, or of another type, is replaced, and one that is right is left alone."""
    _put(dynamodb, table, "a=", shard={"N": str((shard_of("a=", 8) + 1) % 8)})
    _put(dynamodb, table, "b=", shard={"S": str(shard_of("b=", 8))})
    _put(dynamodb, table, "c=", shard={"N": str(shard_of("c=", 8))})
    result = _run("--table", table, "--shards", "8")
    assert "3 rows read: 0 without shard, 2 with another; 2 written" in result.output
    assert all(item["shard"] == {"N": str(shard_of(key, 8))} for key, item in _rows(dynamodb, table).items())


def test_a_second_run_has_nothing_to_do(dynamodb: Any, table: str) -> None:
    """The command can be run again: it writes nothing where all is right."""
    _put(dynamodb, table, "a=")
    _run("--table", table, "--shards", "8")
    result = _run("--table", table, "--shards", "8")
    assert "1 rows read: 0 without shard, 0 with another; 0 written" in result.output


def test_a_dry_run_writes_nothing(dynamodb: Any, table: str) -> None:
    """It says what is missing, and that the sweep must stay on."""
    _put(dynamodb, table, "a=")
    result = _run("--table", table, "--shards", "4", "--dry-run")
    assert result.exit_code == 0
    assert "1 rows read: 1 without shard, 0 with another; nothing is written" in result.output
    assert "CONNECTIONS_INDEX_SWEEP must stay on: an index of 4 shards would miss 1 rows." in result.output
    assert "shard" not in _rows(dynamodb, table)["a="]


def test_a_dry_run_of_a_complete_table_says_so(dynamodb: Any, table: str) -> None:
    """Where nothing is missing, it says what switching the sweep off means."""
    _put(dynamodb, table, "a=", shard={"N": str(shard_of("a=", 4))})
    assert (
        "CONNECTIONS_INDEX_SWEEP=off reads the index instead of the table"
        in _run("--table", table, "--shards", "4", "--dry-run").output
    )


def test_a_row_deleted_meanwhile_stays_deleted(dynamodb: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the read and the write a client may leave, and its row must not come back."""
    for name in ("a=", "b="):
        _put(dynamodb, table, name)
    real = backfill.Rows._update

    def update(rows: backfill.Rows, connection_id: str, shard: dict[str, str]) -> bool:
        if connection_id == "a=":
            dynamodb.delete_item(TableName=table, Key={"connectionId": {"S": "a="}})
        return real(rows, connection_id, shard)

    monkeypatch.setattr(backfill.Rows, "_update", update)
    result = _run("--table", table, "--shards", "8")
    assert result.exit_code == 0
    assert "1 written, 1 deleted meanwhile" in result.output
    assert set(_rows(dynamodb, table)) == {"b="}


def test_table_and_shards_come_from_the_environment(dynamodb: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions' own variables serve as well."""
    _put(dynamodb, table, "a=")
    monkeypatch.setenv("CONNECTIONS_TABLE", table)
    monkeypatch.setenv("FANOUT_SHARDS", "3")
    assert _run().exit_code == 0
    assert _rows(dynamodb, table)["a="]["shard"] == {"N": str(shard_of("a=", 3))}


def test_pages_are_followed(dynamodb: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment of several pages is read to its end."""
    for at in range(30):
        _put(dynamodb, table, f"c{at}=")
    monkeypatch.setattr(backfill, "_SEGMENTS", 2)
    connect = tables.connect

    def short_pages(name: str, *, connections: int) -> Any:
        client = connect(name, connections=connections)
        scan = client.scan
        client.scan = lambda **options: scan(**options, Limit=4)
        return client

    monkeypatch.setattr(tables, "connect", short_pages)
    assert "30 rows read: 30 without shard" in _run("--table", table, "--shards", "8").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--shards", "8"], "no table: give --table or CONNECTIONS_TABLE"),
        (["--table", "?", "--shards", "8"], "--table or CONNECTIONS_TABLE is '?'; it must be a DynamoDB table's name"),
        (["--table", "t-1"], "no number of shards: give --shards or FANOUT_SHARDS"),
        (["--table", "t-1", "--shards", "0"], "Invalid value for '--shards'"),
        (["--table", "t-1", "--shards", "1001"], "Invalid value for '--shards'"),
        (["--table", "t-1", "--shards", "²"], "Invalid value for '--shards'"),
        (["--table", "t-1", "--shards", "8", "--rate", "-1"], "Invalid value for '--rate'"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """What is called wrongly ends with exit code 2 and one sentence."""
    result = _run(*arguments)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: {sentence}")


def test_no_such_table_is_one_sentence(dynamodb: Any) -> None:
    """A table that is not there ends with exit code 1."""
    del dynamodb
    result = _run("--table", "nothing-here", "--shards", "8")
    assert result.exit_code == 1
    assert result.output == "Error: there is no table nothing-here: check the name, the account and the region\n"


def test_another_table_is_refused(dynamodb: Any) -> None:
    """A table with another key is no connections table, and stays as it is."""
    _make(dynamodb, "incidents-1", "id")
    result = _run("--table", "incidents-1", "--shards", "8")
    dynamodb.delete_table(TableName="incidents-1")
    assert result.exit_code == 1
    assert "incidents-1 is not a connections table: its key is id, not connectionId" in result.output


def test_an_error_stops_all_and_says_what_was_done(dynamodb: Any, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused write ends the command with its sentence, after the summary."""
    for at in range(20):
        _put(dynamodb, table, f"c{at}=")
    connect = tables.connect

    def refusing(name: str, *, connections: int) -> Any:
        client = connect(name, connections=connections)
        details = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}

        def update_item(**_options: Any) -> None:
            raise ClientError(details, "UpdateItem")  # type: ignore[arg-type]

        client.update_item = update_item
        return client

    monkeypatch.setattr(tables, "connect", refusing)
    result = _run("--table", table, "--shards", "8")
    assert result.exit_code == 1
    assert "0 written" in result.output
    assert f"the credentials may not use {table}: allow dynamodb:UpdateItem on it" in result.output
    assert "CONNECTIONS_INDEX_SWEEP" not in result.output


def test_the_pace_is_kept() -> None:
    """So many turns take at least their time, whoever takes them."""
    pacer = Pacer(200.0)
    began = time.monotonic()
    for _ in range(21):
        pacer.wait()
    assert time.monotonic() - began >= 0.1
