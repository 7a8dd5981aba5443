"""A sandbox that lives long: nothing grows, whatever its invocations meet."""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from deployment import Context, incidents
from records import event as stream_event
from transports import CREDENTIALS

from async_relay.delivery.protocols import Transport
from async_relay.sandbox import Sandbox, new_event_loop
from async_relay.services import AwsServices
from async_relay.settings import Settings
from async_relay.testing import Choice, Cut, Garbage, GatewayProcess, Half, Hang, gateway_process
from async_relay.testing.memory import MemoryServices, MemoryStore

INVOCATIONS, WARM_UP, SAMPLE = 400, 150, 50
NAMES = [f"L0SM9cOFvHcCI{number:02}=" for number in range(20)]
SOCKETS = 10
POST_TIMEOUT = 0.05
FAULTS: Mapping[str, Choice] = {
    "gone": 410,
    "throttled": 429,
    "server error": [500, 200],
    "server error for ever": 500,
    "cut": [Cut(), 200],
    "reset": [Cut(reset=True), 200],
    "half an answer": [Half(), 200],
    "no HTTP": [Garbage(), 200],
    "hang": Hang(),
}
RETRY = "https://sqs.eu-west-1.amazonaws.com/1/retry"
LETTERS = "https://sqs.eu-west-1.amazonaws.com/1/letters"


class SocketsOnly(MemoryServices):
    """The transport posts over real sockets; the table and the queues are in memory."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        super().__init__(MemoryStore(NAMES))
        self.aws = AwsServices(settings, environ)

    async def transport(self) -> Transport:
        return await self.aws.transport()

    async def close(self) -> None:
        await self.aws.close()


class Figures(NamedTuple):
    """What must not grow."""

    invocation: int
    tasks: int
    descriptors: int
    objects: int
    kilobytes: float

    def __str__(self) -> str:
        return (
            f"{self.invocation:>6,} invocations: {self.tasks} tasks, {self.descriptors} descriptors, "
            f"{self.objects:,} objects, {self.kilobytes:,.0f} KB"
        )


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Life:
    """One sandbox on one runner, invoked again and again, with a fault at nearly every other time."""

    def __init__(self, gateway: GatewayProcess, runner: asyncio.Runner) -> None:
        environ = {
            "WS_ENDPOINT": gateway.endpoint,
            "CONNECTIONS_TABLE": "connections",
            "MAX_CONCURRENCY": str(SOCKETS),
            "POST_TIMEOUT_SECONDS": str(POST_TIMEOUT),
            "RETRY_QUEUE_URL": RETRY,
            "DEAD_LETTER_QUEUE_URL": LETTERS,
            "MAX_DELIVERY_ATTEMPTS": "1",
            "AWS_CA_BUNDLE": gateway.ca_file,
        }
        self.gateway = gateway
        self.runner = runner
        settings = Settings.from_env(environ)
        self.services = SocketsOnly(settings, environ)
        self.sandbox = Sandbox(settings, self.services)
        self.event = stream_event(*incidents(2))
        self.restless: list[str] = []

    def invoke(self, number: int) -> None:
        """One invocation: a fault for one client, for everybody, or none."""
        client = NAMES[number % len(NAMES)]
        match number % 20:
            case kind if kind % 2 and kind // 2 < len(FAULTS):
                fault = list(FAULTS.values())[kind // 2]
                self.gateway.play(fault, client)
                self.run(0.08 if isinstance(fault, Hang) else 0.04)
                self.gateway.play(None, client)
                self.services.rows.rows[client] = {}
            case 4:
                self.gateway.close_idle()
                self.run(5)
            case 6:
                self.gateway.reset_idle()
                self.run(5)
            case 8:
                self.run_jobs()
            case 12 if number % 100 == 12:
                self.services.rows.down = True
                self.run(5)
                self.services.rows.down = False
            case 14:
                self.cut_off(0.004)
            case 16 if number % 100 == 16:
                self.gateway.refuse()
                self.gateway.close_idle()
                self.run(0.08)
                self.gateway.accept()
            case _:
                self.run(5)
        self.check(number)

    def run(self, seconds: float) -> None:
        self.runner.run(self.sandbox.on_stream(self.event, Context(seconds + 0.2)))

    def cut_off(self, seconds: float) -> None:
        """As Lambda does where the function takes too long."""

        async def crash() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.sandbox.on_stream(self.event, Context())

        self.runner.run(crash())

    def run_jobs(self) -> None:
        """What was requeued, tried again; what is then still not delivered is a dead letter."""
        entries = self.services.queues[RETRY].take()[:10]
        records = [{"messageId": f"{at}", "body": entry.body, "attributes": {}} for at, entry in enumerate(entries)]
        self.runner.run(self.sandbox.on_jobs({"Records": records}, Context(0.3)))

    def check(self, number: int) -> None:
        """Between invocations nothing runs but idle sockets; the twins forget what they were told."""
        if tasks := asyncio.all_tasks(self.runner.get_loop()):
            self.restless.append(f"{number}: {tasks}")
        if " 0 busy, " not in (state := repr(self.sandbox)) or "0 opening, 0 waiting" not in state:
            self.restless.append(f"{number}: {state}")
        self.services.queues[LETTERS].take()
        self.services.rows.deleted.clear()

    def figures(self, number: int) -> Figures:
        """Without idle sockets, whose number may differ, and handshakes that were cut off."""
        self.services.queues[RETRY].take()
        self.gateway.close_idle()
        self.runner.run(asyncio.sleep(2 * POST_TIMEOUT))
        gc.collect()
        objects, kilobytes = len(gc.get_objects()), tracemalloc.get_traced_memory()[0] / 1024
        return Figures(number, len(asyncio.all_tasks(self.runner.get_loop())), descriptors(), objects, kilobytes)

    def live(self) -> Iterator[Figures]:
        """Invoke, and yield figures now and then."""
        self.run(5)  # the next has too little time to open anything
        for number in range(1, INVOCATIONS + 1):
            self.invoke(number)
            if number >= WARM_UP and number % SAMPLE == 0:
                yield self.figures(number)

    def end(self) -> None:
        self.runner.run(self.sandbox.close())


@pytest.fixture
def gateway() -> Iterator[Any]:
    with gateway_process(tls=True, credentials=CREDENTIALS, region="us-east-1", verify_every=50, keep=False) as gateway:
        yield gateway


@pytest.fixture
def life(gateway: GatewayProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in ("async_relay", "asyncio"):  # pytest keeps every record
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(asyncio.sleep(0))  # libuv opens a pipe for signals, once in a process
    before = descriptors()
    tracemalloc.start()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            life = Life(gateway, runner)
            yield life
            life.end()
    finally:
        tracemalloc.stop()
    assert descriptors() == before


def test_hundreds_of_invocations_leave_nothing_behind(gateway: GatewayProcess, life: Life) -> None:
    """Faults of every kind, a table that is down, sockets closed meanwhile, calls cut off: all figures stay flat."""
    figures = list(life.live())
    counters = gateway.counters()
    print(*figures, counters, sep="\n")
    assert life.restless == []
    assert counters.bad_signatures == 0
    assert counters.statuses.keys() >= {0, 200, 410, 429, 500}
    assert {each.tasks for each in figures} == {0}
    assert len({each.descriptors for each in figures}) == 1
    assert_flat(figures[0], figures[-1])


def test_calls_cut_off_in_a_handshake_leave_nothing_behind(gateway: GatewayProcess, life: Life) -> None:
    """A hundred calls that end while their sockets are being opened hold none of the memory of those."""
    life.run(5)
    before = life.figures(1)
    for number in range(100):
        gateway.close_idle()
        life.cut_off(number % 20 / 1000)
        life.check(number)
    after = life.figures(101)
    print(before, after, sep="\n")
    assert life.restless == []
    assert_flat(before, after)


def assert_flat(before: Figures, after: Figures) -> None:
    assert (after.tasks, after.descriptors) == (0, before.descriptors)
    assert after.objects - before.objects < 150
    assert after.kilobytes - before.kilobytes < 150  # one TLS socket has 300
