"""``async-relay plan``: its formulas and prices by property, the command by what it prints."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from math import inf, isclose
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from async_relay.cli import plan as command
from async_relay.cli.app import app
from async_relay.planning import quantities
from async_relay.planning.advice import advise, break_even
from async_relay.planning.costs import alternatives
from async_relay.planning.model import closed_rate, plan, reads, speed
from async_relay.planning.plot import draw
from async_relay.planning.prices import PRICES
from async_relay.planning.values import AUTO, DIRECT, FANOUT, Setup, Traffic

modes = st.sampled_from([DIRECT, FANOUT])
traffics = st.builds(
    Traffic,
    clients=st.integers(1, 2_000_000),
    messages_per_second=st.floats(1e-4, 100),
    burst=st.integers(1, 500),
    payload=st.integers(1, 131_072),
    latency=st.floats(0.001, 2),
    session=st.floats(60, 7_200),
    frames=st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 1),
)
setups = st.builds(
    Setup,
    quota=st.floats(100, 200_000),
    others=st.floats(0, 99),
    shards=st.integers(1, 1_000),
    workers=st.integers(2, 100),
    concurrency=st.integers(1, 400),
    cpu_per_post=st.floats(5e-6, 2e-3),
    index=st.booleans(),
    sweep=st.booleans(),
    auto_clients=st.none() | st.integers(1, 100_000),
    stream_shards=st.integers(1, 20),
    groups_per_batch=st.integers(1, 10),
    batch=st.sampled_from([1, 100, 10_000]) | st.integers(1, 10_000),
    window=st.just(0.0) | st.integers(0, 300).map(float),
    frame_bytes=st.integers(1_024, 131_072),
)

#: One function posts 4,400 a second with it, so it is places that bind, and workers gain.
FEW_PLACES = Setup(concurrency=100)


@given(st.integers(1, 500), st.floats(1e-4, 10), st.floats(1e-6, 0.1))
def test_a_function_is_bound_by_places_and_by_its_cpu(places: int, latency: float, cpu: float) -> None:
    """The rate stays below places / latency and below 1 / CPU, and grows with the places."""
    rate = closed_rate(places, latency, cpu)
    assert 0 < rate <= min(places / latency, 1 / cpu) * (1 + 1e-9)
    assert closed_rate(places + 1, latency, cpu) >= rate * (1 - 1e-9)


@given(traffics, setups, modes, st.integers(1, 2_000_000))
def test_more_clients_take_longer_and_cost_more(traffic: Traffic, setup: Setup, mode: str, more: int) -> None:
    """Times, posts and what API Gateway takes never fall when clients come, unless a backlog makes posts fuller."""
    few = plan(traffic, setup, mode)
    many = plan(replace(traffic, clients=traffic.clients + more), setup, mode)
    assume(not (few.speed.packing.waited or many.speed.packing.waited))
    almost = 1 - 1e-9
    assert many.load.posts > few.load.posts
    for part in (0.5, 0.99):
        assert many.speed.until(part) >= few.speed.until(part) * almost
    assert many.speed.last >= few.speed.last * almost
    for service in ("API Gateway messages", "API Gateway connections", "Data transfer"):
        assert many.costs[service] > few.costs[service]


@given(traffics, setups, modes)
def test_a_plan_holds_together(traffic: Traffic, setup: Setup, mode: str) -> None:
    """Times are in order, the rate within the account's, nothing negative, and the first limit the highest."""
    one = plan(traffic, setup, mode)
    pace = one.speed
    assert 0 < pace.start <= pace.until(0.5) <= pace.until(0.99) <= pace.last
    assert pace.rate <= setup.allowed * (1 + 1e-9)
    assert one.keeps_up == (pace.wait < inf)
    assert all(value >= 0 for value in one.costs.values())
    assert one.load.dynamodb_read_units > 0
    assert one.load.passes <= traffic.bursts_per_second * pace.packing.batches * (1 + 1e-9)
    assert one.load.posts <= one.load.deliveries * (1 + 1e-9)
    assert one.first.share == max(limit.share for limit in one.limits)
    assert {limit.name for limit in one.limits} >= {"account quota", "one vCPU", "posts in flight"}


@given(st.sampled_from(sorted(PRICES)), st.floats(0, 1e12), st.floats(0, 1e12))
def test_a_price_grows_with_the_quantity(name: str, some: float, more: float) -> None:
    """Tiers meet without a step, and a part never costs more than the whole."""
    price = PRICES[name]
    assert price.of(0) == 0
    assert price.of(some + more) >= price.of(some)
    assert price.of(some + more) <= (price.of(some) + price.of(more)) * (1 + 1e-9) + 1e-300


def test_tiers_are_counted_from_below() -> None:
    """The first billion messages cost a dollar a million, the next 80 cents."""
    assert isclose(PRICES["api gateway message"].of(1.5e9), 1_400)


def test_every_price_says_where_it_is_from() -> None:
    """Each has a source, and says whether it was checked."""
    assert all(price.source and price.checked in {"vendor", "others", "memory"} for price in PRICES.values())


def test_a_month_by_hand() -> None:
    """10,000 clients and a message every ten seconds, worked out with pencil and paper."""
    found = plan(Traffic(10_000, 0.1), Setup(), DIRECT)
    posts = 1_000 * 730 * 3_600
    assert isclose(found.costs["API Gateway messages"], 1_000 + (posts - 1e9) / 1e6 * 0.80)
    assert isclose(found.costs["API Gateway connections"], 10_000 * 730 * 60 / 1e6 * 0.25)
    assert found.costs["SQS"] == 0


def test_large_messages_are_metered_by_32_kb() -> None:
    """A byte over 32 KB is two messages to API Gateway."""
    one, two = (plan(Traffic(100, 0.01, payload=size), Setup(), DIRECT).costs for size in (32_768, 32_769))
    assert isclose(two["API Gateway messages"], 2 * one["API Gateway messages"])


def test_an_index_is_read_once_every_row_is_in_it() -> None:
    """A Query reads smaller rows at half the price; until the sweep is off it is a consistent Scan, as without one."""
    traffic = Traffic(1_000_000)
    scan = reads(traffic, Setup(), 8)
    assert isclose(scan[1], 1_000_000 * 100 / 4096, rel_tol=0.001)
    query = reads(traffic, Setup(index=True, sweep=False), 8)
    assert isclose(query[1], 1_000_000 * 60 / 4096 / 2, rel_tol=0.001)
    assert reads(traffic, Setup(index=True), 8) == scan
    assert reads(traffic, Setup(index=True, sweep=False), 1) == reads(traffic, Setup(), 1)


def test_counting_for_auto_costs_reads() -> None:
    """A count a minute reads as many rows as the threshold asks for."""
    without, counted = (plan(Traffic(50_000), Setup(auto_clients=each), FANOUT).load for each in (None, 5_000))
    assert 0 < counted.dynamodb_read_units - without.dynamodb_read_units < 5_000 * 100 / 4096 / 60


@pytest.mark.parametrize(
    ("traffic", "setup", "pace"),
    [
        (Traffic(100_000), FEW_PLACES, "posts in flight"),
        (Traffic(100_000), Setup(), "account quota"),
        (Traffic(100_000), Setup(concurrency=1_000, quota=100_000), "one vCPU"),
        (Traffic(100_000), Setup(concurrency=1_000), "account quota"),
        (Traffic(100_000), Setup(concurrency=1_000, others=2_000), "account quota"),
    ],
)
def test_what_sets_the_pace_of_one_function(traffic: Traffic, setup: Setup, pace: str) -> None:
    """The smallest of the bounds is named."""
    assert speed(traffic, setup, DIRECT).pace == pace


def test_fewer_shards_than_workers_leave_some_of_the_quota() -> None:
    """Each worker has its share, used or not: four shards keep only four of eight workers busy."""
    pace = speed(Traffic(100_000), Setup(shards=4), FANOUT)
    assert (pace.functions, pace.rate, pace.pace) == (4, 5_000, "share of the quota")


def test_shards_handed_to_one_worker_wait_for_each_other() -> None:
    """Where Lambda puts all shards in one batch, one worker's share is all there is."""
    pace = speed(Traffic(100_000), Setup(groups_per_batch=8), FANOUT)
    assert (pace.functions, pace.rate) == (1, 1_250)


def test_a_long_burst_is_continued() -> None:
    """A million clients at 10,000 a second need more than one invocation, and the plan says so."""
    found = plan(Traffic(1_000_000, 0.001), Setup(), FANOUT)
    assert found.speed.hops == 1
    assert found.first.name == "one invocation"


@pytest.mark.parametrize(
    ("clients", "setup", "mode"),
    [
        (1_000, Setup(), DIRECT),
        (10_000, FEW_PLACES, AUTO),
        (100_000, FEW_PLACES, FANOUT),
        (100_000, Setup(), DIRECT),
        (1_000_000, Setup(concurrency=1_000), DIRECT),
    ],
)
def test_the_simplest_that_is_quick_enough_is_recommended(clients: int, setup: Setup, mode: str) -> None:
    """One function where it does, workers where they are sooner done, auto near the turn."""
    assert advise(Traffic(clients, 0.001), setup).mode == mode


def test_the_turn_is_where_a_second_is_saved() -> None:
    """Below the break-even fanning out saves less than a second, above it more."""
    turn = break_even(Traffic(1, 0.1), FEW_PLACES)
    assert turn is not None

    def saved(clients: int) -> float:
        there = Traffic(clients, 0.1)
        return speed(there, FEW_PLACES, DIRECT).last - speed(there, FEW_PLACES, FANOUT).last

    assert saved(int(turn * 0.98)) < 1 <= saved(turn)


@pytest.mark.parametrize(
    ("traffic", "setup", "words"),
    [
        (Traffic(100_000, 1), Setup(), "account quota is at 1000%"),
        (Traffic(4_000, 0.1), FEW_PLACES, "MaxConcurrency="),
        (Traffic(50, 0.1), Setup(), "nothing: each client waits only for its own posts"),
        (Traffic(50_000, 0.01), Setup(concurrency=2_000, quota=40_000, cpu_per_post=5e-5, workers=2), "one vCPU"),
        (Traffic(100_000, 0.01), Setup(), "the account's API Gateway quota"),
    ],
)
def test_what_to_raise_next(traffic: Traffic, setup: Setup, words: str) -> None:
    """The limit that is nearly used up, else what sets the pace."""
    assert words in advise(traffic, setup).next


@given(traffics)
def test_others_cost_something_too(traffic: Traffic) -> None:
    """Every part of every alternative is there and none is negative."""
    found = alternatives(traffic)
    assert set(found) == {"AppSync Events", "IoT Core", "Centrifugo"}
    assert all(value >= 0 for parts in found.values() for value in parts.values())


@pytest.mark.parametrize(
    ("text", "value"), [("25000", 25_000), ("25k", 25_000), ("1M", 1_000_000), ("1,000", 1_000), ("1e6", 1_000_000)]
)
def test_numbers_as_people_write_them(text: str, value: int) -> None:
    """Thousands and millions in any common form."""
    assert quantities.whole(text, 1, 10_000_000) == value


def test_times_and_sizes_as_people_write_them() -> None:
    """With a unit or without."""
    assert quantities.seconds("20ms", 0, 1) == pytest.approx(0.02)
    assert quantities.seconds("25us", 0, 1) == pytest.approx(25e-6)
    assert quantities.seconds("0.5", 0, 1) == 0.5
    assert quantities.size("2KB", 1, 10_000) == 2_048


@given(st.text(max_size=12))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    """Nothing but ``ValueError`` comes of it, and nothing outside the bounds."""
    for parse in (quantities.whole, quantities.number, quantities.seconds, quantities.size):
        try:
            assert 1 <= parse(text, 1, 100) <= 100
        except ValueError:
            continue


def _run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_the_table_names_all_that_was_asked_for() -> None:
    """Times, load, limits, costs, alternatives and what to do are on the screen."""
    result = _run("--clients", "10k", "--messages-per-second", "0.1", "--index", "--no-sweep", "--concurrency", "100")
    assert result.exit_code == 0, result.output
    for words in (
        "1,000.0 messages a second, to all clients together; the account leaves 10,000 posts a second",
        "half of the clients have it after",
        "99 % of them",
        "Lambdas busy",
        "SQS requests a second",
        "DynamoDB read units a second",
        "limit: index partition",
        "binds first",
        "API Gateway connections",
        "AppSync Events",
        "IoT Core",
        "Centrifugo",
        "Recommended: auto",
        "Next: ",
        "Prices of ",
    ):
        assert words in result.output


def test_what_cannot_keep_up_is_said() -> None:
    """More than the account allows is no time but a backlog."""
    assert "never catches up" in _run("--clients", "1M", "--messages-per-second", "1").output


def test_json_has_every_figure_and_no_infinity() -> None:
    """The parts of a cost sum to its total, also where the backlog grows without end."""
    result = _run("--clients", "100k", "--messages-per-second", "1", "--json")
    found = json.loads(result.output, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    for mode in (DIRECT, FANOUT):
        one = found["modes"][mode]
        assert one["total"] == pytest.approx(sum(one["costs"].values()))
        assert one["speed"]["wait"] is None
        assert not one["speed"]["keeps_up"]
    assert found["prices"]["dated"]
    assert all(each["total"] == pytest.approx(sum(each["costs"].values())) for each in found["alternatives"].values())


def test_the_simulation_stands_beside_the_formulas() -> None:
    """In the table and in JSON."""
    assert "simulated: the last, worst burst" in _run("--clients", "1k", "--simulate").output
    found = json.loads(_run("--clients", "1k", "--simulate", "--json").output)["modes"][DIRECT]
    assert found["simulated"]["bursts"] == 20
    assert 0 < found["simulated"]["p50"] <= found["simulated"]["p99"]


def test_a_plot_is_an_svg_and_always_the_same(tmp_path: Path) -> None:
    """Two runs draw the same bytes."""
    files = [tmp_path / "one.svg", tmp_path / "two.svg"]
    for file in files:
        assert _run("--clients", "1k", "--plot", str(file)).exit_code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert ET.fromstring(files[0].read_text()).tag.endswith("svg")  # noqa: S314 - our own file


def test_a_plot_can_show_the_simulation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points beside the lines."""
    monkeypatch.setattr(command, "_SIMULATED_POSTS", 1)
    monkeypatch.setattr("async_relay.planning.plot.ROUND_SIZES", (1_000,))
    file = tmp_path / "plan.svg"
    assert _run("--clients", "1k", "--simulate", "--plot", str(file)).exit_code == 0
    assert "simulated" in file.read_text()


def test_without_matplotlib_a_plot_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the extra that brings it."""

    def missing(*_: object) -> None:
        raise ImportError("matplotlib")

    monkeypatch.setattr(command, "draw", missing)
    result = _run("--clients", "1k", "--plot", str(tmp_path / "plan.svg"))
    assert result.exit_code == 1
    assert result.output == "Error: --plot needs matplotlib: install it from the checkout: pip install '.[plots]'\n"


def test_without_matplotlib_drawing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a program draws without the command."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"^a plot needs matplotlib: .* pip install '.\[plots\]'$"):
        draw(tmp_path / "plan.svg", Traffic(clients=1_000), Setup())


def test_a_plot_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A directory that is not there is named with its reason."""
    result = _run("--clients", "1k", "--plot", str(tmp_path / "no" / "plan.svg"))
    assert result.exit_code == 1
    assert result.output.endswith("cannot be written: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no clients: give --clients, like 10k"),
        (["--clients", "0"], "'--clients': '0' is not a whole number from 1 to 100,000,000"),
        (["--clients", "many"], "'--clients': 'many' is not a whole number from 1 to 100,000,000"),
        (["--clients", "1.5"], "'--clients': '1.5' is not a whole number from 1 to 100,000,000"),
        (["--clients", "1k", "--messages-per-second", "-1"], "'--messages-per-second': '-1' is not a number"),
        (["--clients", "1k", "--payload", "200KB"], "'200KB' is not a size from 1 to 131,072 bytes, like 600 or 2KB"),
        (["--clients", "20.000"], "'20.000' is not a whole number from 1 to 100,000,000, like 20,000 or 20k"),
        (["--clients", "1k", "--quota", "10.000"], "from 1 to 10,000,000, like 10,000 or 10k"),
        (["--clients", "1k", "--batch", "1000"], "'--batch': '1000' is not one of 1, 10, 100, 500, 2,000, 10,000"),
        (["--clients", "1k", "--session", "3h"], "'3h' is not a time from 1 to 7,200 seconds, like 90m"),
        (["--clients", "1k", "--window", "6m"], "'6m' is not a time from 0 to 300 whole seconds, like 5s or 2m"),
        (
            ["--table", "sizes", "--clients", "1k", "--json"],
            "--table sizes ignores --clients and --json: run it without",
        ),
        (["--table", "bill", "--burst", "10"], "--table bill ignores --burst: run it without"),
        (
            ["--table", "windows", "--clients", "1k", "--frames", "1", "--window", "0", "--simulate", "--seed", "1"],
            "--table windows ignores --window and --simulate and --seed: run it without",
        ),
        (["--table", "windows", "--clients", "1k"], "--table windows needs --frames, like --frames 1: to objects"),
        (["--clients", "1k", "--latency", "0"], "'--latency': '0' is not a time from 0.0001 to 60 seconds, like 20ms"),
        (["--clients", "1k", "--shards", "1001"], "'--shards': '1001' is not a whole number from 1 to 1,000"),
        (["--clients", "1k", "--workers", "1"], "'--workers': '1' is not a whole number from 2 to 1,000"),
        (["--clients", "1k", "--others", "10k"], "--others is 10,000; it must leave something of the quota of 10,000"),
        (["--clients", "1k", "--seed", "x"], "'--seed': 'x' is not a whole number"),
        (["--clients", "1k", "--plot", "plan.png"], "--plot is 'plan.png'; it must be the name of an SVG file"),
    ],
)
def test_a_bad_option_is_one_sentence(arguments: list[str], sentence: str) -> None:
    """It names the option, shows what was found and says what is expected, with exit code 2."""
    result = _run(*arguments)
    assert result.exit_code == 2
    line = result.output.splitlines()[-1]
    assert line.startswith("Error: ")
    assert sentence in line
