"""Publishing: a batch's messages are written to the feed before any row is read, and carry a position from then on.

Rules
- Whoever connects too late for the broadcast finds the messages in the feed, because they were there before the rows
  were read: a row was either in the table then, or its client reads the feed after they were written.
- What takes longer than ``SETTLED_SECONDS`` has failed, whatever becomes of it: readers of the feed rely on that.
- A batch is published whole or goes back whole. What was written of one that goes back stays in the feed: it is
  published again at another position, and readers drop repeats by ``event_id``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from ..errors import StoreUnavailable
from ..wire.feed import POSITION_BYTES, SETTLED_SECONDS, FeedEntry, publish
from .deliveries import Delivery
from .protocols import Feed

_log = logging.getLogger("async_relay")


class Publisher:
    """Publishes batches in a feed, at positions of the wall clock."""

    #: How many bytes a message grows by.
    added = POSITION_BYTES

    def __init__(self, feed: Feed, wall_clock: Callable[[], float], random: Random) -> None:
        self._feed = feed
        self._wall_clock = wall_clock
        self._random = random

    async def publish(self, delivery: Delivery, end: float) -> tuple[Delivery, int]:
        """The delivery of the messages as published, and how many entries they are; raises ``StoreUnavailable``.

        ``end``: until when it may take, by the loop's clock.
        """
        now = int(self._wall_clock() * 1000)
        messages, entries = publish(delivery.job.messages, now, self._random)
        await self._append(entries, end)
        _log.debug(
            "published", extra={"entries": len(entries), "published": len(messages), "first": entries[0].position}
        )
        return replace(delivery, job=replace(delivery.job, messages=messages)), len(entries)

    async def _append(self, entries: Sequence[FeedEntry], end: float) -> None:
        settled = asyncio.get_running_loop().time() + SETTLED_SECONDS
        try:
            async with asyncio.timeout_at(min(end, settled)):
                await self._feed.append(entries)
        except TimeoutError:
            raise StoreUnavailable("the feed did not take a batch in time") from None
