"""Progress a person can see: each step says that it began, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def step(console: Console, text: str) -> Iterator[None]:
    """Show ``text`` with a spinner while the body runs; without a terminal, as a line before it."""
    started = time.perf_counter()
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        console.print(f"  {text} ...", highlight=False, soft_wrap=True)
        yield
    console.print(
        f"[green]✓[/] {text} [dim]({time.perf_counter() - started:.1f} s)[/]", highlight=False, soft_wrap=True
    )
