"""A message: a payload, encoded and hashed."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.wire.messages import MAX_POST_BYTES, Message, compact_json, is_shallow

PROPERTY = settings(deadline=None, max_examples=80)

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=10), st.lists(st.text(max_size=3), max_size=2)
)
ITEMS = st.dictionaries(st.sampled_from(["kind", "event_id", "sequence", "other"]), VALUES)


@PROPERTY
@given(ITEMS)
def test_the_body_is_compact_and_hashed(item: dict[str, Any]) -> None:
    """The body is JSON without spaces and its digest is that of its bytes."""
    message = Message.encode(item)
    assert json.loads(message.body) == message.payload == item
    assert message.digest == sha256(message.body).hexdigest()
    assert message.body == json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()


def test_the_body_is_utf_8() -> None:
    """Text goes out as UTF-8, not escaped to ASCII."""
    message = Message.encode({"status": "größer ✓ 🚨", "n": 10**37})
    assert message.body == '{"status":"größer ✓ 🚨","n":10000000000000000000000000000000000000}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_json_in_utf_8_cannot_hold_is_a_value_error(value: Any) -> None:
    """NaN, infinities and lone surrogates have no JSON that every client reads."""
    with pytest.raises(ValueError, match=r"JSON|surrogates"):
        compact_json({"value": value})


def test_a_message_of_another_payload_has_no_kind() -> None:
    """A payload without our keys is still a message, with empty names."""
    message = Message.encode({"hello": 1})
    assert (message.kind, message.event_id, message.sequence) == ("", "", "")


def test_the_limit_is_exactly_what_api_gateway_takes() -> None:
    """131,072 bytes are posted, one more is oversized; bytes count, not characters."""
    room = MAX_POST_BYTES - len(compact_json({"x": ""}))
    assert MAX_POST_BYTES == 131_072
    assert len(Message.encode({"x": "a" * room}).body) == 131_072
    assert not Message.encode({"x": "a" * room}).oversized
    assert Message.encode({"x": "a" * (room + 1)}).oversized
    assert Message.encode({"x": "é" * (room // 2 + 1)}).oversized


def test_the_ids_of_the_record_win_over_those_of_the_payload() -> None:
    """A formatter may leave event_id and sequence out: the message has its record's all the same, the body has none."""
    message = Message.encode({"kind": "order"}, event_id="e1", sequence="42")
    assert (message.event_id, message.sequence, message.body) == ("e1", "42", b'{"kind":"order"}')
    own = {"event_id": "mine", "sequence": 7}
    assert Message.encode(own, event_id="e1", sequence="42").event_id == "e1"
    assert (Message.encode(own).event_id, Message.encode(own).sequence) == ("mine", "7")


def test_depth_counts_maps_and_lists() -> None:
    """A value of that many levels is shallow, one level more is not; tuples become lists, so they count."""
    assert is_shallow([{"a": ()}], 3)
    assert is_shallow([{"a": 1}], 3)
    assert not is_shallow([{"a": (1,)}], 2)
    assert is_shallow("text", 0)
    assert not is_shallow([1], 0)
