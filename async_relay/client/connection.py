"""What a program holds in its hand: a connection that stays, and the messages that come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from .options import Detail, History, Listener, Options, State
from .picture import Message
from .session import Session
from .sockets import AsyncioWorld, Token

#: For goodbyes; what takes longer is cancelled.
_CLOSE_SECONDS = 2.0


class Refused(Exception):
    """There is no token, or the server did not let us in with new ones."""


class Connection:
    """A connection that stays until it is closed or refused. ``connect`` makes one.

    Iterate over it for the messages: each once, and of an incident only states that are newer than what is known.
    """

    def __init__(
        self,
        options: Options,
        token: Token | None,
        on_state: Callable[[State, Detail], None],
        on_history: Callable[[History], None],
        on_stale: Callable[[Message], None],
    ) -> None:
        self._world = AsyncioWorld(token)
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._reason = ""
        self._on_state = on_state
        loop = asyncio.get_running_loop()
        # Called by the loop, what the owner's functions raise is reported by it, and stops nothing here.
        listener = Listener(
            message=self._messages.put_nowait,
            stale=lambda message: _later(loop, on_stale, message),
            state=self._take_state,
            history=lambda history: _later(loop, on_history, history),
        )
        self._session = Session(options, listener, self._world)

    def __repr__(self) -> str:
        """A sentence for people."""
        return repr(self._session)

    @property
    def state(self) -> State:
        """What there is now."""
        return self._session.state

    @property
    def incidents(self) -> Mapping[Any, Message]:
        """The newest state of each incident, the one that changed last at the end."""
        return self._session.picture.incidents

    @property
    def position(self) -> str | None:
        """How far messages came without a gap, where the server has a feed; some may wait to be iterated over."""
        return self._session.position

    @property
    def waiting(self) -> int:
        """How many messages wait to be iterated over; where none does, ``position`` is behind all that was handled."""
        return self._messages.qsize() - self.state.is_final

    async def wait_until_live(self) -> None:
        """Return as soon as it is live; raises ``Refused`` or ``ConnectionError`` where it never will be."""
        while self.state is not State.LIVE:
            self._check()
            self._changed.clear()
            await self._changed.wait()

    def __aiter__(self) -> AsyncIterator[Message]:
        """Iterate over the messages."""
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Message]:
        while (message := await self._messages.get()) is not None:
            yield message
        # For whoever else iterates, or comes later.
        self._messages.put_nowait(None)
        if self.state is State.REFUSED:
            raise Refused(self._reason)

    def start(self) -> None:
        """Open the first connection."""
        self._session.start()

    async def close(self) -> None:
        """Close it for good."""
        self._session.close()
        if tasks := self._world.tasks - {asyncio.current_task()}:
            late = tasks
            try:
                _done, late = await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
            finally:
                # Whoever cancels this waits for no goodbyes.
                for task in late:
                    task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _check(self) -> None:
        if self.state is State.REFUSED:
            raise Refused(self._reason)
        if self.state is State.CLOSED:
            raise ConnectionError("it was closed")

    def _take_state(self, state: State, detail: Detail) -> None:
        self._reason = detail.reason or ""
        self._changed.set()
        if state.is_final:
            self._messages.put_nowait(None)
        _later(asyncio.get_running_loop(), self._on_state, state, detail)


def _later(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    loop.call_soon(call, *arguments)


def _ignore(*_: Any) -> None:
    """What is told to nobody."""


@asynccontextmanager
async def connect(
    url: str,
    *,
    token: Token | None = None,
    on_state: Callable[[State, Detail], None] = _ignore,
    on_history: Callable[[History], None] = _ignore,
    on_stale: Callable[[Message], None] = _ignore,
    **options: Any,
) -> AsyncIterator[Connection]:
    """Connect, and stay connected for as long as the block lasts.

    ``token``: a text, or a function that gets one, asynchronous or not: None is the end, and whatever it raises means
    that it is out of reach now. ``options`` are those of ``Options``: ``in_url``, ``history``, ``position``, …
    """
    settings = Options(url=url, has_token=token is not None, renews=callable(token), **options)
    connection = Connection(settings, token, on_state, on_history, on_stale)
    connection.start()
    try:
        yield connection
    finally:
        await connection.close()
