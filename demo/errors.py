"""What the person at the terminal can do something about."""

from __future__ import annotations


class DemoError(Exception):
    """One sentence for the person; shown without a traceback."""
