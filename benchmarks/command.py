"""The command line of the scripts: one sentence on standard error for a wrong option, and exit codes.

Options and their ranges are typer's; what one option cannot know by itself, the scripts check.

Exit codes: 0 all well, 1 the run failed its verdict, 2 called wrongly or something is missing, 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import NoReturn

FAILED = 1
USAGE = 2
STOPPED = 130


class CommandError(Exception):
    """One sentence that names the thing and says what to do; shown without a traceback."""


class Switch(StrEnum):
    """The words of an option that is on or off."""

    ON = "on"
    OFF = "off"


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
        print("This script needs typer and more, from the checkout: pip install '.[load]'", file=sys.stderr)
        return USAGE
    # Help in panels; errors stay plain below: a boxed and wrapped sentence cannot be searched for.
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
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
