"""One launch of ``peers/cold_start.py``: a process that is new, and how long each of its steps took."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .command import CommandError
from .peers.worker import TABLE
from .stage import ROOT, Stage

_CHILD = ROOT / "benchmarks" / "peers" / "cold_start.py"


@dataclass(slots=True)
class Start:
    """One way to start, and how long its steps took, in ms; ``environ`` is what it has beside the stage's."""

    title: str
    kind: str
    path: str
    python: str
    environ: Mapping[str, str] = field(default_factory=dict)
    runs: list[Mapping[str, float]] = field(default_factory=list)

    def median(self, step: str) -> float | None:
        """Of a step; None where there is no such step."""
        found = [run[step] for run in self.runs if step in run]
        return median(found) if found else None


def measure(start: Start, here: Stage, setup: Path) -> None:
    """One cold start."""
    environ = {
        **here.environ,
        "PYTHONPATH": start.path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "WS_ENDPOINT": here.gateway.endpoint,
        "CONNECTIONS_TABLE": TABLE,
        "POWERTOOLS_LOG_LEVEL": "WARNING",
        **start.environ,
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
    steps["INIT"] = steps["interpreter"] + steps["imports"]
    return steps | {"CPU": float(str(told["cpu"])) * 1000, "of which trust": float(str(told["trust"])) * 1000}
