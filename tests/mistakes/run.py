"""Breaks the code on purpose, one mistake at a time, and looks whether the tests notice.

    .venv/bin/python tests/mistakes/run.py               every list in this folder
    .venv/bin/python tests/mistakes/run.py lanes pool    these only

Rules
- A list is a TOML file named after the module it is about: ``tests``, the arguments for pytest, and ``[[mistake]]``
  with ``says`` (what a tired engineer did), ``file``, ``was`` (there exactly once) and ``becomes``.
- ``alive`` in a mistake is the reason why no test can or should notice it; it counts as caught by a person.
- Each mistake is made in a copy of the checkout; the checkout itself is never touched.
- A mistake is caught by a failing test, where the same tests pass without it. One that stops pytest before it
  runs a test (a syntax error, say) is a bad entry of the list, and so is one whose ``was`` is no longer in the
  code: both are named, and the run fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

LISTS = Path(__file__).parent
ROOT = LISTS.parents[1]
#: The servers that some tests run against, where they are installed; git does not know them.
SERVERS = ROOT / "tests" / "node" / "node_modules"
#: Longer than the tests of any one module take on a busy machine; a mistake that hangs them is caught.
_TIME_LIMIT = 600


@dataclass(frozen=True, slots=True)
class Mistake:
    """One change for the worse, and the tests that should notice; paths are relative to the checkout."""

    module: str
    says: str
    file: str
    was: str
    becomes: str
    tests: tuple[str, ...]
    alive: str = ""


def read(path: Path) -> list[Mistake]:
    """The mistakes of one list, in its order; raises ``ValueError`` for an entry that says too little."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        return [
            Mistake(module=path.stem, tests=tuple(each.pop("tests", content["tests"])), **each)
            for each in content["mistake"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def outcome(mistake: Mistake, checkout: Path) -> str:
    """``caught``, ``lives`` or a sentence about the entry; ``checkout`` is as it was afterwards."""
    path = checkout / mistake.file
    right = path.read_text(encoding="utf-8") if path.exists() else ""
    if right.count(mistake.was) != 1:
        return f"its `was` is {right.count(mistake.was)} times in {mistake.file}"
    if mistake.alive:
        return "accepted"
    if not _pass(mistake.tests, checkout):
        return "its tests fail without it"
    path.write_text(right.replace(mistake.was, mistake.becomes), encoding="utf-8")
    try:
        return _verdict(mistake.tests, checkout)
    finally:
        path.write_text(right, encoding="utf-8")


_passing: dict[tuple[str, ...], bool] = {}


def _pass(tests: tuple[str, ...], checkout: Path) -> bool:
    """Whether the tests pass as long as nothing is broken; looked at once."""
    if tests not in _passing:
        _passing[tests] = _verdict(tests, checkout) == "lives"
    return _passing[tests]


def _verdict(tests: Sequence[str], checkout: Path) -> str:
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(  # noqa: S603 our own words, no shell
            command, cwd=checkout, capture_output=True, text=True, timeout=_TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return "caught"
    match done.returncode:
        case 0:
            return "lives"
        case 1:
            return "caught"
    return f"pytest ran no test: {(done.stdout + done.stderr).strip().splitlines()[-1]}"


def copies(number: int, scratch: Path) -> Iterator[Path]:
    """So many copies of the checkout: the files git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607 the git on PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for each in range(number):
        copy = scratch / str(each)
        for name in names:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
        if SERVERS.exists():
            (copy / SERVERS.relative_to(ROOT)).symlink_to(SERVERS.resolve())
        yield copy


def judge(mistakes: Sequence[Mistake], at_once: int) -> Iterator[tuple[Mistake, str]]:
    """Each mistake with its outcome, in the order given."""
    free: SimpleQueue[Path] = SimpleQueue()

    def one(mistake: Mistake) -> str:
        checkout = free.get()
        try:
            return outcome(mistake, checkout)
        finally:
            free.put(checkout)

    with tempfile.TemporaryDirectory(prefix="async-relay-mistakes-") as scratch:
        for copy in copies(at_once, Path(scratch)):
            free.put(copy)
        with ThreadPoolExecutor(at_once) as pool:
            yield from zip(mistakes, pool.map(one, mistakes), strict=True)


def main(
    modules: Annotated[list[str] | None, typer.Argument(help="Lists to try; all of them where none is named")] = None,
    lists: Annotated[Path, typer.Option(help="The folder with the lists")] = LISTS,
    at_once: Annotated[int, typer.Option(min=1, help="Mistakes tried side by side")] = 2,
) -> None:
    """Make the mistakes of the lists one by one, and fail where one lives or an entry is no good."""
    known = {path.stem: path for path in sorted(lists.glob("*.toml"))}
    if unknown := set(modules or ()) - known.keys():
        raise typer.BadParameter(f"there is no list {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    mistakes = [each for name in modules or known for each in read(known[name])]
    console = Console()
    outcomes: dict[str, list[str]] = {name: [] for name in modules or known}
    for mistake, found in judge(mistakes, at_once):
        outcomes[mistake.module].append(found)
        if found not in ("caught", "accepted"):
            console.print(f"{mistake.module}: {mistake.says}: {found}", markup=False, highlight=False, soft_wrap=True)
    console.print(_table(outcomes))
    if any(found not in ("caught", "accepted") for each in outcomes.values() for found in each):
        raise typer.Exit(1)


def _table(outcomes: dict[str, list[str]]) -> Table:
    table = Table("module", "mistakes", "caught", "accepted", "live", "bad entries")
    for name, found in outcomes.items():
        known = [found.count(each) for each in ("caught", "accepted", "lives")]
        table.add_row(name, str(len(found)), *map(str, known), str(len(found) - sum(known)))
    return table


if __name__ == "__main__":
    typer.run(main)
