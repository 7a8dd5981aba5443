"""When a replay gives up: what fails again and again, and nothing between it that works, has one cause. Pure.

Rules
- That the function may not be called, is not there, is too busy or does not start is no object's fault. A few such
  failures in a row end the run.
- A function that ran and failed, or handed the records back, may have met a bad object, so the next one is tried.
  More of these in a row end the run too: the records come back from a relay that can serve nobody as well.
- Whatever is sent begins the count anew, wherever in the run it is.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Each may take as long as the SDK's four tries.
FUNCTION_FAILURES = 3
#: Each may take as long as the function's timeout, a minute, and so many bad objects in a row are none.
FAILURES = 10


@dataclass(slots=True)
class Streak:
    """Failures in a row; ``of_function``: the latest of them that no object can be blamed for."""

    failures: int = 0
    of_function: int = 0

    def sent(self) -> None:
        """Something was taken."""
        self.failures = self.of_function = 0

    def failed(self, *, object_to_blame: bool) -> None:
        """An object was not taken whole, nor any of it."""
        self.failures += 1
        self.of_function = 0 if object_to_blame else self.of_function + 1

    @property
    def is_of_objects(self) -> bool:
        """Whether it is long enough to stop, and the objects may be the cause."""
        return self.failures >= FAILURES and self.of_function < FUNCTION_FAILURES

    @property
    def ending(self) -> str:
        """Why to stop here; empty: go on."""
        if self.of_function >= FUNCTION_FAILURES:
            return f"{self.of_function} times in a row the function could not be used: mend that first."
        if self.is_of_objects:
            return f"{self.failures} objects in a row failed, which may have one cause: the function's log says more."
        return ""
