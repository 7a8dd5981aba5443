"""Numbers as people write them: 1,000,000 or 1M or 1e6; 20ms; 25us; 32KB. Pure.

Each parser raises ``ValueError`` with the expected form, to stand behind "is not".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NUMBER = re.compile(r"([0-9][0-9_,]{0,17}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})(?:e([0-9]))?\s*([A-Za-z]*)", re.ASCII)
_COUNTS = {"": 1.0, "k": 1e3, "K": 1e3, "m": 1e6, "M": 1e6}
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
_SIZES = {"": 1.0, "b": 1.0, "B": 1.0, "kb": 1024.0, "KB": 1024.0}


def whole(text: str, low: int, high: int) -> int:
    """A whole number."""
    number = _number(text, _COUNTS)
    if number is None or number != int(number) or not low <= number <= high:
        raise ValueError(f"a whole number from {low:,} to {high:,}")
    return int(number)


def number(text: str, low: float, high: float) -> float:
    """Any number."""
    found = _number(text, _COUNTS)
    if found is None or not low <= found <= high:
        raise ValueError(f"a number from {low:,g} to {high:,g}")
    return found


def seconds(text: str, low: float, high: float) -> float:
    """A time, in seconds where no unit says else."""
    found = _number(text, _TIMES)
    if found is None or not low <= found <= high:
        raise ValueError(f"a time from {low:g} to {high:,g} seconds, like 20ms or 25us")
    return found


def size(text: str, low: int, high: int) -> int:
    """Bytes."""
    found = _number(text, _SIZES)
    if found is None or found != int(found) or not low <= found <= high:
        raise ValueError(f"a size from {low:,} to {high:,} bytes, like 600 or 2KB")
    return int(found)


def _number(text: str, units: Mapping[str, float]) -> float | None:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[3] not in units:
        return None
    return float(match[1].replace(",", "").replace("_", "")) * 10.0 ** int(match[2] or 0) * units[match[3]]
