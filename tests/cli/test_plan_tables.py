"""The tables and plots of docs/scaling.md are what the plan prints and draws."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from documented_commands import ROOT, commands_in
from typer.testing import CliRunner

from async_relay.cli.app import app

SCALING = (ROOT / "docs" / "scaling.md").read_text()
COMMANDS = sorted(set(commands_in(SCALING)))
TABLES = [command for command in COMMANDS if command.startswith("async-relay plan --table")]
PLOTS = [command for command in COMMANDS if "--plot docs/" in command]


def run(*words: str) -> Any:
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("command", TABLES)
def test_the_document_has_what_the_command_prints(command: str) -> None:
    """Line by line, under the command."""
    _, _, below = SCALING.partition(f"\n{command}\n```\n")
    assert below.lstrip().startswith(run(*shlex.split(command)[1:]))


def test_the_templates_share_is_as_the_document_says() -> None:
    """2,000 posts a second for one function, and its seconds for 10,000 clients."""
    (command,) = [each for each in COMMANDS if "--stream-shards 4 --others 2000" in each]
    output = run(*shlex.split(command)[1:])
    rows = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in output.splitlines() if "│" in line}
    assert rows["posts a second, at most"] == "2,000"
    assert rows["the last one"] == "5.2 s"
    assert "needs 5.2 seconds for 10,000 clients" in SCALING


def texts(svg: Path) -> list[str]:
    """Title, axes and legends."""
    return [text for text in re.findall(r"<!-- (.*?) -->", svg.read_text()) if not text.startswith("$")]


@pytest.mark.parametrize("command", PLOTS)
def test_the_documents_plots_are_of_what_the_command_draws(command: str, tmp_path: Path) -> None:
    """The same title, axes and legends; the points of the simulation are left out, which take a minute."""
    *words, target = shlex.split(command)[1:]
    assert "--simulate" in words
    run(*(word for word in words if word != "--simulate"), str(tmp_path / "plan.svg"))
    drawn, kept = (texts(path) for path in (tmp_path / "plan.svg", ROOT / target))
    assert [text for text in kept if "simulated" not in text] == drawn


def test_there_are_tables_and_plots() -> None:
    """So the tests above have something to run."""
    assert {command.partition("--table ")[2].split()[0] for command in TABLES} == {"sizes", "bill", "windows"}
    assert len(PLOTS) == 3


def test_a_table_of_windows_is_of_so_many_clients() -> None:
    """The others are of all sizes."""
    found = CliRunner().invoke(app, ["plan", "--table", "windows"])
    assert (found.exit_code, "no clients" in found.output) == (2, True)
