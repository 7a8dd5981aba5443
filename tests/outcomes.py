"""Outcomes of broadcasts, made by hand and by chance."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from async_relay.delivery.report import Outcome, Undelivered
from async_relay.errors import Forbidden, PostError, Refused, ServerError, Throttled, TimedOut, TooLarge
from async_relay.wire.jobs import Client, Job
from async_relay.wire.messages import Message


def messages(count: int) -> tuple[Message, ...]:
    return tuple(Message.encode({"incident_id": at, "event_id": f"e{at}", "sequence": str(at)}) for at in range(count))


Rejection = tuple[Client, int, PostError]


def outcome_of(
    job: Job, *, undelivered: list[Undelivered] | None = None, rejected: Iterable[Rejection] = ()
) -> Outcome:
    outcome = Outcome(job, [0] * len(job.messages), undelivered=undelivered or [])
    for client, position, error in rejected:
        outcome.reject(client.connection_id, client.created_at, position, error)
    return outcome


ERRORS: list[PostError | None] = [None, ServerError("HTTP 500"), Throttled("HTTP 429"), TimedOut(), Forbidden()]


class History:
    """A broadcast of a job to named clients, one fate after the other; ``owed`` is what it leaves to settle."""

    def __init__(self, random: Random) -> None:
        count = random.randint(1, 4)
        clients = tuple(Client(f"c{at}", None, random.randrange(count)) for at in range(random.randint(1, 6)))
        job = Job(messages(count), clients, attempt=random.randint(0, 4), first_at=5)
        self.outcome = outcome_of(job)
        self.owed: set[tuple[str, int]] = set()
        self.skipped: set[int] = set()
        if random.random() < 0.3:
            self.outcome.blocked[random.randrange(count)] = "too_large"
        for client in clients:
            self.serve(client, random)
        self.outcome.blocked = {at: reason for at, reason in self.outcome.blocked.items() if at in self.skipped}

    def reject(self, client: Client, position: int, error: PostError) -> None:
        self.outcome.reject(client.connection_id, client.created_at, position, error)

    def serve(self, client: Client, random: Random) -> None:
        for position in range(client.skip, len(self.outcome.job.messages)):
            now = client._replace(skip=position)
            fate = random.random()
            if fate < 0.2:
                self.outcome.undelivered.append(Undelivered(now, random.choice(ERRORS)))
                self.owed |= {(client.connection_id, each) for each in range(position, len(self.outcome.delivered))}
                return
            if position in self.outcome.blocked:
                self.owed.add((client.connection_id, position))
                if position not in self.skipped or random.random() < 0.3:
                    self.reject(client, position, TooLarge("HTTP 413"))
                self.skipped.add(position)
            elif fate < 0.4:
                self.owed.add((client.connection_id, position))
                error = random.choice([Refused("HTTP 400"), TooLarge("HTTP 413")])
                self.reject(client, position, error)
            else:
                self.outcome.delivered[position] += 1


def in_job(job: Job) -> list[tuple[str, int]]:
    """What a job is to deliver: each client and the SequenceNumber of each message it lacks."""
    return [
        (client.connection_id, int(message.sequence))
        for client in job.clients
        for message in job.messages[client.skip :]
    ]
