"""The core of a client: which connection leads, when the next one is opened, what a person is told. No I/O.

Rules
- One connection leads. The next one is opened beside it, and takes over when it has caught up; the old one is heard
  until it is closed.
- Pauses grow from half a second to twenty, each a random part of that, and begin anew after five seconds of being live.
- Silence is answered by a ping, and silence after that by a new connection: but for a server that never answers.
- A token is renewed in place before it ends, and by a new connection where that fails.
- No token, or connections refused several times in a row with new ones, is the end.

The JavaScript client (client/async-relay.js) is the same, and client/conformance.json holds both to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from .catching_up import CatchUp
from .links import Link
from .options import Detail, Listener, Options, State, World
from .picture import Message, News, Picture, further
from .tokens import expiry

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
#: So long a connection must have been live for the next pause to be short.
_STEADY = 5.0
#: For a token and a handshake; an authorizer that has to start takes seconds.
_DIAL = 20.0
_ANSWER = 10.0
#: A renewal is tried when a fifth of the time is left, but not earlier than this.
_RENEW_AT_MOST_BEFORE = 300.0
_RENEW_PAUSE = 10.0
_ANSWERS = ("replay", "incident_history", "refreshed")


class Session:
    """A client from the first connection to the last. Nothing in it waits."""

    def __init__(self, options: Options, listener: Listener, world: World) -> None:
        self.options = options
        self.state = State.OFFLINE
        self.position = options.position
        self.picture = Picture(options.memory)
        self.listener = listener
        self.current: Link | None = None
        #: Whether the server has ever answered anything.
        self.answers = False
        self._next: Link | None = None
        self._idle = Link(world)
        self._world = world
        self._pauses = self._refusals = 0
        self._catching_up = CatchUp(self, world)

    def __repr__(self) -> str:
        """A sentence for tests."""
        return f"<{self.state}, {self.picture!r}>"

    def start(self) -> None:
        """Open the first connection."""
        self._dial()

    def close(self) -> None:
        """Close it for good."""
        self._end(State.CLOSED)

    # ── connections ──

    def _dial(self) -> None:
        if self._next or self.state.is_final:
            return
        link = self._next = Link(self._world)
        self._idle.stop_all()
        self.look()
        link.after("dial", _DIAL, lambda: self.drop(link))
        if self.options.has_token:
            self._world.fetch_token(lambda token: self._open(link, token), lambda: self.drop(link))
        else:
            self._open(link, None)

    def _open(self, link: Link, token: str | None) -> None:
        if link.over:
            return
        if self.options.has_token and not token:
            self._end(State.REFUSED, "there is no token")
            return
        url, protocols = self._address(token)
        try:
            link.socket = self._world.open(url, protocols, _Ear(self, link))
            link.expires_at = expiry(token)
        except ValueError:
            # Its text may have the token in it.
            self._end(State.REFUSED, "no WebSocket takes this URL or token")

    def _address(self, token: str | None) -> tuple[str, list[str]]:
        protocols = list(self.options.protocols)
        if not self.options.in_url:
            return self.options.url, [*protocols, *([f"bearer.{token}"] if token else [])]
        url = urlsplit(self.options.url)
        more = [("protocol", each) for each in protocols[:1]] + ([("access_token", token)] if token else [])
        return urlunsplit(url._replace(query=urlencode(parse_qsl(url.query, keep_blank_values=True) + more))), []

    def opened(self, link: Link) -> None:
        """A connection is open."""
        if link.over:
            return
        link.opened = True
        self._refusals = 0
        link.stop("dial")
        self._await_silence(link)
        link.after("rotate", self.options.rotate_after * (1 - self._world.random() / 20), self._dial)
        self._plan_renewal(link)
        if not self.current:
            self.lead(link)
        self._catching_up.ask(link)
        self.look()

    def lead(self, link: Link) -> None:
        """Let this connection lead."""
        old, self.current, self._next = self.current, link, None
        if old:
            old.retire()
            self._catching_up.release(old)

    def drop(self, link: Link, *, refused: bool = False) -> None:
        """A connection is over, or taken to be."""
        if link.over:
            return
        link.end()
        if self.position is None:
            # With a position they come again, in their order.
            self._catching_up.release(link)
        if self.state.is_final or link.retired:
            return
        if refused and not link.opened and self.options.has_token:
            self._refusals += 1
        if link.live_at is not None and self._world.now() - link.live_at >= _STEADY:
            self._pauses = 0
        self._follow(link)

    def _follow(self, link: Link) -> None:
        """Decide what comes after a connection that is over."""
        if link is self.current:
            self.current = None
            if self._next and self._next.opened:
                self.lead(self._next)
        else:
            self._next = None
        if self.current and not self._next:
            self.current.after("rotate", self._pause(), self._dial)
        if self.current or self._next:
            self.look()
        elif self._refusals >= self.options.refused_after:
            self._end(State.REFUSED, f"refused {self._refusals} times before it was open")
        else:
            pause = self._pause()
            self._idle.after("retry", pause, self._dial)
            self._say(State.OFFLINE, Detail(retry_in=pause))

    def _pause(self) -> float:
        # The exponent is bounded, or a week offline overflows.
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._pauses, 10))
        self._pauses += 1
        return self._world.random() * longest

    def _end(self, state: State, reason: str | None = None) -> None:
        if self.state.is_final:
            return
        self.state = state
        for link in (self.current, self._next, self._idle):
            if link:
                link.end()
        self.listener.state(state, Detail(reason=reason))

    # ── what a person is told ──

    def look(self) -> None:
        """Say what there is now."""
        if self.state.is_final:
            return
        if not self.current:
            self._say(State.CONNECTING)
        elif self.current.live_at is not None or (self.current.held is None and self.position is None):
            self._say(State.LIVE)
        else:
            self._say(State.CATCHING_UP)

    def _say(self, state: State, detail: Detail | None = None) -> None:
        if self.state is state and state is not State.OFFLINE:
            return
        self.state = state
        self.listener.state(state, detail or Detail())

    # ── signs of life ──

    def _await_silence(self, link: Link) -> None:
        link.after("quiet", self.options.ping_after, lambda: self._ping(link))

    def _ping(self, link: Link) -> None:
        self.send(link, {"action": "ping", "timestamp": round(self._world.now() * 1_000)})
        # A server that has never answered anything need not answer this.
        link.after("quiet", _ANSWER, lambda: self.drop(link) if self.answers else self._await_silence(link))

    def send(self, link: Link, words: Message) -> None:
        """Send an object."""
        if link.socket:
            link.socket.send(json.dumps(words, separators=(",", ":"), ensure_ascii=False))

    # ── tokens ──

    def _plan_renewal(self, link: Link, share: float = 0.8) -> None:
        if not self.options.renews or link.expires_at is None:
            return
        left = link.expires_at - self._world.now()
        wait = max(left * share, left - _RENEW_AT_MOST_BEFORE, _RENEW_PAUSE)
        failed: Callable[[], None] = lambda: self._plan_renewal(link, 0.5)  # noqa: E731 - one of a pair of callbacks
        link.after("renew", wait, lambda: self._world.fetch_token(lambda token: self._renew(link, token), failed))

    def _renew(self, link: Link, token: str | None) -> None:
        if link.over or link.retired:
            return
        if not token:
            self._end(State.REFUSED, "there is no token any more")
            return
        link.renewing = True
        link.expires_at = expiry(token) or link.expires_at
        self.send(link, {"action": "refresh", "access_token": token})
        link.after("renew", _ANSWER, lambda: self._renewed(link, None))

    def _renewed(self, link: Link, answer: Message | None) -> None:
        """In place; or, without an answer that says so, by a new connection."""
        link.renewing = False
        link.expires_at = (answer or {}).get("expiresAt") or link.expires_at
        self._plan_renewal(link)
        if answer is None:
            self._dial()

    # ── messages ──

    def heard(self, link: Link, text: str | bytes) -> None:
        """A frame came: an object, or a list of them; anything else is nothing."""
        if link.over:
            return
        link.heard_at = self._world.now()
        self._await_silence(link)
        try:
            frame = json.loads(text)
        except ValueError:
            return
        for each in frame if isinstance(frame, list) else [frame]:
            if isinstance(each, dict) and not self.state.is_final:
                self._receive(link, each)

    def _receive(self, link: Link, message: dict[str, Any]) -> None:
        failed = _is_error(message)
        if failed or message.get("type") == "pong" or message.get("kind") in _ANSWERS:
            self.answers = True
        if failed:
            self._fail(link)
        elif message.get("kind") == "refreshed":
            self._renewed(link, message)
        elif self._catching_up.answered(link, message):
            pass
        elif message.get("type") in ("ping", "pong"):
            self._move(link, message)
        elif link.held is not None:
            link.held.append(message)
        else:
            self.deliver(link, message)

    def _fail(self, link: Link) -> None:
        """An error is the answer to what was asked last."""
        if link.asked:
            self._catching_up.unanswered(link)
        elif link.renewing:
            self._renewed(link, None)

    def deliver(self, link: Link, message: Message) -> None:
        """Deliver a live message, and move the position over it."""
        self.take(message)
        self._move(link, message)

    def _move(self, link: Link, message: Message) -> None:
        if link.live_at is not None and link.cursor is None:
            self.position = further(self.position, message.get("position"))

    def take(self, message: Message) -> None:
        """Tell whoever listens of a message, if it is news."""
        if self.state.is_final:
            return
        news = self.picture.take(message)
        if news is News.NEWS:
            self.listener.message(message)
        elif news is News.STALE:
            self.listener.stale(message)


def _is_error(message: Message) -> bool:
    """Ours have their kind, and API Gateway's own have none."""
    kind = message.get("kind")
    return kind == "error" or (not kind and "requestId" in message and "connectionId" in message)


class _Ear:
    """Hears what happens to one socket."""

    def __init__(self, session: Session, link: Link) -> None:
        self._session, self._link = session, link

    def opened(self) -> None:
        self._session.opened(self._link)

    def heard(self, text: str | bytes) -> None:
        self._session.heard(self._link, text)

    def closed(self, *, refused: bool) -> None:
        self._session.drop(self._link, refused=refused)
