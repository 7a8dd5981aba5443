"""``async-relay plan``: how far a relay goes, what binds first, and what it costs, without an AWS account."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from async_relay.planning import quantities
from async_relay.planning.advice import advise
from async_relay.planning.costs import alternatives
from async_relay.planning.model import plan
from async_relay.planning.plot import draw
from async_relay.planning.prices import DATED, PRICES, REGION
from async_relay.planning.scenario import Scenario, Simulated
from async_relay.planning.simulation import simulate
from async_relay.planning.values import (
    DIRECT,
    FANOUT,
    MOST_IN_FLIGHT,
    STREAM_BATCH,
    STREAM_BATCHES,
    Advice,
    Plan,
    Setup,
    Traffic,
)
from async_relay.settings import POSTS_IN_FLIGHT
from async_relay.wire.frames import FRAME_BYTES

from . import plan_report, plan_tables, screen
from .failure import USAGE, CommandError

T = TypeVar("T")

#: Bursts of a simulation: enough for a middle and a worst one, and fewer where these posts, a few seconds' work,
#: are reached before.
_SIMULATED_BURSTS = 20
_SIMULATED_POSTS = 5_000_000
_MODES = (DIRECT, FANOUT)


def _option(name: str, parse: Callable[[str], T], metavar: str, help_: str, shown: str | None = None) -> Any:
    """An option that takes what ``parse`` of ``quantities`` takes, like 25k, 20ms or 2KB; ``shown`` is its default."""

    def read(given: str | T) -> T:
        if not isinstance(given, str):
            return given  # The default.
        try:
            return parse(given)
        except ValueError as expected:
            raise typer.BadParameter(f"{given!r} is not {expected}") from None

    return typer.Option(name, parser=read, help=help_, metavar=metavar, show_default=shown or True)


def _whole(name: str, low: int, high: int, help_: str, like: str = "") -> Any:
    return _option(name, partial(quantities.whole, low=low, high=high, like=like), "N", help_)


def _time(name: str, low: float, high: float, help_: str, shown: str, like: str) -> Any:
    return _option(name, partial(quantities.seconds, low=low, high=high, like=like), "TIME", help_, shown)


def _size(name: str, low: int, high: int, help_: str, like: str) -> Any:
    return _option(name, partial(quantities.size, low=low, high=high, like=like), "BYTES", help_)


@screen.report_errors
def show(
    context: typer.Context,
    *,
    clients: Annotated[
        int | None, _whole("--clients", 1, 100_000_000, "Connected clients: 25000, 25k, 1M.", "20,000 or 20k")
    ] = None,
    messages: Annotated[
        float,
        _option(
            "--messages-per-second",
            partial(quantities.number, low=0.000001, high=100_000, like="0.01"),
            "N",
            "On average, day and night.",
        ),
    ] = 0.1,
    burst: Annotated[int, _whole("--burst", 1, 100_000, "Messages that come at once.", "100")] = 1,
    payload: Annotated[int, _size("--payload", 1, 131_072, "The size of one message.", "600 or 2KB")] = 600,
    frames: Annotated[
        float,
        _option(
            "--frames",
            partial(quantities.share, like="0.5 or 50%"),
            "SHARE",
            "The share of the clients that read arrays (async-relay.v2): 0.5 or 50%.",
        ),
    ] = 0.0,
    latency: Annotated[
        float, _time("--latency", 0.0001, 60, "The median time of one post; measure yours.", "20ms", "20ms")
    ] = 0.02,
    session: Annotated[
        float, _time("--session", 1, 7_200, "How long a client stays connected.", "2h", "90m")
    ] = 7_200.0,
    quota: Annotated[
        int, _whole("--quota", 1, 10_000_000, "The account's API Gateway quota, requests per second.", "10,000 or 10k")
    ] = 10_000,
    others: Annotated[
        int,
        _whole(
            "--others",
            0,
            10_000_000,
            "The part of it that other APIs use; the template keeps 2000 for retries.",
            "2,000 or 2k",
        ),
    ] = 0,
    shards: Annotated[int, _whole("--shards", 1, 1_000, "FanoutShards.")] = 8,
    workers: Annotated[int, _whole("--workers", 2, 1_000, "FanoutWorkers.")] = 8,
    concurrency: Annotated[
        int, _whole("--concurrency", 1, MOST_IN_FLIGHT, "MaxConcurrency: posts in flight in a function.")
    ] = POSTS_IN_FLIGHT,
    cpu: Annotated[float, _time("--cpu-per-post", 0.000001, 1, "CPU time of one post.", "25us", "25us")] = 0.000025,
    stream_shards: Annotated[
        int, _whole("--stream-shards", 1, 10_000, "Shards of the Incident table's stream; the template counts 4.")
    ] = 1,
    batch: Annotated[
        int,
        _option(
            "--batch",
            partial(quantities.one_of, values=STREAM_BATCHES),
            "N",
            "StreamBatchSize: records sent together, at most.",
        ),
    ] = STREAM_BATCH,
    window: Annotated[
        float,
        _option(
            "--window",
            partial(quantities.whole_seconds, low=0, high=300, like="5s or 2m"),
            "TIME",
            "StreamBatchingWindowSeconds: how long they wait for each other.",
            "0s",
        ),
    ] = 0.0,
    frame_bytes: Annotated[int, _size("--frame-bytes", 1_024, 131_072, "FrameBytes.", "32KB")] = FRAME_BYTES,
    lambdas: Annotated[int, _whole("--lambda-concurrency", 1, 1_000_000, "The account's Lambda quota.")] = 1_000,
    groups: Annotated[
        int, _whole("--groups-per-batch", 1, 10, "Shards that Lambda hands to one worker at a time.")
    ] = 1,
    index: Annotated[bool, typer.Option("--index/--no-index", help="CONNECTIONS_INDEX is set.")] = False,
    feed: Annotated[bool, typer.Option("--feed/--no-feed", help="FEED_TABLE is set.")] = False,
    sweep: Annotated[bool, typer.Option("--sweep/--no-sweep", help="CONNECTIONS_INDEX_SWEEP.")] = True,
    simulated: Annotated[bool, typer.Option("--simulate", help="Simulate it as well.")] = False,
    seed: Annotated[int, _whole("--seed", 0, 1_000_000_000, "Seed of the simulation.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
    table: Annotated[
        plan_tables.Kind | None, typer.Option("--table", help="Only a table of docs/scaling.md, as Markdown.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw 1,000 to 1,000,000 clients into this SVG.")
    ] = None,
) -> None:
    """Say how fast a broadcast is, and what a month costs. Names the limit that binds first."""
    if clients is None and table in (None, plan_tables.Kind.WINDOWS):
        raise CommandError("no clients: give --clients, like 10k", USAGE)
    if table is not None:
        plan_tables.refuse(table, _given(context), frames)
    traffic = Traffic(clients or 1, messages, burst, payload, latency, session, frames)
    setup = Setup(
        quota,
        others,
        shards,
        workers,
        concurrency,
        cpu,
        index=index,
        sweep=sweep,
        stream_shards=stream_shards,
        lambda_concurrency=lambdas,
        groups_per_batch=groups,
        feed=feed,
        batch=batch,
        window=window,
        frame_bytes=frame_bytes,
    )
    if setup.others >= setup.quota:
        raise CommandError(f"--others is {others:,.0f}; it must leave something of the quota of {quota:,.0f}", USAGE)
    if table is not None:
        print(*plan_tables.lines(table, traffic, setup), sep="\n")
        return
    if plot is not None:
        _plot(plot, traffic, setup, seed if simulated else None)
    plans = {mode: plan(traffic, setup, mode) for mode in _MODES}
    runs = {mode: _simulate(traffic, setup, mode, seed) for mode in _MODES if simulated}
    if as_json:
        print(json.dumps(_fields(plans, advise(traffic, setup), runs), indent=2, allow_nan=False))
    else:
        plan_report.show(plans, advise(traffic, setup), runs)


def _given(context: typer.Context) -> list[str]:
    """The parameters on the command line; by name, since typer has brought a click of its own from some version on."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _simulate(traffic: Traffic, setup: Setup, mode: str, seed: int) -> Simulated:
    """As many bursts as take no more than seconds."""
    bursts = max(1, min(_SIMULATED_BURSTS, _SIMULATED_POSTS // (traffic.clients * traffic.burst)))
    return simulate(Scenario(traffic, setup, mode, bursts=bursts, seed=seed))


def _plot(path: Path, traffic: Traffic, setup: Setup, seed: int | None) -> None:
    if path.suffix.lower() != ".svg":
        raise CommandError(f"--plot is {str(path)!r}; it must be the name of an SVG file", USAGE)
    simulator = None if seed is None else lambda there, mode: _simulate(there, setup, mode, seed)
    try:
        draw(path, traffic, setup, simulator)
    except ImportError:
        raise CommandError("--plot needs matplotlib: install it from the checkout: pip install '.[plots]'") from None
    except OSError as error:
        raise CommandError(f"--plot {path} cannot be written: {error.strerror or error}") from None


def _fields(plans: dict[str, Plan], advice: Advice, runs: dict[str, Simulated]) -> dict[str, Any]:
    some = plans[DIRECT]
    return {
        "traffic": asdict(some.traffic) | {"deliveries_per_second": some.traffic.deliveries_per_second},
        "setup": asdict(some.setup),
        "advice": asdict(advice),
        "modes": {mode: _mode_fields(each, runs.get(mode)) for mode, each in plans.items()},
        "alternatives": {
            name: {"costs": parts, "total": sum(parts.values())} for name, parts in alternatives(some.traffic).items()
        },
        "prices": {
            "dated": DATED,
            "region": REGION,
            "currency": "USD",
            "table": {
                name: {
                    "unit": price.unit,
                    "tiers": [[_finite(end), dollars] for end, dollars in price.tiers],
                    "source": price.source,
                    "checked": price.checked,
                }
                for name, price in PRICES.items()
            },
        },
    }


def _mode_fields(one: Plan, run: Simulated | None) -> dict[str, Any]:
    pace = {name: _finite(value) for name, value in asdict(one.speed).items()}
    fields = {
        "speed": pace | {"p50": one.speed.until(0.5), "p99": one.speed.until(0.99), "keeps_up": one.keeps_up},
        "load": asdict(one.load),
        "limits": [asdict(limit) | {"share": limit.share} for limit in one.limits],
        "first_limit": one.first.name,
        "costs": dict(one.costs),
        "total": sum(one.costs.values()),
    }
    if run is not None:
        figures = {name: value for name, value in asdict(run).items() if name not in ("times", "lasts")}
        times = {"p50": run.until(0.5), "p99": run.until(0.99), "last": run.last, "worst": run.worst}
        fields["simulated"] = figures | times | {"bursts": len(run.lasts)}
    return fields


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not isfinite(value) else value
