"""Clients that are cut again and again beside one that never is: in the end nobody may be able to tell them apart.

Rules
- All are there before the first change is written, so each must have every message of its tenant, exactly once, and
  no other; a message that a newer state of its incident overtook has come too.
- Its picture must be that of the client that was never cut, as far as its tenant goes: the same states, word by word.
- A client whose handshake is cut may leave a row behind, which costs each broadcast a second until the relay is sure of
  it: where the figures are to say how fast the relay is, handshakes are spared.
- The cutting ends before they are compared, and each has time to come back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from async_relay.client import State

from .cuts import line_to
from .feed import EVERY_TENANT, Marker
from .issuer import Issuer
from .ledger import Ledger
from .verdict import miscounts
from .watchers import Picture, Watcher, in_node, in_python, node

STEADY = "steady-client"
# Between two cuts of a line, on average. A connection that was live for five seconds comes back at once: some must be.
_MEAN_SECONDS = 4.0
# Renewed over the connection of the client that is never cut, whenever a fifth of it is left.
_TOKEN_SECONDS = 120
_DAY_SECONDS = 86_400
# The longest pause of the library, and then a handshake and what was missed.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The clients: one that is never cut, and those whose lines are; ``anytime``: during handshakes too."""

    steady: Watcher
    cut: Sequence[Watcher]
    chance: random.Random
    anytime: bool

    @property
    def names(self) -> set[str]:
        """What they call themselves when they connect."""
        return {watcher.name for watcher in (self.steady, *self.cut)}

    def cut_all(self) -> None:
        """Cut every line that is to be cut, now."""
        for watcher in self.cut:
            self._cut(watcher)

    def _cut(self, watcher: Watcher) -> None:
        if watcher.line and (self.anytime or watcher.state in (State.LIVE, State.CATCHING_UP)):
            watcher.line.cut()

    async def _cut_at_random(self, watcher: Watcher) -> None:
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / _MEAN_SECONDS))
            self._cut(watcher)

    @asynccontextmanager
    async def being_cut(self) -> AsyncIterator[None]:
        """Cut the lines at random moments for as long as the block lasts."""
        cutting = [asyncio.create_task(self._cut_at_random(watcher)) for watcher in self.cut]
        try:
            yield
        finally:
            for task in cutting:
                task.cancel()
            await asyncio.gather(*cutting, return_exceptions=True)

    async def complaints(self, ledger: Ledger) -> list[str]:
        """What tells those that were cut from the one that was not, once all had time to come back."""
        await self._settled(ledger)
        reference = await self.steady.picture()
        problems = [*faults(self.steady, _expected(self.steady, ledger)), *_loneliness(self.cut)]
        for watcher in self.cut:
            problems += faults(watcher, _expected(watcher, ledger))
            problems += differences(watcher, await watcher.picture(), _as_seen_by(watcher, reference, ledger))
        return problems

    async def _settled(self, ledger: Ledger) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not all(_has_all(watcher, ledger) for watcher in (self.steady, *self.cut)):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.1)

    def in_words(self) -> str:
        """How it stands, in a line."""
        who = "A client" if len(self.cut) == 1 else f"{len(self.cut)} clients"
        live = sum(watcher.state == State.LIVE for watcher in self.cut)
        now = self.cut[0].state if len(self.cut) == 1 else f"{live} of them live"
        cuts, got, late = self._sums()
        return (
            f"{who} cut every few seconds: {cuts:,} cuts so far, now {now}; {got:,} messages, {late:,} of them while "
            f"catching up ({len(self.steady.got):,} came to the one that is never cut)"
        )

    def in_one_sentence(self) -> str:
        """What it comes to where nothing was wrong."""
        cuts, got, late = self._sums()
        who = "A client that was" if len(self.cut) == 1 else f"{len(self.cut)} clients that were"
        return (
            f"{who} cut {_times(cuts)} came back without help, and cannot be told from one that never was: "
            f"{got:,} messages, each once and none missing, {late:,} of them by catching up, and the same picture"
        )

    def _sums(self) -> tuple[int, int, int]:
        return (
            sum(watcher.cuts for watcher in self.cut),
            sum(len(watcher.got) for watcher in self.cut),
            sum(watcher.caught_up for watcher in self.cut),
        )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _expected(watcher: Watcher, ledger: Ledger) -> list[Marker]:
    return [write.change.marker for write in ledger.writes if watcher.may_have(write.change.tenant)]


def _has_all(watcher: Watcher, ledger: Ledger) -> bool:
    return watcher.state == State.LIVE and set(watcher.got) >= set(_expected(watcher, ledger))


def _as_seen_by(watcher: Watcher, picture: Picture, ledger: Ledger) -> Picture:
    """The part of everybody's picture that is its tenant's."""
    items = (write.change.item for write in ledger.writes if watcher.may_have(write.change.tenant))
    incidents = {item["incident_id"] for item in items if "incident_id" in item}
    return {incident: state for incident, state in picture.items() if incident in incidents}


def _loneliness(cut: Sequence[Watcher]) -> Iterator[str]:
    for watcher in cut:
        if not watcher.cuts:
            yield f"{watcher.name} was never cut, so this says nothing about it"


def faults(watcher: Watcher, expected: Sequence[Marker]) -> Iterator[str]:
    """What is wrong with what one client was told."""
    if watcher.state != State.LIVE:
        yield f"{watcher.name} did not come back: it is {watcher.state} {watcher.reason}".rstrip()
    if watcher.gaps:
        yield f"{watcher.name} was told {_times(watcher.gaps)} that what it missed can no longer be had"
    for fault in miscounts(expected, watcher.got):
        yield f"{watcher.name} {fault}"


def differences(watcher: Watcher, picture: Picture, reference: Picture) -> Iterator[str]:
    """How the picture of a client that was cut differs from that of one that was not."""
    differing = [
        incident for incident in sorted({*picture, *reference}) if picture.get(incident) != reference.get(incident)
    ]
    if differing:
        first = differing[0]
        yield (
            f"{watcher.name}, which was cut, shows {len(differing)} incidents otherwise than {STEADY}, which was not: "
            f"{first} is {picture.get(first, 'missing')}, and should be {reference.get(first, 'missing')}"
        )


@asynccontextmanager
async def comparison(
    url: str, issuer: Issuer, chance: random.Random, tenants: Sequence[str], *, soak: bool
) -> AsyncIterator[Comparison]:
    """One client that is never cut, and for each of ``tenants`` one that is.

    ``soak``: and one in Node, where there is one; and all are cut during handshakes too.
    """
    async with AsyncExitStack() as stage:
        steady = Watcher(STEADY, EVERY_TENANT)
        await stage.enter_async_context(in_python(steady, f"{url}?clientId={STEADY}", _token(issuer, steady)))
        cut = []
        for number, tenant in enumerate(tenants, 1):
            watcher, where = await _on_a_line(stage, Watcher(f"cut-client-{number}", tenant), url, chance)
            cut.append(await stage.enter_async_context(in_python(watcher, where, _token(issuer, watcher))))
        program = await asyncio.to_thread(node) if soak else None
        if program:
            watcher, where = await _on_a_line(stage, Watcher("cut-client-in-node", EVERY_TENANT), url, chance)
            token = issuer.token(watcher.name, [watcher.tenant], seconds=_DAY_SECONDS)
            cut.append(await stage.enter_async_context(in_node(watcher, where, token, program)))
        yield Comparison(steady, cut, chance, anytime=soak)


async def _on_a_line(stage: AsyncExitStack, watcher: Watcher, url: str, chance: random.Random) -> tuple[Watcher, str]:
    where, watcher.line = await stage.enter_async_context(line_to(f"{url}?clientId={watcher.name}", chance))
    return watcher, where


def _token(issuer: Issuer, watcher: Watcher) -> partial[str]:
    return partial(issuer.token, watcher.name, [watcher.tenant], seconds=_TOKEN_SECONDS)
