"""How many posts in flight: the sockets and the time that a broadcast takes, by clients and latency.

    python -m benchmarks.places       some ten minutes; --clients 1000 for a look

Rules
- The whole handler posts over TLS, under a ceiling of the account's default quota, to a gateway that answers later.
- A row is printed as soon as it is measured; the table is Markdown.
- The first broadcast is cold: it opens the table's and the gateway's sockets. The second one finds them open.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Annotated

import typer

from . import command
from .bursts import BODY, QUOTA
from .command import CommandError
from .contenders import PythonProcess
from .machine import machine
from .report import markdown_table
from .stage import Stage, stage

_SIZES = (1_000, 10_000, 100_000)
_MILLISECONDS = (5, 20, 80)
_PLACES = (100, 300)
_COLUMNS = ("clients", "answer after", "in flight at most", "sockets opened", "cold", "warm")


def measure(here: Stage, clients: int, places: int) -> tuple[int, float, float]:
    """The sockets opened by two broadcasts to so many clients, and the seconds that each took."""
    here.table.call("fill", clients)
    here.gateway.clear()
    setup = replace(here.setup(places, BODY), quota=QUOTA)
    with closing(PythonProcess("direct", here, setup, None)) as running:
        cold, warm = running.run(clients), running.run(clients)
    counters = here.gateway.counters()
    if counters.arrived != 2 * clients:
        raise CommandError(f"{counters.arrived:,} of {2 * clients:,} posts arrived: the figures would be worth nothing")
    return counters.sockets_opened, cold.wall, warm.wall


def main(
    clients: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1_000_000, metavar="N", help="may be repeated; default: 1000, 10000 and 100000"),
    ] = None,
) -> int:
    """Measure broadcasts with 100 and 300 posts in flight, and print the table in Markdown."""
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    print(f"{facts}. At most {QUOTA:,} posts a second.\n")
    print("\n".join(markdown_table(_COLUMNS, [])))
    for size in clients or _SIZES:
        for milliseconds in _MILLISECONDS:
            with stage(latency=milliseconds / 1000) as here:
                for places in _PLACES:
                    sockets, cold, warm = measure(here, size, places)
                    row = (
                        f"{size:,}",
                        f"{milliseconds} ms",
                        f"{places}",
                        f"{sockets}",
                        f"{cold:.2f} s",
                        f"{warm:.2f} s",
                    )
                    print(f"| {' | '.join(row)} |", flush=True)
    return 0


if __name__ == "__main__":
    command.run(main)
