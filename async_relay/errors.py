"""Every error of our own, and the one attribute that decides a retry.

    RelayError
    ├── SettingsError          an environment variable is missing or wrong
    ├── UndecodableRecord      a stream record that can never become a message
    ├── UnreadableJob          a queue message that is not one of our jobs
    ├── ConditionFailed        a row is not, or no longer, what a write asked it to be
    ├── Unavailable            nobody can be served now (systemic)
    │   ├── StoreUnavailable   the connections table cannot be read
    │   └── QueueUnavailable   a queue did not take some entries
    └── PostError              what one post that was not a 200 came to
        ├── Gone               410
        ├── Throttled          429                              temporary
        ├── ServerError        5xx or an answer nobody can read temporary
        ├── Disconnected       the socket was cut               temporary
        ├── TimedOut           no answer in time                temporary
        ├── Forbidden          403                              temporary
        ├── Unreachable        no connection could be opened    temporary
        ├── Refused            400 and any other 4xx
        └── TooLarge           413, or known before to be too large

The core asks ``error.temporary`` and never looks at a status code.
"""

from __future__ import annotations

from typing import ClassVar


class RelayError(Exception):
    """The root: catch this to catch everything the package raises on purpose."""


class SettingsError(RelayError):
    """One sentence that names the environment variable and says what to do."""


class UndecodableRecord(RelayError):
    """A stream record that no retry will make readable."""


class UnreadableJob(RelayError):
    """A queue message whose body is not a job of ours."""


class ConditionFailed(RelayError):
    """A row is not there any more, or is another principal's: nothing was written."""


class Unavailable(RelayError):
    """Something everybody depends on does not answer: nobody can be served."""


class StoreUnavailable(Unavailable):
    """The connections table cannot be read."""


class QueueUnavailable(Unavailable):
    """The queue refused some entries; ``failed`` holds their positions."""

    def __init__(self, message: str, failed: frozenset[int]) -> None:
        super().__init__(message)
        self.failed = failed


class PostError(RelayError):
    """What a post came to when it was not delivered.

    ``reason`` is the machine-readable word used in reports and dead letters;
    ``weight`` is how many attempts the failure counts for; ``same_for_all`` says that it is about
    the message, whoever it is for.
    """

    reason: ClassVar[str] = "post_failed"
    temporary: ClassVar[bool] = False
    weight: ClassVar[int] = 1
    same_for_all: ClassVar[bool] = False


class Gone(PostError):
    """410: the client is no longer connected."""

    reason = "gone"


class Throttled(PostError):
    """429: the account's rate, or this client's full buffer."""

    reason = "throttled"
    temporary = True


class ServerError(PostError):
    """5xx, or an answer that is not HTTP."""

    reason = "server_error"
    temporary = True


class Disconnected(PostError):
    """The socket was cut before the whole answer came."""

    reason = "disconnected"
    temporary = True


class TimedOut(PostError):
    """No whole answer within the post timeout; it counts as two attempts."""

    reason = "timed_out"
    temporary = True
    weight = 2


class Forbidden(PostError):
    """403: this client's while others are served, systemic when nobody is."""

    reason = "forbidden"
    temporary = True


class Unreachable(PostError):
    """No connection to the endpoint could be opened."""

    reason = "unreachable"
    temporary = True


class Refused(PostError):
    """400, and every other 4xx: this post can never succeed."""

    reason = "refused"


class TooLarge(PostError):
    """413, or a body over the 128 KB API Gateway takes."""

    reason = "too_large"
    same_for_all = True


_BY_STATUS: dict[int, type[PostError]] = {
    403: Forbidden,
    408: TimedOut,
    410: Gone,
    413: TooLarge,
    429: Throttled,
}


def post_error(status: int, detail: str = "") -> PostError:
    """The error a response status stands for; anything but 4xx is a server's fault."""
    fallback = Refused if 400 <= status < 500 else ServerError
    return _BY_STATUS.get(status, fallback)(f"HTTP {status} {detail}".strip())
