"""The relay and what one would use instead, side by side: CPU, speed and the ratios between them.

    make bench                                   everything, under ten minutes
    python -m benchmarks.bench --quick           a minute, for a look
    make bench BENCH='--against before.json'     beside an earlier run, which wrote it with --json before.json
    python -m benchmarks.bench --publish         also into docs/benchmarks/

Rules
- One run, everybody in turn, again and again: the same machine differs by half within an hour, ratios do not.
- CPU is the client process's own, user and system, around a broadcast; imports and first handshakes come before.
- TLS is verified and every post signed, except by wrk. Whether the signatures are right is a pass of its own.
- How busy the gateway was stands beside every figure: had it been the bottleneck, the figure would be its own.
- A contender that cannot be installed is named with the reason, and left out.
- A goal that is missed is named, and makes the exit code 1.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import command
from .against import PANEL, Against, AsJson, Run, earlier, run_of, show
from .bench_run import Bench, Options
from .command import CommandError, Switch
from .contenders import CONTENDERS, Contender
from .figures import Results, goals, measures
from .stage import ROOT, least_body

RESULTS = ROOT / "benchmarks" / "results"
_PUBLISHED = ROOT / "docs" / "benchmarks"


def chosen(names: str) -> list[Contender]:
    """The contenders with these names, all of them for an empty text; raises ``CommandError``."""
    if not names:
        return list(CONTENDERS)
    known = {each.name: each for each in CONTENDERS}
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise CommandError(f"--peers has {name!r}, which is none of {', '.join(known)}")
    return [each for each in CONTENDERS if each.name in wanted]


_AMOUNT, _WHO = "How much", "Who and what"


def main(
    clients: Annotated[
        int,
        typer.Option(
            min=100,
            max=1_000_000,
            metavar="N",
            rich_help_panel=_AMOUNT,
            help="Clients that each broadcast goes to; a slow contender posts to a fifth of them.",
        ),
    ] = 10_000,
    concurrency: Annotated[
        int, typer.Option(min=1, max=1_000, metavar="N", rich_help_panel=_AMOUNT, help="Posts in flight at most.")
    ] = 100,
    latency: Annotated[
        float,
        typer.Option(
            min=0, max=10_000, metavar="MS", rich_help_panel=_AMOUNT, help="How long the gateway takes to answer."
        ),
    ] = 0.0,
    body: Annotated[
        int, typer.Option(min=1, max=131_072, metavar="BYTES", rich_help_panel=_AMOUNT, help="The size of a message.")
    ] = 600,
    repetitions: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000,
            metavar="N",
            rich_help_panel=_AMOUNT,
            help="Rounds, in each of which everybody is measured.",
        ),
    ] = 7,
    quick: Annotated[  # noqa: FBT002
        bool,
        typer.Option(
            "--quick", rich_help_panel=_AMOUNT, help="A look of a minute: 2,000 clients, 3 rounds, no sweeps."
        ),
    ] = False,
    peers: Annotated[
        str,
        typer.Option(
            metavar="NAME,NAME",
            rich_help_panel=_WHO,
            help=f"Who is measured; everybody where nothing is said: {', '.join(each.name for each in CONTENDERS)}.",
        ),
    ] = "",
    sweeps: Annotated[
        Switch,
        typer.Option(
            rich_help_panel=_WHO, help="Measure by posts in flight, by latency and by the number of clients as well."
        ),
    ] = Switch.ON,
    against: Against = None,
    as_json: AsJson = None,
    publish: Annotated[  # noqa: FBT002
        bool, typer.Option("--publish", rich_help_panel=PANEL, help="Write page and plots into docs/benchmarks/ too.")
    ] = False,
) -> int:
    """Measure the relay side by side with what one would use instead."""
    if body < least_body():
        raise CommandError(f"--body is {body}; the smallest message has {least_body()} bytes")
    if quick:
        clients, repetitions, sweeps = min(clients, 2_000), min(repetitions, 3), Switch.OFF
    before = earlier(against, "bench") if against else None
    options = Options(clients, concurrency, latency, body, repetitions, chosen(peers), sweeps is Switch.ON)
    console = Console()
    bench = Bench(options, console)
    status = 0
    try:
        bench.run()
    except KeyboardInterrupt:
        status = command.STOPPED
        console.print("Stopped; what there is so far:")
    except (CommandError, OSError, RuntimeError) as error:
        status = command.FAILED
        console.print(f"The benchmark cannot go on: {error}. What there is so far:", style="red")
    bench.results.interrupted = status != 0
    _write(bench.results, console, as_json, published=publish and not status)
    if before:
        console.rule("Against the earlier run")
        show(before, run(bench.results), console)
        console.print('CPU and speed change with the machine and the hour; "times ours" changes little.', style="dim")
    missed = not all(goal.reached for goal in goals(bench.results))
    return status or (command.FAILED if missed else 0)


def run(results: Results) -> Run:
    """The part that is compared with another run's."""
    return run_of("bench", results.machine, results.options, measures(results), whole=not results.interrupted)


def _write(results: Results, console: Console, as_json: Path | None, *, published: bool) -> None:
    from . import plots, report  # Late: plots take a second to load, and an option may be wrong.

    report.show(results, console)
    for directory in [RESULTS, *([_PUBLISHED] if published else [])]:
        directory.mkdir(parents=True, exist_ok=True)
        pictures = plots.draw(results, directory)
        (directory / "results.md").write_text(report.markdown(results, pictures))
        console.print(f"Written: {os.path.relpath(directory / 'results.md')}")
    for file in [RESULTS / "bench.json", *([as_json] if as_json else [])]:
        file.write_text(json.dumps({**asdict(results), "run": asdict(run(results))}, indent=1))


if __name__ == "__main__":
    command.run(main)
