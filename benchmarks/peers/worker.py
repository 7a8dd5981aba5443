"""One peer in a process of its own: it opens what it needs, then broadcasts when told, and says what that cost.

The setup and then counts come over a pipe, figures go back.

Rules
- Imports, clients and the first handshakes are over before anything is measured: a warm-up comes first.
- CPU is the user and system time of this whole process, all its threads, from the event to the result.
- What a peer prints, such as the relay's metrics, goes nowhere; errors go over the pipe, or to standard error.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection as Pipe
from typing import Any, NamedTuple, Protocol

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105 - AWS's own example
#: As long as those of Lambda's functions: it is sent, and signed, with every post.
TOKEN = "IQoJb3JpZ2luX2VjE" + "x" * 883
REGION = "eu-west-1"
TABLE = "connections"

#: Where each peer lives that is a Python program.
PEERS = {
    "direct": ("relay", "Direct"),
    "sdk": ("relay", "Sdk"),
    "direct-posts": ("signed", "ProtocolPosts"),
    "aiofastnet": ("signed", "AiofastnetPosts"),
    "pyreqwest": ("signed", "PyreqwestPosts"),
    "aiohttp": ("signed", "AiohttpPosts"),
    "aioboto3-handler": ("aio", "NaiveHandler"),
    "aioboto3": ("aio", "NaivePosts"),
    "aiobotocore-tuned": ("aio", "TunedPosts"),
    "boto3": ("threads", "OneByOne"),
    "boto3-threads": ("threads", "Threads"),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """The input of a peer; ``body`` is the exact payload, ``event`` the stream event it comes from.

    ``quota``: posts a second that the relay may send, 0 for as fast as it goes.
    """

    endpoint: str
    ca_file: str
    concurrency: int
    body: bytes
    event: Mapping[str, Any]
    quota: int = 0


class Figures(NamedTuple):
    """One broadcast: how many posts were answered 200, seconds of CPU and of wall time, peak memory so far (MB)."""

    delivered: int
    cpu: float
    wall: float
    memory: float


class Peer(Protocol):
    """Opens its clients when it is made; a whole handler reads the ids from the table and leaves ``ids`` alone."""

    def broadcast(self, ids: Sequence[str]) -> int:
        """Post the body to all of them; the number of clients that took it."""


def connection_id(number: int) -> str:
    """An id as API Gateway makes them: fifteen characters of base64 and an equals sign."""
    return f"L{number:09d}oAMCI="


def main(name: str, pipe_number: int) -> None:
    """Obey the pipe until it is closed."""
    # Ctrl-C reaches the whole process group; the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    with Pipe(pipe_number) as pipe:
        try:
            _obey(name, pipe)
        except (EOFError, BrokenPipeError):
            os._exit(0)  # Without the hundred complaints about clients nobody closed.
        except Exception as error:  # noqa: BLE001 - the other side names it and leaves the peer out
            pipe.send(f"{type(error).__name__}: {error}")


def _obey(name: str, pipe: Pipe) -> None:
    module, kind = PEERS[name]
    setup: Setup = pipe.recv()
    peer: Peer = getattr(import_module(f"benchmarks.peers.{module}"), kind)(setup)
    pipe.send("ready")
    while True:
        pipe.send(measured(peer, pipe.recv()))


def measured(peer: Peer, count: int) -> Figures:
    """One broadcast to ``count`` clients and what it cost."""
    ids = [connection_id(number) for number in range(count)]
    cpu, wall = time.process_time(), time.perf_counter()
    delivered = peer.broadcast(ids)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Figures(delivered, cpu, wall, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
