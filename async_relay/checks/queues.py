"""Retry queue, dead letters and fan-out queue: their kind, where they put what fails, and how long they wait. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .deployment import DELIVER, Deployment, Function, Queue, asked, known
from .findings import Finding, note, ok, wrong

RETRY, DEAD_LETTERS, FANOUT = "retry queue", "dead-letter queue", "fan-out queue"
FANOUT_LETTERS = "dead-letter queue of the fan-out"
#: A queue hides a job for six times as long as its function may take (Lambda Developer Guide, "Using Lambda with SQS").
_TIMES_THE_TIMEOUT = 6
_NEVER_GIVEN_UP = (
    "A job that its worker fails at stays first in its shard, whose clients get nothing until the queue forgets it."
)


def retry(deployment: Deployment) -> Iterator[Finding]:
    """It is there, is standard, and gives up into the dead letters."""
    queue = asked(deployment.retry)
    if queue is None:
        yield wrong(
            RETRY,
            "RETRY_QUEUE_URL is not set.",
            "One client that does not answer sends its whole batch back to the stream, and everybody gets it again.",
            "Make a standard queue and set RETRY_QUEUE_URL; the template does both.",
        )
        return
    attributes = _attributes(queue)
    if attributes is None:
        yield _absent(RETRY, queue, "What is not delivered at once sends its batch back, and everybody gets it again.")
        return
    faults = [
        *_kind(RETRY, attributes, fifo=False),
        *_redrive(RETRY, deployment, attributes),
        *_visibility(RETRY, attributes, [each for each in _workers(deployment) if not each.serves_shards]),
    ]
    yield from faults or [ok(RETRY, "It is a standard queue, and gives up into the dead letters.")]
    yield from _patience(deployment, attributes)


def dead_letters(deployment: Deployment) -> Iterator[Finding]:
    """It is there, is standard, keeps longer than the retry queue, and takes what that gives up."""
    queue = asked(deployment.dead_letters)
    if queue is None:
        yield wrong(
            DEAD_LETTERS,
            "DEAD_LETTER_QUEUE_URL is not set.",
            "A message that can never be delivered sends its whole batch back to the stream, again and again.",
            "Make a standard queue and set DEAD_LETTER_QUEUE_URL; the template does both.",
        )
        return
    attributes = _attributes(queue)
    if attributes is None:
        yield _absent(DEAD_LETTERS, queue, "A message that can never be delivered sends its batch back for ever.")
        return
    faults = [*_kind(DEAD_LETTERS, attributes, fifo=False), *_keeps(deployment, attributes)]
    yield from faults or [ok(DEAD_LETTERS, "It is a standard queue, and keeps longer than the retry queue.")]
    waiting = int(attributes["ApproximateNumberOfMessages"])
    if waiting:
        letters = "One dead letter waits" if waiting == 1 else f"About {waiting:,} dead letters wait"
        yield note(DEAD_LETTERS, f"{letters}: async-relay dead-letters list shows why.")


def fanout(deployment: Deployment) -> Iterator[Finding]:
    """It is there and FIFO, and gives up into a FIFO queue."""
    queue = asked(deployment.fanout)
    if queue is None:
        yield note(FANOUT, "There is none: one function posts to everybody (FanoutMode=direct).")
        return
    attributes = _attributes(queue)
    if attributes is None:
        yield _absent(FANOUT, queue, "No batch can be dispatched, so every batch goes back to the stream.")
        return
    faults = [
        *_kind(FANOUT, attributes, fifo=True),
        *_redrive(FANOUT, deployment, attributes),
        *_visibility(FANOUT, attributes, [each for each in _workers(deployment) if each.serves_shards]),
    ]
    yield from faults or [ok(FANOUT, "It is a FIFO queue, and gives up into a queue of its own.")]


def fanout_dead_letters(deployment: Deployment) -> Iterator[Finding]:
    """It is there, is FIFO, and takes what the fan-out queue gives up; whether that names it is the other's to say."""
    queue = asked(deployment.fanout_letters)
    if queue is None:
        return
    attributes = _attributes(queue)
    if attributes is None:
        yield _absent(FANOUT_LETTERS, queue, _NEVER_GIVEN_UP)
        return
    faults: list[Finding] = []
    if attributes.get("FifoQueue") != "true":
        faults.append(
            wrong(
                FANOUT_LETTERS,
                "It is a standard queue, which takes nothing of a FIFO queue.",
                _NEVER_GIVEN_UP,
                "Deploy the stack again, or name a FIFO queue in the fan-out queue's redrive policy.",
            )
        )
    if isinstance(deployment.fanout, Queue) and (source := _attributes(deployment.fanout)) is not None:
        faults += _lets_in(FANOUT_LETTERS, attributes, source["QueueArn"], FANOUT, _NEVER_GIVEN_UP)
    yield from faults or [ok(FANOUT_LETTERS, "It is a FIFO queue, and takes what the fan-out queue gives up.")]
    waiting = int(attributes["ApproximateNumberOfMessages"])
    if waiting:
        yield note(
            FANOUT_LETTERS,
            f"About {waiting:,} jobs wait: async-relay dead-letters list --queue-url {queue.url} shows them.",
        )


def _attributes(queue: Queue) -> Mapping[str, Any] | None:
    return known(queue.attributes)


def _workers(deployment: Deployment) -> list[Function]:
    return deployment.running(DELIVER)


def _absent(about: str, queue: Queue, effect: str) -> Finding:
    return wrong(about, f"There is no queue {queue.url}.", effect, "Deploy the stack again, or correct the URL.")


def _kind(about: str, attributes: Mapping[str, Any], *, fifo: bool) -> Iterator[Finding]:
    if (attributes.get("FifoQueue") == "true") is fifo:
        return
    if fifo:
        yield wrong(
            about,
            "It is a standard queue, not a FIFO queue.",
            "The jobs of a shard overtake each other, and clients get messages out of order.",
            "Name a FIFO queue in FANOUT_QUEUE_URL, or let the stack make it (FanoutMode).",
        )
    else:
        yield wrong(
            about,
            "It is a FIFO queue, not a standard one.",
            "A FIFO queue cannot delay one message, so what waits to be tried again is refused.",
            "Name a standard queue, or let the stack make it.",
        )


def _redrive(about: str, deployment: Deployment, attributes: Mapping[str, Any]) -> Iterator[Finding]:
    """Where a queue puts a job that its function fails at again and again."""
    if "RedrivePolicy" not in attributes:
        yield wrong(
            about,
            "It has no redrive policy.",
            "A job that its function fails at is tried until the queue forgets it, and then it is lost without a word.",
            "Deploy the stack again, or give the queue a redrive policy to a dead-letter queue of its kind.",
        )
        return
    target = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]
    letters = deployment.dead_letters
    if about != RETRY or not isinstance(letters, Queue):
        return
    described = _attributes(letters)
    if described is not None and target != described["QueueArn"]:
        yield wrong(
            about,
            f"It gives up into {target.rpartition(':')[2]}, not into {described['QueueArn'].rpartition(':')[2]}.",
            "Jobs that were given up lie where no alarm rings and async-relay dead-letters does not look.",
            "Deploy the stack again, or correct the redrive policy or DEAD_LETTER_QUEUE_URL.",
        )


def _visibility(about: str, attributes: Mapping[str, Any], functions: list[Function]) -> Iterator[Finding]:
    hidden = int(attributes["VisibilityTimeout"])
    for function in functions:
        configuration = known(function.configuration)
        if configuration is None:
            continue
        timeout = int(configuration["Timeout"])
        if hidden < _TIMES_THE_TIMEOUT * timeout:
            yield wrong(
                about,
                f"It hides a job for {hidden} s, and {function.name} may take {timeout} s.",
                "A job may be served twice at once, and its clients get messages twice.",
                f"Set its VisibilityTimeout to {_TIMES_THE_TIMEOUT * timeout} s; deploying the stack again does.",
            )


def _patience(deployment: Deployment, attributes: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether jobs wait as long as the stream does, in an outage."""
    ages = [
        int(mapping["MaximumRecordAgeInSeconds"])
        for each in deployment.functions
        if isinstance(each.mappings, tuple)
        for mapping in each.mappings
        if "MaximumRecordAgeInSeconds" in mapping
    ]
    if not ages or "RedrivePolicy" not in attributes:
        return
    tries = int(json.loads(attributes["RedrivePolicy"])["maxReceiveCount"])
    waits = tries * int(attributes["VisibilityTimeout"])
    if waits < max(ages):
        yield note(
            RETRY,
            f"In an outage it gives a job up after {waits:,} s, and the stream a record after {max(ages):,} s: raise "
            "maxReceiveCount together with StreamRecordAgeSeconds (docs/operations.md#an-outage).",
        )


def _keeps(deployment: Deployment, attributes: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the dead letters take what the retry queue gives up, and outlive it: they keep their first day."""
    source = _attributes(deployment.retry) if isinstance(deployment.retry, Queue) else None
    if source is None:
        return
    kept, before = (int(each["MessageRetentionPeriod"]) for each in (attributes, source))
    if kept <= before:
        yield wrong(
            DEAD_LETTERS,
            f"It keeps a letter for {kept:,} s, and the retry queue a job for {before:,} s.",
            "A dead letter keeps its first day, so it may be forgotten before anybody has looked at it.",
            "Set its MessageRetentionPeriod to 14 days (1209600 s); deploying the stack again does.",
        )
    effect = "Jobs that the retry queue gives up stay there until it forgets them."
    yield from _lets_in(DEAD_LETTERS, attributes, source["QueueArn"], RETRY, effect)


def _lets_in(about: str, attributes: Mapping[str, Any], arn: str, source: str, effect: str) -> Iterator[Finding]:
    """Whether a dead-letter queue takes what the queue with this ARN gives up."""
    allow = json.loads(attributes.get("RedriveAllowPolicy", "{}"))
    permission = allow.get("redrivePermission", "allowAll")
    if permission == "denyAll" or (permission == "byQueue" and arn not in allow["sourceQueueArns"]):
        yield wrong(
            about,
            f"Its redrive allow policy does not let the {source} put anything here.",
            effect,
            f"Deploy the stack again, or name the {source} in the policy's sourceQueueArns.",
        )
