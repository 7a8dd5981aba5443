"""``async-relay replay``: send the relay once more what Lambda gave up and the bucket kept.

Rules
- The records go to the relay's stream function, as from the stream, and not into a queue: only that function
  publishes them in the feed, decides on fan-out, formats, and names what can never be delivered. A record that is
  sent twice has the same ``event_id``.
- The oldest objects come first, one at a time; those of the same second in the order of their SequenceNumbers.
- An item whose records could not be sent is left alone from then on, so that its changes keep their order: its
  later records stay for the next run, while those of other items go on.
- An object that is no batch of Lambda's is named and passed over. A bucket that does not answer ends it: nobody knows
  which items an object has that was not read.
- Nothing is deleted but with ``--delete``, and then an object whose every record was taken.
- An object that the function fails on is named and set aside. Where failures follow one another, it stops:
  ``streak`` says when.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated

import typer

from async_relay.wire.streams import Record

from . import screen
from .account import with_account
from .failure import FAILED, USAGE, CommandError
from .given_up import Choice, NoBatch, Stored, check_size, item_of, order, read_batch
from .pacing import Pacer
from .parsing import record_event
from .queues import on_ending
from .replay_ends import Bucket, Refused, RelayFunction
from .selection import parse_time
from .streak import Streak

_PREFIX = "aws/lambda/"
_SHOWN = 3


@screen.report_errors
@with_account
def replay(
    *,
    bucket: Annotated[
        str | None,
        typer.Option(
            "--bucket", envvar="STREAM_FAILURE_BUCKET", metavar="NAME", help="The stack's StreamFailureBucketName."
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option("--function", envvar="RELAY_FUNCTION", metavar="NAME", help="The stack's RelayFunctionName."),
    ] = None,
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="TEXT", help="Only objects whose key begins so.")
    ] = _PREFIX,
    incident: Annotated[
        str | None, typer.Option("--incident", metavar="ID", help="Only records of this incident id.")
    ] = None,
    event_id: Annotated[
        str | None, typer.Option("--event-id", metavar="ID", help="Only the record with this event id.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Given up at or after: 2h, 2025-01-31.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Given up before: 2h, 2025-01-31T12:00Z.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every object.")] = False,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, max=100_000, help="Records sent per second, at most.")
    ] = 100,
    delete: Annotated[bool, typer.Option("--delete", help="Delete each object once all of it is sent.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Send again what Lambda gave up. The bucket keeps the records, and the relay function gets them."""
    choice = _choice(incident, event_id, since, until)
    if (choice == Choice()) != everything:
        raise CommandError(
            "--all and filters exclude each other: give one of them"
            if everything
            else "nothing is chosen: give a filter like --since or --incident, or --all",
            USAGE,
        )
    source = Bucket(_named("bucket", "--bucket or STREAM_FAILURE_BUCKET", bucket))
    target = RelayFunction(_named("function", "--function or RELAY_FUNCTION", function))
    found = _find(source, prefix, choice)
    if not found:
        screen.say(f"No object under {prefix} in the bucket {source.name} is chosen.")
        return
    run = Replay(source, target, choice, Pacer(rate), delete=delete, dry_run=dry_run, left=len(found))
    chosen = "what is chosen of " if choice.narrow else ""
    then = ", and delete those that are sent whole" if delete else ""
    if not dry_run:
        question = f"Send {chosen}{_count(len(found), 'object')} to {target.name}{then}?"
        screen.confirm(question, len(found), yes=yes)
    try:
        run.send_all(found)
    finally:
        screen.say(run.summary())
    run.check()


def _choice(incident: str | None, event_id: str | None, since: str | None, until: str | None) -> Choice:
    now = time.time_ns() // 1_000_000
    for option, value in (("--incident", incident), ("--event-id", event_id)):
        if value == "":
            raise CommandError(f"{option} is empty: name one", USAGE)
    after = parse_time("--since", since, now) if since is not None else None
    before = parse_time("--until", until, now) if until is not None else None
    return Choice(incident, event_id, after, before)


def _named(noun: str, options: str, value: str | None) -> str:
    if not value or not value.strip():
        raise CommandError(f"no {noun}: give {options}", USAGE)
    return value.strip()


def _find(bucket: Bucket, prefix: str, choice: Choice) -> list[Stored]:
    """The objects whose time is meant, oldest first."""
    with screen.stderr().status("Listing the bucket"):
        return sorted(filter(choice.has_time, bucket.list(prefix)), key=lambda each: (each.at, each.key))


@dataclass(slots=True)
class Replay:
    """Sends the records of objects, and counts what came of it. ``left``: how many objects are not tried yet."""

    bucket: Bucket
    function: RelayFunction
    choice: Choice
    pacer: Pacer
    delete: bool
    dry_run: bool
    left: int
    sent: int = 0
    done: int = 0
    failed: int = 0
    unreadable: int = 0
    deleted: int = 0
    #: The times of the first object that is not done, and of the first that was not tried.
    first: int | None = None
    untried: int | None = None
    streak: Streak = field(default_factory=Streak)
    stopped: bool = False
    interrupted: bool = False
    _waiting: set[bytes] = field(default_factory=set)

    def send_all(self, found: Sequence[Stored]) -> None:
        """Send the objects in this order; Ctrl-C, or failures one after the other, leave the rest alone."""
        title = "Reading" if self.dry_run else "Sending"
        with screen.progress(title, len(found)) as advance, on_ending(self._interrupt):
            for _, second in groupby(found, key=lambda each: each.at):
                for stored, records in self._in_order(second):
                    if self.stopped:
                        self._note_untried(stored)
                        return
                    self._treat(stored, records)
                    advance()

    def _interrupt(self) -> None:
        self.interrupted = self.stopped = True

    def _in_order(self, second: Iterable[Stored]) -> list[tuple[Stored, list[Record]]]:
        """The readable ones of those that were given up in the same second, in the order of the stream."""
        return sorted(self._read(second), key=lambda each: order(each[1]))

    def _read(self, second: Iterable[Stored]) -> Iterator[tuple[Stored, list[Record]]]:
        for stored in second:
            if self.stopped:
                self._note_untried(stored)
                return
            try:
                check_size(stored)
                yield stored, read_batch(self.bucket.read(stored.key))
            except NoBatch as problem:
                self.left -= 1
                self.unreadable += 1
                screen.say(f"{stored.key}  passed over: {problem}")
            except CommandError:
                self._note_untried(stored)
                raise

    def _treat(self, stored: Stored, records: Sequence[Record]) -> None:
        """Send one object's records, as far as they are meant and their items are not waiting."""
        meant = self.choice.records(records)
        ready = [each for each in meant if item_of(each) not in self._waiting]
        if ready and not self.dry_run:
            self.pacer.wait(len(ready), lambda: self.stopped)
        if self.stopped:
            self._note_untried(stored)
            return
        self.left -= 1
        if self.dry_run:
            self._would_send(stored, meant)
            return
        problem = self._send(ready) if ready else ""
        if not problem and len(ready) < len(meant):
            problem = f"{_count(len(meant) - len(ready), 'record')} wait, since an earlier change of the item failed"
        if problem:
            self.failed += 1
            self._note_undone(stored)
            screen.say(f"{stored.key}  failed: {problem}")
            self.stopped = self.stopped or bool(self.streak.ending)
            return
        if ready:
            self.done += 1
            screen.say(f"{stored.name}  sent {_count(len(ready), 'record')}{self._delete(stored, records, ready)}")

    def _would_send(self, stored: Stored, meant: Sequence[Record]) -> None:
        if meant:
            self.done += 1
            self.sent += len(meant)
            events = [record_event(each.raw) for each in meant]
            about = dict.fromkeys(each.subject or each.event_id or "?" for each in events)
            more = f" and {len(about) - _SHOWN} more" if len(about) > _SHOWN else ""
            named = ", ".join(map(screen.cut, list(about)[:_SHOWN]))
            screen.say(f"{stored.name}  would send {_count(len(meant), 'record')}: {named}{more}")

    def _send(self, records: Sequence[Record]) -> str:
        """Send them, and note what did not get through; what is wrong, empty where all were taken."""
        try:
            back = self.function.send(records)
        except CommandError as error:
            self._waiting.update(map(item_of, records))
            self.streak.failed(object_to_blame=isinstance(error, Refused))
            return str(error)
        self._waiting.update(map(item_of, back))
        self.sent += len(records) - len(back)
        if len(back) < len(records):
            self.streak.sent()
        else:
            self.streak.failed(object_to_blame=True)
        return f"{len(back)} of {_count(len(records), 'record')} came back; the function's log says why" if back else ""

    def _delete(self, stored: Stored, records: Sequence[Record], sent: Sequence[Record]) -> str:
        """Delete an object of which everything was sent; what that came to, for its line."""
        if not self.delete:
            return ""
        if len(sent) < len(records):
            return "; it has others, so it stays"
        try:
            self.bucket.delete(stored.key)
        except CommandError as error:
            self.failed += 1
            return f", but it could not be deleted, so another run repeats it: {error}"
        self.deleted += 1
        return ", and deleted it"

    def _note_undone(self, stored: Stored) -> None:
        if self.first is None:
            self.first = stored.at

    def _note_untried(self, stored: Stored) -> None:
        self._note_undone(stored)
        if self.untried is None:
            self.untried = stored.at

    def summary(self) -> str:
        """How far it came, why it stopped, and how to go on."""
        told = (
            f"{'Would send' if self.dry_run else 'Sent'} {_count(self.sent, 'record')} of {_count(self.done, 'object')}"
            f"; {self.failed:,} failed, {self.unreadable:,} unreadable, {self.left:,} not tried"
            + (f"; {self.deleted:,} deleted." if self.delete and not self.dry_run else ".")
        )
        if self.first is None:
            return told
        told += f" Stopped: {self.streak.ending}" if self.streak.ending else ""
        since = screen.clock(self.first)
        others = " and the other filters" if self.choice.narrow or self.choice.until is not None else ""
        return f"{told}{self._past()} What was given up before {since} is done: go on with --since {since}{others}"

    def _past(self) -> str:
        """How to leave alone for now what failed before the first that was not tried, if that is what stopped it."""
        if not self.streak.is_of_objects or self.untried is None or self.untried == self.first:
            return ""
        later = "later changes of their items then go out before them"
        return f" --since {screen.clock(self.untried)} leaves out those that failed, and {later}."

    def check(self) -> None:
        """Raise what the exit code says, unless all that is meant was done."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self.failed or self.unreadable or self.left:
            raise typer.Exit(FAILED)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
