"""A scripted API Gateway: a real server, over HTTP or HTTPS, for ``POST /{stage}/@connections/{id}``.

    async with Gateway(tls=True, credentials=credentials) as gateway:
        gateway.play([429, 429, 200], "first=")      # this client's buffer is full, twice
        gateway.play(Cut(reset=True), "second=")     # every post to this one is cut
        ...                                          # post to gateway.endpoint, trusting gateway.ca_file
        assert gateway.received["first="] == [b"one"]

Rules
- A post passes, in this order: its signature, the size API Gateway takes, the account's rate, the client's script.
- ``tears`` may reset a socket in the middle of a post's body, when so many of its bytes have come. Nothing arrives.
- It is in flight from its last byte to the last byte of the answer, or to the end of its socket: what a client gave
  up counts until the gateway hears of it.
- What arrives is recorded when the post came, in the order of coming, whenever the answer goes out.
- ``DELETE`` disconnects a client: 204, and 410 from then on; ``closings`` may have it answered by another status,
  after which the client is still there. It counts against the account's rate, as a post does. ``GET`` says 200 or
  410. Neither takes a turn of a script.
- ``GET /_counters`` gives the counters as JSON, to anyone.
- No task outlives ``async with``, and no socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import struct
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import cast
from urllib.parse import unquote

import httptools

from ..http.sigv4 import Credentials
from ..wire.messages import MAX_POST_BYTES
from .scripts import Answer, Bucket, Casting, Choice, Ending, Plan, RateLimit
from .trust import Certificates, Request, SignatureCheck, Tls

Latency = float | Callable[[str, Random], float]

_BACKLOG = 4096
_RESET = struct.pack("ii", 1, 0)
_HANDSHAKE_FAILURE = b"\x15\x03\x03\x00\x02\x02\x28"
_SHUTDOWN = 1.0
_CLOSED = 204
# Under the names of the service model, which the SDKs read.
_CONNECTED = json.dumps(
    {
        "connectedAt": "2026-01-01T00:00:00.000Z",
        "identity": {"sourceIp": "127.0.0.1", "userAgent": "async-relay"},
        "lastActiveAt": "2026-01-01T00:00:01.000Z",
    }
).encode()
_MALFORMED = re.compile(rb"%(?![0-9A-Fa-f]{2})").search


@dataclass(frozen=True, slots=True)
class Counters:
    """What happened so far.

    ``statuses[0]`` counts posts that got no whole answer, ``misdirected`` requests to no connection at all.
    """

    posts: int = 0
    arrived: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    bad_signatures: int = 0
    misdirected: int = 0
    sockets_opened: int = 0
    sockets_open: int = 0
    failed_handshakes: int = 0
    cpu_seconds: float = 0.0
    statuses: Mapping[int, int] = field(default_factory=dict)


class Gateway:
    """The scripted gateway; serves from ``async with`` on."""

    def __init__(
        self,
        script: Choice = None,
        *,
        tls: bool | Tls = False,
        credentials: Credentials | None = None,
        region: str = "us-east-1",
        verify_every: int = 1,
        stage: str = "prod",
        rate_limit: RateLimit | None = None,
        latency: Latency = 0.0,
        seed: int = 0,
        keep: bool = True,
        max_body: int = MAX_POST_BYTES,
    ) -> None:
        """Take ``script`` for everybody.

        Without ``credentials`` no signature is checked, with them every ``verify_every``-th (0: none).
        ``latency`` comes on top of every script: seconds, or a callable ``(connection_id, random)`` with
        a ``Random`` of ``seed``. ``keep`` False counts what arrives and does not hold it.
        """
        self.received: dict[str, list[bytes]] = defaultdict(list)
        self.arrivals: Counter[str] = Counter()
        self.posts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.closes: Counter[str] = Counter()
        self.closings: Callable[[str], int] = lambda _id: _CLOSED
        self.tears: Callable[[str], int | None] | None = None
        self.bad_signatures = 0
        self.misdirected = 0
        self.in_flight = 0
        self.most_in_flight = 0
        self.sockets_opened = 0
        self.failed_handshakes = 0
        self.latency = latency
        self.endpoint = ""
        self.ca_file = ""
        self._casting = Casting(script)
        self._check = SignatureCheck(credentials, region, verify_every) if credentials else None
        self._region = region
        self._verify_every = verify_every
        self._bucket = Bucket(rate_limit) if rate_limit else None
        self._random = Random(seed)
        self._keep = keep
        self._max_body = max_body
        self._stage = stage
        self._prefix = f"/{stage}/@connections/".encode()
        self._quoted_prefix = f"/{stage}/%40connections/".encode()
        self._tls = Tls() if tls is True else tls if isinstance(tls, Tls) else None
        self._certificates: Certificates | None = None
        self._port = 0
        self._context: ssl.SSLContext | None = None
        self._listening: socket.socket | None = None
        self._admissions: set[asyncio.Task[None]] = set()
        self._sockets: set[_Socket | _Door] = set()
        self._closing = False
        self._left = asyncio.Event()

    def __repr__(self) -> str:
        """A sentence for tests and logs."""
        now = self.counters()
        return (
            f"<{self.endpoint or 'a gateway not started'}: {now.posts} posts, {now.arrived} arrived, "
            f"{now.in_flight} in flight, {now.sockets_open} sockets open>"
        )

    async def __aenter__(self) -> Gateway:
        if self._tls is not None:
            self._certificates = Certificates()
            self.ca_file = _written(self._certificates.pem)
        await self.accept()
        scheme = "https" if self._tls else "http"
        self.endpoint = f"{scheme}://localhost:{self._port}/{self._stage}"
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.refuse()
        for task in self._admissions:
            task.cancel()
        await asyncio.gather(*self._admissions, return_exceptions=True)
        self._closing = True
        for each in tuple(self._sockets):
            each.transport.abort()
        if self._sockets:
            await self._left.wait()
        if self.ca_file:
            _remove(self.ca_file)

    def play(self, choice: Choice, *connection_ids: str) -> None:
        """Give ``choice`` to these clients, or, without any, to everybody who has none of their own."""
        self._casting.play(choice, *connection_ids)

    def rotate(self, credentials: Credentials) -> None:
        """Trust these credentials from now on, and no others."""
        if self._check is None:
            raise ValueError("A gateway that was given no credentials checks no signature.")
        self._check = SignatureCheck(credentials, self._region, self._verify_every)

    def limit(self, rate_limit: RateLimit | None) -> None:
        """Start the account's limit, with a full bucket, or lift it."""
        self._bucket = Bucket(rate_limit) if rate_limit else None

    def counters(self) -> Counters:
        """All the numbers, as they are now."""
        return Counters(
            posts=self.posts.total(),
            arrived=self.arrivals.total(),
            in_flight=self.in_flight,
            most_in_flight=self.most_in_flight,
            bad_signatures=self.bad_signatures,
            misdirected=self.misdirected,
            sockets_opened=self.sockets_opened,
            sockets_open=len(self._sockets) + len(self._admissions),
            failed_handshakes=self.failed_handshakes,
            cpu_seconds=time.process_time(),
            statuses=dict(self.statuses),
        )

    def clear(self) -> None:
        """Forget what was counted and recorded; scripts, and posts in flight, go on."""
        for each in (self.received, self.arrivals, self.posts, self.statuses, self.closes):
            each.clear()
        self.bad_signatures = self.misdirected = self.sockets_opened = self.failed_handshakes = 0
        self.most_in_flight = self.in_flight

    async def close_idle(self) -> int:
        """Close every socket that carries no post, as a server tired of it does; how many those were."""
        return await self._end_idle(_Socket.close)

    async def reset_idle(self) -> int:
        """The same with an RST."""
        return await self._end_idle(_Socket.reset)

    async def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            await asyncio.sleep(0)

    async def accept(self, tls: Tls | None = None) -> None:
        """Accept connections on the same port again; with ``tls``, show new ones that from now on."""
        await self.refuse()
        if tls is not None and self._certificates is None:
            raise ValueError("A gateway started without TLS cannot offer it.")
        self._tls = tls or self._tls
        if self._tls is not None and self._certificates is not None:
            self._context = self._certificates.context(self._tls)
        self._listening = _listening_socket(self._port)
        self._port = self._listening.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listening, self._welcome, self._listening)

    def opened(self, new: _Socket | _Door) -> None:
        """A connection can be talked on; called by it."""
        self._sockets.add(new)

    def closed(self, old: _Socket | _Door) -> None:
        """The connection has gone; called by it."""
        self._sockets.discard(old)
        if self._closing and not self._sockets:
            self._left.set()

    def begun(self) -> None:
        """A post is whole; called by its socket."""
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def finished(self, status: int) -> None:
        """A post has its answer, or (0) will never have one; called by its socket."""
        self.in_flight -= 1
        self.statuses[status] += 1

    def lag(self, connection_id: str) -> float:
        """The latency of one answer."""
        return self.latency if isinstance(self.latency, int | float) else self.latency(connection_id, self._random)

    def torn(self, target: bytes, size: int) -> bool:
        """Whether a post ends here, with ``size`` bytes of its body; called by its socket."""
        name = _connection_id(target[len(self._prefix) :])
        bound = self.tears(name) if self.tears is not None else None
        if bound is None or size < bound:
            return False
        self.posts[name] += 1
        self.statuses[0] += 1
        return True

    def judge(self, request: Request) -> tuple[str, Plan]:
        """Who the request is for, and what becomes of it."""
        target = request.target
        if target.startswith(self._prefix):
            quoted = target[len(self._prefix) :]
        elif target.startswith(self._quoted_prefix):
            quoted = target[len(self._quoted_prefix) :]
        else:
            return "", self._elsewhere(request)
        try:
            name = _connection_id(quoted)
        except ValueError:
            self.misdirected += 1
            return "", Answer(400).plan()
        if request.method == b"POST":
            self.posts[name] += 1
        refusal = self._check.refusal(request) if self._check is not None else None
        if refusal is not None:
            self.bad_signatures += 1
            return name, refusal.plan()
        return name, self._perform(request, name)

    def _perform(self, request: Request, name: str) -> Plan:
        if request.method != b"POST":
            return self._manage(request.method, name)
        if len(request.body) > self._max_body:
            return Answer(413).plan()
        if self._bucket is not None and not self._bucket.take(time.monotonic()):
            return Answer(429).plan()
        plan = self._casting.next(name, request.body)
        if plan.arrives:
            self.arrivals[name] += 1
            if self._keep:
                self.received[name].append(request.body)
        return plan

    def _manage(self, method: bytes, name: str) -> Plan:
        """GET and DELETE @connections/{id}."""
        if method not in (b"GET", b"DELETE"):
            return Answer(403).plan()
        if method == b"DELETE":
            self.closes[name] += 1
            if self._bucket is not None and not self._bucket.take(time.monotonic()):
                return Answer(429).plan()
        if self._casting.peek(name).status == 410:
            return Answer(410).plan()
        return self._close(name) if method == b"DELETE" else Answer(body=_CONNECTED).plan()

    def _close(self, name: str) -> Plan:
        status = self.closings(name)
        if status == _CLOSED:
            self.play(410, name)
        return Answer(status).plan()

    def _elsewhere(self, request: Request) -> Plan:
        if request.method == b"GET" and request.target == b"/_counters":
            return Answer(body=json.dumps(asdict(self.counters())).encode()).plan()
        self.misdirected += 1
        return Answer(403).plan()

    async def _end_idle(self, end: Callable[[_Socket], None]) -> int:
        idle = [each for each in self._sockets if isinstance(each, _Socket) and each.idle]
        for each in idle:
            end(each)
        await asyncio.sleep(0)
        return len(idle)

    def _welcome(self, listening: socket.socket) -> None:
        """Take every connection that waits."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                connection, _ = listening.accept()
                self.sockets_opened += 1
                task = loop.create_task(self._admit(connection))
                self._admissions.add(task)
                task.add_done_callback(self._admissions.discard)

    async def _admit(self, connection: socket.socket) -> None:
        """Bring one connection through its handshake, or to where its handshake is to end."""
        # asyncio.Server keeps connections in their handshake to itself: they would outlive the gateway.
        connection.settimeout(0)
        loop = asyncio.get_running_loop()
        try:
            if self._tls is not None and self._tls.handshake != "done":
                refused = self._tls.handshake == "refused"
                await loop.connect_accepted_socket(lambda: _Door(self, refused=refused), connection)
            elif self._context is not None:
                await loop.connect_accepted_socket(
                    self._new_socket, connection, ssl=self._context, ssl_shutdown_timeout=_SHUTDOWN
                )
            else:
                await loop.connect_accepted_socket(self._new_socket, connection)
        except OSError:
            self.failed_handshakes += 1

    def _new_socket(self) -> _Socket:
        """Reading headers takes time, and is done where a signature needs them."""
        return _Socket(self) if self._check is None else _SocketWithHeaders(self)


class _Socket(asyncio.Protocol):
    """One connection, one request at a time; what is pipelined waits."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._body = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._plan: Plan | None = None
        self._counted = False
        self._keep = True
        self._torn = False
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()

    @property
    def idle(self) -> bool:
        """True between two posts."""
        return self._plan is None and not self._target

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No isinstance: uvloop's transports do not descend from asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._gateway.opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.transport.write(Answer(400, close=True).encode())
            self.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_body(self, body: bytes) -> None:
        self._body += body
        if self._gateway.tears is not None and self._gateway.torn(self._target, len(self._body)):
            self._torn = True
            self.reset()

    def on_message_complete(self) -> None:
        if self._torn:
            return
        request = Request(self._parser.get_method(), self._target, self._body, self._headers)
        keep = self._parser.should_keep_alive()
        self._target = self._body = b""
        self._headers = []
        if self._plan is None:
            self._serve(request, keep)
        else:
            self._waiting.append((request, keep))

    def eof_received(self) -> None:
        """The client closed its side; asyncio closes ours."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._timer is not None:
            self._timer.cancel()
        self._waiting.clear()
        self._finish(0)
        self._gateway.closed(self)

    def close(self) -> None:
        """Close as servers do: what was written gets out, then the end."""
        self.transport.close()

    def reset(self) -> None:
        """Tear the connection down with an RST."""
        duplicate = socket.socket(fileno=os.dup(self.transport.get_extra_info("socket").fileno()))
        with duplicate:
            duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _serve(self, request: Request, keep: bool) -> None:  # noqa: FBT001 - the parser's answer, passed on
        gateway = self._gateway
        if self._timer is not None:
            self._timer.cancel()
        name, plan = gateway.judge(request)
        self._keep = keep
        self._counted = bool(name) and request.method == b"POST"
        if self._counted:
            gateway.begun()
        lag = gateway.lag(name) if gateway.latency else 0.0
        self._plan = plan
        if plan.at_once and keep and lag <= 0:
            self.transport.write(plan.at_once)
            self._finish(plan.status)
        else:
            self._advance(plan, 0, lag)

    def _advance(self, plan: Plan, index: int, lag: float = 0.0) -> None:
        """Write the next piece when its time comes."""
        if index == len(plan.writes):
            self._end(plan)
            return
        delay = plan.writes[index].delay + lag
        if delay > 0 or index:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay, self._write, plan, index)
        else:
            self._write(plan, index)

    def _write(self, plan: Plan, index: int) -> None:
        self.transport.write(plan.writes[index].data)
        self._advance(plan, index + 1)

    def _end(self, plan: Plan) -> None:
        match plan.ending:
            case Ending.KEEP:
                self._finish(plan.status)
                if not self._keep:
                    self.close()
            case Ending.CLOSE:
                self._finish(plan.status)
                self._close_later(plan.linger)
            case Ending.CUT:
                self.transport.abort()
            case Ending.RESET:
                self.reset()
            case Ending.HANG:
                pass

    def _close_later(self, linger: float) -> None:
        if linger > 0:
            self._timer = asyncio.get_running_loop().call_later(linger, self._close_if_idle)
        else:
            self.close()

    def _close_if_idle(self) -> None:
        if self.idle:
            self.close()

    def _finish(self, status: int) -> None:
        """The request has got all it will get; on to the next."""
        self._plan = None
        if self._counted:
            self._counted = False
            self._gateway.finished(status)
        if self._waiting:
            self._serve(*self._waiting.popleft())


class _SocketWithHeaders(_Socket):
    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))


class _Door(asyncio.Protocol):
    """A connection whose TLS handshake is refused, or never answered."""

    def __init__(self, gateway: Gateway, *, refused: bool) -> None:
        self._gateway = gateway
        self._refused = refused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._gateway.failed_handshakes += 1
        self._gateway.opened(self)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - asyncio's signature
        if self._refused:
            self.transport.write(_HANDSHAKE_FAILURE)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._gateway.closed(self)


def _connection_id(quoted: bytes) -> str:
    """The id as its owner writes it; raises ``ValueError`` where it is malformed."""
    name = quoted.partition(b"?")[0].replace(b"%3D", b"=")
    if not name or b"/" in name or _MALFORMED(name):
        raise ValueError("not one percent-encoded segment")
    return unquote(name.decode("ascii"), errors="strict") if b"%" in name else name.decode("ascii")


def _listening_socket(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.settimeout(0)
    listening.bind(("127.0.0.1", port))
    listening.listen(_BACKLOG)
    return listening


def _written(pem: bytes) -> str:
    with tempfile.NamedTemporaryFile(prefix="async-relay-", suffix=".pem", delete=False) as file:
        file.write(pem)
    return file.name


def _remove(name: str) -> None:
    Path(name).unlink(missing_ok=True)
