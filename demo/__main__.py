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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from . import deployment, door, feed, installation, local_aws, page
from .clients import Crowd, joined
from .comparison import Comparison, comparison
from .cuts import line_to
from .deployment import Stack
from .errors import DemoError
from .issuer import Issuer, issuing
from .ledger import Ledger
from .local_aws import LocalAws
from .panel import Panel, Tokens, jobs_in
from .show import Show
from .steps import step
from .story import INCIDENTS, Story
from .tables import Tables, tables
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
            console.print("Stopping ...")
            playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await _play(options, console)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is deployed and who will be there, whatever is played."""

    aws: LocalAws
    issuer: Issuer
    stack: Stack
    tables: Tables
    ledger: Ledger
    members: Crowd
    chance: random.Random


async def _play(options: argparse.Namespace, console: Console) -> list[str]:
    if options.port is not None:
        page.check_port(options.port)
    async with AsyncExitStack() as stage:
        scene = await _scene(options, console, stage)
        if options.once or options.soak is not None:
            return await _checked(scene, options, console, stage)
        await _watched(scene, options, console, stage)
        return []


async def _scene(options: argparse.Namespace, console: Console, stage: AsyncExitStack) -> _Scene:
    """Everything up to the first client."""
    template = deployment.TEMPLATE.read_text()
    zip_file = await _prepare(options, console)
    with step(console, "Starting the local AWS"):
        aws = await stage.enter_async_context(local_aws.running(options.home))
    issuer = stage.enter_context(issuing())
    parameters = deployment.door(issuer) | (_FANOUT if options.fanout else {})
    with step(console, "Deploying the template, its door closed"):
        stack = await deployment.deploy(aws, template, zip_file, parameters)
    table, ledger = await stage.enter_async_context(tables(aws, stack)), Ledger()
    members = Crowd(stack.websocket_url, issuer, ledger)
    return _Scene(aws, issuer, stack, table, ledger, members, random.Random(options.seed))


async def _checked(scene: _Scene, options: argparse.Namespace, console: Console, stage: AsyncExitStack) -> list[str]:
    """The round or the soak; its complaints."""
    token, soak = partial(scene.issuer.token, page.CLIENT_ID, [feed.EVERY_TENANT]), options.soak is not None
    url = stage.enter_context(page.served(page.Site(scene.stack.websocket_url, token), options.port))
    console.print(f"[green]✓[/] The page is at [bold]{url}[/]", highlight=False)
    compared = await _connected(scene, options, console, stage)
    view = View(scene.ledger, scene.aws.posts, scene.members.present, url, compared)
    async with shown(view, console) as tell:
        changes = feed.changes(options.seed, feed.Clock())
        knock = partial(door.knock, scene.stack.websocket_url, scene.issuer)
        show = Show(changes, scene.tables, scene.members, compared, scene.ledger, tell, knock, scene.chance)
        problems = await (show.soak(options.soak) if soak else show.one_round())
    if options.capture:
        save_picture(view, options.capture)
    said = await deployment.what_functions_said(scene.aws)
    if problems:
        _save_logs(options.home / "functions.log", said)
    else:
        console.print(f"[green]✓[/] {in_one_sentence(view)}", highlight=False, soft_wrap=True)
        console.print(f"[green]✓[/] {invocations_in_words(said)}", highlight=False, soft_wrap=True)
    return problems


async def _connected(scene: _Scene, options: argparse.Namespace, console: Console, stage: AsyncExitStack) -> Comparison:
    """Every client there is, once they are connected."""
    with step(console, f"Connecting {options.clients} dashboards"):
        await stage.enter_async_context(joined(scene.members, options.clients))
    soak = options.soak is not None
    tenants = (feed.EVERY_TENANT, *feed.TENANTS) if soak else (feed.EVERY_TENANT,)
    with step(console, "Connecting clients of the library, one of which will not be cut"):
        clients = comparison(scene.stack.websocket_url, scene.issuer, scene.chance, tenants, soak=soak)
        return await stage.enter_async_context(clients)


async def _watched(scene: _Scene, options: argparse.Namespace, console: Console, stage: AsyncExitStack) -> None:
    """The story, until it is stopped."""
    story = Story(scene.tables, scene.ledger, scene.members.audience, options.seed)
    with step(console, f"Writing {INCIDENTS} incidents of the last hours"):
        await story.past()
    url, panel = await _with_panel(scene, story, options, stage)
    console.print(
        f"[green]✓[/] The demo is at [bold]{url}{page.PANEL}[/], the dashboard alone at {url}", highlight=False
    )
    console.print(panel.join, style="dim", highlight=False, soft_wrap=True)
    playing = await stage.enter_async_context(story.going_on())
    panel.comparison = await _connected(scene, options, console, stage)
    view = View(scene.ledger, scene.aws.posts, scene.members.present, url + page.PANEL, panel.comparison)
    async with shown(view, console) as tell, panel.comparison.being_cut():
        story.tell = tell
        story.say(f"{len(scene.members.present)} dashboards are connected; changes follow until Ctrl-C")
        await playing


async def _with_panel(
    scene: _Scene, story: Story, options: argparse.Namespace, stage: AsyncExitStack
) -> tuple[str, Panel]:
    """The address of the pages, and the panel in one of them."""
    where, line = await stage.enter_async_context(line_to(scene.stack.websocket_url, scene.chance))
    sqs = await stage.enter_async_context(scene.aws.client("sqs"))
    parked = partial(jobs_in, sqs, scene.stack.retry_queue)
    tokens = Tokens(scene.issuer, page.CLIENT_ID)
    panel = Panel(story, scene.aws, scene.ledger, scene.members, parked, line, tokens, asyncio.get_running_loop())
    url = stage.enter_context(page.served(page.Site(where, tokens, panel), options.port))
    panel.join = (
        f'{Path(sys.executable).name} -m websockets "{door.address(scene.stack.websocket_url, "me", None)}'
        f'&access_token=$(curl -s {url}/token)"'
    )
    return url, panel


async def _prepare(options: argparse.Namespace, console: Console) -> Path:
    """Install and build, as far as that was not done before; the zip."""
    zip_file = Path(options.home, "relay.zip")
    async with installation.alone(options.home):
        if not installation.is_installed(options.home):
            with step(console, "Installing the local AWS into .demo (about 15 seconds, once)"):
                await installation.install(options.home)
        if not deployment.is_built(zip_file):
            with step(console, "Building the Lambda zip (about 10 seconds, whenever the code has changed)"):
                await deployment.build(zip_file)
    return zip_file


def _save_logs(path: Path, said: Mapping[str, Sequence[str]]) -> None:
    path.write_text("\n".join(line for function, lines in said.items() for line in (f"==== {function}", *lines)))


if __name__ == "__main__":
    main()
