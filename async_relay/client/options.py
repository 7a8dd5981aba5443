"""What a client is told, what it tells, and what it needs of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from .picture import Message


class State(StrEnum):
    """What a person would want to know."""

    CONNECTING = "connecting"
    CATCHING_UP = "catching up"
    LIVE = "live"
    OFFLINE = "offline"
    #: The end: there is no token, or the server did not let us in with new ones.
    REFUSED = "refused"
    #: The end, by ``close``.
    CLOSED = "closed"

    @property
    def is_final(self) -> bool:
        """Whether no other state follows."""
        return self in (State.REFUSED, State.CLOSED)


@dataclass(frozen=True, slots=True)
class Detail:
    """``retry_in``: seconds until the next try, with ``offline``; ``reason``: why, with ``refused``."""

    retry_in: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class History:
    """Incidents that were loaded, in their order.

    ``gap``: what happened while the client was away can no longer be had, and this takes the place of the picture.
    ``complete``: these are all the incidents the server has.
    """

    incidents: Sequence[Message]
    gap: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told: of each message once, of late older states, of states of the client, and of histories."""

    message: Callable[[Message], None]
    stale: Callable[[Message], None]
    state: Callable[[State, Detail], None]
    history: Callable[[History], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How the client is to behave; times in seconds. The JavaScript client's have the same meaning."""

    url: str
    #: Whether tokens are to be had; without, nothing counts as a refusal.
    has_token: bool = False
    #: Whether a new token can be had before the old one ends.
    renews: bool = False
    in_url: bool = False
    protocols: Sequence[str] = ("async-relay.v2", "async-relay.v1")
    history: float = 200
    position: str | None = None
    ping_after: float = 60
    rotate_after: float = 6_600
    refused_after: int = 10
    memory: int = 20_000


class Timer(Protocol):
    """A call to come."""

    def cancel(self) -> None:
        """Do not make it."""


class Socket(Protocol):
    """A WebSocket, which tells its ``SocketListener`` what happens to it. Nothing here waits."""

    def send(self, text: str) -> None:
        """Send a text, if the socket is open."""

    def close(self) -> None:
        """Begin to close it."""


class SocketListener(Protocol):
    """What is told of a socket."""

    def opened(self) -> None:
        """It is open."""

    def heard(self, text: str | bytes) -> None:
        """A frame came."""

    def closed(self, *, refused: bool) -> None:
        """It is over; ``refused``: without having been open, by a server that did not let us in."""


class World(Protocol):
    """Time, chance, tokens and sockets."""

    def now(self) -> float:
        """Seconds since 1970."""

    def random(self) -> float:
        """From 0 to 1."""

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call it then."""

    def fetch_token(self, got: Callable[[str | None], None], failed: Callable[[], None]) -> None:
        """Get a token, and call either: with None where the answer is no."""

    def open(self, url: str, protocols: Sequence[str], listener: SocketListener) -> Socket:
        """Begin to open a socket; raises ``ValueError`` where none takes this URL or these protocols."""
