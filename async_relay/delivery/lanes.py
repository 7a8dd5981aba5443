"""One lane per client: how far it has come with a job's messages, and how its latest tries went.

Rules
- A lane takes its client past the messages it may not have or does not want, and is done where no other is left.
- A lane of a client whose time is over is ``closing``: it gets one DELETE, and no message any more.
- A lane belongs to one job of one broadcast. A client that two jobs name has two lanes.
- A lane posts one message at a time, so its client gets the job's messages in order.
- ``RetryPolicy`` counts here what the answers so far say about this client alone.
"""

from __future__ import annotations

from ..errors import PostError
from ..wire.audience import Access
from ..wire.jobs import Client
from .report import Outcome, Undelivered

_SAYS_NOTHING = Access()


class Lane:
    """A client and how far it has come; ``error`` is the answer to its latest try, if that failed.

    ``wanted`` has a bit for each message the client gets, None: it gets all. Before each post somebody looks at
    ``expires_at`` (s), where there is one.

    ``refusals`` counts the 429s in a row at this message, ``refused_lately`` says whether there were any
    at the message before. While anything of this is set, or ``error``, the lane is ``troubled``.
    """

    __slots__ = (
        "closing",
        "connection_id",
        "created_at",
        "error",
        "expires_at",
        "messages",
        "outcome",
        "position",
        "refusals",
        "refused_lately",
        "tries",
        "troubled",
        "wanted",
    )

    def __init__(self, client: Client, outcome: Outcome) -> None:
        self.connection_id, self.created_at, self.position, self.expires_at, access, _ = client
        self.messages = outcome.job.messages
        self.outcome = outcome
        self.tries = 0
        self.error: PostError | None = None
        self.refusals = 0
        self.refused_lately = self.troubled = self.closing = False
        self.wanted: int | None = None
        if access is not None or outcome.audience.by_tenant:
            self.wanted = outcome.audience.wanted(access or _SAYS_NOTHING)
            self.skip_unwanted()

    def __repr__(self) -> str:
        """A sentence for logs."""
        return f"<{self.connection_id}: {self.position} of {len(self.messages)} messages, {self.tries} tries>"

    @property
    def client(self) -> Client:
        """The client, and how many messages it has already."""
        return Client(self.connection_id, self.created_at, self.position, self.expires_at)

    @property
    def done(self) -> bool:
        """Whether no message is left for the client."""
        return self.position >= len(self.messages)

    def skip_unwanted(self) -> None:
        """Go past the messages the client does not get; only where ``wanted`` says which."""
        assert self.wanted is not None
        left = self.wanted >> self.position
        # The lowest bit that is set: x & -x has no other.
        self.position += (left & -left).bit_length() - 1 if left else len(self.messages)

    def undelivered(self) -> Undelivered:
        """The client as it stands when the broadcast stops serving it."""
        return Undelivered(self.client, self.error if self.tries else None)
