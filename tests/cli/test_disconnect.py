"""``async-relay disconnect`` against moto's DynamoDB and a scripted API Gateway, both over HTTP."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from async_relay.cli import closing, disconnect, tables
from async_relay.cli.app import app
from async_relay.testing import GatewayProcess, gateway_process

_NUMBERS = itertools.count()
#: Long enough that its handshake is over.
_MINUTE = 60


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with gateway_process() as gateway:
        yield gateway


@dataclass
class Place:
    """A connections table and a gateway, and the command run on them."""

    dynamodb: Any
    table: str
    gateway: GatewayProcess

    def row(self, connection_id: str, principal: str | None = None, age: int = _MINUTE, **more: Any) -> None:
        item = {
            "connectionId": {"S": connection_id},
            "createdAt": {"N": str(int(time.time() - age) * 1_000)},
            **({} if principal is None else {"principal": {"S": principal}}),
            **more,
        }
        self.dynamodb.put_item(TableName=self.table, Item=item)

    def rows(self) -> set[str]:
        return {item["connectionId"]["S"] for item in self.dynamodb.scan(TableName=self.table)["Items"]}

    def run(self, *arguments: str, answer: str = "") -> Any:
        where = ["--table", self.table, "--endpoint", self.gateway.endpoint]
        return CliRunner().invoke(app, ["disconnect", *where, *arguments], input=answer)

    def is_connected(self, connection_id: str) -> bool:
        client = closing.connect(self.gateway.endpoint)
        with suppress(ClientError):
            client.get_connection(ConnectionId=connection_id)
            return True
        return False


@pytest.fixture
def place(moto_url: str, gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    dynamodb: Any = botocore.session.Session().create_client("dynamodb", region_name="eu-west-1")
    name = f"disconnect-{next(_NUMBERS)}"
    dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "connectionId", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "connectionId", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield Place(dynamodb, name, gateway)
    dynamodb.delete_table(TableName=name)


@pytest.fixture
def names() -> Iterator[str]:
    """Connection ids that no other test has: the gateway is theirs together."""
    return (f"c{next(_NUMBERS)}=" for _ in itertools.count())


def test_a_principal_is_logged_out_everywhere_and_nobody_else(place: Place, names: Iterator[str]) -> None:
    """All connections of that principal are closed and their rows deleted; whose name only begins alike stays."""
    one, two, other, anonymous = itertools.islice(names, 4)
    place.row(one, "alice")
    place.row(two, "alice")
    place.row(other, "alice2")
    place.row(anonymous)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 0, result.output
    assert "Closed 2 of 2; 0 were gone already, 0 failed, 0 not tried." in result.output
    assert [place.is_connected(each) for each in (one, two, other, anonymous)] == [False, False, True, True]
    assert place.rows() == {other, anonymous}


def test_who_came_without_a_token_is_logged_out(place: Place, names: Iterator[str]) -> None:
    """``--anonymous`` means the rows without a principal, and says that nothing keeps them out."""
    anonymous, alice = itertools.islice(names, 2)
    place.row(anonymous)
    place.row(alice, "alice")
    result = place.run("--anonymous", "--yes")
    assert result.exit_code == 0
    assert "unless AuthMode has changed since, they come back as they came" in result.output
    assert place.rows() == {alice}


def test_everybody_is_logged_out(place: Place, names: Iterator[str]) -> None:
    """``--everybody`` empties the table."""
    for at, name in enumerate(itertools.islice(names, 25)):
        place.row(name, f"p{at}" if at % 2 else None)
    result = place.run("--everybody", "--yes", "--rate", "5000")
    assert "Closed 25 of 25" in result.output
    assert place.rows() == set()


def test_a_connection_that_is_named_is_closed_with_or_without_a_row(place: Place, names: Iterator[str]) -> None:
    """Its row may have expired long before it; a name given twice counts once."""
    with_row, without, other = itertools.islice(names, 3)
    place.row(with_row, "alice")
    place.row(other, "alice")
    result = place.run("--connection", with_row, "--connection", without, "--connection", with_row, "--yes")
    assert result.exit_code == 0, result.output
    assert "Closed 2 of 2" in result.output
    assert not place.is_connected(without)
    assert place.rows() == {other}


def test_pages_are_followed(place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of several pages is read to its end, also behind pages on which nobody is meant."""
    for at, name in enumerate(itertools.islice(names, 12)):
        place.row(name, "alice" if at % 3 == 0 else "bob")
    connect = tables.connect

    def short_pages(name: str, *, connections: int) -> Any:
        client = connect(name, connections=connections)
        scan = client.scan
        client.scan = lambda **options: scan(**options, Limit=2)
        return client

    monkeypatch.setattr(tables, "connect", short_pages)
    assert "Closed 4 of 4" in place.run("--principal", "alice", "--yes").output


def test_the_table_is_read_consistently(place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connected a moment ago is found too."""
    place.row(next(names), "alice")
    asked: list[bool] = []
    connect = tables.connect

    def noted(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(**options: Any) -> Any:
            asked.append(options["ConsistentRead"])
            return call(**options)

        return calling

    def listening(name: str, *, connections: int) -> Any:
        client = connect(name, connections=connections)
        for operation in ("scan", "get_item"):
            setattr(client, operation, noted(getattr(client, operation)))
        return client

    monkeypatch.setattr(tables, "connect", listening)
    place.run("--principal", "alice", "--dry-run")
    place.run("--connection", "x=", "--dry-run")
    assert asked == [True, True]


def test_it_says_that_a_good_token_opens_the_door_again(place: Place, names: Iterator[str]) -> None:
    """And until when, as far as the rows know; where all have expired it needs no date."""
    ends = int(time.time()) + 600
    place.row(next(names), "alice", expiresAt={"N": str(ends)})
    place.row(next(names), "alice", expiresAt={"N": str(ends - 300)})
    place.row(next(names), "alice")
    output = place.run("--principal", "alice", "--dry-run").output
    assert "A token that is still good lets them in again: first disable whoever it is at the issuer" in output
    assert f"good until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(ends))} at the latest" in output
    place.row(next(names), "bob", expiresAt={"N": "1000"})
    assert "at the latest" not in place.run("--principal", "bob", "--dry-run").output


def test_a_dry_run_closes_nobody(place: Place, names: Iterator[str]) -> None:
    """It names each connection, and asks nothing."""
    name = next(names)
    place.row(name, "alice", expiresAt={"N": "1700000000"})
    result = place.run("--principal", "alice", "--dry-run")
    assert result.exit_code == 0
    assert f"{name}  would be closed, connected 20" in result.output
    assert "token until 2023-11-14T22:13:20Z" in result.output
    assert "Would close 1 connection." in result.output
    assert place.is_connected(name)
    assert place.rows() == {name}


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_done(place: Place, names: Iterator[str], answer: str) -> None:
    """The question says how many connections there are."""
    name = next(names)
    place.row(name, "alice")
    result = place.run("--principal", "alice", answer=answer)
    assert result.exit_code == 1
    assert "Close 1 connection? [y/N]" in result.output
    assert "not confirmed, so nothing was done" in result.output
    assert place.is_connected(name)


def test_a_yes_is_enough(place: Place, names: Iterator[str]) -> None:
    place.row(next(names), "alice")
    assert place.run("--principal", "alice", answer="y\n").exit_code == 0
    assert place.rows() == set()


def test_nobody_found_is_no_failure(place: Place, names: Iterator[str]) -> None:
    """Nothing is asked where there is nothing to do."""
    place.row(next(names), "alice")
    result = place.run("--principal", "nobody")
    assert (result.exit_code, result.output) == (0, "Nobody who is chosen is connected.\n")


def test_the_rows_of_those_who_had_left_go_too(place: Place, names: Iterator[str]) -> None:
    """Once one connection was closed, a 410 is known to mean what it says."""
    here, left = itertools.islice(names, 2)
    place.row(here, "alice")
    place.row(left, "alice")
    place.gateway.play(410, left)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 0
    assert "Closed 1 of 2; 1 were gone already" in result.output
    assert place.rows() == set()


def test_an_endpoint_that_knows_nobody_costs_no_row(place: Place, names: Iterator[str]) -> None:
    """Another API answers 410 to every id: the rows stay, and so does the word of what may be wrong."""
    left = set(itertools.islice(names, 3))
    for each in left:
        place.row(each, "alice")
        place.gateway.play(410, each)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 1
    assert f"{place.gateway.endpoint} knows none of them, so it may be another API's" in result.output
    assert place.rows() == left


def test_a_young_connection_does_not_hide_that_the_endpoint_knows_nobody(place: Place, names: Iterator[str]) -> None:
    """It counts as failed, and the others as gone: that none was closed is still said."""
    left, young = itertools.islice(names, 2)
    place.row(left, "alice")
    place.row(young, "alice", age=0)
    place.gateway.play(410, left)
    place.gateway.play(410, young)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 1
    assert f"{place.gateway.endpoint} knows none of them, so it may be another API's" in result.output
    assert place.rows() == {left, young}


def test_a_handshake_that_is_not_over_is_no_connection_that_has_left(place: Place, names: Iterator[str]) -> None:
    """A 410 in the first seconds keeps the row, so that the next run finds the connection."""
    here, young = itertools.islice(names, 2)
    place.row(here, "alice")
    place.row(young, "alice", age=0)
    place.gateway.play(410, young)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 1
    assert f"{young}  failed: it may not be connected yet: run the command again in ten seconds" in result.output
    assert place.rows() == {young}


def refusing(status: int, code: str, monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Answer so to the closing of these connections (none: of all); the ids that were tried."""
    tried: list[str] = []
    connect = closing.connect

    def connected(endpoint: str) -> Any:
        client = connect(endpoint)
        real = client.delete_connection
        answer = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}

        def delete_connection(ConnectionId: str) -> Any:  # noqa: N803 - botocore's name
            tried.append(ConnectionId)
            if not names or ConnectionId in names:
                raise ClientError(answer, "DeleteConnection")  # type: ignore[arg-type]
            return real(ConnectionId=ConnectionId)

        client.delete_connection = delete_connection
        return client

    monkeypatch.setattr(disconnect, "connect", connected)
    return tried


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (403, "ForbiddenException", "allow execute-api:ManageConnections on DELETE/@connections/*"),
        (403, "ExpiredTokenException", "the credentials have expired: sign in again"),
        (429, "LimitExceededException", "is too busy: run the command again with a lower --rate"),
        (400, "BadRequestException", "knows no such id"),
        (500, "InternalServerError", "refused DeleteConnection: InternalServerError no"),
    ],
)
def test_who_could_not_be_closed_keeps_the_row_and_is_named(
    status: int, code: str, sentence: str, place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason, while the others are closed; the exit code says that it is not over."""
    here, sick = itertools.islice(names, 2)
    place.row(here, "alice")
    place.row(sick, "alice")
    refusing(status, code, monkeypatch, sick)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 1
    assert f"{sick}  failed: " in result.output
    assert sentence in result.output
    assert "Closed 1 of 2; 0 were gone already, 1 failed, 0 not tried." in result.output
    assert place.rows() == {sick}


def test_failures_and_nothing_else_stop_it(place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing permission fails them all: the rest is not tried."""
    tried = refusing(403, "ForbiddenException", monkeypatch)
    monkeypatch.setattr(closing, "THREADS", 1)
    for name in itertools.islice(names, 40):
        place.row(name, "alice")
    result = place.run("--everybody", "--yes", "--rate", "200")
    assert result.exit_code == 1
    assert 10 <= len(tried) < 40
    assert f"Closed 0 of 40; 0 were gone already, {len(tried)} failed, {40 - len(tried)} not tried." in result.output
    assert len(place.rows()) == 40


def test_a_row_that_cannot_be_deleted_is_named_and_its_connection_closed(
    place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing is what counts; the relay takes the row out when the next message finds nobody."""
    name = next(names)
    place.row(name, "alice")
    connect = tables.connect

    def refusing_rows(table: str, *, connections: int) -> Any:
        client = connect(table, connections=connections)
        answer = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}

        def delete_item(**_options: Any) -> None:
            raise ClientError(answer, "DeleteItem")  # type: ignore[arg-type]

        client.delete_item = delete_item
        return client

    monkeypatch.setattr(tables, "connect", refusing_rows)
    result = place.run("--principal", "alice", "--yes")
    assert result.exit_code == 1
    assert "closed, but its row is still there: the credentials may not use" in result.output
    assert "allow dynamodb:DeleteItem on it" in result.output
    assert "Closed 1 of 1; 0 were gone already, 1 failed" in result.output
    assert not place.is_connected(name)


def test_ctrl_c_ends_it_after_what_is_under_way(
    place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was closed is closed and counted; the rest is left as it was."""
    monkeypatch.setattr(closing, "THREADS", 1)
    for name in itertools.islice(names, 10):
        place.row(name, "alice")
    note = closing.Closing._note

    def interrupt(under_way: closing.Closing, *arguments: Any) -> None:
        note(under_way, *arguments)
        under_way._interrupt()

    monkeypatch.setattr(closing.Closing, "_note", interrupt)
    result = place.run("--principal", "alice", "--yes", "--rate", "20")
    assert result.exit_code == 130
    assert "not tried." in result.output
    assert 5 <= len(place.rows()) < 10


def test_odd_rows_are_closed_like_others(place: Place, names: Iterator[str]) -> None:
    """Other functions write rows too: times that are none are not shown."""
    odd, huge = itertools.islice(names, 2)
    place.row(odd, "alice", createdAt={"S": "now"}, expiresAt={"N": "-1"})
    place.row(huge, "alice", createdAt={"N": "1e100"}, expiresAt={"N": "99999999999999"})
    output = place.run("--principal", "alice", "--dry-run").output
    assert f"{odd}  would be closed\n" in output
    assert f"{huge}  would be closed\n" in output
    assert "Closed 2 of 2" in place.run("--principal", "alice", "--yes").output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nobody is chosen: give --principal, --connection, --anonymous or --everybody"),
        (["--principal", "a", "--everybody"], "--principal, --connection, --anonymous and --everybody exclude each"),
        (["--connection", "a", "--anonymous"], "--principal, --connection, --anonymous and --everybody exclude each"),
        (["--principal", ""], "--principal is empty: name one"),
        (["--connection", ""], "--connection is empty: name one"),
        (["--everybody", "--table", " "], "no table: give --table or CONNECTIONS_TABLE"),
        (["--everybody", "--table", "?"], "--table or CONNECTIONS_TABLE is '?'; it must be a DynamoDB table's name"),
        (["--everybody", "--endpoint", " "], "no endpoint: give --endpoint or WS_ENDPOINT"),
        (
            ["--everybody", "--endpoint", "wss://a.b/c"],
            "--endpoint or WS_ENDPOINT is 'wss://a.b/c'; it must be an https",
        ),
        (["--everybody", "--rate", "0"], "Invalid value for '--rate'"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """What is called wrongly ends with exit code 2 and one sentence, before anything is read."""
    where = ["--table", "connections", "--endpoint", "https://abc.execute-api.eu-west-1.amazonaws.com/prod"]
    result = CliRunner().invoke(app, ["disconnect", *where, *arguments])
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith(f"Error: {sentence}")


def test_the_functions_own_variables_serve(place: Place, names: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECTIONS_TABLE and WS_ENDPOINT, as the functions have them."""
    place.row(next(names), "alice")
    monkeypatch.setenv("CONNECTIONS_TABLE", place.table)
    monkeypatch.setenv("WS_ENDPOINT", f"{place.gateway.endpoint}/")
    result = CliRunner().invoke(app, ["disconnect", "--principal", "alice", "--yes"])
    assert result.exit_code == 0, result.output
    assert place.rows() == set()


def test_another_table_is_refused(place: Place) -> None:
    """A table with another key is no connections table: nobody is closed for what it says."""
    place.dynamodb.create_table(
        TableName="incidents-2",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    result = place.run("--everybody", "--table", "incidents-2")
    place.dynamodb.delete_table(TableName="incidents-2")
    assert result.exit_code == 1
    assert "incidents-2 is not a connections table" in result.output


def test_an_endpoint_without_an_answer_is_one_sentence(place: Place, names: Iterator[str]) -> None:
    """Nobody listens there: the row stays."""
    name = next(names)
    place.row(name, "alice")
    result = place.run("--principal", "alice", "--yes", "--endpoint", "http://127.0.0.1:9/prod")
    assert result.exit_code == 1
    assert "failed: no answer for http://127.0.0.1:9/prod" in result.output
    assert place.rows() == {name}


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        ("https://abc.execute-api.us-east-2.amazonaws.com/prod", "us-east-2"),
        ("https://abc.execute-api.cn-north-1.amazonaws.com.cn/prod", "cn-north-1"),
        ("https://ws.example.com", "eu-central-1"),
    ],
)
def test_the_region_is_the_apis(endpoint: str, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address says it; a domain of one's own does not, and AWS_REGION does."""
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert closing.connect(endpoint).meta.region_name == region
