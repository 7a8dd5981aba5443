"""The package's imports, wing by wing: what a wing may import, and the picture of it in CONTRIBUTING.md.

python tests/architecture.py    writes the picture anew
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "async_relay"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
#: From the ground up: a wing imports from wings below it, never from one beside or above it.
STOREYS = (
    ("errors",),
    ("wire",),
    ("http", "logs"),
    ("settings", "metrics"),
    ("delivery",),
    ("aws", "clients", "testing"),
    ("services",),
    ("sandbox", "preload"),
    ("handler",),
    ("planning", "checks"),
    ("cli",),
    # For programs that are clients: it imports nothing of what runs in Lambda, and nothing imports it.
    ("client",),
)
_BLOCK = re.compile(r"(?<=<!-- imports -->\n).*?(?=<!-- /imports -->)", re.DOTALL)


def storey_of(wing: str) -> int:
    """How high a wing is; raises ``StopIteration`` where it is in no storey."""
    return next(height for height, wings in enumerate(STOREYS) if wing in wings)


def wing_of(module: str) -> str:
    """``http`` for async_relay.http.pool; the package itself is its front door and belongs to none."""
    parts = module.split(".")
    return parts[0] if parts[0] != PACKAGE else parts[1] if len(parts) > 1 else ""


def modules() -> dict[str, Path]:
    """Every module that is shipped, by its name."""
    found = {"handler": ROOT / "handler.py"}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path) -> Iterator[str]:
    """The modules of ours that this one imports, wherever in it the import stands."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            if source.split(".")[0] == PACKAGE:
                yield from (f"{source}.{alias.name}" if source == PACKAGE else source for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """Which wing imports which."""
    found = {(wing_of(name), wing_of(each)) for name, path in modules().items() for each in imports_of(name, path)}
    return {(above, below) for above, below in found if above and below and above != below}


def picture() -> str:
    """The wings and the arrows between them, as a Mermaid flowchart."""
    wings = [wing for wings in reversed(STOREYS) for wing in wings]
    lines = ["```mermaid", "flowchart TD", *(f"    {wing}" for wing in wings)]
    order = {wing: at for at, wing in enumerate(wings)}
    downwards = sorted(arrows(), key=lambda arrow: (order[arrow[0]], order[arrow[1]]))
    lines += [f"    {above} --> {below}" for above, below in downwards]
    return "\n".join([*lines, "```", ""])


if __name__ == "__main__":
    CONTRIBUTING.write_text(_BLOCK.sub(lambda _match: picture(), CONTRIBUTING.read_text()))
