"""The buttons beside the dashboard, and the figures: what one can do to the running stack, and what becomes of it.

Rules
- Each button does to the local stack what it says; what it did is one sentence.
- The page's server asks from threads of its own; all that is done is done on the demo's loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from .clients import Crowd
from .comparison import Comparison
from .cuts import Line
from .deliveries import figures
from .feed import EVERY_TENANT
from .issuer import HOUR, Issuer
from .ledger import Ledger
from .local_aws import LocalAws
from .story import Story

# Some four changes per second, of the 24 of a burst.
_THROTTLED_RATE, _THROTTLED_SECONDS = 60, 8
# Shorter than the page's client waits before it asks for the next one.
_SHORT_TOKEN_SECONDS = 8
# Which of them posts depends on the fan-out.
_WORKERS = ("RelayFunction", "FanoutFunction", "DeliverFunction")
_PATIENCE_SECONDS = 20.0
_GONE = 410

_Answer = TypeVar("_Answer")


async def jobs_in(sqs: Any, queue: str) -> int:
    """How many jobs are in a queue, those somebody works on too."""
    names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
    found = (await sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=names))["Attributes"]
    return sum(int(found.get(name, 0)) for name in names)


class Tokens:
    """What the page comes in with, anew whenever it asks."""

    def __init__(self, issuer: Issuer, name: str) -> None:
        self._issuer = issuer
        self._name = name
        self._next_seconds = HOUR

    def __call__(self) -> str:
        """A token for an hour, or for as long as was said for the next one."""
        seconds, self._next_seconds = self._next_seconds, HOUR
        return self._issuer.token(self._name, [EVERY_TENANT], seconds=seconds)

    def shorten_next(self, seconds: int) -> None:
        """The next one ends after so long."""
        self._next_seconds = seconds


@dataclass(slots=True)
class Panel:
    """What it takes; ``parked`` counts what waits in the retry queue, ``line`` is the page's to the API.

    ``join``: the command by which somebody's own client comes in.
    """

    story: Story
    aws: LocalAws
    ledger: Ledger
    crowd: Crowd
    parked: Callable[[], Coroutine[Any, Any, int]]
    line: Line
    tokens: Tokens
    loop: asyncio.AbstractEventLoop
    join: str = ""
    comparison: Comparison | None = None

    @property
    def buttons(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, str]]]:
        """What can be pressed, by name."""
        return {
            "write": self._write,
            "throttle": self._throttle,
            "cut": self._cut,
            "kill": self._kill,
            "expire": self._expire,
        }

    def press(self, name: str) -> bool:
        """Do what a button does, from another thread; False where there is no such button."""
        button = self.buttons.get(name)
        if button is None:
            return False
        self._on_loop(self._pressed(button))
        return True

    def state(self) -> Mapping[str, Any]:
        """The figures of this moment, from another thread."""
        return self._on_loop(self._state())

    def _on_loop(self, work: Coroutine[Any, Any, _Answer]) -> _Answer:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(_PATIENCE_SECONDS)

    async def _pressed(self, button: Callable[[], Coroutine[Any, Any, str]]) -> None:
        self.story.say(await button())

    async def _state(self) -> Mapping[str, Any]:
        posts = self.aws.posts
        return {
            "dashboards": len(self.crowd.present),
            **figures(self.ledger, time.perf_counter()),
            "parked": await self.parked(),
            "gone": posts[_GONE],
            "retries": sum(count for status, count in posts.items() if status != _GONE and status >= 400),
            "told": list(self.story.told),
            "join": self.join,
        }

    async def _write(self) -> str:
        return f"{await self.story.incident()} was written"

    async def _throttle(self) -> str:
        self.aws.throttle(_THROTTLED_RATE, _THROTTLED_SECONDS)
        await self.story.burst()
        rate = f"{_THROTTLED_RATE} posts per second"
        return f"For {_THROTTLED_SECONDS} s the gateway takes {rate} and answers 429 to all others"

    async def _cut(self) -> str:
        self.line.cut()
        if self.comparison:
            self.comparison.cut_all()
        return "The connections of this page and of a client of the library were cut, without a goodbye"

    async def _kill(self) -> str:
        self.aws.kill(*_WORKERS)
        await self.story.burst()
        return "The process of the relay was killed in the middle of a burst"

    async def _expire(self) -> str:
        self.tokens.shorten_next(_SHORT_TOKEN_SECONDS)
        self.line.cut()
        return f"This page came back with a token that ends after {_SHORT_TOKEN_SECONDS} s"
