"""The simulation behind ``async-relay plan``: nothing lost, no limit passed, near the formulas."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from async_relay.planning.model import speed
from async_relay.planning.scenario import Delays, Scenario, Simulated, percentile
from async_relay.planning.simulation import simulate
from async_relay.planning.values import DIRECT, FANOUT, RETRY_WORKERS, Setup, Traffic
from async_relay.planning.work import TokenBucket
from benchmarks import measurement
from benchmarks.command import USAGE, exit_code

scenarios = st.builds(
    Scenario,
    traffic=st.builds(
        Traffic,
        clients=st.integers(1, 1_000),  # more, with large bursts on a small quota, take minutes and show nothing else
        messages_per_second=st.floats(0.01, 20),
        burst=st.integers(1, 50),
        latency=st.floats(0.002, 0.2),
        session=st.floats(5, 7_200),
        frames=st.sampled_from([0.0, 0.37, 1.0]),
    ),
    setup=st.builds(
        Setup,
        quota=st.floats(2_000, 50_000),
        others=st.floats(0, 1_500),
        shards=st.integers(1, 20),
        workers=st.integers(2, 10),
        concurrency=st.integers(10, 300),
        cpu_per_post=st.floats(5e-6, 1e-4),
        stream_shards=st.integers(1, 3),
        groups_per_batch=st.integers(1, 10),
        batch=st.sampled_from([1, 10, 100]),
        window=st.sampled_from([0.0, 1.0, 30.0]),
        frame_bytes=st.sampled_from([1_024, 32_768]),
    ),
    mode=st.sampled_from([DIRECT, FANOUT]),
    bursts=st.integers(1, 3),
    even=st.booleans(),
    account_burst=st.floats(100, 5_000),
    ceilings=st.booleans(),
    missed=st.floats(0, 0.5),
    seed=st.integers(0, 1_000),
    delays=st.builds(Delays, usable=st.floats(1, 56)),
)


@settings(max_examples=60, deadline=None)
@given(scenarios)
def test_posts_and_messages_are_conserved(scenario: Scenario) -> None:
    """Every post, and each that a frame saved, is delivered, gone or refused; messages likewise; bursts end."""
    out = simulate(scenario)
    assert out.posts + out.saved == out.delivered + out.gone + out.refused
    assert bool(out.saved) <= bool(scenario.traffic.frames)
    assert out.owed == out.delivered + out.skipped
    assert len(out.lasts) == scenario.bursts
    assert out.most_functions <= scenario.setup.workers + scenario.setup.stream_shards + RETRY_WORKERS


@given(
    st.floats(1, 10_000), st.floats(0, 5_000), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10_000)), max_size=30)
)
def test_the_bucket_is_never_exceeded(rate: float, burst: float, takes: list[tuple[float, int]]) -> None:
    """Between any two moments no more is granted than was saved up and has flowed in."""
    bucket, now, granted = TokenBucket(rate, burst), 0.0, []
    for gap, wanted in takes:
        now += gap
        granted.append((now, bucket.take(now, wanted)))
        assert granted[-1][1] <= wanted
    for first in range(len(granted)):
        for last in range(first, len(granted)):
            inside = sum(count for _, count in granted[first : last + 1])
            assert inside <= burst + rate * (granted[last][0] - granted[first][0]) + 1e-6 * (1 + inside)


def _one(clients: int, mode: str = FANOUT, groups: int = 1) -> Scenario:
    traffic = Traffic(clients, 1e-6, session=1e9)
    return Scenario(traffic, Setup(groups_per_batch=groups), mode, bursts=1, delays=Delays(cold=0.0))


@pytest.mark.parametrize("mode", [DIRECT, FANOUT])
@pytest.mark.parametrize("clients", [5_000, 50_000, 200_000])
def test_one_burst_takes_what_the_formulas_say(clients: int, mode: str) -> None:
    """Where there is no queue and no cold start, both agree within a twentieth and a tenth of a second."""
    scenario = _one(clients, mode)
    out, pace = simulate(scenario), speed(scenario.traffic, scenario.setup, mode)
    assert out.until(0.5) == pytest.approx(pace.until(0.5), rel=0.05, abs=0.1)
    assert out.until(0.99) == pytest.approx(pace.until(0.99), rel=0.05, abs=0.1)
    assert out.last == pytest.approx(pace.last, rel=0.05, abs=0.15)


def test_the_same_seed_gives_the_same() -> None:
    """A run can be repeated."""
    scenario = Scenario(Traffic(2_000, 1.0), bursts=5, seed=7)
    assert simulate(scenario) == simulate(scenario)
    assert simulate(scenario) != simulate(replace(scenario, seed=8))


def test_a_million_clients_take_seconds() -> None:
    """A step is many posts, so a million clients are no more than some thousands of events."""
    began = time.perf_counter()
    out = simulate(_one(1_000_000))
    assert out.delivered == 1_000_000
    assert 95 < out.last < 110
    assert time.perf_counter() - began < 20


@pytest.mark.parametrize("mode", [DIRECT, FANOUT])
def test_a_deadline_leaves_nothing_behind(mode: str) -> None:
    """What one invocation has no time for is continued, and everybody is served."""
    out = simulate(replace(_one(50_000, mode), delays=Delays(usable=2.0)))
    assert out.continuations > 0
    assert out.delivered == 50_000


def test_continuations_are_overtaken_by_what_waits_behind_them() -> None:
    """A continuation goes behind its group's queue: the simulation counts how often something was there."""
    traffic = Traffic(50_000, 1.0)
    out = simulate(Scenario(traffic, Setup(), bursts=10, even=True, delays=Delays(usable=2.0)))
    assert out.overtaken > 0


def test_shards_in_one_batch_share_one_worker() -> None:
    """Handed all shards at once, one worker has only its own share of the quota."""
    spread, together = simulate(_one(20_000)), simulate(_one(20_000, groups=8))
    assert together.last > 6 * spread.last
    assert together.most_functions == 1


def test_the_account_refuses_what_others_use() -> None:
    """Workers whose shares are more than there is see 429, come down, and still serve everybody."""
    scenario = Scenario(Traffic(30_000, 0.05), Setup(others=4_000), bursts=4, account_burst=500.0)
    out = simulate(scenario)
    assert out.refused > 0
    assert out.delivered + out.skipped == out.owed


def test_without_ceilings_workers_find_the_limit_by_themselves() -> None:
    """429 alone brings them near the account's rate: few posts are refused for good."""
    out = simulate(Scenario(Traffic(100_000, 0.01), Setup(concurrency=100), bursts=2, ceilings=False))
    assert 0 < out.refused < 0.2 * out.posts


def test_clients_that_left_are_found_gone() -> None:
    """Rows whose $disconnect was missed cost a post each, once."""
    kept = simulate(Scenario(Traffic(5_000, 1.0, session=60), bursts=10, missed=0.0))
    missed = simulate(Scenario(Traffic(5_000, 1.0, session=60), bursts=10, missed=0.5))
    assert missed.gone > kept.gone > 0
    assert missed.skipped >= missed.gone


def test_bursts_behind_each_other_share_a_read() -> None:
    """Where bursts come faster than they are served and a batch holds many jobs, fewer reads than jobs are made."""
    out = simulate(Scenario(Traffic(20_000, 5.0), Setup(groups_per_batch=2), bursts=40, even=True))
    assert out.jobs <= 40 * 8
    assert out.pages < out.jobs
    assert len(out.lasts) == 40


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1), st.floats(0.01, 1))
def test_a_percentile_has_its_part_below(weighted: list[tuple[float, int]], part: float) -> None:
    """At least this part of the weight is not above it."""
    value = percentile(weighted, part)
    total = sum(weight for _, weight in weighted)
    assert sum(weight for each, weight in weighted if each <= value) >= part * total - 1e-6


def test_nothing_simulated_has_no_times() -> None:
    """An empty run is all zeros."""
    assert (Simulated().until(0.5), Simulated().last, Simulated().worst) == (0.0, 0.0, 0.0)


async def test_the_measurement_serves_everybody_and_compares() -> None:
    """On the machine's own clock: figures in order, whatever they are today."""
    found = await measurement.measure(300, 0.002, 50, 3_000.0, 2)
    assert 0 < found.half <= found.most <= found.last < 5
    model = measurement.simulated(300, 0.002, 50, 1_500.0, 2, 1e-5)
    assert len(found.errors(model)) == 3


async def test_the_measurement_prints_a_line_a_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One JSON line each: measured, simulated and the error."""

    async def cpu_per_post() -> float:
        return 1e-5

    monkeypatch.setattr(measurement, "cpu_per_post", cpu_per_post)
    assert await asyncio.to_thread(exit_code, measurement.main, ["--clients", "200", "--latency", "0.002"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["way"] for row in rows] == [
        "one, no limit",
        "one, limited",
        "eight, limited",
        "one, all its CPU",
    ]
    assert all(len(row["error"]) == 3 for row in rows)


def test_a_wrong_option_of_the_measurement_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is measured."""
    assert exit_code(measurement.main, ["--clients", "0"]) == USAGE
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
