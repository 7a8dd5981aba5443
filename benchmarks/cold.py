"""From the start of a process to its first post: ours and a naive aioboto3 handler, in turn, step by step.

    make cold                          with the Lambda zip as `make build` makes it, bytecode and all, and without it
    python -m benchmarks.cold --zip off       with what is installed here

And what a sandbox that was made ahead spares: for each entry point what comes before its first event, its first
invocation and its second; and the first with provisioned concurrency and after a restore (SnapStart), where INIT has
loaded more (``async_relay.preload``), and where credentials come from the container endpoint.

Rules
- A process is new each time; the files are warm in the page cache, which Lambda's may not be.
- Both trust botocore's whole list of authorities besides the gateway's, as they would on Lambda.
- A hundred clients are in the table; "everybody" is when all of them have been served.
- A token file is one of the things that leave the container endpoint to the SDK (``aws.environment``).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import botocore
import typer
from rich.console import Console
from rich.table import Table

from . import command
from .bench import RESULTS
from .beside import CONTAINER_TOKEN, Beside, beside
from .command import CommandError, Switch
from .launches import Start, measure
from .machine import machine
from .peers.worker import TABLE, connection_id
from .stage import ROOT, Stage, body_of, stage, stream_event

_PUBLISHED = ROOT / "docs" / "benchmarks"
_CLIENTS = 100
_BODY = 600
_STEPS = (
    "interpreter",
    "imports",
    "DynamoDB client",
    "posting client",
    "first scan",
    "handshake",
    "first post",
    "everybody",
)
_NO_KEYS = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), "")
_COLUMNS = (
    "INIT",
    "first invocation",
    "second invocation",
    "INIT, provisioned",
    "first, provisioned",
    "first, restored",
    "first, restored, credentials by the SDK",
)
_MADE_AHEAD = (
    "INIT is what comes before the first event: the interpreter, and the import of `handler`. On Lambda its runtime",
    "comes on top. The first invocation loads what it needs, opens sockets, and serves: `relay` 100 clients, for which",
    "its metrics take Powertools; `connect` writes a row; `default` answers a ping; `authorize` checks a token, and",
    "fetches the issuer's keys. On demand a client waits for INIT and for the first invocation.",
    "",
    "- **Provisioned concurrency** spares INIT: a sandbox that was made ahead begins with its first invocation. Since",
    "  nobody waits for its INIT, it has loaded there what its first invocation needs.",
    "- **SnapStart** puts a restore in the place of INIT. How long that takes only AWS can say: it is in the",
    "  function's `platform.report` lines, as `restoreDurationMs`. The snapshot holds what a provisioned sandbox",
    "  loads, but for one module of `authorize`: aiohttp, which fetches the keys, is loaded after the restore,",
    "  since its import takes random numbers, and no two sandboxes may have the same. The first invocation has its",
    "  credentials from the container endpoint, which we read ourselves; the last column is what it would take if",
    "  the SDK had to. `authorize` needs no credentials. Here the process is a new one and its memory at hand;",
    "  Lambda reads a snapshot as it is touched, which these figures do not have.",
)
_INVOCATIONS = ("first invocation", "second invocation")


def starts(*, zipped: bool) -> list[Start]:
    """The starts to compare; raises ``CommandError`` where the zip cannot be made."""
    if not zipped:
        here = str(ROOT)
        return [
            Start("async-relay, as installed", "ours", here, sys.executable),
            Start("naive aioboto3, as installed", "naive", here, sys.executable),
        ]
    with_bytecode, without = _unpacked()
    # Not the virtual environment's: the zip brings everything.
    python = str(getattr(sys, "_base_executable", sys.executable))
    return [
        Start("async-relay", "ours", str(with_bytecode), python),
        Start("naive aioboto3", "naive", str(with_bytecode), python),
        Start("async-relay, no bytecode", "ours", str(without), python),
        Start("naive aioboto3, no bytecode", "naive", str(without), python),
    ]


def _unpacked() -> tuple[Path, Path]:
    """The zip for this machine, unpacked as Lambda does, and the same without bytecode."""
    target = RESULTS / "cold"
    archive = target / "native.zip"
    target.mkdir(parents=True, exist_ok=True)
    build = [sys.executable, str(ROOT / "packaging" / "build.py"), "--arch", "native", "--output", str(archive)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)  # noqa: S603 - our own script
    if done.returncode:
        raise CommandError(f"The zip cannot be made: {(done.stderr or done.stdout).strip().splitlines()[-1]}")
    trees = target / "with", target / "without"
    for tree in trees:
        shutil.rmtree(tree, ignore_errors=True)
        with zipfile.ZipFile(archive) as file:
            file.extractall(tree)
    for cache in list(trees[1].rglob("__pycache__")):
        shutil.rmtree(cache)
    return trees


def entry_points(start: Start, stands: Beside, scratch: Path) -> list[Sequence[Start]]:
    """For each entry point its starts, from where ``start`` is: on demand, provisioned, and restored.

    What calls AWS is restored twice: with credentials that we read, and with some that the SDK has to.
    """
    token_file = scratch / "token"
    token_file.write_text(CONTAINER_TOKEN)
    provisioned = {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}
    snapstart = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    container = snapstart | _NO_KEYS | {"AWS_CONTAINER_CREDENTIALS_FULL_URI": stands.container_url}
    by_us = container | {"AWS_CONTAINER_AUTHORIZATION_TOKEN": CONTAINER_TOKEN}
    by_the_sdk = container | {"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token_file)}
    door = {"AUTH_MODE": "jwt", "AUTH_ISSUER": stands.issuer_url, "AUTH_AUDIENCE": stands.audience}
    found = [_ways(start, name, [{}, provisioned, by_us, by_the_sdk]) for name in ("relay", "connect", "default")]
    return [*found, _ways(start, "authorize", [door, door | provisioned, door | snapstart])]


def _ways(start: Start, name: str, environs: Sequence[dict[str, str]]) -> Sequence[Start]:
    """One entry point, in each environment, of which Lambda tells it its name."""
    handler = {"_HANDLER": f"handler.{'lambda' if name == 'relay' else name}_handler"}
    return [replace(start, title=name, kind=name, environ=handler | each, runs=[]) for each in environs]


def _setup(here: Stage, stands: Beside) -> Path:
    event = stream_event(_BODY)
    route: dict[str, Any] = {"requestContext": {"connectionId": connection_id(0)}}
    told = {
        "endpoint": here.gateway.endpoint,
        "port": urlsplit(here.gateway.endpoint).port,
        "table": TABLE,
        "event": event,
        "body": body_of(event).decode(),
        "events": {
            "relay": event,
            "connect": route,
            "default": route | {"body": '{"action":"ping"}'},
            "authorize": {"methodArn": "arn", "headers": {"Authorization": f"Bearer {stands.token}"}},
        },
    }
    file = here.scratch / "cold.json"
    file.write_text(json.dumps(told))
    authorities = Path(botocore.__file__).parent / "cacert.pem"
    here.bundle.write_bytes(authorities.read_bytes() + here.bundle.read_bytes() + stands.pem)
    return file


def _rows(measured: Sequence[Start]) -> list[tuple[str, ...]]:
    rows = []
    for step in ("to the first post", *_STEPS, "of which trust", "CPU"):
        values = [start.median(step) for start in measured]
        rows.append((step, *("" if value is None else f"{value:.0f}" for value in values)))
    return rows


def main(
    launches: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="of each")] = 11,
    zipped: Annotated[Switch, typer.Option("--zip", help="start from the zip")] = Switch.ON,
    publish: Annotated[bool, typer.Option("--publish", help="also into docs/benchmarks/")] = False,  # noqa: FBT002
) -> int:
    """Measure cold starts, ours and a naive aioboto3 handler's."""
    console = Console()
    measured = starts(zipped=zipped is Switch.ON)
    handlers: list[Sequence[Start]] = []
    stopped = False
    try:
        _measure_all(measured, handlers, launches)
    except KeyboardInterrupt:
        stopped = True
        console.print("Stopped; what there is so far:")
    measured = [start for start in measured if start.runs]
    handlers = [ways for ways in handlers if ways[0].runs]
    _show("Cold start", "ms, median", [start.title for start in measured], _rows(measured), console)
    _show("Made ahead", "ms, median", _COLUMNS, _handler_rows(handlers), console)
    for directory in [RESULTS, *([_PUBLISHED] if publish and not stopped else [])]:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cold.md").write_text(_markdown(measured, handlers))
    return command.STOPPED if stopped else 0


def _measure_all(measured: Sequence[Start], handlers: list[Sequence[Start]], launches: int) -> None:
    """Measure in turn, so that a busy moment is no one's alone; ``handlers`` gets the starts of the entry points."""
    with stage() as here, beside() as stands:
        here.table.call("fill", _CLIENTS)
        setup = _setup(here, stands)
        handlers += entry_points(measured[0], stands, here.scratch)
        for start in (*measured, *(ways[0] for ways in handlers)):
            measure(start, here, setup)  # The first brings its files into the page cache.
            start.runs.clear()
        for _ in range(launches):
            for start in (*measured, *(start for ways in handlers for start in ways)):
                measure(start, here, setup)


def _handler_rows(handlers: Sequence[Sequence[Start]]) -> list[tuple[str, ...]]:
    """What ``_COLUMNS`` names; an entry point that needs no credentials has none by the SDK."""
    rows = []
    for on_demand, provisioned, *restored in handlers:
        values = [on_demand.median(step) for step in ("INIT", *_INVOCATIONS)]
        values.append(provisioned.median("INIT"))
        values += [each.median("first invocation") for each in (provisioned, *restored)]
        shown = ["" if value is None else f"{value:.0f}" for value in values]
        rows.append((on_demand.title, *shown, *[""] * (len(_COLUMNS) - len(shown))))
    return rows


def _show(title: str, corner: str, titles: Sequence[str], rows: Sequence[tuple[str, ...]], console: Console) -> None:
    table = Table(corner, *titles, title=title, title_justify="left")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _table(corner: str, titles: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return [
        f"| {corner} | {' | '.join(titles)} |",
        f"| --- |{' ---: |' * len(titles)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _markdown(measured: Sequence[Start], handlers: Sequence[Sequence[Start]]) -> str:
    facts = "; ".join(f"{name}: {value}" for name, value in machine().items())
    lines = [
        "# Cold start",
        "",
        f"Made by `make cold`. {facts}. Milliseconds, medians of {len(measured[0].runs) if measured else 0} launches.",
        "",
        *_table("step", [start.title for start in measured], _rows(measured)),
        'A step is the time since the one before. "Of which trust": loading certificate authorities, in all contexts.',
        '"Everybody": the other 99 clients.',
        "",
        "## What a sandbox made ahead spares",
        "",
        *_table("entry point", _COLUMNS, _handler_rows(handlers)),
        *_MADE_AHEAD,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main)
