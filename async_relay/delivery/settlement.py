"""Where undelivered messages go: the retry queue, the dead letters, or back. Decides, does no I/O.

Rules
- Systemic: all goes back, and nothing is settled here.
- A client that was tried and failed is requeued with the next attempt and a delay that doubles; one
  that was never tried, and the unread part of the table, without delay and with the same attempt.
- The unread part of a table that stopped answering waits the base delay, and counts no attempt either; so do
  clients whose rows could not be looked up. Where the table answered nothing at all, the job goes back: it would
  be requeued as it is, again and again.
- After ``max_attempts`` in the queue a client's job is a dead letter.
- 400 and 413 are dead letters, one for all clients that gave a message the same answer. Where the
  message is refused by all (``report``) the letter names everybody it was for.

``outbox`` knows which queues there are: without the queue something would go to, it goes back.

A position is a message's index in its job. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import PostError
from ..wire.jobs import Client, DeadLetter, Job
from .backoff import queue_delay
from .report import Outcome, Undelivered


@dataclass(frozen=True, slots=True)
class RequeuePolicy:
    """How late and how often the retry queue tries again."""

    backoff_seconds: float = 5.0
    max_attempts: int = 6


@dataclass(frozen=True, slots=True)
class Requeued:
    """A job for a queue and the delay (s) it waits there; ``positions``: the messages that are lost without it."""

    job: Job
    delay: int
    positions: range


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter; ``positions``: the messages that are lost without it."""

    letter: DeadLetter
    positions: range


@dataclass(frozen=True, slots=True)
class Settlement:
    """The decisions about one outcome; the messages at the positions ``back`` go to no queue at all."""

    requeued: tuple[Requeued, ...] = ()
    dead_lettered: tuple[DeadLettered, ...] = ()
    back: frozenset[int] = frozenset()


def settle(outcome: Outcome, policy: RequeuePolicy, now: int) -> Settlement:
    """Decide about everything in ``outcome`` that was not delivered."""
    if outcome.failure is not None and not outcome.pages:
        return Settlement(back=frozenset(range(len(outcome.job.messages))))
    requeued: list[Requeued] = []
    dead_lettered: list[DeadLettered] = []
    for clients, error in _groups(outcome.undelivered):
        settled = _settle_group(outcome, clients, error, policy, now)
        requeued += [settled] if isinstance(settled, Requeued) else []
        dead_lettered += [settled] if isinstance(settled, DeadLettered) else []
    if outcome.unread:
        requeued.append(_unread(outcome, policy, now))
    dead_lettered += _rejections(outcome, now)
    return Settlement(tuple(requeued), tuple(dead_lettered))


def _settle_group(
    outcome: Outcome, clients: list[Client], error: PostError | None, policy: RequeuePolicy, now: int
) -> Requeued | DeadLettered:
    """Requeue the messages these clients lack, or make them a dead letter if this was the last attempt."""
    lacking, positions = _lacking(outcome.job, clients, error, now)
    if error is None:
        return Requeued(lacking, _delay_of_the_table(outcome, policy), positions)
    if lacking.attempt > policy.max_attempts:
        return DeadLettered(_exhausted(lacking, outcome.job.attempt, error, now), positions)
    return Requeued(lacking, queue_delay(lacking.attempt, policy.backoff_seconds), positions)


def _groups(undelivered: list[Undelivered]) -> Iterator[tuple[list[Client], PostError | None]]:
    """The clients by the reason of their errors, each group with the first of these errors."""
    groups: dict[str, tuple[list[Client], PostError | None]] = {}
    for client, error in undelivered:
        clients, _ = groups.setdefault(error.reason if error else "", ([], error))
        clients.append(client)
    yield from groups.values()


def _lacking(job: Job, clients: list[Client], error: PostError | None, now: int) -> tuple[Job, range]:
    """A job of the messages these clients still lack, and the positions of those messages."""
    start = min(client.skip for client in clients)
    lacking = replace(
        job,
        messages=job.messages[start:],
        clients=tuple(Client(client.connection_id, client.created_at, client.skip - start) for client in clients),
        shard=None,
        cursor=None,
        continuation=0,
        attempt=job.attempt + (error is not None),
        first_at=job.first_at or now,
        reason=error.reason if error else job.reason,
    )
    return lacking, range(start, len(job.messages))


def _unread(outcome: Outcome, policy: RequeuePolicy, now: int) -> Requeued:
    """The same job from the page on that was not read."""
    job = outcome.job
    rest = replace(job, cursor=outcome.cursor, continuation=job.continuation + 1, first_at=job.first_at or now)
    return Requeued(rest, _delay_of_the_table(outcome, policy), range(len(job.messages)))


def _delay_of_the_table(outcome: Outcome, policy: RequeuePolicy) -> int:
    """How long to leave a table alone that stopped answering."""
    return queue_delay(1, policy.backoff_seconds) if outcome.failure is not None else 0


def _exhausted(job: Job, attempt: int, error: PostError, now: int) -> DeadLetter:
    detail = f"given up after {attempt} attempts from the queue; the last error: {error}"
    return DeadLetter("attempts_exhausted", detail, replace(job, attempt=attempt), now)


def _rejections(outcome: Outcome, now: int) -> Iterator[DeadLettered]:
    """One letter per message and reason, to the clients that refused it, or to all it was for."""
    for (position, reason), (error, clients) in outcome.rejected.items():
        everybody = outcome.refused_by_all(position, reason, at_end=True)
        job = replace(
            outcome.job,
            messages=(outcome.job.messages[position],),
            clients=tuple(_wanted_by(outcome, position, reason) if everybody else clients),
            shard=outcome.job.shard if everybody else None,
            cursor=outcome.job.cursor if everybody else None,
            first_at=outcome.job.first_at or now,
            reason=reason,
        )
        detail = f"{'everybody' if everybody else f'{len(clients)} clients'} answered {error}"
        letter = DeadLetter(reason, detail, job, now, job.messages[0].event_id, job.messages[0].sequence)
        yield DeadLettered(letter, range(position, position + 1))


def _wanted_by(outcome: Outcome, position: int, reason: str) -> list[Client]:
    """The job's clients that were to get the message, except those requeued or in a letter for another reason."""
    elsewhere = {client.connection_id for client, _ in outcome.undelivered if client.skip <= position}
    for (at, other), (_, clients) in outcome.rejected.items():
        if at == position and other != reason:
            elsewhere.update(client.connection_id for client in clients)
    wanted = (each for each in outcome.job.clients if each.skip <= position and each.connection_id not in elsewhere)
    return [Client(each.connection_id, each.created_at) for each in wanted]
