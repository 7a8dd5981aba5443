"""Puts it all together: what is deployed, who connects, what is played on it.

A round or a soak is checked and ends, with a page that only shows; the story goes on until it is stopped, and its page
has buttons.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from . import deployment, door, feed, installation, local_aws, page
from .clients import Crowd, joined
from .comparison import Comparison, comparison
from .cuts import line_to
from .deployment import Stack
from .issuer import Issuer, issuing
from .ledger import Ledger
from .local_aws import LocalAws
from .panel import Panel, Tokens, jobs_in
from .show import Show
from .steps import step
from .story import INCIDENTS, Story
from .tables import Tables, tables
from .view import View, in_one_sentence, invocations_in_words, save_picture, shown

if TYPE_CHECKING:
    from rich.console import Console

_FANOUT = {"FanoutMode": "fanout", "ConnectionsIndex": "by-shard"}


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


async def play(options: argparse.Namespace, console: Console) -> list[str]:
    """All of it, from the installation on; complaints of what is checked."""
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
    artefacts = await _prepare(options, console)
    with step(console, "Starting the local AWS"):
        aws = await stage.enter_async_context(local_aws.running(options.home))
    issuer = stage.enter_context(issuing())
    parameters = deployment.door(issuer) | (_FANOUT if options.fanout else {})
    with step(console, "Deploying the template, its door closed"):
        stack = await deployment.deploy(aws, artefacts, parameters)
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
    found = f"The demo is at [bold]{url}{page.PANEL}[/], the dashboard alone at {url}"
    console.print(f"[green]✓[/] {found}", highlight=False, soft_wrap=True)
    console.print(f"  Join with a client of your own:\n  {panel.join}", highlight=False, soft_wrap=True)
    doctor = f"{_python().with_name('async-relay')} doctor --stack {deployment.STACK}"
    asked = f"  Be the operator, in another shell:\n  export {scene.aws.environment}\n  {doctor}"
    console.print(asked, highlight=False, soft_wrap=True)
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
    address = door.address(scene.stack.websocket_url, "me", None)
    panel.join = f'{_python()} -m websockets "{address}&access_token=$(curl -s {url}/token)"'
    return url, panel


def _python() -> Path:
    """What runs the demo, as one calls it from the checkout."""
    here = Path(sys.executable)
    return here.relative_to(deployment.ROOT) if here.is_relative_to(deployment.ROOT) else here


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
