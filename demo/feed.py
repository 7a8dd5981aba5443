"""Incidents and remediation logs as a security team's automation would write them. Pure but for the clock.

Rules
- The same seed makes the same changes, apart from their times.
- An incident goes OPEN, INVESTIGATING, RESOLVED; around that the automation logs what it did, and
  now and then fails at first. A few incidents are under way at once.
- Each incident is a tenant's, and so is what the automation does about it.
- No two changes look the same to a dashboard: their times differ.
- What happened before somebody looks is written whole, each incident in the last state it came to.
- An attack is several incidents at once, all one tenant's, each with its automatic responses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from typing import Any

#: The attribute of an item that says whose it is, and who there is.
TENANT = "tenant"
TENANTS = ("acme", "umbrella")
#: Whose messages somebody may have who may have all.
EVERY_TENANT = "*"
_UNDER_WAY = 4
_ACCOUNT = "111122223333"
# An old incident is seldom still under way, one of the last minutes often.
_HISTORY, _JUST_NOW = timedelta(hours=6), timedelta(seconds=20)
_LONG_AGO, _RECENTLY = 0.04, 0.5


@dataclass(frozen=True, slots=True)
class Change:
    """One write to the Incident table: ``item`` as it is afterwards, ``updated`` what an update sets.

    Nothing is updated where the item is put as a whole.
    """

    item: dict[str, str]
    updated: tuple[str, ...] = ()

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.item[TENANT]

    @property
    def marker(self) -> Marker:
        """What it will look like in a dashboard."""
        if "incident_id" in self.item:
            return Marker(self.item["incident_id"], self.item["status"], self.item["updated_at"])
        return Marker(f"{self.item['action']} {self.item['target']}", self.item["status"], self.item["timestamp"])


@dataclass(frozen=True, slots=True)
class Marker:
    """What tells one change from all others, both where it is written and where it arrives."""

    subject: str
    status: str
    time: str

    @classmethod
    def of(cls, payload: dict[str, Any]) -> Marker:
        """The marker of a message as a dashboard got it."""
        if payload.get("kind") == "incident_update":
            subject, time = payload.get("incident_id"), payload.get("updated_at")
        else:
            subject, time = f"{payload.get('action')} {payload.get('target')}", payload.get("time")
        return cls(str(subject), str(payload.get("status")), str(time))

    def __str__(self) -> str:
        """As a sentence names it."""
        return f"{self.subject} {self.status}"


@dataclass(frozen=True, slots=True)
class _Threat:
    event_type: str
    severity: str
    attribute: str  # arn, resource or sg: what the table calls the resource
    resource: str  # {n} is a number of its own
    actions: tuple[str, ...]


_LEAKED_KEY = _Threat("IAMAccessKeyLeaked", "CRITICAL", "arn", f"arn:aws:iam::{_ACCOUNT}:user/ci-{{n:08x}}",
                      ("DEACTIVATE_ACCESS_KEY", "DENY_ALL_SESSIONS"))  # fmt: skip
_THREATS = (
    _Threat("SecurityGroupOpened", "HIGH", "sg", "sg-0{n:08x}", ("REVOKE_INGRESS",)),
    _LEAKED_KEY,
    _Threat("S3BucketPublic", "HIGH", "arn", "arn:aws:s3:::invoices-{n:08x}", ("BLOCK_PUBLIC_ACCESS",)),
    _Threat("UnauthorizedAccess:IAMUser/InstanceCredentialExfiltration.OutsideAWS", "HIGH", "arn",
            f"arn:aws:iam::{_ACCOUNT}:role/web-{{n:08x}}", ("REVOKE_ROLE_SESSIONS",)),
    _Threat("CryptoCurrency:EC2/BitcoinTool.B!DNS", "HIGH", "resource", "i-0{n:08x}",
            ("SNAPSHOT_VOLUME", "ISOLATE_INSTANCE")),
    _Threat("Recon:EC2/PortProbeUnprotectedPort", "LOW", "resource", "i-0{n:08x}", ("REVOKE_INGRESS",)),
    _Threat("Stealth:IAMUser/CloudTrailLoggingDisabled", "MEDIUM", "arn",
            f"arn:aws:cloudtrail:us-east-1:{_ACCOUNT}:trail/audit-{{n:08x}}", ("START_LOGGING",)),
    _Threat("UnauthorizedAccess:IAMUser/ConsoleLoginSuccess.B", "MEDIUM", "arn",
            f"arn:aws:iam::{_ACCOUNT}:user/ops-{{n:08x}}", ("REQUIRE_NEW_PASSWORD",)),
)  # fmt: skip


class Clock:
    """The time as the table has it, to the microsecond and never the same twice."""

    def __init__(self) -> None:
        self._last = datetime.min.replace(tzinfo=UTC)

    def __call__(self) -> str:
        """Now, or just after what it said last."""
        self._last = max(datetime.now(UTC), self._last + timedelta(microseconds=1))
        return _in_words(self._last)


def _in_words(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def numbers(seed: int) -> Iterator[str]:
    """The ids of incidents, without end."""
    return (f"INC-{seed:03d}-{number:04d}" for number in count(1))


def changes(seed: int, clock: Callable[[], str], ids: Iterator[str] | None = None) -> Iterator[Change]:
    """Changes without end, of a few incidents at a time."""
    rng = random.Random(seed)
    ids = numbers(seed) if ids is None else ids
    under_way: list[Iterator[Change]] = []
    while True:
        if len(under_way) < _UNDER_WAY and rng.random() < 2 / (2 + len(under_way)):
            under_way.append(_incident(rng, rng.choice(_THREATS), next(ids), clock, rng.choice(TENANTS)))
        story = rng.choice(under_way)
        change = next(story, None)
        if change is None:
            under_way.remove(story)
        else:
            yield change


def one(seed: int, clock: Callable[[], str], ids: Iterator[str]) -> Iterator[Change]:
    """A CRITICAL incident from its beginning to its end."""
    rng = random.Random(seed)
    return _incident(rng, _LEAKED_KEY, next(ids), clock, rng.choice(TENANTS))


def attack(seed: int, clock: Callable[[], str], ids: Iterator[str]) -> Iterator[list[Change]]:
    """What somebody does with a leaked key, in waves: all of a wave happen at once."""
    rng = random.Random(seed)
    tenant = rng.choice(TENANTS)
    steps = [_LEAKED_KEY, *rng.sample(_THREATS, k=len(_THREATS)), _LEAKED_KEY]
    stories = [_incident(rng, threat, next(ids), clock, tenant) for threat in steps]
    while wave := [change for story in stories for change in islice(story, 1)]:
        yield wave


def history(seed: int, incidents: int, now: datetime, ids: Iterator[str]) -> Iterator[Change]:
    """What there is already: so many incidents of the last hours, denser towards now, with what was done of late."""
    rng = random.Random(seed)
    for number in range(incidents):
        share = (incidents - number) / incidents
        began = now - share * share * _HISTORY - _JUST_NOW
        story = list(_incident(rng, rng.choice(_THREATS), next(ids), _past(rng, began, now), rng.choice(TENANTS)))
        is_new = number >= incidents * 0.9
        if rng.random() < (_RECENTLY if is_new else _LONG_AGO):
            story = story[: rng.randint(1, len(story) - 1)]
        *_, newest = (change for change in story if "incident_id" in change.item)
        yield Change(newest.item)
        if is_new:
            yield from (change for change in story if "incident_id" not in change.item)


def _past(rng: random.Random, began: datetime, now: datetime) -> Callable[[], str]:
    """A clock that shows when things happened, each some seconds after the one before, none after ``now``."""
    moment = began

    def clock() -> str:
        nonlocal moment
        at, moment = moment, moment + min(timedelta(seconds=rng.uniform(1, 90)), (now - moment) / 4)
        return _in_words(at)

    return clock


def _incident(
    rng: random.Random, threat: _Threat, incident_id: str, clock: Callable[[], str], tenant: str
) -> Iterator[Change]:
    resource = threat.resource.format(n=rng.getrandbits(32))
    now = clock()
    item = {
        TENANT: tenant,
        "incident_id": incident_id,
        "status": "OPEN",
        "severity": threat.severity,
        "event_type": threat.event_type,
        threat.attribute: resource,
        "created_at": now,
        "updated_at": now,
    }
    yield Change(item)
    item = item | {"status": "INVESTIGATING", "updated_at": clock()}
    yield Change(item, ("status", "updated_at"))
    for action in threat.actions:
        for status in ("STARTED", "FAILED", "SUCCEEDED") if rng.random() < 0.15 else ("STARTED", "SUCCEEDED"):
            log = {"action": action, "target": resource, "status": status, "timestamp": clock()}
            yield Change({TENANT: tenant, **log})
    item = item | {"status": "RESOLVED", "updated_at": clock()}
    yield Change(item, ("status", "updated_at"))
