"""How long an invocation waits before it hands records back to the stream.

AWS does not document how soon a mapping sends records again, and it may be at once. An outage
would then be hundreds of invocations per second, which end nothing sooner and are all paid for.
"""

from __future__ import annotations

import asyncio

from .backoff import exponential

#: A single refusal costs a batch no more than half a second.
_FIRST_WAIT = 0.5
#: An endpoint or a table that is back is found within five seconds, and six hours without it are
#: some 4,300 invocations of a shard.
_LONGEST_WAIT = 5.0
#: Timers fire late on a busy loop, and an answer after the deadline is none.
_MARGIN = 0.1


class Pacing:
    """The waits of one sandbox: each longer than the one before, until an invocation succeeds."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """The next wait is the first again."""
        self._failures = 0

    async def wait(self, end: float) -> None:
        """Wait before records go back, but never until the loop's time is ``end``."""
        self._failures += 1
        wait = exponential(self._failures, _FIRST_WAIT, _LONGEST_WAIT)
        left = end - _MARGIN - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, min(wait, left)))
