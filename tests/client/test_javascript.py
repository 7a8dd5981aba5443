"""The JavaScript client: its own tests under Node's runner, its types, and its weight."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from servers import NODE_SERVERS, installed, pinned, program

CLIENT = Path(__file__).parents[2] / "client"
HERE = Path(__file__).parent
#: Node's runner came of age with it.
_OLDEST = 20


def node() -> Path:
    """Node.js, where it is new enough."""
    found = program("node")
    if found is None:
        pytest.skip("the client's tests need Node.js, which neither the dev extra nor this machine has")
    version = run(found, "--version").stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _OLDEST:
        pytest.skip(f"the client's tests need Node.js {_OLDEST} or newer, and this is {version}")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)  # noqa: S603 - our own


def compile_with_typescript(*arguments: str | Path) -> str:
    """What ``tsc`` has to say; nothing is good."""
    runtime = node()
    if installed("typescript") != pinned()["typescript"]:
        pytest.fail(f"typescript {pinned()['typescript']} is not installed: run `npm ci --prefix tests/node`")
    compiler = NODE_SERVERS / "node_modules" / "typescript" / "lib" / "tsc.js"
    options = ("--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable")
    return run(runtime, compiler, *options, *arguments).stdout


@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_client_in_javascript(path: Path) -> None:
    """Scripted sequences, any interleaving at random, and a page's events."""
    done = run(node(), "--test", "--test-reporter", "tap", path)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr


def test_its_types_are_checked() -> None:
    """The module keeps what its declarations promise."""
    assert compile_with_typescript("--allowJs", "--checkJs", CLIENT / "async-relay.js") == ""


def test_a_page_in_typescript_can_use_it() -> None:
    """And is told where it is mistaken."""
    assert compile_with_typescript(HERE / "page.ts") == ""


def test_it_weighs_at_most_five_kilobytes() -> None:
    """Gzipped, as it is served, comments and all."""
    assert len(gzip.compress((CLIENT / "async-relay.js").read_bytes(), 9)) <= 5 * 1024


def test_it_imports_nothing() -> None:
    """One file, which a page loads as it is."""
    assert not re.search(r"^\s*(import\b|.*\brequire\()", (CLIENT / "async-relay.js").read_text(), re.MULTILINE)
