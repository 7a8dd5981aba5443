"""Redrive and discard: ask, act on the selected dead letters, and report each outcome."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import typer

from async_relay.wire.formatter import Formatter

from . import dead_letter_views, screen
from .failure import FAILED, CommandError
from .parsing import ParsedDeadLetter
from .queues import DeadLetterQueue, SendQueue, on_ending
from .reading import Found
from .redrive import Resend, Stay, redrive

#: Stop a redrive or discard after this many failures and no success: one cause, such as a missing
#: permission, then fails them all.
_FAILURES_BEFORE_STOP = 10


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
    found.note_if_empty()
    tally = Tally()
    resends = _judge(found, formatter, tally)
    number = len(found.selected)
    if dry_run:
        for message_id, fate in resends.items():
            screen.say(f"{found.short(message_id)}  would send {fate.summary}")
        screen.say(f"Would send {len(resends)} of {number}; {tally.staying} would stay.")
        found.note_what_waits()
        return Tally()
    question = f"Send {len(resends)} of {number}{_with_the_rest(found)} to {target.url}?"
    screen.confirm(question, len(resends), yes=yes)
    following: Found | None = found
    try:
        while following is not None:
            found = following
            move = partial(_move, found.queue, target, resends)
            _act(found, tally, list(resends), move, "Sending", partial(_sent, resends))
            following = found.following()
            if following is not None:
                resends = _judge(following, formatter, tally)
    finally:
        screen.say(f"Sent {tally.done}, failed {tally.failed}, not tried {tally.left}, {tally.staying} cannot be sent.")
    _note_the_rest(found)
    return tally


def discard_selected(found: Found, save: Path | None, *, dry_run: bool, yes: bool) -> Tally:
    """Delete the selected dead letters after a confirmation, and report each outcome."""
    found.note_if_empty()
    selected = [dead_letter.message_id for dead_letter in found.selected]
    _release(found, selected)
    if dry_run:
        for dead_letter in found.selected:
            screen.say(f"{found.short(dead_letter.message_id)}  would delete {dead_letter.reason}")
        screen.say(f"Would delete {len(selected)}.")
        found.note_what_waits()
        return Tally()
    counts = dead_letter_views.tally(found.selected)
    screen.confirm(f"Delete {len(selected)} for good{_with_the_rest(found)}{counts}?", len(selected), yes=yes)
    tally, mode = Tally(), "x"
    following: Found | None = found
    try:
        while following is not None:
            found = following
            selected = [dead_letter.message_id for dead_letter in found.selected]
            tally.left += len(selected)
            if save is not None and selected:
                _save(save, found.selected, mode)
                mode = "a"
            _act(found, tally, selected, partial(_delete, found.queue), "Deleting", lambda _: "deleted")
            following = found.following()
    finally:
        screen.say(f"Deleted {tally.done}, failed {tally.failed}, not tried {tally.left}.")
    _note_the_rest(found)
    return tally


def _judge(found: Found, formatter: Formatter, tally: Tally) -> dict[str, Resend]:
    """What is to be sent; what stays is named and given back."""
    fates = {dead_letter.message_id: redrive(dead_letter, formatter) for dead_letter in found.selected}
    resends = {message_id: fate for message_id, fate in fates.items() if isinstance(fate, Resend)}
    _release(found, resends)
    for message_id, fate in fates.items():
        if isinstance(fate, Stay):
            screen.say(f"{found.short(message_id)}  stays: {fate.why}")
    tally.left += len(resends)
    tally.staying += len(fates) - len(resends)
    return resends


def _release(found: Found, kept: Collection[str]) -> None:
    """Give back what nothing is done with; of a FIFO queue at the end only, or the next reading would begin with it."""
    if not found.queue.fifo:
        found.queue.release(kept)


def _with_the_rest(found: Found) -> str:
    return ", and what waits behind," if found.behind != 0 and not found.selection.ids else ""


def _note_the_rest(found: Found) -> None:
    if found.queue.fifo and not found.selection.ids:
        replace(found, behind=found.queue.behind()).note_what_waits()


def _sent(resends: Mapping[str, Resend], message_id: str) -> str:
    return f"sent {resends[message_id].summary}"


def _move(queue: DeadLetterQueue, target: SendQueue, resends: dict[str, Resend], message_id: str) -> None:
    """Send first, delete after: an end in between repeats a job, and never loses one."""
    queue.keep(message_id)
    group = queue.group(message_id)
    for body in resends[message_id].bodies:
        # A FIFO queue drops an id it has had within five minutes. The job's own may be one of those; this one is only
        # if this very body was sent for this very dead letter, whose message id is never used again.
        target.send(body, group, f"{message_id}-{sha256(body.encode()).hexdigest()[:32]}")
    try:
        queue.delete(message_id)
    except CommandError as error:
        raise CommandError(f"sent, but not deleted, so another redrive repeats it: {error}") from None


def _delete(queue: DeadLetterQueue, message_id: str) -> None:
    queue.keep(message_id)
    queue.delete(message_id)


def _act(
    found: Found, tally: Tally, ids: list[str], act: Callable[[str], None], title: str, words: Callable[[str], str]
) -> None:
    """Call ``act`` for each id, all counted as left, with a bar and a line per outcome.

    Stop when only failures come, or at Ctrl-C.
    """

    def interrupted() -> None:
        tally.interrupted = True
        found.queue.stop()

    with screen.progress(title, len(ids)) as advance, on_ending(interrupted):
        for message_id, error in found.queue.each(ids, act):
            tally.left -= 1
            tally.done += error is None
            tally.failed += error is not None
            advance()
            screen.say(f"{found.short(message_id)}  {f'failed: {error}' if error else words(message_id)}")
            if tally.failed >= _FAILURES_BEFORE_STOP and not tally.done:
                found.queue.stop()


def _save(path: Path, dead_letters: Sequence[ParsedDeadLetter], mode: str) -> None:
    """Write the bodies to the disk before any of these is deleted; mode ``a`` for those of a later reading."""
    try:
        with path.open(mode, encoding="utf-8") as file:
            for dead_letter in dead_letters:
                file.write(json.dumps({"messageId": dead_letter.message_id, "body": dead_letter.body}) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        nothing = "nothing" if mode == "x" else "nothing more"
        raise CommandError(f"--save {path} cannot be written ({error.strerror}), so {nothing} was deleted") from None
