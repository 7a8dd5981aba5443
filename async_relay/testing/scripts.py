"""What the gateway answers: small frozen values, and who gets which. Pure.

    Answer       a whole answer: any status, late, chunked, in pieces, with 1xx before, then closed
    SlowHeader   the status line, a pause, the rest          Drip      one byte at a time
    Half         half an answer, then the end of the socket  Garbage   bytes that are not HTTP
    Cut          the socket closed or reset, no answer       Hang      no answer, ever

Rules
- Wherever a script is asked for, an int stands for ``Answer(status)`` and None for what everybody
  gets (200, unless that was changed).
- A sequence is played one post at a time, for each client by itself; its last part repeats.
- A callable ``(connection_id, body, nth)`` is asked at every post; a client's first post is 1.
- ``Until`` asks the clock (``time.monotonic``).
- A message arrives at the client if its answer is a 2xx, unless ``arrives`` says otherwise: a lost
  answer does not mean a lost message.
- Every script comes down to a ``Plan``: what is written when, and how it ends. Anything with a
  ``plan()`` is a script.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from http import HTTPStatus
from json import dumps
from typing import NamedTuple, Protocol, TypeAlias

_ERRORS = {
    400: ("BadRequestException", "Invalid connectionId"),
    403: ("ForbiddenException", "Forbidden"),
    410: ("GoneException", "Gone"),
    413: ("PayloadTooLargeException", "Message too long"),
    429: ("LimitExceededException", "Too Many Requests"),
    500: ("InternalServerErrorException", "Internal server error"),
}
_BODILESS = frozenset({204, 304})
_CHUNK = 7


class Ending(Enum):
    """What becomes of the socket when all is written."""

    KEEP = auto()
    CLOSE = auto()
    CUT = auto()
    RESET = auto()
    HANG = auto()


class Write(NamedTuple):
    """``data`` written ``delay`` seconds after the one before."""

    delay: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A script, written out.

    ``status`` is what is counted: 0 where no whole answer is given. ``linger`` seconds pass between
    the last byte and the ending; ``at_once`` holds the answer where nothing has to be waited for.
    """

    writes: tuple[Write, ...]
    ending: Ending = Ending.KEEP
    status: int = 0
    arrives: bool = False
    linger: float = 0.0
    at_once: bytes = field(init=False, default=b"")

    def __post_init__(self) -> None:
        if self.ending is Ending.KEEP and len(self.writes) == 1 and self.writes[0].delay <= 0:
            object.__setattr__(self, "at_once", self.writes[0].data)


class Script(Protocol):
    """Anything that can say what it does."""

    def plan(self) -> Plan:
        """What is written when, and how it ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; without ``body``, the one API Gateway gives for the status.

    ``delay``          seconds before its first byte
    ``close``          announces ``Connection: close`` and does it
    ``hang_up``        seconds after which the idle socket is closed, without having said so
    ``informational``  1xx answers before it
    ``segments``       how many writes it is split into, ``pause`` seconds apart
    """

    status: int = 200
    delay: float = 0.0
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    hang_up: float | None = None
    chunked: bool = False
    informational: tuple[int, ...] = ()
    segments: int = 1
    pause: float = 0.002
    arrives: bool | None = None

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 599:
            raise ValueError(f"An answer's status is from 200 to 599, not {self.status}.")

    def plan(self) -> Plan:
        """The answer in ``segments`` pieces."""
        pieces = tuple(_split(self.encode(), self.segments))
        writes = (Write(self.delay, pieces[0]), *(Write(self.pause, piece) for piece in pieces[1:]))
        leaves = self.close or self.hang_up is not None
        return Plan(
            writes,
            Ending.CLOSE if leaves else Ending.KEEP,
            self.status,
            _arrives(self.arrives, self.status),
            self.hang_up or 0.0,
        )

    def encode(self) -> bytes:
        """The answer as it is on the wire, the 1xx before it included."""
        before = b"".join(_status_line(status) + b"\r\n" for status in self.informational)
        return before + _status_line(self.status) + self._head() + self._body()

    def _head(self) -> bytes:
        said = {name.lower() for name, _ in self.headers}
        usual = [header for header in self._usual_headers() if header[0].lower() not in said]
        lines = [f"{name}: {value}" for name, value in (*self.headers, *usual)]
        return "\r\n".join([*lines, "", ""]).encode()

    def _usual_headers(self) -> Iterator[tuple[str, str]]:
        yield "Content-Type", "application/json"
        yield "Connection", "close" if self.close else "keep-alive"
        if self.status in _ERRORS:
            yield "x-amzn-ErrorType", _ERRORS[self.status][0]
        if self.chunked:
            yield "Transfer-Encoding", "chunked"
        elif self.status not in _BODILESS:
            yield "Content-Length", str(len(self._content()))

    def _body(self) -> bytes:
        if self.status in _BODILESS:
            return b""
        content = self._content()
        if not self.chunked:
            return content
        pieces = (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    def _content(self) -> bytes:
        if self.body is not None:
            return self.body
        if self.status < 300:
            return b""
        message = _ERRORS[self.status][1] if self.status in _ERRORS else _phrase(self.status)
        return dumps({"message": message}).encode()


@dataclass(frozen=True, slots=True)
class SlowHeader:
    """The status line of ``answer``, then ``pause`` seconds, then the rest."""

    pause: float
    answer: Answer = Answer()

    def plan(self) -> Plan:
        """Two writes."""
        line, _, rest = self.answer.encode().partition(b"\r\n")
        return replace(self.answer.plan(), writes=(Write(self.answer.delay, line + b"\r\n"), Write(self.pause, rest)))


@dataclass(frozen=True, slots=True)
class Drip:
    """``answer`` one byte at a time, ``pause`` seconds apart."""

    pause: float
    answer: Answer = Answer()

    def plan(self) -> Plan:
        """As many writes as bytes."""
        return replace(self.answer, segments=len(self.answer.encode()), pause=self.pause).plan()


@dataclass(frozen=True, slots=True)
class Half:
    """Half the bytes of ``answer``, then after ``pause`` seconds a reset (or a cut)."""

    answer: Answer = Answer()
    reset: bool = True
    pause: float = 0.02
    arrives: bool = False

    def plan(self) -> Plan:
        """The pause lets the half out before the end overtakes it."""
        whole = self.answer.encode()
        ending = Ending.RESET if self.reset else Ending.CUT
        return Plan(
            (Write(self.answer.delay, whole[: len(whole) // 2]), Write(self.pause, b"")), ending, arrives=self.arrives
        )


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that are not HTTP; the socket stays open."""

    data: bytes = b"\x00\xffThis is not HTTP\r\n\r\n"
    delay: float = 0.0
    arrives: bool = False

    def plan(self) -> Plan:
        """One write."""
        return Plan((Write(self.delay, self.data),), arrives=self.arrives)


@dataclass(frozen=True, slots=True)
class Cut:
    """The socket closed without an answer, or with ``reset`` torn down by an RST."""

    reset: bool = False
    delay: float = 0.0
    arrives: bool = False

    def plan(self) -> Plan:
        """Nothing written."""
        return Plan((Write(self.delay, b""),), Ending.RESET if self.reset else Ending.CUT, arrives=self.arrives)


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer, and the socket stays open until the other side gives up."""

    arrives: bool = False

    def plan(self) -> Plan:
        """Nothing written, and no end."""
        return Plan((), Ending.HANG, arrives=self.arrives)


@dataclass(frozen=True, slots=True)
class Until:
    """``script`` before ``moment`` (``time.monotonic()``), ``then`` from there on."""

    moment: float
    script: Choice
    then: Choice = None


Choice: TypeAlias = "int | Script | Until | Sequence[Choice] | Callable[[str, bytes, int], Choice] | None"


def huge_header(size: int = 1_000_000, status: int = 200) -> Answer:
    """An answer with one header of ``size`` bytes."""
    return Answer(status, headers=(("X-Padding", "x" * size),))


class Casting:
    """Who gets which script, and how far each client is in its own."""

    def __init__(self, everybody: Choice = None) -> None:
        self._plans = {200: Answer().plan()}
        self._own: dict[str, Choice] = {}
        self._turns: Counter[str] = Counter()
        self._everybody: Choice = None
        self._same_for_all: Plan | None = None
        self.play(everybody)

    def play(self, choice: Choice, *connection_ids: str) -> None:
        """Give ``choice`` to these clients, from its beginning, or to everybody without one of their own."""
        if not connection_ids:
            self._everybody = choice
            self._turns = Counter({name: turn for name, turn in self._turns.items() if name in self._own})
        for connection_id in connection_ids:
            self._own[connection_id] = choice
            self._turns.pop(connection_id, None)
        simple = not isinstance(self._everybody, Until | Sequence) and not callable(self._everybody)
        self._same_for_all = self._plan(self._everybody, "", b"", 1) if simple and not self._own else None

    def next(self, connection_id: str, body: bytes) -> Plan:
        """The plan for this client's next post."""
        if self._same_for_all is not None:
            return self._same_for_all
        self._turns[connection_id] += 1
        return self._plan(self._own.get(connection_id), connection_id, body, self._turns[connection_id])

    def peek(self, connection_id: str) -> Plan:
        """The plan a post would get now, without taking its turn."""
        return self._plan(self._own.get(connection_id), connection_id, b"", self._turns[connection_id] + 1)

    def _plan(self, choice: Choice, connection_id: str, body: bytes, nth: int) -> Plan:
        script = _resolve(choice, connection_id, body, nth)
        if script is None:
            script = _resolve(self._everybody, connection_id, body, nth)
        if script is None:
            script = 200
        if not isinstance(script, int):
            return script.plan()
        plan = self._plans.get(script)
        if plan is None:
            plan = self._plans[script] = Answer(script).plan()
        return plan


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The account's limit: ``rate`` posts a second, and a bucket of ``burst`` that is full at first."""

    rate: float
    burst: float


class Bucket:
    """A token bucket, running."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._tokens = limit.burst
        self._filled_at: float | None = None

    def take(self, now: float) -> bool:
        """True if a post may pass at ``now`` (seconds)."""
        elapsed = 0.0 if self._filled_at is None else now - self._filled_at
        self._filled_at = now
        self._tokens = min(self._limit.burst, self._tokens + elapsed * self._limit.rate)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _resolve(choice: Choice, connection_id: str, body: bytes, nth: int) -> int | Script | None:
    """The one script that ``choice`` comes down to."""
    while not (choice is None or isinstance(choice, int)):
        if isinstance(choice, Until):
            choice = choice.script if time.monotonic() < choice.moment else choice.then
        elif isinstance(choice, Sequence):
            choice = choice[min(nth, len(choice)) - 1]
        elif callable(choice):
            choice = choice(connection_id, body, nth)
        else:
            return choice
    return choice


def _split(data: bytes, parts: int) -> Iterator[bytes]:
    """``data`` in ``parts`` pieces, as even as can be."""
    step = max(1, -(-len(data) // max(1, parts)))
    return (data[start : start + step] for start in range(0, len(data), step))


def _arrives(said: bool | None, status: int) -> bool:  # noqa: FBT001 - a field passed on
    return status < 300 if said is None else said


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_phrase(status)}\r\n".encode()


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Unknown"
