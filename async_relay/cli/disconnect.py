"""``async-relay disconnect``: close somebody's connections now, and delete their rows.

Rules
- Whose connections those are the table says, read consistently to its end. A connection that is named is closed
  whether it has a row or not.
- How each is closed, and when its row goes, is in ``closing``.
- It closes connections, not the door: nothing here makes a token worthless.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from async_relay.errors import SettingsError
from async_relay.settings import Settings
from async_relay.wire.rows import END_OF_TIME

from . import screen, tables
from .account import with_account
from .closing import THREADS, Closing, Found, connect
from .failure import USAGE, CommandError
from .pacing import Pacer
from .tables import KEY

_READ = (KEY, "principal", "createdAt", "expiresAt")


@screen.report_errors
@with_account
def disconnect(
    *,
    table: tables.Name = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", envvar="WS_ENDPOINT", metavar="URL", help="Where the functions post: https://…"),
    ] = None,
    principal: Annotated[
        str | None, typer.Option("--principal", metavar="P", help="Whoever's token had this subject.")
    ] = None,
    connection: Annotated[
        list[str] | None, typer.Option("--connection", metavar="ID", help="This connection; may be repeated.")
    ] = None,
    anonymous: Annotated[bool, typer.Option("--anonymous", help="Whoever came without a token.")] = False,
    everybody: Annotated[bool, typer.Option("--everybody", help="Every connection in the table.")] = False,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, max=10_000, help="Connections closed per second, at most.")
    ] = 500,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Close somebody's connections now. A token that is still good lets them in again: disable it first."""
    whom = _whom(principal, connection or [], anonymous=anonymous, everybody=everybody)
    table, endpoint = _checked(table, endpoint)
    rows = tables.connect(table, connections=THREADS)
    tables.check(rows, table)
    found = list(_find(rows, table, whom))
    _say_what_it_means(whom, found)
    if not found:
        return
    if dry_run:
        for each in found:
            screen.say(f"{each.connection_id}  would be closed{each.description}")
        screen.say(f"Would close {_connections(len(found))}.")
        return
    screen.confirm(f"Close {_connections(len(found))}?", len(found), yes=yes)
    closing = Closing(rows, table, connect(endpoint), endpoint, Pacer(rate))
    try:
        closing.close(found)
    finally:
        screen.say(closing.summary(len(found)))
    closing.check()


@dataclass(frozen=True, slots=True)
class Whom:
    """Whose connections are meant: a principal's, these, those without one, or (nothing of it) everybody's."""

    principal: str | None = None
    connections: tuple[str, ...] = ()
    anonymous: bool = False

    def filter(self) -> dict[str, Any]:
        """What a Scan needs to find them."""
        if self.anonymous:
            return {"FilterExpression": "attribute_not_exists(#principal)"}
        if self.principal is None:
            return {}
        return {
            "FilterExpression": "#principal = :principal",
            "ExpressionAttributeValues": {":principal": {"S": self.principal}},
        }


def _whom(principal: str | None, connections: Sequence[str], *, anonymous: bool, everybody: bool) -> Whom:
    ways = (principal is not None) + bool(connections) + anonymous + everybody
    if ways == 0:
        raise CommandError("nobody is chosen: give --principal, --connection, --anonymous or --everybody", USAGE)
    if ways > 1:
        raise CommandError(
            "--principal, --connection, --anonymous and --everybody exclude each other: give one of them", USAGE
        )
    if principal == "" or "" in connections:
        raise CommandError(f"{'--principal' if principal == '' else '--connection'} is empty: name one", USAGE)
    return Whom(principal, tuple(dict.fromkeys(connections)), anonymous)


def _checked(table: str | None, endpoint: str | None) -> tuple[str, str]:
    """Both as the functions' settings would have them; raises ``CommandError``."""
    table = tables.named(table)
    if not endpoint or not endpoint.strip():
        raise CommandError("no endpoint: give --endpoint or WS_ENDPOINT", USAGE)
    try:
        settings = Settings.from_env({"WS_ENDPOINT": endpoint, "CONNECTIONS_TABLE": table})
    except SettingsError as error:
        raise CommandError(f"--endpoint or {error}", USAGE) from None
    return table, settings.ws_endpoint


def _find(client: Any, table: str, whom: Whom) -> Iterator[Found]:
    """The connections that are meant, once each; those named that have no row too."""
    if whom.connections:
        for connection_id in whom.connections:
            with tables.errors(table):
                answer = client.get_item(TableName=table, Key={KEY: {"S": connection_id}}, ConsistentRead=True)
            yield _found({**answer.get("Item", {}), KEY: {"S": connection_id}})
        return
    after: dict[str, Any] = {}
    while True:
        with tables.errors(table):
            page = client.scan(
                TableName=table,
                ConsistentRead=True,
                ProjectionExpression=", ".join(f"#{name}" for name in _READ),
                ExpressionAttributeNames={f"#{name}": name for name in _READ},
                **whom.filter(),
                **after,
            )
        yield from map(_found, page["Items"])
        if "LastEvaluatedKey" not in page:
            return
        after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _found(item: dict[str, Any]) -> Found:
    expires_at = tables.whole(item.get("expiresAt"))
    return Found(
        item[KEY]["S"],
        tables.whole(item.get("createdAt")),
        None if expires_at is None or expires_at > END_OF_TIME else expires_at,
    )


def _say_what_it_means(whom: Whom, found: Sequence[Found]) -> None:
    """Who is found, and whether closing keeps them out."""
    if not found:
        screen.say("Nobody who is chosen is connected.")
        return
    if whom.anonymous:
        screen.say(
            "Nothing in the table says who they are: unless AuthMode has changed since, they come back as they came."
        )
        return
    screen.say(
        "A token that is still good lets them in again: first disable whoever it is at the issuer, so that they get no "
        "new one."
    )
    last = max((each.expires_at or 0 for each in found), default=0)
    if last > time.time():
        screen.say(
            f"Those they came with are good until {screen.clock(last * 1_000)} at the latest: run this again then."
        )


def _connections(number: int) -> str:
    return f"{number:,} connection{'' if number == 1 else 's'}"
