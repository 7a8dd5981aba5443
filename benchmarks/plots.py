"""The benchmark's plots as SVG: text stays text, white ground of their own, colours that colour-blind eyes can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl

from .figures import Results, Sample, ratio

mpl.use("svg")
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

# Okabe and Ito's palette.
OURS, THEIRS, FLOOR, THIRD = "#0072B2", "#D55E00", "#7F7F7F", "#009E73"
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
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
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
        picture.savefig(path, format="svg", metadata={"Date": None})
        plt.close(picture)


def _comparison(results: Results, path: Path) -> None:
    samples = sorted((each for each in results.comparison if each.runs), key=lambda each: -each.cpu.median)
    with figure(path, height=0.42 * len(samples) + 1.3) as axes:
        for at, sample in enumerate(samples):
            cpu = sample.cpu
            axes.barh(at, cpu.median, color=_colour(sample), height=0.7)
            axes.plot([cpu.low, cpu.high], [at, at], color="black", linewidth=1)
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
