"""What ``packaging/`` makes for this machine, once for all workers of pytest-xdist; and its scripts as modules."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
#: The time of the releases that tests make.
SECONDS = "1800000000"


@cache
def script(name: str) -> ModuleType:
    """A packaging script as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "packaging" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_build(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 our own words, no shell
        [sys.executable, ROOT / "packaging" / "build.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def native_zip(factory: pytest.TempPathFactory) -> Path:
    """The zip for this machine."""

    def make(output: Path) -> None:
        done = run_build("--arch", "native", "--output", output)
        assert done.returncode == 0, done.stderr

    return _once(factory, "native.zip", make)


def native_release(factory: pytest.TempPathFactory) -> Path:
    """The folder of a release whose zip is for this machine."""
    zip_file = native_zip(factory)
    return _once(factory, "release", lambda output: script("release").release(output, SECONDS, zip_file))


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / name).exists():
            make(shared / name)
    return shared / name
