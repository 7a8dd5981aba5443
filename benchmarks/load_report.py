"""A load test on the terminal while it runs, in a summary at its end, and as a page with plots that stands alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .watch import Moment, Watch

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
td:last-child { font-variant-numeric: tabular-nums }
.well { color: #00664a } .wrong { color: #a33b00 }
svg { max-width: 100%; height: auto }
"""


#: Characters a line of the summary has for its values, beside the longest name, on a terminal of 80 columns.
_VALUE = 56
_SCREEN = 80


@contextmanager
def live(
    watch: Watch, expected: Callable[[], int | None], doing: Callable[[], str], console: Console
) -> Iterator[Callable[[], None]]:
    """Show the figures of ``watch``, anew at each call, and what goes on, beside all deliveries ``expected``.

    Nothing is shown where there is no terminal.
    """
    if not console.is_terminal:
        yield lambda: None
        return
    progress = Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
    task = progress.add_task("delivered", total=None)

    def view() -> Group:
        total = expected()
        # What came twice is delivered twice, and is no more than was expected.
        done = watch.delivered if total is None else min(watch.delivered, total)
        progress.update(task, completed=done, total=total)
        return Group(progress, Text(doing(), style="dim"), _now(watch))

    with Live(view(), console=console, transient=True, auto_refresh=False) as screen:
        yield lambda: screen.update(view(), refresh=True)


def _now(watch: Watch) -> Group:
    if not watch.moments:
        return Group()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("posts/s", "in flight", "p50", "p95", "p99", "limit", "requeued", "clients"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row(*_moment(watch.moments[-1]))
    return Group(table, *(Text(line, style="dim") for line in _outcomes(watch.outcomes, _SCREEN)))


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


def _moment(moment: Moment) -> Iterator[str]:
    yield f"{moment.posts_a_second:,.0f}"
    yield str(moment.in_flight)
    yield from map(_duration, moment.latency)
    yield "none" if moment.rate_limit is None else f"{moment.rate_limit:,.0f}/s"
    yield str(moment.requeued)
    yield f"{moment.clients:,}"


def show(figures: Mapping[str, Any], console: Console) -> None:
    """The summary, and the verdict last."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in _lines(figures):
        table.add_row(name, value)
    console.print(table)
    for problem in figures["problems"]:
        console.print(f"✗ {problem}", style="red")
    if not figures["problems"]:
        console.print("✓ everybody got what they should have got", style="green")


def compare(
    clean: Mapping[str, Any],
    chaotic: Mapping[str, Any],
    found: Mapping[str, float],
    problem: str | None,
    console: Console,
) -> None:
    """A clean run's deliveries beside a chaotic one's."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("", *found, "batches", "posts", "429"):
        table.add_column(column, justify="right")
    for title, figures in (("clean", clean), ("chaotic", chaotic)):
        took = (_duration(figures["delivery_seconds"][point]) for point in found)
        counts = (figures["batches"], figures["posts"], figures["outcomes"].get("throttled", 0))
        table.add_row(title, *took, *(f"{each:,}" for each in counts))
    table.add_row("times as long", *(f"{each:.2f}" for each in found.values()))
    console.print(table)
    if problem:
        console.print(f"✗ {problem}", style="red")
    else:
        console.print(f"✓ p95 is {found['p95']:.2f} times that of the clean run", style="green")


def _lines(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "clients", f"{figures['clients']:,}"
    yield "messages", f"{figures['messages']:,} in {figures['batches']:,} batches"
    yield "delivered", f"{figures['delivered']:,} with {figures['posts']:,} posts in {figures['seconds']:.1f} s"
    yield "posts a second", f"{figures['posts_a_second']:,.0f}"
    first, *more = _outcomes(figures["outcomes"], _VALUE)
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


def page(figures: Mapping[str, Any]) -> str:
    """One HTML file with everything in it."""
    verdict = "".join(f'<p class="wrong">✗ {escape(each)}</p>' for each in figures["problems"])
    verdict = verdict or '<p class="well">✓ Everybody got what they should have got.</p>'
    plots = "".join(f"<h2>{escape(title)}</h2>{picture}" for title, picture in _plots(figures))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Load test</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><h1>Load test</h1>{verdict}'
        f"<h2>What came of it</h2>{_rows(_lines(figures))}{plots}"
        f"<h2>Options</h2>{_rows((name, str(value)) for name, value in figures['options'].items())}</html>\n"
    )


def _rows(lines: Iterator[tuple[str, str]]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in lines)
    return f"<table>{''.join(rows)}</table>"


def _plots(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    moments = figures["moments"]
    if len(moments) < 2:
        return
    from .plots import OURS, THEIRS, THIRD

    times = [each["at"] for each in moments]
    limits = [each["rate_limit"] for each in moments]
    speed = [("posts a second", [each["posts_a_second"] for each in moments], OURS)]
    if any(limits):
        speed.append(("the relay's own limit", [each or float("nan") for each in limits], THEIRS))
    found = next((at for at, limit in zip(times, limits, strict=True) if limit is not None), None)
    yield "Posts a second", _lines_over(times, speed, "a second", found)
    latencies = [
        (name, [each["latency"][at] * 1000 for each in moments], colour)
        for at, (name, colour) in enumerate((("p50", OURS), ("p95", THIRD), ("p99", THEIRS)))
    ]
    yield "How long a post took", _lines_over(times, latencies, "ms")
    yield "Delivered", _lines_over(times, [("deliveries", [each["delivered"] for each in moments], OURS)], "in all")
    requeued = [("posts in flight", [each["in_flight"] for each in moments], OURS)]
    requeued.append(("jobs in the retry queue", [each["requeued"] for each in moments], THEIRS))
    yield "Under way", _lines_over(times, requeued, "")


def _lines_over(
    times: list[float], lines: list[tuple[str, list[float], str]], unit: str, limit_found: float | None = None
) -> str:
    """The lines over time, and a mark at the moment a rate limit was first seen."""
    from .plots import FLOOR, figure

    written = StringIO()
    with figure(written, height=3.0) as axes:
        for name, values, colour in lines:
            axes.plot(times, values, color=colour, label=name)
        if limit_found is not None:
            axes.axvline(limit_found, color=FLOOR, linestyle=":", linewidth=1, label="a rate limit is found")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        axes.legend(frameon=False)
    return written.getvalue()[written.getvalue().index("<svg") :]
