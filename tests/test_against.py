"""--against: what two runs of a command say of each other, and what is no run at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import bench, load
from benchmarks.against import Run, differences, earlier, run_of, show
from benchmarks.command import USAGE, exit_code

RUN = Run("load", {"processor": "a fast one"}, 0.1, {"clients": "200"}, True, {"posts a second": 500.0, "batches": 2})


@pytest.fixture
def written(tmp_path: Path) -> Callable[[object], Path]:
    """Writes a file as a run does."""

    def write(content: object) -> Path:
        path = tmp_path / "before.json"
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


def shown(before: Run, now: Run, width: int = 80) -> list[str]:
    out = StringIO()
    show(before, now, Console(file=out, width=width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_run_comes_back_from_its_file(written: Callable[[object], Path]) -> None:
    """With whatever else the file holds."""
    assert earlier(written({"run": asdict(RUN), "moments": []}), "load") == RUN


def test_the_machines_load_is_no_property_of_the_machine() -> None:
    facts = {"processor": "a fast one", "load before": "1.5"}
    found = run_of("load", facts, {"clients": 200}, {"posts": 1}, whole=True)
    assert (found.machine, found.busy, found.options) == ({"processor": "a fast one"}, 1.5, {"clients": "200"})


@pytest.mark.parametrize("command", [load.main, bench.main], ids=["load", "bench"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1, 2]",
        b'{"clients": 5}',
        b'{"run": null}',
        b'{"run": {"command": "load"}}',
        {"run": asdict(RUN) | {"measures": {"posts a second": "many"}}},
        {"run": asdict(replace(RUN, measures={"posts a second": float("nan")}))},
        {"run": asdict(RUN) | {"busy": None}},
        {"run": asdict(RUN) | {"machine": [1]}},
        {"run": asdict(RUN) | {"options": {"clients": 200}}},
        {"run": asdict(RUN) | {"more": 1}},
    ],
)
def test_a_broken_or_foreign_file_is_one_sentence(
    command: Callable[..., int],
    content: object,
    written: Callable[[object], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Said before anything runs."""
    path = written(content)
    assert exit_code(command, ["--against", str(path)]) == USAGE
    error = capsys.readouterr().err
    assert error.startswith(f"--against {path} is not a file that make ")
    assert error.endswith(" wrote; --json FILE writes one\n")
    assert error.count("\n") == 1


def test_a_file_of_the_other_command_is_named(
    written: Callable[[object], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written({"run": asdict(RUN)})
    assert exit_code(bench.main, ["--against", str(path)]) == USAGE
    assert capsys.readouterr().err == f"--against {path} was written by make load, and this is make bench\n"


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(load.main, ["--against", str(tmp_path / "none")]) == USAGE
    error = capsys.readouterr().err
    assert error.startswith("Invalid value for '--against': ")
    assert error.count("\n") == 1


def test_two_runs_stand_side_by_side_with_ratios() -> None:
    """What one of them has alone, or was nothing, has no ratio."""
    now = replace(RUN, measures={"posts a second": 1_250.5, "peak memory, MB": 90.25, "batches": 2})
    lines = shown(replace(RUN, measures=dict(RUN.measures) | {"cut": 0}), now)
    assert [line.split() for line in lines[:5]] == [
        ["earlier", "now", "ratio"],
        ["posts", "a", "second", "500", "1,250", "2.50"],
        ["peak", "memory,", "MB", "-", "90.25", "-"],
        ["batches", "2", "2", "1.00"],
        ["cut", "0", "-", "-"],
    ]
    assert " ".join(lines[5:]).startswith("Same options and the same kind of machine;")


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        (RUN, replace(RUN, options={"clients": "400"}), "clients: 200 earlier, 400 now"),
        (RUN, replace(RUN, options=dict(RUN.options) | {"seed": "2"}), "seed: not named earlier, 2 now"),
        (RUN, replace(RUN, machine={"processor": "a slow one"}), "processor: a fast one earlier, a slow one now"),
        (RUN, replace(RUN, busy=3.5), "load of the machine before it began: 0.1 earlier, 3.5 now"),
        (replace(RUN, whole=False), RUN, "the earlier run was stopped before its end"),
        (RUN, replace(RUN, whole=False), "this run was stopped before its end"),
    ],
)
def test_what_makes_two_runs_incomparable_is_said(before: Run, now: Run, difference: str) -> None:
    """And the figures are shown all the same."""
    assert differences(before, now) == [difference]
    lines = shown(before, now)
    assert lines[1].startswith("posts a second ")
    assert lines[-2:] == ["The two runs cannot be compared, so the ratios say little:", f"- {difference}"]


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_cut_however_wide_the_terminal(width: int) -> None:
    """A long name is broken between words, figures stay whole; what looks like markup is text."""
    measures = {"naive aioboto3 handler, [red]8 ms away[/], a second": 1_234_567.0}
    lines = shown(replace(RUN, measures=measures), replace(RUN, measures=measures), width)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert "1,234,567  1,234,567   1.00" in lines[1]
    assert "[red]8" in "".join(lines)
