"""An object in a process of its own: calls go there, and what they return or raise comes back."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Self

import pytest

from async_relay.testing.process import RemoteObject


class Ledger:
    """What the process holds; pytest's workers import this module there by its name."""

    def __init__(self, start: int) -> None:
        self.total = start
        self.entered = False

    async def __aenter__(self) -> Self:
        self.entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.entered = False

    def add(self, *numbers: int) -> int:
        self.total += sum(numbers)
        return self.total

    async def add_later(self, number: int) -> int:
        return self.add(number)

    def pid(self) -> int:
        return os.getpid()

    def fail(self) -> None:
        raise ValueError("no such page")


def ledger(start: int = 0) -> RemoteObject:
    return RemoteObject("test_process", "Ledger", {"start": start}, os.environ)


def test_attributes_methods_and_coroutines_are_those_of_the_process() -> None:
    """Each is asked for by its name, of an object that was entered with its options."""
    with closing(ledger(5)) as remote:
        assert remote.call("entered") is True
        assert remote.call("add", 1, 2) == 8
        assert remote.call("add_later", 2) == 10
        assert remote.call("total") == 10
        assert remote.call("pid") == remote.pid != os.getpid()


def test_an_error_there_is_raised_here_and_the_next_call_is_served() -> None:
    """The exception is the same, with its words; so is one for a name that the object does not have."""
    with closing(ledger()) as remote:
        with pytest.raises(ValueError, match="no such page"):
            remote.call("fail")
        with pytest.raises(AttributeError, match="burn"):
            remote.call("burn")
        assert remote.call("total") == 0


def test_threads_take_turns() -> None:
    """Calls from four threads at once each get their own answer."""
    with closing(ledger()) as remote, ThreadPoolExecutor(4) as threads:
        totals = list(threads.map(lambda _: remote.call("add", 1), range(100)))
    assert sorted(totals) == list(range(1, 101))


def test_an_object_that_cannot_be_made_is_a_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """Its process ends, and says why on standard error."""
    with pytest.raises(RuntimeError, match="its standard error says why"):
        RemoteObject("test_process", "Ledger", {"colour": "blue"}, os.environ)
    assert "unexpected keyword argument 'colour'" in capfd.readouterr().err
