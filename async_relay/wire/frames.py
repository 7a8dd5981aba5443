"""Frames: a client's next messages as one JSON array, so that one post carries many. Pure.

Rules
- A frame holds as many of the messages a client still gets as fit its bytes: in order, each once, at least one.
- A frame of one message is that message as it is, for any client: nothing is encoded or hashed for it. So one that
  fits only without brackets, or does not fit at all, goes alone.
- An array is joined from bodies that are ready, and hashed once, however many clients get it: what it is known by are
  the messages in it, and not what anybody's row says.
- How many frames are remembered is bounded, in number and in bytes. One that was forgotten is made again.

A set of positions is a bit mask; bit 0 stands for the job's first message.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from .messages import Message

#: API Gateway meters posts by 32 KB, and hands them to clients in WebSocket frames of as much ("Quotas for configuring
#: and running a WebSocket API"): up to here a post costs one, however much is in it.
FRAME_BYTES = 32_768
# An event of Lambda has 6 MB at most, so what everybody gets fits more than twice beside what only some get.
_MOST_BYTES = 16_000_000
# Small frames cost their objects, some 600 bytes each with their keys, and a mask has a kilobyte for 8,000 messages.
_MOST_FRAMES = 2_048


@dataclass(frozen=True, slots=True)
class Frame:
    """One post's worth: ``post`` is sent, and holds the messages at ``positions``, which are in order."""

    post: Message
    positions: tuple[int, ...]

    @property
    def end(self) -> int:
        """The position behind its last message."""
        return self.positions[-1] + 1


class FrameCache:
    """The frames made last, of any number of jobs; those made first are forgotten first."""

    def __init__(self, most_bytes: int = _MOST_BYTES, most_frames: int = _MOST_FRAMES) -> None:
        self._most_bytes = most_bytes
        self._most_frames = most_frames
        self._frames: dict[tuple[Frames, int], Frame] = {}
        self._fitting: dict[tuple[Frames, int], int] = {}
        self.bytes = 0
        #: Messages put into frames, or counted for them, since somebody set it to 0: what the frames made cost.
        self.handled = 0

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._frames)} frames of {self.bytes:,} bytes>"

    def next(self, frames: Frames, left: int) -> Frame:
        """The next frame of a client that still gets the messages of the mask ``left``, which is not empty."""
        # Looked up by all that is left, to be found without a look at each message; kept by what is in it.
        place = (frames, left)
        inside = self._fitting.get(place)
        if inside is None:
            inside = frames.fitting(left)
            self.handled += inside.bit_count()
            if len(self._fitting) >= self._most_frames:
                self._fitting.clear()
            self._fitting[place] = inside
        frame = self._frames.get((frames, inside))
        return frame if frame is not None else self._keep(frames, inside)

    def _keep(self, frames: Frames, inside: int) -> Frame:
        frame = self._frames[frames, inside] = frames.make(inside)
        self.bytes += _made(frame)
        self.handled += len(frame.positions)
        while len(self._frames) > self._most_frames or self.bytes > self._most_bytes:
            self.bytes -= _made(self._frames.pop(next(iter(self._frames))))
        return frame


class Frames:
    """Makes the frames of one job's messages, and remembers them in a cache it may share with other jobs."""

    def __init__(
        self, messages: Sequence[Message], most_bytes: int = FRAME_BYTES, cache: FrameCache | None = None
    ) -> None:
        self._messages = messages
        self._most_bytes = most_bytes
        self._cache = FrameCache() if cache is None else cache

    def __repr__(self) -> str:
        """A sentence for logs and tests."""
        return f"<{len(self._messages)} messages in frames of {self._most_bytes:,} bytes at most>"

    def next(self, left: int) -> Frame:
        """The next frame of a client that still gets the messages of the mask ``left``, which is not empty."""
        return self._cache.next(self, left)

    def fitting(self, left: int) -> int:
        """As many of the first messages of the mask as fit one frame; one at least."""
        end, room = 0, self._most_bytes - len(b"[]")
        for at in _positions(left):
            room -= len(self._messages[at].body)
            if end and room < 0:
                break
            end = at + 1
            room -= len(b",")
        return left & ((1 << end) - 1)

    def make(self, inside: int) -> Frame:
        """The frame of exactly these messages."""
        positions = tuple(_positions(inside))
        if len(positions) == 1:
            return Frame(self._messages[positions[0]], positions)
        body = b"[%b]" % b",".join([self._messages[at].body for at in positions])
        return Frame(Message("", "", "", body, sha256(body).hexdigest()), positions)


def _positions(mask: int) -> Iterator[int]:
    # As text: each step of arithmetic would go through all of the mask, which takes 8 ms for 2,000 of 10,000 messages.
    bits = f"{mask:b}"[::-1]
    at = bits.find("1")
    while at >= 0:
        yield at
        at = bits.find("1", at + 1)


def _made(frame: Frame) -> int:
    """The bytes that are there for the frame's sake: a single message is there anyway."""
    return len(frame.post.body) if len(frame.positions) > 1 else 0
