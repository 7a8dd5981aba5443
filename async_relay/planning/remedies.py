"""What to raise next: the parameter, or fewer posts. Pure.

Rules
- Arrays, a window and places in flight are planned before they are advised: each changes the figure it names.
- Clients that read arrays come first: they cost nothing. A window costs time, and the rest costs money.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from .model import MORE_SHARDS, mean_latency, plan, speed
from .packing import cpu_per_post
from .values import BUSY, DIRECT, MOST_IN_FLIGHT, WORTH, Plan

#: Windows that are tried, in seconds: whoever waits longer for a message does not read it live.
_WINDOWS = (1, 2, 5, 10, 20, 30, 60)
#: What changes a figure by less than a twentieth is not worth a parameter.
_LESS, _MORE = 0.95, 1.05


def next_step(chosen: Plan, direct: Plan | None = None) -> str:
    """For the pace while there is room in all limits, else for the first limit; ``direct`` might do as well."""
    first = chosen.first
    if first.share > BUSY:
        arrays = _arrays(chosen, first.name)
        waiting = "" if arrays else window(chosen, first.name)
        return (
            f"{first.name} is at {first.share:.0%}: {f'{arrays}; else ' if arrays else ''}raise {first.advice}"
            f"{f'; {waiting}' if waiting else ''}"
        )
    return "; ".join(_sooner(chosen, direct)) or _pace(chosen)


def _sooner(chosen: Plan, direct: Plan | None) -> Iterator[str]:
    if chosen.traffic.frames < 1:
        tried = _with_arrays(chosen)
        if chosen.speed.last - tried.speed.last >= WORTH:
            yield f"{_packed(tried)}, and the last one has them {chosen.speed.last - tried.speed.last:,.0f} s sooner"
    for each in (chosen,) if direct is None or direct is chosen else (chosen, direct):
        places, rate = _places(each)
        if rate > each.speed.rate * _MORE:
            who = "one function" if each.speed.mode == DIRECT else "the same workers"
            yield f"MaxConcurrency={places}: {who} would post {rate:,.0f} a second and not {each.speed.rate:,.0f}"
    one = direct or chosen
    if one.speed.mode == DIRECT and one.speed.pace == "share of the quota":
        alone = speed(one.traffic, replace(one.setup, stream_shards=1), DIRECT).rate
        yield f"StreamShards=1: a broadcast that comes alone would have {alone:,.0f} posts a second"


def _places(one: Plan) -> tuple[int, float]:
    """How many posts in flight would use up what the function may send, and the rate with them."""
    setup, pace = one.setup, one.speed
    if pace.pace != "posts in flight":
        return setup.concurrency, pace.rate
    wanted = min(setup.share(pace.mode), setup.allowed / pace.functions, 0.8 / cpu_per_post(setup, pace.packing))
    places = min(MOST_IN_FLIGHT, ceil(wanted * mean_latency(one.traffic.latency) * 1.2))
    return places, speed(one.traffic, replace(setup, concurrency=places), pace.mode, pace.packing).rate


def _pace(chosen: Plan) -> str:
    setup, pace = chosen.setup, chosen.speed
    if pace.pace == "posts in flight" and chosen.traffic.clients / pace.functions <= setup.concurrency:
        return "nothing: each client waits only for its own posts"
    if pace.pace in ("posts in flight", "one vCPU"):
        return f"FanoutWorkers and FanoutShards: {pace.pace} of each function set the pace"
    if pace.pace == "share of the quota":
        return f"{MORE_SHARDS}: a worker's share of the quota sets the pace"
    return "the account's API Gateway quota: it sets the pace"


def _arrays(chosen: Plan, name: str) -> str:
    """Whether this limit falls where every client reads arrays: at once, or with the shortest window that suffices."""
    if chosen.traffic.frames == 1:
        return ""
    at_once = _with_arrays(chosen)
    if _lowers(at_once, chosen, name):
        return _packed(at_once)
    if chosen.traffic.frames:
        return ""
    seconds, tried = next(_windows(at_once, chosen, name), (0, at_once))
    return f"{_packed(tried)} with StreamBatchingWindowSeconds={seconds}" if seconds else ""


def window(chosen: Plan, name: str) -> str:
    """The shortest window with which less than ``BUSY`` of the posts there are is needed, where there is one."""
    for seconds, tried in _windows(chosen, chosen, name):
        together = f"{_about(tried.speed.packing.messages)} messages together"
        return f"StreamBatchingWindowSeconds={seconds} with FanoutMode={tried.speed.mode} sends {together}"
    return ""


def _windows(there: Plan, chosen: Plan, name: str) -> Iterator[tuple[int, Plan]]:
    for seconds in _WINDOWS:
        if seconds > there.setup.window and there.traffic.frames:
            tried = plan(there.traffic, replace(there.setup, window=float(seconds)), there.speed.mode)
            if tried.speed.utilisation < BUSY and _lowers(tried, chosen, name):
                yield seconds, tried


def _lowers(tried: Plan, chosen: Plan, name: str) -> bool:
    return tried.load.posts < chosen.load.posts * _LESS and tried.used(name) < chosen.used(name) * _LESS


def _with_arrays(chosen: Plan) -> Plan:
    return plan(replace(chosen.traffic, frames=1.0), chosen.setup, chosen.speed.mode)


def _packed(tried: Plan) -> str:
    packing = tried.speed.packing
    posts = f"{_about(packing.posts)} post{'' if packing.posts == 1 else 's'}"
    return f"clients that read arrays get {_about(packing.messages)} messages in {posts}"


def _about(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")
