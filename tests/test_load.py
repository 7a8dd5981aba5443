"""The load test: its options, its account of who got what, its verdict, and small runs of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from async_relay.delivery.protocols import Entry
from async_relay.errors import ServerError
from async_relay.wire.messages import Message
from benchmarks import chaos, load, load_play
from benchmarks.bar import Standing, bar
from benchmarks.command import FAILED, STOPPED, USAGE, CommandError, exit_code
from benchmarks.crowd import CUT, HANGS, Crowd, Latency, latency, sequences_of
from benchmarks.ledger import Ledger, Shortfall, Tally
from benchmarks.load_options import Carrier, Options, in_words
from benchmarks.load_page import page
from benchmarks.load_queue import Requeued
from benchmarks.load_report import now as figures_now
from benchmarks.load_report import show
from benchmarks.load_run import Load
from benchmarks.stage import body_of, stream_event
from benchmarks.table import Table
from benchmarks.verdict import Ending, problems
from benchmarks.watch import Durations, Watch
from benchmarks.world import Memory

ROOT = Path(__file__).resolve().parent.parent


#: Those of a run in which little happened.
FIGURES = {
    "clients": 1, "messages": 1, "batches": 1, "delivered": 1, "posts": 1, "seconds": 1.0, "posts_a_second": 1.0,
    "outcomes": {}, "post_seconds": {}, "delivery_seconds": dict.fromkeys(("p50", "p95", "p99", "last"), 1.0),
    "arrived": {}, "cpu_us_a_post": 1.0, "cpu_us_a_message": 1.0, "peak_memory_mb": 1.0, "problems": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def results_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(load_play, "RESULTS", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--clients", "1000001"], "Invalid value for '--clients': "),
        (["--clients", "1.5"], "Invalid value for '--clients': "),
        (["--gone", "1.1"], "Invalid value for '--gone': "),
        (["--gone", "0.6", "--slow", "0.6"], "together they must be at most 1"),
        (["--latency", "uniform:20-2"], "--latency is 'uniform:20-2'; it must be milliseconds, like 8,"),
        (
            ["--transport", "pigeon"],
            "Invalid value for '--transport': ",
        ),
        (["--payload", "20"], "--payload is 20; the smallest message has"),
        (["--account-limit", "10", "--transport", "memory"], "--account-limit is the gateway's"),
        (["--endpoint", "https://a.example/prod"], "--endpoint and --table belong together"),
        (["--endpoint", "https://a.example/prod", "--table", "rows", "--churn", "5"], "belong to mocked clients"),
        (["--no-such-option"], "No such option: --no-such-option"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(load.main, arguments) == USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_endpoint_of_ones_own_is_asked_about_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.confirm", lambda _question, abort: sys.exit(99 if abort else 0))
    with pytest.raises(SystemExit, match="99"):
        exit_code(load.main, ["--endpoint", "https://a.example/prod", "--table", "rows"])
    assert "They are real, and so is the bill." in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8", Latency("constant", 0.008)),
        ("constant:8", Latency("constant", 0.008)),
        ("uniform:2-20.5", Latency("uniform", 0.002, 0.0205)),
        ("lognormal:8", Latency("lognormal", 0.008)),
    ],
)
def test_a_latency_is_read(text: str, expected: Latency) -> None:
    assert latency(text) == expected
    assert latency(text)("anybody", Random(1)) > 0


@pytest.mark.parametrize("text", ["", "-1", "uniform:2", "lognormal:0", "normal:3", "1e3", "8 ms"])
def test_a_wrong_latency_is_refused(text: str) -> None:
    with pytest.raises(CommandError, match="it must be milliseconds"):
        latency(text)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 6)), max_size=60), st.integers(0, 6))
def test_the_ledger_knows_who_lacks_what(arrivals: list[tuple[int, int]], left_after: int) -> None:
    """Against sets: client 3 came for message 3, client 2 left after some message."""
    ledger, got = Ledger(), Counter(arrivals)
    ledger.join(3, 1)
    ledger.join(1, 3)
    ledger.leave(2, left_after)
    for client, message in arrivals:
        ledger.arrive(client, message)
    expected = {
        client: set(range(3 if client == 3 else 1, (left_after if client == 2 else 6) + 1)) for client in range(4)
    }
    missing = {
        client: {each for each in messages if (client, each) not in got} for client, messages in expected.items()
    }
    lacking = tuple(client for client, messages in missing.items() if messages)
    assert ledger.shortfall(6) == Shortfall(sum(map(len, missing.values())), len(lacking), lacking)
    counted = {(client, message): times for (client, message), times in got.items() if client < 3 or message >= 3}
    assert ledger.tally().arrived == len(counted)
    assert ledger.tally().repeats == sum(counted.values()) - len(counted)


def test_what_comes_behind_a_later_message_is_late() -> None:
    ledger = Ledger()
    ledger.join(1, 1)
    for message in (1, 4, 2, 3):
        ledger.arrive(0, message)
    assert ledger.tally() == Tally(arrived=4, repeats=0, late=2)
    assert ledger.shortfall(4).messages == 0


def body(sequence: int) -> bytes:
    return body_of(stream_event(600, range(sequence, sequence + 1)))


def test_a_message_carries_its_number() -> None:
    assert sequences_of(body(12_345)) == [12_345]


@pytest.mark.parametrize(
    ("kind", "answers"),
    [
        ("ok", [(200, 0.0)]),
        ("gone", [(410, 0.0)] * 3),
        ("throttled", [(429, 0.0), (429, 0.0), (200, 0.0)]),
        ("hanging", [(HANGS, 0.0), (200, 0.0)]),
        ("slow", [(200, 1.0)]),
    ],
)
def test_every_kind_of_client_behaves_as_it_should(kind: str, answers: list[tuple[int, float]]) -> None:
    """For each message anew."""
    crowd = Crowd({} if kind == "ok" else {kind: 1.0}, seed=1)
    (name,) = crowd.join(1, 1)
    for sequence in (1, 2):
        assert [crowd.answer(name, body(sequence)) for _ in answers] == answers
    assert crowd.ledger.shortfall(2).messages == 0


def test_a_frame_arrives_whole_or_not_at_all() -> None:
    """It fails as its first message would, and then all of its messages arrive."""
    crowd = Crowd({"throttled": 1.0}, seed=1)
    (name,) = crowd.join(1, 1)
    frame = b"[" + b",".join(body(sequence) for sequence in (1, 2, 3)) + b"]"
    assert [crowd.answer(name, frame)[0] for _ in range(2)] == [429, 429]
    assert crowd.ledger.shortfall(3).messages == 3
    assert crowd.answer(name, frame)[0] == 200
    assert crowd.ledger.shortfall(3).messages == 0


def test_an_erring_client_answers_500_or_cuts_twice() -> None:
    crowd = Crowd({"erring": 1.0}, seed=1)
    (name,) = crowd.join(1, 1)
    *before, last = [crowd.answer(name, body(1))[0] for _ in range(3)]
    assert set(before) <= {500, CUT}
    assert last == 200


def test_who_leaves_answers_410_and_lacks_nothing() -> None:
    crowd = Crowd({}, seed=1)
    first, second = crowd.join(2, 1)
    crowd.leave([0], last=0)
    assert crowd.answer(first, body(1)) == (410, 0.0)
    assert crowd.answer(second, body(1)) == (200, 0.0)
    assert crowd.ledger.shortfall(1).messages == 0
    assert crowd.gone(1) == {first}


def test_the_row_of_who_came_after_the_last_batch_and_went_may_be_there() -> None:
    """Nobody posted to it, so nobody can know that it has gone."""
    crowd = Crowd({"gone": 1.0}, seed=1)
    first, second = crowd.join(1, 1) + crowd.join(1, 6)
    assert crowd.gone(5) == {first}
    assert crowd.gone(6) == {first, second}


def test_shares_are_kept() -> None:
    crowd = Crowd({"gone": 0.3}, seed=7)
    crowd.join(10_000, 1)
    assert 2_800 < len(crowd.gone(1)) < 3_200


def test_percentiles_are_within_their_buckets() -> None:
    durations = Durations()
    for milliseconds in range(1, 101):
        durations.add(milliseconds / 1000)
    before = list(durations.buckets)
    assert durations.percentiles() == pytest.approx((0.050, 0.095, 0.099), rel=0.05)
    durations.add(1.0)
    assert durations.percentiles(before) == pytest.approx((1.0,) * 3, rel=0.05)
    assert durations.longest == pytest.approx(1.0, rel=0.05)
    assert Durations().percentiles() == (0.0, 0.0, 0.0)


def test_a_watch_counts_and_takes_the_time() -> None:
    now = 0.0
    watch = Watch(lambda: now)
    message = Message("remediation", "event-1", "7", b"{}", "")
    watch.begin(["7"])
    watch.sent = 3
    now = 2.0
    watch.answered([message], 1.5, None)
    watch.answered([message], 1.9, ServerError("500"))
    moment = watch.take(400.0, requeued=1, clients=3)
    assert (moment.posts, moment.delivered, moment.in_flight, moment.posts_a_second) == (3, 1, 1, 1.5)
    assert moment.outcomes == {"server_error": 1}
    assert watch.take(400.0, requeued=1, clients=3).outcomes == {}
    assert watch.outcomes == {"server_error": 1}
    assert watch.deliveries.percentiles()[0] == pytest.approx(2.0, rel=0.05)
    watch.cut()
    assert watch.in_flight == 0


def on_a_terminal(watch: Watch, standing: Standing, width: int) -> list[str]:
    """The last picture of the progress on a terminal so wide."""
    written = StringIO()
    console = Console(file=written, width=width, force_terminal=True, color_system=None)
    with bar(lambda: standing, console, lambda: figures_now(watch, width)) as update:
        written.truncate(0)
        update()
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x00]", "", written.getvalue()).splitlines()


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_progress_is_readable_however_wide_the_terminal(width: int) -> None:
    """Whatever has come: no figure is cut, an outcome stands on one line, and it is said what goes on."""
    now = 0.0
    watch = Watch(lambda: now)
    watch.sent, watch._answers, watch.delivered, now = 10_000_000, 9_999_100, 13_501, 10.0
    for _ in range(9):
        watch.posts.add(0.98)
    watch.outcomes.update(
        dict.fromkeys(["cut at the deadline", "disconnected", "gone", "server_error", "throttled"], 99_999)
    )
    watch.take(999_999.0, requeued=1_000, clients=1_000_000)
    lines = on_a_terminal(watch, Standing(0.9999, "12 jobs in the retry queue, the next in 4.2 s"), width)
    assert max(map(len, lines)) <= width
    assert " 99 % " in lines[0]
    assert lines[1].rstrip() == "12 jobs in the retry queue, the next in 4.2 s"
    said = " ".join(" ".join(lines[2:]).split())
    assert "posts/s 1,000,000 in flight 900 p50 997.0 ms p95 997.0 ms p99 997.0 ms limit 999,999/s" in said
    assert "to retry 1,000 clients 1,000,000" in said
    assert "…" not in said
    assert len([line for line in lines for _ in re.findall(r"[a-z] 99,999", line)]) == 5


def test_who_cannot_know_the_end_shows_no_percentage() -> None:
    assert "%" not in on_a_terminal(Watch(), Standing(None, ""), 80)[0]


def test_the_summary_fits(results_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where many kinds of answers came, and on a narrow terminal."""
    shares = ["--gone", "0.1", "--erring", "0.2", "--throttled", "0.2"]
    assert exit_code(load.main, ["--transport", "memory", "--clients", "500", "--messages", "9", *shares]) == 0
    figures = json.loads((results_in / "load.json").read_text())
    for width in (60, 80, 200):
        out = StringIO()
        show(figures, Console(file=out, width=width))
        assert max(map(len, out.getvalue().splitlines())) <= width
        assert "…" not in out.getvalue()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


async def standings(duration: float, milliseconds: str = "1", **shares: float) -> tuple[Load, list[Standing]]:
    """A small run in memory, and every time somebody looked; ``milliseconds`` are how long each answer takes."""
    options = Options(200, 1, 600, latency(milliseconds), shares, None, duration, 0.0, 20, Carrier.MEMORY, 1)
    running = Load(options, Memory(options.shares, options.seed, options.lag))
    seen = [running.standing()]
    playing = asyncio.create_task(running.play())
    while not playing.done():
        await asyncio.wait([playing], timeout=0.02)
        seen.append(running.standing())
    assert (await playing).shortfall == Shortfall(0, 0, ())
    return running, seen


async def test_a_run_says_what_it_does() -> None:
    """Clients come in, posts are in flight, the clients are asked; the bar is full when nothing is left, not before."""
    # Ten rounds of twenty posts, so that somebody who looks every 20 ms sees some under way.
    running, seen = await standings(0.0, "30", gone=0.5, throttled=0.1)
    assert seen[0] == Standing(0.0, "The clients are coming in")
    assert any(re.search(r" to go; \d+ posts in flight, ", each.words) for each in seen)
    assert seen[-1] == Standing(1.0, "Counting what the clients got")
    shares = [each.share or 0.0 for each in seen]
    assert shares == sorted(shares)
    assert all(each.share != 1.0 for each in seen if "to go" in each.words)
    assert running.left == 0


async def test_the_bar_waits_for_what_is_tried_again() -> None:
    """All is delivered by its own count, since some came twice; but a job waits, so something is left to do."""
    running, _ = await standings(0.0)
    running.watch.seconds = 0.0
    running.watch.delivered += 3
    running.retries._waiting.append(Requeued(time.monotonic() + 9, 1, Entry("", 0)))
    running._draining = True
    standing = running.standing()
    assert standing.share is not None
    assert standing.share < 1.0
    assert re.fullmatch(r"203 delivered, 1 to go; 1 jobs in the retry queue, the next in [89]\.\d s", standing.words)


def test_a_run_of_some_duration_is_no_further_than_its_time() -> None:
    """However much of its batches so far is delivered."""
    running = Load(
        Options(5, 1, 600, latency("1"), {}, None, 8.0, 0.0, 20, Carrier.MEMORY, 1), Memory({}, 1, latency("1"))
    )
    running.last, running.batches, running.watch.delivered = 3, 2, 999
    running.watch.clock = lambda: running.watch.began_at + 2.0
    standing = running.standing()
    assert standing.share == pytest.approx(0.25)
    assert standing.words.startswith("Batch 3, 2 of 8 s: 999 delivered, 1 to go; ")


def test_a_run_that_went_well_has_no_problems() -> None:
    assert problems(Ending(Shortfall(0, 0, ()), most_in_flight=100)) == []
    assert problems(Ending(None)) == []


@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        (Ending(Shortfall(1_200, 2, (5, 9))), "1,200 messages did not reach 2 clients, such as number 5, 9"),
        (Ending(None, ("timed_out: no answer",)), "1 dead letters, such as: timed_out: no answer"),
        (Ending(None, handed_back=3), "3 records were handed back again and again"),
        (Ending(None, requeued=2), "the run ended before the retry queue was empty: 2 jobs are in it"),
        (Ending(None, ghosts=4), "the rows of 4 clients that have gone are still in the table"),
        (Ending(None, most_in_flight=101), "101 posts were in flight at once; 100 were allowed"),
    ],
)
def test_what_went_wrong_is_a_sentence(ending: Ending, sentence: str) -> None:
    assert problems(ending) == [sentence]


def test_the_table_serves_every_row_once_whatever_comes_and_goes() -> None:
    table = Table(page_rows=10)
    table.fill(35)
    table.remove(["L000000003oAMCI="])
    table.put(["L000000003oAMCI=", "new="], 1)
    found: list[str] = []
    after: dict[str, object] = {}
    while True:
        page = json.loads(table.answer("Scan", json.dumps(after).encode()) or b"")
        found += [item["connectionId"]["S"] for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            break
        after = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert sorted(found) == sorted(table.ids())
    assert len(found) == 36
    assert table.answer("GetItem", b"{}") is None


def test_a_small_run_over_sockets(results_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some have gone, some err, some are throttled, and clients come and go: everybody gets what they should."""
    shares = ["--gone", "0.1", "--erring", "0.1", "--throttled", "0.1"]
    arguments = ["--clients", "400", "--messages", "2", "--latency", "uniform:0-2", "--concurrency", "20", *shares]
    assert exit_code(load.main, arguments) == 0
    figures = json.loads((results_in / "load.json").read_text())
    assert figures["problems"] == []
    assert figures["ending"]["most_in_flight"] <= 20
    assert figures["arrived"]["arrived"] == figures["delivered"] > 200
    assert set(figures["outcomes"]) <= {"gone", "throttled", "server_error", "disconnected"}
    assert "<svg" in (results_in / "load.html").read_text()
    assert "everybody got what they should have got" in capsys.readouterr().out


@pytest.mark.parametrize("transport", ["memory", "direct"])
def test_a_run_with_frames(transport: str, results_in: Path) -> None:
    """A part of the clients reads arrays: everybody gets everything, with fewer posts than messages."""
    shares = ["--frames", "0.5", "--gone", "0.05", "--erring", "0.1", "--throttled", "0.1"]
    arguments = ["--transport", transport, "--clients", "200", "--messages", "30", "--latency", "1", *shares]
    assert exit_code(load.main, arguments) == 0
    figures = json.loads((results_in / "load.json").read_text())
    assert figures["problems"] == []
    assert figures["arrived"]["arrived"] == figures["delivered"] > 5_000
    assert figures["posts"] < 0.7 * figures["delivered"]
    assert figures["cpu_us_a_message"] < figures["cpu_us_a_post"]


def test_a_run_in_memory_with_churn(results_in: Path) -> None:
    arguments = ["--transport", "memory", "--clients", "300", "--messages", "2", "--latency", "1", "--churn", "100"]
    assert exit_code(load.main, [*arguments, "--duration", "1", "--erring", "0.05"]) == 0
    figures = json.loads((results_in / "load.json").read_text())
    assert figures["clients"] == 300
    assert figures["batches"] >= 1


def test_a_run_stands_beside_an_earlier_one(results_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it wrote as JSON is read again; the figures are compared, and another option is named."""
    before = results_in / "before.json"
    small = ["--transport", "memory", "--messages", "1", "--latency", "1"]
    assert exit_code(load.main, [*small, "--clients", "20", "--json", str(before)]) == 0
    capsys.readouterr()
    assert exit_code(load.main, [*small, "--clients", "30", "--against", str(before)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^posts +20 +30 +1\.50$", said, re.MULTILINE)
    assert "The two runs cannot be compared, so the ratios say little:\n- clients: 20 earlier, 30 now\n" in said


@pytest.fixture
def chaotic_arguments() -> list[str]:
    """The preset made small; nobody hangs, since that takes three seconds, and few come, since they may be young."""
    small = ["--clients", "200", "--messages", "1", "--latency", "1", "--concurrency", "20", "--duration", "1"]
    return ["--chaos", *small, "--throttled", "0.05", "--hanging", "0", "--churn", "5"]


def test_a_chaotic_run_stands_beside_a_clean_one(
    chaotic_arguments: list[str], results_in: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both serve everybody; how much later the chaotic one delivers is the machine's matter here."""
    code = exit_code(load.main, chaotic_arguments)
    clean = json.loads((results_in / "load-clean.json").read_text())
    chaotic = json.loads((results_in / "load.json").read_text())
    assert clean["problems"] == chaotic["problems"] == []
    assert code == (FAILED if chaos.problem(chaos.ratios(clean, chaotic)) else 0)
    assert clean["outcomes"].keys() <= {"throttled"}
    assert chaotic["outcomes"]["gone"] > 0
    said = capsys.readouterr().out
    assert re.search(r"^ +clean +chaotic +ratio$", said, re.MULTILINE)
    assert all(f"\nevent to delivery, {point}, ms " in said for point in ("p50", "p95", "p99", "last"))


def test_a_clean_run_differs_in_the_clients_only(chaotic_arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the preset's account limit too, or the two could not be compared; what is given goes before it."""
    played = []

    def play(options: Options, _console: object, name: str = "load") -> tuple[int, dict[str, object]]:
        played.append((name, options))
        return 0, FIGURES

    monkeypatch.setattr(load_play, "play", play)
    assert exit_code(load.main, chaotic_arguments) == 0
    (first, clean), (second, chaotic) = played
    assert (first, second) == ("load-clean", "load")
    assert not any(clean.shares.values())
    assert clean.churn == 0
    assert chaotic.shares == {"gone": 0.05, "throttled": 0.05, "erring": 0.005, "hanging": 0, "slow": 0}
    assert (chaotic.churn, chaotic.duration, chaotic.account_limit) == (5, 1, chaos.PRESET["account_limit"])
    assert replace(chaotic, shares=clean.shares, churn=0.0) == clean


@pytest.mark.parametrize(
    ("codes", "p95", "expected", "runs"),
    [
        ((0, 0), 2.0, 0, 2),
        ((0, 0), 2.1, FAILED, 2),
        ((FAILED, 0), 1.0, FAILED, 2),
        ((0, FAILED), 1.0, FAILED, 2),
        ((STOPPED, 0), 1.0, STOPPED, 1),
        ((0, STOPPED), 3.0, STOPPED, 2),
    ],
)
def test_a_chaotic_run_fails_for_its_p95_and_for_what_anybody_lacks(
    codes: tuple[int, int], p95: float, expected: int, runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the clean one's p95 is still well; a run that was stopped says nothing."""
    left = [
        (code, FIGURES | {"delivery_seconds": {"p50": 1.0, "p95": value, "p99": 1.0, "last": 9.0}})
        for code, value in zip(codes, (1.0, p95), strict=True)
    ]
    monkeypatch.setattr(load_play, "play", lambda *_: left.pop(0))
    assert exit_code(load.main, ["--chaos"]) == expected
    assert len(left) == 2 - runs


def test_without_a_delivery_there_is_nothing_to_compare_with() -> None:
    none = {"delivery_seconds": dict.fromkeys(("p50", "p95", "p99", "last"), 0.0)}
    assert chaos.problem(chaos.ratios(none, none)) is not None


def test_a_message_that_is_lost_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The relay is told 200 and the client has nothing."""
    answer = Crowd.answer

    def lying(self: Crowd, name: str, body: bytes) -> tuple[int, float]:
        return (200, 0.0) if name == "L000000007oAMCI=" else answer(self, name, body)

    monkeypatch.setattr(Crowd, "answer", lying)
    assert exit_code(load.main, ["--transport", "memory", "--clients", "20", "--messages", "3"]) == FAILED
    assert "3 messages did not reach 1 clients, such as number 7" in capsys.readouterr().out


def test_ctrl_c_shows_what_there_is_and_leaves_nothing_running() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", "--clients", "2000", "--duration", "60"],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Posting through https://localhost:")
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == STOPPED
    assert "Stopped; what there is so far:" in said
    assert "the run was stopped before its end" in said
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("limited", [True, False])
def test_the_charts_mark_limits_and_cuts(limited: bool) -> None:
    """The account's limit and the relay's own, when it was found, refused posts and cut sockets; or none of them."""
    plain = {"posts_a_second": 9.0, "latency": (0.1, 0.1, 0.1), "delivered": 1, "in_flight": 1, "requeued": 0}
    outcomes = [{"throttled": 1_200}, {"throttled": 34, "disconnected": 2}, {"cut at the deadline": 1}]
    moments = [
        {
            **plain,
            "at": at,
            "rate_limit": limit if limited else None,
            "outcomes": outcomes[at] if limited else {"gone": 5},
        }
        for at, limit in enumerate((None, 410.0, 390.0))
    ]
    options = {"account_limit": 400.0 if limited else None}
    written = page({**FIGURES, "moments": moments, "options": options, "run": {"options": {"a word": "a value"}}})
    for said in ("from 1.0 s on: 390 to 410 a second, 390 at last", "a rate limit is found", "the relay's own limit"):
        assert (said in written) is limited
    assert ("the account's limit" in written) is limited
    assert written.count(">429: 1,234<") == written.count(">sockets cut: 3<") == (4 if limited else 0)
    assert "<th>a word</th><td>a value</td>" in written


def test_options_are_said_in_words() -> None:
    """A real endpoint's clients are nobody's to choose, so nothing is said of them."""
    mocked = Options(
        1_000, 5, 600, latency("uniform:2-20"), {"gone": 0.05}, 2_000.0, 60.0, 20.0, 100, Carrier.SDK, 7, arrays=0.5
    )
    assert in_words(mocked) == {
        "clients": "1,000",
        "answers after": "2 to 20 ms",
        "clients that have gone (410)": "5 %",
        "clients that read arrays": "50 %",
        "clients that come or go": "20 a second",
        "the account's limit": "2,000 posts a second",
        "seed": "7",
        "messages a batch": "5",
        "bytes a message": "600",
        "batches": "one after the other for 60 s",
        "posts in flight at most": "100",
        "transport": "sdk",
    }
    real = replace(mocked, endpoint="https://a.example/prod", table="rows", duration=0.0)
    assert next(iter(in_words(real))) == "posts for real to"
    assert in_words(real)["batches"] == "one"
    assert "seed" not in in_words(real)
    assert str(latency("lognormal:8")) == "8 ms at the median, log-normal"
