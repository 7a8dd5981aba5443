"""One benchmark under way: everybody is looked for, checked, started and measured in turn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console  # noqa: TC002 - it costs nothing here

from .bar import Standing, bar
from .command import CommandError
from .contenders import Contender, Running
from .figures import Results, Sample, together
from .machine import machine
from .peers.installation import Unavailable
from .stage import ROOT, Stage, stage

_INSTALLED = ROOT / "benchmarks" / "results" / "installed"
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


@dataclass(frozen=True, slots=True)
class _Turn:
    """Contenders that are measured in turn, and where their samples go."""

    title: str
    samples: Sequence[tuple[Contender, Sample]]
    into: list[Sample]
    repetitions: int


class Bench:
    """One benchmark under way; ``results`` holds what there is so far."""

    def __init__(self, options: Options, console: Console) -> None:
        self._options = options
        self._console = console
        self._extras: dict[str, Path | None] = {}
        shown = {"clients": options.clients, "in flight": options.concurrency, "latency ms": options.latency}
        self.results = Results(machine(), shown | {"body": options.body, "repetitions": options.repetitions})
        self._stages = self._planned()
        self._later = [turn for _, turns in self._stages for turn in turns]
        self._measured = self._left = 0
        self._doing = ""

    def run(self) -> None:
        """Everything, in order."""
        with bar(self.standing, self._console) as self._update:
            self._prepare()
            self._check_signatures()
            for latency, turns in self._stages:
                with stage(latency=latency / 1000) as here:
                    for turn in turns:
                        self._in_turn(here, turn)

    def standing(self) -> Standing:
        """How many of all measurements are made, those not counted of who is left out."""
        planned = self._measured + self._left + sum(turn.repetitions * len(self._there(turn)) for turn in self._later)
        words = f"{self._measured:,} of {planned:,} measurements; {self._doing}"
        return Standing(self._measured / planned if planned else 1.0, words)

    def _tell(self, doing: str, *, aloud: bool = True) -> None:
        """Say what goes on now: on the bar, or ``aloud`` in a line of its own where there is no terminal."""
        self._doing = doing
        self._update()
        if aloud and not self._console.is_terminal:
            self._console.print(doing, style="dim")

    def _planned(self) -> list[tuple[float, list[_Turn]]]:
        """The turns on each stage, which has a latency in ms."""
        options, results = self._options, self.results
        everybody = [
            (each, self._sample(each, options.concurrency, options.latency, max(1, int(options.clients * each.share))))
            for each in options.peers
        ]
        stages = [(options.latency, [_Turn("Side by side", everybody, results.comparison, options.repetitions)])]
        return stages + self._sweeps() if options.sweeps else stages

    def _sweeps(self) -> list[tuple[float, list[_Turn]]]:
        swept = [each for each in self._options.peers if each.name in _SWEPT]
        sizes = [
            (each, self._size(each, clients))
            for clients in _SIZES
            for each in self._options.peers
            if each.name == "direct"
        ]
        by_size = _Turn("By number of clients", sizes, self.results.by_clients, self._options.repetitions)
        return [
            (
                _SWEEP_LATENCY,
                [
                    self._one(each, concurrency, _SWEEP_LATENCY, self.results.by_concurrency)
                    for concurrency in _CONCURRENCIES
                    for each in swept
                ],
            ),
            *(
                (
                    latency,
                    [self._one(each, self._options.concurrency, latency, self.results.by_latency) for each in swept],
                )
                for latency in _LATENCIES
            ),
            (0.0, [by_size]),
        ]

    def _one(self, contender: Contender, concurrency: int, latency: float, into: list[Sample]) -> _Turn:
        """One contender of a sweep."""
        clients = 10_000 if contender.name == "direct" else 1_000
        sample = self._sample(contender, concurrency, latency, clients)
        return _Turn(f"{latency:g} ms away, {concurrency} in flight", [(contender, sample)], into, _SWEEP_REPETITIONS)

    def _size(self, contender: Contender, clients: int) -> Sample:
        """A sample with enough broadcasts for ``_LEAST_DELIVERIES``."""
        sample = self._sample(contender, self._options.concurrency, 0.0, clients)
        sample.broadcasts = max(1, _LEAST_DELIVERIES // clients)
        return sample

    def _sample(self, contender: Contender, concurrency: int, latency: float, clients: int) -> Sample:
        return Sample(contender.name, contender.title, contender.whole, concurrency, latency, clients)

    def _prepare(self) -> None:
        for each in self._options.peers:
            try:
                self._tell(f"Looking for {each.title}")
                self._extras[each.name] = each.needs(_INSTALLED)
            except Unavailable as reason:
                self._leave_out(each, reason)

    def _leave_out(self, contender: Contender, reason: Unavailable) -> None:
        self.results.missing[contender.name] = str(reason)
        self._console.print(f"Left out: {contender.title}: {reason}", style="yellow")

    def _there(self, turn: _Turn) -> list[tuple[Contender, Sample]]:
        return [(each, sample) for each, sample in turn.samples if each.name not in self.results.missing]

    def _check_signatures(self) -> None:
        """Send a few posts of each to a gateway that recomputes every signature, and leave out those that fail."""
        with stage(verify=True) as here:
            here.table.call("fill", _CHECKED)
            for each in self._options.peers:
                if each.signs and each.name not in self.results.missing:
                    self._tell(f"Checking the signatures of {each.title}")
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

    def _in_turn(self, here: Stage, turn: _Turn) -> None:
        """Start everybody, warm up, then round after round, each round in another order."""
        self._later.pop(0)
        there = self._there(turn)
        self._left = turn.repetitions * len(there)
        self._tell(turn.title)
        with ExitStack() as stack:
            running: list[tuple[Running, Sample]] = []
            for contender, sample in there:
                self._tell(f"{turn.title}: starting {contender.title}", aloud=False)
                try:
                    started = stack.enter_context(self._started(contender, here, sample.concurrency))
                    here.table.call("fill", _WARM_UP)
                    started.run(_WARM_UP)
                except Unavailable as reason:
                    self._leave_out(contender, reason)
                    self._left -= turn.repetitions
                    continue
                running.append((started, sample))
                turn.into.append(sample)
            for round_ in range(turn.repetitions):
                for started, sample in random.sample(running, len(running)):
                    self._tell(f"{turn.title}, round {round_ + 1} of {turn.repetitions}: {sample.title}", aloud=False)
                    self._measure(here, started, sample)
                    self._measured += 1
                    self._left -= 1

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
