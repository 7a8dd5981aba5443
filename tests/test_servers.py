"""The servers that play DynamoDB and SQS: none is left out in silence, none outlives the tests."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from servers import installed, pinned, program


def test_where_there_is_npm_no_server_is_left_out() -> None:
    """The servers of ``tests/node`` are installed, in the versions named there."""
    if program("npm") is None:
        pytest.skip("dynalite and fauxqs need npm, which neither the dev extra nor this machine has")
    assert program("node") is not None
    assert {name: installed(name) for name in pinned()} == pinned()


def test_the_lock_names_no_registry() -> None:
    """Whoever installs fetches from where their own npm does."""
    lock = (Path(__file__).parent / "node" / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert "://" not in lock


STARTS = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's job in the background inherits as ignored
sys.path[:0] = sys.argv[1:]
from servers import ministack, node_server
with {server} as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "killed"])
@pytest.mark.parametrize("server", ["node_server('dynalite')", "node_server('fauxqs')", "ministack()"])
def test_a_server_ends_with_who_started_it(server: str, number: signal.Signals) -> None:
    """Interrupted or killed, the tests leave nothing that still answers."""
    if program("node") is None and server != "ministack()":
        pytest.skip(f"{server} needs Node.js, which neither the dev extra nor this machine has")
    tests = Path(__file__).parent
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-c", STARTS.format(server=server), str(tests), str(tests.parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        port = int(starter.stdout.readline().rpartition(":")[2])
        assert answers(port)
        starter.send_signal(number)
        deadline = time.monotonic() + 20
        while answers(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not answers(port)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
