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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial, wraps
from pathlib import Path
from textwrap import fill
from traceback import extract_tb
from typing import IO, ParamSpec

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .failure import FAILED, INTERRUPTED, CommandError

P = ParamSpec("P")

#: Wide enough that a list piped into a file or grep keeps one line per dead letter.
_PIPED_WIDTH = 400
#: Characters of a cell: a connection id or a UUID is shorter, a hostile text is not.
_CELL = 64

#: What a full disk, a closed pipe or a lost terminal answers to a write; ``aws_errors`` has those of the network.
_UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE, errno.EIO, errno.EBADF)


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


def cut(text: str) -> str:
    """``text`` for a cell of a table: safe, and at most ``_CELL`` characters."""
    text = safe(text[: _CELL + 1])
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def clock(at: int | None) -> str:
    """A time to the second, in UTC."""
    return "" if at is None else f"{datetime.fromtimestamp(at / 1_000, UTC):%Y-%m-%dT%H:%M:%SZ}"
