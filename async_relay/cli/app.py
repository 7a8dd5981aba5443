"""The commands there are. A new group is one more line here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from . import screen
from .backfill import backfill
from .connections import connections
from .dead_letters import app as dead_letters
from .disconnect import disconnect
from .doctor import doctor
from .failure import CommandError
from .plan import show as plan
from .replay import replay

# Plain help and errors: a boxed and wrapped sentence cannot be searched for.
app = typer.Typer(
    name="async-relay",
    help="Look after an async-relay that is running.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(dead_letters, name="dead-letters")
for _name, _command, _example in (
    ("plan", plan, "--clients 10k --messages-per-second 0.5"),
    ("backfill", backfill, "--table connections --shards 8 --dry-run"),
    ("connections", connections, "--table connections --top 20"),
    ("disconnect", disconnect, "--principal 'auth0|5f7c8ec7' --dry-run"),
    ("doctor", doctor, "--stack relay"),
    ("replay", replay, "--bucket kept --function relay --since 2h"),
):
    app.command(_name, epilog=f"Example: async-relay {_name} {_example}")(_command)


@screen.report_errors
def _show_version(wanted: bool) -> None:  # noqa: FBT001 - an option, passed on
    if wanted:
        try:
            print(f"async-relay {version('async-relay')}")
        except PackageNotFoundError:
            raise CommandError("async-relay is not installed, so it has no version: pip install '.[cli]'") from None
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Say which version this is."),
    ] = False,
) -> None:
    """Look after an async-relay that is running."""
