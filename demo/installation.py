"""An environment of its own for the local AWS: made once in ``.demo``, made again when its pins change.

Rules
- The stamp is written last: an installation that failed or was interrupted counts as none.
- Two at once must wait for each other: ``alone`` sees to that.
"""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from .errors import DemoError
from .processes import run

PINS = Path(__file__).with_name("ministack.txt")


def interpreter(home: Path) -> Path:
    """Where the local AWS's Python is, or will be."""
    return home / "ministack" / "bin" / "python"


def is_installed(home: Path) -> bool:
    """True where the environment in ``home`` is complete and of these pins and this Python."""
    stamp = _stamp(home)
    return stamp.is_file() and stamp.read_text() == _wanted()


async def install(home: Path) -> None:
    """Make the environment in ``home``; ``DemoError`` says what kept it from being made."""
    shutil.rmtree(home / "ministack", ignore_errors=True)
    await _checked("The environment for the local AWS could not be made", "-m", "venv", str(home / "ministack"))
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-input", "-qq", "install", "--retries", "2")
    await _checked(
        "The local AWS could not be downloaded; is the package index within reach? pip says",
        *pip,
        "-r",
        str(PINS),
        python=str(interpreter(home)),
    )
    _stamp(home).write_text(_wanted())


async def _checked(problem: str, *arguments: str, python: str = sys.executable) -> None:
    status, output = await run(python, *arguments)
    if status:
        raise DemoError(f"{problem}: {last_error(output)}")


def last_error(output: str) -> str:
    """The line of pip's or Python's output that says what was wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:] or ["it said nothing"]
    return errors[-1].removeprefix("ERROR: ")


def _stamp(home: Path) -> Path:
    return home / "ministack" / "installed"


def _wanted() -> str:
    return f"{sys.version}\n{PINS.read_text()}"


@asynccontextmanager
async def alone(home: Path) -> AsyncIterator[None]:
    """Make ``home`` and keep every other demo on this machine waiting for it."""
    with _lock_file(home) as lock:
        # Polled, not waited for: a thread stuck in flock() could not be cancelled by Ctrl-C.
        while not _locked(lock):  # noqa: ASYNC110 - the other one is another process
            await asyncio.sleep(0.2)
        yield


def _lock_file(home: Path) -> IO[str]:
    home.mkdir(parents=True, exist_ok=True)
    return (home / "install.lock").open("w")


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
