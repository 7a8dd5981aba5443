"""Numbers as people write them: 1,000,000 or 1M or 1e6; 20ms; 90m; 32KB; 50%. Pure.

Each parser raises ``ValueError`` with the expected form, to stand behind "is not"; ``like`` is an example in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

_NUMBER = re.compile(r"([0-9][0-9_,]{0,17}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(?:e([0-9]))?\s*([A-Za-z]*|%)", re.ASCII)
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "m": 1e6, "M": 1e6}
_SHARES = _COUNTS | {"%": 0.01}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES = {"": 1.0, "b": 1.0, "B": 1.0, "kb": 1024.0, "KB": 1024.0}


def whole(text: str, low: int, high: int, like: str = "") -> int:
    """A whole number; a point in one without a unit may stand for thousands, and is refused."""
    number = _number(text, _COUNTS)
    unclear = "." in text and text.strip()[-1:].isdecimal() and "e" not in text
    if number is None or unclear or number != int(number) or not low <= number <= high:
        raise ValueError(f"a whole number from {low:,} to {high:,}{_like(like)}")
    return int(number)


def one_of(text: str, values: Collection[int]) -> int:
    """One of a few whole numbers."""
    number = _number(text, _COUNTS)
    if number is None or number not in values:
        raise ValueError(f"one of {', '.join(f'{value:,}' for value in values)}")
    return int(number)


def number(text: str, low: float, high: float, like: str = "") -> float:
    """Any number."""
    found = _number(text, _COUNTS)
    if found is None or not low <= found <= high:
        raise ValueError(f"a number from {low:,g} to {high:,g}{_like(like)}")
    return found


def share(text: str, like: str = "") -> float:
    """A part of all, as a number up to 1 or in percent."""
    found = _number(text, _SHARES)
    if found is None or not 0 <= found <= 1:
        raise ValueError(f"a share from 0 to 1{_like(like)}")
    return found


def seconds(text: str, low: float, high: float, like: str = "") -> float:
    """A time, in seconds where no unit says else."""
    found = _number(text, _TIMES)
    if found is None or not low <= found <= high:
        raise ValueError(f"a time from {low:g} to {high:,g} seconds{_like(like)}")
    return found


def whole_seconds(text: str, low: int, high: int, like: str = "") -> float:
    """The same where half a second cannot be set."""
    found = _number(text, _TIMES)
    if found is None or found != int(found) or not low <= found <= high:
        raise ValueError(f"a time from {low:,} to {high:,} whole seconds{_like(like)}")
    return found


def size(text: str, low: int, high: int, like: str = "") -> int:
    """Bytes."""
    found = _number(text, _SIZES)
    if found is None or found != int(found) or not low <= found <= high:
        raise ValueError(f"a size from {low:,} to {high:,} bytes{_like(like)}")
    return int(found)


def _like(example: str) -> str:
    return f", like {example}" if example else ""


def _number(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[3] not in units:
        return None
    return float(match[1].replace(",", "").replace("_", "")) * 10.0 ** int(match[2] or 0) * units[match[3]]
