"""The long run of the simulation in tests/test_feed_simulation.py: random histories on virtual time, each checked.

    python tests/simulate_feed.py --histories 10000

Prints what was simulated and how long it took; ends with 1 and the first broken history if somebody missed something.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).parents[1]))

import typer  # the path above comes first, here and below
from lambda_models import run_virtually
from test_feed_simulation import Aftermath, complaints, history_of, live

from benchmarks import command


def count(totals: Counter[str], after: Aftermath) -> None:
    """Add up what happened in one history."""
    world = after.world
    totals["histories"] += 1
    totals["clients"] += len(world.devices)
    totals["connections"] += sum(map(len, world.history.clients))
    totals["messages published"] += len(world.published)
    totals["messages published again at another position"] += sum(len(each) > 1 for each in world.places.values())
    totals["invocations"] += sum(function.invocations for function in after.functions)
    totals["crashed invocations"] += sum(function.crashes for function in after.functions)
    totals["jobs requeued in the retry queue"] += world.retry.sent
    totals["jobs in the FIFO queue"] += world.fanout.sent
    totals["messages that arrived live"] += world.arrived
    totals["messages that only a replay brought"] += sum(device.replayed for device in world.devices)
    totals["repeats dropped by event_id"] += sum(device.repeats for device in world.devices)
    totals["pages of the feed read"] += world.feed.reads
    totals["dead letters"] += len(world.letters.messages)


def main(
    histories: Annotated[int, typer.Option(min=1, metavar="N")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The first history.")] = 0,
) -> int:
    """Check random histories of the feed on virtual time; fail with the first in which somebody missed something."""
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    totals: Counter[str] = Counter()
    start = time.perf_counter()
    for number in range(seed, seed + histories):
        after = run_virtually(live(history_of(number)))
        found = list(complaints(after))
        if found:
            sys.exit("\n".join([f"broken: history {number}: {after.world.history}", *found]))
        count(totals, after)
        if sys.stderr.isatty():
            print(f"\r{totals['histories']:>7,} of {histories:,}", end="", file=sys.stderr)
    print(f"\rnothing missing in {time.perf_counter() - start:,.0f} s, histories {seed:,} to {seed + histories - 1:,}")
    for name, number in totals.items():
        print(f"{number:>12,} {name}")
    return 0


if __name__ == "__main__":
    command.run(main)
