"""A load test in words and figures: on the terminal while it runs, and in a summary at its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .watch import Moment, Watch

#: Characters of the summary's names with the gap behind them; the values have the rest of the line.
_NAMES = 24
_PAGE = 120
#: The longest of the figures below the bar: all have as much room, so that none moves.
_FIGURE = len("clients 1,000,000")


def now(watch: Watch, width: int) -> Group:
    """The figures of the last moment, in as many columns as there is room for."""
    if not watch.moments:
        return Group()
    figures = [Text.assemble((f"{name} ", "dim"), value) for name, value in _moment(watch.moments[-1])]
    outcomes = (Text(line, style="dim") for line in _outcomes(watch.outcomes, width))
    return Group(Columns(figures, width=_FIGURE, padding=(0, 2)), *outcomes)


def _outcomes(outcomes: Mapping[str, int], width: int) -> list[str]:
    """How often which answer that was not 200 came, in lines that break between two of them."""
    lines = [""]
    for name, number in sorted(outcomes.items()):
        each = f"{name} {number:,}"
        if lines[-1] and len(lines[-1]) + len(each) + 3 > width:
            lines[-1] += ","
            lines.append("")
        lines[-1] += f", {each}" if lines[-1] else each
    return lines if outcomes else ["all 200"]


def _moment(moment: Moment) -> Iterator[tuple[str, str]]:
    yield "posts/s", f"{moment.posts_a_second:,.0f}"
    yield "in flight", str(moment.in_flight)
    yield from zip(("p50", "p95", "p99"), map(_duration, moment.latency), strict=True)
    yield "limit", "none" if moment.rate_limit is None else f"{moment.rate_limit:,.0f}/s"
    yield "to retry", f"{moment.requeued:,}"
    yield "clients", f"{moment.clients:,}"


def show(figures: Mapping[str, Any], console: Console) -> None:
    """The summary, and the verdict last."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in lines(figures, console.width):
        table.add_row(name, value)
    console.print(table)
    for problem in figures["problems"]:
        console.print(f"✗ {problem}", style="red")
    if not figures["problems"]:
        console.print("✓ everybody got what they should have got", style="green")


def lines(figures: Mapping[str, Any], width: int = _PAGE) -> Iterator[tuple[str, str]]:
    """Each line of the summary: its name and its value."""
    yield "clients", f"{figures['clients']:,}"
    yield "messages", f"{figures['messages']:,} in {figures['batches']:,} batches"
    yield "delivered", f"{figures['delivered']:,} with {figures['posts']:,} posts in {figures['seconds']:.1f} s"
    yield "posts a second", f"{figures['posts_a_second']:,.0f}"
    first, *more = _outcomes(figures["outcomes"], width - _NAMES)
    yield "answers but 200" if figures["outcomes"] else "answers", first
    yield from (("", line) for line in more)
    yield "a post took", _percentiles(figures["post_seconds"])
    yield "event to delivery", _percentiles(figures["delivery_seconds"])
    if figures["arrived"]:
        yield "came again, came late", f"{figures['arrived']['repeats']:,}, {figures['arrived']['late']:,}"
    yield "own rate limit", _limit(figures["moments"])
    yield "CPU a post", f"{figures['cpu_us_a_post']:.1f} µs, starting the SDK and watching included"
    yield "CPU a message", f"{figures['cpu_us_a_message']:.2f} µs of the same"
    yield "peak memory", f"{figures['peak_memory_mb']:.0f} MB"


def _limit(moments: Sequence[Mapping[str, Any]]) -> str:
    """The rate limit that the relay set itself after the account had refused posts."""
    limited = [(each["at"], each["rate_limit"]) for each in moments if each["rate_limit"] is not None]
    if not limited:
        return "none"
    limits = [limit for _, limit in limited]
    return (
        f"from {limited[0][0]:.1f} s on: {min(limits):,.0f} to {max(limits):,.0f} a second, {limits[-1]:,.0f} at last"
    )


def _percentiles(found: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_duration(value)}" for name, value in found.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
