"""A bar on the terminal for work that takes a while: how far it is, and in words what goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Standing:
    """The ``share`` of the whole work that is done, from 0 to 1 (None: nobody knows), and what goes on."""

    share: float | None
    words: str


@contextmanager
def bar(
    standing: Callable[[], Standing], console: Console, below: Callable[[], RenderableType] = Text
) -> Iterator[Callable[[], None]]:
    """Show where the work stands, anew at each call, with more ``below`` it; nothing where there is no terminal.

    No thread draws by itself: it would read what is just being changed, and take CPU from what is measured.
    """
    if not console.is_terminal:
        yield lambda: None
        return
    progress = Progress(BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console)
    task = progress.add_task("", total=None)

    def view() -> Group:
        now = standing()
        # Rounded down: 100 % is said when all is done, and not before.
        percent = "" if now.share is None else f"{int(now.share * 100)} %"
        total = None if now.share is None else 1.0
        progress.update(task, completed=now.share or 0.0, total=total, description=percent)
        return Group(progress, Text(now.words, style="dim"), below())

    with Live(view(), console=console, transient=True, auto_refresh=False) as screen:
        yield lambda: screen.update(view(), refresh=True)
