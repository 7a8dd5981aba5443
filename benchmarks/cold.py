"""From the start of a process to its first post: ours and a naive aioboto3 handler, in turn, step by step.

    make cold                          with the Lambda zip as `make build` makes it, bytecode and all, and without it
    python -m benchmarks.cold --zip off       with what is installed here

Rules
- A process is new each time; the files are warm in the page cache, which Lambda's may not be.
- Both trust botocore's whole list of authorities besides the gateway's, as they would on Lambda.
- A hundred clients are in the table; "everybody" is when all of them have been served.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated
from urllib.parse import urlsplit

import botocore
import typer
from rich.console import Console
from rich.table import Table

from . import command
from .bench import RESULTS
from .command import CommandError, Switch
from .machine import machine
from .peers.worker import TABLE
from .stage import ROOT, Stage, body_of, stage, stream_event

_CHILD = ROOT / "benchmarks" / "peers" / "cold_start.py"
_PUBLISHED = ROOT / "docs" / "benchmarks"
_CLIENTS = 100
_BODY = 600
_STEPS = (
    "interpreter",
    "imports",
    "DynamoDB client",
    "posting client",
    "first scan",
    "handshake",
    "first post",
    "everybody",
)


@dataclass(slots=True)
class Start:
    """One way to start, and how long its steps took, in ms."""

    title: str
    kind: str
    path: str
    python: str
    runs: list[Mapping[str, float]] = field(default_factory=list)

    def median(self, step: str) -> float | None:
        """Of a step; None where there is no such step."""
        found = [run[step] for run in self.runs if step in run]
        return median(found) if found else None


def starts(*, zipped: bool) -> list[Start]:
    """The starts to compare; raises ``CommandError`` where the zip cannot be made."""
    if not zipped:
        here = str(ROOT)
        return [
            Start("async-relay, as installed", "ours", here, sys.executable),
            Start("naive aioboto3, as installed", "naive", here, sys.executable),
        ]
    with_bytecode, without = _unpacked()
    # Not the virtual environment's: the zip brings everything.
    python = str(getattr(sys, "_base_executable", sys.executable))
    return [
        Start("async-relay", "ours", str(with_bytecode), python),
        Start("naive aioboto3", "naive", str(with_bytecode), python),
        Start("async-relay, no bytecode", "ours", str(without), python),
        Start("naive aioboto3, no bytecode", "naive", str(without), python),
    ]


def _unpacked() -> tuple[Path, Path]:
    """The zip for this machine, unpacked as Lambda does, and the same without bytecode."""
    target = RESULTS / "cold"
    archive = target / "native.zip"
    target.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, str(ROOT / "packaging" / "build.py"), "--arch", "native", "--output", str(archive)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode:
        raise CommandError(f"The zip cannot be made: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    trees = target / "with", target / "without"
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            file.extractall(tree)
    for cache in list(trees[1].rglob("__pycache__")):
        shutil.rmtree(cache)
    return trees


def measure(start: Start, here: Stage, setup: Path) -> None:
    """One cold start."""
    environ = {
        **here.environ,
        "PYTHONPATH": start.path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "WS_ENDPOINT": here.gateway.endpoint,
        "CONNECTIONS_TABLE": TABLE,
        "POWERTOOLS_LOG_LEVEL": "WARNING",
    }
    began = time.monotonic()
    process = subprocess.run(  # noqa: S603 - our own script
        [start.python, "-P", str(_CHILD), start.kind, str(setup)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise CommandError(f"{start.title} did not start: {process.stderr.strip().splitlines()[-1]}")
    start.runs.append(_steps(json.loads(process.stdout.splitlines()[-1]), began))


def _steps(told: Mapping[str, object], began: float) -> dict[str, float]:
    """How long each step took, and until the first post, in ms."""
    steps: dict[str, float] = {}
    marks = told["marks"]
    assert isinstance(marks, list)
    before = began
    for step, at in marks:
        steps[step] = (at - before) * 1000
        before = at
        if step == "first post":
            steps["to the first post"] = (at - began) * 1000
    return steps | {"CPU": float(str(told["cpu"])) * 1000, "of which trust": float(str(told["trust"])) * 1000}


def _setup(here: Stage) -> Path:
    event = stream_event(_BODY)
    told = {
        "endpoint": here.gateway.endpoint,
        "port": urlsplit(here.gateway.endpoint).port,
        "table": TABLE,
        "event": event,
        "body": body_of(event).decode(),
    }
    file = here.scratch / "cold.json"
    file.write_text(json.dumps(told))
    authorities = Path(botocore.__file__).parent / "cacert.pem"
    here.bundle.write_bytes(authorities.read_bytes() + here.bundle.read_bytes())
    return file


def _rows(measured: Sequence[Start]) -> list[tuple[str, ...]]:
    rows = []
    for step in ("to the first post", *_STEPS, "of which trust", "CPU"):
        values = [start.median(step) for start in measured]
        rows.append((step, *("" if value is None else f"{value:.0f}" for value in values)))
    return rows


def main(
    launches: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="of each")] = 11,
    zipped: Annotated[Switch, typer.Option("--zip", help="start from the zip")] = Switch.ON,
    publish: Annotated[bool, typer.Option("--publish", help="also into docs/benchmarks/")] = False,  # noqa: FBT002
) -> int:
    """Measure cold starts, ours and a naive aioboto3 handler's."""
    console = Console()
    measured = starts(zipped=zipped is Switch.ON)
    stopped = False
    try:
        _measure_all(measured, launches)
    except KeyboardInterrupt:
        stopped = True
        console.print("Stopped; what there is so far:")
    measured = [start for start in measured if start.runs]
    _show(measured, console)
    for directory in [RESULTS, *([_PUBLISHED] if publish and not stopped else [])]:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cold.md").write_text(_markdown(measured))
    return command.STOPPED if stopped else 0


def _measure_all(measured: Sequence[Start], launches: int) -> None:
    with stage() as here:
        here.table.call("fill", _CLIENTS)
        setup = _setup(here)
        for start in measured:
            measure(start, here, setup)  # The first brings its files into the page cache.
            start.runs.clear()
        for _ in range(launches):
            for start in measured:
                measure(start, here, setup)


def _show(measured: Sequence[Start], console: Console) -> None:
    table = Table("ms, median", *(start.title for start in measured), title="Cold start", title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in _rows(measured):
        table.add_row(*row)
    console.print(table)


def _markdown(measured: Sequence[Start]) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    titles = " | ".join(start.title for start in measured)
    lines = [
        "# Cold start",
        "",
        f"Made by `make cold`. {facts}. Milliseconds, medians of {len(measured[0].runs) if measured else 0} launches.",
        "",
        f"| step | {titles} |",
        f"| --- |{' ---: |' * len(measured)}",
        *(f"| {' | '.join(row)} |" for row in _rows(measured)),
        "",
        'A step is the time since the one before. "Of which trust": loading certificate authorities, in all contexts.',
        '"Everybody": the other 99 clients.',
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)
