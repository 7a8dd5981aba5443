"""The benchmark's plots as SVG: text stays text, colours that colour-blind eyes can tell, light and dark.

A plot has a ground of its own, so it can be read on any page. It is dark where the reader's system is: a style element
in the SVG says so, which GitHub and browsers follow in a picture too. What cannot read it shows the light one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl

from .figures import Results, Sample, ratio

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's palette; in lower case, as matplotlib writes them.
OURS, THEIRS, FLOOR, THIRD, FOURTH = "#0072b2", "#d55e00", "#7f7f7f", "#009e73", "#b0568c"
# Never plain black: matplotlib leaves that out of the SVG, and there would be nothing to turn light.
INK, GROUND = "#1f2328", "#ffffff"
#: The colour that takes each one's place on a dark ground.
DARK = {
    INK: "#e6edf3",
    GROUND: "#0d1117",
    OURS: "#56b4e9",
    THEIRS: "#ff8f4d",
    FLOOR: "#9aa4af",
    THIRD: "#3fc79a",
    FOURTH: "#e58fc0",
}
_DARK_RULES = "".join(
    f'[style*="{what}: {light}"]{{{what}:{dark} !important}}'
    for light, dark in DARK.items()
    for what in ("fill", "stroke")
)
_OURS = ("direct", "sdk", "direct-posts", "aiofastnet")
_STYLE: Any = {
    "font.size": 11,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "async-relay",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "figure.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.facecolor": GROUND,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK
    ),
}


def draw(results: Results, directory: Path) -> dict[str, Path]:
    """Every plot there are figures for, by name."""
    made: dict[str, Path] = {}
    plots: Sequence[tuple[str, Sequence[Sample], Callable[[Results, Path], None]]] = (
        ("comparison", results.comparison, _comparison),
        ("concurrency", results.by_concurrency, _concurrency),
        ("latency", results.by_latency, _latency),
        ("clients", results.by_clients, _clients),
    )
    for name, samples, plot in plots:
        if any(each.runs for each in samples):
            made[name] = directory / f"{name}.svg"
            plot(results, made[name])
    return made


@contextmanager
def figure(path: Path | IO[str], width: float = 8.0, height: float = 4.0) -> Iterator[Any]:
    """Axes that are saved at the end."""
    with plt.rc_context(_STYLE):
        picture, axes = plt.subplots(figsize=(width, height), layout="constrained")
        yield axes
        written = StringIO()
        picture.savefig(written, format="svg", metadata={"Date": None})
        plt.close(picture)
    dark = f"@media (prefers-color-scheme: dark){{{_DARK_RULES}}}</style>"
    plot = written.getvalue().replace("</style>", dark, 1)
    if isinstance(path, Path):
        path.write_text(plot)
    else:
        path.write(plot)


def _comparison(results: Results, path: Path) -> None:
    samples = sorted((each for each in results.comparison if each.runs), key=lambda each: -each.cpu.median)
    with figure(path, height=0.42 * len(samples) + 1.3) as axes:
        for at, sample in enumerate(samples):
            cpu = sample.cpu
            axes.barh(at, cpu.median, color=_colour(sample), height=0.7)
            axes.plot([cpu.low, cpu.high], [at, at], color=INK, linewidth=1)
            times = ratio(results, sample.name)
            beside = "" if times is None or sample.name == "direct" else f"  ({times:.1f} times)"
            axes.annotate(
                f"{cpu.median:,.0f} µs{beside}", (cpu.high, at), xytext=(5, 0), textcoords="offset points", va="center"
            )
        axes.set_xlim(right=max(each.cpu.high for each in samples) * 1.25)
        axes.set_yticks(range(len(samples)), [_label(each) for each in samples])
        axes.set_xlabel("µs of CPU a delivery (line: lowest to highest run)\n* a whole handler; the others only post")
        axes.set_title("What one delivery to a WebSocket client costs")


def _label(sample: Sample) -> str:
    return f"{sample.title}{' *' if sample.whole else ''}"


def _colour(sample: Sample) -> str:
    if sample.name == "wrk":
        return FLOOR
    return OURS if sample.name in _OURS else THEIRS


def _lines(axes: Any, samples: Sequence[Sample], at: Callable[[Sample], float], y: Callable[[Sample], float]) -> None:
    for name in dict.fromkeys(each.name for each in samples):
        own = [each for each in samples if each.name == name]
        xs, ys = [at(each) for each in own], [y(each) for each in own]
        axes.plot(xs, ys, marker="o" if name == "direct" else "s", color=_colour(own[0]), label=own[0].title)
        axes.annotate(f"{ys[-1]:,.0f}", (xs[-1], ys[-1]), xytext=(6, 4), textcoords="offset points")


def _concurrency(results: Results, path: Path) -> None:
    samples = [each for each in results.by_concurrency if each.runs]
    with figure(path) as axes:
        _lines(axes, samples, lambda each: each.concurrency, lambda each: each.rate.median)
        axes.axhline(10_000, color=FLOOR, linestyle="--", linewidth=1)
        axes.annotate(
            "an account's default limit", (samples[0].concurrency, 10_000), xytext=(0, 4), textcoords="offset points"
        )
        axes.set_xlabel("posts in flight")
        axes.set_title("Deliveries a second from one process, the gateway 8 ms away")
        _logarithmic(axes)


def _latency(results: Results, path: Path) -> None:
    samples = [each for each in results.by_latency if each.runs]
    with figure(path) as axes:
        _lines(axes, samples, lambda each: each.latency_ms, lambda each: each.rate.median)
        axes.set_xlabel("latency of the gateway, ms")
        axes.set_title(f"Deliveries a second from one process, {samples[0].concurrency} in flight")
        _logarithmic(axes)


def _logarithmic(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("a second, logarithmic")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _clients(results: Results, path: Path) -> None:
    samples = [each for each in results.by_clients if each.runs]
    with figure(path, height=3.4) as axes:
        sizes = [each.clients for each in samples]
        axes.plot(sizes, [each.cpu.median for each in samples], marker="o", color=OURS, label="CPU a delivery, µs")
        axes.plot(sizes, [each.memory for each in samples], marker="s", color=THIRD, label="peak memory, MB")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("clients, logarithmic")
        axes.set_title("Cost of a delivery and peak memory, by the number of clients")
        axes.legend(frameon=False)
