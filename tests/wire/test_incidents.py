"""The built-in formatter: the wire format of incidents and remediation logs, key by key, and what is coalesced."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import incident, remediation

from async_relay.wire import incidents
from async_relay.wire.incidents import format_item, latest
from async_relay.wire.messages import Message

PROPERTY = settings(deadline=None, max_examples=80)

EMPTY: list[Any] = [None, "", [], {}]
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=10), st.lists(st.text(max_size=3), max_size=2)
)
FIELDS = (
    "incident_id action status severity event_type type resource arn sg target timestamp created_at updated_at kind"
)
ITEMS = st.dictionaries(st.sampled_from([*FIELDS.split(), "event_id", "sequence", "other"]), VALUES)

INCIDENT_KEYS = {
    *("kind", "incident_id", "status", "severity", "event_type", "resource", "created_at", "updated_at"),
    *("event_id", "sequence"),
}
REMEDIATION_KEYS = {"kind", "action", "target", "status", "time", "event_id", "sequence"}


def payload(item: dict[str, Any]) -> dict[str, Any]:
    found = format_item(item, event_id="e1", sequence="42")
    assert found is not None
    return found


def test_an_incident_has_every_key_of_the_wire_format() -> None:
    """A whole incident becomes exactly the keys the dashboard reads."""
    assert payload(incident(1)) == {
        "kind": "incident_update",
        "incident_id": "inc-1",
        "status": "OPEN",
        "severity": "HIGH",
        "event_type": "AuthorizeSecurityGroupIngress",
        "resource": "arn:aws:ec2:eu-west-1:123456789012:security-group/sg-00000001",
        "created_at": "2024-05-01T10:00:00Z",
        "updated_at": "2024-05-01T10:00:05Z",
        "event_id": "e1",
        "sequence": "42",
    }


def test_a_remediation_has_every_key_of_the_wire_format() -> None:
    """A whole remediation log becomes exactly the keys the dashboard reads."""
    assert payload(remediation(1)) == {
        "kind": "remediation",
        "action": "RevokeSecurityGroupIngress",
        "target": "sg-00000001",
        "status": "SUCCEEDED",
        "time": "2024-05-01T10:00:07Z",
        "event_id": "e1",
        "sequence": "42",
    }


def test_the_least_incident_has_a_status_and_a_resource() -> None:
    """What is missing is left out, but the status is UNKNOWN and the resource a dash."""
    assert payload({"incident_id": 0}) == {
        "kind": "incident_update",
        "incident_id": 0,
        "status": "UNKNOWN",
        "resource": "-",
        "event_id": "e1",
        "sequence": "42",
    }


def test_the_least_remediation_has_its_action() -> None:
    """What is missing of a remediation log is left out."""
    assert payload({"action": "x"}) == {"kind": "remediation", "action": "x", "event_id": "e1", "sequence": "42"}


def test_an_incident_wins_over_an_action() -> None:
    """An item with both an incident_id and an action is an incident, and does not carry the action."""
    found = payload(incident(1) | remediation(1))
    assert found["kind"] == "incident_update"
    assert "action" not in found


@pytest.mark.parametrize("empty", EMPTY)
def test_an_empty_incident_id_makes_no_incident(empty: Any) -> None:
    """With an empty incident_id the action decides."""
    assert payload(remediation(1, incident_id=empty))["kind"] == "remediation"


@pytest.mark.parametrize("empty", EMPTY)
def test_an_item_of_neither_kind_has_no_message(empty: Any) -> None:
    """Without a non-empty incident_id or action there is nothing to send."""
    assert format_item({}, event_id="e", sequence="1") is None
    assert format_item({"incident_id": empty, "action": empty, "status": "x"}, event_id="e", sequence="1") is None


@pytest.mark.parametrize("value", [0, False, 0.0, "0", "-", [None]])
def test_zero_and_false_are_values(value: Any) -> None:
    """Only absence, NULL and what has no element are empty: zero and false are values."""
    assert payload({"incident_id": value})["incident_id"] == value
    assert payload({"action": value})["action"] == value
    assert payload({"incident_id": "a", "arn": value, "resource": "r"})["resource"] == value


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize(
    ("name", "sources"),
    [("resource", ["arn", "resource", "sg"]), ("event_type", ["event_type", "type"]), ("status", ["status"])],
)
def test_an_incident_takes_the_first_source_that_is_not_empty(name: str, sources: list[str], empty: Any) -> None:
    """resource is arn, else resource, else sg; event_type is event_type, else type."""
    for first in range(len(sources)):
        item = {source: f"from {source}" if at >= first else empty for at, source in enumerate(sources)}
        assert payload({"incident_id": "a"} | item)[name] == f"from {sources[first]}"
    nothing = payload({"incident_id": "a"} | dict.fromkeys(sources, empty))
    assert nothing.get(name) == {"resource": "-", "status": "UNKNOWN"}.get(name)


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize(
    ("name", "sources"), [("target", ["target", "resource"]), ("time", ["timestamp", "created_at"])]
)
def test_a_remediation_takes_the_first_source_that_is_not_empty(name: str, sources: list[str], empty: Any) -> None:
    """target is target, else resource; time is timestamp, else created_at; neither is ever made up."""
    for first in range(len(sources)):
        item = {source: f"from {source}" if at >= first else empty for at, source in enumerate(sources)}
        assert payload({"action": "a"} | item)[name] == f"from {sources[first]}"
    assert name not in payload({"action": "a"} | dict.fromkeys(sources, empty))


@PROPERTY
@given(ITEMS)
def test_no_message_has_a_null_or_a_key_of_another_meaning(item: dict[str, Any]) -> None:
    """Whatever the item: only the keys of its kind, none of them null, so an incident has no action and no type."""
    found = format_item(item, event_id="e1", sequence="42")
    if found is None:
        assert item.get("incident_id") in EMPTY
        assert item.get("action") in EMPTY
        return
    assert None not in found.values()
    assert set(found) <= (INCIDENT_KEYS if item.get("incident_id") not in EMPTY else REMEDIATION_KEYS)
    assert (found["event_id"], found["sequence"]) == ("e1", "42")


def test_incidents_are_told_apart_by_id_and_type_of_the_id() -> None:
    """1 and "1" are two incidents; what is no incident, or names none, is the state of nothing and stays."""
    payloads: list[dict[str, Any]] = [
        *({"kind": "incident_update", "incident_id": each} for each in (1, "1", "é", 1, "é")),
        *({"kind": kind, "incident_id": 1} for kind in ("remediation", "order", "remediation")),
        *({"kind": "incident_update"}, {"kind": "incident_update", "incident_id": None}, {"incident_id": 1}),
    ]
    assert latest([Message.encode(each) for each in payloads]) == [1, 3, 4, 5, 6, 7, 8, 9, 10]


@PROPERTY
@given(st.lists(st.one_of(st.integers(1, 3), st.none()), max_size=8))
def test_the_latest_are_the_newest_state_of_each_incident_and_every_log(numbers: list[int | None]) -> None:
    """Of each incident the last state stays in its place; remediation logs are no states and all stay."""
    messages = [
        Message.encode(
            {"kind": "remediation", "at": at} if n is None else {"kind": "incident_update", "incident_id": n}
        )
        for at, n in enumerate(numbers)
    ]
    expected = [at for at, n in enumerate(numbers) if n is None or n not in numbers[at + 1 :]]
    assert latest(messages) == expected


def test_nothing_else_in_the_relay_knows_what_an_incident_is() -> None:
    """What is sent is made in this module alone. Beside it, history lists incidents, and so does the client library.

    Operators' commands, which describe dead letters, are aside.
    """
    package = Path(incidents.__file__).parent.parent
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search("incident_id|incident_update|remediation", path.read_text())
    }
    of_history = {"clients/incident_list.py", "clients/feed_copy.py"}
    relay = {path for path in knowing if not path.startswith(("cli/", "planning/", "client/"))}
    assert relay == {"wire/incidents.py"} | of_history
