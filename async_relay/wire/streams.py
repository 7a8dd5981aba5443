"""From a DynamoDB Stream record to a plain item and its message. Pure.

Rules
- INSERT and MODIFY count; REMOVE is ignored; anything else is undecodable.
- A whole number becomes an int, exactly; any other a float. Binary stays base64 text. A set
  becomes a sorted list.
- The formatter makes the message; the built-in one unless another is given.
- What cannot be decoded raises ``UndecodableRecord`` in one sentence that names the attribute,
  and nothing but that.

Shapes: "Attribute values" of the DynamoDB low-level API, and the Lambda event of a stream.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..errors import UndecodableRecord
from .formatter import Formatter, format_message
from .incidents import format_item
from .messages import Message

# DynamoDB nests 32 levels; a number has at most 38 digits and an exponent of at most 130. The limits
# here are wider, and keep a forged record from costing more memory than its size.
_MAX_DEPTH = 100
_MAX_EXPONENT = 1_000
# The year 9999: a later time was forged, and infinity is no whole number.
_LAST_SECOND = 253_402_300_800
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,5})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One stream record as far as it could be read.

    ``message`` is None where there is nothing to send; ``problem`` is set where it is undecodable. ``written_at`` is
    when the item was written, in milliseconds since 1970, 0 where the record does not say; DynamoDB says it in
    whole seconds, rounded down.
    """

    sequence: str
    event_id: str
    raw: Any
    message: Message | None = None
    problem: str | None = None
    written_at: int = 0

    @property
    def keys(self) -> Mapping[str, Any]:
        """The item's key attributes as they came, empty where there are none."""
        change = self.raw.get("dynamodb") if isinstance(self.raw, Mapping) else None
        keys = change.get("Keys") if isinstance(change, Mapping) else None
        return keys if isinstance(keys, Mapping) else {}


def read_records(event: Any, formatter: Formatter = format_item) -> list[Record]:
    """Every record of a Lambda event, in stream order; raises ``UndecodableRecord`` if it is no such event."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list):
        raise UndecodableRecord("the event has no Records list: it is not an event of a DynamoDB Stream")
    return [read_record(raw, formatter) for raw in records]


def read_record(raw: Any, formatter: Formatter = format_item) -> Record:
    """One record, decoded and formatted; never raises."""
    change = raw.get("dynamodb") if isinstance(raw, Mapping) else None
    sequence = _text(change, "SequenceNumber")
    event_id = _text(raw, "eventID")
    try:
        message = _message(raw, sequence, event_id, formatter)
    except UndecodableRecord as error:
        return Record(sequence, event_id, raw, problem=str(error))
    return Record(sequence, event_id, raw, message, written_at=_written_at(change))


def _message(raw: Any, sequence: str, event_id: str, formatter: Formatter) -> Message | None:
    name = _text(raw, "eventName")
    if name == "REMOVE":
        return None
    if name not in ("INSERT", "MODIFY"):
        raise UndecodableRecord(f"eventName is {name!r}, not INSERT, MODIFY or REMOVE")
    if not sequence:
        raise UndecodableRecord("it has no SequenceNumber")
    image = raw["dynamodb"].get("NewImage")
    if not isinstance(image, Mapping):
        raise UndecodableRecord("it has no NewImage; the stream's view type must include new images")
    return format_message(formatter, decode_item(image), event_id, sequence)


def _written_at(change: Any) -> int:
    seconds = change.get("ApproximateCreationDateTime") if isinstance(change, Mapping) else None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 < seconds < _LAST_SECOND:
        return 0
    return int(seconds * 1000)


def _text(mapping: Any, key: str) -> str:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value if isinstance(value, str) else ""


def decode_item(image: Mapping[str, Any]) -> dict[str, Any]:
    """A plain item of a typed image; raises ``UndecodableRecord``."""
    return {key: decode_value(value, key) for key, value in image.items()}


def decode_value(typed: Any, path: str = "value", depth: int = 0) -> Any:
    """The plain value of ``{"S": "text"}`` and its like; ``path`` names it in an error."""
    if not isinstance(typed, Mapping) or len(typed) != 1:
        raise UndecodableRecord(f"attribute {path} is not a map of one type and its value")
    if depth > _MAX_DEPTH:
        raise UndecodableRecord(f"attribute {path.split('.', maxsplit=1)[0]} nests deeper than {_MAX_DEPTH} levels")
    ((tag, value),) = typed.items()
    if tag == "M" and isinstance(value, Mapping):
        return {key: decode_value(inner, f"{path}.{key}", depth + 1) for key, inner in value.items()}
    if tag == "L" and isinstance(value, list):
        return [decode_value(inner, f"{path}.{at}", depth + 1) for at, inner in enumerate(value)]
    if tag in ("SS", "NS", "BS") and isinstance(value, list):
        return sorted(_scalar(tag[0], inner, path) for inner in value)
    return _scalar(tag, value, path)


def _scalar(tag: Any, value: Any, path: str) -> Any:
    decode = _SCALARS.get(tag) if isinstance(tag, str) else None
    if decode is None:
        known = tag in ("M", "L", "SS", "NS", "BS")
        problem = f"does not hold what its type {tag} says" if known else f"has the unknown type {str(tag)[:20]!r}"
        raise UndecodableRecord(f"attribute {path[:200]} {problem}")
    try:
        return decode(value)
    except (TypeError, ValueError, ArithmeticError):
        raise UndecodableRecord(f"attribute {path[:200]} does not hold what its type {tag} says") from None


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _number(value: Any) -> int | float:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value) or len(value) > _MAX_EXPONENT:
        raise ValueError
    number = Decimal(value)
    if number and abs(number.adjusted()) > _MAX_EXPONENT:
        raise ValueError
    if number == number.to_integral_value():
        return int(number)
    return float(number)


def _binary(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    text = _string(value)
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None
    return text


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _null(value: Any) -> None:
    if value is not True:
        raise TypeError


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "S": _string,
    "N": _number,
    "B": _binary,
    "BOOL": _boolean,
    "NULL": _null,
}
