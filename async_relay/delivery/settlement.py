"""Where what was not delivered goes: the retry queue, the dead letters, or back to who sent it. Decides, does no I/O.

Rules
- Systemic: all goes back, nothing is parked.
- A client that was tried and failed is parked with the next attempt and a delay that doubles; one
  that was never tried, and the unread part of the table, without delay and with the same attempt.
- The unread part of a table that stopped answering waits the base delay, and counts no attempt either.
  Where not one page came, the job goes back: it would be parked as it is, hop after hop.
- After ``max_attempts`` in the queue a client's job is a dead letter.
- 400 and 413 are dead letters, one for all clients that gave a message the same answer. Where nobody
  takes it and all answers are alike it is the message's letter, to whoever it was for: a 413 from one
  client is enough, of 400 it takes ten, since that may also say that an id is malformed.
- Without the queue something would go to, its messages go back.

A position is a message's index in its job. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import PostError
from ..wire.jobs import Client, DeadLetter, Job
from .backoff import queue_delay
from .lanes import CROWD
from .report import Outcome, Undelivered


@dataclass(frozen=True, slots=True)
class Policy:
    """Which queues there are, and how often and how late the retry queue tries again."""

    retries: bool
    dead_letters: bool
    backoff_seconds: float = 5.0
    max_attempts: int = 6


@dataclass(frozen=True, slots=True)
class Requeued:
    """A job for a queue and the delay (s) it waits there; ``positions``: whose messages are lost without it."""

    job: Job
    delay: int
    positions: range


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter, and the messages that are lost without it."""

    letter: DeadLetter
    positions: range


@dataclass(frozen=True, slots=True)
class Settlement:
    """What is to be done about one outcome; ``back`` are the positions no queue is there for."""

    requeued: tuple[Requeued, ...] = ()
    dead_lettered: tuple[DeadLettered, ...] = ()
    back: frozenset[int] = frozenset()


def settle(outcome: Outcome, policy: Policy, now: int) -> Settlement:
    """Decide about everything in ``outcome`` that was not delivered."""
    requeued: list[Requeued] = []
    dead_lettered: list[DeadLettered] = []
    back: set[int] = set()
    for clients, error in _groups(outcome.undelivered):
        job, positions = _lacking(outcome.job, clients, error, now)
        exhausted = error is not None and job.attempt > policy.max_attempts
        if error is not None and exhausted and policy.dead_letters:
            dead_lettered.append(DeadLettered(_exhausted(job, outcome.job.attempt, error, now), positions))
        elif policy.retries and not exhausted:
            delay = queue_delay(job.attempt, policy.backoff_seconds) if error is not None else 0
            requeued.append(Requeued(job, delay, positions))
        else:
            back.update(positions)
    if outcome.unread:
        positions = range(len(outcome.job.messages))
        if policy.retries and (outcome.pages or outcome.failure is None):
            delay = queue_delay(1, policy.backoff_seconds) if outcome.failure is not None else 0
            requeued.append(Requeued(_unread(outcome, now), delay, positions))
        else:
            back.update(positions)
    for position, letter in _rejections(outcome, now):
        if policy.dead_letters:
            dead_lettered.append(DeadLettered(letter, range(position, position + 1)))
        else:
            back.add(position)
    return Settlement(tuple(requeued), tuple(dead_lettered), frozenset(back))


def _groups(undelivered: list[Undelivered]) -> Iterator[tuple[list[Client], PostError | None]]:
    """Clients together whose errors have the same reason."""
    groups: dict[str, tuple[list[Client], PostError | None]] = {}
    for client, error in undelivered:
        clients, _ = groups.setdefault(error.reason if error else "", ([], error))
        clients.append(client)
    yield from groups.values()


def _lacking(job: Job, clients: list[Client], error: PostError | None, now: int) -> tuple[Job, range]:
    """What these clients still lack of ``job``, as a job, and the positions of its messages."""
    start = min(client.skip for client in clients)
    lacking = replace(
        job,
        messages=job.messages[start:],
        clients=tuple(client._replace(skip=client.skip - start) for client in clients),
        shard=None,
        cursor=None,
        continuation=0,
        attempt=job.attempt + (error is not None),
        first_at=job.first_at or now,
        reason=error.reason if error else job.reason,
    )
    return lacking, range(start, len(job.messages))


def _unread(outcome: Outcome, now: int) -> Job:
    job = outcome.job
    return replace(job, cursor=outcome.cursor, continuation=job.continuation + 1, first_at=job.first_at or now)


def _exhausted(job: Job, attempt: int, error: PostError, now: int) -> DeadLetter:
    detail = f"given up after {attempt} attempts from the queue; the last error: {error}"
    return DeadLetter("attempts_exhausted", detail, replace(job, attempt=attempt), now)


def _rejections(outcome: Outcome, now: int) -> Iterator[tuple[int, DeadLetter]]:
    """A letter for each message and reason, with its clients; refused by all: with whoever was to get it."""
    for (position, reason), (error, clients) in outcome.rejected.items():
        everybody = _refused_by_all(outcome, position, reason)
        named = _wanted_by(outcome, position, reason) if everybody else clients
        job = replace(
            outcome.job,
            messages=(outcome.job.messages[position],),
            clients=tuple(named),
            shard=outcome.job.shard if everybody else None,
            cursor=outcome.job.cursor if everybody else None,
            first_at=outcome.job.first_at or now,
            reason=reason,
        )
        detail = f"{'everybody' if everybody else f'{len(clients)} clients'} answered {error}"
        yield position, DeadLetter(reason, detail, job, now, job.messages[0].event_id, job.messages[0].sequence)


def _refused_by_all(outcome: Outcome, position: int, reason: str) -> bool:
    """Whether this is what is wrong with the message, and not with some clients."""
    if position in outcome.blocked:
        return outcome.blocked[position] == reason
    error, clients = outcome.rejected[position, reason]
    alike = all(key == (position, reason) for key in outcome.rejected if key[0] == position)
    return alike and not outcome.delivered[position] and (error.same_for_all or len(clients) >= CROWD)


def _wanted_by(outcome: Outcome, position: int, reason: str) -> list[Client]:
    """The job's clients that were to get the message, without those left over or in a letter for another reason."""
    elsewhere = {client.connection_id for client, _ in outcome.undelivered if client.skip <= position}
    for (at, other), (_, clients) in outcome.rejected.items():
        if at == position and other != reason:
            elsewhere.update(client.connection_id for client in clients)
    wanted = (each for each in outcome.job.clients if each.skip <= position and each.connection_id not in elsewhere)
    return [Client(each.connection_id, each.created_at) for each in wanted]
