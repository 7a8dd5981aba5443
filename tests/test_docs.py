"""The documents: prose that fits a terminal, examples that run, and tables that name what there is."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import boto3
import pytest
from deployment import new_queue, new_table
from documented_commands import COMMANDS, ROOT, WRITTEN, InTest, Run, commands_in, entry
from records import event, record
from servers import program

from async_relay.settings import Settings
from async_relay.wire.formatter import load_formatter
from async_relay.wire.incidents import format_item
from async_relay.wire.jobs import Client, DeadLetter, Job
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_records

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
def test_every_row_belongs_to_a_table(path: Path) -> None:
    """One that an empty line parts from its table is shown as it is written."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"\n\n(\|.*)\n(?!\|[ :|-]+\|\n)", text)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_no_merge_is_left_half_done(path: Path) -> None:
    """Both sides of a conflict would be read, one after the other."""
    assert not re.findall(r"^(?:<{7}|={7}|>{7})(?: .*)?$", path.read_text(), re.MULTILINE)


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


def test_the_readmes_page_reads_objects_and_arrays() -> None:
    """A message of an array counts like one alone: repeats and older states are dropped in both, answers too."""
    node = program("node")
    if node is None:
        pytest.skip("the README's page needs Node.js, which neither the dev extra nor this machine has")
    (code,) = blocks(ROOT / "README.md", "js")
    new, old, other = (
        {"event_id": name, "incident_id": "inc-1", "sequence": sequence}
        for name, sequence in (("a", "20"), ("b", "3"), ("c", "100"))
    )
    script = f"""
        class WebSocket {{ constructor(url, protocols) {{ console.log(protocols[0]); }} }}
        const freshToken = async () => "T", show = (message) => console.log(message.event_id);
        {code}
        for (const data of {json.dumps([json.dumps(each) for each in ([new, old, new], {"type": "pong"}, other)])})
          socket.onmessage({{ data }});
    """
    done = subprocess.run(  # noqa: S603 our own words, no shell
        [node, "--input-type=module", "-e", script], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.stdout.split()) == ("", ["async-relay.v2", "a", "c"])


def test_the_formatter_of_the_docs_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module for a table of orders, written and named as docs/deploy.md says."""
    document = ROOT / "docs" / "deploy.md"
    (code,) = blocks(document, "python")
    (name,) = set(re.findall(r"MessageFormatter=(\S+)", document.read_text()))
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


NAMED = sorted({command for path in WRITTEN for command in commands_in(path.read_text())})
RUNS = sorted({found for command in NAMED if isinstance(found := entry(command), Run)}, key=lambda run: run.words)


@pytest.mark.parametrize("command", NAMED)
def test_every_command_runs_or_says_why_not(command: str) -> None:
    """Each that a document names is run by a test; a new one needs an entry in documented_commands.py."""
    found = entry(command)
    assert found is not None, f"the documents name {command!r}, which no test runs"
    if isinstance(found, InTest):
        names = {node.name for node in ast.walk(ast.parse((ROOT / found.path).read_text())) if hasattr(node, "name")}
        assert found.name in names, f"{found.path} has no {found.name}"


def test_no_entry_is_left_over() -> None:
    """What no document names any more needs no entry."""
    assert [pattern for pattern, _ in COMMANDS if not any(re.fullmatch(pattern, each) for each in NAMED)] == []


def test_commands_are_found_wherever_they_stand() -> None:
    """In blocks, spans, spans over two lines, and options beside their make; nothing else is taken for one."""
    text = """
`make fuzz` (60 s; `SECONDS=600 TARGETS='jobs'`) and `make
build MODULES=x`; `COALESCE=latest`, `aws/`, `makes`.

| `make bench` | x | `BENCH=--quick` |
| `make load` | `LOAD='--help'` |

```
async-relay plan \\
    --json   # why
export A=1
new-tool --flag
```

```python
make = 1
```
"""
    assert sorted(commands_in(text)) == [
        "async-relay plan --json",
        "make bench",
        "make bench BENCH=--quick",
        "make build MODULES=x",
        "make fuzz",
        "make fuzz SECONDS=600 TARGETS='jobs'",
        "make load",
        "make load LOAD='--help'",
        "new-tool --flag",
    ]
    assert entry("new-tool --flag") is None


def test_extras_that_are_to_be_installed_exist() -> None:
    """And nowhere is the package asked for from an index, which has none of this name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"pip install '\.\[(\w+)\]'", "".join(path.read_text() for path in WRITTEN))
    assert set(named) <= set(extras)
    sources = [
        *WRITTEN,
        *(path for where in ("async_relay", "benchmarks", "demo") for path in (ROOT / where).rglob("*.py")),
    ]
    assert [path for path in sources if re.search(r"install '?\"?async[-_]relay", path.read_text())] == []


def test_make_test_consists_of_its_parts() -> None:
    """So those that make test runs itself need no run here."""
    recipe = (ROOT / "Makefile").read_text().partition("\ntest: ")[2].partition("\n\n")[0]
    assert {"lint", "types", "unit"} <= set(recipe.split())


@pytest.fixture
def local(moto_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A table and queues of a local AWS, with a dead letter about an incident and one that was refused."""
    letters, queue = new_queue(moto_url), new_queue(moto_url)
    message = Message.encode({"kind": "incident_update", "incident_id": "i-17", "event_id": "e-1", "sequence": "1"})
    sqs = boto3.client("sqs", endpoint_url=moto_url)
    ids = [
        sqs.send_message(
            QueueUrl=letters, MessageBody=DeadLetter(reason, "", Job((message,), (Client("a="),)), 1).encode()
        )["MessageId"]
        for reason in ("attempts_exhausted", "refused")
    ]
    sqs.close()
    for name, value in {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_REGION": "eu-west-1",
        "DEAD_LETTER_QUEUE_URL": letters,
        "RETRY_QUEUE_URL": queue,
    }.items():
        monkeypatch.setenv(name, value)
    return {"table": new_table(moto_url), "letter": ids[0], "scratch": str(tmp_path)}


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """What make takes for an installed .venv, with this interpreter."""
    made = tmp_path / "venv"
    (made / "bin").mkdir(parents=True)
    python = made / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for name in (".installed", ".installed-demo", ".installed-node"):
        (made / name).touch()
    return made


@pytest.mark.parametrize("run", RUNS, ids=lambda run: " ".join(run.words))
def test_a_command_of_the_documents_runs(
    run: Run, local: dict[str, str], venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shortened to seconds, it ends well."""
    program, *words = [word.format(**local) for word in run.words]
    if program == "make":
        if shutil.which("make") is None:
            pytest.skip("there is no make here")
        words = ["make", *words, f"VENV={venv}"]
        # Reading test-fast's folders is enough: make test runs what is in them.
        monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only --quiet -p no:cacheprovider")
    elif program == "async-relay":
        words = [sys.executable, "-c", "from async_relay.cli import main; main()", *words]
    else:
        words = [sys.executable, *words]
    # Not those of a make or of pytest's workers around this: they would be taken for one's own.
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTEST_XDIST", "PYTEST_CURRENT", "COV_CORE")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    done = subprocess.run(  # noqa: S603 - our own commands
        words, cwd=ROOT, env=environ, input=run.answers, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
