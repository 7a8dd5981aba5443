"""``async-relay doctor``: is what is deployed as it must be? It changes nothing.

Exit codes: 0 nothing that was checked is wrong, 1 something is, 2 AWS could not be asked.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from async_relay.checks.deployment import Deployment
from async_relay.checks.examination import examine
from async_relay.checks.findings import Finding, Report, State

from . import screen
from .account import with_account
from .asking import Aws
from .describing import describe_environment, describe_stack
from .failure import USAGE, CommandError


@screen.report_errors
@with_account
def doctor(
    *,
    stack: Annotated[
        str | None,
        typer.Option("--stack", metavar="NAME", help="A deployed stack; without it, the settings in the environment."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Say what is wrong with a deployment, and how to mend it.

    Changes nothing.
    """
    report = examine(_describe(stack))
    if as_json:
        print(_as_json(report))
    else:
        _print(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _describe(stack: str | None) -> Deployment:
    if stack is not None and not stack.strip():
        raise CommandError("--stack is empty: name one", USAGE)
    if stack is None and not os.environ.get("WS_ENDPOINT"):
        raise CommandError(
            "nothing to look at: give --stack, or the functions' settings (WS_ENDPOINT, CONNECTIONS_TABLE, …)", USAGE
        )
    aws = Aws()
    return describe_stack(aws, stack) if stack is not None else describe_environment(aws, os.environ)


def _as_json(report: Report) -> str:
    return json.dumps(
        {
            "verdict": report.verdict,
            "exitCode": report.exit_code,
            "counts": {state: len(report.of(state)) for state in State},
            "findings": [asdict(each) for each in report.findings],
        },
        indent=2,
    )


def _print(report: Report) -> None:
    table = Table(pad_edge=False)
    for title in ("About", "State", "Seen"):
        table.add_column(Text(title), overflow="fold", no_wrap=title == "State")
    for each in report.findings:
        table.add_row(*(Text(screen.safe(cell)) for cell in (each.about, each.state, each.seen)))
    screen.stdout().print(table)
    for each in report.of(State.WRONG):
        _explain(each)
    screen.say(report.verdict)


def _explain(finding: Finding) -> None:
    screen.say(f"Wrong: {finding.about}")
    for sentence in (finding.seen, finding.effect, finding.remedy):
        screen.say(f"  {sentence}")
    screen.say("")
