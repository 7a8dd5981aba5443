"""The selection read from a dead-letter queue: all of a standard one; of a FIFO queue what its groups show, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from . import screen
from .parsing import ParsedDeadLetter, parse_dead_letter
from .queues import DeadLetterQueue, interrupt, on_ending
from .selection import Selection, id_length


@dataclass(frozen=True, slots=True)
class Found:
    """The result of reading a queue: the selected dead letters, and the queue that holds them."""

    queue: DeadLetterQueue
    selection: Selection
    selected: Sequence[ParsedDeadLetter]
    known: Sequence[str]
    #: About how many wait behind those in their FIFO groups; None: nobody may ask.
    behind: int | None

    @property
    def total(self) -> int:
        """How many messages were read, in all."""
        return len(self.known)

    @property
    def id_length(self) -> int:
        """How many characters tell their ids apart."""
        return id_length(self.known)

    @property
    def where(self) -> str:
        """The place of the messages that were read."""
        return "at the front of the queue's groups" if self.behind != 0 else "in the queue"

    def short(self, message_id: str) -> str:
        """Enough of an id to tell it from the others."""
        return message_id[: self.id_length]

    def note_if_empty(self) -> None:
        """Say on stderr that nothing was selected."""
        if not self.selected:
            screen.complain(f"Nothing matches among the {self.total} messages {self.where}.")

    def note_what_waits(self) -> None:
        """Say on stderr that messages wait behind those that were read, and how to come to them."""
        if self.behind != 0:
            number = "More messages may" if self.behind is None else f"About {self.behind} more messages"
            screen.complain(
                f"{number} wait behind others of their FIFO groups: SQS shows them once those are sent or discarded."
            )

    def following(self) -> Found | None:
        """What has come to the front of the FIFO groups since; None where nothing has, or no more is wanted."""
        if not self.queue.fifo or self.selection.ids or self.queue.stopped:
            return None
        limit = self.selection.limit
        if limit is not None:
            limit -= len(self.selected)
            if limit <= 0:
                return None
        found = _read(self.queue, replace(self.selection, limit=limit), self.known)
        return found if found.total > self.total else None


@contextmanager
def reading(sqs: Any, url: str, selection: Selection) -> Iterator[Found]:
    """Read all of the queue that can be; on the way out all that is left is visible again."""
    queue = DeadLetterQueue(sqs, url)
    try:
        with on_ending(interrupt), queue:
            found = _read(queue, selection)
            selection.check(found.known)
            yield found
    finally:
        if queue.stranded:
            screen.complain(f"{queue.stranded} messages could not be made visible again: SQS does so in ten minutes.")


def _read(queue: DeadLetterQueue, selection: Selection, before: Sequence[str] = ()) -> Found:
    known = list(before)
    dead_letters: list[ParsedDeadLetter] = []
    with screen.stderr().status("Reading the queue") as status:
        for message_id, body, sent_at, _ in queue.read():
            known.append(message_id)
            dead_letter = parse_dead_letter(message_id, body, sent_at)
            if selection.matches(dead_letter):
                dead_letters.append(dead_letter)
            status.update(f"Reading the queue: {len(known)} messages")
        return Found(queue, selection, selection.pick(dead_letters, in_order=queue.fifo), known, queue.behind())
