"""Dead letters for an operator: as a table, one whole, or as JSON. What is printed goes through ``screen``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from .parsing import Event, ParsedDeadLetter, parse_json
from .screen import clock, cut, safe, say, stdout

#: Below this width ten columns fold into unreadable ones, so cells stand in pairs.
_NARROW = 160

_COLUMNS = ("Id", "Reason", "Form", "About", "For", "Event id", "Sequence", "First", "Last", "Tries")
_PAIRED = [("Id",), ("Reason", "Form"), ("About", "For"), ("Event id", "Sequence"), ("First", "Last"), ("Tries",)]


def print_table(dead_letters: Sequence[ParsedDeadLetter], size: int, total: int, where: str) -> None:
    """Print a row per dead letter, ids cut to ``size``, and how many of the ``total`` that lie ``where``.

    Cells are in pairs on a narrow screen.
    """
    console = stdout()
    narrow = console.width < _NARROW
    table = Table(pad_edge=False, show_lines=narrow)
    columns = _PAIRED if narrow else [(title,) for title in _COLUMNS]
    for column in columns:
        table.add_column(Text("\n".join(column)), overflow="fold", no_wrap=column == ("Id",))
    for dead_letter in dead_letters:
        cells = {title: cut(cell) for title, cell in zip(_COLUMNS, _row(dead_letter, size), strict=True)}
        table.add_row(*(Text("\n".join(cells[title] for title in column)) for column in columns))
    if dead_letters:
        console.print(table)
    say(f"{len(dead_letters)} of the {total} messages {where}{tally(dead_letters)}")


def _row(dead_letter: ParsedDeadLetter, size: int) -> Iterator[str]:
    """The cells, in the order of ``_COLUMNS``."""
    first = dead_letter.events[0] if dead_letter.events else Event()
    more = f" and {len(dead_letter.events) - 1} more" if len(dead_letter.events) > 1 else ""
    yield dead_letter.message_id[:size]
    yield dead_letter.reason
    yield dead_letter.form
    yield f"{first.kind} {first.subject}".strip() + more
    yield dead_letter.addressee
    yield first.event_id
    yield first.sequence
    yield clock(dead_letter.first_at).replace("T", " ")
    yield clock(dead_letter.last_at).replace("T", " ")
    yield "" if dead_letter.attempt is None else str(dead_letter.attempt)


def tally(dead_letters: Iterable[ParsedDeadLetter]) -> str:
    """The number of dead letters per reason, after a colon; empty if there are none."""
    counts = Counter(dead_letter.reason for dead_letter in dead_letters).most_common()
    return ": " + ", ".join(f"{count} {cut(reason)}" for reason, count in counts) if counts else ""


def print_dead_letter(dead_letter: ParsedDeadLetter, verdict: str) -> None:
    """Everything about one dead letter, its body last."""
    rows = {
        "Message": dead_letter.message_id,
        "Form": dead_letter.form,
        "Reason": dead_letter.reason,
        "Detail": dead_letter.detail,
        "For": ", ".join(dead_letter.clients) or dead_letter.shard,
        "First": clock(dead_letter.first_at),
        "Last": clock(dead_letter.last_at),
        "Tries": "" if dead_letter.attempt is None else str(dead_letter.attempt),
        "Redrive": verdict,
    }
    for title, text in rows.items():
        if text:
            say(f"{title + ':':<9}{text}")
    print(_pretty(parse_json(dead_letter.body), dead_letter.body), end="\n\n")


def _pretty(value: Any, body: str) -> str:
    """The body's value as indented JSON, or the body on one line if it has none: its line ends could imitate ours."""
    try:
        return safe(json.dumps(value, indent=2, ensure_ascii=False), lines=True) if value is not None else safe(body)
    except (ValueError, RecursionError):
        return safe(body)


def as_json(dead_letters: Iterable[ParsedDeadLetter]) -> str:
    """The dead letters as a JSON array in ASCII, without their bodies."""
    rows = [_fields(dead_letter) for dead_letter in dead_letters]
    return json.dumps(rows, indent=2)


def _fields(dead_letter: ParsedDeadLetter) -> dict[str, object]:
    return {
        "messageId": dead_letter.message_id,
        "reason": dead_letter.reason,
        "detail": dead_letter.detail,
        "form": dead_letter.form,
        "events": [
            {
                "kind": event.kind,
                "incident": event.incident,
                "action": event.action,
                "eventId": event.event_id,
                "sequence": event.sequence,
            }
            for event in dead_letter.events
        ],
        "clients": dead_letter.clients,
        "shard": dead_letter.shard,
        "firstAt": clock(dead_letter.first_at) or None,
        "lastAt": clock(dead_letter.last_at) or None,
        "attempt": dead_letter.attempt,
    }
