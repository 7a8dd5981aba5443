"""One lane per client: how far it has come with a job's messages, and how its latest tries went.

Rules
- A lane belongs to one job of one broadcast. A client that two jobs name has two lanes.
- A lane posts one message at a time, so its client gets the job's messages in order.
- ``RetryPolicy`` counts here what the answers so far say about this client alone.
"""

from __future__ import annotations

from ..errors import PostError
from ..wire.jobs import Client
from .report import Outcome, Undelivered


class Lane:
    """A client and how far it has come; ``error`` is the answer to its latest try, if that failed.

    ``refusals`` counts the 429s in a row at this message, ``refused_lately`` says whether there were any
    at the message before. While anything of this is set, or ``error``, the lane is ``troubled``.
    """

    __slots__ = (
        "connection_id",
        "created_at",
        "error",
        "messages",
        "outcome",
        "position",
        "refusals",
        "refused_lately",
        "tries",
        "troubled",
    )

    def __init__(self, client: Client, outcome: Outcome) -> None:
        self.connection_id = client.connection_id
        self.created_at = client.created_at
        self.position = client.skip
        self.messages = outcome.job.messages
        self.outcome = outcome
        self.tries = 0
        self.error: PostError | None = None
        self.refusals = 0
        self.refused_lately = self.troubled = False

    def __repr__(self) -> str:
        """A sentence for logs."""
        return f"<{self.connection_id}: {self.position} of {len(self.messages)} messages, {self.tries} tries>"

    @property
    def client(self) -> Client:
        """The client, and how many messages it has already."""
        return Client(self.connection_id, self.created_at, self.position)

    def undelivered(self) -> Undelivered:
        """The client as it stands when the broadcast stops serving it."""
        return Undelivered(self.client, self.error if self.tries else None)
