"""The runner of the mistakes in tests/mistakes: it must be able to say that a mistake lives."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parent / "mistakes" / "run.py"
LIST = """
tests = ["tests/delivery/test_backoff.py"]

[[mistake]]
says = "{says}"
file = "async_relay/delivery/backoff.py"
was = '''{was}'''
becomes = '''{becomes}'''
"""


def run(lists: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 our own words, no shell
        [sys.executable, str(RUNNER), "--lists", str(lists), "--at-once", "1", *modules],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@pytest.mark.parametrize(
    ("was", "becomes", "status", "said"),
    [
        ("from __future__", "from __past__", 1, "pytest ran no test"),
        ("from __future__ import", "import random\nfrom __future__ import", 1, "pytest ran no test"),
        ("return int(", "return int(1 * ", 1, "a tired engineer: lives"),
        ("return ", "yield ", 1, "its `was` is 4 times in async_relay/delivery/backoff.py"),
        ("base * 2.0", "base * 3.0", 0, "backoff"),
    ],
    ids=["no module", "no Python", "harmless", "stale", "harmful"],
)
def test_a_mistake_is_caught_or_named(tmp_path: Path, was: str, becomes: str, status: int, said: str) -> None:
    """Only a failing test counts: what changes nothing lives, what is no Python is a bad entry."""
    (tmp_path / "backoff.toml").write_text(LIST.format(says="a tired engineer", was=was, becomes=becomes))
    done = run(tmp_path, "backoff")
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout + done.stderr


def test_a_list_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "nothing")
    assert done.returncode != 0
    assert "there is no list nothing" in done.stderr.replace("\n", " ")


def test_the_lists_fit_the_code() -> None:
    """They go stale as the code changes; at most one in ten may, so that a round still says something."""
    spec = importlib.util.spec_from_file_location("run_mistakes", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = runner
    spec.loader.exec_module(runner)
    mistakes = [each for path in RUNNER.parent.glob("*.toml") for each in runner.read(path)]
    stale = [
        f"{each.module}: {each.says}"
        for each in mistakes
        if each.was == each.becomes or (runner.ROOT / each.file).read_text(encoding="utf-8").count(each.was) != 1
    ]
    assert len(mistakes) > 100
    assert len(stale) <= len(mistakes) / 10, stale
