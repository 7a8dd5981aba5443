"""Direct, fanout or auto. Pure.

Rules
- What is recommended keeps up; where nothing does, nothing is recommended, and the reason says by how much.
- The template wants workers for large batches: one function is not recommended then, however quick it is.
- With ``auto`` the number of clients decides, so both modes must keep up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .model import plan, speed
from .remedies import next_step, window
from .values import AUTO, BUSY, DIRECT, DIRECT_BATCH, FANOUT, NEITHER, WORTH, Advice, Plan, Setup, Traffic


def break_even(traffic: Traffic, setup: Setup, most: int = 100_000_000) -> int | None:
    """From how many clients on fanning out saves the last of them ``WORTH`` seconds, if it ever does."""

    def pays(clients: int) -> bool:
        there = replace(traffic, clients=clients)
        return speed(there, setup, DIRECT).last - speed(there, setup, FANOUT).last >= WORTH

    return _first(pays, most)


def _first(holds: Callable[[int], bool], most: int) -> int | None:
    if not holds(most):
        return None
    low, high = 0, most
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def advise(traffic: Traffic, setup: Setup) -> Advice:
    """Direct, fanout or auto: the simplest that is as quick and keeps up; ``next`` is what to raise."""
    direct, fanout = plan(traffic, setup, DIRECT), plan(traffic, setup, FANOUT)
    turn = break_even(traffic, setup)
    if setup.batch > DIRECT_BATCH:
        return _workers_only(fanout, turn)
    if not (direct.keeps_up and fanout.keeps_up):
        return _the_one_that_keeps_up(direct, fanout, turn)
    if turn is None:
        why = f"one function is as quick as all workers: {direct.speed.pace} sets the pace"
        return Advice(DIRECT, None, why, next_step(direct))
    if traffic.clients <= turn / 2 and direct.speed.utilisation < BUSY:
        why = f"below {turn:,} clients fanning out saves less than {WORTH:g} s"
        return Advice(DIRECT, turn, why, next_step(direct))
    if traffic.clients < 2 * turn:
        why = f"near {turn:,} clients, from where on fanning out saves {WORTH:g} s: FanoutAutoClients={turn}"
        return Advice(AUTO, turn, why, next_step(fanout if traffic.clients >= turn else direct, direct))
    why = f"{fanout.speed.rate / direct.speed.rate:.1f} times the posts a second of one function"
    return Advice(FANOUT, turn, why, next_step(fanout, direct))


def _the_one_that_keeps_up(direct: Plan, fanout: Plan, turn: int | None) -> Advice:
    if fanout.keeps_up:
        return Advice(FANOUT, turn, "one function cannot keep up", next_step(fanout, direct))
    if direct.keeps_up:
        if not direct.speed.packing.waited:
            return Advice(DIRECT, turn, "workers cannot keep up", next_step(direct))
        why = "workers cannot keep up; one function does, since it sends together what waits on the stream meanwhile"
        return Advice(DIRECT, turn, why, window(fanout, "account quota") or "nothing: it is never idle, and keeps up")
    return _neither(min(direct, fanout, key=lambda each: each.speed.utilisation), turn)


def _workers_only(fanout: Plan, turn: int | None) -> Advice:
    if not fanout.keeps_up:
        return _neither(fanout, turn)
    why = f"with StreamBatchSize above {DIRECT_BATCH} the template wants it"
    return Advice(FANOUT, turn, why, next_step(fanout))


def _neither(best: Plan, turn: int | None) -> Advice:
    most = best.load.posts / best.speed.utilisation
    why = f"{best.load.posts:,.0f} posts a second are needed, and {most:,.0f} are the most"
    return Advice(NEITHER, turn, why, next_step(best))
