"""The house: its wings import downwards only, and CONTRIBUTING.md shows them as they are."""

from __future__ import annotations

from graphlib import TopologicalSorter

import architecture
from architecture import STOREYS, arrows, imports_of, modules, storey_of, wing_of


def test_every_wing_is_in_a_storey() -> None:
    """A new wing must be given its place."""
    assert {wing_of(name) for name in modules()} - {""} == {wing for wings in STOREYS for wing in wings}


def test_wings_import_downwards_only() -> None:
    """No wing imports one beside or above it."""
    assert [(above, below) for above, below in sorted(arrows()) if storey_of(above) <= storey_of(below)] == []


def test_modules_import_in_no_circle() -> None:
    """Within a wing there is an order too; a package's front door may import its rooms."""
    known = modules()
    graph = {
        name: {each for each in imports_of(name, path) if each in known and each != name}
        for name, path in known.items()
        if path.name != "__init__.py"
    }
    TopologicalSorter(graph).prepare()


def test_the_core_knows_no_sockets_and_no_aws() -> None:
    """What decides can be read, and run, without either."""
    strangers = {"aiobotocore", "aioboto3", "botocore", "httptools", "socket", "ssl", "uvloop"}
    for name, path in modules().items():
        if wing_of(name) in {"delivery", "wire", "errors"}:
            text = path.read_text()
            assert not [each for each in strangers if f"import {each}" in text or f"from {each}" in text], name


def test_the_picture_in_contributing_is_of_today() -> None:
    """``python tests/architecture.py`` draws it anew."""
    assert architecture.picture() in architecture.CONTRIBUTING.read_text()
