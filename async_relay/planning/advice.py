"""Direct, fanout or auto, and what to raise next. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

from .model import mean_latency, plan, speed
from .values import AUTO, DIRECT, FANOUT, WORTH, Advice, Plan, Setup, Traffic

#: The share of a limit, or of the time, from which on queues grow quickly and advice is due.
_BUSY = 0.7


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
    if turn is None:
        why = f"one function is as quick as all workers: {direct.speed.pace} sets the pace"
        return Advice(DIRECT, None, why, _next(direct))
    if traffic.clients <= turn / 2 and direct.speed.utilisation < _BUSY:
        why = f"below {turn:,} clients fanning out saves less than {WORTH:g} s"
        return Advice(DIRECT, turn, why, _next(direct))
    if traffic.clients < 2 * turn and fanout.keeps_up:
        why = f"near {turn:,} clients, from where on fanning out saves {WORTH:g} s: FanoutAutoClients={turn}"
        return Advice(AUTO, turn, why, _next(fanout))
    why = f"{fanout.speed.rate / direct.speed.rate:.1f} times the posts a second of one function"
    return Advice(FANOUT, turn, why, _next(fanout))


def _next(chosen: Plan) -> str:
    """The parameter to raise: for the pace while there is room in all limits, else for the first limit."""
    first = chosen.first
    if first.share > _BUSY:
        return f"{first.name} is at {first.share:.0%}: raise {first.advice}"
    setup, pace = chosen.setup, chosen.speed
    if pace.pace == "posts in flight":
        wanted = min(setup.allowed / pace.functions, 0.8 / setup.cpu_per_post)
        places = min(10_000, ceil(wanted * mean_latency(chosen.traffic.latency) * 1.2))
        if places > setup.concurrency and chosen.traffic.clients / pace.functions > setup.concurrency:
            return f"MaxConcurrency={places} would post faster from the same functions"
        return "nothing: each client waits only for its own posts"
    if pace.pace == "one vCPU":
        return "FanoutWorkers and FanoutShards: one vCPU a function is what there is"
    return "the account's API Gateway quota: it sets the pace"
