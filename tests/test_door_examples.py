"""The examples of docs/door.md: they run, and the relay understands what they answer."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore.credentials import Credentials
from documented_commands import ROOT

from async_relay.clients.connect import connect
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryStore

DOOR = (ROOT / "docs" / "door.md").read_text()
ARN = "arn:aws:execute-api:eu-west-1:123456789012:abc/prod/$connect"


def example(function: str) -> dict[str, Any]:
    """The names that the block with this function defines."""
    (code,) = [
        code
        for code in re.findall(r"^```python\n(.*?)^```$", DOOR, re.MULTILINE | re.DOTALL)
        if f"def {function}(" in code
    ]
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own document
    return names


@pytest.fixture
def authorize(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    monkeypatch.setenv("TICKETS_TABLE", "tickets")
    dynamodb = boto3.resource("dynamodb")
    table = dynamodb.create_table(
        TableName="tickets",
        AttributeDefinitions=[{"AttributeName": "ticket", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "ticket", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    ticket = {"user": "alice", "tenants": {"acme", "umbrella"}}
    table.put_item(Item={"ticket": "good", "goodUntil": Decimal(int(time.time()) + 60), **ticket})
    table.put_item(Item={"ticket": "old", "goodUntil": Decimal(int(time.time()) - 1), **ticket})
    names = example("authorize")
    yield lambda event: names["authorize"]({"methodArn": ARN, **event}, None)
    table.delete()
    names["tickets"].meta.client.close()
    dynamodb.meta.client.close()


def test_a_ticket_lets_somebody_in_once(authorize: Any) -> None:
    """Until a time, for the tenants that its context names as JSON text; and never again."""
    answer = authorize({"queryStringParameters": {"ticket": "good"}})
    assert answer["principalId"] == "alice"
    (statement,) = answer["policyDocument"]["Statement"]
    assert statement == {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": ARN}
    assert time.time() + 3_500 < answer["context"]["expiresAt"] < time.time() + 3_700
    assert json.loads(answer["context"]["tenants"]) == ["acme", "umbrella"]
    assert all(isinstance(value, str | int) for value in answer["context"].values())
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize({"queryStringParameters": {"ticket": "good"}})


async def test_the_relay_understands_what_the_ticket_says(authorize: Any) -> None:
    """The row has whom it names, until when, and the tenants; API Gateway hands a context on as text."""
    answer = authorize({"queryStringParameters": {"ticket": "good"}})
    context = {name: str(value) for name, value in answer["context"].items()} | {"principalId": answer["principalId"]}
    event = {"requestContext": {"connectionId": "c=", "authorizer": context}}
    function = "arn:aws:lambda:eu-west-1:123456789012:function:tickets"
    settings = Settings(
        "https://a.example", "connections", auth_mode="jwt", authorizer_arn=function, tenant_attribute="tenant"
    )
    store = MemoryStore()
    assert (await connect(event, store, time.time(), settings))["statusCode"] == 200
    row = store.rows["c="]
    assert row["principal"] == "alice"
    assert row["expiresAt"] == answer["context"]["expiresAt"]
    assert row["tenants"] == {"acme", "umbrella"}


@pytest.mark.parametrize("query", [None, {}, {"ticket": ""}, {"ticket": "old"}, {"ticket": "no such"}])
def test_nobody_comes_in_without_a_good_ticket(query: Any, authorize: Any) -> None:
    """None, an empty one, one whose minute is over, one that never was."""
    with pytest.raises(Exception, match=r"^Unauthorized$"):
        authorize({"queryStringParameters": query})


def test_a_signed_url_has_the_signature_in_its_query() -> None:
    """And what was in the query before; the session token too."""
    signed = example("signed_url")["signed_url"]
    url = urlsplit(signed("wss://abc.example/prod?clientId=a", Credentials("AKID", "secret", "session"), "eu-west-1"))
    assert (url.scheme, url.netloc, url.path) == ("wss", "abc.example", "/prod")
    query = parse_qs(url.query)
    assert query["clientId"] == ["a"]
    assert query["X-Amz-Credential"][0].endswith("/eu-west-1/execute-api/aws4_request")
    assert query["X-Amz-Security-Token"] == ["session"]
    assert len(query["X-Amz-Signature"][0]) == 64


def test_every_setting_of_the_door_is_in_its_table() -> None:
    """And no other."""
    known = {name.upper() for name in Settings.__dataclass_fields__ if name.startswith(("auth", "tenant"))}
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", DOOR, re.MULTILINE)) == known


@pytest.mark.parametrize("claims", re.findall(r"^```json\n(\{.*?)^```$", DOOR, re.MULTILINE | re.DOTALL))
def test_the_claims_shown_are_json_with_what_is_checked(claims: str) -> None:
    """An issuer, somebody in ``sub``, an end, and an audience or a client."""
    found = json.loads(claims)
    assert {"iss", "sub", "exp"} <= found.keys()
    assert "aud" in found or "client_id" in found
