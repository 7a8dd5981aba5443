"""Stream records become plain items and messages, or say in one sentence why they cannot."""

from __future__ import annotations

import base64
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from boto3.dynamodb.types import Binary, TypeDeserializer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import event, image, incident, record, typed

from async_relay.errors import UndecodableRecord
from async_relay.wire.streams import decode_item, decode_value, read_record, read_records

PROPERTY = settings(deadline=None, max_examples=80)

NAMES = st.text(min_size=1, max_size=8)
# What a number attribute can hold: 38 digits, and an exponent from -130 to 125.
NUMBERS = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1),
    st.decimals(-(10**12), 10**12, places=6).map(lambda number: number.normalize()),
    st.builds(lambda digits, power: Decimal(f"{digits}E{power}"), st.integers(-999, 999), st.integers(-120, 120)),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.text(max_size=20), st.binary(max_size=20), NUMBERS)
SETS = st.one_of(
    st.sets(st.text(max_size=8), min_size=1, max_size=4),
    st.sets(st.integers(-(10**20), 10**20), min_size=1, max_size=4),
    st.sets(st.binary(max_size=8), min_size=1, max_size=4),
)
VALUES = st.recursive(
    st.one_of(SCALARS, SETS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=12,
)
ITEMS = st.dictionaries(NAMES, VALUES, max_size=5)

# Anything a Lambda event could hold, and what looks nearly like a typed value.
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=4), inner, max_size=3),
        st.dictionaries(st.sampled_from(["S", "N", "B", "BOOL", "NULL", "M", "L", "SS", "NS", "BS", "X"]), inner),
    ),
    max_leaves=10,
)


def plain(value: Any) -> Any:
    """What decoding promises for a value, said without the decoder's means."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case Binary():
            return base64.b64encode(bytes(value)).decode()
        case Decimal():
            return int(value) if Fraction(value).denominator == 1 else float(value)
        case list():
            return [plain(each) for each in value]
        case set():
            return sorted(plain(each) for each in value)
        case dict():
            return {key: plain(each) for key, each in value.items()}
    return value


def of_same_types(left: Any, right: Any) -> bool:
    """Equal, and 1 is not 1.0 nor True."""
    return left == right and repr(left) == repr(right)


@PROPERTY
@given(ITEMS)
def test_an_item_is_read_back_as_it_was_written(item: dict[str, Any]) -> None:
    """Every type survives: numbers exactly, binary as base64, sets sorted, maps and lists in their order."""
    assert of_same_types(decode_item(image(item)), plain(item))


@PROPERTY
@given(ITEMS)
def test_decoding_agrees_with_boto3(item: dict[str, Any]) -> None:
    """boto3's TypeDeserializer reads the same out of the same image."""

    def as_boto3_takes_it(value: dict[str, Any]) -> dict[str, Any]:
        ((tag, held),) = value.items()
        decoders: dict[str, Any] = {
            "B": base64.b64decode,
            "BS": lambda each: [base64.b64decode(text) for text in each],
            "L": lambda each: [as_boto3_takes_it(inner) for inner in each],
            "M": lambda each: {key: as_boto3_takes_it(inner) for key, inner in each.items()},
        }
        return {tag: decoders.get(tag, lambda each: each)(held)}

    deserializer = TypeDeserializer()
    theirs = {key: plain(deserializer.deserialize(as_boto3_takes_it(value))) for key, value in image(item).items()}
    assert of_same_types(decode_item(image(item)), theirs)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-0", 0),
        ("007", 7),
        ("+7", 7),
        ("42.000", 42),
        ("1E2", 100),
        ("1.5e1", 15),
        ("99999999999999999999999999999999999999", 99999999999999999999999999999999999999),
        ("-12345678901234567890123456789012345678", -12345678901234567890123456789012345678),
        ("1E125", 10**125),
        ("0.1", 0.1),
        (".5", 0.5),
        ("5.", 5),
        ("1E-3", 0.001),
        ("3.14159", 3.14159),
        ("0E9999", 0),
    ],
)
def test_a_whole_number_is_an_int_and_any_other_a_float(text: str, number: float) -> None:
    """A whole Decimal becomes an exact int however it is written, any other number a float."""
    decoded = decode_value({"N": text})
    assert of_same_types(decoded, number)


@pytest.mark.parametrize(
    "text",
    [
        *["", " 1", "1 ", "1_000", "NaN", "Infinity", "-inf", "0x10", "1E", "E5", ".", "--1", "1,5", "\u0661"],
        *["1E100000", "1E1001", "1E-1001", "9" * 1_001, 12, 1.5, None, True, ["1"]],
    ],
)
def test_what_is_no_number_is_refused(text: Any) -> None:
    """A number that DynamoDB could not have written names its attribute, and costs no memory."""
    with pytest.raises(UndecodableRecord, match=r"^attribute score does not hold what its type N says$"):
        decode_value({"N": text}, "score")


@pytest.mark.parametrize("text", ["1E1000", "9" * 1_000, "1E-1000"])
def test_a_number_wider_than_any_in_dynamodb_still_decodes(text: str) -> None:
    """The limits are wider than DynamoDB's 38 digits and exponent of 130."""
    assert decode_value({"N": text}) == (int(Decimal(text)) if Decimal(text) > 1 else 0.0)


@pytest.mark.parametrize("text", ["", "AA==", "+/+/", base64.b64encode(bytes(range(256))).decode()])
def test_binary_stays_base64(text: str) -> None:
    """Binary comes as base64 text and stays that text."""
    assert decode_value({"B": text}) == text


def test_raw_bytes_become_base64() -> None:
    """Bytes, as an SDK hands them over, become the base64 text Lambda would have handed over."""
    assert decode_value({"B": b"\x00\xff"}) == "AP8="


@pytest.mark.parametrize(
    ("typed_set", "expected"),
    [
        ({"SS": ["b", "", "a", "\u00e9"]}, ["", "a", "b", "\u00e9"]),
        ({"NS": ["10", "9", "1E1", "-1.5"]}, [-1.5, 9, 10, 10]),
        ({"BS": ["Yg==", "YQ=="]}, ["YQ==", "Yg=="]),
        ({"SS": []}, []),
    ],
)
def test_a_set_is_a_sorted_list(typed_set: dict[str, Any], expected: list[Any]) -> None:
    """A set has no order, so its list is sorted: text as text, numbers as numbers."""
    assert decode_value(typed_set) == expected


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"Q": "1"}, "attribute a.b has the unknown type 'Q'"),
        ({"A" * 50: "1"}, f"attribute a.b has the unknown type {'A' * 20!r}"),
        ({1: "1"}, "attribute a.b has the unknown type '1'"),
        ({"": "1"}, "attribute a.b has the unknown type ''"),
        ({"S": 1}, "attribute a.b does not hold what its type S says"),
        ({"S": None}, "attribute a.b does not hold what its type S says"),
        ({"BOOL": "true"}, "attribute a.b does not hold what its type BOOL says"),
        ({"BOOL": 1}, "attribute a.b does not hold what its type BOOL says"),
        ({"NULL": False}, "attribute a.b does not hold what its type NULL says"),
        ({"NULL": 1}, "attribute a.b does not hold what its type NULL says"),
        ({"B": "no base64!"}, "attribute a.b does not hold what its type B says"),
        ({"B": "AAA"}, "attribute a.b does not hold what its type B says"),
        ({"B": 5}, "attribute a.b does not hold what its type B says"),
        ({"M": []}, "attribute a.b does not hold what its type M says"),
        ({"L": {}}, "attribute a.b does not hold what its type L says"),
        ({"SS": "text"}, "attribute a.b does not hold what its type SS says"),
        ({"NS": {"a": 1}}, "attribute a.b does not hold what its type NS says"),
        ({"BS": None}, "attribute a.b does not hold what its type BS says"),
        ({"SS": [1]}, "attribute a.b does not hold what its type S says"),
        ({"NS": ["x"]}, "attribute a.b does not hold what its type N says"),
        ({"BS": ["x"]}, "attribute a.b does not hold what its type B says"),
        ({}, "attribute a.b is not a map of one type and its value"),
        ({"S": "x", "N": "1"}, "attribute a.b is not a map of one type and its value"),
        ("text", "attribute a.b is not a map of one type and its value"),
        (None, "attribute a.b is not a map of one type and its value"),
        ([{"S": "x"}], "attribute a.b is not a map of one type and its value"),
    ],
)
def test_a_problem_names_the_attribute_and_what_is_wrong(value: Any, problem: str) -> None:
    """What cannot be decoded is told in one sentence, with the path to the attribute."""
    with pytest.raises(UndecodableRecord) as error:
        decode_item({"a": {"M": {"b": value}}})
    assert str(error.value) == problem


def test_a_value_that_stands_alone_is_called_a_value() -> None:
    """Without an attribute's name the problem is that of the value."""
    with pytest.raises(UndecodableRecord, match=r"^attribute value is not a map of one type and its value$"):
        decode_value("text")


def test_a_problem_in_a_list_names_the_position() -> None:
    """The path to an attribute goes through lists by position."""
    with pytest.raises(UndecodableRecord, match=r"^attribute a\.1\.b has the unknown type 'Q'$"):
        decode_item({"a": {"L": [{"S": ""}, {"M": {"b": {"Q": 1}}}]}})


@pytest.mark.parametrize("value", [{"Q": 1}, {"S": 1}])
def test_a_long_attribute_name_is_cut_in_the_problem(value: Any) -> None:
    """A name of 64 KB does not become a log line of 64 KB."""
    with pytest.raises(UndecodableRecord) as error:
        decode_item({"x" * 65_535: value})
    assert str(error.value).startswith(f"attribute {'x' * 200} ")


def nested(levels: int, tag: str) -> dict[str, Any]:
    value = typed("core")
    for _ in range(levels):
        value = {"M": {"in": value}} if tag == "M" else {"L": [value]}
    return value


@pytest.mark.parametrize("tag", ["M", "L"])
def test_nesting_is_bounded_beyond_what_dynamodb_allows(tag: str) -> None:
    """32 levels are DynamoDB's bound, 100 are read, more is a problem that names the attribute."""
    assert decode_item({"deep": nested(100, tag)})
    with pytest.raises(UndecodableRecord, match=r"^attribute deep nests deeper than 100 levels$"):
        decode_item({"deep": nested(101, tag)})
    with pytest.raises(UndecodableRecord, match=r"^attribute deep nests deeper than 100 levels$"):
        decode_item({"deep": nested(900, tag)})


@pytest.mark.parametrize("name", ["INSERT", "MODIFY"])
def test_an_insert_or_modify_becomes_a_message(name: str) -> None:
    """INSERT and MODIFY carry the new state, with the record's eventID and SequenceNumber."""
    read = read_record(record(incident(7), name=name, sequence="111"))
    assert read.problem is None
    assert read.message is not None
    assert (read.message.kind, read.message.event_id, read.message.sequence) == (
        "incident_update",
        "event-111",
        "111",
    )
    assert read.message.payload["incident_id"] == "inc-7"
    assert (read.sequence, read.event_id) == ("111", "event-111")


def test_a_remove_is_ignored() -> None:
    """REMOVE is nothing to send, and no problem either."""
    read = read_record(record(incident(), name="REMOVE"))
    assert (read.message, read.problem) == (None, None)


def test_an_item_of_neither_kind_is_ignored() -> None:
    """An item without incident_id and action is nothing to send, and no problem."""
    read = read_record(record({"note": "hello"}))
    assert (read.message, read.problem) == (None, None)


def without(*path: str) -> dict[str, Any]:
    whole = record(incident())
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return whole


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (without("dynamodb", "NewImage"), "it has no NewImage; the stream's view type must include new images"),
        (
            record(incident()) | {"dynamodb": {"SequenceNumber": "1", "NewImage": []}},
            "it has no NewImage; the stream's view type must include new images",
        ),
        (without("dynamodb", "SequenceNumber"), "it has no SequenceNumber"),
        (record(incident()) | {"dynamodb": {"SequenceNumber": 5}}, "it has no SequenceNumber"),
        (without("dynamodb"), "it has no SequenceNumber"),
        (record(incident()) | {"dynamodb": "text"}, "it has no SequenceNumber"),
        (without("eventName"), "eventName is '', not INSERT, MODIFY or REMOVE"),
        (record(incident(), name="UPSERT"), "eventName is 'UPSERT', not INSERT, MODIFY or REMOVE"),
        ({}, "eventName is '', not INSERT, MODIFY or REMOVE"),
        ("text", "eventName is '', not INSERT, MODIFY or REMOVE"),
        (None, "eventName is '', not INSERT, MODIFY or REMOVE"),
        (record(incident(status="\ud800")), "its message does not fit in JSON: UnicodeEncodeError"),
        (record(incident(severity=Decimal("1" * 400 + ".5"))), "its message does not fit in JSON: ValueError"),
    ],
)
def test_an_undecodable_record_says_why(raw: Any, problem: str) -> None:
    """A record that can never become a message keeps what it was, with the problem in one sentence."""
    read = read_record(raw)
    assert (read.message, read.problem, read.raw) == (None, problem, raw)
    assert read.event_id == (raw.get("eventID", "") if isinstance(raw, dict) else "")


def test_a_bad_attribute_is_the_records_problem() -> None:
    """An attribute that cannot be decoded makes its record undecodable, even where no message needs it."""
    raw = record(incident())
    raw["dynamodb"]["NewImage"]["note"] = {"Q": 1}
    assert read_record(raw).problem == "attribute note has the unknown type 'Q'"


@PROPERTY
@given(JSON)
@example({"eventName": "INSERT", "dynamodb": {"SequenceNumber": "1", "NewImage": {"a": {"M": {"b": {"L": [3]}}}}}})
def test_reading_never_raises(change: Any) -> None:
    """Whatever JSON stands where the change or the image should: a message, nothing, or a problem."""
    image_of_it = {"SequenceNumber": "1", "NewImage": change}
    for raw in (change, {"eventName": "INSERT", "dynamodb": change}, {"eventName": "MODIFY", "dynamodb": image_of_it}):
        read = read_record(raw)
        assert read.message is None or read.problem is None
        assert isinstance(read.keys, dict)


@pytest.mark.parametrize(
    ("raw", "keys"),
    [
        (record(incident(3)), {"incident_id": {"S": "inc-3"}}),
        (without("dynamodb", "Keys"), {}),
        ({"dynamodb": {"Keys": "text"}}, {}),
        ({"dynamodb": 1}, {}),
        ("text", {}),
    ],
)
def test_the_keys_are_as_they_came(raw: Any, keys: dict[str, Any]) -> None:
    """The typed key attributes are there for a dead letter, and empty where there are none."""
    assert read_record(raw).keys == keys


def test_an_events_records_are_read_in_order() -> None:
    """Every record of an event is read, the bad ones in their places."""
    reads = read_records(event(record(incident(1), sequence="1"), "bad", record(incident(2), sequence="3")))
    assert [read.sequence for read in reads] == ["1", "", "3"]
    assert [read.problem is None for read in reads] == [True, False, True]


@pytest.mark.parametrize("value", [None, [], "text", {}, {"Records": None}, {"Records": {}}, {"records": []}])
def test_what_is_no_stream_event_is_refused(value: Any) -> None:
    """Something else than a stream's event is an error of the caller, told in one sentence."""
    with pytest.raises(UndecodableRecord, match=r"^the event has no Records list: it is not an event of a DynamoDB"):
        read_records(value)


@pytest.mark.parametrize(
    ("said", "written_at"),
    [
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.25, 1_700_000_000_250),
        (None, 0),
        ("1700000000", 0),
        (True, 0),
        (-5, 0),
        (float("inf"), 0),
        (float("nan"), 0),
        (1e30, 0),
    ],
)
def test_a_record_says_when_it_was_written(said: Any, written_at: int) -> None:
    """In seconds of its own, in milliseconds here; 0 where it says nothing that can be."""
    raw = record(incident())
    raw["dynamodb"]["ApproximateCreationDateTime"] = said
    assert read_record(raw).written_at == written_at
