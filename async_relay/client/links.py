"""One connection: its timers, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from .options import Socket, Timer, World
from .picture import Message


@dataclass(eq=False, slots=True)
class Link:
    """A connection; ``held``: what waits for history or a replay; None once nothing has to wait any more."""

    world: World
    socket: Socket | None = None
    opened: bool = False
    #: It is over, or taken to be.
    over: bool = False
    #: Another one leads; what is still on its way is delivered.
    retired: bool = False
    heard_at: float = 0.0
    #: Since when it has been live.
    live_at: float | None = None
    held: list[Message] | None = field(default_factory=list)
    asked: Literal["resume", "subscribe"] | None = None
    #: Where a replay is to go on.
    cursor: str | None = None
    #: Nothing can be resumed: a history is needed.
    fresh: bool = False
    #: It asks for what it missed itself, and no connection before it.
    here: bool = False
    #: Seconds after which the server wants it to ask again.
    again: float | None = None
    #: What was missed cannot be had any more.
    gap: bool = False
    #: How often it was asked in vain.
    tries: int = 0
    #: The history so far, the position it begins with, and its next page.
    found: list[Message] = field(default_factory=list)
    start: str | None = None
    page: object = None
    expires_at: float | None = None
    renewing: bool = False
    _timers: dict[str, Timer] = field(default_factory=dict)

    def after(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Call it then, in place of what was to be called under that name."""
        self.stop(name)
        if not (self.over or self.retired):
            self._timers[name] = self.world.call_later(seconds, call)

    def stop(self, name: str) -> None:
        """Call nothing under that name."""
        if timer := self._timers.pop(name, None):
            timer.cancel()

    def stop_all(self) -> None:
        """Call nothing any more."""
        for name in list(self._timers):
            self.stop(name)

    def end(self) -> None:
        """Have nothing more to do with it."""
        self.over = True
        self.stop_all()
        if self.socket:
            self.socket.close()

    def retire(self) -> None:
        """Leave the lead to another one; it is closed, and until then it is heard."""
        self.retired, self.renewing, self.asked = True, False, None
        self.stop_all()
        if self.socket:
            self.socket.close()

    def forget_history(self) -> None:
        """Begin the history anew."""
        self.found, self.start, self.page = [], None, None
