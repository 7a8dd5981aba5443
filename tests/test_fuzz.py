"""The fuzzer: ``make fuzz`` runs, and each of its targets finds nothing in a moment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from benchmarks import fuzz
from benchmarks.command import USAGE, exit_code
from benchmarks.fuzz import Answer, check_answer

ROOT = Path(__file__).resolve().parent.parent
MAKE = shutil.which("make") or ""


@pytest.mark.skipif(not MAKE, reason="there is no make here")
def test_the_command_of_make_fuzz_runs_for_a_second() -> None:
    """What ``make fuzz SECONDS=1`` would run, with this interpreter, feeds every target and finds nothing."""
    shown = subprocess.run(  # noqa: S603 - our own command
        [MAKE, "--dry-run", "--always-make", "fuzz", "SECONDS=1"],
        cwd=ROOT,
        # Under make itself these would make it speak of the directories it enters and leaves.
        env={name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}},
        capture_output=True,
        text=True,
        check=True,
    )
    line = shown.stdout.splitlines()[-1]
    words = line.removeprefix("exec ").split()
    assert words[0] == ".venv/bin/python"
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("executions, nothing found") == len(fuzz.TARGETS)


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], "NoneType"),
        ([b"HTTP/1.1 410 Gone\r\nContent-", b"Length: 0\r\n\r\n"], "Gone"),
        ([b"HTTP/2 200\r\n\r\n"], "ServerError"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le"], "nothing until the end"),
    ],
)
def test_an_answer_reaches_the_real_transport(pieces: list[bytes], outcome: str) -> None:
    """Each piece is read by a socket of the pool, and the post comes to one outcome."""
    assert check_answer(Answer(pieces, None)) == outcome


def test_a_finding_ends_with_1_and_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest input that fails is printed; the other targets still have their turn."""

    def check(value: object) -> str:
        assert value != "x"
        return "well"

    inputs = st.sampled_from(["x", "y"])
    monkeypatch.setattr(fuzz, "TARGETS", {"broken": (inputs, check), "sound": (inputs, lambda _: "well")})
    assert exit_code(fuzz.main, ["0.2"]) == 1
    out = capsys.readouterr().out
    assert "FOUND AssertionError" in out
    assert "value='x'" in out
    assert "executions, nothing found" in out


def test_an_unknown_target_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """It names the targets there are."""
    assert exit_code(fuzz.main, ["1", "letters"]) == USAGE
    expected = "no target is called letters: there are records, jobs, dead-letters, answers\n"
    assert capsys.readouterr().err == expected
