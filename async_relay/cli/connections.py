"""``async-relay connections``: how many connections there are, by age, principal and tenant. It changes nothing.

Rules
- What is counted are rows. A connection that ended without a word keeps its row until the next message finds nobody,
  or ``ttl`` takes it; the oldest ages are of such rows, since API Gateway ends every connection after two hours.
- The Scan asks for the attributes that are counted, so whatever else a row holds is not even read into memory here.
- It is read eventually consistently, at half the price: a count is old in a second anyway.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from . import screen, tables
from .account import with_account
from .tables import KEY

#: Upper ends of the ages, in milliseconds.
_MINUTE = 60_000
_AGES = {
    "under a minute": _MINUTE,
    "1 to 10 minutes": 10 * _MINUTE,
    "10 to 60 minutes": 60 * _MINUTE,
    "1 to 2 hours": 120 * _MINUTE,
}
_ENDED = "over 2 hours"
_UNKNOWN = "unknown"
_READ = ("createdAt", "expiresAt", "principal", "tenants")


@screen.report_errors
@with_account
def connections(
    *,
    table: tables.Name = None,
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=1, max=1_000_000, help="So many principals and tenants, at most.")
    ] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Count the connections by age, principal and tenant. Reads the whole table."""
    table = tables.named(table)
    rows = tables.connect(table, connections=1)
    expected = tables.check(rows, table)
    census = Census(int(time.time() * 1_000))
    with screen.progress("Reading", expected) as advance:
        for row in _scan(rows, table):
            census.count(row)
            advance()
    if as_json:
        print(json.dumps(census.fields(top), indent=2))
    else:
        _print(census, top)


@dataclass(slots=True)
class Census:
    """The counts; ``now`` in milliseconds since 1970."""

    now: int
    rows: int = 0
    expired: int = 0
    anonymous: int = 0
    tenantless: int = 0
    ages: Counter[str] = field(default_factory=Counter)
    principals: Counter[str] = field(default_factory=Counter)
    tenants: Counter[str] = field(default_factory=Counter)

    def count(self, row: Mapping[str, Any]) -> None:
        """Count one row as DynamoDB returns it; what cannot be read counts as not there."""
        self.rows += 1
        self.ages[self._age(row.get("createdAt"))] += 1
        expires_at = tables.whole(row.get("expiresAt"))
        self.expired += expires_at is not None and expires_at * 1_000 <= self.now
        principal = row.get("principal", {}).get("S", "")
        if principal:
            self.principals[principal] += 1
        else:
            self.anonymous += 1
        tenants = row.get("tenants", {}).get("SS", [])
        self.tenants.update(tenants)
        self.tenantless += not tenants

    def _age(self, created_at: Any) -> str:
        since = tables.whole(created_at)
        if since is None:
            return _UNKNOWN
        return next((name for name, end in _AGES.items() if self.now - since < end), _ENDED)

    def fields(self, top: int) -> dict[str, Any]:
        """The counts for JSON; of principals and tenants those with the most connections."""
        return {
            "connections": self.rows,
            "expired": self.expired,
            "ages": {name: self.ages[name] for name in (*_AGES, _ENDED, _UNKNOWN)},
            "principals": {"count": len(self.principals), "without": self.anonymous, "top": _top(self.principals, top)},
            "tenants": {"count": len(self.tenants), "without": self.tenantless, "top": _top(self.tenants, top)},
        }


def _scan(client: Any, table: str) -> Iterator[dict[str, Any]]:
    after: dict[str, Any] = {}
    while True:
        with tables.errors(table):
            page = client.scan(
                TableName=table,
                ProjectionExpression=", ".join(f"#{name}" for name in (KEY, *_READ)),
                ExpressionAttributeNames={f"#{name}": name for name in (KEY, *_READ)},
                **after,
            )
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _top(counts: Counter[str], number: int) -> list[dict[str, Any]]:
    return [{"name": name, "connections": count} for name, count in _sorted(counts)[:number]]


def _sorted(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most first, and equals by name."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))


def _print(census: Census, top: int) -> None:
    screen.say(f"{_number(census.rows, 'connection')}; the token of {census.expired:,} has ended.")
    if not census.rows:
        return
    _table("Age", ((name, census.ages[name]) for name in (*_AGES, _ENDED, _UNKNOWN) if census.ages[name]))
    if census.ages[_ENDED]:
        screen.say(f"API Gateway ends a connection after 2 hours: {census.ages[_ENDED]:,} rows are of such.")
    _ranking("principal", census.principals, census.anonymous, top)
    _ranking("tenant", census.tenants, census.tenantless, top)


def _ranking(noun: str, counts: Counter[str], without: int, top: int) -> None:
    if counts:
        _table(noun.capitalize(), _sorted(counts)[:top])
    more = f"; the table shows the first {top:,}" if len(counts) > top else ""
    screen.say(f"{_number(len(counts), noun)}, and {_number(without, 'connection')} without one{more}.")


def _table(title: str, rows: Iterable[tuple[str, int]]) -> None:
    table = Table(pad_edge=False)
    table.add_column(Text(title), overflow="fold")
    table.add_column(Text("Connections"), justify="right", no_wrap=True)
    for name, count in rows:
        table.add_row(Text(screen.cut(name)), Text(f"{count:,}"))
    screen.stdout().print(table)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
