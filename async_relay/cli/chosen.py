"""The letters a command chose, and what it does to them: read, ask, act, and say what became of each."""

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
from .choice import Choice, id_length
from .failure import FAILED, CommandError
from .letters import Letter, read_letter
from .queues import DeadLetterQueue, SendQueue, interrupt, on_ending
from .redrive import Resend, Stay, redrive

#: Stop a redrive or discard when so many failed and none succeeded: the next would not either.
_HOPELESS = 10


@dataclass(frozen=True, slots=True)
class Found:
    """What was read: the chosen letters, and the queue that holds them."""

    queue: DeadLetterQueue
    chosen: Sequence[Letter]
    total: int
    id_length: int

    def short(self, message_id: str) -> str:
        """Enough of an id to tell it from the others."""
        return message_id[: self.id_length]


@contextmanager
def reading(sqs: Any, url: str, choice: Choice) -> Iterator[Found]:
    """Read the whole queue; on the way out all that is left is visible again."""
    queue = DeadLetterQueue(sqs, url)
    try:
        with on_ending(interrupt), queue:
            known: list[str] = []
            letters: list[Letter] = []
            with screen.stderr().status("Reading the queue") as status:
                for message_id, body, sent_at in queue.read():
                    known.append(message_id)
                    letter = read_letter(message_id, body, sent_at)
                    if choice.takes(letter):
                        letters.append(letter)
                    status.update(f"Reading the queue: {len(known)} messages")
            choice.check(known)
            yield Found(queue, choice.pick(letters), len(known), id_length(known))
    finally:
        if queue.stranded:
            screen.complain(f"{queue.stranded} messages could not be made visible again: SQS does so in ten minutes.")


def _note_if_empty(found: Found) -> None:
    if not found.chosen:
        screen.complain(f"Nothing matches among the {found.total} messages in the queue.")


@dataclass(slots=True)
class Tally:
    """What became of the chosen letters."""

    done: int = 0
    failed: int = 0
    left: int = 0
    staying: int = 0
    interrupted: bool = False

    def check(self) -> None:
        """Leave with the exit code of what was not done."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self.failed or self.left or self.staying:
            raise typer.Exit(FAILED)


def send_back(found: Found, target: SendQueue, formatter: Formatter, *, dry_run: bool, yes: bool) -> Tally:
    """Redrive what was chosen, ask first, say what became of each."""
    _note_if_empty(found)
    fates = {letter.message_id: redrive(letter, formatter) for letter in found.chosen}
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


def throw_away(found: Found, save: Path | None, *, dry_run: bool, yes: bool) -> Tally:
    """Delete what was chosen, ask first, say what became of each."""
    _note_if_empty(found)
    chosen = [letter.message_id for letter in found.chosen]
    found.queue.release(kept=() if dry_run else chosen)
    if dry_run:
        for letter in found.chosen:
            screen.say(f"{found.short(letter.message_id)}  would delete {letter.reason}")
        screen.say(f"Would delete {len(chosen)}.")
        return Tally()
    _confirm(f"Delete {len(chosen)} for good{screen.tally(found.chosen)}?", len(chosen), yes=yes)
    if save is not None and chosen:
        _save(save, found.chosen)
    tally = _act(found, chosen, partial(_delete, found.queue), "Deleting", lambda _: "deleted")
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
    """Do it for each, with a bar and a line for every outcome; stop where it is hopeless, or at Ctrl-C."""
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
            if tally.failed >= _HOPELESS and not tally.done:
                found.queue.stop()
    return tally


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[], None]]:
    """What moves a bar on stderr on by one; where that is no terminal, nothing."""
    console = screen.stderr()
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Results move above the bar, but must still reach a stdout that is no terminal.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as progress:
        yield partial(progress.advance, progress.add_task(title, total=total))


def _save(path: Path, letters: Sequence[Letter]) -> None:
    """Write the bodies and see them on the disk, before anything is deleted."""
    try:
        with path.open("x", encoding="utf-8") as file:
            for letter in letters:
                file.write(json.dumps({"messageId": letter.message_id, "body": letter.body}) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CommandError(f"--save {path} cannot be written ({error.strerror}), so nothing was deleted") from None
