"""Rows of the connections table: written whole, and read in the stricter way where they are odd."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_relay.wire.audience import Access
from async_relay.wire.jobs import Client
from async_relay.wire.rows import END_OF_TIME, Row, client_of, typed_client

KEY = {"connectionId": {"S": "a="}}
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)
TYPED = st.one_of(JUNK, st.dictionaries(st.sampled_from(["S", "N", "SS", "NS", "L", "NULL"]), JUNK, max_size=2))


def test_a_row_leaves_out_what_it_does_not_have() -> None:
    """An empty set cannot be stored, and a missing attribute is not a null."""
    assert Row("a=", "me", 1, 2).attributes() == {"connectionId": "a=", "clientId": "me", "createdAt": 1, "ttl": 2}


@given(
    st.one_of(st.none(), st.integers(0, END_OF_TIME)),
    st.frozensets(st.text(min_size=1), max_size=3),
    st.sampled_from([None, "{}", '{"kind":["remediation"]}', "odd"]),
    st.sampled_from([None, "array", "arrays"]),
)
def test_what_is_written_is_read_back(
    expires_at: int | None, tenants: frozenset[str], interest: str | None, frames: str | None
) -> None:
    """From plain values as from DynamoDB's, the same client."""
    row = Row("a=", "me", 1_700_000_000_000, 2, "sub", expires_at, tenants, interest, frames)
    attributes = row.attributes()
    types = {str: "S", int: "N", frozenset: "SS"}
    item = {
        name: {
            types[type(value)]: str(value) if isinstance(value, int) else sorted(value) if name == "tenants" else value
        }
        for name, value in attributes.items()
    }
    client = typed_client(item)
    assert client == client_of("a=", attributes)
    assert (client.connection_id, client.created_at, client.skip, client.expires_at) == (
        "a=",
        row.created_at,
        0,
        expires_at,
    )
    assert client.frames == (frames == "array")
    assert (client.access is None) == (not tenants and interest is None)
    assert client.access is None or client.access.tenants == tenants


def test_a_row_that_has_only_its_key_says_nothing() -> None:
    """Rows other functions wrote: they never expire here, and have no access that must be looked at."""
    assert typed_client(KEY) == Client("a=") == client_of("a=", {})


@pytest.mark.parametrize(
    "typed",
    [{"S": "Array"}, {"S": ""}, {"N": "1"}, {"BOOL": True}, {"SS": ["array"]}, {"B": "array"}, "array", [], None, {}],
)
def test_anything_but_the_word_array_means_one_object_a_post(typed: Any) -> None:
    """No client that never asked for arrays must get one."""
    assert typed_client(KEY | {"frames": {"S": "array"}}).frames is True
    assert typed_client(KEY | {"frames": typed}).frames is False
    assert client_of("a=", {"frames": "array"}).frames is True
    assert client_of("a=", {"frames": typed if typed != "array" else b"array"}).frames is False


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ({"N": "1700000000"}, 1_700_000_000),
        ({"N": "1700000000.9"}, 1_700_000_000),
        ({"N": "1.7E9"}, 1_700_000_000),
        ({"N": "9E99"}, 0),
        ({"N": f"{END_OF_TIME}"}, END_OF_TIME),
        ({"N": "1700000000000"}, 0),
        ({"N": "-5"}, -5),
        ({"S": "1700000000"}, 0),
        ({"NULL": True}, 0),
        ({"N": "soon"}, 0),
        ({"N": "NaN"}, 0),
        ({"N": "Infinity"}, 0),
        ({"N": 1.5e300}, 0),
        ({"N": None}, 0),
        ({}, 0),
        (None, 0),
    ],
)
def test_an_end_nobody_can_read_has_come(typed: Any, expected: int) -> None:
    """A row that is to expire some time, and nobody knows when, is out now."""
    assert typed_client(KEY | {"expiresAt": typed}).expires_at == expected


@pytest.mark.parametrize(
    "typed",
    [{"S": "acme"}, {"L": [{"S": "acme"}]}, {"NS": ["1"]}, {"SS": "acme"}, {"SS": [1]}, {"NULL": True}, "acme", None],
)
def test_tenants_nobody_can_read_are_none(typed: Any) -> None:
    """Only a set of text is; anything else gives no access to anything."""
    assert typed_client(KEY | {"tenants": typed}).access == Access(frozenset(), ())


@pytest.mark.parametrize("typed", [{"N": "1"}, {"M": {}}, {"NULL": True}, {"S": "HIGH"}, None])
def test_an_interest_nobody_can_read_is_for_nothing(typed: Any) -> None:
    """It is not the same as none."""
    assert typed_client(KEY | {"interest": typed}).access == Access(frozenset(), None)


@given(st.dictionaries(st.sampled_from(["createdAt", "expiresAt", "tenants", "interest", "ttl"]), TYPED))
def test_no_attribute_keeps_a_client_from_being_read(item: dict[str, Any]) -> None:
    """Whatever other functions write, the client is there, and nothing it says makes it see more."""
    client = typed_client(KEY | item)
    assert client.connection_id == "a="
    assert ("expiresAt" in item) == (client.expires_at is not None)
    assert (client.access is not None) == ("tenants" in item or "interest" in item)


@given(st.dictionaries(st.sampled_from(["createdAt", "expiresAt", "tenants", "interest"]), JUNK))
def test_nor_does_a_plain_one(row: dict[str, Any]) -> None:
    """The double in memory reads rows as strictly."""
    client = client_of("a=", row)
    assert ("expiresAt" in row) == (client.expires_at is not None)
