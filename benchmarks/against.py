"""Two runs of one command side by side, and an honest word on whether they can be compared.

Rules
- Every run writes into its JSON file, as ``run``, what it takes to compare it.
- Where options, machine or load differ, the figures are shown all the same, and beside them in words what differs.
- A file that is broken, or was written by something else, is one sentence, said before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console  # noqa: TC002 - it costs nothing here
from rich.table import Table
from rich.text import Text

from .command import CommandError

#: The help's group of what becomes of the figures.
PANEL = "The figures"
#: The options of a command whose runs can be compared.
Against = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        metavar="FILE",
        rich_help_panel=PANEL,
        help="Show this run beside an earlier one, whose JSON is in FILE.",
    ),
]
AsJson = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", rich_help_panel=PANEL, help="Write every figure there too.")
]
#: A load average that differs by so much is another program that had a CPU for itself.
_BUSIER = 1.0
_LOAD = "load before"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of ``make <command>``: ``measures`` are named with their unit, ``busy`` is the load average before it."""

    command: str
    machine: Mapping[str, str]
    busy: float
    options: Mapping[str, str]
    whole: bool
    measures: Mapping[str, float]


def run_of(
    command: str, facts: Mapping[str, str], options: Mapping[str, object], measures: Mapping[str, float], *, whole: bool
) -> Run:
    """Put together a run; ``facts`` are what ``machine()`` gave before it began."""
    kept = {name: value for name, value in facts.items() if name != _LOAD}
    plain = {name: str(value) for name, value in options.items()}
    return Run(command, kept, float(facts.get(_LOAD, "0")), plain, whole, measures)


def earlier(path: Path, command: str) -> Run:
    """The run that wrote this file; raises ``CommandError`` where it is none of this command."""
    try:
        found = Run(**json.loads(path.read_bytes())["run"])
        texts = [*found.machine.items(), *found.options.items(), (found.command, "")]
        numbers = [found.busy, *found.measures.values()]
        sound = all(isinstance(text, str) for pair in texts for text in pair)
        sound = sound and all(isinstance(each, int | float) and isfinite(each) for each in numbers)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        sound = False
    if not sound:
        raise CommandError(f"--against {path} is not a file that make {command} wrote; --json FILE writes one")
    if found.command != command:
        raise CommandError(f"--against {path} was written by make {found.command}, and this is make {command}")
    return found


def differences(before: Run, now: Run) -> list[str]:
    """Each reason why the two cannot be compared, in words."""
    return list(_differences(before, now))


def _differences(before: Run, now: Run) -> Iterator[str]:
    for title, each in (("the earlier run", before), ("this run", now)):
        if not each.whole:
            yield f"{title} was stopped before its end"
    for old, new in ((before.options, now.options), (before.machine, now.machine)):
        for name in dict.fromkeys([*new, *old]):
            if old.get(name) != new.get(name):
                yield f"{name}: {old.get(name, 'not named')} earlier, {new.get(name, 'not named')} now"
    if abs(before.busy - now.busy) >= _BUSIER:
        yield f"load of the machine before it began: {before.busy:.1f} earlier, {now.busy:.1f} now"


def show(before: Run, now: Run, console: Console) -> None:
    """Both, with ratios, and whether they tell anything."""
    side_by_side(before.measures, now.measures, ("earlier", "now"), console)
    found = differences(before, now)
    if not found:
        said = "Same options and the same kind of machine; yet its figures may differ by half from hour to hour."
        console.print(Text(said, style="dim"))
        return
    console.print(Text("The two runs cannot be compared, so the ratios say little:", style="yellow"))
    for each in found:
        console.print(Text(f"- {each}", style="yellow"))


def side_by_side(
    before: Mapping[str, float], now: Mapping[str, float], titles: tuple[str, str], console: Console
) -> None:
    """A line for each measure of either; what is measured in one of them alone has no ratio."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for column in (*titles, "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for name in dict.fromkeys([*now, *before]):
        old, new = before.get(name), now.get(name)
        times = f"{new / old:.2f}" if old and new is not None else "-"
        table.add_row(Text(name), _number(old), _number(new), times)
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"
