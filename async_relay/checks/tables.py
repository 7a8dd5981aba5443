"""Connections, feed and incidents: whether each table is as the functions read and write it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..aws.dynamodb import check_index
from ..aws.incidents import partition_key_of
from ..errors import SettingsError
from .deployment import Answer, Deployment, known
from .findings import Finding, note, ok, wrong

CONNECTIONS, FEED, INCIDENTS = "connections table", "feed table", "incident table"
_USABLE = ("ACTIVE", "UPDATING")
_CONNECTIONS_KEY = {"connectionId": ("HASH", "S")}
_FEED_KEY = {"bucket": ("HASH", "S"), "position": ("RANGE", "S")}
_TTL = "ttl"


def connections(deployment: Deployment) -> Iterator[Finding]:
    """It is there, its key is ``connectionId``, rows expire, and the index can be read."""
    name = deployment.setting("connections_table")
    table = known(deployment.connections)
    if table is None:
        yield wrong(
            CONNECTIONS,
            f"There is no table {name}.",
            "No client's row can be written or read, so nobody gets anything and every batch goes back to the stream.",
            "Correct ConnectionsTableName (CONNECTIONS_TABLE), or deploy the stack again so that it makes one.",
        )
        return
    faults = [
        *_status(CONNECTIONS, table, "No client can connect, and nothing is sent."),
        *_keys(
            CONNECTIONS,
            table,
            _CONNECTIONS_KEY,
            "Rows can be neither written nor deleted, so no client is served.",
            "Name a table whose only key is the text connectionId in ConnectionsTableName, or leave it empty.",
        ),
        *_index(deployment, table),
    ]
    yield from faults or [ok(CONNECTIONS, f"{name} has the key connectionId{_indexed(deployment)}.")]


def connections_ttl(deployment: Deployment) -> Iterator[Finding]:
    """Rows whose client never said goodbye are deleted by Time to Live."""
    yield from _ttl(
        deployment.connections_ttl,
        "Rows of clients that left without a word stay until a post to them is answered 410, and cost a read and a "
        "post each time.",
        deployment.setting("connections_table"),
    )


def feed(deployment: Deployment) -> Iterator[Finding]:
    """It is there, with its two keys, and forgets."""
    name = deployment.setting("feed_table")
    if name is None:
        yield note(FEED, "There is no feed, so a client gets what is sent while it is connected and nothing else.")
        return
    table = known(deployment.feed)
    if table is None:
        yield wrong(
            FEED,
            f"There is no table {name}.",
            "A batch is written to the feed before it is sent, so nothing is sent and every batch goes back.",
            "Deploy the stack again, which makes the table, or with Feed=off.",
        )
        return
    faults = [
        *_status(FEED, table, "A batch that cannot be written is not sent, and goes back to the stream."),
        *_keys(
            FEED,
            table,
            _FEED_KEY,
            "A batch that cannot be written is not sent, and goes back to the stream.",
            "Name a table with the text keys bucket and position in FEED_TABLE, or let the stack make it (Feed=on).",
        ),
    ]
    yield from faults or [ok(FEED, f"{name} has the keys bucket and position.")]
    yield from _ttl(deployment.feed_ttl, "The feed grows for ever, and so does its bill.", name)


def incidents(deployment: Deployment) -> Iterator[Finding]:
    """Whatever history is read from is there, and its index is in order."""
    name, index = deployment.setting("incident_table"), deployment.setting("incident_index")
    if name is None:
        yield note(INCIDENTS, "History is not read from a table (INCIDENT_TABLE is not set).")
        return
    table = known(deployment.incidents)
    effect = (
        "A client that subscribes is answered with an error, and its dashboard stays empty until something changes."
    )
    if table is None:
        yield wrong(
            INCIDENTS,
            f"There is no table {name}.",
            effect,
            "Correct IncidentStreamArn (INCIDENT_TABLE), or take history from the feed with History=feed.",
        )
        return
    faults = list(_status(INCIDENTS, table, effect))
    if index is not None:
        try:
            partition_key_of(table, name, index)
        except SettingsError as error:
            faults.append(
                wrong(
                    INCIDENTS,
                    f"{error}.",
                    effect,
                    "Make one as docs/catching-up.md#the-incidents-as-they-are says, or leave IncidentIndex empty.",
                )
            )
    yield from faults or [ok(INCIDENTS, f"{name} can be read{f' by {index}' if index else ''}.")]


def _status(about: str, table: Mapping[str, Any], effect: str) -> Iterator[Finding]:
    status = table["TableStatus"]
    if status not in _USABLE:
        yield wrong(
            about,
            f"The table {table['TableName']} is {status}.",
            effect,
            "Wait until it is ACTIVE; if it stays like this, look at the table in the DynamoDB console.",
        )


def _keys(
    about: str, table: Mapping[str, Any], expected: Mapping[str, tuple[str, str]], effect: str, remedy: str
) -> Iterator[Finding]:
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    keys = {each["AttributeName"]: (each["KeyType"], types[each["AttributeName"]]) for each in table["KeySchema"]}
    if keys != expected:
        yield wrong(
            about, f"The keys of {table['TableName']} are {_shown(keys)}, not {_shown(expected)}.", effect, remedy
        )


def _shown(keys: Mapping[str, tuple[str, str]]) -> str:
    return " and ".join(f"{name} ({kind})" for name, (_, kind) in keys.items())


def _ttl(answer: Answer, effect: str, name: str) -> Iterator[Finding]:
    about = "Time to Live"
    described = known(answer)
    if described is None:  # the finding about the table itself says so
        return
    status, attribute = described["TimeToLiveStatus"], described.get("AttributeName")
    if status in ("ENABLED", "ENABLING") and attribute == _TTL:
        yield ok(about, f"It is on for {name}.")
        return
    is_on = status in ("ENABLED", "ENABLING")
    yield wrong(
        about,
        f"Time to Live of {name} is on the attribute {attribute}, not {_TTL}." if is_on else f"It is off for {name}.",
        effect,
        f"Turn it {'off there, and an hour later ' if is_on else ''}on for {_TTL}, with aws dynamodb "
        f"update-time-to-live --table-name {name} "
        f"--time-to-live-specification Enabled=true,AttributeName={_TTL} or by hand.",
    )


def _index(deployment: Deployment, table: Mapping[str, Any]) -> Iterator[Finding]:
    index = deployment.setting("connections_index")
    if index is None:
        return
    effect = "Functions that are given this index end at their cold start, so nothing is sent and nobody can connect."
    remedy = "Make the index as docs/door.md#an-index-made-before says, or leave ConnectionsIndex empty."
    try:
        check_index(table, table["TableName"], index)
    except SettingsError as error:
        yield wrong(CONNECTIONS, f"{error}.", effect, remedy)
        return
    status = next(each["IndexStatus"] for each in table["GlobalSecondaryIndexes"] if each["IndexName"] == index)
    if status not in _USABLE and not deployment.setting("connections_index_sweep"):
        yield wrong(
            CONNECTIONS,
            f"The index {index} is {status}, and the sweep is off.",
            "Workers read the index, and miss every client that is not in it yet.",
            "Set ConnectionsIndexSweep=on until the index is ACTIVE.",
        )


def _indexed(deployment: Deployment) -> str:
    index = deployment.setting("connections_index")
    return f", and the index {index} is as it must be" if index else ""
