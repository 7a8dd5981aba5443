"""The documents: prose that fits a terminal, examples that run, and tables that name what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from records import event, record

from async_relay.settings import Settings
from async_relay.wire.formatter import load_formatter
from async_relay.wire.incidents import format_item
from async_relay.wire.streams import read_records

ROOT = Path(__file__).parent.parent
#: docs/benchmarks is written by ``make bench`` and ``make cold``.
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKE_TARGET = re.compile(r"(?:^|`)make ([a-z-]+)", re.MULTILINE)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither code nor of a table, numbered."""
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            in_code = not in_code
        elif not in_code and not line.startswith("|"):
            yield number, line


def blocks(path: Path, language: str) -> list[str]:
    """The code blocks of that language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_prose_wraps_at_100_columns(path: Path) -> None:
    """Tables and code may be wider."""
    assert [(number, len(line)) for number, line in prose(path.read_text()) if len(line) > 100] == []


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Files that are linked exist, and so does the heading where one is named."""
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", path.read_text()):
        linked = path.parent / target if target else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor.removeprefix("#") in slugs, (target, anchor)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_make_targets_exist(path: Path) -> None:
    """Every ``make …`` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(MAKE_TARGET.findall(path.read_text())) <= targets


def test_the_readme_has_every_setting() -> None:
    """No setting is missing, and the table names none that the code does not know."""
    readme, known = (ROOT / "README.md").read_text(), {field.name.upper() for field in fields(Settings)}
    assert known <= set(re.findall(r"`([A-Z_]+)`", readme))
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", readme, re.MULTILINE)) <= known


@pytest.mark.parametrize("code", blocks(ROOT / "README.md", "python"))
def test_the_readmes_examples_run(code: str) -> None:
    """Each prints what the comment under it says."""
    done = subprocess.run(  # noqa: S603 our own words, no shell
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == re.findall(r"^# (.*)$", code, re.MULTILINE)


def test_the_readme_has_an_example_and_a_client() -> None:
    """So the test above has something to run."""
    assert [len(blocks(ROOT / "README.md", language)) for language in ("python", "js")] == [1, 1]


def test_the_formatter_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module for a table of orders, written and named as docs/operations.md says."""
    operations = ROOT / "docs" / "operations.md"
    (code,) = blocks(operations, "python")
    (name,) = set(re.findall(r"MessageFormatter=(\S+)", operations.read_text()))
    module, _, _ = name.partition(":")
    (tmp_path / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        formatter = load_formatter(name)
    finally:
        sys.modules.pop(module, None)
    item: dict[str, Any] = {"orderId": "o-7", "state": "paid", "total": 12}
    batch = event(
        record(item | {"state": "draft"}, sequence="1"),
        record(item, sequence="2"),
        record({"note": "no order"}, sequence="3"),
    )
    draft, paid, bad = read_records(batch, formatter)
    assert (draft.message, draft.problem) == (None, None)
    assert paid.message is not None
    assert paid.message.payload == {"kind": "order", "event_id": "event-2", "sequence": "2"} | item
    assert bad.problem == "its formatter failed: KeyError in orders.py, line 3"
    assert format_item(item, "e", "1") is None
