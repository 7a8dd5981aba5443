"""Which queue an entry goes to, and which items go back if it cannot."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lambda_models import virtual_time
from outcomes import History, messages, outcome_of

from async_relay.delivery.deliveries import Delivery
from async_relay.delivery.outbox import Outbox, Outgoing, PendingSend, Queues, group_entries
from async_relay.delivery.protocols import Entry
from async_relay.delivery.report import Outcome, Undelivered
from async_relay.delivery.settlement import RequeuePolicy, Settlement, settle
from async_relay.errors import PostError, Refused, StoreUnavailable, TimedOut, TooLarge
from async_relay.testing.memory import MemoryQueue
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, Client, DeadLetter, Job, Shard
from async_relay.wire.messages import Message

NOW = 1_700_000_000_000
POLICY = RequeuePolicy(max_attempts=3)
RETRY, LETTERS, FANOUT = MemoryQueue(), MemoryQueue(), MemoryQueue()
STREAM = Job(messages(3), shard=Shard())


def outgoing(outcome: Outcome, queues: Queues, group: str = "") -> Outgoing:
    """The entries of an outcome whose messages came with the items 0, 1, 2 and so on."""
    delivery = Delivery(outcome.job, tuple(range(len(outcome.job.messages))), group)
    return Outbox(queues).settled(settle(outcome, POLICY, NOW), delivery)


@pytest.mark.parametrize("error", [None, TimedOut()])
def test_without_a_retry_queue_the_undelivered_go_back(error: PostError | None) -> None:
    """The items of the messages a client lacks go back, and no others."""
    outcome = outcome_of(STREAM, undelivered=[Undelivered(Client("a", None, 2), error)])
    assert outgoing(outcome, Queues(None, LETTERS)) == Outgoing(back=frozenset({2}))


def test_without_a_retry_queue_nothing_is_continued() -> None:
    """The unread part of the table goes back, also where a FIFO queue would take it."""
    outcome = replace(outcome_of(STREAM), unread=True, pages=1, cursor={"position": 2})
    for queues in (Queues(None, LETTERS), Queues(None, LETTERS, FANOUT)):
        assert outgoing(outcome, queues, "0") == Outgoing(back=frozenset({0, 1, 2}))


def test_an_exhausted_job_without_dead_letters_goes_back() -> None:
    """It is not requeued for ever."""
    job = Job(messages(3), (Client("a"),), attempt=3)
    outcome = outcome_of(job, undelivered=[Undelivered(Client("a", None, 2), TimedOut())])
    assert outgoing(outcome, Queues(RETRY, None)) == Outgoing(back=frozenset({2}))


@pytest.mark.parametrize("error", [Refused("HTTP 400"), TooLarge("HTTP 413")])
def test_without_dead_letters_a_rejected_message_goes_back(error: PostError) -> None:
    """Its item goes back alone."""
    outcome = outcome_of(STREAM, rejected=[(Client("a"), 1, error)])
    assert outgoing(outcome, Queues(RETRY, None)) == Outgoing(back=frozenset({1}))


def test_a_continuation_goes_back_to_its_group() -> None:
    """The rest of a group's read goes to its group with the wait; a client by name goes to the retry queue."""
    job = replace(STREAM, shard=Shard(3, 8))
    outcome = outcome_of(job, undelivered=[Undelivered(Client("a", None, 1), TimedOut())])
    outcome = replace(outcome, unread=True, pages=1, cursor={"position": 2})
    named, rest = outgoing(outcome, Queues(RETRY, LETTERS, FANOUT), "3").pending
    assert (named.queue, named.entry.group, named.entry.delay, set(named.at_stake)) == (RETRY, "", 5, {1, 2})
    assert (rest.queue, rest.entry.group, rest.entry.delay, set(rest.at_stake)) == (FANOUT, "3", 0, {0, 1, 2})
    named, rest = outgoing(outcome, Queues(RETRY, LETTERS, FANOUT)).pending
    assert (named.queue, rest.queue) == (RETRY, RETRY)


def in_job(job: Job) -> list[tuple[str, int]]:
    """Each client and the SequenceNumber of each message the job still brings it."""
    return [
        (client.connection_id, int(message.sequence))
        for client in job.clients
        for message in job.messages[client.skip :]
    ]


def brought(send: PendingSend) -> list[tuple[str, int]]:
    body = json.loads(send.entry.body)
    return in_job(Job.from_fields(body))


CHOICES = [Queues(*each) for each in product([RETRY, None], [LETTERS, None])]


@settings(deadline=None, max_examples=300)
@given(st.randoms(use_true_random=False), st.sampled_from(CHOICES))
def test_each_message_owed_goes_exactly_one_way(random: Random, queues: Queues) -> None:
    """Each message a client is owed is in one job or in one letter, or its item goes back."""
    history = History(random)
    found = outgoing(history.outcome, queues)
    ways = Counter(pair for send in found.pending for pair in brought(send))
    assert set(ways) <= history.owed
    assert set(ways.values()) <= {1}
    assert {position for _, position in history.owed - set(ways)} == found.back
    for send in found.pending:
        assert {position for _, position in brought(send)} <= send.at_stake


@pytest.mark.parametrize("queues", CHOICES)
def test_nothing_goes_to_a_queue_that_is_not_there(queues: Queues) -> None:
    """Entries go to the queues there are, and items go back exactly where one is missing."""
    random = Random(1)
    found = Outgoing.joined(outgoing(History(random).outcome, queues) for _ in range(100))
    assert {id(each.queue) for each in found.pending} == {
        id(each) for each in (queues.retry, queues.dead_letters) if each
    }
    assert bool(found.back) is (queues.retry is None or queues.dead_letters is None)


class Deaf(MemoryQueue):
    """Takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = lambda _entry: True


@virtual_time
async def test_only_the_items_of_refused_entries_go_back() -> None:
    """Two queues are sent to side by side, and one refuses."""
    taking, deaf = MemoryQueue(), Deaf()
    pending = [
        PendingSend(taking, Entry("1"), frozenset({1})),
        PendingSend(deaf, Entry("2"), frozenset({2, 3})),
        PendingSend(taking, Entry("3"), frozenset({4})),
    ]
    assert await Outbox(Queues()).send(pending, 10.0) == {2, 3}
    assert [entry.body for entry in taking.entries] == ["1", "3"]


def test_a_large_letter_is_several_entries_with_the_same_items() -> None:
    """Whichever of them a queue refuses, the items go back."""
    clients = tuple(Client(f"{at:04}" + "x" * 100) for at in range(4_000))
    letter = DeadLetter("refused", "x" * 2_000, Job(messages(1), clients), NOW, "e" * 200, "1" * 200)
    pending = Outbox(Queues(dead_letters=LETTERS)).dead_letter(letter, frozenset({7})).pending
    assert len(pending) > 1
    assert {each.at_stake for each in pending} == {frozenset({7})}
    bodies: list[Any] = [json.loads(each.entry.body) for each in pending]
    assert sum(len(body["clients"]) for body in bodies) == 4_000
    assert all(len(each.entry.body.encode()) <= MAX_QUEUE_BODY_BYTES for each in pending)


def test_a_letter_fits_however_full_its_job_is() -> None:
    """What the letter adds to a job of nearly 256 KiB makes two of it, and never one that has to be cut."""
    clients = tuple(Client(f"{at:04}" + "x" * 100) for at in range(4_000))
    fullest = Job(messages(1), clients).split()[0]
    letter = DeadLetter("refused", "x" * 2_000, fullest, NOW, "e" * 200, "1" * 200)
    bodies = [each.entry.body for each in Outbox(Queues(None, LETTERS)).dead_letter(letter, frozenset()).pending]
    assert [client for body in bodies for client in Job.from_fields(json.loads(body)).clients] == [*fullest.clients]


def test_a_job_for_thousands_of_clients_is_several_entries() -> None:
    """Each fits into a message and waits as long, no client is forgotten, and all hold the same items."""
    clients = [Undelivered(Client(f"{at:04}" + "x" * 100), TimedOut()) for at in range(4_000)]
    found = outgoing(outcome_of(STREAM, undelivered=clients), Queues(RETRY, LETTERS)).pending
    assert len(found) > 1
    assert {(each.queue, each.entry.delay, each.at_stake) for each in found} == {(RETRY, 5, frozenset({0, 1, 2}))}
    assert all(len(each.entry.body.encode()) <= MAX_QUEUE_BODY_BYTES for each in found)
    assert sum(len(json.loads(each.entry.body)["clients"]) for each in found) == 4_000


def test_a_table_that_gave_no_page_hands_its_items_back() -> None:
    """Whichever queues there are: it would be requeued as it is."""
    outcome = replace(outcome_of(STREAM), unread=True, failure=StoreUnavailable())
    assert outgoing(outcome, Queues(RETRY, LETTERS, FANOUT), "0") == Outgoing(back=frozenset({0, 1, 2}))


def test_a_groups_continuation_waits_outside_its_queue() -> None:
    """A FIFO queue delays no message of its own, so the wait goes with the entry and not in it."""
    job = replace(STREAM, shard=Shard(3, 8))
    outcome = replace(outcome_of(job), unread=True, pages=1, cursor={"position": 2}, failure=StoreUnavailable())
    (rest,) = outgoing(outcome, Queues(RETRY, LETTERS, FANOUT), "3").pending
    assert (rest.queue, rest.wait, rest.entry.delay) == (FANOUT, 5, 0)
    (rest,) = outgoing(outcome, Queues(RETRY, LETTERS, FANOUT)).pending
    assert (rest.queue, rest.wait, rest.entry.delay, rest.entry.group) == (RETRY, 0, 5, "")


def test_what_a_stream_leaves_over_goes_to_the_retry_queue_although_there_is_a_fifo_queue() -> None:
    """Served by one function, where few are connected: its rest has no group, which a FIFO queue would refuse."""
    outcome = replace(outcome_of(STREAM), unread=True, pages=1, cursor={"position": 2})
    (rest,) = outgoing(outcome, Queues(RETRY, LETTERS, FANOUT)).pending
    assert (rest.queue, rest.entry.group, rest.entry.deduplication_id) == (RETRY, "", "")


def test_each_part_for_a_group_has_an_id_of_its_own() -> None:
    """SQS would drop the second of two with one id, and the group needs the parts in order."""
    payload = [Message.encode({"event_id": f"e{at}", "sequence": f"{at}", "pad": "x" * 60_000}) for at in range(10)]
    entries = list(group_entries(Job(tuple(payload), shard=Shard(3, 8)), "3"))
    assert len(entries) > 1
    assert len({each.deduplication_id for each in entries}) == len(entries)
    assert {each.group for each in entries} == {"3"}
    sent = [message.sequence for each in entries for message in Job.decode(each.body).messages]
    assert sent == [str(at) for at in range(10)]
    same = (Message.encode({"pad": "x" * 100_000}),) * 4
    alike = list(group_entries(Job(same, shard=Shard(3, 8), first_at=NOW), "3"))
    assert len({each.deduplication_id for each in alike}) == len(alike) > 1


def test_an_empty_settlement_is_nothing_to_send() -> None:
    """Neither an entry nor an item."""
    assert Outbox(Queues(RETRY, LETTERS)).settled(Settlement(), Delivery(STREAM, (0, 1, 2))) == Outgoing()


@virtual_time
async def test_what_a_queue_has_taken_of_a_send_does_not_go_back() -> None:
    """A queue that refuses some entries of many costs the items of those, and the log says it."""
    shaky = MemoryQueue(lambda entry: entry.body in ("2", "4"))
    pending = [PendingSend(shaky, Entry(str(at)), frozenset({at})) for at in range(6)]
    assert await Outbox(Queues()).send(pending, 10.0) == {2, 4}


@virtual_time
async def test_the_time_kept_back_is_twice_what_the_last_send_took() -> None:
    """A second before any send, then twice as long as the last one took, and never less than 0.3 s."""
    queue = MemoryQueue()
    outbox = Outbox(Queues())
    kept = [outbox.reserve]
    for queue.delay in (2.0, 0.5, 0.01):
        await outbox.send([PendingSend(queue, Entry("1"), frozenset())], 100.0)
        kept.append(outbox.reserve)
    assert kept == pytest.approx([1.0, 4.0, 1.0, 0.3])
    await outbox.send([], 100.0)
    assert outbox.reserve == pytest.approx(0.3)


@virtual_time
async def test_the_queues_are_sent_to_side_by_side_and_until_the_deadline() -> None:
    """Two that take a second each take one; of one that hangs the items go back at the deadline, the others' not."""
    first, second, hanging = MemoryQueue(delay=1.0), MemoryQueue(delay=1.0), MemoryQueue(delay=1_000.0)
    time = asyncio.get_running_loop().time
    pending = [PendingSend(queue, Entry("1"), frozenset({at})) for at, queue in enumerate((first, second))]
    start = time()
    assert await Outbox(Queues()).send(pending, start + 10) == frozenset()
    assert time() - start == pytest.approx(1.0)
    start = time()
    assert await Outbox(Queues()).send([*pending, PendingSend(hanging, Entry("1"), frozenset({7}))], start + 10) == {7}
    assert time() - start == pytest.approx(10.0)
