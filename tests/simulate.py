"""The long run of the simulation in tests/test_simulation.py: random histories on virtual time, each checked.

    python tests/simulate.py --histories 10000

Prints what was simulated and how long it took; ends with 1 and the first broken history if one breaks a promise.
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
from hypothesis import Phase, given, settings
from hypothesis import seed as seeded
from lambda_models import run_virtually
from test_simulation import HISTORIES, RUN, Aftermath, History, complaints, live

from benchmarks import command

#: Histories to one run of hypothesis, which remembers all it has drawn.
_AT_ONCE = 500


def count(totals: Counter[str], after: Aftermath) -> None:
    """Add up what happened in one history."""
    world = after.world
    totals["histories"] += 1
    totals["clients"] += len(world.natures)
    totals["records"] += len(world.published)
    totals["invocations"] += sum(function.invocations for function in after.functions)
    totals["crashed invocations"] += sum(function.crashes for function in after.functions)
    totals["histories with a redelivery"] += bool(world.redelivered)
    totals["clients that read arrays"] += sum(nature.frames for nature in world.natures.values())
    totals["posts"] += world.sent
    totals["messages in them"] += len(world.posts)
    totals["messages in arrays"] += sum(post.beside > 0 for post in world.posts)
    totals["messages that arrived"] += sum(post.arrived for post in world.posts)
    totals["jobs requeued in the retry queue"] += world.retry.sent
    totals["jobs in the FIFO queue"] += world.fanout.sent
    totals["dead letters"] += len(world.letters.messages)
    totals["jobs redriven by SQS"] += len(world.retry.redriven) + len(world.fanout.redriven)
    totals["records the stream gave up (no queue for them)"] += sum(len(each.discarded) for each in after.streams)


def main(
    histories: Annotated[int, typer.Option(min=1, metavar="N")] = 10_000,
    seed: Annotated[int, typer.Option(min=0, metavar="N")] = 0,
) -> int:
    """Check random histories of the relay on virtual time; fail with the first that breaks a promise."""
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    totals: Counter[str] = Counter()
    start = time.perf_counter()

    def run(history: History) -> None:
        after = run_virtually(live(history))
        found = list(complaints(after))
        if found:
            sys.exit("\n".join([f"broken after {totals['histories']:,} histories: {history}", *found]))
        count(totals, after)
        if sys.stderr.isatty():
            print(f"\r{totals['histories']:>7,} of {histories:,}", end="", file=sys.stderr)

    for first in range(0, histories, _AT_ONCE):
        examples = min(_AT_ONCE, histories - first)
        bounds = settings(RUN, max_examples=examples, phases=[Phase.generate])
        seeded(seed * 1_000_003 + first)(bounds(given(HISTORIES)(run)))()
    print(f"\rnothing broken in {time.perf_counter() - start:,.0f} s, seed {seed}")
    for name, number in totals.items():
        print(f"{number:>12,} {name}")
    return 0


if __name__ == "__main__":
    command.run(main)
