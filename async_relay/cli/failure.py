"""How a command fails: one sentence on stderr and an exit code, never a traceback.

Exit codes: 0 all done, 1 something could not be done, 2 the command was called wrongly,
130 interrupted with Ctrl-C.
"""

from __future__ import annotations

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """One sentence that names the thing and says what to do, and the exit code."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code
