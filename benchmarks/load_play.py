"""Plays a load test with a bar on the terminal, writes its files and shows its summary; or two, clean and chaotic."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from typing import Any

from rich.console import Console  # noqa: TC002 - it costs nothing here

from async_relay.sandbox import new_event_loop

from . import chaos as preset
from . import command
from .against import side_by_side
from .bar import bar
from .load_figures import measures, summary
from .load_options import Carrier, Options
from .load_report import now, show
from .load_run import Load
from .machine import machine
from .stage import ROOT
from .verdict import Ending
from .world import Endpoint, Memory, Servers, World

RESULTS = ROOT / "benchmarks" / "results"
# Seconds between two looks at the figures.
_TICK = 0.5


def _world(options: Options) -> World:
    if options.endpoint:
        return Endpoint(options.endpoint, options.table)
    if options.transport is Carrier.MEMORY:
        return Memory(options.shares, options.seed, options.lag, options.arrays)
    return Servers(options.shares, options.seed, options.lag, options.account_limit, options.arrays)


def compare(options: Options, console: Console) -> tuple[int, dict[str, Any]]:
    """The same load with and without what is wrong, and whether the healthy clients noticed."""
    calm = replace(options, shares=dict.fromkeys(options.shares, 0.0), churn=0.0)
    console.rule("Clean")
    code, clean = play(calm, console, "load-clean")
    if code == command.STOPPED:
        return code, clean
    console.rule("Chaotic")
    worse, chaotic = play(options, console)
    if worse == command.STOPPED:
        return worse, chaotic
    console.rule("Event to delivery")
    side_by_side(measures(clean), measures(chaotic), ("clean", "chaotic"), console)
    found = preset.ratios(clean, chaotic)
    problem = preset.problem(found)
    if problem:
        console.print(f"✗ {problem}", style="red")
    else:
        console.print(f"✓ p95 is {found['p95']:.2f} times that of the clean run", style="green")
    return command.FAILED if problem else max(code, worse), chaotic


def play(options: Options, console: Console, name: str = "load") -> tuple[int, dict[str, Any]]:
    """The exit code, and the figures, which are also written to files of that name."""
    from . import load_page  # Late: plots take a second to load, and an option may be wrong.

    facts = machine()
    world = _world(options)
    load = Load(options, world)
    console.print(f"Posting through {world.settings['WS_ENDPOINT']}; Ctrl-C shows what there is so far", style="dim")
    ending: Ending | None = None
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            try:
                ending = runner.run(_watched(load, console))
            except KeyboardInterrupt:
                console.print("Stopped; what there is so far:")
    finally:
        load.watch.finish()
        world.close()
    figures = summary(load, ending, facts)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(figures, indent=1))
    (RESULTS / f"{name}.html").write_text(load_page.page(figures))
    show(figures, console)
    console.print(f"Written: {os.path.relpath(RESULTS / name)}.html and {name}.json beside it")
    if ending is None:
        return command.STOPPED, figures
    return command.FAILED if figures["problems"] else 0, figures


async def _watched(load: Load, console: Console) -> Ending:
    """Play with the figures on the screen meanwhile."""
    playing = asyncio.create_task(load.play())
    with bar(load.standing, console, lambda: now(load.watch, console.width)) as update:
        try:
            while not playing.done():
                await asyncio.wait([playing], timeout=_TICK)
                load.watch.take(load.sandbox.rate_limit, len(load.retries), load.clients)
                update()
        finally:
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
    return await playing
