"""The plan of clients that read arrays: posts, windows and backlogs worked out by hand, and advice that holds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from math import ceil, inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from async_relay.cli.app import app
from async_relay.planning.advice import advise
from async_relay.planning.model import plan
from async_relay.planning.packing import cpu_per_post, gathered, in_a_frame, packed
from async_relay.planning.remedies import next_step
from async_relay.planning.scenario import Delays, Scenario
from async_relay.planning.simulation import simulate
from async_relay.planning.values import AUTO, DIRECT, FANOUT, FRAMED_MESSAGE_CPU, NEITHER, Setup, Traffic
from async_relay.wire.frames import Frames
from async_relay.wire.messages import Message

traffics = st.builds(
    Traffic,
    clients=st.integers(1, 2_000_000),
    messages_per_second=st.floats(1e-3, 50),
    burst=st.sampled_from([1, 10, 100]),
    payload=st.integers(1, 40_000),
    frames=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
)
setups = st.builds(
    Setup,
    quota=st.sampled_from([2_500.0, 10_000.0, 100_000.0]),
    shards=st.sampled_from([4, 8, 20]),
    workers=st.sampled_from([4, 8, 20]),
    concurrency=st.sampled_from([20, 100, 900]),
    stream_shards=st.sampled_from([1, 4]),
    batch=st.sampled_from([10, 100, 500]),
    window=st.sampled_from([0.0, 1.0, 5.0]),
)

#: One function posts 4,400 a second with it, so it is places that bind, and workers gain.
FEW_PLACES = Setup(concurrency=100)


def message_of(size: int) -> Message:
    return Message("", "", "", b"x" * size, "")


# ── posts ───────────────────────────────────────────────────────────────────────────────────────


@example(10, 340, 1_024)  # three of them fill it to the last byte
@given(st.integers(2, 60), st.integers(1, 40_000), st.integers(1_024, 131_072))
def test_as_many_messages_are_in_a_post_as_the_relay_puts_there(count: int, size: int, room: int) -> None:
    """Frames themselves say how many messages of one size fit."""
    frames = Frames([message_of(size)] * count, room)
    left, posts = (1 << count) - 1, 0
    while left:
        left &= ~frames.fitting(left)
        posts += 1
    setup = Setup(batch=count, frame_bytes=room)
    assert packed(Traffic(1, payload=size, frames=1.0), setup, count).posts == posts


def test_a_burst_is_a_post_for_as_many_as_fit() -> None:
    """600 bytes: 54 to a post of 32 KB, so that a hundred are two, and a client that reads objects gets a hundred."""
    traffic = Traffic(10_000, burst=100, frames=1.0)
    assert in_a_frame(traffic, Setup()) == 54
    assert [packed(traffic, Setup(), count).posts for count in (1, 54, 55, 100)] == [1, 1, 2, 2]
    assert packed(replace(traffic, frames=0.25), Setup(), 100).posts == pytest.approx(0.25 * 2 + 0.75 * 100)


def test_batches_share_no_post() -> None:
    """A burst of 250 is batches of 100, 100 and 50: two posts, two and one."""
    found = packed(Traffic(1, burst=250, frames=1.0), Setup(), 250)
    assert (found.posts, found.batches) == (5, 3)


def test_a_post_is_metered_by_32_kb_however_much_is_in_it() -> None:
    """A frame of 64 KB is two; a message of 32 KB alone has no brackets and is one."""
    wide = Setup(frame_bytes=65_536)
    assert packed(Traffic(1, payload=600, frames=1.0), wide, 100).metered == 2
    assert packed(Traffic(1, payload=600, frames=1.0), Setup(), 100).metered == 2
    assert packed(Traffic(1, payload=32_768, frames=1.0), Setup(), 3).metered == 3
    assert packed(Traffic(1, payload=32_769), Setup(), 3).metered == 6


def test_a_message_of_a_frame_costs_a_hundredth_of_a_post() -> None:
    """As measured: a post of fifty took 1.4 times the CPU of a post of one."""
    fifty = packed(Traffic(1, frames=1.0), Setup(), 50)
    assert cpu_per_post(Setup(), fifty) == pytest.approx(25e-6 * 127 / 91)
    assert cpu_per_post(Setup(), packed(Traffic(1), Setup(), 50)) == 25e-6
    assert 0.007 < FRAMED_MESSAGE_CPU < 0.009


# ── windows and backlogs ────────────────────────────────────────────────────────────────────────


def test_a_window_gathers_what_comes_meanwhile() -> None:
    """Ten a second and two seconds are twenty more; four shards of the stream gather a quarter each."""
    traffic = Traffic(1_000, 10, frames=1.0)
    found = gathered(traffic, Setup(window=2.0))
    assert (found.messages, found.held, found.posts) == (21, 2.0, 1)
    assert gathered(traffic, Setup(window=2.0, stream_shards=4)).messages == 6


def test_a_full_batch_does_not_wait() -> None:
    """With ten a second a hundred are there after 9.9 s; a burst that fills a batch goes at once."""
    assert gathered(Traffic(1_000, 10), Setup(window=60.0)).held == pytest.approx(9.9)
    assert gathered(Traffic(1_000, 10, burst=100), Setup(window=60.0)).held == 0


def test_a_window_is_paid_with_time_and_saves_posts() -> None:
    """The first message of a batch waits all of it."""
    traffic = Traffic(10_000, 1.0, frames=1.0)
    at_once, waited = (plan(traffic, Setup(window=window), FANOUT) for window in (0.0, 9.0))
    assert waited.speed.last - at_once.speed.last == pytest.approx(9.0, abs=0.1)
    assert [at_once.load.posts, waited.load.posts] == pytest.approx([10_000, 1_000])
    assert waited.load.jobs == pytest.approx(at_once.load.jobs / 10)


def test_one_function_that_is_behind_sends_together_what_waits() -> None:
    """Twice as many messages as it can post one by one: two to a post, and a message waits for half a pass."""
    traffic = Traffic(8_800, 1.0, frames=1.0)
    found = plan(traffic, FEW_PLACES, DIRECT)
    assert found.speed.packing.messages == pytest.approx(8_800 / found.speed.rate, rel=0.002)
    assert found.keeps_up
    assert found.speed.wait == pytest.approx(found.speed.work / 2, rel=0.05)
    assert plan(replace(traffic, frames=0.0), FEW_PLACES, DIRECT).speed.wait == inf
    # Of twenty times as many messages a batch would have to hold twenty.
    assert plan(replace(traffic, messages_per_second=10.0), FEW_PLACES, DIRECT).keeps_up
    assert not plan(replace(traffic, messages_per_second=10.0), Setup(batch=10, concurrency=100), DIRECT).keeps_up


def test_workers_do_not_catch_up_by_gathering() -> None:
    """Each batch is a job of its own by then: only a window brings messages together."""
    traffic = Traffic(20_000, 1.0, frames=1.0)
    assert not plan(traffic, Setup(), FANOUT).keeps_up
    assert plan(traffic, Setup(window=2.0), FANOUT).keeps_up


def test_what_one_invocation_has_no_time_for_gathers_nothing() -> None:
    """A pass to a million clients is longer, and its rest is no longer on the stream."""
    assert not plan(Traffic(1_000_000, 0.1, frames=1.0), Setup(), DIRECT).keeps_up


# ── advice ──────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=300, deadline=None)
@given(traffics, setups)
def test_no_advice_contradicts_its_table(traffic: Traffic, setup: Setup) -> None:
    """What is recommended keeps up, and where nothing is recommended nothing does."""
    plans = {mode: plan(traffic, setup, mode) for mode in (DIRECT, FANOUT)}
    able = {mode for mode, each in plans.items() if each.keeps_up}
    found = advise(traffic, setup)
    if found.mode == NEITHER:
        assert not able
    elif found.mode == AUTO:
        assert able == {DIRECT, FANOUT}
    else:
        assert found.mode in able


@settings(max_examples=100, deadline=None)
@given(traffics, setups)
def test_a_window_that_is_advised_suffices(traffic: Traffic, setup: Setup) -> None:
    """With it the mode that is named keeps up, and sends fewer posts."""
    found = re.search(r"StreamBatchingWindowSeconds=(\d+) with FanoutMode=(\w+)", advise(traffic, setup).next)
    if found:
        at_once, waited = (
            plan(traffic, replace(setup, window=each), found[2]) for each in (setup.window, float(found[1]))
        )
        assert waited.keeps_up
        assert waited.load.posts < at_once.load.posts


def test_no_window_is_advised_where_all_that_could_meet_has_met() -> None:
    """A burst that fills its batch does not wait, and one that one invocation is too short for only grows."""
    for setup in (Setup(), Setup(batch=10_000)):
        found = advise(Traffic(500_000, 0.001, burst=1_000, frames=1.0), setup).next
        assert found.startswith("one invocation is at ")
        assert "Window" not in found


@pytest.mark.parametrize(
    ("traffic", "words"),
    [
        (Traffic(20_000, 0.01, burst=100), "at 357%: clients that read arrays get 100 messages in 2 posts; else raise"),
        (Traffic(1_000, 0.01, burst=100), "clients that read arrays get 100 messages in 2 posts, and the last one has"),
        (Traffic(40_000, 0.2), "1.2 messages in 1 post with StreamBatchingWindowSeconds=1; else raise the API Gateway"),
    ],
)
def test_arrays_are_advised_first(traffic: Traffic, words: str) -> None:
    """Where a burst of objects is long or a limit is near: with a window where nothing meets of itself."""
    assert words in plan_next(traffic)


def plan_next(traffic: Traffic) -> str:
    """Of the workers."""
    return next_step(plan(traffic, Setup(), FANOUT))


@settings(max_examples=100, deadline=None)
@given(traffics, setups)
def test_arrays_that_are_advised_save_posts(traffic: Traffic, setup: Setup) -> None:
    """And nobody who reads arrays already is told to."""
    found = advise(traffic, setup)
    if "clients that read arrays" in found.next and "Window" not in found.next:
        modes = (DIRECT, FANOUT) if found.mode in (NEITHER, AUTO) else (found.mode,)
        fuller = replace(traffic, frames=1.0)
        assert any(plan(fuller, setup, mode).load.posts < plan(traffic, setup, mode).load.posts for mode in modes)


def test_a_window_is_advised_where_posts_are_too_many() -> None:
    """The shortest that leaves room, and nothing about arrays to those who read them already."""
    found = advise(Traffic(100_000, 1.0, frames=1.0), Setup())
    assert found.mode == DIRECT
    assert found.why.startswith("workers cannot keep up; one function does, since it sends together")
    assert found.next == "StreamBatchingWindowSeconds=20 with FanoutMode=fanout sends 21 messages together"
    assert "clients that read arrays" not in advise(Traffic(1_000_000, 1.0, frames=1.0), Setup()).next
    objects = advise(Traffic(100_000, 1.0), Setup()).next
    assert "clients that read arrays" in objects
    assert "Window" not in objects


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


@given(traffics, setups, st.sampled_from([DIRECT, FANOUT]))
def test_frames_never_cost_more(traffic: Traffic, setup: Setup, mode: str) -> None:
    """Neither posts nor dollars of them: a message alone is the post it was."""
    with_frames, without = (plan(replace(traffic, frames=share), setup, mode) for share in (1.0, 0.0))
    assert with_frames.load.posts <= without.load.posts * (1 + 1e-9)
    for service in ("API Gateway messages", "Data transfer"):
        assert with_frames.costs[service] <= without.costs[service] * (1 + 1e-9)


def test_bursts_of_a_hundred_cost_a_fiftieth() -> None:
    """Of what API Gateway takes for messages; those elsewhere are paid one by one."""
    traffic = Traffic(10_000, 1.0, burst=100)
    objects, arrays = (plan(replace(traffic, frames=share), Setup(), FANOUT) for share in (0.0, 1.0))
    assert objects.load.metered == pytest.approx(50 * arrays.load.metered)


# ── the simulation ──────────────────────────────────────────────────────────────────────────────


def test_the_simulation_sends_a_burst_in_frames() -> None:
    """A hundred messages are two posts for those who read arrays, and a hundred for each other client."""
    for share, posts in ((1.0, 2), (0.5, 51), (0.0, 100)):
        traffic = Traffic(200, 1e-6, burst=100, session=1e9, frames=share)
        out = simulate(Scenario(traffic, Setup(), DIRECT, bursts=1))
        assert out.posts == 200 * posts
        assert out.delivered == 200 * 100


def test_the_simulation_waits_for_the_window() -> None:
    """Messages a second apart are sent ten together, the first of them ten seconds late."""
    traffic = Traffic(50, 1.0, session=1e9, frames=1.0)
    scenario = Scenario(traffic, Setup(window=9.5), FANOUT, bursts=20, even=True, delays=Delays(cold=0.0, poll=0.0))
    out = simulate(scenario)
    assert out.posts == 50 * 2
    assert 9.5 < out.worst < 10


def test_the_simulation_does_not_wait_for_a_full_batch() -> None:
    """The tenth message ends the window."""
    traffic = Traffic(50, 10.0, session=1e9, frames=1.0)
    setup = Setup(window=60.0, batch=10)
    out = simulate(Scenario(traffic, setup, DIRECT, bursts=10, even=True, delays=Delays(cold=0.0)))
    assert out.posts == 50
    assert out.worst < 2


@pytest.mark.parametrize("clients", [5_000, 20_000])
def test_one_function_behind_is_simulated_as_it_is_planned(clients: int) -> None:
    """Never idle, it sends together what came during its last pass, and stays as late as the formulas say."""
    traffic = Traffic(clients, 2.0, session=1e9, frames=1.0)
    found = plan(traffic, FEW_PLACES, DIRECT)
    out = simulate(Scenario(traffic, FEW_PLACES, DIRECT, bursts=200, delays=Delays(cold=0.0)))
    assert out.last == pytest.approx(found.speed.last + found.speed.wait, rel=0.25)
    assert out.posts == pytest.approx(200 * clients / found.speed.packing.messages, rel=0.25)


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_the_command_takes_frames_and_windows() -> None:
    """They stand in the JSON, and what becomes of them in each mode beside its posts."""
    words = ("--frames", "0.8", "--window", "2s", "--batch", "500", "--frame-bytes", "64KB", "--json")
    found = json.loads(run("--clients", "1k", "--messages-per-second", "5", *words).output)
    assert found["traffic"]["frames"] == 0.8
    assert (found["setup"]["window"], found["setup"]["batch"], found["setup"]["frame_bytes"]) == (2, 500, 65_536)
    for one in found["modes"].values():
        assert one["speed"]["packing"]["messages"] == 11
        assert one["load"]["posts"] == pytest.approx(1_000 * 5 / 11 * (0.8 + 0.2 * 11))
    assert found["traffic"]["deliveries_per_second"] == 5_000


def test_the_table_says_in_how_many_posts_they_come() -> None:
    """And where nothing keeps up, that nothing is recommended."""
    output = run("--clients", "1k", "--burst", "100", "--frames", "1").output
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in output.splitlines() if line.count("│") == 4}
    assert [cell.strip() for cell in rows["posts for them, a client"]] == ["2.0", "2.0"]
    assert (
        "Recommended: neither, as it is: 1,000,000 posts" in run("--clients", "1M", "--messages-per-second", "1").output
    )


def test_the_table_says_how_many_messages_a_batch_has() -> None:
    """A hundred that come together, one by one, are a hundred posts and a hundred calls."""
    output = run("--clients", "1k", "--burst", "100", "--batch", "1").output
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in output.splitlines() if "│" in line}
    assert [rows["messages that come together"], rows["posts for them, a client"]] == ["100.0", "100.0"]
    assert rows["of them sent together"] == "1.0"


def test_nothing_binds_where_every_limit_is_low() -> None:
    """What binds is named from seven tenths on; the shares are in the rows above."""
    assert "none yet" in run("--clients", "10k", "--messages-per-second", "0.01").output
    assert "│binds first" in (busy := run("--clients", "1M", "--messages-per-second", "0.01").output)
    assert "none yet" not in busy


@pytest.mark.parametrize(
    "words",
    [
        ("--frames", "1.1"),
        ("--window", "301"),
        ("--window", "1.5"),
        ("--batch", "0"),
        ("--batch", "3"),
        ("--frame-bytes", "1KB1"),
    ],
)
def test_what_lambda_or_the_relay_would_not_take_is_refused(words: tuple[str, str]) -> None:
    """As any other number beyond its bounds."""
    assert run("--clients", "10", *words).exit_code == 2


def test_posts_are_whole_where_a_batch_is() -> None:
    """A window's average is not: three and a half messages are one post, and never more than messages."""
    alone = Traffic(1, payload=20_000, frames=1.0)
    assert (packed(alone, Setup(), 2.5).posts, packed(alone, Setup(), 2.5).metered) == (2.5, 2.5)
    assert packed(Traffic(1, frames=1.0), Setup(), 3.5).posts == 1
    assert packed(Traffic(1, frames=1.0), Setup(), 100 + 1e-12).posts == ceil(100 / 54)
