"""Direct, fanout or auto, and what to raise next. Pure.

Rules
- What is recommended keeps up; where nothing does, nothing is recommended, and the reason says by how much.
- With ``auto`` the number of clients decides, so both modes must keep up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import ceil

from .model import mean_latency, plan, speed
from .packing import cpu_per_post
from .values import AUTO, DIRECT, FANOUT, NEITHER, WORTH, Advice, Plan, Setup, Traffic

#: The share of a limit, or of the time, from which on queues grow quickly and advice is due.
_BUSY = 0.7
#: Windows that are tried, in seconds: whoever waits longer for a message does not read it live.
_WINDOWS = (1, 2, 5, 10, 20, 30, 60)


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
    if not (direct.keeps_up and fanout.keeps_up):
        return _the_one_that_keeps_up(direct, fanout, turn)
    if turn is None:
        why = f"one function is as quick as all workers: {direct.speed.pace} sets the pace"
        return Advice(DIRECT, None, why, _next(direct))
    if traffic.clients <= turn / 2 and direct.speed.utilisation < _BUSY:
        why = f"below {turn:,} clients fanning out saves less than {WORTH:g} s"
        return Advice(DIRECT, turn, why, _next(direct))
    if traffic.clients < 2 * turn:
        why = f"near {turn:,} clients, from where on fanning out saves {WORTH:g} s: FanoutAutoClients={turn}"
        return Advice(AUTO, turn, why, _next(fanout if traffic.clients >= turn else direct))
    why = f"{fanout.speed.rate / direct.speed.rate:.1f} times the posts a second of one function"
    return Advice(FANOUT, turn, why, _next(fanout))


def _the_one_that_keeps_up(direct: Plan, fanout: Plan, turn: int | None) -> Advice:
    if fanout.keeps_up:
        return Advice(FANOUT, turn, "one function cannot keep up", _next(fanout))
    if direct.keeps_up:
        if not direct.speed.packing.waited:
            return Advice(DIRECT, turn, "workers cannot keep up", _next(direct))
        why = "workers cannot keep up; one function does, since it sends together what waits on the stream meanwhile"
        return Advice(
            DIRECT, turn, why, _window(fanout).removeprefix("; ") or "nothing: it is never idle, and keeps up"
        )
    best = min(direct, fanout, key=lambda each: each.speed.utilisation)
    most = best.load.posts / best.speed.utilisation
    why = f"{best.load.posts:,.0f} posts a second are needed, and {most:,.0f} are the most"
    return Advice(NEITHER, turn, why, _next(best))


def _next(chosen: Plan) -> str:
    """The parameter to raise: for the pace while there is room in all limits, else for the first limit."""
    first = chosen.first
    if first.share > _BUSY:
        return f"{first.name} is at {first.share:.0%}: raise {first.advice}{_window(chosen)}"
    setup, pace = chosen.setup, chosen.speed
    if pace.pace == "posts in flight":
        wanted = min(setup.allowed / pace.functions, 0.8 / cpu_per_post(setup, pace.packing))
        places = min(900, ceil(wanted * mean_latency(chosen.traffic.latency) * 1.2))
        if places > setup.concurrency and chosen.traffic.clients / pace.functions > setup.concurrency:
            return f"MaxConcurrency={places} would post faster from the same functions"
        return "nothing: each client waits only for its own posts"
    if pace.pace == "one vCPU":
        return "FanoutWorkers and FanoutShards: one vCPU a function is what there is"
    return "the account's API Gateway quota: it sets the pace"


def _window(chosen: Plan) -> str:
    """The shortest window with which less than ``_BUSY`` of the posts there are is needed, where there is one."""
    for seconds in _WINDOWS:
        if seconds > chosen.setup.window and chosen.traffic.frames:
            tried = plan(chosen.traffic, replace(chosen.setup, window=float(seconds)), chosen.speed.mode)
            if tried.speed.utilisation < _BUSY:
                together = f"{tried.speed.packing.messages:,.0f} messages together"
                return f"; StreamBatchingWindowSeconds={seconds} with FanoutMode={tried.speed.mode} sends {together}"
    return ""
