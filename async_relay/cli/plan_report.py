"""What ``async-relay plan`` prints: both modes side by side, the bill, other ways, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf

from rich.table import Table
from rich.text import Text

from async_relay.planning.costs import alternatives
from async_relay.planning.prices import DATED, REGION
from async_relay.planning.scenario import Simulated
from async_relay.planning.values import BUSY, DIRECT, FANOUT, NEITHER, Advice, Plan, Traffic

from . import screen

_MODES = (DIRECT, FANOUT)


def show(plans: dict[str, Plan], advice: Advice, runs: dict[str, Simulated]) -> None:
    """Print the tables, the recommendation and where the prices are from."""
    some = plans[DIRECT]
    traffic = some.traffic
    console = screen.stdout()
    screen.say(
        f"{traffic.deliveries_per_second:,.1f} messages a second, to all clients together; "
        f"the account leaves {some.setup.allowed:,.0f} posts a second"
    )
    console.print(_table("", *_MODES, rows=_rows(plans, runs)))
    console.print(_table("dollars a month", *_MODES, rows=_cost_rows(plans)))
    console.print(_table("the same traffic elsewhere, dollars a month", "", rows=_other_rows(traffic)))
    chosen = "neither, as it is" if advice.mode == NEITHER else advice.mode
    screen.say(f"Recommended: {chosen}: {advice.why}.")
    screen.say(f"Next: {advice.next}.")
    screen.say(f"Prices of {DATED} for {REGION}, without free tiers; those marked in docs/scaling.md are not verified.")


def _table(*titles: str, rows: Iterator[tuple[str, ...]]) -> Table:
    table = Table(pad_edge=False)
    for at, title in enumerate(titles):
        table.add_column(Text(title), justify="right" if at else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _rows(plans: dict[str, Plan], runs: dict[str, Simulated]) -> Iterator[tuple[str, ...]]:
    def row(title: str, cell: Callable[[Plan], str]) -> tuple[str, ...]:
        return (title, *(cell(plans[mode]) for mode in _MODES))

    yield row("messages that come together", lambda one: f"{one.speed.packing.messages:,.1f}")
    yield row("posts for them, a client", lambda one: f"{one.speed.packing.posts:,.1f}")
    yield row("of them sent together", lambda one: f"{min(one.speed.packing.messages, one.setup.batch):,.1f}")
    yield row("posts a second needed", lambda one: f"{one.load.posts:,.1f}")
    yield row("functions that post", lambda one: f"{one.speed.functions}")
    yield row("posts a second, at most", lambda one: f"{one.speed.rate:,.0f}")
    yield row("what sets that pace", lambda one: one.speed.pace)
    yield row("half of the clients have it after", lambda one: _seconds(one.speed.until(0.5)))
    yield row("99 % of them", lambda one: _seconds(one.speed.until(0.99)))
    yield row("the last one", lambda one: _seconds(one.speed.last))
    yield row("and behind earlier bursts, on average", lambda one: _seconds(one.speed.wait))
    if runs:
        yield from _simulated_rows(runs)
    yield row("Lambdas busy, on average", lambda one: f"{one.load.function_seconds:,.2f}")
    yield row("SQS requests a second", lambda one: f"{one.load.sqs_requests:,.2f}")
    yield row("DynamoDB requests a second", lambda one: f"{one.load.dynamodb_requests:,.2f}")
    yield row("DynamoDB read units a second", lambda one: f"{one.load.dynamodb_read_units:,.1f}")
    for limit in plans[FANOUT].limits:
        used = {mode: _share(plans[mode], limit.name) for mode in _MODES}
        yield (f"limit: {limit.name}", *(used[mode] for mode in _MODES))
    yield row("binds first", _binds)


def _binds(one: Plan) -> str:
    name = one.first.name
    return name if one.first.share > BUSY else "none yet"


def _simulated_rows(runs: dict[str, Simulated]) -> Iterator[tuple[str, ...]]:
    for part, title in ((0.5, "simulated: half"), (0.99, "simulated: 99 %")):
        yield (title, *(_seconds(runs[mode].until(part)) for mode in _MODES))
    yield ("simulated: the last, in the middle of all bursts", *(_seconds(runs[mode].last) for mode in _MODES))
    yield ("simulated: the last, worst burst", *(_seconds(runs[mode].worst) for mode in _MODES))
    yield ("simulated: refused posts (429)", *(f"{runs[mode].refused:,}" for mode in _MODES))
    yield ("simulated: continued past a deadline", *(f"{runs[mode].continuations:,}" for mode in _MODES))


def _share(one: Plan, name: str) -> str:
    return next((f"{limit.share:,.1%}" for limit in one.limits if limit.name == name), "")


def _cost_rows(plans: dict[str, Plan]) -> Iterator[tuple[str, ...]]:
    for service in plans[DIRECT].costs:
        yield (service, *(f"{plans[mode].costs[service]:,.2f}" for mode in _MODES))
    yield ("all", *(f"{sum(plans[mode].costs.values()):,.2f}" for mode in _MODES))


def _other_rows(traffic: Traffic) -> Iterator[tuple[str, ...]]:
    for name, parts in alternatives(traffic).items():
        yield (f"{name}: {', '.join(parts)}", f"{sum(parts.values()):,.2f}")


def _seconds(value: float) -> str:
    if value == inf:
        return "never catches up"
    return f"{value * 1000:,.0f} ms" if value < 1 else f"{value:,.1f} s"
