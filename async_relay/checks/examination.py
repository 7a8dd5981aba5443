"""All checks on one deployment, in the order they are shown in. Pure.

Rules
- Each check ends in at least one finding, or has none because another check's finding says it all.
- A check that needs what could not be asked is ``not checked``, with the reason; so is one to which AWS's answer
  makes no sense. No check keeps another from being made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import account, door, functions, mappings, permissions, queues, tables
from .deployment import Deployment, NotCheckedError
from .findings import CREDENTIALS, Finding, Report, unchecked

Check = Callable[[Deployment], Iterator[Finding]]

CHECKS: tuple[tuple[str, Check], ...] = (
    (account.STACK, account.stack),
    (CREDENTIALS, account.credentials),
    (account.CLOCK, account.clock),
    (functions.SETTINGS, functions.settings),
    (functions.FUNCTIONS, functions.functions),
    (functions.REVISION, functions.revision),
    (functions.ARCHITECTURE, functions.architecture),
    (permissions.PERMISSIONS, permissions.permissions),
    (account.ENDPOINT, account.endpoint),
    (account.PROTOCOL, account.protocol),
    (door.API, door.api),
    (door.DOOR, door.door),
    (account.QUOTA, account.quota),
    (mappings.STREAM, mappings.stream),
    (mappings.MAPPING, mappings.mappings),
    (tables.CONNECTIONS, tables.connections),
    ("Time to Live", tables.connections_ttl),
    (tables.FEED, tables.feed),
    (tables.INCIDENTS, tables.incidents),
    (queues.RETRY, queues.retry),
    (queues.DEAD_LETTERS, queues.dead_letters),
    (queues.FANOUT, queues.fanout),
    (queues.FANOUT_LETTERS, queues.fanout_dead_letters),
)


def examine(deployment: Deployment) -> Report:
    """Make every check."""
    return Report(tuple(finding for about, check in CHECKS for finding in _made(about, check, deployment)))


def _made(about: str, check: Check, deployment: Deployment) -> Iterator[Finding]:
    try:
        yield from check(deployment)
    except NotCheckedError as error:
        yield unchecked(about, str(error))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        yield unchecked(about, f"AWS's answer is not as documented ({type(error).__name__}: {error})")
