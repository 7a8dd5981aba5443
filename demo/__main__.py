"""The command: ``python -m demo [--once | --soak 120]``; ``make demo`` installs what it needs and calls it."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from . import deployment, door, feed, installation, local_aws, page
from .clients import crowd
from .comparison import comparison
from .errors import DemoError
from .issuer import issuing
from .ledger import Ledger
from .show import Show
from .steps import step
from .tables import tables
from .view import View, in_one_sentence, invocations_in_words, save_picture, shown

_STOPPED = 130  # as a shell says it of what Ctrl-C ended
_FANOUT = {"FanoutMode": "fanout", "ConnectionsIndex": "by-shard"}


def main() -> None:
    """Parse, play, and leave with 0 only where all went well."""
    console = Console()
    _forget_the_outer_aws()
    try:
        options = _options()
        problems = asyncio.run(_until_signalled(options, console))
    except (DemoError, OSError) as error:
        sys.exit(f"The demo cannot go on. {error}")
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"The demo cannot go on. The local AWS failed: {error}")
    except asyncio.CancelledError:
        console.print("Stopped; nothing is left running.")
        sys.exit(_STOPPED if options.once or options.soak else 0)
    if problems:
        sys.exit("\n".join(["The round failed; what the functions said is in .demo/functions.log:", *problems]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="The whole relay on this machine.")
    parser.add_argument("--once", action="store_true", help="play one full round; fail unless all went well")
    parser.add_argument("--soak", type=_seconds, metavar="S", help="for S seconds cut clients at random; fail as above")
    parser.add_argument("--clients", type=_clients, default=20, metavar="N", help="dashboards, 4 to 50 (20)")
    parser.add_argument("--port", type=_port, metavar="PORT", help="where to serve the page (8080 if free)")
    parser.add_argument("--fanout", action="store_true", help="many functions post, each to its shard of the clients")
    parser.add_argument("--seed", type=int, default=1, help="which incidents happen (1)")
    parser.add_argument("--capture", type=Path, metavar="FILE", help="save the terminal's last view there, as SVG")
    parser.add_argument("--release", type=Path, metavar="DIR", help="deploy a release's template and zip, made by make")
    parser.add_argument("--home", type=Path, default=deployment.ROOT / ".demo", help=argparse.SUPPRESS)
    return parser.parse_args()


def _clients(text: str) -> int:
    return _between("CLIENTS", text, 4, 50)


def _seconds(text: str) -> int:
    return _between("SOAK", text, 1, 86_400)


def _port(text: str) -> int:
    return _between("PORT", text, 1, 65535)


def _between(name: str, text: str, low: int, high: int) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not low <= int(text) <= high:
        raise DemoError(f"{name} is {text!r}; it must be a whole number from {low} to {high}")
    return int(text)


def _forget_the_outer_aws() -> None:
    """A profile, an endpoint or a CA bundle meant for the real AWS has no business here."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    # The clients of the library go by the environment; what they talk to is on this machine.
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},127.0.0.1"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull


async def _until_signalled(options: argparse.Namespace, console: Console) -> list[str]:
    """Play, and take the first signal as the wish to stop; later ones must not cut the cleaning up short."""
    loop, playing = asyncio.get_running_loop(), asyncio.current_task()
    assert playing is not None
    signalled = False

    def stop() -> None:
        nonlocal signalled
        if not signalled:
            signalled = True
            playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await _play(options, console)


async def _play(options: argparse.Namespace, console: Console) -> list[str]:
    if options.port is not None:
        page.check_port(options.port)
    artefacts = await _prepare(options, console)
    async with AsyncExitStack() as stage:
        with step(console, "Starting the local AWS"):
            aws = await stage.enter_async_context(local_aws.running(options.home))
        issuer = stage.enter_context(issuing())
        parameters = deployment.door(issuer) | (_FANOUT if options.fanout else {})
        with step(console, "Deploying the template, its door closed"):
            stack = await deployment.deploy(aws, artefacts, parameters)
        token = partial(issuer.token, page.CLIENT_ID, [feed.EVERY_TENANT])
        url = stage.enter_context(page.served(stack.websocket_url, token, options.port))
        console.print(f"[green]✓[/] The page is at [bold]{url}[/]", highlight=False)
        table = await stage.enter_async_context(tables(aws, stack))
        ledger = Ledger()
        with step(console, f"Connecting {options.clients} dashboards"):
            members = await stage.enter_async_context(crowd(stack.websocket_url, issuer, options.clients, ledger))
        chance, soak = random.Random(options.seed), options.soak is not None
        tenants = (feed.EVERY_TENANT, *feed.TENANTS) if soak else (feed.EVERY_TENANT,)
        with step(console, "Connecting clients of the library, one of which will not be cut"):
            clients = comparison(stack.websocket_url, issuer, chance, tenants, soak=soak)
            compared = await stage.enter_async_context(clients)
        view = View(ledger, aws.posts, members.present, url, compared)
        async with shown(view, console) as tell:
            changes = feed.changes(options.seed, feed.Clock())
            knock = partial(door.knock, stack.websocket_url, issuer)
            show = Show(changes, table, members, compared, ledger, tell, knock, chance)
            problems = await _shown(show, options)
        if options.capture:
            save_picture(view, options.capture)
        said = await deployment.what_functions_said(aws)
        if problems:
            _save_logs(options.home / "functions.log", said)
        else:
            console.print(f"[green]✓[/] {in_one_sentence(view)}", highlight=False, soft_wrap=True)
            console.print(f"[green]✓[/] {invocations_in_words(said)}", highlight=False, soft_wrap=True)
        return problems


async def _shown(show: Show, options: argparse.Namespace) -> list[str]:
    """What is asked for; its complaints."""
    if options.soak is not None:
        return await show.soak(options.soak)
    if not options.once:
        await show.until_stopped()
    return await show.one_round()


async def _prepare(options: argparse.Namespace, console: Console) -> deployment.Artefacts:
    """Install and build, as far as that was not done before; what is to be deployed."""
    zip_file = Path(options.home, "relay.zip")
    async with installation.alone(options.home):
        if not installation.is_installed(options.home):
            with step(console, "Installing the local AWS into .demo (about 15 seconds, once)"):
                await installation.install(options.home)
        if options.release:
            return deployment.released(options.release)
        if not deployment.is_built(zip_file):
            with step(console, "Building the Lambda zip (about 10 seconds, whenever the code has changed)"):
                await deployment.build(zip_file)
    return deployment.Artefacts(deployment.TEMPLATE, zip_file)


def _save_logs(path: Path, said: Mapping[str, Sequence[str]]) -> None:
    path.write_text("\n".join(line for function, lines in said.items() for line in (f"==== {function}", *lines)))


if __name__ == "__main__":
    main()
