"""The tenant of a message comes from its item, whatever the formatter does; coalescing keeps tenants apart."""

from __future__ import annotations

from typing import Any

import pytest

from async_relay.wire.formatter import with_tenant
from async_relay.wire.incidents import format_item, latest
from async_relay.wire.messages import Message

INCIDENT = {"incident_id": "i-1", "team": "acme"}


def test_a_message_carries_the_attribute_of_its_item() -> None:
    """Under one name for the front end, whatever the table calls it."""
    payload = with_tenant(format_item, "team")(INCIDENT, "e", "1")
    assert payload is not None
    assert payload["tenant"] == "acme"
    assert "team" not in payload


def test_without_an_attribute_there_are_no_tenants() -> None:
    """The formatter is left as it is."""
    assert with_tenant(format_item, None) is format_item


@pytest.mark.parametrize("tenant", [None, "", [], {"a": 1}, ["acme"], True])
def test_what_is_no_tenant_is_left_out(tenant: Any) -> None:
    """Only text and numbers are; a message without one is for those who may have everything."""
    payload = with_tenant(format_item, "team")(INCIDENT | {"team": tenant}, "e", "1")
    assert payload is not None
    assert "tenant" not in payload


def test_a_number_stays_a_number() -> None:
    """It is compared as text, and sent as it is."""
    payload = with_tenant(format_item, "team")(INCIDENT | {"team": 7}, "e", "1")
    assert payload is not None
    assert payload["tenant"] == 7


def test_no_formatter_gives_a_message_away() -> None:
    """A tenant it writes is replaced by the item's, or removed where that has none; changing the item is too late."""

    def careless(item: dict[str, Any], _event_id: str, _sequence: str) -> dict[str, Any]:
        item["team"] = "globex"
        return {"kind": "order", "tenant": "globex"}

    assert with_tenant(careless, "team")({"team": "acme"}, "e", "1") == {"kind": "order", "tenant": "acme"}
    assert with_tenant(careless, "team")({}, "e", "1") == {"kind": "order"}


@pytest.mark.parametrize("result", [None, [], "text", 7])
def test_what_is_no_payload_is_passed_on(result: Any) -> None:
    """Whoever calls the formatter says what is wrong with it."""
    assert with_tenant(lambda *_: result, "team")(INCIDENT, "e", "1") is result


def test_each_tenant_keeps_its_last_state_of_an_incident() -> None:
    """An incident that moves to another tenant: the first one's screen is to show its last state there."""
    states = [("i-1", "acme"), ("i-1", "acme"), ("i-1", "globex"), ("i-1", "globex"), ("i-1", None)]
    messages = [
        Message.encode({"kind": "incident_update", "incident_id": incident, "tenant": tenant})
        for incident, tenant in states
    ]
    assert latest(messages) == [1, 3, 4]
