"""``async-relay dead-letters``: see what could not be delivered, send it again, or throw it away.

Reading a queue means receiving: while a command runs, the messages it reads are invisible to others;
when it ends, those that are still there are visible again. Of a FIFO queue only the front of each group can
be read: ``list`` and ``show`` say so, ``redrive`` and ``discard`` go on to the end.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from async_relay.wire.formatter import Formatter, load_formatter, with_tenant
from async_relay.wire.incidents import format_item

from . import dead_letter_views, screen
from .account import with_account
from .actions import discard_selected, redrive_selected
from .failure import USAGE, CommandError
from .queues import SendQueue, check_url, connect, is_fifo
from .reading import reading
from .redrive import Resend, redrive
from .selection import Selection, check_ids, parse_age, parse_time

app = typer.Typer(
    help="Show, send again or throw away what could not be delivered.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_with_account = partial(
    with_account, region_help="AWS Region; else the one in the queue's URL, AWS_REGION or the profile's."
)

QueueUrl = Annotated[
    str | None,
    typer.Option("--queue-url", metavar="URL", envvar="DEAD_LETTER_QUEUE_URL", help="The dead-letter queue."),
]
FormatterName = Annotated[
    str | None,
    typer.Option("--formatter", envvar="MESSAGE_FORMATTER", metavar="MODULE:FUNCTION", help="The relay's own, if any."),
]
TenantAttribute = Annotated[
    str | None,
    typer.Option(
        "--tenant-attribute", envvar="TENANT_ATTRIBUTE", metavar="NAME", help="The relay's own, if tenants are on."
    ),
]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Message ids, or how they begin.")]
Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="REASON", help="Only this reason, like refused; may be repeated."),
]
EventId = Annotated[str | None, typer.Option("--event-id", metavar="ID", help="Only dead letters with this event id.")]
Client = Annotated[str | None, typer.Option("--client", metavar="ID", help="Only dead letters for this connection id.")]
Incident = Annotated[
    str | None, typer.Option("--incident", metavar="ID", help="Only dead letters about this incident id.")
]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Last tried at or after: 2h, 2025-01-31.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Last tried before: 2h, 2025-01-31.")]
OlderThan = Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Last tried so long ago: 2h, 3d.")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many, the oldest.")]
_TO = (
    "The retry queue, or RETRY_QUEUE_URL; where the dead-letter queue is FIFO: the fan-out queue, or FANOUT_QUEUE_URL."
)
All = Annotated[bool, typer.Option("--all", help="Every dead letter in the queue.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]


@app.command("list", epilog="Example: async-relay dead-letters list --reason refused --since 2h")
@screen.report_errors
@_with_account
def list_dead_letters(
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
    """Show the dead letters, oldest first. They stay in the queue."""
    selection = _selection(None, reason, event_id, client, incident, since, until, older_than, limit)
    url = _dead_letter_url(queue_url)
    with reading(connect(url), url, selection) as found:
        found.queue.release()
        if as_json:
            print(dead_letter_views.as_json(found.selected))
        else:
            dead_letter_views.print_table(found.selected, found.id_length, found.total, found.where)
        found.note_what_waits()


@app.command(epilog="Example: async-relay dead-letters show 5753b066")
@screen.report_errors
@_with_account
def show(
    ids: Annotated[list[str], typer.Argument(metavar="ID", help="Message ids, or how they begin.")],
    *,
    queue_url: QueueUrl = None,
    formatter: FormatterName = None,
    tenant_attribute: TenantAttribute = None,
) -> None:
    """Show whole dead letters, payloads and all. They stay in the queue."""
    url, format_record = _dead_letter_url(queue_url), _formatter(formatter, tenant_attribute)
    with reading(connect(url), url, Selection(ids=check_ids(ids))) as found:
        found.queue.release()
        for dead_letter in found.selected:
            fate = redrive(dead_letter, format_record)
            dead_letter_views.print_dead_letter(
                dead_letter, f"sends {fate.summary}" if isinstance(fate, Resend) else f"not: {fate.why}"
            )


@app.command("redrive", epilog="Example: async-relay dead-letters redrive --incident i-17 --dry-run")
@screen.report_errors
@_with_account
def redrive_dead_letters(
    ids: Ids = None,
    *,
    queue_url: QueueUrl = None,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help=_TO)] = None,
    formatter: FormatterName = None,
    tenant_attribute: TenantAttribute = None,
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
    """Send dead letters back to be tried again. Each is deleted from its queue once it is sent."""
    selection = _selection(ids, reason, event_id, client, incident, since, until, older_than, limit)
    _check_explicit(selection, everything)
    url, format_record = _dead_letter_url(queue_url), _formatter(formatter, tenant_attribute)
    target_url = _target_url(to, fifo=is_fifo(url))
    if url == target_url:
        raise CommandError(f"--to is the dead-letter queue itself, {url}: name the retry queue", USAGE)
    sqs = connect(url)
    target = SendQueue(sqs, target_url)
    target.check()
    with reading(sqs, url, selection) as found:
        done = redrive_selected(found, target, format_record, dry_run=dry_run, yes=yes)
    done.check()


@app.command(epilog="Example: async-relay dead-letters discard --reason refused --save old.jsonl")
@screen.report_errors
@_with_account
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
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Write the bodies here first, as JSON lines.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters for good."""
    selection = _selection(ids, reason, event_id, client, incident, since, until, older_than, limit)
    _check_explicit(selection, everything)
    if save is not None and save.exists():
        raise CommandError(f"--save {save} exists already: name a new file", USAGE)
    url = _dead_letter_url(queue_url)
    with reading(connect(url), url, selection) as found:
        done = discard_selected(found, save, dry_run=dry_run, yes=yes)
    done.check()


def _selection(
    ids: list[str] | None,
    reasons: list[str] | None,
    event_id: str | None,
    client: str | None,
    incident: str | None,
    since: str | None,
    until: str | None,
    older_than: str | None,
    limit: int | None,
) -> Selection:
    now = time.time_ns() // 1_000_000
    if until is not None and older_than is not None:
        raise CommandError("--until and --older-than say the same: give one of them", USAGE)
    before = parse_time("--until", until, now) if until is not None else None
    if older_than is not None:
        before = now - parse_age("--older-than", older_than)
    after = parse_time("--since", since, now) if since is not None else None
    return Selection(check_ids(ids or ()), tuple(reasons or ()), event_id, client, incident, after, before, limit)


def _check_explicit(selection: Selection, everything: bool) -> None:  # noqa: FBT001 - an option, passed on
    ways = bool(selection.ids) + selection.filtered + everything
    if ways == 0:
        raise CommandError("nothing is chosen: give ids, a filter like --reason, or --all", USAGE)
    if ways > 1:
        raise CommandError("ids, filters and --all exclude each other: give one of them", USAGE)


def _dead_letter_url(url: str | None) -> str:
    return check_url("--queue-url or DEAD_LETTER_QUEUE_URL", url)


def _target_url(given: str | None, *, fifo: bool) -> str:
    """A queue of the dead-letter queue's own kind: jobs from a FIFO queue keep their order in one only."""
    variable = "FANOUT_QUEUE_URL" if fifo else "RETRY_QUEUE_URL"
    name = f"--to or {variable}"
    url = check_url(name, os.environ.get(variable) if given is None else given)
    if fifo and not is_fifo(url):
        raise CommandError(
            f"{name} is {url}; it must be the FIFO queue that these jobs came from: another would lose their order",
            USAGE,
        )
    if is_fifo(url) and not fifo:
        raise CommandError(
            f"{name} is the FIFO queue {url}; it must be a standard queue: a FIFO queue cannot delay one message", USAGE
        )
    return url


def _formatter(name: str | None, tenant_attribute: str | None) -> Formatter:
    """The relay's formatter: what it makes of a record bears the tenant of the record's item, as it did before."""
    try:
        formatter = load_formatter(name) if name else format_item
    except ValueError as expected:
        raise CommandError(f"--formatter or MESSAGE_FORMATTER is {name!r}; it must be {expected}", USAGE) from None
    return with_tenant(formatter, (tenant_attribute or "").strip() or None)
