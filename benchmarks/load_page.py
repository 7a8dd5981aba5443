"""A load test as one HTML file that stands alone: its verdict, its summary, charts over time, its options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from io import StringIO
from typing import Any

from .load_report import lines
from .plots import FLOOR, FOURTH, OURS, THEIRS, THIRD, figure

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --ground: #ffffff; --well: #00664a; --wrong: #a33b00 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --ground: #0d1117; --well: #3fb68b; --wrong: #ff9f6b }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: var(--ink);
  background: var(--ground) }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { padding: .2rem 1rem .2rem 0; text-align: left; vertical-align: top }
td:last-child { font-variant-numeric: tabular-nums }
.well { color: var(--well) } .wrong { color: var(--wrong) }
svg { max-width: 100%; height: auto }
"""
#: What is marked below a chart at every moment where it came: its name, its outcomes, its mark and colour.
_MARKS = (
    ("429", ("throttled",), "v", THEIRS),
    ("sockets cut", ("disconnected", "cut at the deadline"), "x", FOURTH),
)


def page(figures: Mapping[str, Any]) -> str:
    """One HTML file with everything in it."""
    verdict = "".join(f'<p class="wrong">✗ {escape(each)}</p>' for each in figures["problems"])
    verdict = verdict or '<p class="well">✓ Everybody got what they should have got.</p>'
    plots = "".join(f"<h2>{escape(title)}</h2>{picture}" for title, picture in _plots(figures))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Load test</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style><h1>Load test</h1>{verdict}'
        f"<h2>What came of it</h2>{_rows(lines(figures))}{plots}"
        f"<h2>Options</h2>{_rows(figures['run']['options'].items())}</html>\n"
    )


def _rows(named: Iterable[tuple[str, str]]) -> str:
    rows = (f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in named)
    return f"<table>{''.join(rows)}</table>"


def _plots(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    moments = figures["moments"]
    if len(moments) < 2:
        return
    account = figures["options"]["account_limit"]
    limits = [each["rate_limit"] for each in moments]
    speed = [("posts a second", _each(moments, "posts_a_second"), OURS)]
    found = next((each["at"] for each in moments if each["rate_limit"] is not None), None)
    if found is not None:
        speed.append(("the relay's own limit", [each or float("nan") for each in limits], THIRD))
    yield "Posts a second", _over_time(moments, speed, "a second", account, found)
    latencies = [
        (name, [each["latency"][at] * 1000 for each in moments], colour)
        for at, (name, colour) in enumerate((("p50", OURS), ("p95", THIRD), ("p99", THEIRS)))
    ]
    yield "How long a post took", _over_time(moments, latencies, "ms")
    yield "Delivered", _over_time(moments, [("deliveries", _each(moments, "delivered"), OURS)], "in all")
    under_way = [("posts in flight", _each(moments, "in_flight"), OURS)]
    under_way.append(("jobs in the retry queue", _each(moments, "requeued"), THIRD))
    yield "Under way", _over_time(moments, under_way, "")


def _each(moments: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [each[name] for each in moments]


def _over_time(
    moments: Sequence[Mapping[str, Any]],
    drawn: Sequence[tuple[str, list[float], str]],
    unit: str,
    account: float | None = None,
    found: float | None = None,
) -> str:
    """The lines over time, with marks: the account's limit, when the relay found one, posts refused or cut."""
    times = _each(moments, "at")
    written = StringIO()
    with figure(written, height=3.2) as axes:
        for name, values, colour in drawn:
            axes.plot(times, values, color=colour, label=name)
        if account:
            axes.axhline(account, color=FLOOR, linestyle="--", linewidth=1, label="the account's limit")
        if found is not None:
            axes.axvline(found, color=FLOOR, linestyle=":", linewidth=1, label="a rate limit is found")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel(unit)
        _mark(axes, moments)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    return written.getvalue()[written.getvalue().index("<svg") :]


def _mark(axes: Any, moments: Sequence[Mapping[str, Any]]) -> None:
    """A mark on the ground line for each moment in which posts were refused or cut."""
    for height, (name, outcomes, marker, colour) in enumerate(_MARKS):
        counts = {each["at"]: sum(each["outcomes"].get(outcome, 0) for outcome in outcomes) for each in moments}
        marked = [at for at, count in counts.items() if count]
        if marked:
            axes.plot(
                marked,
                [0.03 + 0.06 * height] * len(marked),
                transform=axes.get_xaxis_transform(),
                linestyle="none",
                marker=marker,
                color=colour,
                label=f"{name}: {sum(counts.values()):,}",
            )
