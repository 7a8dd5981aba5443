"""What a connection asks for when it is open, and what it makes of the answers. No I/O.

Rules
- Position first, then data. With a position it resumes, page by page; without, it reads the history, whose answer has
  the position from before its data was read.
- The position moves when a replay is complete, and not with its pages: they continue exactly, so that what was being
  written when a page was read is found by an overlap alone, and that is what the next resume begins with.
- Live messages are held until then. Where an answer does not come they are let through, and do not move the position.
- What is answered may be older than the connection, or lack what an index found late. The server says so (``again``):
  then it resumes once more from there, at once or some seconds later, when it is live already. The position waits.
- A position is given up only where the server says that it cannot recover it, or no longer has a feed. After some
  minutes of errors, where a history can be had, that is better than nothing: it counts as a gap.
"""

from __future__ import annotations

from typing import Protocol

from .links import Link
from .options import History, Listener, Options, World
from .picture import Message, Picture, further

#: Incidents that one answer has at most.
_PAGE = 200
_ANSWER = 10.0
_LONGEST_PAUSE = 60.0
#: Every fifth try is for a server that may have lost its feed; the third of those is the last.
_TRIES, _LAST_TRY = 5, 14


class Client(Protocol):
    """What it needs of a session."""

    options: Options
    listener: Listener
    picture: Picture
    position: str | None
    current: Link | None
    answers: bool

    def send(self, link: Link, words: Message) -> None:
        """Send an object."""

    def take(self, message: Message) -> None:
        """Tell whoever listens of a message, if it is news."""

    def deliver(self, link: Link, message: Message) -> None:
        """Deliver a live message."""

    def lead(self, link: Link) -> None:
        """Let this connection lead."""

    def drop(self, link: Link) -> None:
        """End a connection."""

    def look(self) -> None:
        """Say what there is now."""


class CatchUp:
    """The part of a session that asks for what was missed."""

    def __init__(self, session: Client, world: World) -> None:
        self._session, self._world = session, world
        # Who starts with a position was, before.
        self._was_live = session.position is not None

    def __repr__(self) -> str:
        """A sentence for tests."""
        return "<has been live>" if self._was_live else "<has not been live>"

    def ask(self, link: Link) -> None:
        """Ask for what was missed, or for the history."""
        position = link.cursor if link.cursor is not None else self._session.position
        if link.fresh or link.tries % _TRIES == _TRIES - 1:
            position = None
        if position is not None:
            link.cursor = position
            link.asked = "resume"
            parked = {"parked": False} if link.here else {}
            self._session.send(link, {"action": "resume", "position": position, **parked})
        else:
            link.asked = "subscribe"
            limit = max(1, min(_PAGE, self._session.options.history - len(link.found)))
            cursor = {"cursor": link.page} if link.page else {}
            self._session.send(link, {"action": "subscribe", "limit": int(limit), **cursor})
        link.after("answer", _ANSWER, lambda: self.unanswered(link))

    def unanswered(self, link: Link) -> None:
        """Let nobody wait for an answer that does not come; but the position stays."""
        self.release(link)
        link.tries += 1
        link.forget_history()
        if self._session.answers or link.asked == "resume":
            pause = self._world.random() * min(_LONGEST_PAUSE, 2 ** min(link.tries, 10))
            link.after("answer", pause, lambda: self.ask(link))
        link.asked = None
        self._session.look()

    def answered(self, link: Link, answer: Message) -> bool:
        """Whether this was an answer to what was asked, or would have been."""
        match answer.get("kind"):
            case "replay":
                if link.asked == "resume":
                    self._replayed(link, answer)
            case "incident_history":
                if link.asked == "subscribe":
                    self._told(link, answer)
            case _:
                return False
        return True

    def release(self, link: Link) -> None:
        """Deliver what was held."""
        held, link.held = link.held or [], None
        for each in held:
            self._session.deliver(link, each)

    def _replayed(self, link: Link, answer: Message) -> None:
        link.tries = 0
        if not (answer.get("recovered") or link.here):
            link.fresh, link.gap = True, self._was_live
            self._session.position = None
            return self.ask(link)
        for each in answer.get("messages") or ():
            self._session.take(each)
        link.again = answer.get("again") if link.again is None else link.again
        position = answer.get("position", link.cursor)
        if not answer.get("more"):
            return self._caught_up(link, position)
        if position == link.cursor:
            return self._session.drop(link)
        link.cursor = position
        return self.ask(link)

    def _told(self, link: Link, answer: Message) -> None:
        session, position = self._session, answer.get("position")
        if not link.fresh and session.position is not None and position is not None and link.tries < _LAST_TRY:
            # The server has its feed still: it is worth asking for what was missed.
            link.tries += 1
            return self.ask(link)
        link.fresh = True
        link.start = position if link.start is None else link.start
        link.again = answer.get("again") if link.again is None else link.again
        incidents = answer.get("incidents") or []
        link.found += incidents
        link.page = answer.get("nextCursor")
        if link.page and incidents and len(link.found) < session.options.history:
            return self.ask(link)
        self._show(link, is_complete=answer.get("complete") is not False and not link.page)
        return self._caught_up(link, link.start)

    def _show(self, link: Link, *, is_complete: bool) -> None:
        session, beside = self._session, self._is_one_live()
        if len(link.found) > session.options.history:
            del link.found[int(session.options.history) :]
        if not beside or session.position is None:
            session.position = link.start
        gap = link.gap or (self._was_live and not beside)
        if gap:
            session.picture.begin_anew()
        session.picture.read(link.found)
        session.listener.history(History(tuple(link.found), gap, is_complete))

    def _is_one_live(self) -> bool:
        """Whether the connection that leads is live, so that nothing is missed meanwhile."""
        current = self._session.current
        if current is None or current.live_at is None:
            return False
        # It may have slept, with all of this machine.
        return self._world.now() - current.heard_at < self._session.options.ping_after + 2 * _ANSWER

    def _caught_up(self, link: Link, position: str | None) -> None:
        """Be live; but what came up to this position may be older than the connection."""
        again = link.again if position else None
        if again is None:
            link.cursor = None
            self._session.position = further(self._session.position, position)
        else:
            link.cursor = position
            link.here, link.fresh, link.again = True, False, None
        if again == 0:
            return self.ask(link)
        self._was_live = True
        link.asked = None
        link.live_at = self._world.now() if link.live_at is None else link.live_at
        link.stop("answer")
        if again:
            link.after("answer", again, lambda: self.ask(link))
        self.release(link)
        if link is not self._session.current and not link.over:
            self._session.lead(link)
        return self._session.look()
