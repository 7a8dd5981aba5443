"""The benchmark's results as a table on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console  # noqa: TC002 - it costs nothing here
from rich.table import Table

from .figures import Goal, Results, Sample, goals, measured, ratio

_COLUMNS = ("", "CPU µs", "low to high", "times ours", "a second", "client busy", "gateway busy")
# On a terminal of 80 columns all of a table has to be read, so its heads are shorter than a page's.
_NARROW = ("* whole handler", "CPU µs", "low-high", "times", "per s", "busy %")
_NOTES = """\
CPU µs a delivery is the client process's own, user and system, around a broadcast: imports, clients and first
handshakes come before.
Medians over {repetitions} rounds, everybody in turn; "times ours" is the median of the rounds' own ratios.
{clients:,} clients, {at_once} in flight, {latency:g} ms gateway latency, {body} bytes a message, TLS verified, every
post signed (wrk neither verifies nor signs, and posts for a time instead of a count). The slow ones post to a fifth of
the clients, which costs the same for each. A whole handler (*) goes from the stream event to its answer and reads the
clients from the table; the others only post. "Busy" is the share of one core: a gateway well below 100 % was not what
anybody waited for. The session token has 900 bytes, as those of Lambda's functions."""


def show(results: Results, console: Console) -> None:
    """Everything there is, on the terminal, readable in 80 columns."""
    if measured(results.comparison):
        rows = [_narrow_row(results, each) for each in _in_order(results)]
        console.print(_table("Side by side; busy: the client's and the gateway's share of a core", _NARROW, rows))
    for _, title, samples in _sweeps(results):
        console.print(_table(title, _NARROW_SWEEP, [_sweep_row(each) for each in samples]))
    for name, reason in results.missing.items():
        console.print(f"Left out: {name}: {reason}", style="yellow")
    for goal, came_to, reached in goals(results):
        if reached:
            console.print(f"✓ {goal}: {came_to}", style="green", highlight=False)
        else:
            console.print(f"✗ Goal missed: {goal}; it came to {came_to}.", style="red", highlight=False)


def markdown(results: Results, pictures: Mapping[str, Path]) -> str:
    """The same as a page; ``pictures`` are the plots beside it."""
    return "\n".join([*_page(results, pictures), ""])


def _page(results: Results, pictures: Mapping[str, Path]) -> Iterator[str]:
    yield "# Benchmark results"
    yield ""
    yield "Made by `make bench`. " + "; ".join(f"{name}: {value}" for name, value in results.machine.items()) + "."
    if results.interrupted:
        yield "\nThe run was stopped before its end."
    if measured(results.comparison):
        yield from [
            "",
            "## Side by side",
            "",
            *_picture(pictures, "comparison", "CPU a delivery, ours and the others'"),
        ]
        yield from markdown_table(_COLUMNS, _rows(results))
        options = results.options
        yield "\n" + _NOTES.format(
            repetitions=options["repetitions"],
            clients=options["clients"],
            at_once=options["in flight"],
            latency=options["latency ms"],
            body=options["body"],
        )
    yield from [f"\nLeft out: {name}, because {reason}." for name, reason in results.missing.items()]
    for name, title, samples in _sweeps(results):
        yield from ["", f"## {title}", "", *_picture(pictures, name, title)]
        yield from markdown_table(_SWEEP_COLUMNS, [_sweep_row(each) for each in samples])
    found = goals(results)
    if found:
        yield from ["", "## Goals", "", *markdown_table(("goal", "came to", ""), [_goal_row(each) for each in found])]


def _rows(results: Results) -> list[tuple[str, ...]]:
    return [_row(results, each) for each in _in_order(results)]


def _in_order(results: Results) -> list[Sample]:
    return sorted(measured(results.comparison), key=lambda one: one.cpu.median)


def _row(results: Results, sample: Sample) -> tuple[str, ...]:
    cpu, times = sample.cpu, ratio(results, sample.name)
    return (
        f"{sample.title}{' *' if sample.whole else ''}",
        f"{cpu.median:,.1f}",
        f"{cpu.low:,.1f} to {cpu.high:,.1f}",
        "" if times is None else f"{times:.1f}",
        f"{sample.rate.median:,.0f}",
        f"{sample.busy:.0%}",
        f"{sample.server_busy:.0%}",
    )


def _narrow_row(results: Results, sample: Sample) -> tuple[str, ...]:
    cpu, times = sample.cpu, ratio(results, sample.name)
    return (
        f"{sample.title}{' *' if sample.whole else ''}",
        _short(cpu.median),
        f"{_short(cpu.low)}-{_short(cpu.high)}",
        "" if times is None else f"{times:.1f}",
        f"{sample.rate.median:,.0f}",
        f"{sample.busy * 100:.0f}/{sample.server_busy * 100:.0f}",
    )


def _short(microseconds: float) -> str:
    return f"{microseconds:,.1f}" if microseconds < 100 else f"{microseconds:,.0f}"


_SWEEP_COLUMNS = ("", "clients", "in flight", "latency ms", "deliveries a second", "CPU µs a delivery", "peak MB")
_NARROW_SWEEP = ("", "clients", "in flight", "ms away", "per s", "CPU µs", "peak MB")


def _sweeps(results: Results) -> list[tuple[str, str, list[Sample]]]:
    titled = [
        ("concurrency", "By concurrency, 8 ms away", results.by_concurrency),
        ("latency", "By latency of the gateway", results.by_latency),
        ("clients", "By clients in the table", results.by_clients),
    ]
    return [(name, title, found) for name, title, samples in titled if (found := measured(samples))]


def _sweep_row(sample: Sample) -> tuple[str, ...]:
    return (
        sample.title,
        f"{sample.clients:,}",
        f"{sample.concurrency}",
        f"{sample.latency_ms:g}",
        f"{sample.rate.median:,.0f}",
        f"{sample.cpu.median:,.1f}",
        f"{sample.memory:.0f}",
    )


def _goal_row(goal: Goal) -> tuple[str, ...]:
    return goal.goal, goal.came_to, "reached" if goal.reached else "**not reached**"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for at, column in enumerate(columns):
        # A narrow terminal breaks names between words, and no figure.
        table.add_column(column, justify="right" if at else "left", no_wrap=bool(at), overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table: the first column is text, the others are numbers."""
    yield f"| {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * (len(columns) - 1)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _picture(pictures: Mapping[str, Path], name: str, text: str) -> Iterator[str]:
    if name in pictures:
        yield f"![{text}]({pictures[name].name})"
        yield ""
