"""The relay and what one would use instead, side by side: CPU, speed and the ratios between them.

    make bench                                   everything, under ten minutes
    python -m benchmarks.bench --quick           a minute, for a look
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
import platform
import random
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from . import command
from .command import CommandError, Switch
from .contenders import CONTENDERS, Contender, Running
from .figures import Results, Sample, goals, together
from .peers.installation import Unavailable
from .stage import ROOT, Stage, least_body, stage

RESULTS = ROOT / "benchmarks" / "results"
_PUBLISHED = ROOT / "docs" / "benchmarks"
# The sweeps: around the defaults, by the relay and the handler that most people would write.
_CONCURRENCIES = (10, 50, 100, 200, 400)
_LATENCIES = (0.0, 2.0, 8.0, 20.0)
_SIZES = (1_000, 10_000, 100_000)
_SWEPT = ("direct", "aioboto3-handler")
_SWEEP_LATENCY = 8.0
_SWEEP_REPETITIONS = 3
# Posts before anything is measured: more than any concurrency of the sweeps, so every socket has shaken hands.
_WARM_UP = 500
# Posts whose signatures are recomputed, which costs the gateway more than serving them.
_CHECKED = 200
# A run is repeated until it has so many deliveries: a small broadcast is over before it is warm.
_LEAST_DELIVERIES = 10_000


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    clients: int
    concurrency: int
    latency: float
    body: int
    repetitions: int
    peers: Sequence[Contender]
    sweeps: bool


class Bench:
    """One benchmark under way; ``results`` holds what there is so far."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
        self._extras: dict[str, Path | None] = {}
        shown = {"clients": options.clients, "in flight": options.concurrency, "latency ms": options.latency}
        self.results = Results(machine(), shown | {"body": options.body, "repetitions": options.repetitions})

    def run(self) -> None:
        """Everything, in order."""
        self._prepare()
        self._check_signatures()
        self._compare()
        if self._options.sweeps:
            self._sweep()

    def _prepare(self) -> None:
        for each in self._options.peers:
            try:
                self._console.print(f"Looking for {each.title}", style="dim")
                self._extras[each.name] = each.needs(RESULTS / "installed")
            except Unavailable as reason:
                self._leave_out(each, reason)

    def _leave_out(self, contender: Contender, reason: Unavailable) -> None:
        self._extras.pop(contender.name, None)
        self.results.missing[contender.name] = str(reason)
        self._console.print(f"Left out: {contender.title}: {reason}", style="yellow")

    def _there(self) -> list[Contender]:
        return [each for each in self._options.peers if each.name in self._extras]

    def _check_signatures(self) -> None:
        """Send a few posts of each to a gateway that recomputes every signature, and leave out those that fail."""
        with stage(verify=True) as here:
            here.table.call("fill", _CHECKED)
            for each in self._there():
                if each.signs:
                    self._console.print(f"Checking the signatures of {each.title}", style="dim")
                    self._check(each, here)

    def _check(self, contender: Contender, here: Stage) -> None:
        here.gateway.clear()
        try:
            with self._started(contender, here, self._options.concurrency) as running:
                running.run(_CHECKED)
        except Unavailable as reason:
            self._leave_out(contender, reason)
            return
        counters = here.gateway.counters()
        if counters.arrived != _CHECKED or counters.bad_signatures:
            problem = f"{counters.arrived} of {_CHECKED} arrived, {counters.bad_signatures} signatures were wrong"
            self._leave_out(contender, Unavailable(problem))

    @contextmanager
    def _started(self, contender: Contender, here: Stage, concurrency: int) -> Iterator[Running]:
        running = contender.start(here, here.setup(concurrency, self._options.body), self._extras[contender.name])
        try:
            yield running
        finally:
            running.close()

    def _compare(self) -> None:
        options = self._options
        with stage(latency=options.latency / 1000) as here:
            self._in_turn(
                here,
                [
                    (each, self._sample(each, options.concurrency, options.latency, self._share(each)))
                    for each in self._there()
                ],
                self.results.comparison,
                options.repetitions,
                "Comparing",
            )

    def _share(self, contender: Contender) -> int:
        return max(1, int(self._options.clients * contender.share))

    def _sample(self, contender: Contender, concurrency: int, latency: float, clients: int) -> Sample:
        return Sample(contender.name, contender.title, contender.whole, concurrency, latency, clients)

    def _sweep(self) -> None:
        swept = [each for each in self._there() if each.name in _SWEPT]
        direct = [each for each in swept if each.name == "direct"]
        with stage(latency=_SWEEP_LATENCY / 1000) as here:
            samples = [
                (each, self._sample(each, concurrency, _SWEEP_LATENCY, self._swept_clients(each)))
                for concurrency in _CONCURRENCIES
                for each in swept
            ]
            self._one_by_one(here, samples, self.results.by_concurrency, "By concurrency")
        for latency in _LATENCIES:
            with stage(latency=latency / 1000) as here:
                pairs = [
                    (each, self._sample(each, self._options.concurrency, latency, self._swept_clients(each)))
                    for each in swept
                ]
                self._one_by_one(here, pairs, self.results.by_latency, f"At {latency:g} ms")
        with stage() as here:
            sizes = [(each, self._size(each, size)) for size in _SIZES for each in direct]
            self._in_turn(here, sizes, self.results.by_clients, self._options.repetitions, "By number of clients")

    def _size(self, contender: Contender, clients: int) -> Sample:
        """A sample with enough broadcasts for ``_LEAST_DELIVERIES``."""
        sample = self._sample(contender, self._options.concurrency, 0.0, clients)
        sample.broadcasts = max(1, _LEAST_DELIVERIES // clients)
        return sample

    def _swept_clients(self, contender: Contender) -> int:
        return 10_000 if contender.name == "direct" else 1_000

    def _one_by_one(
        self, here: Stage, samples: Sequence[tuple[Contender, Sample]], into: list[Sample], title: str
    ) -> None:
        for pair in samples:
            self._in_turn(here, [pair], into, _SWEEP_REPETITIONS, f"{title}, {pair[1].concurrency} in flight")

    def _in_turn(
        self,
        here: Stage,
        samples: Sequence[tuple[Contender, Sample]],
        into: list[Sample],
        repetitions: int,
        title: str,
    ) -> None:
        """Start everybody, warm up, then round after round, each round in another order."""
        with ExitStack() as stack:
            running: list[tuple[Running, Sample]] = []
            for contender, sample in samples:
                try:
                    started = stack.enter_context(self._started(contender, here, sample.concurrency))
                    here.table.call("fill", _WARM_UP)
                    started.run(_WARM_UP)
                except Unavailable as reason:
                    self._leave_out(contender, reason)
                    continue
                running.append((started, sample))
                into.append(sample)
            with Progress(console=self._console, transient=True) as progress:
                task = progress.add_task(title, total=repetitions * len(running))
                for _ in range(repetitions):
                    for started, sample in random.sample(running, len(running)):
                        self._measure(here, started, sample)
                        progress.advance(task)

    def _measure(self, here: Stage, running: Running, sample: Sample) -> None:
        here.table.call("fill", sample.clients)
        before = here.gateway.counters()
        figures = together([running.run(sample.clients) for _ in range(sample.broadcasts)])
        after = here.gateway.counters()
        arrived = after.statuses.get(200, 0) - before.statuses.get(200, 0)
        if sample.name != "wrk" and not figures.delivered == arrived == sample.clients * sample.broadcasts:
            raise CommandError(
                f"{sample.title} delivered {figures.delivered:,} and the gateway answered {arrived:,} of "
                f"{sample.clients:,} posts: the figures would be worth nothing"
            )
        sample.runs.append(figures)
        sample.server.append((after.cpu_seconds - before.cpu_seconds) / figures.wall)


def machine() -> dict[str, str]:
    """The facts about this machine that the figures depend on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": f"{model}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "tls": ssl.OPENSSL_VERSION.rpartition(" ")[0].rsplit(" ", 2)[0],
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


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


def main(
    clients: Annotated[int, typer.Option(min=100, max=1_000_000, metavar="N")] = 10_000,
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="posts in flight")] = 100,
    latency: Annotated[float, typer.Option(min=0, max=10_000, metavar="MS", help="of the gateway's answers")] = 0.0,
    body: Annotated[int, typer.Option(min=1, max=131_072, metavar="BYTES")] = 600,
    repetitions: Annotated[int, typer.Option(min=1, max=1_000, metavar="N")] = 7,
    peers: Annotated[str, typer.Option(metavar="NAME,NAME", help="default: all")] = "",
    sweeps: Annotated[Switch, typer.Option(help="concurrency, latency, sizes")] = Switch.ON,
    quick: Annotated[bool, typer.Option("--quick", help="few clients, few repetitions, no sweeps")] = False,  # noqa: FBT002
    publish: Annotated[bool, typer.Option("--publish", help="also into docs/benchmarks/")] = False,  # noqa: FBT002
    as_json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write every figure there")] = None,
) -> int:
    """Measure the relay side by side with what one would use instead."""
    if body < least_body():
        raise CommandError(f"--body is {body}; the smallest message has {least_body()} bytes")
    if quick:
        clients, repetitions, sweeps = min(clients, 2_000), min(repetitions, 3), Switch.OFF
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
    missed = not all(goal.reached for goal in goals(bench.results))
    return status or (command.FAILED if missed else 0)


def _write(results: Results, console: Console, as_json: Path | None, *, published: bool) -> None:
    from . import plots, report  # Late: plots take a second to load, and an option may be wrong.

    report.show(results, console)
    for directory in [RESULTS, *([_PUBLISHED] if published else [])]:
        directory.mkdir(parents=True, exist_ok=True)
        pictures = plots.draw(results, directory)
        (directory / "results.md").write_text(report.markdown(results, pictures))
        console.print(f"Written: {os.path.relpath(directory / 'results.md')}")
    for file in [RESULTS / "bench.json", *([as_json] if as_json else [])]:
        file.write_text(json.dumps(asdict(results), indent=1))


if __name__ == "__main__":
    command.run(main)
