"""The package from outside: what importing it loads, what it exports, and the example in its docstring."""

from __future__ import annotations

import inspect
import subprocess
import sys
from textwrap import dedent

import pytest

import async_relay

SDK = ("boto", "aio")


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - ours
    return done.stdout


def loaded_by(statement: str) -> set[str]:
    return set(run(f"{statement}; import sys; print(*sys.modules, sep='\\n')").split())


def test_importing_the_package_loads_no_aws_code() -> None:
    """Neither the SDK nor our own code for AWS, nor sockets."""
    loaded = loaded_by("import async_relay")
    assert not {name for name in loaded if name.startswith((*SDK, "async_relay.aws"))}
    assert not loaded & {"async_relay.http.pool", "async_relay.services", "httptools", "uvloop"}


@pytest.mark.parametrize(
    "name", ["handler", "async_relay.sandbox", "async_relay.services", "async_relay.clients.connect", "async_relay.aws"]
)
def test_no_module_that_lambda_imports_loads_the_sdk(name: str) -> None:
    """The SDK takes most of a cold start; it is loaded when a call needs it."""
    prepare = "import os; os.environ.update(WS_ENDPOINT='https://a.example/prod', CONNECTIONS_TABLE='connections')"
    assert not {each for each in loaded_by(f"{prepare}; import {name}") if each.startswith(SDK)}


def test_the_example_in_the_docstring_works() -> None:
    """Three clients get one message, one of them another, and the names come from the root."""
    assert async_relay.__doc__ is not None
    example = dedent(inspect.cleandoc(async_relay.__doc__).partition("::\n")[2])
    assert run(example) == "4 posts: [3, 1]\n"


def test_everything_that_is_exported_can_be_had() -> None:
    """``__all__`` is sorted and complete."""
    assert sorted(async_relay.__all__) == async_relay.__all__
    assert all(getattr(async_relay, name) for name in async_relay.__all__)
