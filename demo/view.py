"""The terminal: what was written, who has it, how fast."""

from __future__ import annotations

import asyncio
import io
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from rich import box
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .comparison import Comparison
from .ledger import Ledger, Write, percentile

_WRITES_SHOWN = 14
# The view is drawn several times a second, for hours.
_WRITES_TIMED = 500
_REFRESH_SECONDS = 0.12
_STATUS_STYLES = {
    "OPEN": "bold red",
    "INVESTIGATING": "yellow",
    "RESOLVED": "green",
    "STARTED": "cyan",
    "SUCCEEDED": "green",
    "FAILED": "bold red",
}


@dataclass
class View:
    """Renders the ledger as it is at that moment."""

    ledger: Ledger
    posts: Counter[int]
    present: Mapping[str, object]
    url: str
    comparison: Comparison
    told: deque[str] = field(default_factory=lambda: deque(maxlen=4))

    def __rich__(self) -> RenderableType:
        """The whole picture."""
        told = (Text(line) for line in self.told)
        return Group(self._summary(), self._writes(), self._clients(), Text(self.comparison.in_words()), *told)

    def _summary(self) -> RenderableType:
        grid = Table.grid(padding=(0, 3))
        grid.add_row(
            Text.assemble(("Live page ", "dim"), (self.url, "bold underline")),
            _figure("written", str(len(self.ledger.writes))),
            _figure("delivered", f"{self.ledger.deliveries:,}"),
            _figure("posts", posts_in_words(self.posts)),
        )
        grid.add_row(
            Text("from table write to client", "dim"),
            *(_figure(name, value) for name, value in latencies_in_words(self.ledger, _WRITES_TIMED).items()),
        )
        return Panel(grid, title="[bold]async-relay[/] on a local AWS", box=box.ROUNDED, border_style="blue")

    def _writes(self) -> RenderableType:
        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
        for heading in ("written (UTC)", "what", "status"):
            table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1 if heading == "what" else None)
        for heading in ("clients", "first", "last"):
            table.add_column(heading, justify="right", no_wrap=True)
        for write in self.ledger.writes[-_WRITES_SHOWN:]:
            table.add_row(*_row(write))
        return table

    def _clients(self) -> RenderableType:
        cells = [
            Text.assemble(
                ("● " if name in self.present else "○ ", "green" if name in self.present else "dim"),
                name.removeprefix("dashboard-"),
                (f" {len(messages)}", "bold"),
                (f" {_milliseconds(self._last(name))}", "dim"),
            )
            for name, messages in sorted(self.ledger.received.items())
        ]
        return Panel(Columns(cells, padding=(0, 3)), title="dashboards: messages, latest latency", border_style="dim")

    def _last(self, name: str) -> float | None:
        recent = self.ledger.writes[:-50:-1]
        return next((write.took[name] for write in recent if name in write.took), None)


def posts_in_words(posts: Counter[int]) -> str:
    """Posts by their answer: ``1,201 (1,200 x 200, 1 x 410)``."""
    return f"{posts.total():,} ({', '.join(f'{count:,} x {status}' for status, count in sorted(posts.items()))})"


def latencies_in_words(ledger: Ledger, last: int = 0) -> dict[str, str]:
    """p50, p95 and the slowest delivery, of the ``last`` changes or of all."""
    ordered = ledger.latencies(last)
    return {
        name: _milliseconds(percentile(ordered, share)) for name, share in (("p50", 0.5), ("p95", 0.95), ("max", 1))
    }


def in_one_sentence(view: View) -> str:
    """What a round that went well comes to."""
    ledger, times = view.ledger, latencies_in_words(view.ledger)
    return (
        f"Every message reached every dashboard of its tenant, once and in order, and no other: "
        f"{len(ledger.writes)} changes, "
        f"{len(ledger.received)} dashboards, {ledger.deliveries:,} deliveries, posts: {posts_in_words(view.posts)}; "
        f"write to client p50 {times['p50']}, p95 {times['p95']}"
    )


def invocations_in_words(said: Mapping[str, Sequence[str]]) -> str:
    """How often each function ran, by the last line of each invocation in its log: ``Invocations: relay 12, ...``."""
    counts = {function: sum(line.startswith("REPORT ") for line in lines) for function, lines in sorted(said.items())}
    return f"Invocations: {', '.join(f'{function} {count}' for function, count in counts.items() if count)}"


@asynccontextmanager
async def shown(view: View, console: Console) -> AsyncIterator[Callable[[str], None]]:
    """Keep the view up to date while the body runs, or print lines where there is no terminal.

    Yields what takes words to tell.
    """
    if console.is_terminal:
        # Refreshed from here: the thread rich would use reads what the loop is changing.
        with Live(view, console=console, auto_refresh=False) as live:
            async with _repeatedly(live.refresh):
                yield view.told.append
    else:
        lines = _Lines(view.ledger, console)
        async with _repeatedly(lines.print_complete):
            yield lines.tell
        lines.print_rest()


@asynccontextmanager
async def _repeatedly(action: Callable[[], None]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            action()
            await asyncio.sleep(_REFRESH_SECONDS)

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])


class _Lines:
    """A line for each change that everybody has, in the order they were written."""

    def __init__(self, ledger: Ledger, console: Console) -> None:
        self._ledger = ledger
        self._console = console
        self._printed = 0

    def tell(self, text: str) -> None:
        self.print_complete()
        self._console.print(text, highlight=False, soft_wrap=True)

    def print_complete(self) -> None:
        for write in takewhile(lambda write: write.complete, self._ledger.writes[self._printed :]):
            self._print(write)

    def print_rest(self) -> None:
        for write in self._ledger.writes[self._printed :]:
            self._print(write)

    def _print(self, write: Write) -> None:
        when, what, status, clients, first, last = _row(write)
        text = Text.assemble("  ", when, "  ", what, " ", status, f"  {clients} clients  {first} to {last}")
        self._console.print(text, soft_wrap=True)
        self._printed += 1


def save_picture(view: View, path: Path) -> None:
    """Save the view as it stands, as an SVG."""
    console = Console(record=True, width=112, file=io.StringIO())
    console.print(view)
    console.save_svg(str(path), title="make demo")


def _figure(name: str, value: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), (value, "bold"))


def _row(write: Write) -> tuple[str, Text, Text, str, str, str]:
    item, took = write.change.item, write.took.values()
    whose = (f"{write.change.tenant:<10}", "dim")
    if "incident_id" in item:
        resource = item.get("arn") or item.get("resource") or item.get("sg", "")
        what = Text.assemble(whose, (item["incident_id"], "bold"), "  ", _end(item["event_type"], "/"))
        what.append(f"  {_end(resource, ':')}", "dim")
    else:
        what = Text.assemble(whose, (item["action"], "magenta"), ("  " + _end(item["target"], ":"), "dim"))
    return (
        write.change.marker.time[11:19],
        what,
        Text(item["status"], _STATUS_STYLES.get(item["status"], "")),
        f"{len(write.audience & write.took.keys())}/{len(write.audience)}",
        _milliseconds(min(took, default=None)),
        _milliseconds(max(took, default=None)),
    )


def _end(name: str, separator: str) -> str:
    """The part of a long name that tells it apart."""
    return name.rsplit(separator, 1)[-1]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:,.0f} ms"
