"""The dashboard in Chromium: its tests under Node's runner, against a relay of the tests' own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from servers import installed, pinned, program

HERE = Path(__file__).parent
#: As the Makefile looks for it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_NEEDED = ("playwright-core", "axe-core", "ws")


def chromium() -> str:
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("the browser tests need Chromium, which this machine has not: apt-get install chromium")
    return found


def node() -> Path:
    found = program("node")
    if found is None:
        pytest.skip("the browser tests need Node.js, which neither the dev extra nor this machine has")
    for name in _NEEDED:
        if installed(name) != pinned()[name]:
            pytest.fail(f"{name} {pinned()[name]} is not installed: run `npm ci --prefix tests/node`")
    return found


def in_node(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHROMIUM": chromium()}
    return subprocess.run(  # noqa: S603 - our own
        [node(), *words], capture_output=True, text=True, check=False, timeout=220, env=environment
    )


# A browser's start and some pages: a while on a busy machine.
@pytest.mark.timeout(240)
@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name.split(".")[0])
def test_the_dashboard_in_a_browser(path: Path) -> None:
    """One browser for a file's tests, since its start costs more than a test."""
    done = in_node("--test", "--test-reporter=tap", path)
    assert done.returncode == 0, _failures(done.stdout) + done.stderr


@pytest.mark.timeout(240)
def test_the_documents_pictures_can_be_made(tmp_path: Path) -> None:
    """Into any folder; none is written by a test into the checkout."""
    done = in_node(HERE / "pictures.mjs", tmp_path)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    assert made == {path.name for path in (HERE.parents[1] / "docs").glob("dashboard-*.png")}


def _failures(report: str) -> str:
    """What is not in order, without what is."""
    return "\n".join(part for part in report.split("# Subtest: ") if "\nnot ok" in part)
