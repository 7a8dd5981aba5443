"""``async-relay dead-letters``: see what could not be delivered, send it again, or throw it away.

Reading a queue means receiving: while a command runs, the messages it reads are invisible to others;
when it ends, those that are still there are visible again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import screen
from .choice import Choice, check_ids, id_length, parse_age, parse_time
from .failure import FAILED, USAGE, CommandError
from .letters import Letter, read_letter
from .queues import DeadLetterQueue, SendQueue, check_url, connect, interrupt, on_ending
from .redrive import Resend, Stay, redrive

app = typer.Typer(
    help="Show, send again or throw away what could not be delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: Stop a redrive or discard when so many failed and none succeeded: the next would not either.
_HOPELESS = 10

QueueUrl = Annotated[
    str | None, typer.Option("--queue-url", envvar="DEAD_LETTER_QUEUE_URL", help="The dead-letter queue.")
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids, or how they begin.")]
Reasons = Annotated[list[str] | None, typer.Option("--reason", help="Only this reason; may be repeated.")]
EventId = Annotated[str | None, typer.Option("--event-id", help="Only letters with this event id.")]
Client = Annotated[str | None, typer.Option("--client", help="Only letters for this connection id.")]
Incident = Annotated[str | None, typer.Option("--incident", help="Only letters about this incident id.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Last tried at or after: 2h, 2025-01-31.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Last tried before: 2h, 2025-01-31.")]
OlderThan = Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Last tried so long ago: 2h, 3d.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest.")]
All = Annotated[bool, typer.Option("--all", help="Every letter in the queue.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]


@app.command("list")
@screen.one_sentence
def list_letters(
    *,
    queue_url: QueueUrl = None,
    reason: Reasons = None,
    event_id: EventId = None,
    client: Client = None,
    incident: Incident = None,
    since: Since = None,
    until: Until = None,
    older_than: OlderThan = None,
    limit: Limit = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON array, without the payloads.")] = False,
) -> None:
    """Show what lies in the dead-letter queue, oldest first, and leave it there."""
    choice = _choice(None, reason, event_id, client, incident, since, until, older_than, limit)
    url = _dead_letter_url(queue_url)
    with _reading(connect(url), url, choice) as found:
        found.queue.release()
        if as_json:
            print(screen.as_json(found.chosen))
        else:
            screen.print_table(found.chosen, found.id_length, found.total)


@app.command()
@screen.one_sentence
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Message ids, or how they begin.")],
    *,
    queue_url: QueueUrl = None,
) -> None:
    """Show whole letters, payloads and all, and leave them in the queue."""
    url = _dead_letter_url(queue_url)
    with _reading(connect(url), url, Choice(ids=check_ids(ids))) as found:
        found.queue.release()
        for letter in found.chosen:
            fate = redrive(letter)
            screen.print_letter(letter, f"sends {fate.summary}" if isinstance(fate, Resend) else f"not: {fate.why}")


@app.command("redrive")
@screen.one_sentence
def redrive_letters(
    ids: Ids = None,
    *,
    queue_url: QueueUrl = None,
    to: Annotated[str | None, typer.Option("--to", envvar="RETRY_QUEUE_URL", help="The retry queue.")] = None,
    reason: Reasons = None,
    event_id: EventId = None,
    client: Client = None,
    incident: Incident = None,
    since: Since = None,
    until: Until = None,
    older_than: OlderThan = None,
    limit: Limit = None,
    everything: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Send letters back to the retry queue, and delete each once it is sent."""
    choice = _choice(ids, reason, event_id, client, incident, since, until, older_than, limit)
    _check_explicit(choice, everything)
    url, target_url = _dead_letter_url(queue_url), _retry_url(to)
    if url == target_url:
        raise CommandError(f"--to is the dead-letter queue itself, {url}: name the retry queue", USAGE)
    sqs = connect(url)
    target = SendQueue(sqs, target_url)
    target.check()
    with _reading(sqs, url, choice) as found:
        _note_if_empty(found)
        done = _send_back(found, target, dry_run=dry_run, yes=yes)
    done.check()


@app.command()
@screen.one_sentence
def discard(
    ids: Ids = None,
    *,
    queue_url: QueueUrl = None,
    reason: Reasons = None,
    event_id: EventId = None,
    client: Client = None,
    incident: Incident = None,
    since: Since = None,
    until: Until = None,
    older_than: OlderThan = None,
    limit: Limit = None,
    everything: All = False,
    save: Annotated[Path | None, typer.Option("--save", help="Write the bodies here first, as JSON lines.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete letters for good."""
    choice = _choice(ids, reason, event_id, client, incident, since, until, older_than, limit)
    _check_explicit(choice, everything)
    if save is not None and save.exists():
        raise CommandError(f"--save {save} exists already: name a new file", USAGE)
    url = _dead_letter_url(queue_url)
    with _reading(connect(url), url, choice) as found:
        _note_if_empty(found)
        done = _throw_away(found, save, dry_run=dry_run, yes=yes)
    done.check()


def _choice(
    ids: list[str] | None,
    reasons: list[str] | None,
    event_id: str | None,
    client: str | None,
    incident: str | None,
    since: str | None,
    until: str | None,
    older_than: str | None,
    limit: int | None,
) -> Choice:
    now = time.time_ns() // 1_000_000
    if until is not None and older_than is not None:
        raise CommandError("--until and --older-than say the same: give one of them", USAGE)
    before = parse_time("--until", until, now) if until is not None else None
    if older_than is not None:
        before = now - parse_age("--older-than", older_than)
    after = parse_time("--since", since, now) if since is not None else None
    return Choice(check_ids(ids or ()), tuple(reasons or ()), event_id, client, incident, after, before, limit)


def _check_explicit(choice: Choice, everything: bool) -> None:  # noqa: FBT001 - an option, passed on
    ways = bool(choice.ids) + choice.filtered + everything
    if ways == 0:
        raise CommandError("nothing is chosen: give ids, a filter like --reason, or --all", USAGE)
    if ways > 1:
        raise CommandError("ids, filters and --all exclude each other: give one of them", USAGE)


def _dead_letter_url(url: str | None) -> str:
    instead = "for what a FIFO queue gave up, use SQS's own redrive, aws sqs start-message-move-task"
    return check_url("--queue-url or DEAD_LETTER_QUEUE_URL", url, instead)


def _retry_url(url: str | None) -> str:
    return check_url("--to or RETRY_QUEUE_URL", url, "a FIFO queue cannot delay one message")


@dataclass(frozen=True, slots=True)
class _Found:
    """What was read: the chosen letters, and the queue that holds them."""

    queue: DeadLetterQueue
    chosen: Sequence[Letter]
    total: int
    id_length: int

    def short(self, message_id: str) -> str:
        return message_id[: self.id_length]


@contextmanager
def _reading(sqs: Any, url: str, choice: Choice) -> Iterator[_Found]:
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
            yield _Found(queue, choice.pick(letters), len(known), id_length(known))
    finally:
        if queue.stranded:
            screen.complain(f"{queue.stranded} messages could not be made visible again: SQS does so in ten minutes.")


def _note_if_empty(found: _Found) -> None:
    if not found.chosen:
        screen.complain(f"Nothing matches among the {found.total} messages in the queue.")


@dataclass(slots=True)
class _Tally:
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


def _send_back(found: _Found, target: SendQueue, *, dry_run: bool, yes: bool) -> _Tally:
    fates = {letter.message_id: redrive(letter) for letter in found.chosen}
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
        return _Tally()
    _confirm(f"Send {len(resends)} of {len(fates)} to {target.url}?", len(resends), yes=yes)
    move = partial(_move, found.queue, target, resends)
    tally = _act(found, list(resends), move, "Sending", lambda each: f"sent {resends[each].summary}")
    tally.staying = staying
    screen.say(f"Sent {tally.done}, failed {tally.failed}, not tried {tally.left}, {staying} cannot be sent.")
    return tally


def _throw_away(found: _Found, save: Path | None, *, dry_run: bool, yes: bool) -> _Tally:
    chosen = [letter.message_id for letter in found.chosen]
    found.queue.release(kept=() if dry_run else chosen)
    if dry_run:
        for letter in found.chosen:
            screen.say(f"{found.short(letter.message_id)}  would delete {letter.reason}")
        screen.say(f"Would delete {len(chosen)}.")
        return _Tally()
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


def _act(found: _Found, ids: list[str], act: Callable[[str], None], title: str, words: Callable[[str], str]) -> _Tally:
    """Do it for each, with a bar and a line for every outcome; stop where it is hopeless, or at Ctrl-C."""
    tally = _Tally(left=len(ids))

    def interrupted() -> None:
        tally.interrupted = True
        found.queue.stop()

    with _progress() as progress, on_ending(interrupted):
        task = progress.add_task(title, total=len(ids))
        for message_id, error in found.queue.each(ids, act):
            tally.left -= 1
            tally.done += error is None
            tally.failed += error is not None
            progress.advance(task)
            screen.say(f"{found.short(message_id)}  {f'failed: {error}' if error else words(message_id)}")
            if tally.failed >= _HOPELESS and not tally.done:
                found.queue.stop()
    return tally


def _progress() -> Progress:
    """A bar on stderr, where that is a terminal; results must still reach a stdout that is not."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = screen.stderr()
    return Progress(
        *columns,
        console=console,
        disable=not console.is_terminal,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
    )


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
