"""One lane per client: how far it has come with a job's messages, and how its latest tries went.

Rules
- A lane takes its client past the messages it may not have or does not want, and is done where no other is left.
- A lane of a client whose time is over is ``closing``: it gets one DELETE, and no message any more.
- A lane belongs to one job of one broadcast. A client that two jobs name has two lanes.
- A lane has one post in flight at a time, so its client gets the job's messages in order.
- A lane of a client that reads arrays posts frames (``wire.frames``). A frame that is refused for good says nothing
  about any one of its messages: they go one by one, and frames again behind them. So they do at a frame's last try: a
  message that is always answered 500, or a line too slow for a frame, must not cost a client the messages before it.
- ``RetryPolicy`` counts here what the answers so far say about this client alone.
"""

from __future__ import annotations

from ..errors import PostError
from ..wire.audience import Access
from ..wire.frames import Frame, Frames
from ..wire.jobs import Client
from ..wire.messages import Message
from .report import Outcome, Undelivered

_SAYS_NOTHING = Access()


class Lane:
    """A client and how far it has come; ``error`` is the answer to its latest try, if that failed.

    ``wanted`` has a bit for each message the client gets, None: it gets all. Before each post somebody looks at
    ``expires_at`` (s), where there is one.

    ``frames`` makes its posts, None: each message is one. ``frame`` is the one in flight, None: a single message is, or
    nothing. Messages before ``apart`` go by themselves.

    ``refusals`` counts the 429s in a row at this message, ``refused_lately`` says whether there were any
    at the message before. While anything of this is set, or ``error``, the lane is ``troubled``.
    """

    __slots__ = (
        "apart",
        "closing",
        "connection_id",
        "created_at",
        "error",
        "expires_at",
        "frame",
        "frames",
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
        self.connection_id, self.created_at, self.position, self.expires_at, access, reads_arrays = client
        self.messages = outcome.job.messages
        self.outcome = outcome
        self.tries = 0
        self.error: PostError | None = None
        self.refusals = 0
        self.refused_lately = self.troubled = self.closing = False
        self.frames: Frames | None = outcome.frames if reads_arrays and len(self.messages) > 1 else None
        self.frame: Frame | None = None
        self.apart = 0
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

    def skip_blocked(self) -> bool:
        """Go past messages refused by all; True where nothing remains."""
        left = self._left()
        self.position = (left & -left).bit_length() - 1 if left else len(self.messages)
        return self.done

    def _left(self) -> int:
        """The messages that are still to be sent to the client, as a mask."""
        mask = self.outcome.sendable if self.wanted is None else self.outcome.sendable & self.wanted
        return mask >> self.position << self.position

    def next_post(self, frames: Frames) -> Message:
        """The next frame's post, or a single message where no other fits beside it or it goes by itself."""
        self.frame = None
        if self.position < self.apart:
            return self.messages[self.position]
        frame = frames.next(self._left())
        if len(frame.positions) > 1:
            self.frame = frame
        return frame.post

    def count_frame(self, frame: Frame) -> None:
        """Count each message of a frame that was delivered, and stand at its last one."""
        self.frame = None
        delivered = self.outcome.delivered
        for at in frame.positions:
            delivered[at] += 1
        self.position = frame.end - 1

    def reject(self) -> bool:
        """Note that the client refuses this message for good; True where nobody is to be sent it any more."""
        assert self.error is not None
        outcome, position, reason = self.outcome, self.position, self.error.reason
        outcome.reject(self.connection_id, self.created_at, position, self.error)
        if not outcome.refused_by_all(position, reason, at_end=False):
            return False
        outcome.block(position, reason)
        return True

    def undelivered(self) -> Undelivered:
        """The client as it stands when the broadcast stops serving it."""
        return Undelivered(self.client, self.error if self.tries else None)
