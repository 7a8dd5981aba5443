"""A deployment as AWS describes it, frozen. Whoever makes one has asked everything; nothing here asks.

Rules
- An answer is what the operation gave, as it is, or ``Absent``: there is no such thing, or ``Unknown``: why it
  could not be asked.
- ``asked`` and ``known`` end a check with ``NotCheckedError`` where the answer is ``Unknown``: no check can take that
  for ok.
- Without a stack there is one function, ``ENVIRONMENT``, of which only the settings are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..settings import Settings

T = TypeVar("T")

#: The name of the one function that settings alone describe.
ENVIRONMENT = "the environment"
RELAY, DELIVER, HEARTBEAT = "handler.lambda_handler", "handler.deliver_handler", "handler.heartbeat_handler"
CONNECT, DISCONNECT = "handler.connect_handler", "handler.disconnect_handler"
AUTHORIZE, DEFAULT = "handler.authorize_handler", "handler.default_handler"
HANDLERS = frozenset({RELAY, DELIVER, HEARTBEAT, CONNECT, DISCONNECT, AUTHORIZE, DEFAULT})


@dataclass(frozen=True, slots=True)
class Unknown:
    """Could not be asked, for this reason: a phrase without a full stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class Absent:
    """AWS says that there is no such thing."""


Answer = Mapping[str, Any] | Absent | Unknown


class NotCheckedError(Exception):
    """A check needs something that is not known; the text is the reason."""


def asked(answer: T | Unknown) -> T:
    """What is known; raises ``NotCheckedError`` for what could not be asked."""
    if isinstance(answer, Unknown):
        raise NotCheckedError(answer.reason)
    return answer


def known(answer: Answer) -> Mapping[str, Any] | None:
    """The answer, None for what is not there; raises ``NotCheckedError`` for what could not be asked."""
    return None if isinstance(answer, Absent) else asked(answer)


@dataclass(frozen=True, slots=True)
class Decision:
    """What IAM says of one action of a role: ``allowed``, ``implicitDeny`` or ``explicitDeny``."""

    action: str
    resource: str
    decision: str


@dataclass(frozen=True, slots=True)
class Published:
    """What an alias leads to, and what was deployed last, from which the next version will be published."""

    alias: Answer
    latest: Answer


@dataclass(frozen=True, slots=True)
class Function:
    """A function, by its logical name: what Lambda says of it, and what its environment means.

    ``settings`` is a sentence where they end its cold start. ``shared_objects`` are names of files in its zip;
    ``mappings`` its event source mappings; ``decisions`` what IAM lets its role do of what it has to; ``reserved`` is
    its reserved concurrency, None where it has none. With an alias, all but ``published`` is of the version that
    the alias leads to.
    """

    name: str
    configuration: Answer
    settings: Settings | str | Unknown
    mappings: tuple[Mapping[str, Any], ...] | Unknown
    shared_objects: tuple[str, ...] | Unknown
    decisions: tuple[Decision, ...] | Unknown = Unknown("IAM was not asked")
    reserved: int | Unknown | None = None
    published: Published | None = None

    @property
    def handler(self) -> str:
        """Which entry point it runs; empty where that is not known."""
        return str(self.configuration.get("Handler", "")) if isinstance(self.configuration, Mapping) else ""

    @property
    def serves_shards(self) -> bool:
        """Whether it is the fan-out's worker, which runs the same entry point as the one for the retry queue."""
        return self.handler == DELIVER and self.has("fanout_queue_url")

    def has(self, setting: str) -> Any:
        """A setting by its field's name; None where the settings cannot be read."""
        return getattr(self.settings, setting) if isinstance(self.settings, Settings) else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a socket to the endpoint met: why it did not open, TLS's version and protocol, how far our clock is ahead.

    ``connection`` is the status of GET @connections/{an id nobody has}.
    """

    problem: str = ""
    tls: str = ""
    protocol: str | Unknown = Unknown("no connection could be opened")
    ahead_seconds: float | Unknown = Unknown("no connection could be opened")
    connection: int | Unknown = Unknown("no connection could be opened")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue by its URL, and its attributes."""

    url: str
    attributes: Answer


_ALONE = Unknown("settings alone do not say: give --stack")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything an examination looks at; tables are as DescribeTable and DescribeTimeToLive show them.

    ``api_mappings`` are those of the domain that the functions post to, where it is one of the owner's own.
    ``readers`` are all event source mappings of the stream, whosever they are.
    """

    functions: tuple[Function, ...]
    identity: Answer
    endpoint: Endpoint | Unknown
    region: str = ""
    stack: str = ""
    status: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    connections: Answer = _ALONE
    connections_ttl: Answer = _ALONE
    feed: Answer = _ALONE
    feed_ttl: Answer = _ALONE
    incidents: Answer = _ALONE
    stream: Answer = _ALONE
    readers: tuple[Mapping[str, Any], ...] | Unknown = _ALONE
    retry: Queue | Unknown | None = None
    dead_letters: Queue | Unknown | None = None
    fanout: Queue | Unknown | None = None
    fanout_letters: Queue | Unknown | None = None
    api_id: str = ""
    api: Answer = _ALONE
    stage: Answer = _ALONE
    connect_route: Answer = _ALONE
    api_mappings: Answer = _ALONE
    quota: Answer = _ALONE

    def setting(self, name: str) -> Any:
        """What the first function that has this setting says; None where none has.

        Raises ``NotCheckedError`` where one might have it whose settings cannot be read.
        """
        for each in self.functions:
            if each.has(name) is not None:
                return each.has(name)
        for each in self.functions:
            if not isinstance(each.settings, Settings):
                reason = each.settings.reason if isinstance(each.settings, Unknown) else f"{each.settings}"
                raise NotCheckedError(f"{name.upper()} is not known, since {each.name} cannot be read: {reason}")
        return None

    def running(self, handler: str) -> list[Function]:
        """The functions with this entry point."""
        return [each for each in self.functions if each.handler == handler]
