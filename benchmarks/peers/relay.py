"""Ours: ``handler.lambda_handler`` as Lambda calls it, from the stream event to its answer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from .worker import TABLE, Setup


class _Context:
    """Lambda's; a broadcast has as long as a function may run."""

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


class _Handler:
    def __init__(self, setup: Setup, transport: str) -> None:
        os.environ |= {
            "WS_ENDPOINT": setup.endpoint,
            "CONNECTIONS_TABLE": TABLE,
            "MAX_CONCURRENCY": str(setup.concurrency),
            "TRANSPORT": transport,
            "POWERTOOLS_LOG_LEVEL": "WARNING",
        }
        if setup.quota:
            os.environ["MAX_POSTS_PER_SECOND"] = str(setup.quota)
        import handler  # It reads the settings above.

        self._handler = handler.lambda_handler
        self._event = setup.event

    def broadcast(self, ids: Sequence[str]) -> int:
        """Everybody in the table, unless the record comes back."""
        return 0 if self._handler(self._event, _Context())["batchItemFailures"] else len(ids)


class Direct(_Handler):
    """With the direct transport."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, "direct")


class Sdk(_Handler):
    """With the SDK transport."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, "sdk")
