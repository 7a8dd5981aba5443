"""The command: ``python -m demo [--once | --soak 120]``; ``make demo`` installs what it needs and calls it."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from . import deployment
from .errors import DemoError
from .playing import play

_STOPPED = 130  # as a shell says it of what Ctrl-C ended


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
            console.print("Stopping ...")
            playing.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await play(options, console)


if __name__ == "__main__":
    main()
