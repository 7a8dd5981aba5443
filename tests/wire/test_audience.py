"""Who gets which message: tenants fail closed, interest saves posts, and a whole job is decided as each message is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_relay.wire.audience import Access, Audience, read_interest, wants
from async_relay.wire.messages import Message

ACME = Access(frozenset({"acme"}))
EVERYTHING = Access(frozenset({"*"}))
NOTHING_NAMED = Access()

VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["acme", "globex", "", "*", "HIGH", "7"]), st.integers(6, 8), st.none(), st.just([])
)
PAYLOADS = st.dictionaries(st.sampled_from(["tenant", "kind", "severity", "status", "colour"]), VALUES)
LABELS = st.frozensets(st.sampled_from(["acme", "globex", "*", "HIGH", "7", ""]), max_size=3)
INTERESTS = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["kind", "severity", "status", "colour"]), LABELS).map(lambda d: tuple(d.items())),
)
ACCESSES = st.builds(Access, LABELS, INTERESTS)


@pytest.mark.parametrize(
    ("tenant", "access", "expected"),
    [
        ("acme", ACME, True),
        ("globex", ACME, False),
        ("acme", EVERYTHING, True),
        ("acme", NOTHING_NAMED, False),
        (None, ACME, False),
        (None, EVERYTHING, True),
        ("", Access(frozenset({""})), False),
        ("*", ACME, False),
        ("ACME", ACME, False),
        (7, Access(frozenset({"7"})), True),
        (True, Access(frozenset({"True", "true", "1"})), False),
        (1.5, Access(frozenset({"1.5"})), False),
        (["acme"], ACME, False),
        ({"acme": 1}, ACME, False),
    ],
)
def test_a_message_goes_to_its_tenant_alone(tenant: Any, access: Access, expected: bool) -> None:
    """Text and numbers are tenants; without one a message is for those who may have everything."""
    payload = {} if tenant is None else {"tenant": tenant}
    assert wants(access, payload, by_tenant=True) is expected
    assert Audience([Message.encode(payload)], by_tenant=True).wanted(access) == int(expected)


def test_without_tenants_everybody_has_everything() -> None:
    """Rows written before tenants were on, and messages that happen to have a key of that name."""
    for access in (ACME, NOTHING_NAMED, EVERYTHING):
        assert wants(access, {"tenant": "globex"}, by_tenant=False)


@pytest.mark.parametrize(
    ("interest", "payload", "expected"),
    [
        ('{"severity": ["HIGH", "CRITICAL"]}', {"severity": "HIGH"}, True),
        ('{"severity": ["HIGH", "CRITICAL"]}', {"severity": "LOW"}, False),
        ('{"severity": ["HIGH"]}', {}, True),
        ('{"severity": ["HIGH"]}', {"severity": None}, True),
        ('{"severity": ["HIGH"]}', {"severity": ["HIGH"]}, True),
        ('{"severity": ["HIGH"], "kind": ["remediation"]}', {"severity": "HIGH", "kind": "incident_update"}, False),
        ('{"severity": ["HIGH"], "kind": ["remediation"]}', {"severity": "HIGH", "kind": "remediation"}, True),
        ('{"severity": [4, "5"]}', {"severity": 4}, True),
        ('{"severity": [4, "5"]}', {"severity": 5}, True),
        ('{"severity": []}', {"severity": "HIGH"}, False),
        ("{}", {"severity": "HIGH"}, True),
    ],
)
def test_interest_is_a_list_for_each_key(interest: str, payload: dict[str, Any], expected: bool) -> None:
    """All keys must fit, any value of each; a message that lacks a key is not excluded by it."""
    access = Access(interest=read_interest(interest))
    assert wants(access, payload, by_tenant=False) is expected
    assert Audience([Message.encode(payload)], by_tenant=False).wanted(access) == int(expected)


@pytest.mark.parametrize(
    "interest",
    ["", "HIGH", "[]", "null", "7", '{"severity": "HIGH"}', '{"severity": [null]}', '{"severity": [["HIGH"]]}',
     '{"severity": {"HIGH": 1}}', '{"severity": [true]}', "[" * 100_000, '{"severity": ["HIGH"]'],
)  # fmt: skip
def test_an_interest_nobody_can_read_lets_nothing_through(interest: str) -> None:
    """The stricter reading: who wrote it wanted less than everything."""
    assert read_interest(interest) is None
    assert not wants(Access(frozenset({"*"}), None), {"kind": "remediation"}, by_tenant=True)


@given(st.lists(PAYLOADS, max_size=12), st.lists(ACCESSES, max_size=6), st.booleans())
def test_a_job_is_decided_as_each_of_its_messages_is(
    payloads: list[dict[str, Any]],
    accesses: list[Access],
    by_tenant: bool,
) -> None:
    """The mask of a whole job has the bit of a message just where ``wants`` says yes, whoever asked before."""
    audience = Audience([Message.encode(payload) for payload in payloads], by_tenant=by_tenant)
    for access in accesses:
        expected = [wants(access, payload, by_tenant=by_tenant) for payload in payloads]
        mask = audience.wanted(access)
        assert [bool(mask >> at & 1) for at in range(len(payloads))] == expected
        assert mask < 1 << len(payloads)


@given(PAYLOADS, ACCESSES)
def test_tenants_only_ever_take_away(payload: dict[str, Any], access: Access) -> None:
    """Whoever gets a message with tenants on gets it with tenants off."""
    assert wants(access, payload, by_tenant=False) or not wants(access, payload, by_tenant=True)


@given(st.dictionaries(st.text(), st.lists(st.one_of(st.text(), st.integers()))))
def test_an_interest_is_read_as_it_was_written(fields: dict[str, list[Any]]) -> None:
    """Any object of lists of text and numbers; the order of its keys does not matter."""
    read = read_interest(json.dumps(fields))
    assert read is not None
    assert dict(read) == {key: frozenset(map(str, values)) for key, values in fields.items()}
    assert read == read_interest(json.dumps(dict(reversed(fields.items()))))
