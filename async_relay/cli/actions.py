"""Redrive and discard: read the queue, ask, act on the selected dead letters, and report each outcome."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from async_relay.wire.formatter import Formatter

from . import screen
from .failure import FAILED, CommandError
from .parsing import ParsedDeadLetter, parse_dead_letter
from .queues import DeadLetterQueue, SendQueue, interrupt, on_ending
from .redrive import Resend, Stay, redrive
from .selection import Selection, id_length

#: Stop a redrive or discard after this many failures and no success: one cause, such as a missing
#: permission, then fails them all.
_FAILURES_BEFORE_STOP = 10


@dataclass(frozen=True, slots=True)
class Found:
    """The result of reading a queue: the selected dead letters, and the queue that holds them."""

    queue: DeadLetterQueue
    selected: Sequence[ParsedDeadLetter]
    total: int
    id_length: int

    def short(self, message_id: str) -> str:
        """Enough of an id to tell it from the others."""
        return message_id[: self.id_length]


@contextmanager
def reading(sqs: Any, url: str, selection: Selection) -> Iterator[Found]:
    """Read the whole queue; on the way out all that is left is visible again."""
    queue = DeadLetterQueue(sqs, url)
    try:
        with on_ending(interrupt), queue:
            known: list[str] = []
            dead_letters: list[ParsedDeadLetter] = []
            with screen.stderr().status("Reading the queue") as status:
                for message_id, body, sent_at in queue.read():
                    known.append(message_id)
                    dead_letter = parse_dead_letter(message_id, body, sent_at)
                    if selection.matches(dead_letter):
                        dead_letters.append(dead_letter)
                    status.update(f"Reading the queue: {len(known)} messages")
            selection.check(known)
            yield Found(queue, selection.pick(dead_letters), len(known), id_length(known))
    finally:
        if queue.stranded:
            screen.complain(f"{queue.stranded} messages could not be made visible again: SQS does so in ten minutes.")


def _note_if_empty(found: Found) -> None:
    if not found.selected:
        screen.complain(f"Nothing matches among the {found.total} messages in the queue.")


@dataclass(slots=True)
class Tally:
    """How many of the selected dead letters were done, failed, not tried, or cannot be sent."""

    done: int = 0
    failed: int = 0
    left: int = 0
    staying: int = 0
    interrupted: bool = False

    def check(self) -> None:
        """Exit with 1 unless all of them were done, or as interrupted."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self.failed or self.left or self.staying:
            raise typer.Exit(FAILED)


def redrive_selected(found: Found, target: SendQueue, formatter: Formatter, *, dry_run: bool, yes: bool) -> Tally:
    """Send the selected dead letters to ``target`` after a confirmation, and report each outcome."""
    _note_if_empty(found)
    fates = {dead_letter.message_id: redrive(dead_letter, formatter) for dead_letter in found.selected}
    resends = {message_id: fate for message_id, fate in fates.items() if isinstance(fate, Resend)}
    staying = len(fates) - len(resends)
    found.queue.release(kept=() if dry_run else resends)
    for message_id, fate in fates.items():
        if isinstance(fate, Stay):
            screen.say(f"{found.short(message_id)}  stays: {fate.why}")
    if dry_run:
        for message_id, fate in resends.items():
            screen.say(f"{found.short(message_id)}  would send {fate.summary}")
        screen.say(f"Would send {len(resends)} of {len(fates)}; {staying} would stay.")
        return Tally()
    _confirm(f"Send {len(resends)} of {len(fates)} to {target.url}?", len(resends), yes=yes)
    move = partial(_move, found.queue, target, resends)
    tally = _act(found, list(resends), move, "Sending", lambda each: f"sent {resends[each].summary}")
    tally.staying = staying
    screen.say(f"Sent {tally.done}, failed {tally.failed}, not tried {tally.left}, {staying} cannot be sent.")
    return tally


def discard_selected(found: Found, save: Path | None, *, dry_run: bool, yes: bool) -> Tally:
    """Delete the selected dead letters after a confirmation, and report each outcome."""
    _note_if_empty(found)
    selected = [dead_letter.message_id for dead_letter in found.selected]
    found.queue.release(kept=() if dry_run else selected)
    if dry_run:
        for dead_letter in found.selected:
            screen.say(f"{found.short(dead_letter.message_id)}  would delete {dead_letter.reason}")
        screen.say(f"Would delete {len(selected)}.")
        return Tally()
    _confirm(f"Delete {len(selected)} for good{screen.tally(found.selected)}?", len(selected), yes=yes)
    if save is not None and selected:
        _save(save, found.selected)
    tally = _act(found, selected, partial(_delete, found.queue), "Deleting", lambda _: "deleted")
    screen.say(f"Deleted {tally.done}, failed {tally.failed}, not tried {tally.left}.")
    return tally


def _confirm(question: str, number: int, *, yes: bool) -> None:
    if yes or not number:
        return
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        screen.complain("")
        agreed = False
    if not agreed:
        raise CommandError("not confirmed, so nothing was done (where nobody can answer, use --yes)")


def _move(queue: DeadLetterQueue, target: SendQueue, resends: dict[str, Resend], message_id: str) -> None:
    """Send first, delete after: an end in between repeats a job, and never loses one."""
    queue.keep(message_id)
    for body in resends[message_id].bodies:
        target.send(body)
    try:
        queue.delete(message_id)
    except CommandError as error:
        raise CommandError(f"sent, but not deleted, so another redrive repeats it: {error}") from None


def _delete(queue: DeadLetterQueue, message_id: str) -> None:
    queue.keep(message_id)
    queue.delete(message_id)


def _act(found: Found, ids: list[str], act: Callable[[str], None], title: str, words: Callable[[str], str]) -> Tally:
    """Call ``act`` for each id, with a bar and a line per outcome; stop when only failures come, or at Ctrl-C."""
    tally = Tally(left=len(ids))

    def interrupted() -> None:
        tally.interrupted = True
        found.queue.stop()

    with _progress(title, len(ids)) as advance, on_ending(interrupted):
        for message_id, error in found.queue.each(ids, act):
            tally.left -= 1
            tally.done += error is None
            tally.failed += error is not None
            advance()
            screen.say(f"{found.short(message_id)}  {f'failed: {error}' if error else words(message_id)}")
            if tally.failed >= _FAILURES_BEFORE_STOP and not tally.done:
                found.queue.stop()
    return tally


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """Yield a function that advances a bar on stderr; it does nothing where stderr is no terminal."""
    console = screen.stderr()
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results move above the bar, but must still reach a stdout that is no terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield partial(progress.advance, progress.add_task(title, total=total))


def _save(path: Path, dead_letters: Sequence[ParsedDeadLetter]) -> None:
    """Write the bodies to the disk before anything is deleted."""
    try:
        with path.open("x", encoding="utf-8") as file:
            for dead_letter in dead_letters:
                file.write(json.dumps({"messageId": dead_letter.message_id, "body": dead_letter.body}) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandError(f"--save {path} cannot be written ({error.strerror}), so nothing was deleted") from None
