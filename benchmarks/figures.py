"""The measured figures and their evaluation: medians, spreads, ratios, goals. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from .peers.worker import Figures

#: The goals: CPU per delivery may grow by a tenth from the fewest clients to the most, which is the noise of a shared
#: machine; and the most must be served within so much memory.
FLAT = 1.1
MEMORY_MB = 150


class Spread(NamedTuple):
    """The middle and the ends."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(median(values), min(values), max(values))


def together(runs: Sequence[Figures]) -> Figures:
    """Several broadcasts as one."""
    delivered = sum(run.delivered for run in runs)
    return Figures(delivered, sum(run.cpu for run in runs), sum(run.wall for run in runs), runs[-1].memory)


@dataclass(slots=True)
class Sample:
    """All runs of one contender under the same conditions."""

    name: str
    title: str
    whole: bool
    concurrency: int
    latency_ms: float
    clients: int
    broadcasts: int = 1
    runs: list[Figures] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    signatures_checked: int = 0

    @property
    def cpu(self) -> Spread:
        """Microseconds of CPU a delivery."""
        return spread([run.cpu / run.delivered * 1e6 for run in self.runs])

    @property
    def rate(self) -> Spread:
        """Deliveries a second."""
        return spread([run.delivered / run.wall for run in self.runs])

    @property
    def wall(self) -> Spread:
        """Seconds a broadcast."""
        return spread([run.wall / self.broadcasts for run in self.runs])

    @property
    def memory(self) -> float:
        """The peak, in MB."""
        return max(run.memory for run in self.runs)

    @property
    def busy(self) -> float:
        """How much of one core the client used, at the median."""
        return median(run.cpu / run.wall for run in self.runs)

    @property
    def server_busy(self) -> float:
        """How much of one core the gateway's process used, at the median."""
        return median(self.server)


@dataclass(slots=True)
class Results:
    """One whole benchmark, or as much of it as there was time for."""

    machine: Mapping[str, str]
    options: Mapping[str, object]
    comparison: list[Sample] = field(default_factory=list)
    by_concurrency: list[Sample] = field(default_factory=list)
    by_latency: list[Sample] = field(default_factory=list)
    by_clients: list[Sample] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def sample(self, name: str) -> Sample | None:
        """A contender of the comparison, if it was measured."""
        return next((each for each in self.comparison if each.name == name and each.runs), None)


class Goal(NamedTuple):
    """Something to reach, what it came to, and whether that is enough."""

    goal: str
    came_to: str
    reached: bool


def ratio(results: Results, name: str, base: str = "direct") -> float | None:
    """How many times the CPU a delivery of ``base``: the median of the rounds' own, since noise comes in waves."""
    one, other = results.sample(name), results.sample(base)
    if one is None or other is None:
        return None
    pairs = zip(one.runs, other.runs, strict=False)
    return median((a.cpu / a.delivered) / (b.cpu / b.delivered) for a, b in pairs)


def goals(results: Results) -> list[Goal]:
    """Those that were measured."""
    return [*_ratio_goals(results), *_speed_goals(results), *_size_goals(results)]


def _ratio_goals(results: Results) -> list[Goal]:
    found = []
    naive, floor = ratio(results, "aioboto3-handler"), ratio(results, "direct", "wrk")
    if naive is not None:
        found.append(
            Goal("a naive aioboto3 handler needs at least 30 times the CPU", f"{naive:.1f} times", naive >= 30)
        )
        found.append(Goal("a naive aioboto3 handler needs rather 40 times the CPU", f"{naive:.1f} times", naive >= 40))
    if floor is not None:
        found.append(Goal("at most 2 times the CPU of wrk", f"{floor:.2f} times", floor <= 2))
    return found


def _speed_goals(results: Results) -> list[Goal]:
    found = []
    for each in results.by_concurrency:
        if each.name != "direct" or each.latency_ms != 8:
            continue
        if each.concurrency == 100 and each.clients == 10_000:
            wall = each.wall.median
            found.append(Goal("8 ms away, 100 in flight: 10,000 clients within 1.3 s", f"{wall:.2f} s", wall <= 1.3))
        if each.concurrency == 200:
            rate = each.rate.median
            found.append(Goal("8 ms away, 200 in flight: 10,000 a second", f"{rate:,.0f} a second", rate >= 10_000))
    return found


def _size_goals(results: Results) -> list[Goal]:
    costs = [each.cpu.median for each in results.by_clients]
    if len(costs) < 2:
        return []
    largest = results.by_clients[-1]
    flat = max(costs) / min(costs)
    least, most = results.by_clients[0].clients, largest.clients
    return [
        Goal(
            f"CPU a delivery within 10 % from {least:,} to {most:,} clients", f"{(flat - 1) * 100:.0f} %", flat <= FLAT
        ),
        Goal(f"{most:,} clients in {MEMORY_MB} MB", f"{largest.memory:.0f} MB", largest.memory <= MEMORY_MB),
    ]


def measures(results: Results) -> dict[str, float]:
    """The figures that two runs are compared by, each with its unit in its name."""
    return dict(_measures(results))


def _measures(results: Results) -> Iterator[tuple[str, float]]:
    for each in measured(results.comparison):
        times = ratio(results, each.name)
        if times is not None and each.name != "direct":
            yield f"{each.title}, times ours", times
    for each in measured(results.comparison):
        yield f"{each.title}, CPU µs", each.cpu.median
        yield f"{each.title}, a second", each.rate.median
    for each in measured(results.by_concurrency):
        yield f"{each.title}, {each.concurrency} in flight, a second", each.rate.median
    for each in measured(results.by_latency):
        yield f"{each.title}, {each.latency_ms:g} ms away, a second", each.rate.median
    for each in measured(results.by_clients):
        yield f"{each.clients:,} clients, CPU µs", each.cpu.median
        yield f"{each.clients:,} clients, peak MB", each.memory


def measured(samples: Sequence[Sample]) -> list[Sample]:
    """Those that were run at all."""
    return [each for each in samples if each.runs]
