"""Gets what the peers need beyond the project's own environment: from pip, npm and apt, once, into a scratch directory.

A peer that cannot be installed is an ``Unavailable`` with the reason; the benchmark names it and goes on without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_SECONDS = 180


class Unavailable(Exception):
    """Why a peer cannot be had, in one sentence."""


def python_package(name: str, scratch: Path) -> Path:
    """The directory to put on the peer's path."""
    target = scratch / "python" / name
    if not (target / name).exists():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        _call([*pip, "install", "--no-deps", "--target", str(target), name], f"pip cannot install {name}")
    return target


def node_package(name: str, scratch: Path) -> Path:
    """The directory whose ``node_modules`` has it."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Unavailable("there is no Node.js here")
    target = scratch / "node"
    if not (target / "node_modules" / name).exists():
        target.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(target), name]
        _call(npm, f"npm cannot install {name}")
    return target


def wrk() -> str:
    """The program; root on a Debian gets it from apt."""
    if not shutil.which("wrk") and shutil.which("apt-get") and os.geteuid() == 0:
        _call(["apt-get", "install", "--yes", "--no-install-recommends", "wrk"], "apt cannot install wrk")
    found = shutil.which("wrk")
    if found is None:
        raise Unavailable("wrk is not here; a package of that name exists for most systems")
    return found


def module(name: str) -> None:
    """Something of the project's own environment."""
    if find_spec(name) is None:
        raise Unavailable(f"{name} is not installed; it comes with the extra dev")


def _call(command: Sequence[str], problem: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{problem}: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Unavailable(f"{problem}: {lines[-1]}")
