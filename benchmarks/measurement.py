"""The real Broadcaster over the memory transport, on the machine's own clock, beside the simulation.

    python -m benchmarks.measurement --clients 1000 --clients 10000 --clients 100000

The CPU time of a post is measured first, without a limit, and given to the simulation. Then each number of
clients is served in four ways: by one function without a limit, by one at half the rate it can reach, by
eight that share that half, and by one with so many posts in flight that its CPU is the bound.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from random import Random
from typing import Annotated, Any

import typer

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.rate import Rate
from async_relay.planning.scenario import Delays, Scenario, percentile
from async_relay.planning.simulation import simulate
from async_relay.planning.values import DIRECT, FANOUT, SIGMA, Setup, Traffic
from async_relay.testing.memory import MemoryStore, MemoryTransport, Reply
from async_relay.wire.jobs import Job, Shard
from async_relay.wire.messages import Message

from . import command

#: Short pages: the in-memory store filters the whole page for each shard, which DynamoDB does for us.
_ROWS = 1_000
#: A limit well below what one function reaches, so that it binds however fast the machine is at that moment.
_HALF = 0.5
#: The default of FanoutWorkers.
_WORKERS = 8
#: A latency and a number of posts in flight at which nothing but the CPU is waited for.
_SHORT = 0.002
_MANY = 2_000


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds until half, 99 % and all of the clients had the message."""

    half: float
    most: float
    last: float

    def errors(self, simulated: Figures) -> tuple[float, float, float]:
        """The error of the simulation, as a part of the measured value."""
        return (
            simulated.half / self.half - 1,
            simulated.most / self.most - 1,
            simulated.last / self.last - 1,
        )


class _Timed(MemoryTransport):
    """A transport that notes the time of each answer."""

    def __init__(self, latency: float, seed: int) -> None:
        super().__init__(self._reply, keep=False, timeout=60.0)
        self._median = latency
        self._random = Random(seed)
        self.answered: list[float] = []

    def _reply(self, _id: str, _message: Message) -> Reply:
        return Reply(200, self._median * exp(self._random.gauss(0.0, SIGMA)))

    def _answer(self, lane: Any, error: Any, done: Any) -> None:
        self.answered.append(time.perf_counter())
        super()._answer(lane, error, done)


async def measure(
    clients: int, latency: float, places: int, ceiling: float | None, workers: int, seed: int = 1
) -> Figures:
    """Serve one message to all, ``workers`` broadcasters in one process, each at ``ceiling`` posts a second."""
    message = Message.encode({"kind": "incident_update", "incident_id": "i-1", "event_id": "e", "sequence": "1"})
    transports = [_Timed(latency, seed + worker) for worker in range(workers)]
    broadcasts = []
    for worker, transport in enumerate(transports):
        store = MemoryStore([f"c{at}=" for at in range(worker, clients, workers)], page_size=_ROWS)
        limits = Limits(places, 60.0)
        broadcaster = Broadcaster(transport, store, limits, Rate(ceiling), Random(seed), time.time)
        broadcasts.append(broadcaster.broadcast([Job((message,), shard=Shard())], 600.0))
    began = time.perf_counter()
    await asyncio.gather(*broadcasts)
    answered = [(each - began, 1) for transport in transports for each in transport.answered]
    assert len(answered) == clients
    return Figures(percentile(answered, 0.5), percentile(answered, 0.99), max(answered)[0])


def simulated(clients: int, latency: float, places: int, ceiling: float | None, workers: int, cpu: float) -> Figures:
    """The same in the simulation, without what only AWS has."""
    quota = 1e9 if ceiling is None else ceiling * workers
    setup = Setup(quota, concurrency=places, cpu_per_post=cpu, shards=workers, workers=workers)
    delays = Delays(poll=0.0, invoke=0.0, page=0.0, rows=_ROWS, send=0.0, hop=0.0, cold=0.0, usable=600.0)
    mode = FANOUT if workers > 1 else DIRECT
    traffic = Traffic(clients, latency=latency, session=1e9)
    scenario = Scenario(traffic, setup, mode, bursts=1, account_burst=1e9, ceilings=ceiling is not None, delays=delays)
    out = simulate(scenario)
    return Figures(out.until(0.5), out.until(0.99), out.last)


async def cpu_per_post(clients: int = 20_000) -> float:
    """Seconds of CPU a post costs here: answers come at once, so nothing else takes time."""
    best = min([(await measure(clients, 1e-6, 100, None, 1)).last for _ in range(3)])
    return best / clients


async def compare(sizes: Sequence[int], latency: float, places: int) -> list[dict[str, object]]:
    """Measured, simulated and the error, for each size and way."""
    rows: list[dict[str, object]] = []
    for clients in sizes:
        cpu = await cpu_per_post()
        free = await measure(clients, latency, places, None, 1)
        rate = _HALF * min(1 / cpu, clients / free.last)
        for way, wait, bound, ceiling, workers in (
            ("one, no limit", latency, places, None, 1),
            ("one, limited", latency, places, rate, 1),
            ("eight, limited", latency, places, rate / _WORKERS, _WORKERS),
            ("one, all its CPU", _SHORT, _MANY, None, 1),
        ):
            cpu = await cpu_per_post()
            found = free if way == "one, no limit" else await measure(clients, wait, bound, ceiling, workers)
            model = simulated(clients, wait, bound, ceiling, workers, cpu)
            errors = found.errors(model)
            rows.append(
                {
                    "clients": clients,
                    "way": way,
                    "cpu_us": round(cpu * 1e6, 1),
                    "measured": [round(each, 3) for each in (found.half, found.most, found.last)],
                    "simulated": [round(each, 3) for each in (model.half, model.most, model.last)],
                    "error": [round(each, 3) for each in errors],
                }
            )
    return rows


def main(
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1_000_000, metavar="N", help="may be repeated; default: 1000, 10000 and 100000"),
    ] = None,
    latency: Annotated[float, typer.Option(min=0, max=60, metavar="SECONDS", help="the median of a post")] = 0.02,
    concurrency: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="posts in flight")] = 100,
) -> int:
    """Print a JSON line per comparison of the real Broadcaster with the simulation."""
    for row in asyncio.run(compare(clients or (1_000, 10_000, 100_000), latency, concurrency)):
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    command.run(main)
