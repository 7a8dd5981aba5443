"""The command line for operators: ``async-relay``.

Each command group is a typer app in a module of its own; ``app.py`` lists them. typer and rich
come with the extra ``cli``, so nothing here imports them before ``main`` has looked for them.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich")


def main() -> None:
    """Run the command line; without its extra, say in one sentence how to install it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"async-relay needs {' and '.join(missing)}: install them from the checkout: pip install '.[cli]'")
    from .app import app  # Late: this is what needs the extra.
    from .screen import all_is_written

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # A terminal in ASCII must not fail on a payload.
    with all_is_written():
        app(prog_name="async-relay")
