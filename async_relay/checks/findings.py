"""What an examination comes to: findings, and a verdict that is drawn from them alone. Plain data.

Rules
- A finding is ``ok``, ``wrong``, a ``note`` (as it was meant, and worth knowing) or ``not checked`` with the reason.
  What could not be asked is never ``ok``.
- What is wrong has three sentences: what it is, what it does to whom, how to mend it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

CREDENTIALS = "credentials"
#: Nothing is wrong; something is; AWS could not be asked.
SOUND, ILL, UNASKED = 0, 1, 2


class State(StrEnum):
    """How a thing was found."""

    OK = "ok"
    WRONG = "wrong"
    NOTE = "note"
    UNCHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """How one thing is; ``seen`` is the first sentence, and the other two are there where something is wrong."""

    about: str
    state: State
    seen: str
    effect: str = ""
    remedy: str = ""


def ok(about: str, seen: str) -> Finding:
    """As it must be."""
    return Finding(about, State.OK, seen)


def wrong(about: str, seen: str, effect: str, remedy: str) -> Finding:
    """Not as it must be."""
    return Finding(about, State.WRONG, seen, effect, remedy)


def note(about: str, seen: str) -> Finding:
    """Worth knowing, and nobody's mistake."""
    return Finding(about, State.NOTE, seen)


def unchecked(about: str, reason: str) -> Finding:
    """Not known, for this reason."""
    return Finding(about, State.UNCHECKED, reason)


def unchecked_of(about: str, reasons: Mapping[str, str]) -> Iterator[Finding]:
    """Not known of these, by name; those with one reason together."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    for reason, them in names.items():
        yield unchecked(about, f"{', '.join(them)}: {reason}")


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order they are shown in."""

    findings: tuple[Finding, ...]

    def of(self, state: State) -> list[Finding]:
        """Those of one state."""
        return [each for each in self.findings if each.state is state]

    @property
    def exit_code(self) -> int:
        """1 where something is wrong; else 2 where AWS does not know the credentials, and so tells nothing; else 0."""
        if self.of(State.WRONG):
            return ILL
        return SOUND if CREDENTIALS in {each.about for each in self.of(State.OK)} else UNASKED

    @property
    def verdict(self) -> str:
        """One sentence, and how much of the whole it is about."""
        counts = ", ".join(f"{len(self.of(state))} {state}" for state in State if self.of(state))
        says = {
            SOUND: "Nothing that was checked is wrong",
            ILL: f"{_things(len(self.of(State.WRONG)))} wrong",
            UNASKED: "AWS could not be asked",
        }
        return f"{says[self.exit_code]} ({counts})."


def _things(number: int) -> str:
    return "One thing is" if number == 1 else f"{number} things are"
