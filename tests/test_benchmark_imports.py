"""The arrows around benchmarks: tests may import them, they import no test, and there is no circle among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted((ROOT / "benchmarks").rglob("*.py"))
}
TESTS = {path.stem for path in (ROOT / "tests").glob("*.py")} | {"tests"}


def imported(module: str) -> Iterator[str]:
    """Every module that ``module`` imports anywhere in it, also late and for types only, by its full name."""
    package = module.split(".")[:-1]
    for node in ast.walk(ast.parse(SCRIPTS[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_benchmark_imports_no_test(module: str) -> None:
    """The tests stand above the benchmarks."""
    assert {name.partition(".")[0] for name in imported(module)} & TESTS == set()


def test_no_circle_among_benchmarks() -> None:
    """Each module stands above all that it imports."""
    graph = {module: {name for name in imported(module) if name in SCRIPTS} for module in SCRIPTS}
    assert "benchmarks.watch" in graph["benchmarks.load_report"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))
