"""How the scripts talk to whoever calls them: options in range, one sentence for what is wrong, Ctrl-C in order.

Exit codes: 0 all well, 1 the run failed its verdict, 2 called wrongly or something is missing, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

FAILED = 1
USAGE = 2
STOPPED = 130


class CommandError(Exception):
    """One sentence that names the thing and says what to do; shown without a traceback."""


def whole(name: str, low: int, high: int) -> Callable[[Any], int]:
    """Reads a whole number; raises ``CommandError``."""

    def read(value: Any) -> int:
        text = str(value).replace("_", "")
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise CommandError(f"{name} is {str(value)!r}; it must be a whole number from {low:,} to {high:,}")
        return int(text)

    return read


def number(name: str, low: float, high: float) -> Callable[[Any], float]:
    """Reads a number; raises ``CommandError``."""

    def read(value: Any) -> float:
        text = str(value)
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?|\.[0-9]{1,9}", text) or not low <= float(text) <= high:
            raise CommandError(f"{name} is {text!r}; it must be a number from {low:,g} to {high:,g}")
        return float(text)

    return read


def one_of(name: str, *words: str) -> Callable[[Any], str]:
    """Reads one of these words; raises ``CommandError``."""

    def read(value: Any) -> str:
        if value not in words:
            raise CommandError(f"{name} is {str(value)!r}; it must be {', '.join(words[:-1])} or {words[-1]}")
        return str(value)

    return read


def run(body: Callable[..., int], arguments: list[str] | None = None) -> NoReturn:
    """Call ``body`` with the command line's options and leave with its exit code."""
    # A shell's background job inherits the signal ignored, and could then only be killed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(exit_code(body, arguments))


def exit_code(body: Callable[..., int], arguments: list[str] | None = None) -> int:
    """Call ``body`` with the command line's options; what is wrong becomes one sentence on standard error."""
    try:
        import typer
    except ImportError:
        print("This script needs typer and more: pip install 'async-relay[load]'", file=sys.stderr)
        return USAGE
    # Plain help and errors: a boxed and wrapped sentence cannot be searched for.
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(body)
    try:
        return int(app(arguments, standalone_mode=False) or 0)
    except (CommandError, OSError) as error:
        print(error, file=sys.stderr)
        return USAGE
    except (KeyboardInterrupt, typer.Abort):
        print("Stopped; nothing is left running.", file=sys.stderr)
        return STOPPED
    except Exception as error:
        # An unknown option: typer's errors have no public base class.
        sentence = getattr(error, "format_message", None)
        if sentence is None:
            raise
        print(sentence(), file=sys.stderr)
        return USAGE
