"""The commands there are. A new group is one more line here."""

from __future__ import annotations

import typer

from .backfill import backfill
from .connections import connections
from .dead_letters import app as dead_letters
from .disconnect import disconnect
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
app.command("plan")(plan)
app.command("backfill")(backfill)
app.command("connections")(connections)
app.command("disconnect")(disconnect)
app.command("replay")(replay)


@app.callback()
def root() -> None:
    """Look after an async-relay that is running."""
