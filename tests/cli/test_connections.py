"""``async-relay connections`` against moto's DynamoDB."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from typer.testing import CliRunner

from async_relay.cli import account, connections, tables
from async_relay.cli.app import app
from async_relay.cli.connections import Census

_NUMBERS = itertools.count()
MINUTE = 60_000


@dataclass
class Place:
    """A connections table, and the command run on it."""

    dynamodb: Any
    table: str

    def row(self, **attributes: Any) -> None:
        item = {"connectionId": {"S": f"c{next(_NUMBERS)}="}, **attributes}
        self.dynamodb.put_item(TableName=self.table, Item=item)

    def run(self, *arguments: str, columns: int = 80) -> Any:
        words = ["connections", "--table", self.table, *arguments]
        return CliRunner().invoke(app, words, env={"COLUMNS": str(columns)})


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """The client that all tests share."""
    return {}


@pytest.fixture
def place(moto_url: str, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    client = account.client
    monkeypatch.setattr(account, "client", lambda *given: made.setdefault("it", made.get("it") or client(*given)))
    dynamodb = tables.connect("any", connections=1)
    name = f"counted-{next(_NUMBERS)}"
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "connectionId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield Place(dynamodb, name)
    dynamodb.delete_table(TableName=name)


def ago(milliseconds: int) -> dict[str, str]:
    return {"N": str(int(time.time() * 1_000) - milliseconds)}


def test_it_counts_by_age_principal_and_tenant(place: Place) -> None:
    """And says how many have neither; the most come first, and equals by name."""
    soon = {"N": str(int(time.time()) + 600)}
    place.row(createdAt=ago(1_000), principal={"S": "alice"}, tenants={"SS": ["acme", "globex"]})
    place.row(createdAt=ago(5 * MINUTE), principal={"S": "alice"}, tenants={"SS": ["acme"]}, expiresAt=soon)
    place.row(createdAt=ago(200 * MINUTE), principal={"S": "bob"}, expiresAt={"N": "1000"})
    place.row()
    result = place.run("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.output) == {
        "connections": 4,
        "expired": 1,
        "ages": {
            "under a minute": 1,
            "1 to 10 minutes": 1,
            "10 to 60 minutes": 0,
            "1 to 2 hours": 0,
            "over 2 hours": 1,
            "unknown": 1,
        },
        "principals": {
            "count": 2,
            "without": 1,
            "top": [{"name": "alice", "connections": 2}, {"name": "bob", "connections": 1}],
        },
        "tenants": {
            "count": 2,
            "without": 2,
            "top": [{"name": "acme", "connections": 2}, {"name": "globex", "connections": 1}],
        },
    }
    (first,) = json.loads(place.run("--json", "--top", "1").output)["tenants"]["top"]
    assert first["name"] == "acme"


def test_the_tables_say_the_same(place: Place) -> None:
    """With a sentence for what needs one."""
    for name in ("alice", "alice", "bob"):
        place.row(createdAt=ago(200 * MINUTE), principal={"S": name}, tenants={"SS": ["acme"]})
    lines = [line.strip("│ ").split() for line in place.run().output.splitlines()]
    assert ["alice", "│", "2"] in lines
    assert ["bob", "│", "1"] in lines
    assert ["acme", "│", "3"] in lines
    assert ["over", "2", "hours", "│", "3"] in lines
    output = place.run("--top", "1").output
    assert "3 connections; the token of 0 has ended." in output
    assert "API Gateway ends a connection after 2 hours: 3 rows are of such." in output
    assert "2 principals, and 0 connections without one; the table shows the first 1." in output
    assert "1 tenant, and 0 connections without one." in output
    assert "bob" not in output


def test_nobody_is_a_number_too(place: Place) -> None:
    """An empty table needs no tables."""
    assert place.run().output == "0 connections; the token of 0 has ended.\n"


def test_it_is_no_secret_what_is_shown(place: Place) -> None:
    """Neither a token that somebody's function wrote beside a row, nor connection ids, with which one could post."""
    secrets = {"accessToken": {"S": "eyJhbGciOi"}, "clientId": {"S": "eyJjbGllbnQ"}, "token": {"S": "eyJ0b2tlbg"}}
    place.row(principal={"S": "alice"}, **secrets)
    (item,) = place.dynamodb.scan(TableName=place.table)["Items"]
    for output in (place.run().output, place.run("--json", "--top", "1000").output):
        assert "alice" in output
        assert "eyJ" not in output
        assert item["connectionId"]["S"] not in output
    assert not {*secrets, "interest"} & set(connections._READ)


def test_it_changes_nothing_and_asks_for_what_it_counts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans and one description; nothing else is called."""
    place.row(principal={"S": "alice"})
    calls: list[tuple[str, Any]] = []
    call = place.dynamodb._make_api_call

    def noted(operation: str, options: Any) -> Any:
        calls.append((operation, options))
        return call(operation, options)

    monkeypatch.setattr(place.dynamodb, "_make_api_call", noted)
    place.run()
    assert [operation for operation, _ in calls] == ["DescribeTable", "Scan"]
    assert set(calls[1][1]["ExpressionAttributeNames"].values()) == {
        *("connectionId", "createdAt", "expiresAt", "principal", "tenants")
    }


def test_pages_are_followed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of several pages is counted to its end."""
    for _ in range(5):
        place.row()
    scan = place.dynamodb.scan
    monkeypatch.setattr(place.dynamodb, "scan", lambda **options: scan(**options, Limit=2))
    assert "5 connections;" in place.run().output


def test_hostile_names_are_shown_and_not_obeyed(place: Place) -> None:
    """No control character, no markup, nothing that runs backwards reaches the terminal."""
    for name in ("\x1b[2Jmallory", "[red]eve[/red]", "\u202eadmin", "a\nbob"):
        place.row(principal={"S": name}, tenants={"SS": [name]})
    text = place.run().output
    for shown in ("\\u001b[2Jmallory", "[red]eve[/red]", "\\u202eadmin", "a\\u000abob"):
        assert text.count(shown) == 2
    assert not set("\x1b\u202e") & set(text)
    assert all(" " <= char <= "~" or char == "\n" for char in place.run("--json").output)


def test_eighty_columns_are_enough(place: Place) -> None:
    """For names of any length: a longer one is cut and says so."""
    place.row(principal={"S": "p" * 64}, tenants={"SS": ["t" * 2_000]}, createdAt=ago(1))
    output = place.run().output
    assert max(map(len, output.splitlines())) <= 80
    assert "p" * 64 in output
    assert "t" * 63 + "…" in output


@pytest.mark.parametrize(
    ("age", "name"),
    [
        (-5 * MINUTE, "under a minute"),
        (0, "under a minute"),
        (MINUTE, "1 to 10 minutes"),
        (10 * MINUTE, "10 to 60 minutes"),
        (60 * MINUTE, "1 to 2 hours"),
        (120 * MINUTE, "over 2 hours"),
    ],
)
def test_an_age_belongs_to_one_row(age: int, name: str) -> None:
    """Each begins where the one before ends; a clock that is ahead is no age."""
    census = Census(now=10**12)
    census.count({"createdAt": {"N": str(10**12 - age)}})
    assert census.ages == {name: 1}


def test_odd_rows_are_counted(place: Place) -> None:
    """Other functions write rows too."""
    place.row(createdAt={"S": "now"}, expiresAt={"N": "1e100"}, principal={"N": "7"}, tenants={"S": "acme"})
    place.row(createdAt={"N": "-1"}, principal={"S": ""}, tenants={"NULL": True})
    fields = json.loads(place.run("--json").output)
    assert (fields["connections"], fields["expired"], fields["ages"]["unknown"]) == (2, 0, 2)
    assert (fields["principals"]["without"], fields["tenants"]["without"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--table", " "], "no table: give --table or CONNECTIONS_TABLE"),
        (["--table", "a b"], "--table or CONNECTIONS_TABLE is 'a b'; it must be a DynamoDB table's name"),
        (["--top", "0"], "Invalid value for '--top'"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """Before anything is read."""
    result = CliRunner().invoke(app, ["connections", "--table", "connections", *arguments])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: {sentence}")


def test_another_table_is_refused(place: Place) -> None:
    """One that is not there as well."""
    assert "there is no table nowhere: check the name" in place.run("--table", "nowhere").output
