"""The real handler against many mocked clients, and a verdict: whether everybody got what they should have got.

    make load                                              10,000 clients, 5 messages
    make load LOAD='--clients 100000 --gone 0.05'          a twentieth has gone
    make load LOAD='--messages 100 --frames 1'             everybody reads arrays: many messages in one post
    make load LOAD='--duration 60 --churn 200'             a minute, with clients coming and going
    make load LOAD='--chaos --clients 3000'                a clean run, a chaotic one, and how much later it delivers
    make load LOAD='--against before.json'                 beside an earlier run, which wrote it with --json before.json
    python -m benchmarks.load --endpoint URL --table NAME  one's own API: it posts for real

Rules
- The code is the handler's: the sandbox, its settings from an environment, the transport, the table read by Scan.
- The gateway and the table are processes of their own. The retry queue is here: its jobs are served when they are due,
  as Lambda would, until it is empty.
- The gateway's own account of what each client got decides, not the relay's.
- Ctrl-C: what there is so far is shown, and nothing is left running.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from . import chaos as preset
from . import command, load_play
from .against import Against, AsJson, earlier, show
from .crowd import KINDS, latency
from .load_figures import this_run
from .load_options import Carrier, Options, check

_CHAOS = (
    "Play a clean run, then one with "
    + ", ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in preset.PRESET.items())
    + " where not given otherwise. Both have the same clients, messages, duration and account limit, since a limit"
    f" slows healthy clients down too. Fails where p95 from event to delivery is more than {preset.WITHIN:g} times"
    " the clean one's."
)
_AMOUNT, _SICK, _RELAY = "How much", "What is wrong with the clients and the account", "The relay"
_REAL = "An API of your own"


def _share(words: str) -> Any:
    return typer.Option(min=0, max=1, metavar="SHARE", rich_help_panel=_SICK, help=words)


def main(
    clients: Annotated[
        int,
        typer.Option(
            min=1, max=1_000_000, metavar="N", rich_help_panel=_AMOUNT, help="How many clients are connected."
        ),
    ] = 10_000,
    messages: Annotated[
        int,
        typer.Option(min=1, max=1_000, metavar="N", rich_help_panel=_AMOUNT, help="Messages in each batch of changes."),
    ] = 5,
    payload: Annotated[
        int, typer.Option(min=1, max=131_072, metavar="BYTES", rich_help_panel=_AMOUNT, help="The size of a message.")
    ] = 600,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=86_400,
            metavar="SECONDS",
            rich_help_panel=_AMOUNT,
            help="Send batch after batch for so long; 0 sends one batch.",
        ),
    ] = None,
    frames: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            metavar="SHARE",
            rich_help_panel=_AMOUNT,
            help="The share of the clients that read arrays: many messages in one post.",
        ),
    ] = 0.0,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=999_999_999,
            metavar="N",
            rich_help_panel=_AMOUNT,
            help="Decides by chance which client is which; the same seed, the same clients.",
        ),
    ] = 1,
    lag: Annotated[
        str,
        typer.Option(
            "--latency",
            metavar="MS",
            rich_help_panel=_SICK,
            help="How long the gateway takes to answer: 8, uniform:2-20 or lognormal:8.",
        ),
    ] = "8",
    gone: Annotated[
        float | None, _share("The share of the clients that have gone and left their row behind (410).")
    ] = None,
    throttled: Annotated[
        float | None, _share("The share whose buffer is full at the first two tries of each message (429).")
    ] = None,
    erring: Annotated[
        float | None, _share("The share that answers 500 or cuts the socket at the first two tries.")
    ] = None,
    hanging: Annotated[float | None, _share("The share that never answers the first try of each message.")] = None,
    slow: Annotated[float | None, _share("The share that takes a second longer.")] = None,
    account_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1_000_000,
            metavar="POSTS",
            rich_help_panel=_SICK,
            help="Posts a second above which the gateway answers 429 to anybody; 0 is no limit.",
        ),
    ] = None,
    churn: Annotated[
        float | None,
        typer.Option(
            min=0, max=10_000, metavar="CLIENTS", rich_help_panel=_SICK, help="Clients that come or go a second."
        ),
    ] = None,
    chaos: Annotated[bool, typer.Option("--chaos", rich_help_panel=_SICK, help=_CHAOS)] = False,  # noqa: FBT002
    concurrency: Annotated[
        int,
        typer.Option(min=1, max=900, metavar="N", rich_help_panel=_RELAY, help="Posts in flight at most."),
    ] = 100,
    transport: Annotated[
        Carrier,
        typer.Option(
            rich_help_panel=_RELAY,
            help="Own sockets (direct), the AWS SDK (sdk), or no sockets at all (memory): a million clients.",
        ),
    ] = Carrier.DIRECT,
    against: Against = None,
    as_json: AsJson = None,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL", rich_help_panel=_REAL, help="The API's endpoint with its stage: this posts for real."
        ),
    ] = "",
    table: Annotated[
        str, typer.Option(metavar="NAME", rich_help_panel=_REAL, help="The connections table of that API.")
    ] = "",
    yes: Annotated[  # noqa: FBT002
        bool, typer.Option("--yes", rich_help_panel=_REAL, help="Do not ask before posting for real.")
    ] = False,
) -> int:
    """Broadcast to many mocked clients, and say whether everybody got everything."""
    chosen = {
        name: preset.option(name, given, chaos=chaos)
        for name, given in {
            "gone": gone,
            "throttled": throttled,
            "erring": erring,
            "hanging": hanging,
            "slow": slow,
            "account_limit": account_limit,
            "duration": duration,
            "churn": churn,
        }.items()
    }
    options = Options(
        clients=clients,
        messages=messages,
        payload=payload,
        lag=latency(lag),
        shares={kind: chosen[kind] for kind in KINDS[1:]},
        account_limit=chosen["account_limit"] or None,
        duration=chosen["duration"],
        churn=chosen["churn"],
        concurrency=concurrency,
        transport=transport,
        arrays=frames,
        seed=seed,
        endpoint=endpoint,
        table=table,
    )
    check(options)
    before = earlier(against, "load") if against else None
    console = Console()
    if endpoint:
        _warn(options, console)
        if not yes:
            typer.confirm("Post to them?", abort=True)
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    status, figures = load_play.compare(options, console) if chaos else load_play.play(options, console)
    if as_json:
        as_json.write_text(json.dumps(figures, indent=1))
    if before:
        console.rule("Against the earlier run")
        show(before, this_run(figures), console)
    return status


def _warn(options: Options, console: Console) -> None:
    console.print(
        f"This posts {options.messages:,} made-up incidents to every client in the table {options.table}, through "
        f"{options.endpoint}, and deletes the rows of those that have gone. They are real, and so is the bill.",
        style="bold yellow",
    )


if __name__ == "__main__":
    command.run(main, sys.argv[1:])
