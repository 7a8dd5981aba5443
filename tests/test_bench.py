"""The benchmark: its options, its arithmetic, and one small run of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import bench, cold, contenders, plots, report
from benchmarks.command import FAILED, STOPPED, USAGE, exit_code
from benchmarks.figures import Results, Sample, goals, ratio, spread, together
from benchmarks.peers.installation import Unavailable
from benchmarks.peers.worker import Figures
from benchmarks.stage import body_of, stream_event


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize(
    ("script", "arguments", "sentence"),
    [
        (bench.main, ["--clients", "0"], "Invalid value for '--clients': "),
        (bench.main, ["--clients", "many"], "Invalid value for '--clients': "),
        (bench.main, ["--concurrency", "-1"], "Invalid value for '--concurrency': "),
        (bench.main, ["--latency", "nan"], "Invalid value for '--latency': "),
        (bench.main, ["--repetitions", "0"], "Invalid value for '--repetitions': "),
        (bench.main, ["--body", "10"], "--body is 10; the smallest message has"),
        (bench.main, ["--sweeps", "yes"], "Invalid value for '--sweeps': "),
        (bench.main, ["--peers", "direct,boto9"], "--peers has 'boto9', which is none of direct, sdk,"),
        (bench.main, ["--no-such-option"], "No such option: --no-such-option"),
        (cold.main, ["--launches", "0"], "Invalid value for '--launches': "),
    ],
)
def test_a_wrong_option_is_one_sentence(
    script: Callable[..., int], arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(script, arguments) == USAGE
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_an_event_is_a_message_of_the_size_asked_for() -> None:
    assert len(body_of(stream_event(600))) == 600
    assert len(body_of(stream_event(131_072))) == 131_072
    assert len(stream_event(600, range(1, 4))["Records"]) == 3


def sample(name: str, *microseconds: float, clients: int = 1_000, concurrency: int = 100, wall: float = 1.0) -> Sample:
    """A contender that used so much CPU a delivery in each of its runs."""
    runs = [Figures(clients, each * clients / 1e6, wall, 100.0) for each in microseconds]
    return Sample(name, f"the {name}", False, concurrency, 8.0, clients, 1, runs, [0.5] * len(runs))


def results(*comparison: Sample) -> Results:
    return Results(
        {}, {"clients": 1_000, "in flight": 100, "latency ms": 0, "body": 600, "repetitions": 3}, [*comparison]
    )


def test_a_spread_is_the_median_and_the_ends() -> None:
    assert spread([3, 1, 10]) == (3, 1, 10)


def test_several_broadcasts_count_as_one() -> None:
    assert together([Figures(10, 1.0, 2.0, 60.0), Figures(10, 2.0, 3.0, 70.0)]) == Figures(20, 3.0, 5.0, 70.0)


def test_a_ratio_compares_what_ran_in_the_same_round() -> None:
    """The machine was three times slower in the second round, for both of them."""
    found = results(sample("direct", 20, 60, 20), sample("aioboto3-handler", 800, 2_400, 820))
    assert ratio(found, "aioboto3-handler") == pytest.approx(40)


def test_there_is_no_ratio_to_who_was_not_measured() -> None:
    assert ratio(results(sample("direct", 20)), "wrk") is None
    assert goals(results(sample("aioboto3-handler", 800))) == []


def test_goals_are_reached_or_not() -> None:
    found = results(sample("direct", 20), sample("aioboto3-handler", 700), sample("wrk", 9))
    found.by_concurrency = [
        sample("direct", 20, clients=10_000, wall=1.2),
        sample("direct", 20, clients=10_000, concurrency=200, wall=1.1),
        sample("aioboto3-handler", 20, clients=10_000, wall=99),
    ]
    found.by_clients = [sample("direct", 20), replace(sample("direct", 21.5, clients=100_000))]
    assert [(goal.came_to, goal.reached) for goal in goals(found)] == [
        ("35.0 times", True),
        ("35.0 times", False),
        ("2.22 times", False),
        ("1.20 s", True),
        ("9,091 a second", False),
        ("7 %", True),
        ("100 MB", True),
    ]


def test_results_become_a_page_and_plots(tmp_path: Path) -> None:
    found = results(sample("direct", 20, 22, 21), sample("aioboto3-handler", 700, 800, 750), sample("wrk", 9, 10, 11))
    found.by_concurrency = [sample("direct", 20, concurrency=each) for each in (10, 100)]
    found.by_latency = [replace(sample("direct", 20), latency_ms=each) for each in (0.0, 8.0)]
    found.by_clients = [sample("direct", 20, clients=each) for each in (1_000, 10_000)]
    found.missing["node"] = "there is no Node.js here"
    pictures = plots.draw(found, tmp_path)
    page = report.markdown(found, pictures)
    assert set(pictures) == {"comparison", "concurrency", "latency", "clients"}
    assert all(picture.read_text().startswith("<?xml") for picture in pictures.values())
    assert all(f"({picture.name})" in page for picture in pictures.values())
    assert "| the aioboto3-handler | 750.0 | 700.0 to 800.0 | 35.7 |" in page
    assert "Left out: node, because there is no Node.js here." in page


def test_every_figure_is_readable_in_80_columns() -> None:
    """Where the output is no terminal too, whatever is measured: no cell is cut or wrapped."""
    names = [(each.name, f"{each.title}", each.whole) for each in contenders.CONTENDERS]
    found = results(
        *(replace(sample(name, 1_234, 99.94, 9_876), title=title, whole=whole) for name, title, whole in names)
    )
    found.by_clients = [replace(sample("direct", 20, clients=100_000), title="naive aioboto3 handler")]
    written = StringIO()
    report.show(found, Console(file=written, width=80))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in written.getvalue()
    for _, title, whole in names:
        (line,) = [line for line in lines if line.startswith(f"{title}{' *' if whole else ''} ")]
        assert line.split()[-5:] == ["1,234", "99.9-9,876", "1.0", "1,000", "123/50"]


def test_a_goal_that_is_missed_is_named_and_fails_the_run(
    results_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence each, and what was measured is written all the same."""

    def measured(self: bench.Bench) -> None:
        self.results.comparison += [sample("direct", 20), sample("aioboto3-handler", 500)]

    monkeypatch.setattr(bench.Bench, "run", measured)
    assert exit_code(bench.main, []) == FAILED
    said = " ".join(capsys.readouterr().out.split())
    assert "Goal missed: a naive aioboto3 handler needs at least 30 times the CPU; it came to 25.0 times." in said
    assert said.count("Goal missed") == 2
    assert "**not reached**" in (results_in / "results.md").read_text()


@pytest.fixture
def results_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    return tmp_path


def unavailable(_scratch: Path) -> None:
    raise Unavailable("it is not made for this machine")


def test_a_small_run(results_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two peers are measured, their signatures checked; one that cannot be had is named and left out."""
    known = [replace(each, needs=unavailable) if each.name == "pyreqwest" else each for each in contenders.CONTENDERS]
    monkeypatch.setattr(bench, "CONTENDERS", known)
    options = ["--peers", "direct,direct-posts,pyreqwest", "--clients", "200", "--repetitions", "2", "--sweeps", "off"]
    assert exit_code(bench.main, [*options, "--json", str(results_in / "own.json")]) == 0
    figures = json.loads((results_in / "own.json").read_text())
    assert [(each["name"], [run[0] for run in each["runs"]]) for each in figures["comparison"]] == [
        ("direct", [200, 200]),
        ("direct-posts", [200, 200]),
    ]
    assert figures["missing"] == {"pyreqwest": "it is not made for this machine"}
    assert "Left out: pyreqwest (Rust), own signing: it is not made for this machine" in capsys.readouterr().out
    assert (results_in / "comparison.svg").exists()


def test_who_signs_wrongly_is_left_out(results_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del results_in
    known = {each.name: each for each in contenders.CONTENDERS}
    options = bench.Options(200, 10, 0.0, 600, 1, [known["direct-posts"]], sweeps=False)
    running = bench.Bench(options, Console(quiet=True))
    monkeypatch.setattr("benchmarks.stage.REGION", "us-west-2")
    running.run()
    assert running.results.missing == {"direct-posts": "0 of 200 arrived, 200 signatures were wrong"}


def test_ctrl_c_writes_what_there_is(results_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: bench.Bench) -> None:
        self.results.comparison.append(sample("direct", 20))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.Bench, "run", interrupted)
    assert exit_code(bench.main, []) == STOPPED
    assert "The run was stopped before its end." in (results_in / "results.md").read_text()
