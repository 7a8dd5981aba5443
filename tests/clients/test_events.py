"""What is read out of API Gateway's events, and that nothing in them makes the reading fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from door import ORIGIN, connecting, with_headers
from hypothesis import given
from hypothesis import strategies as st

from async_relay.clients import events
from async_relay.wire.audience import read_interest
from async_relay.wire.rows import END_OF_TIME

PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ODD: st.SearchStrategy[Any] = st.recursive(
    PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
NAMES = st.sampled_from(["origin", "ORIGIN", "Sec-WebSocket-Protocol", "severity", "kind", "protocol", "access_token"])


def hostile() -> st.SearchStrategy[Any]:
    """Events with anything where API Gateway has maps of text."""
    pairs = st.dictionaries(NAMES | st.text(max_size=5), ODD, max_size=4) | ODD
    keys = ("headers", "multiValueHeaders", "queryStringParameters", "multiValueQueryStringParameters")
    context = st.fixed_dictionaries({"connectionId": st.just("a="), "authorizer": pairs}) | ODD
    return st.fixed_dictionaries({}, optional={**dict.fromkeys(keys, pairs), "requestContext": context}) | ODD


@given(hostile())
def test_no_event_makes_reading_fail(event: Any) -> None:
    """Whatever it holds, each reading gives what it promises."""
    assert all(isinstance(each, str) for name in ("Origin", "x") for each in events.headers(event, name))
    assert all(each and each == each.strip(" \t") for each in events.offered_protocols(event))
    assert events.chosen_protocol(event) in (None, *events.PROTOCOLS)
    assert events.is_origin_listed(event, [ORIGIN]) in (True, False)
    name = events.principal(event)
    assert name is None or name.encode()
    assert events.context(event).keys() >= set()
    try:
        interest = events.interest(event)
    except ValueError:
        return
    assert interest is None or read_interest(interest)


@given(ODD)
def test_no_value_of_a_context_makes_reading_fail(value: Any) -> None:
    second = events.as_second(value)
    assert second is None or 0 <= second <= END_OF_TIME
    for tenants in (events.as_tenants(value), events.tenants_in(value), events.tenants_in(json.dumps(value))):
        assert all(each and each.encode() for each in tenants)


@given(st.lists(st.text("ab*é7", min_size=1) | st.integers()))
def test_tenants_survive_the_way_through_a_context(tenants: list[Any]) -> None:
    """As the authorizer writes them and $connect reads them."""
    found = events.as_tenants(tenants)
    assert found == {str(each) for each in tenants}
    assert events.tenants_in(json.dumps(sorted(found))) == found


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        "",
        "acme",
        '"acme"',
        "{}",
        '{"acme":1}',
        "[",
        '["a",null]',
        '["a",true]',
        '["a",["b"]]',
        "[" * 9_000,
        ["acme"],
    ],
)
def test_tenants_of_another_form_are_none(text: Any) -> None:
    assert events.tenants_in(text) == frozenset()


@pytest.mark.parametrize(
    ("value", "second"),
    [
        ("1700000000", 1_700_000_000),
        (1_700_000_000, 1_700_000_000),
        ("0", 0),
        ("999999999999999", END_OF_TIME),
        ("1e9", None),
        ("-1", None),
        ("1.5", None),
        (" 1", None),
        ("1\n", None),
        ("\u0661", None),
        (True, None),
        (1.5, None),
        (-1, None),
        (10**100, None),
        ("9" * 5_000, None),
        (None, None),
    ],
)
def test_a_second_is_whole_and_plain(value: Any, second: int | None) -> None:
    assert events.as_second(value) == second


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        ([], True),
        ([("Origin", ORIGIN)], True),
        ([("oRiGiN", ORIGIN)], True),
        ([("Origin", ORIGIN), ("origin", ORIGIN)], True),
        ([("Origin", ORIGIN), ("Origin", "https://evil.example")], False),
        ([("origin", "https://evil.example"), ("Origin", ORIGIN)], False),
        ([("Origin", "")], False),
        ([("Origin", "null")], False),
        ([("Origin", f"{ORIGIN}/")], False),
        ([("Origin", f"{ORIGIN}:443")], False),
        ([("Origin", ORIGIN.upper())], False),
        ([("Origin", f"{ORIGIN}.evil.example")], False),
        ([("Origin", ORIGIN.replace("https", "http"))], False),
        ([("Origin", ORIGIN.replace("app", "xapp"))], False),
        ([("Origin", ORIGIN.replace("example.com", "examplе.com"))], False),  # noqa: RUF001 - a Cyrillic letter
        ([("Origin", f"{ORIGIN}, {ORIGIN}")], False),
        ([("Origin", f"{ORIGIN}\r\n")], False),
        ([("Origin", f" {ORIGIN}")], False),
    ],
)
def test_an_origin_is_listed_letter_by_letter(lines: list[tuple[str, str]], passes: bool) -> None:
    """Whoever names none is no browser. One that only looks right is another."""
    event = with_headers(*lines)
    assert events.is_origin_listed(event, ("https://b.example", ORIGIN)) is passes
    assert events.is_origin_listed(event, ())


@pytest.mark.parametrize("value", [5, ["x", 5], [[ORIGIN]], {"a": ORIGIN}])
def test_an_origin_that_is_no_text_is_none_of_ours(value: Any) -> None:
    assert not events.is_origin_listed(connecting(headers={"Origin": value}, multiValueHeaders=None), [ORIGIN])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["async-relay.v2"], "async-relay.v2"),
        (["async-relay.v1"], "async-relay.v1"),
        (["async-relay.v1, async-relay.v2"], "async-relay.v2"),
        (["async-relay.v1", "bearer.x,async-relay.v2"], "async-relay.v2"),
        (["bearer.async-relay.v2"], None),
        (["ASYNC-RELAY.V2"], None),
        (["async-relay.v3", "chat"], None),
        (["async-relay.v2\r\nX: y"], None),
        ([", ".join(f"p{n}" for n in range(1_000)) + ",async-relay.v1"], "async-relay.v1"),
        ([], None),
    ],
)
def test_the_best_of_ours_is_chosen(offered: list[str], chosen: str | None) -> None:
    event = with_headers(*(("sec-websocket-PROTOCOL", line) for line in offered))
    assert events.chosen_protocol(event) == chosen
    assert events.reads_arrays(event) is (chosen == "async-relay.v2")


def test_the_query_asks_for_arrays_and_is_not_answered() -> None:
    event = connecting(queryStringParameters={"Protocol": "async-relay.v2"})
    assert events.reads_arrays(event)
    assert events.chosen_protocol(event) is None


@pytest.mark.parametrize(
    ("query", "interest"),
    [
        ({}, None),
        (
            {"severity": ["HIGH,CRITICAL"], "kind": ["incident_update"]},
            '{"kind":["incident_update"],"severity":["CRITICAL","HIGH"]}',
        ),
        ({"severity": ["HIGH", "LOW, HIGH,"]}, '{"severity":["HIGH","LOW"]}'),
        ({"SEVERITY": ["HIGH"]}, '{"severity":["HIGH"]}'),
        ({"severity": [""], "status": [",", " "]}, None),
        ({"event_type": ['é"']}, '{"event_type":["é\\""]}'),
        ({"resource": ["arn"], "severityx": ["HIGH"]}, None),
    ],
)
def test_interest_is_what_the_query_names(query: dict[str, list[str]], interest: str | None) -> None:
    """Comma lists and repeated parameters alike; equal interests are equal text."""
    event = connecting(multiValueQueryStringParameters=query, queryStringParameters=None)
    assert events.interest(event) == interest
