"""Bursts beside a naive handler: the cost of 1, 10 and 100 records at once, to clients that read objects or arrays.

    python -m benchmarks.bursts       some fifteen minutes; --clients 500 --repetitions 1 for a look

Rules
- Everybody in turn, round after round, each round in another order, as in ``bench``; the table is Markdown.
- The relay posts under a ceiling of the account's default quota, and its time is measured. The naive handler never
  comes near that quota. It posts to a tenth of the clients, and ten times its time is shown.
- Before that, a few clients get the burst from a gateway that keeps what arrives and checks signatures. Each must have
  every message once and in order, and in every measured round each client must have as many posts as those had.
- The gateway answers at once. Dollars are API Gateway's, for a million messages' posts, metered by 32 KB.
- "times": how many times as much CPU the naive handler takes, the median of the rounds' own ratios.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from math import ceil
from statistics import median
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from async_relay.planning.prices import PRICES
from async_relay.planning.values import POST_CHUNK
from async_relay.settings import POSTS_IN_FLIGHT

from . import command
from .command import CommandError
from .contenders import PythonProcess
from .figures import Spread, spread
from .machine import machine
from .peers.worker import Figures, Setup, connection_id
from .report import markdown_table
from .stage import Stage, stage, stream_event

#: The default of posts a second for an account's WebSocket APIs in a Region.
QUOTA = 10_000
#: Bytes of a message.
BODY = 600
_BURSTS = (1, 10, 100)
# Clients whose messages are looked at one by one.
_CHECKED = 20
# The burst before the measured ones has so many clients and posts at least: handshakes are dear, and over then.
_WARM_CLIENTS = 500
_WARM_POSTS = 10_000
_COLUMNS = ("records at once", "CPU µs a message", "low to high", "times", "posts", "seconds", "$ a million")


@dataclass(frozen=True, slots=True)
class Way:
    """A handler and what its clients read; ``share``: of the clients, how many it posts to."""

    title: str
    peer: str
    frames: str = ""
    share: float = 1.0


WAYS = (
    Way("async-relay, arrays", "direct", "array"),
    Way("async-relay, objects", "direct"),
    Way("naive aioboto3 handler", "aioboto3-handler", share=0.1),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to deliver bursts; ``clients`` are its share of all, and each gets ``posts``, metered as so many."""

    way: Way
    records: int
    clients: int
    posts: int
    metered: int
    runs: list[Figures] = field(default_factory=list)

    @property
    def cpu(self) -> Spread:
        """Microseconds of CPU a message delivered."""
        return spread([run.cpu / (self.records * self.clients) * 1e6 for run in self.runs])

    @property
    def all_posts(self) -> int:
        """The posts to all clients, not only to this way's share of them."""
        return round(self.posts * self.clients / self.way.share)

    @property
    def seconds(self) -> float:
        """Until all clients have everything: as measured for the share, and no sooner than the quota allows."""
        return max(median(run.wall for run in self.runs) / self.way.share, self.all_posts / QUOTA)

    @property
    def dollars(self) -> float:
        """API Gateway's price of a million messages delivered."""
        return PRICES["api gateway message"].of(1e6 * self.metered / self.records)

    def times(self, naive: Row) -> float:
        """How many times as much CPU ``naive`` takes for a message."""
        pairs = zip(self.runs, naive.runs, strict=True)
        return median((other.cpu / naive.clients) / (ours.cpu / self.clients) for ours, other in pairs)


def setup_for(here: Stage, records: int) -> Setup:
    """The setup of a peer that gets bursts of so many records."""
    return replace(here.setup(POSTS_IN_FLIGHT, BODY), event=stream_event(BODY, range(1, records + 1)), quota=QUOTA)


def checked(here: Stage, way: Way, records: int) -> tuple[int, int]:
    """The posts a client gets, and as how many they are metered; raises ``CommandError`` where a message lacks."""
    here.table.call("fill", _CHECKED, way.frames)
    here.gateway.clear()
    with closing(PythonProcess(way.peer, here, setup_for(here, records), None)) as running:
        running.run(_CHECKED)
    received = here.gateway.received
    expected = [f"inc-{sequence:012d}" for sequence in range(1, records + 1)]
    for client in map(connection_id, range(_CHECKED)):
        if list(_incidents(received.get(client, []))) != expected:
            raise CommandError(f"{way.title}: {client} did not get the {records} messages, each once and in order")
    return len(received[client]), sum(ceil(len(body) / POST_CHUNK) for body in received[client])


def _incidents(bodies: Sequence[bytes]) -> Iterator[str]:
    for content in map(json.loads, bodies):
        for message in content if isinstance(content, list) else [content]:
            yield message["incident_id"]


def measure(records: int, clients: int, repetitions: int) -> list[Row]:
    """All ways to deliver bursts of so many records, in turn."""
    with stage(verify=True) as here:
        rows = [Row(way, records, int(clients * way.share), *checked(here, way, records)) for way in WAYS]
    with stage() as here, ExitStack() as stack:
        running = []
        for row in rows:
            peer = stack.enter_context(closing(PythonProcess(row.way.peer, here, setup_for(here, records), None)))
            warm = min(row.clients, ceil(max(_WARM_CLIENTS, _WARM_POSTS / records) * row.way.share))
            here.table.call("fill", warm, row.way.frames)
            peer.run(warm)
            running.append((row, peer))
        rounds = [pair for _ in range(repetitions) for pair in random.sample(running, len(running))]
        for row, peer in track(rounds, f"Bursts of {records}", console=Console(stderr=True), transient=True):
            _run(here, row, peer)
    return rows


def _run(here: Stage, row: Row, peer: PythonProcess) -> None:
    here.table.call("fill", row.clients, row.way.frames)
    here.gateway.clear()
    figures = peer.run(row.clients)
    arrivals = here.gateway.arrivals
    if arrivals != dict.fromkeys(map(connection_id, range(row.clients)), row.posts):
        raise CommandError(
            f"{row.way.title}: {arrivals.total():,} posts arrived at {len(arrivals):,} clients, and not "
            f"{row.posts:,} at each of {row.clients:,}: the figures would be worth nothing"
        )
    row.runs.append(figures)


def cells(row: Row, naive: Row) -> tuple[str, ...]:
    """A line of the table."""
    cpu = row.cpu
    return (
        f"{row.records}: {row.way.title}",
        f"{cpu.median:,.1f}",
        f"{cpu.low:,.1f} to {cpu.high:,.1f}",
        f"{row.times(naive):,.1f}",
        f"{row.all_posts:,}",
        f"{row.seconds:,.1f}",
        f"{row.dollars:.2f}",
    )


def main(
    clients: Annotated[int, typer.Option(min=10, max=1_000_000, metavar="N")] = 10_000,
    repetitions: Annotated[int, typer.Option(min=1, max=1_000, metavar="N")] = 3,
    records: Annotated[
        list[int] | None,
        typer.Option(min=1, max=10_000, metavar="N", help="at once; may be repeated; default: 1, 10 and 100"),
    ] = None,
) -> int:
    """Measure bursts beside a naive handler, and print the table in Markdown."""
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    lines = []
    for burst in records or _BURSTS:
        rows = measure(burst, clients, repetitions)
        lines += [cells(row, rows[-1]) for row in rows]
    print("\n".join(markdown_table(_COLUMNS, lines)))
    print(f"\n{facts}. {clients:,} clients, {POSTS_IN_FLIGHT} in flight, {BODY} bytes a message, {repetitions} rounds.")
    return 0


if __name__ == "__main__":
    command.run(main)
