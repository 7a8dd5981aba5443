"""Whether a load test went well: in sentences, none if it did. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .ledger import Shortfall


@dataclass(frozen=True, slots=True)
class Ending:
    """The state at the end of a run; ``shortfall`` is None where only the clients know."""

    shortfall: Shortfall | None
    dead_letters: tuple[str, ...] = ()
    handed_back: int = 0
    requeued: int = 0
    ghosts: int = 0
    most_in_flight: int = 0
    bound: int = 100
    settled: bool = True


def problems(ending: Ending) -> list[str]:
    """A sentence for each promise that was broken."""
    return list(_problems(ending))


def _problems(ending: Ending) -> Iterator[str]:
    missing = ending.shortfall
    if missing is not None and missing.messages:
        who = ", ".join(map(str, missing.examples))
        yield f"{missing.messages:,} messages did not reach {missing.clients:,} clients, such as number {who}"
    if ending.dead_letters:
        yield f"{len(ending.dead_letters):,} dead letters, such as: {ending.dead_letters[0]}"
    if ending.handed_back:
        yield f"{ending.handed_back:,} records were handed back again and again"
    if ending.requeued or not ending.settled:
        yield f"the run ended before the retry queue was empty: {ending.requeued:,} jobs are in it"
    if ending.ghosts:
        yield f"the rows of {ending.ghosts:,} clients that have gone are still in the table"
    if ending.most_in_flight > ending.bound:
        yield f"{ending.most_in_flight:,} posts were in flight at once; {ending.bound:,} were allowed"
