"""The benchmark: its options, its arithmetic, and one small run of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import bench, bench_run, cold, contenders, launches, load, plots, report
from benchmarks.bar import Standing
from benchmarks.beside import Beside
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


def luminance(colour: str) -> float:
    """Of a colour like #0072b2, as WCAG has it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", sorted(plots.DARK.keys() - {plots.GROUND}))
def test_every_colour_is_legible_on_both_grounds(colour: str) -> None:
    """As WCAG wants it: 3 for lines and marks, 7 for text."""
    least = 7 if colour == plots.INK else 3
    assert contrast(colour, plots.GROUND) >= least
    assert contrast(plots.DARK[colour], plots.DARK[plots.GROUND]) >= least


def test_a_plot_is_dark_where_the_readers_system_is(tmp_path: Path) -> None:
    """Each colour in it has a rule for that, and no text is left in matplotlib's black, which has none."""
    found = results(sample("direct", 20, 22), sample("aioboto3-handler", 700, 800), sample("wrk", 9, 10))
    picture = plots.draw(found, tmp_path)["comparison"].read_text()
    style, _, drawn = picture.partition("</style>")
    assert style.count("@media (prefers-color-scheme: dark){") == 1
    colours = set(re.findall(r"(fill|stroke): (#\w+)", drawn))
    assert {colour for _, colour in colours} >= {plots.INK, plots.GROUND, plots.OURS, plots.THEIRS, plots.FLOOR}
    for what, colour in colours:
        assert f'[style*="{what}: {colour}"]{{{what}:{plots.DARK[colour]} !important}}' in style
    assert all(f"fill: {plots.INK}" in text for text in re.findall(r"<text[^>]*>", drawn))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_figure_is_readable_however_wide_the_terminal(width: int) -> None:
    """Where the output is no terminal too, whatever is measured: no cell is cut, and no figure is broken."""
    names = [(each.name, f"{each.title}", each.whole) for each in contenders.CONTENDERS]
    found = results(
        *(replace(sample(name, 1_234, 99.94, 9_876), title=title, whole=whole) for name, title, whole in names)
    )
    found.by_clients = [replace(sample("direct", 20, clients=100_000), title="naive aioboto3 handler")]
    written = StringIO()
    report.show(found, Console(file=written, width=width))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in written.getvalue()
    figures = [line.split()[-5:] for line in lines].count(["1,234", "99.9-9,876", "1.0", "1,000", "123/50"])
    assert figures == len(names)
    if width >= 80:
        for _, title, whole in names:
            assert [line for line in lines if line.startswith(f"{title}{' *' if whole else ''} ")]


@pytest.mark.parametrize("script", [bench.main, load.main], ids=["bench", "load"])
@pytest.mark.parametrize("width", ["60", "80"])
def test_the_help_says_of_each_option_what_it_does(
    script: Callable[..., int], width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In groups, and nothing is cut."""
    monkeypatch.setenv("COLUMNS", width)
    assert exit_code(script, ["--help"]) == 0
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= int(width)
    assert "…" not in said
    assert said.count("╭─ ") >= 4
    options = re.findall(r"^│ (--[\w-]+) +(.*)│$", said, re.MULTILINE)
    assert {"--clients", "--against", "--json"} <= {name for name, _ in options}
    assert [name for name, words in options if not re.search(r"  [A-Z]", words)] == []


def test_a_goal_that_is_missed_is_named_and_fails_the_run(
    results_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a sentence each, and what was measured is written all the same."""

    def measured(self: bench_run.Bench) -> None:
        self.results.comparison += [sample("direct", 20), sample("aioboto3-handler", 500)]

    monkeypatch.setattr(bench_run.Bench, "run", measured)
    assert exit_code(bench.main, []) == FAILED
    said = " ".join(capsys.readouterr().out.split())
    assert "Goal missed: a naive aioboto3 handler needs at least 30 times the CPU; it came to 25.0 times." in said
    assert said.count("Goal missed") == 2
    assert "**not reached**" in (results_in / "results.md").read_text()


def test_a_run_stands_beside_an_earlier_one(
    results_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it wrote as JSON is read again; the figures are compared, and another option is named."""
    cpu = [20.0, 40.0]

    def measured(self: bench_run.Bench) -> None:
        self.results.comparison += [sample("direct", cpu.pop(0)), sample("aioboto3-handler", 1_600)]
        self.results.by_clients += [sample("direct", 20)]

    monkeypatch.setattr(bench_run.Bench, "run", measured)
    before = results_in / "before.json"
    assert exit_code(bench.main, ["--json", str(before)]) == 0
    capsys.readouterr()
    assert exit_code(bench.main, ["--against", str(before), "--clients", "500"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^the aioboto3-handler, times ours +80 +40 +0\.50$", said, re.MULTILINE)
    assert re.search(r"^the direct, CPU µs +20 +40 +2\.00$", said, re.MULTILINE)
    assert re.search(r"^1,000 clients, peak MB +100 +100 +1\.00$", said, re.MULTILINE)
    assert "- clients: 10000 earlier, 500 now" in said


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
    seen: list[Standing] = []

    @contextmanager
    def watched(standing: Callable[[], Standing], _console: Console) -> Iterator[Callable[[], None]]:
        yield lambda: seen.append(standing())

    monkeypatch.setattr(bench_run, "bar", watched)
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
    assert seen[0] == Standing(0.0, "0 of 6 measurements; Looking for async-relay")
    rounds = [each for each in seen if "round " in each.words]
    assert [each.share for each in rounds] == [0.0, 0.25, 0.5, 0.75]
    assert rounds[-1].words.startswith("3 of 4 measurements; Side by side, round 2 of 2: async-relay")


def test_the_bar_counts_every_measurement_of_those_who_are_there() -> None:
    """Side by side 13 times 7; the sweeps 9 times 2 of 3 rounds each, and 3 sizes of 7 rounds."""
    options = bench_run.Options(1_000, 100, 0.0, 600, 7, contenders.CONTENDERS, sweeps=True)
    running = bench_run.Bench(options, Console(quiet=True))
    assert running.standing() == Standing(0.0, "0 of 166 measurements; ")
    running.results.missing["aioboto3-handler"] = "it cannot be had"
    assert running.standing() == Standing(0.0, "0 of 132 measurements; ")


def test_who_signs_wrongly_is_left_out(results_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del results_in
    known = {each.name: each for each in contenders.CONTENDERS}
    options = bench_run.Options(200, 10, 0.0, 600, 1, [known["direct-posts"]], sweeps=False)
    running = bench_run.Bench(options, Console(quiet=True))
    monkeypatch.setattr("benchmarks.stage.REGION", "us-west-2")
    running.run()
    assert running.results.missing == {"direct-posts": "0 of 200 arrived, 200 signatures were wrong"}


def test_ctrl_c_writes_what_there_is(results_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: bench_run.Bench) -> None:
        self.results.comparison.append(sample("direct", 20))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_run.Bench, "run", interrupted)
    assert exit_code(bench.main, []) == STOPPED
    assert "The run was stopped before its end." in (results_in / "results.md").read_text()


def test_init_is_all_that_comes_before_the_first_event() -> None:
    """The interpreter and the imports, whatever follows."""
    told = {"marks": [["interpreter", 10.03], ["imports", 10.1], ["first invocation", 10.4]], "cpu": 0.2, "trust": 0.0}
    steps = launches._steps(told, 10.0)
    assert [round(steps[step]) for step in ("INIT", "first invocation", "CPU")] == [100, 300, 200]


def test_an_entry_point_without_credentials_waits_for_no_sdk() -> None:
    """Its last cell is empty; the others have a median of each way to start."""

    def start(*first: float, init: float = 100.0) -> launches.Start:
        runs = [{"INIT": init, "first invocation": each, "second invocation": 2.0} for each in first]
        return launches.Start("connect", "connect", "", "", runs=[*runs])

    provisioned = start(21, init=120.0)
    rows = cold._handler_rows(
        [[start(30, 50, 31), provisioned, start(23), start(400)], [start(90), provisioned, start(40)]]
    )
    assert rows == [
        ("connect", "100", "31", "2", "120", "21", "23", "400"),
        ("connect", "100", "90", "2", "120", "21", "40", ""),
    ]
    table = cold._markdown([], [[start(31), provisioned, start(23), start(400)]])
    assert "| connect | 100 | 31 | 2 | 120 | 21 | 23 | 400 |" in table


def test_lambda_tells_each_start_its_entry_point_and_how_it_is_made(tmp_path: Path) -> None:
    """Without which a sandbox that is made ahead loads nothing ahead."""
    stands = Beside("http://localhost/credentials", "https://localhost", "relay", "", b"")
    found = cold.entry_points(launches.Start("", "", "", ""), stands, tmp_path)
    assert [ways[0].environ["_HANDLER"] for ways in found] == [
        f"handler.{name}_handler" for name in ("lambda", "connect", "default", "authorize")
    ]
    made = [each.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") for each in found[0]]
    assert made == [None, "provisioned-concurrency", "snap-start", "snap-start"]
