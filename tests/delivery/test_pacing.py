"""How records handed back to the stream are slowed down, on virtual time."""

from __future__ import annotations

import asyncio

import pytest
from lambda_models import still_running, virtual_time

from async_relay.delivery.pacing import Pacing

pytestmark = virtual_time


async def waits(pacing: Pacing, count: int, seconds: float = 60.0) -> list[float]:
    """How long so many waits in a row took, each with so many seconds left."""
    time = asyncio.get_running_loop().time
    took = []
    for _ in range(count):
        start = time()
        await pacing.wait(start + seconds)
        took.append(round(time() - start, 6))
    return took


async def test_each_wait_is_longer_up_to_five_seconds() -> None:
    """The waits double from half a second to five seconds, and stay there however long it lasts."""
    pacing = Pacing()
    assert await waits(pacing, 6) == [0.5, 1, 2, 4, 5, 5]
    assert (await waits(pacing, 2_000))[-1] == 5


async def test_after_a_success_the_first_wait_is_short_again() -> None:
    """A success makes the next wait the first one."""
    pacing = Pacing()
    await waits(pacing, 4)
    pacing.reset()
    assert await waits(pacing, 2) == [0.5, 1]


@pytest.mark.parametrize(("seconds", "took"), [(0.3, 0.2), (0.1, 0.0), (0.0, 0.0), (-1.0, 0.0)])
async def test_a_wait_ends_before_the_deadline(seconds: float, took: float) -> None:
    """A wait leaves a tenth of a second for the answer, and there is none where no time is left."""
    assert await waits(Pacing(), 1, seconds) == [took]


async def test_a_wait_that_is_cancelled_ends_at_once() -> None:
    """Cancelling ends a wait and leaves nothing running; the next is longer all the same."""
    pacing = Pacing()
    waiting = asyncio.create_task(pacing.wait(60))
    await asyncio.sleep(0.1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not still_running()
    assert await waits(pacing, 1) == [1]
