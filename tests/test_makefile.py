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


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with nothing on the PATH but what the recipe needs; nobody's root, and without a browser."""
    folder = tmp_path / "commands"
    folder.mkdir()
    for name in ("make", "sh", "rm"):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"there is no {name} here")
        (folder / name).symlink_to(found)
    command(folder / "id", "echo 1000")
    return folder


def command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def find_a_browser(commands: Path) -> tuple[str, str]:
    """What make says, and the browser it found or had installed."""
    venv = commands.parent / "venv"
    venv.mkdir()
    (venv / ".installed").touch()
    stamp = venv / ".installed-browser"
    make: list[str | Path] = [commands / "make", "--silent", f"VENV={venv}", "--old-file", venv / ".installed", stamp]
    done = subprocess.run(make, cwd=ROOT, env={"PATH": str(commands)}, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout.strip(), stamp.read_text().strip() if stamp.exists() else ""


def test_a_browser_that_is_there_is_used(commands: Path) -> None:
    """Whichever of its names it has, and nothing is installed."""
    command(commands / "google-chrome", "exit 1")
    command(commands / "apt-get", "exit 1")
    assert find_a_browser(commands) == ("", str(commands / "google-chrome"))


def test_root_has_one_installed(commands: Path) -> None:
    """Debian's, by apt-get; nobody else is asked for a password."""
    command(commands / "id", "echo 0")
    command(
        commands / "apt-get", f'[ "$2" = update ] || echo "exit 0" > {commands}/chromium; /bin/chmod +x {commands}/*'
    )
    said, found = find_a_browser(commands)
    assert (said, found) == ("Installing Debian's Chromium (about a minute, once)", str(commands / "chromium"))


def test_without_one_the_browser_tests_are_skipped(commands: Path) -> None:
    """And it says so, without an error: neither may it install one, nor can it."""
    command(commands / "apt-get", "exit 1")
    assert find_a_browser(commands) == ("There is no Chromium here: the browser tests are skipped", "")


def test_an_installation_that_fails_is_no_error(commands: Path) -> None:
    """A machine without a network has the other tests still."""
    command(commands / "id", "echo 0")
    command(commands / "apt-get", "exit 100")
    said, found = find_a_browser(commands)
    assert (said.splitlines()[-1], found) == ("apt-get could not install Chromium: the browser tests are skipped", "")
