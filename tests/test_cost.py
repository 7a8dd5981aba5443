"""What a post may cost, in counts that are the same on every machine; figures of time belong to benchmarks/."""

from __future__ import annotations

import asyncio
import gc
import re
import sys
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from random import Random
from types import FrameType
from typing import Any

import pytest
from transports import CREDENTIALS

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.protocols import Page, Transport
from async_relay.delivery.rate import Rate
from async_relay.http import sigv4
from async_relay.http.direct import DirectTransport
from async_relay.http.sigv4 import Credentials
from async_relay.testing import GatewayProcess, gateway_process
from async_relay.testing.memory import MemoryStore, MemoryTransport
from async_relay.wire import messages
from async_relay.wire.jobs import Client, Cursor, Job, Shard
from async_relay.wire.messages import Message

FEW, MANY = 500, 2_500
BODY = b'{"kind":"remediation","action":"RevokeSecurityGroupIngress","event_id":"event-1","sequence":"100"}'


@dataclass
class Counts:
    tasks: int = 0
    futures: int = 0
    timers: int = 0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(self.tasks - other.tasks, self.futures - other.futures, self.timers - other.timers)


class CountingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.counts = Counts()
        self.set_task_factory(self._new_task)

    def _new_task(self, loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        self.counts.tasks += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    def create_future(self) -> asyncio.Future[Any]:
        self.counts.futures += 1
        return super().create_future()

    def call_at(self, *arguments: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # passed on
        self.counts.timers += 1
        return super().call_at(*arguments, **options)


def message(body: bytes = BODY) -> Message:
    return Message("remediation", "event-1", "100", body, sha256(body).hexdigest())


def ids(count: int) -> list[str]:
    return [f"L{number:09d}oAMCI=" for number in range(count)]


async def credentials() -> Credentials:
    return CREDENTIALS


def direct(endpoint: str) -> DirectTransport:
    return DirectTransport(endpoint, region="eu-west-1", credentials=credentials, tls=None, max_sockets=40)


def broadcaster(transport: Transport, store: Any) -> Broadcaster:
    limits = Limits(max_concurrency=40, post_timeout=5.0)
    return Broadcaster(transport, store, limits, Rate(), Random(1), lambda: 1_700_000_000.0)


async def broadcast(transport: Transport, store: Any, *posted: Message) -> int:
    report = await broadcaster(transport, store).broadcast([Job(posted or (message(),), shard=Shard())], 60)
    return sum(sum(outcome.delivered) for outcome in report.outcomes)


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with gateway_process(keep=False) as process:
        yield process


@dataclass
class Steady:
    """A broadcast to few and one to many, after the sockets are open, and what ``measure`` saw of each."""

    endpoint: str
    results: dict[int, Any] = field(default_factory=dict)

    def run(self, measure: Callable[[Coroutine[Any, Any, int]], Coroutine[Any, Any, Any]]) -> tuple[Any, Any]:
        with asyncio.Runner(loop_factory=CountingLoop) as runner:
            return runner.run(self._run(measure))

    async def _run(self, measure: Callable[[Coroutine[Any, Any, int]], Coroutine[Any, Any, Any]]) -> tuple[Any, Any]:
        transport = direct(self.endpoint)
        assert await broadcast(transport, MemoryStore(ids(MANY), page_size=10_000)) == MANY  # opens all sockets
        found = []
        for count in (FEW, MANY):
            store = MemoryStore(ids(count), page_size=10_000)
            found.append(await measure(broadcast(transport, store)))
        await transport.close()
        return found[0], found[1]


async def counted(work: Coroutine[Any, Any, int]) -> Counts:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    before = Counts(**vars(loop.counts))
    await work
    return loop.counts - before


def test_a_post_makes_no_task_and_no_future_and_no_timer(gateway: GatewayProcess) -> None:
    """Two thousand posts more make none of them more, but for the sweep every tenth of a second."""
    few, many = Steady(gateway.endpoint).run(counted)
    more = many - few
    assert more.tasks == 0
    assert more.futures <= 2
    assert more.timers <= 200
    assert many.tasks <= 5


async def called(work: Coroutine[Any, Any, int]) -> int:
    calls = 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        await work
    finally:
        sys.setprofile(None)
    return calls


def test_a_post_is_a_bounded_number_of_calls(gateway: GatewayProcess) -> None:
    """Ours and asyncio's, from the page of the table to the delivery."""
    few, many = Steady(gateway.endpoint).run(called)
    assert (many - few) / (MANY - FEW) < 75


def test_nothing_stays_behind_a_post(gateway: GatewayProcess) -> None:
    """Blocks of memory in use do not grow with the number of posts."""

    async def kept(work: Coroutine[Any, Any, int]) -> int:
        gc.collect()
        before = sys.getallocatedblocks()
        await work
        gc.collect()
        return sys.getallocatedblocks() - before

    _, many = Steady(gateway.endpoint).run(kept)
    assert many < MANY / 10


class EndlessStore(MemoryStore):
    """Rows that are made as they are read."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count_of_all = count

    async def read(self, shard: Shard, cursor: Cursor | None) -> Page:  # noqa: ARG002
        await asyncio.sleep(0)
        start = int(cursor["position"]) if cursor else 0
        end = min(start + 1_000, self.count_of_all)
        clients = [Client(f"L{number:09d}oAMCI=") for number in range(start, end)]
        return Page(clients, {"position": end} if end < self.count_of_all else None)


class CountlessTransport(MemoryTransport):
    """Does not even count whom it served."""

    def send(self, lane: Any, message: Message, done: Any) -> None:  # noqa: ARG002
        asyncio.get_running_loop().call_soon(done, lane, None)


def test_memory_does_not_grow_with_the_clients() -> None:
    """Nothing holds all the clients: eight times as many need the same at the peak."""

    async def peak(count: int) -> int:
        tracemalloc.start()
        assert await broadcast(CountlessTransport(), EndlessStore(count)) == count
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    few, many = asyncio.run(peak(5_000)), asyncio.run(peak(40_000))
    assert many < few * 1.2
    assert many < 4_000_000


def test_the_bytes_of_a_post() -> None:
    """Nothing is sent that has no reader: five headers, the session token's, and the body."""

    async def first_request() -> bytes:
        received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            received.set_result(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(len(BODY)))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            transport = direct(f"http://127.0.0.1:{port}/prod")
            assert await broadcast(transport, MemoryStore(ids(1))) == 1
            await transport.close()
        return (await received).replace(b":%d" % port, b":PORT")

    request = asyncio.run(first_request()).decode()
    unsigned = re.sub(r"[0-9a-f]{64}", "SIGNATURE", request.partition("\n")[2])
    masked = re.sub(r"[0-9]{8}(T[0-9]{6}Z)?", "DATE", unsigned)
    assert request.startswith("POST /prod/@connections/L000000000oAMCI%3D HTTP/1.1\r\n")
    assert masked == (
        "Host: 127.0.0.1:PORT\r\n"
        "Content-Type: application/json\r\n"
        "X-Amz-Date: DATE\r\n"
        f"X-Amz-Security-Token: {CREDENTIALS.token}\r\n"
        f"Authorization: AWS4-HMAC-SHA256 Credential={CREDENTIALS.access_key}/DATE/eu-west-1/execute-api/aws4_request, "
        "SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=SIGNATURE\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n" + BODY.decode()
    )


@dataclass
class Hashed:
    """How many hashes were begun anew, and how many bytes went into them and their copies."""

    begun: int = 0
    fed: int = 0


class CountingHash:
    def __init__(self, inner: Any, hashed: Hashed) -> None:
        self._inner, self._hashed = inner, hashed

    def update(self, data: bytes) -> None:
        self._hashed.fed += len(data)
        self._inner.update(data)

    def copy(self) -> CountingHash:
        return CountingHash(self._inner.copy(), self._hashed)

    def digest(self) -> bytes:
        return bytes(self._inner.digest())

    def hexdigest(self) -> str:
        return str(self._inner.hexdigest())


@contextmanager
def hashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hashed]:
    hashed = Hashed()

    def begin(data: bytes = b"") -> CountingHash:
        hashed.begun += 1
        hashed.fed += len(data)
        return CountingHash(sha256(data), hashed)

    with monkeypatch.context() as patch:
        for module in (messages, sigv4):
            patch.setattr(module, "sha256", begin)
        yield hashed


def posted(endpoint: str, count: int, size: int, monkeypatch: pytest.MonkeyPatch) -> Hashed:
    async def post(bodies: Sequence[Message]) -> None:
        transport = direct(endpoint)
        assert await broadcast(transport, MemoryStore(ids(count)), *bodies) == count * len(bodies)
        await transport.close()

    with hashing(monkeypatch) as hashed:
        asyncio.run(post([Message.encode({"kind": "remediation", "padding": "x" * size})]))
    return hashed


def test_a_body_is_hashed_once_for_all_clients(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """A post feeds a sha256 some hundred bytes, however large the message, and begins none anew."""
    few = posted(gateway.endpoint, FEW, 20_000, monkeypatch)
    many = posted(gateway.endpoint, MANY, 20_000, monkeypatch)
    assert many.begun == few.begun
    assert many.begun < 10
    assert (many.fed - few.fed) / (MANY - FEW) < 330
