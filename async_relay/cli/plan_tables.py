"""The tables of docs/scaling.md, as Markdown: from the plan, so that a test can hold the document to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from math import isfinite

from async_relay.planning.costs import alternatives
from async_relay.planning.model import plan
from async_relay.planning.values import DIRECT, FANOUT, Plan, Setup, Traffic

from .failure import USAGE, CommandError

_SIZES = (1_000, 10_000, 100_000, 1_000_000)
_BURSTS = (10, 100)
_WINDOWS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
_WAITED = ("messages together", "posts a second", "a month for messages", "last client")


class Kind(StrEnum):
    """Which of the tables."""

    #: How long the last client waits, and what a month costs, by the number of clients and of messages at a time.
    SIZES = "sizes"
    #: A month's bill by service, beside other ways to send the same.
    BILL = "bill"
    #: What waiting for each other saves.
    WINDOWS = "windows"


#: What each table varies by itself, or does not show.
_OF_NO_USE = {
    Kind.SIZES: ("clients", "burst", "frames"),
    Kind.BILL: ("clients", "burst", "frames"),
    Kind.WINDOWS: ("window",),
}
_OF_NONE = ("simulated", "seed", "as_json", "plot")


def refuse(kind: Kind, given: Collection[str], frames: float) -> None:
    """Raise ``CommandError`` for options, by the names of their parameters, that the table would not heed."""
    names = {"simulated": "simulate", "as_json": "json"}
    ignored = [f"--{names.get(each, each)}" for each in (*_OF_NO_USE[kind], *_OF_NONE) if each in given]
    if ignored:
        raise CommandError(f"--table {kind} ignores {' and '.join(ignored)}: run it without", USAGE)
    if kind is Kind.WINDOWS and not frames:
        raise CommandError("--table windows needs --frames, like --frames 1: to objects a window saves nothing", USAGE)


def lines(kind: Kind, traffic: Traffic, setup: Setup) -> Iterator[str]:
    """The lines of a table; ``traffic`` says all that the table does not vary."""
    rows = {Kind.SIZES: _sizes, Kind.BILL: _bill, Kind.WINDOWS: _windows}[kind](traffic, setup)
    head = next(rows)
    yield _line(head)
    yield _line(["---"] * len(head))
    for row in rows:
        yield _line(row)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sizes(traffic: Traffic, setup: Setup) -> Iterator[Sequence[str]]:
    yield (
        "clients",
        "one message: one function",
        f"{setup.functions} workers",
        *(f"{burst} at a time, {how}" for burst in _BURSTS for how in ("objects", "arrays")),
    )
    for clients in _SIZES:
        alone = replace(traffic, clients=clients, burst=1, frames=0.0)
        bursts = (
            plan(replace(alone, burst=burst, frames=frames), setup, FANOUT)
            for burst in _BURSTS
            for frames in (0.0, 1.0)
        )
        yield (
            f"{clients:,}",
            *(_time_and_price(each) for each in (plan(alone, setup, DIRECT), plan(alone, setup, FANOUT), *bursts)),
        )


def _time_and_price(one: Plan) -> str:
    late = _seconds(one.speed.last) if one.keeps_up else "never catches up"
    return f"{late}, {_dollars(sum(one.costs.values()))}"


def _bill(traffic: Traffic, setup: Setup) -> Iterator[Sequence[str]]:
    plans = [plan(replace(traffic, clients=clients, burst=1, frames=0.0), setup, FANOUT) for clients in _SIZES]
    yield (f"a month, {traffic.messages_per_second:g} messages a second", *(f"{clients:,}" for clients in _SIZES))
    for service in plans[0].costs:
        if any(each.costs[service] for each in plans):
            yield service, *(_dollars(each.costs[service]) for each in plans)
    yield "**async-relay, one message at a time**", *(f"**{_dollars(sum(each.costs.values()))}**" for each in plans)
    for burst in _BURSTS:
        framed = (plan(replace(each.traffic, burst=burst, frames=1.0), setup, FANOUT) for each in plans)
        totals = (f"**{_dollars(sum(each.costs.values()))}**" for each in framed)
        yield f"**{burst} at a time, clients that read arrays**", *totals
    for name in alternatives(traffic):
        yield name, *(_dollars(sum(alternatives(each.traffic)[name].values())) for each in plans)


def _windows(traffic: Traffic, setup: Setup) -> Iterator[Sequence[str]]:
    yield "window", *(f"{who}: {what}" for who in ("one function", f"{setup.functions} workers") for what in _WAITED)
    for window in _WINDOWS:
        plans = (plan(traffic, replace(setup, window=window), mode) for mode in (DIRECT, FANOUT))
        yield f"{window:g} s", *(cell for each in plans for cell in _waited(each))


def _waited(one: Plan) -> tuple[str, ...]:
    return (
        f"{one.speed.packing.messages:,.1f}",
        f"{one.load.posts:,.0f}",
        _dollars(one.costs["API Gateway messages"]),
        _seconds(one.speed.last + one.speed.wait),
    )


def _dollars(amount: float) -> str:
    """Whole dollars, and at least one where there is anything to pay."""
    return f"${max(amount, 1.0 if amount else 0.0):,.0f}"


def _seconds(value: float) -> str:
    if not isfinite(value):
        return "never catches up"
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s"
