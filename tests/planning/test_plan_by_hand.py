"""The plan's figures, each worked out by hand."""

from __future__ import annotations

import json
from math import inf
from typing import Any

import pytest
from typer.testing import CliRunner

from async_relay.cli import plan as command
from async_relay.cli import plan_report
from async_relay.cli.app import app
from async_relay.planning import quantities, simulation
from async_relay.planning.advice import advise, break_even
from async_relay.planning.costs import alternatives, costs
from async_relay.planning.model import closed_rate, dispatch_seconds, limits, load, plan, reads, speed
from async_relay.planning.packing import in_a_frame
from async_relay.planning.prices import PRICES
from async_relay.planning.scenario import Scenario
from async_relay.planning.values import (
    DIRECT,
    FANOUT,
    HOP_SECONDS,
    INVOKE_SECONDS,
    NEITHER,
    STREAM_BATCH,
    USABLE,
    Load,
    Setup,
    Traffic,
)

#: One function posts 4,400 a second with it, so it is places that bind, and workers gain.
FEW_PLACES = Setup(concurrency=100)

MONTH = 730 * 3_600


def of(name: str, quantity: float) -> float:
    return PRICES[name].of(quantity)


# ── how fast ────────────────────────────────────────────────────────────────────────────────────


def test_one_function_may_use_all_that_the_account_leaves() -> None:
    """Workers have a share each; others of the account are taken off both."""
    setup = Setup(quota=1_000, workers=8, shards=8, concurrency=900)
    assert speed(Traffic(100_000), setup, DIRECT).each == 1_000
    assert speed(Traffic(100_000), setup, FANOUT).each == 125
    others = Setup(quota=1_000, others=600, workers=2, shards=2, concurrency=900)
    assert speed(Traffic(100_000), others, DIRECT).each == 400
    assert speed(Traffic(100_000), others, FANOUT).each == 200


def test_a_function_that_posts_itself_has_a_shards_part_of_what_others_leave() -> None:
    """As in the template: four shards of the stream and a fifth held back leave 2,000 a second for each."""
    template = Setup(stream_shards=4, others=2_000)
    found = plan(Traffic(10_000), template, DIRECT)
    assert (found.speed.each, found.speed.pace) == (2_000, "share of the quota")
    assert found.speed.work == 5
    assert found.speed.utilisation == pytest.approx(10_000 / 8_000)
    assert speed(Traffic(10_000), template, FANOUT).rate == 8_000
    assert break_even(Traffic(1, 0.001), template) == pytest.approx(1 / (1 / 2_000 - 1 / 8_000), rel=0.1)


def test_each_batch_is_an_invocation_of_its_own() -> None:
    """A hundred messages one by one are a hundred calls of a second each, and none is continued."""
    burst = Traffic(10_000, 0.001, burst=100)
    one, all_of_it = (plan(burst, Setup(batch=batch), DIRECT) for batch in (1, 100))
    assert [one.speed.work, all_of_it.speed.work] == [100, 100]
    assert [one.speed.hops, all_of_it.speed.hops] == [0, 1]
    used = [next(each.used for each in found.limits if each.name == "one invocation") for found in (one, all_of_it)]
    assert used == [1, 100]
    assert plan(Traffic(10_000, 0.001, burst=250), Setup(), DIRECT).speed.hops == 2


def test_posts_wait_for_the_cpu_behind_each_other() -> None:
    """Two places, answers after a second and a second of CPU each: the second post finds half of one before it."""
    assert closed_rate(1, 1.0, 1.0) == pytest.approx(1 / 2)
    assert closed_rate(2, 1.0, 1.0) == pytest.approx(2 / 2.5)


def test_a_burst_is_as_many_posts_as_messages_and_clients() -> None:
    """Ten messages take ten times as long; what one invocation can do needs no continuation."""
    setup = Setup(quota=1_000, concurrency=900)
    one, ten = (speed(Traffic(5_000, burst=burst), setup, DIRECT) for burst in (1, 10))
    assert [one.work, ten.work] == pytest.approx([5, 50])
    assert [speed(Traffic(int(1_000 * seconds)), setup, DIRECT).hops for seconds in (1, USABLE, USABLE + 1, 120)] == [
        0,
        0,
        1,
        2,
    ]


def test_fanning_out_starts_later() -> None:
    """By a call for every ten jobs, and a job's way through its queue; a shard's page is shorter."""
    assert [dispatch_seconds(Setup(shards=shards)) for shards in (1, 10, 11, 100)] == pytest.approx(
        [0.015, 0.015, 0.03, 0.15]
    )
    direct, fanout = (speed(Traffic(1), Setup(shards=10), mode).start for mode in (DIRECT, FANOUT))
    assert fanout - direct == pytest.approx(0.015 + HOP_SECONDS, abs=1e-3)


def test_waiting_is_a_queues_with_steady_service() -> None:
    """M/D/1: at half load a burst waits for half of one's time, at nine tenths for four and a half."""
    for busy, share in ((0.5, 0.5), (0.9, 4.5)):
        found = speed(Traffic(10_000, busy), Setup(quota=10_000, concurrency=900), DIRECT)
        assert found.utilisation == pytest.approx(busy, rel=0.01)
        occupied = found.work + INVOKE_SECONDS + 0.06
        assert found.wait == pytest.approx(occupied * share, rel=0.1)
    assert speed(Traffic(10_000, 2), Setup(), DIRECT).wait == inf


# ── how much ────────────────────────────────────────────────────────────────────────────────────


def loaded(traffic: Traffic, setup: Setup, mode: str = DIRECT) -> Load:
    return load(traffic, setup, speed(traffic, setup, mode))


def test_each_connection_is_written_deleted_and_asked_for_twice() -> None:
    """With an index every write is two."""
    traffic = Traffic(7_200, messages_per_second=1e-6, session=3_600)
    assert loaded(traffic, Setup()).dynamodb_write_units == pytest.approx(2 * 2)
    assert loaded(traffic, Setup(index=True)).dynamodb_write_units == pytest.approx(2 * 4)
    assert loaded(traffic, Setup()).dynamodb_requests == pytest.approx(2 * 2, abs=0.001)


@pytest.mark.parametrize(
    ("burst", "payload", "entries", "units"),
    [(1, 600, 1, 1), (1, 936, 1, 2), (10, 600, 1, 7), (100, 600, 2, 59 + 4), (3, 131_000, 3, 3 * 129)],
)
def test_a_feed_is_written_by_the_kb(burst: int, payload: int, entries: int, units: int) -> None:
    """Messages that come together share entries of some 60 KB; one that is larger has its own."""
    traffic = Traffic(1_000, 0.5 * burst, burst=burst, payload=payload)
    without, fed = (loaded(traffic, Setup(feed=feed)) for feed in (False, True))
    assert fed.dynamodb_requests - without.dynamodb_requests == pytest.approx(0.5 * entries)
    assert fed.dynamodb_write_units - without.dynamodb_write_units == pytest.approx(0.5 * units)


def test_with_a_feed_each_message_bears_its_position() -> None:
    """28 bytes of each: three fewer fit a post of 32 KB, and they are paid as data too."""
    traffic = Traffic(10_000, 1.0, burst=100, frames=1.0)
    without, fed = (plan(traffic, Setup(feed=feed), DIRECT) for feed in (False, True))
    assert [in_a_frame(traffic, each.setup) for each in (without, fed)] == [32_767 // 601, 32_767 // 629]
    month = fed.costs["Data transfer"] - without.costs["Data transfer"]
    assert month == pytest.approx(10_000 * 28 * MONTH / 2**30 * 0.085, rel=0.1)


def test_a_pass_reads_every_row_by_4_kb() -> None:
    """A consistent Scan takes a whole unit, and each page is a request."""
    requests, units = reads(Traffic(1_000_000), Setup(), 1)
    assert requests == 100
    assert units == pytest.approx(24_415, abs=1)


def test_a_burst_too_large_for_one_job_is_several() -> None:
    """Three messages of 128 KB are two jobs for each shard."""
    one, two = (
        loaded(Traffic(1_000, 0.03, burst=3, payload=size), Setup(shards=4), FANOUT).jobs for size in (80_000, 131_072)
    )
    assert [one, two] == pytest.approx([0.01 * 4, 0.01 * 8])


def limit(traffic: Traffic, setup: Setup, name: str, mode: str) -> Any:
    pace = speed(traffic, setup, mode)
    return next((each for each in limits(traffic, setup, pace, load(traffic, setup, pace)) if each.name == name), None)


def test_every_shard_of_the_stream_hands_on_a_batch_at_a_time() -> None:
    """Four have four times the room."""
    one, four = (
        limit(Traffic(1_000), Setup(stream_shards=count), "stream shards", FANOUT).available for count in (1, 4)
    )
    assert (one, four) == (pytest.approx(STREAM_BATCH / 0.035), pytest.approx(4 * one))


def test_a_partition_of_the_index_is_a_limit_where_it_is_read() -> None:
    """Not while the sweep is on, nor without an index."""
    there = [
        limit(Traffic(1_000), setup, "index partition", FANOUT) is not None
        for setup in (Setup(), Setup(index=True), Setup(index=True, sweep=False))
    ]
    assert there == [False, False, True]


# ── what it costs ───────────────────────────────────────────────────────────────────────────────


def test_each_service_is_billed_for_what_it_does() -> None:
    """A load of round numbers; two functions run for every connection."""
    traffic = Traffic(7_200, 0.01, payload=40_000, session=7_200)
    sent = Load(
        deliveries=72,
        posts=72,
        metered=144,
        passes=0,
        jobs=0,
        invocations=3,
        function_seconds=5,
        sqs_requests=7,
        dynamodb_requests=0,
        dynamodb_read_units=11,
        dynamodb_write_units=13,
    )
    found = costs(traffic, Setup(stream_shards=2), sent)
    posts, runs = 72 * MONTH, (3 + 2) * MONTH
    assert found == pytest.approx(
        {
            "API Gateway messages": of("api gateway message", 2 * posts),
            "API Gateway connections": of("api gateway minute", 7_200 * 730 * 60),
            "Lambda": of("lambda request", runs)
            + of("lambda gb-second", 5 * MONTH * 1769 / 1024 + 2 * MONTH * 0.03 * 0.5),
            "DynamoDB": of("dynamodb read", 11 * MONTH) + of("dynamodb write", 13 * MONTH),
            "DynamoDB stream": of("dynamodb stream read", 2 * 4 * MONTH),
            "SQS": of("sqs fifo request", 7 * MONTH),
            "CloudWatch logs": of("logs gb", runs * 1_200 / 2**30),
            "Data transfer": of("transfer gb", posts * 40_060 / 2**30),
        }
    )


def test_a_cluster_of_ones_own_has_two_machines_at_least_and_one_for_redis() -> None:
    """However few the clients are."""
    machines = alternatives(Traffic(1))["Centrifugo"]["machines"]
    assert machines == pytest.approx(of("machine hour", 3 * 730))


def test_whoever_publishes_elsewhere_runs_once_a_burst() -> None:
    """For a twentieth of a second with half a GB."""
    bursts = 0.1 * MONTH
    expected = of("lambda request", bursts) + of("lambda gb-second", bursts * 0.05 * 0.5)
    for parts in alternatives(Traffic(10, 1.0, burst=10)).values():
        assert parts["publishing"] == pytest.approx(expected)


# ── what to do ──────────────────────────────────────────────────────────────────────────────────


def test_the_turn_is_found_to_half_a_percent() -> None:
    """Half a percent fewer clients save less than a second."""
    turn = break_even(Traffic(1, 0.1), FEW_PLACES)
    assert turn is not None

    def saved(clients: int) -> float:
        there = Traffic(clients, 0.1)
        return speed(there, FEW_PLACES, DIRECT).last - speed(there, FEW_PLACES, FANOUT).last

    assert saved(turn) >= 1 > saved(int(turn * 0.994))


@pytest.mark.parametrize(
    ("part", "messages", "mode"),
    [(0.4, 0.001, "direct"), (0.6, 0.001, "auto"), (1.9, 0.001, "auto"), (2.1, 0.001, "fanout"), (0.4, 1.2, "auto")],
)
def test_near_the_turn_the_number_of_clients_decides(part: float, messages: float, mode: str) -> None:
    """Half of it and twice it are the borders; where one function is busy most of the time it is not direct."""
    turn = break_even(Traffic(1, messages), FEW_PLACES)
    assert turn is not None
    assert advise(Traffic(int(turn * part), messages), FEW_PLACES).mode == mode


def test_nothing_is_automatic_where_nothing_keeps_up() -> None:
    """Near the turn, and more messages than the account takes."""
    turn = break_even(Traffic(1, 5), FEW_PLACES)
    assert turn is not None
    assert not plan(Traffic(turn, 5), FEW_PLACES, FANOUT).keeps_up
    found = advise(Traffic(turn, 5), FEW_PLACES)
    assert (found.mode, found.why) == (NEITHER, f"{5 * turn:,} posts a second are needed, and 10,000 are the most")


@pytest.mark.parametrize(
    ("traffic", "setup", "words"),
    [
        (
            Traffic(20_000, 0.1, latency=0.08),
            Setup(),
            "MaxConcurrency=900: one function would post 9,924 a second and not",
        ),
        (Traffic(20_000, 0.1), FEW_PLACES, "MaxConcurrency=272: one function would post 10,000 a second and not 4,407"),
        (Traffic(30_000, 0.2), FEW_PLACES, "MaxConcurrency=272: one function would post 10,000 a second and not 4,407"),
        (Traffic(20_000, 0.01), Setup(stream_shards=4, others=2_000), "StreamShards=1: a broadcast that comes alone"),
    ],
)
def test_what_would_make_one_function_as_quick_is_said_beside_the_workers(
    traffic: Traffic, setup: Setup, words: str
) -> None:
    """More posts in flight, or a larger share of the quota, cost no second queue and function."""
    found = advise(traffic, setup)
    assert found.mode == FANOUT
    assert words in found.next


def test_more_posts_in_flight_are_advised_only_where_they_are_quicker() -> None:
    """Not above the most that the template takes."""
    found = advise(Traffic(100_000, 0.001, latency=1.0), Setup(concurrency=900))
    assert "MaxConcurrency" not in found.next
    assert "nothing" not in found.next


def test_workers_are_advised_only_where_they_are_quicker() -> None:
    """A quota that binds one function binds them too."""
    long = Traffic(100_000, 0.001, burst=10)
    assert limit(long, Setup(), "one invocation", DIRECT).advice == "the quota: until then continuations"
    assert limit(long, FEW_PLACES, "one invocation", DIRECT).advice.startswith("MaxConcurrency or FanoutMode=fanout")
    slow = Traffic(100_000, 0.001, burst=10, latency=1.0)
    assert limit(slow, Setup(concurrency=900), "one invocation", DIRECT).advice.startswith("FanoutMode=fanout: until")


@pytest.mark.parametrize(("messages", "mode"), [(0.001, FANOUT), (5, NEITHER)])
def test_one_function_is_not_advised_for_batches_that_the_template_gives_to_workers(messages: float, mode: str) -> None:
    """Above 500 records it wants FanoutMode=fanout."""
    assert advise(Traffic(10_000, messages), Setup(batch=2_000)).mode == mode
    assert advise(Traffic(10_000, 0.001), Setup(batch=500)).mode == DIRECT


@pytest.mark.parametrize(("share", "words"), [(0.65, "MaxConcurrency|nothing|quota: it sets"), (0.75, "is at 75%")])
def test_a_limit_is_raised_in_time(share: float, words: str) -> None:
    """From seven tenths on."""
    traffic = Traffic(1_000, share)
    found = advise(traffic, Setup(quota=1_000)).next
    assert any(word in found for word in words.split("|")), found


# ── as people write it ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "value"),
    [("2KB", 2_048), ("1kb", 1_024), ("600", 600), ("600b", 600), ("1", 1), ("10,000", 10_000), ("0.5KB", 512)],
)
def test_a_size_is_a_whole_number_of_bytes(text: str, value: int) -> None:
    """Bounds are among what is taken, and half a byte is not."""
    assert quantities.size(text, 1, 10_000) == value
    for refused in ("0", "10001", "1.5", "0.7KB"):
        with pytest.raises(ValueError, match="a size from 1 to 10,000 bytes"):
            quantities.size(refused, 1, 10_000)


@pytest.mark.parametrize("text", ["20.000", "20.0", "1.5", "1.0005k"])
def test_a_fraction_of_a_client_is_refused(text: str) -> None:
    """And so is a point that may stand for thousands; with a unit it is clear."""
    with pytest.raises(ValueError, match=r"^a whole number from 1 to 1,000,000, like 20,000$"):
        quantities.whole(text, 1, 1_000_000, "20,000")
    assert [quantities.whole(clear, 1, 10_000_000) for clear in ("1.5k", "2.5M", "1.5e3")] == [1_500, 2_500_000, 1_500]


def test_a_share_may_be_in_percent() -> None:
    """Up to all of it."""
    assert [quantities.share(text) for text in ("0", "0.5", "50%", "100%", "1")] == [0, 0.5, 0.5, 1, 1]
    for refused in ("101%", "1.1", "-1", "%"):
        with pytest.raises(ValueError, match=r"^a share from 0 to 1, like 50%$"):
            quantities.share(refused, "50%")


def test_a_window_is_whole_seconds() -> None:
    """As the template takes it: minutes too, and no half second."""
    assert [quantities.whole_seconds(text, 0, 300) for text in ("0", "1.0", "2m", "300")] == [0, 1, 120, 300]
    for refused in ("1.5", "500ms", "6m"):
        with pytest.raises(ValueError, match=r"^a time from 0 to 300 whole seconds$"):
            quantities.whole_seconds(refused, 0, 300)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1us", 1e-6), ("90m", 5_400), ("1ms", 1e-3), ("2min", 120), ("2h", 7_200), ("7200", 7_200), ("1e2", 100)],
)
def test_a_time_is_seconds(text: str, value: float) -> None:
    assert quantities.seconds(text, 1e-6, 7_200) == pytest.approx(value)


def test_a_number_may_be_the_least_and_the_most() -> None:
    """Bounds are among what is taken, exponents too."""
    assert [quantities.number(text, 0, 1e6) for text in ("0", "1e6", "2.5e3")] == [0, 1e6, 2_500]
    assert [quantities.whole(text, 1, 1_000) for text in ("1", "1k")] == [1, 1_000]


# ── the command ─────────────────────────────────────────────────────────────────────────────────

OPTIONS = {
    "--clients": ("7k", "traffic", "clients", 7_000),
    "--messages-per-second": ("0.3", "traffic", "messages_per_second", 0.3),
    "--burst": ("3", "traffic", "burst", 3),
    "--payload": ("2KB", "traffic", "payload", 2_048),
    "--latency": ("30ms", "traffic", "latency", 0.03),
    "--session": ("1h", "traffic", "session", 3_600),
    "--quota": ("9k", "setup", "quota", 9_000),
    "--others": ("11", "setup", "others", 11),
    "--shards": ("6", "setup", "shards", 6),
    "--workers": ("5", "setup", "workers", 5),
    "--concurrency": ("40", "setup", "concurrency", 40),
    "--cpu-per-post": ("50us", "setup", "cpu_per_post", 5e-5),
    "--stream-shards": ("4", "setup", "stream_shards", 4),
    "--lambda-concurrency": ("500", "setup", "lambda_concurrency", 500),
    "--groups-per-batch": ("2", "setup", "groups_per_batch", 2),
}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_every_option_is_planned_with() -> None:
    """Each stands in the JSON where it belongs, and none in another's place."""
    given = [word for name, (text, *_) in OPTIONS.items() for word in (name, text)]
    found = json.loads(run(*given, "--index", "--no-sweep", "--json").output)
    for section, field, value in (rest for _, *rest in OPTIONS.values()):
        assert found[section][field] == pytest.approx(value), field
    assert (found["setup"]["index"], found["setup"]["sweep"]) == (True, False)
    for one in found["modes"].values():
        assert one["speed"]["p50"] < one["speed"]["p99"] <= one["speed"]["last"]


def test_each_mode_has_its_own_total() -> None:
    """The last line of the costs."""
    found = json.loads(run("--clients", "10k", "--json").output)["modes"]
    (line,) = [line for line in run("--clients", "10k").output.splitlines() if line.startswith(("│ all ", "│all "))]
    assert [f"{found[mode]['total']:,.2f}" for mode in (DIRECT, FANOUT)] == line.replace("│", " ").split()[1:]


def test_what_others_use_leaves_something() -> None:
    """All of the quota is too much, a post less is not."""
    assert run("--clients", "10", "--quota", "100", "--others", "100").exit_code == 2
    assert run("--clients", "10", "--quota", "100", "--others", "99").exit_code == 0


def test_a_seed_is_simulated_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was given, for both modes."""
    asked: list[Scenario] = []

    def simulate(scenario: Scenario) -> Any:
        asked.append(scenario)
        return simulation.simulate(scenario)

    monkeypatch.setattr(command, "simulate", simulate)
    assert run("--clients", "10", "--simulate", "--seed", "17").exit_code == 0
    assert [(each.mode, each.seed) for each in asked] == [(DIRECT, 17), (FANOUT, 17)]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0123, "12 ms"), (0.999, "999 ms"), (1.0, "1.0 s"), (9.96, "10.0 s"), (inf, "never")]
)
def test_a_time_is_shown_in_its_unit(seconds: float, words: str) -> None:
    assert plan_report._seconds(seconds).startswith(words)
