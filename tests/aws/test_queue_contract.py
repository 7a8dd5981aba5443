"""What every queue does with what it is sent, whoever wrote the queue behind it.

SQS is played by three servers that have nothing in common: what one of them forgives, another refuses.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from deployment import new_queue

from async_relay.aws import Aws, SqsQueue
from async_relay.aws.session import Service
from async_relay.delivery.protocols import Entry, Queue
from async_relay.errors import QueueUnavailable
from async_relay.testing.memory import MemoryQueue
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, DeadLetter

QUEUES = ["memory", "moto", "fauxqs", "fauxqs through the SDK", "ministack"]
BODIES = {
    "JSON": '{"job":1,"messages":[{"status":"OPEN"}]}',
    "a space": " ",
    "white space": "\t line one \n\r\n line two \n",
    "quotes": "\"'\\\\\\u0041</Body>&amp;%20+",
    "languages": "ünï ☃ हिन्दी العربية 漢字",
    "beyond 16 bits": "𝄞 👩\u200d👩\u200d👧 \U0010fffd",
    "the ends of what SQS takes": "\ud7ff\ue000\ufffd\u007f\u0085\u00a0\u2028\u2029",
    "combining": "e\u0301 is not \u00e9",
}


@dataclass
class Queues:
    """Makes queues of one kind. ``service`` is None where they are in memory."""

    name: str
    service: Service | None = None
    url: str = ""

    def new(self, *, fifo: bool = False) -> Receiving:
        if self.service is None:
            return Receiving(MemoryQueue())
        url = new_queue(self.url, fifo=fifo)
        return Receiving(SqsQueue(self.service, url), self.url, url)


@dataclass
class Receiving:
    """A queue, and what somebody who polls it gets."""

    queue: Queue
    server: str = ""
    url: str = ""

    async def send(self, *entries: Entry) -> None:
        await self.queue.send(entries)

    def take(self) -> list[Entry]:
        """What is visible now, and no longer in the queue then."""
        if isinstance(self.queue, MemoryQueue):
            return self.queue.take()
        sqs: Any = boto3.client("sqs", endpoint_url=self.server)
        found: list[Entry] = []
        while messages := self._receive(sqs):
            for message in messages:
                attributes = message.get("Attributes", {})
                group = attributes.get("MessageGroupId", "")
                found.append(Entry(message["Body"], 0, group, attributes.get("MessageDeduplicationId", "")))
                sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def _receive(self, sqs: Any) -> list[dict[str, Any]]:
        answer = sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], WaitTimeSeconds=0
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def bodies(self) -> list[str]:
        return [entry.body for entry in self.take()]


@pytest.fixture(params=QUEUES)
async def queues(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queues]:
    async for each in _queues(request, request.param, monkeypatch):
        yield each


@pytest.fixture(params=QUEUES[1:])
async def servers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queues]:
    async for each in _queues(request, request.param, monkeypatch):
        yield each


async def _queues(request: pytest.FixtureRequest, name: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queues]:
    if name == "memory":
        yield Queues(name)
        return
    server, _, through_sdk = name.partition(" ")
    url = request.getfixturevalue(f"{server}_url")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    aws = Aws(own_sockets=not through_sdk)
    yield Queues(server, aws.service("sqs"), url)
    await aws.close()


def known_to_fail(request: pytest.FixtureRequest, reason: str) -> None:
    """A server that is not as SQS is; strictly, so that its next version can show it is mended."""
    request.applymarker(pytest.mark.xfail(reason=reason))


async def test_nothing_sent_is_nothing_received(queues: Queues) -> None:
    """No entries are no call, and no error."""
    queue = queues.new()
    await queue.send()
    assert queue.take() == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_body_arrives_byte_for_byte(queues: Queues, body: str, request: pytest.FixtureRequest) -> None:
    """Blanks at its ends, quotes, and every kind of character that SQS takes."""
    if queues.name == "fauxqs" and max(body) > "\uffff":
        known_to_fail(request, "fauxqs refuses what is beyond 16 bits, which SQS takes")
    queue = queues.new()
    await queue.send(Entry(body))
    assert queue.bodies() == [body]


async def test_a_body_of_ours_is_always_taken(queues: Queues) -> None:
    """Whatever 16 bits can say, half surrogate pairs too, is in a dead letter's text, and no queue refuses it."""
    # Backwards, since two halves in the right order would be read back as one character.
    characters = "".join(map(chr, reversed(range(0x1_0000))))
    texts = [characters[at : at + 16_384] for at in range(0, len(characters), 16_384)]
    bodies = [DeadLetter("unreadable", "the body is not JSON", text, 0).encode() for text in texts]
    queue = queues.new()
    await queue.send(*map(Entry, bodies))
    received = queue.bodies()
    assert sorted(received) == sorted(bodies)
    assert sorted(json.loads(body)["body"] for body in received) == sorted(texts)


@pytest.mark.parametrize("count", [1, 10, 11, 35])
async def test_any_number_of_entries_arrives(queues: Queues, count: int) -> None:
    """Ten are a call, more are several, and nothing arrives twice."""
    queue = queues.new()
    await queue.send(*(Entry(f"body {at}") for at in range(count)))
    assert sorted(queue.bodies()) == sorted(f"body {at}" for at in range(count))


@pytest.mark.parametrize("letter", ["x", "☃"], ids=["of one byte", "of three bytes"])
async def test_entries_too_large_for_one_call_all_arrive(queues: Queues, letter: str) -> None:
    """Five that are 400 KB together, then two of just what a message may have."""
    size = len(letter.encode())
    large = [f"{at}" + letter * (80_000 // size) for at in range(5)]
    largest = [f"{at}" + letter * ((MAX_QUEUE_BODY_BYTES - 1) // size) for at in range(2)]
    assert {len(body.encode()) for body in largest} == {MAX_QUEUE_BODY_BYTES}
    queue = queues.new()
    await queue.send(*map(Entry, large + largest))
    assert sorted(queue.bodies()) == sorted(large + largest)


async def test_an_entry_with_a_delay_is_not_there_before_its_time(servers: Queues) -> None:
    """What is sent beside it without one is there at once."""
    queue = servers.new()
    began = time.monotonic()
    await queue.send(Entry("late", delay=2), Entry("at once"), Entry("never while we look", delay=900))
    first = queue.bodies()
    if time.monotonic() - began < 2:
        assert first == ["at once"]
    while (found := queue.bodies()) == [] and time.monotonic() - began < 30:  # noqa: ASYNC110 - a queue is polled
        await asyncio.sleep(0.1)
    assert first + found == ["at once", "late"]
    assert time.monotonic() - began >= 2


async def test_a_group_keeps_its_order(queues: Queues) -> None:
    """Thirty entries of three groups, in three calls: each group is received in the order it was sent."""
    queue = queues.new(fifo=True)
    sent = [Entry(f"body {at}", group=f"{at % 3}", deduplication_id=f"id-{at}") for at in range(30)]
    await queue.send(*sent[:13])
    await queue.send(*sent[13:])
    received = queue.take()
    for group in "012":
        assert [each for each in received if each.group == group] == [each for each in sent if each.group == group]
    assert len(received) == len(sent)


async def test_a_deduplication_id_is_taken_once(queues: Queues) -> None:
    """Sent again, in the same call or another, even with another body, it adds nothing and is no error."""
    queue = queues.new(fifo=True)
    await queue.send(*(Entry(f"body {at}", group="g", deduplication_id="the same") for at in range(2)))
    await queue.send(Entry("body 2", group="g", deduplication_id="the same"))
    await queue.send(Entry("body 3", group="g", deduplication_id="another"))
    assert queue.bodies() == ["body 0", "body 3"]


async def test_a_deduplication_id_is_remembered_after_the_entry_was_received(
    queues: Queues, request: pytest.FixtureRequest
) -> None:
    """A dispatch that is tried again after its job was done adds no second job."""
    if queues.name == "moto":
        known_to_fail(request, "moto forgets the ids of what was deleted")
    queue = queues.new(fifo=True)
    await queue.send(Entry("body", group="g", deduplication_id="the same"))
    assert queue.bodies() == ["body"]
    await queue.send(Entry("body", group="g", deduplication_id="the same"))
    assert queue.bodies() == []


async def test_a_queue_that_does_not_exist_takes_nothing(servers: Queues) -> None:
    """All positions are named, over several calls, and so is the queue."""
    url = servers.new().url + "-missing"
    assert servers.service is not None
    with pytest.raises(
        QueueUnavailable, match=r"-missing did not take 12 of 12: .*(QueueDoesNotExist|NonExistentQueue)"
    ) as caught:
        await SqsQueue(servers.service, url).send([Entry("body")] * 12)
    assert caught.value.failed == frozenset(range(12))


async def test_a_refused_entry_is_named_and_the_others_arrive(servers: Queues, request: pytest.FixtureRequest) -> None:
    """A character that no XML may hold is refused by SQS, and refuses nobody else's entry."""
    if servers.name == "moto":
        known_to_fail(request, "moto takes any character")
    queue = servers.new()
    with pytest.raises(QueueUnavailable, match="did not take 1 of 12") as caught:
        await queue.send(*(Entry("a\uffffb" if at == 10 else f"{at}") for at in range(12)))
    assert caught.value.failed == frozenset({10})
    assert sorted(queue.bodies()) == sorted(f"{at}" for at in range(12) if at != 10)
