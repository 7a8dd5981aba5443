"""The Makefile: what its targets leave behind is gone after ``make clean``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: The paths that the targets and their tools make, besides a folder for each line of .gitignore.
MADE = [
    ".coverage",
    ".coverage.host.123.abc",
    "async_relay.egg-info/PKG-INFO",
    "async_relay/http/__pycache__/tls.cpython-313.pyc",
    "benchmarks/peers/node_modules/x.js",
    "benchmarks/results/installed/aiofastnet/x.py",
    "benchmarks/results/load.html",
    "build/.modules",
    "tests/__pycache__/conftest.cpython-313-pytest-9.pyc",
    "tests/node/node_modules/.bin/fauxqs",
]


def git(*arguments: str, at: Path) -> str:
    return subprocess.run(["git", *arguments], cwd=at, check=True, capture_output=True, text=True).stdout  # noqa: S603, S607


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what is tracked here, in a repository of its own."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    for name in git("ls-files", at=ROOT).splitlines():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    git("init", "--quiet", at=tmp_path)
    git("add", "--all", at=tmp_path)
    return tmp_path


def test_clean_leaves_what_is_tracked_and_nothing_else(checkout: Path) -> None:
    """All that the targets make is ignored by git, and gone after it; what is tracked is not touched."""
    ignored = [line for line in (checkout / ".gitignore").read_text().splitlines() if "[" not in line]
    for name in [*MADE, *(f"{line.rstrip('/').replace('*', 'x')}/made" for line in ignored)]:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        if not (checkout / name).parent.is_file():
            (checkout / name).write_text("made")
    before = git("status", "--porcelain", at=checkout)
    assert "?? " not in before
    subprocess.run(["make", "--silent", "clean"], cwd=checkout, check=True, timeout=60)  # noqa: S607
    assert git("status", "--porcelain", at=checkout) == before
    assert "!! " not in git("status", "--porcelain", "--ignored", at=checkout)
    assert git("ls-files", "--deleted", at=checkout) == ""
