"""An invocation that dies at any moment loses nothing: it is cancelled at every point there is, and all redelivered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from typing import Any

import pytest
from lambda_models import Handler, VirtualLoop, run_virtually
from test_simulation import HOUR, History, Nature, complaints, live

EVERY_FAULT = (
    Nature(fault="sick", until=30.0),
    Nature(fault="sick", until=1e9),
    Nature(drops=0.5),
    Nature(),
    Nature(fault="flaky", until=20.0),
    Nature(fault="hanging", until=3.0),
    Nature(fault="full", until=20.0),
    Nature(fault="lossy", until=20.0),
    Nature(connects=0.9, handshake=0.4),
    Nature(fault="odd", until=1e9),
    Nature(fault="small", until=1e9),
    Nature(fault="forbidden", until=3.0),
    Nature(fault="slow", until=20.0),
    Nature(connects=-HOUR),
)
BATCHES = ((1.0, ("incident", "malformed", "remediation", "oversized", "incident")),)
DIRECT = History(clients=EVERY_FAULT, batches=BATCHES, bound=4, timeout=3.0)
FANNED_OUT = History(clients=EVERY_FAULT, batches=BATCHES, bound=4, timeout=3.0, shards=2, refusals=((0.5, 1.3),))
ALONE = History(clients=EVERY_FAULT[2:], batches=BATCHES, bound=4, timeout=3.0, retry=False)


class Turns:
    """Cancels an invocation before the k-th turn of the loop from its start; counts the turns it took."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    async def __call__(self, handler: Handler, event: Any, seconds: float) -> Any:
        loop, invocation = asyncio.get_running_loop(), asyncio.current_task()
        assert isinstance(loop, VirtualLoop)
        assert invocation is not None

        def turn() -> None:
            self.count += 1
            if self.count == self.at:
                invocation.cancel()

        loop.each_turn = turn
        try:
            return await handler(event, seconds)
        finally:
            loop.each_turn = None


class Suspensions:
    """Cancels an invocation as its coroutine suspends for the k-th time; counts how often it does."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    async def __call__(self, handler: Handler, event: Any, seconds: float) -> Any:
        return await _Watched(handler(event, seconds).__await__(), self._suspended)

    def _suspended(self) -> None:
        self.count += 1
        if self.count == self.at:
            invocation = asyncio.current_task()
            assert invocation is not None
            invocation.cancel()


class _Watched:
    def __init__(self, steps: Generator[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self.steps = steps
        self.suspended = suspended

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                awaited = self.steps.send(None) if error is None else self.steps.throw(error)
            except StopIteration as end:
                return end.value
            self.suspended()
            error = None
            try:
                yield awaited
            except BaseException as raised:  # noqa: BLE001  # it belongs to the coroutine within
                error = raised


def survive(history: History, entry: str, number: int, death: Turns | Suspensions) -> list[str]:
    """Let the ``number``-th invocation of ``entry`` die, and see what was promised and not kept."""
    begun = 0

    def harm(name: str, handler: Handler) -> Handler:
        async def invoke(event: Any, seconds: float) -> Any:
            nonlocal begun
            begun += name == entry
            if name == entry and begun == number:
                return await death(handler, event, seconds)
            return await handler(event, seconds)

        return invoke

    return list(complaints(run_virtually(live(history, harm=harm))))


SCENES = [
    pytest.param(DIRECT, "on_stream", 1, id="serving the stream"),
    pytest.param(DIRECT, "on_jobs", 2, id="serving the retry queue"),
    pytest.param(FANNED_OUT, "on_stream", 1, id="dispatching"),
    pytest.param(FANNED_OUT, "on_jobs", 1, id="serving a shard"),
    pytest.param(ALONE, "on_stream", 1, id="without a retry queue"),
]


@pytest.mark.parametrize("kind", [Turns, Suspensions])
@pytest.mark.parametrize(("history", "entry", "number"), SCENES)
def test_dying_at_any_moment_loses_nothing(
    history: History, entry: str, number: int, kind: type[Turns] | type[Suspensions]
) -> None:
    """Cancelled at the k-th moment, for every k there is, and redelivered: every promise holds."""
    logging.getLogger("async_relay").setLevel(logging.CRITICAL)
    whole = kind(0)
    assert survive(history, entry, number, whole) == []
    assert whole.count > 1
    for at in range(1, whole.count + 1):
        assert survive(history, entry, number, kind(at)) == [], f"cancelled at {at} of {whole.count}"
