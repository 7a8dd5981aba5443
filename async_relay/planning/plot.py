"""The plan from 1,000 to 1,000,000 clients as an SVG: seconds until the last client, and dollars per month.

matplotlib comes with the extra ``plots`` and is imported only here, when a plot is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .costs import alternatives
from .model import plan
from .scenario import Simulated
from .values import DIRECT, FANOUT, Setup, Traffic

#: Numbers of clients: four to each power of ten for the lines; the round ones for the points of the simulation,
#: which takes seconds for a million.
SIZES = tuple(round(10 ** (3 + step / 4)) for step in range(13))
ROUND_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_COLOURS = {DIRECT: "#b5651d", FANOUT: "#1f5fa8", "AppSync Events": "#7a3e9d", "IoT Core": "#2e7d32"}

Simulator = Callable[[Traffic, str], Simulated]


def draw(path: Path, traffic: Traffic, setup: Setup, simulator: Simulator | None = None) -> None:
    """Write the SVG; ``simulator`` adds points. Raises ``ImportError`` without matplotlib, ``OSError`` as open does."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise ImportError("a plot needs matplotlib: install it from the checkout: pip install '.[plots]'") from None

    mpl.use("svg")
    from matplotlib import pyplot as plt

    settings: Any = {
        "svg.hashsalt": "async-relay",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(settings):
        figure, (times, dollars) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
        try:
            _draw_times(times, traffic, setup, simulator)
            _draw_dollars(dollars, traffic, setup)
            figure.suptitle(
                f"{traffic.messages_per_second:g} messages a second, {traffic.burst} at a time, "
                f"{traffic.payload:,} bytes, {setup.quota:,.0f} posts a second{_of_frames(traffic, setup)}"
            )
            figure.savefig(path, format="svg", metadata={"Date": None})
        finally:
            plt.close(figure)


def _of_frames(traffic: Traffic, setup: Setup) -> str:
    waits = f", {setup.window:g} s window" if setup.window else ""
    return (f", {traffic.frames:.0%} read arrays" if traffic.frames else "") + waits


def _draw_times(axes: Any, traffic: Traffic, setup: Setup, simulator: Simulator | None) -> None:
    for mode in (DIRECT, FANOUT):
        plans = [plan(replace(traffic, clients=clients), setup, mode) for clients in SIZES]
        axes.plot(SIZES, [each.speed.last for each in plans], color=_COLOURS[mode], label=mode)
        late = [each.traffic.clients for each in plans if not each.keeps_up]
        if late:
            axes.axvline(late[0], color=_COLOURS[mode], linewidth=0.8, linestyle=":", label=f"{mode} is too slow")
        if simulator is not None:
            points = [simulator(replace(traffic, clients=clients), mode).last for clients in ROUND_SIZES]
            axes.plot(ROUND_SIZES, points, "o", color=_COLOURS[mode], markersize=4, label=f"{mode}, simulated")
    _label(axes, "until the last client has a burst, seconds")


def _draw_dollars(axes: Any, traffic: Traffic, setup: Setup) -> None:
    relay = [sum(plan(replace(traffic, clients=clients), setup, FANOUT).costs.values()) for clients in SIZES]
    axes.plot(SIZES, relay, color=_COLOURS[FANOUT], label="async-relay, fanout")
    others: dict[str, Sequence[float]] = {
        name: [sum(alternatives(replace(traffic, clients=clients))[name].values()) for clients in SIZES]
        for name in alternatives(traffic)
    }
    for name, values in others.items():
        axes.plot(SIZES, values, color=_COLOURS.get(name, "#666666"), linestyle="--", label=name)
    _label(axes, "US dollars a month")


def _label(axes: Any, title: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("clients")
    axes.set_title(title, loc="left")
    axes.grid(visible=True, which="major", linewidth=0.4, alpha=0.6)
    axes.legend(frameon=False, fontsize=8)
