"""Output for an operator. Nothing from a queue reaches the terminal as it is.

A payload may hold control sequences, text that runs backwards, or rich's own markup: whatever is
not printable is shown as a JSON escape, and rich is given plain ``Text`` only.

A sentence is one line, so that it can be searched for; a terminal gets it wrapped between words, which stay whole:
an id can be copied.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from textwrap import fill
from traceback import extract_tb
from typing import IO, Any, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .failure import FAILED, INTERRUPTED, CommandError
from .parsing import Event, ParsedDeadLetter, parse_json

P = ParamSpec("P")

#: Wide enough that a list piped into a file or grep keeps one line per dead letter.
_PIPED_WIDTH = 400
#: Below this width ten columns fold into unreadable ones, so cells stand in pairs.
_NARROW = 160
#: Characters of a cell: a connection id or a UUID is shorter, a hostile text is not.
_CELL = 64

#: What a full disk, a closed pipe or a lost terminal answers to a write; ``aws_errors`` has those of the network.
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EIO, errno.EBADF)

_COLUMNS = ("Id", "Reason", "Form", "About", "For", "Event id", "Sequence", "First", "Last", "Tries")
_PAIRED = [("Id",), ("Reason", "Form"), ("About", "For"), ("Event id", "Sequence"), ("First", "Last"), ("Tries",)]


def safe(text: str, *, lines: bool = False) -> str:
    """``text`` with all that is not printable escaped; line ends only where ``lines`` allows them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or (lines and char == "\n") else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # json.dumps leaves DEL as it is.
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else json.dumps(char)[1:-1]


def report_errors(command: Callable[P, None]) -> Callable[P, None]:
    """The command, with its ``CommandError`` and Ctrl-C turned into a sentence and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except CommandError as error:
            complain(f"Error: {error}")
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt:
            complain("Interrupted.")
            raise typer.Exit(INTERRUPTED) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _UNWRITTEN:
                raise  # To ``all_is_written``, which does the same for help.
            complain(f"Error: {_unforeseen(error)}")
            raise typer.Exit(FAILED) from None

    return run


def _unforeseen(error: Exception) -> str:
    """What nobody reckoned with, for whoever is to find it."""
    place = extract_tb(error.__traceback__)[-1]
    said = " ".join(str(error).split())[:300]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return f"this was not foreseen: {type(error).__name__}: {said} ({where}); please report it with the command"


@contextmanager
def all_is_written() -> Iterator[None]:
    """End the block with a sentence where stdout does not take everything, and in silence where its reader has left."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        with Path(os.devnull).open("wb") as nothing:  # Or Python's own last flush fails as well, and says so.
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            complain(f"Error: stdout cannot be written: {error.strerror}")
        raise SystemExit(FAILED) from None


def stdout() -> Console:
    """The console for results."""
    wide = not _is_terminal(sys.stdout) and "COLUMNS" not in os.environ
    return Console(markup=False, highlight=False, emoji=False, width=_PIPED_WIDTH if wide else None)


def stderr() -> Console:
    """The console for progress and questions."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether somebody reads it there; Python has None for a stream that is closed from the start."""
    return stream is not None and stream.isatty()


def say(text: str) -> None:
    """One sentence on stdout; a progress bar, if there is one, moves out of its way."""
    print(_wrapped(text, sys.stdout, stdout))


def complain(text: str) -> None:
    """One sentence on stderr."""
    print(_wrapped(text, sys.stderr, stderr), file=sys.stderr)


def _wrapped(text: str, stream: IO[str] | None, console: Callable[[], Console]) -> str:
    """The sentence, on a terminal in lines of its width; all but the first are set in."""
    text = safe(text)
    if not _is_terminal(stream):
        return text
    return fill(text, console().width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def confirm(question: str, number: int, *, yes: bool) -> None:
    """Ask before ``number`` things are done, unless ``yes``; raises ``CommandError`` without an agreement."""
    if yes or not number:
        return
    try:
        agreed = typer.confirm(_wrapped(question, sys.stderr, stderr), err=True)
    except typer.Abort:
        complain("")
        agreed = False
    if not agreed:
        raise CommandError("not confirmed, so nothing was done (where nobody can answer, use --yes)")


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a bar on stderr; it does nothing where stderr is no terminal."""
    console = stderr()
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results move above the bar, but must still reach a stdout that is no terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=_is_terminal(sys.stdout)) as bar:
        yield partial(bar.advance, bar.add_task(title, total=total))


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


def cut(text: str) -> str:
    """``text`` for a cell of a table: safe, and at most ``_CELL`` characters."""
    text = safe(text[: _CELL + 1])
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


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


def clock(at: int | None) -> str:
    """A time to the second, in UTC."""
    return "" if at is None else f"{datetime.fromtimestamp(at / 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
