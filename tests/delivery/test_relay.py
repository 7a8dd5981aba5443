"""The relay's two entry points over the in-memory twins: what is handed back, requeued, dead-lettered, dispatched."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from lambda_models import EPOCH, still_running, virtual_time, wall_clock
from records import event, incident, record, remediation

from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.outbox import Queues
from async_relay.delivery.protocols import Entry
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Failures, Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import UndecodableRecord
from async_relay.testing.memory import NEVER, OK, MemoryQueue, MemoryStore, MemoryTransport, Reply, Script
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES, Client, Job, Shard, ShardKind
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_record

pytestmark = virtual_time

NOW_MS = EPOCH * 1000


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}=" for number in range(count)]


def records(count: int, first: int = 1) -> list[dict[str, Any]]:
    return [record(incident(number), sequence=str(number)) for number in range(first, first + count)]


def messages(count: int, first: int = 1) -> tuple[Message, ...]:
    found = [read_record(each).message for each in records(count, first)]
    return tuple(message for message in found if message)


def back(*identifiers: Any) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": str(each)} for each in identifiers]}


class Stage:
    """A relay over memory: one transport, one table, up to three queues."""

    def __init__(
        self,
        script: Script = lambda _id, _message: OK,
        clients: Sequence[str] = (),
        *,
        bound: int = 100,
        timeout: float = 3.0,
        page_size: int = 1_000,
        retry: bool = True,
        letters: bool = True,
        fanout: bool = False,
        policy: RequeuePolicy | None = None,
        rate: Rate | None = None,
        store: MemoryStore | None = None,
        **options: Any,
    ) -> None:
        self.store = store or MemoryStore(clients, page_size=page_size)
        self.transport = MemoryTransport(script, timeout=timeout)
        self.retry = MemoryQueue() if retry else None
        self.letters = MemoryQueue() if letters else None
        self.fanout = MemoryQueue() if fanout else None
        self.figures: list[dict[str, float]] = []
        limits = Limits(bound, timeout)
        self.relay = Relay(
            Broadcaster(self.transport, self.store, limits, rate or Rate(), Random(1), wall_clock),
            Queues(self.retry, self.letters, self.fanout),
            policy or RequeuePolicy(),
            wall_clock=wall_clock,
            emit_metrics=lambda figures: self.figures.append(dict(figures)),
            **options,
        )
        self.took = 0.0

    async def stream(self, *raw: Any, seconds: float = 60.0) -> Failures:
        return await self._timed(self.relay.on_stream(event(*raw), seconds), seconds)

    async def jobs(self, *entries: Entry | Job | str, seconds: float = 60.0) -> Failures:
        return await self._timed(self.relay.on_jobs({"Records": sqs_records(entries)}, seconds), seconds)

    async def _timed(self, invocation: Any, seconds: float) -> Failures:
        loop = asyncio.get_running_loop()
        start = loop.time()
        failures: Failures = await invocation
        self.took = loop.time() - start
        assert self.took <= seconds + 1e-6
        assert not still_running()
        return failures

    def got(self, connection_id: str) -> list[str]:
        return [message.sequence for message in self.transport.received[connection_id]]

    def requeued(self) -> list[tuple[Job, int]]:
        assert self.retry is not None
        return [(Job.decode(entry.body), entry.delay) for entry in self.retry.entries]

    def dead_letters(self) -> list[Any]:
        assert self.letters is not None
        return [json.loads(entry.body) for entry in self.letters.entries]

    def reasons(self) -> list[tuple[str, str]]:
        return [(letter["deadLetter"]["reason"], letter["deadLetter"]["sequence"]) for letter in self.dead_letters()]


def sqs_records(entries: Iterable[Entry | Job | str]) -> list[dict[str, Any]]:
    found = []
    for number, each in enumerate(entries):
        entry = each if isinstance(each, Entry) else Entry(each.encode() if isinstance(each, Job) else each)
        attributes = {"MessageGroupId": entry.group} if entry.group else {}
        found.append({"messageId": f"m{number}", "body": entry.body, "attributes": attributes})
    return found


def only(prefix: str, reply: Reply) -> Script:
    return lambda connection_id, _message: reply if connection_id.startswith(prefix) else OK


# ── stream records ──────────────────────────────────────────────────────────────────────────────


async def test_every_client_gets_every_record_in_order() -> None:
    """Two incidents and a remediation log reach everybody in order; REMOVE and the rest are ignored."""
    batch = [
        record(incident(1), sequence="1"),
        record(incident(9), sequence="2", name="REMOVE"),
        record(remediation(1), sequence="3"),
        record({"something": "else"}, sequence="4"),
        record(incident(2), sequence="5", name="MODIFY"),
    ]
    stage = Stage(clients=names("c", 50))
    assert await stage.stream(*batch) == back()
    assert all(stage.got(each) == ["1", "3", "5"] for each in names("c", 50))
    assert stage.figures[0]["delivered"] == 150


async def test_a_rate_limit_is_a_figure_and_none_is_left_out() -> None:
    """The limit at the broadcast's end is measured; unlimited is no number, and no figure."""
    stage = Stage(clients=names("c", 3))
    await stage.stream(*records(1))
    assert "rate_limit" not in stage.figures[0]
    limited = Stage(clients=names("c", 3), rate=Rate(250))
    await limited.stream(*records(1))
    assert limited.figures[0]["rate_limit"] == 250


async def test_three_sick_clients_never_fail_a_batch() -> None:
    """300 healthy and 3 that answer 500 for ever, 4 records: the three are in the retry queue by name."""
    sick = names("sick", 3)
    stage = Stage(only("sick", Reply(500)), [*sick, *names("c", 300)])
    assert await stage.stream(*records(4)) == back()
    assert all(stage.got(each) == ["1", "2", "3", "4"] for each in names("c", 300))
    ((job, delay),) = stage.requeued()
    assert sorted(client.connection_id for client in job.clients) == sick
    assert (job.attempt, delay, job.reason, len(job.messages)) == (1, 5, "server_error", 4)
    stage.transport.script = lambda _id, _message: OK
    assert stage.retry is not None
    assert await stage.jobs(*stage.retry.take()) == back()
    assert all(stage.got(each) == ["1", "2", "3", "4"] for each in sick)


async def test_clients_that_never_answer_are_requeued_and_the_rest_served() -> None:
    """10 hang, 400 are healthy, 20 in flight, 15 s left: the ten are requeued and the call ends in time."""
    stage = Stage(only("hang", Reply(200, NEVER, arrives=False)), names("hang", 10) + names("c", 400), bound=20)
    assert await stage.stream(*records(1), seconds=15) == back()
    assert all(stage.got(each) == ["1"] for each in names("c", 400))
    requeued = [client.connection_id for job, _ in stage.requeued() for client in job.clients]
    assert sorted(requeued) == names("hang", 10)
    assert stage.took < 15


async def test_what_the_deadline_leaves_is_served_by_the_queues_jobs() -> None:
    """2,000 clients at 100 ms, 10 in flight, 6 s: the jobs serve the rest, and at most 20 are served twice."""
    slow = Reply(200, 0.1)
    stage = Stage(lambda _id, _message: slow, names("c", 2_000), bound=10, page_size=300)
    assert await stage.stream(*records(1), seconds=6) == back()
    served = stage.transport.arrivals.total()
    assert 300 <= served <= 600
    assert stage.retry is not None
    invocations = 0
    while stage.retry.entries:
        entry, *stage.retry.entries = stage.retry.entries
        assert entry.delay == 0
        assert Job.decode(entry.body).attempt == 0
        assert await stage.jobs(entry, seconds=6) == back()
        invocations += 1
    assert set(stage.transport.received) == set(names("c", 2_000))
    assert stage.transport.arrivals.total() <= 2_020
    assert invocations < 20


async def test_bad_records_among_good_ones() -> None:
    """One of 180 KB, one malformed and one without an image are dead letters; the good ones are delivered."""
    missing = record(incident(4), sequence="4")
    del missing["dynamodb"]["NewImage"]
    batch = [
        *records(1),
        record(incident(2, arn="x" * 180_000), sequence="2"),
        record(incident(3), sequence="3") | {"eventName": "UPSERT"},
        missing,
        *records(1, first=5),
    ]
    stage = Stage(clients=names("c", 10))
    assert await stage.stream(*batch) == back()
    assert all(stage.got(each) == ["1", "5"] for each in names("c", 10))
    assert stage.reasons() == [("too_large", "2"), ("undecodable", "3"), ("undecodable", "4")]
    assert stage.dead_letters()[2]["record"] == missing
    assert stage.figures[0]["posts"] == 20


async def test_bad_records_go_back_where_there_are_no_dead_letters() -> None:
    """Without a dead-letter queue the good records are delivered and the bad ones handed back."""
    bad = record({"incident_id": "x"}, sequence="2")
    bad["dynamodb"]["NewImage"] = {"incident_id": {"Q": "x"}}
    large = record(incident(3, arn="x" * 180_000), sequence="3")
    stage = Stage(clients=["c="], letters=False)
    assert await stage.stream(*records(1), bad, large, *records(1, first=4)) == back(2, 3)
    assert stage.got("c=") == ["1", "4"]


async def test_a_batch_of_nothing_to_send_reads_no_table() -> None:
    """Where every record is ignored or bad nobody is posted to."""
    stage = Stage(clients=["c="])
    gone = record(incident(1), sequence="1", name="REMOVE")
    assert await stage.stream(gone) == back()
    assert await stage.stream() == back()
    assert stage.store.reads == 0


async def test_an_event_that_is_none_is_refused() -> None:
    """What is no stream event raises, since nothing in it could be handed back."""
    with pytest.raises(UndecodableRecord):
        await Stage().relay.on_stream({"Records": None}, 5)


async def test_nobody_can_be_served_hands_back_all_that_was_to_be_sent() -> None:
    """403 for all, or a table that is down: the records come back, nothing is deleted or requeued."""
    for script, down in ((only("", Reply(403)), False), (only("", OK), True), (only("", Reply(-1)), False)):
        stage = Stage(script, names("c", 30))
        stage.store.down = down
        gone = record(incident(1), sequence="1", name="REMOVE")
        assert await stage.stream(gone, *records(2, first=2)) == back(2, 3)
        assert stage.took < 5
        assert (stage.requeued(), stage.dead_letters(), stage.store.deleted) == ([], [], [])


async def test_records_go_back_more_slowly_each_time() -> None:
    """While nobody can be served each invocation waits longer before it answers, up to five seconds."""
    stage = Stage(clients=names("c", 30))
    stage.store.down = True
    took = []
    for _ in range(6):
        assert await stage.stream(*records(1)) == back(1)
        took.append(stage.took)
    assert took == pytest.approx([0.5, 1, 2, 4, 5, 5], abs=0.3)
    stage.store.down = False
    assert await stage.stream(*records(1)) == back()
    assert stage.took < 0.1
    stage.store.down = True
    assert await stage.stream(*records(1)) == back(1)
    assert stage.took == pytest.approx(0.5, abs=0.3)


async def test_records_a_queue_refuses_go_back_slowly_and_jobs_at_once() -> None:
    """A queue that takes nothing slows down the stream; a job handed back is hidden by its own queue."""
    stage = Stage(only("sick", Reply(400)), ["sick=", "c="])
    assert stage.letters
    stage.letters.refuses = lambda _entry: True
    assert await stage.stream(*records(1)) == back(1)
    assert stage.took >= 0.5
    assert await stage.jobs("not json") == back("m0")
    assert stage.took < 0.1


async def test_an_invocation_that_raises_is_slowed_down_too() -> None:
    """Lambda sends a batch again after an error as well, so an error waits like a batch handed back."""
    stage, time = Stage(), asyncio.get_running_loop().time
    for least in (0.5, 1.0, 2.0):
        start = time()
        with pytest.raises(UndecodableRecord):
            await stage.relay.on_stream({"Records": None}, 60)
        assert time() - start == pytest.approx(least)


async def test_no_wait_passes_the_deadline() -> None:
    """With two seconds left a batch is handed back within them, however often it came back before."""
    stage = Stage(clients=names("c", 30))
    stage.store.down = True
    for _ in range(6):
        assert await stage.stream(*records(1), seconds=2) == back(1)
        assert stage.took < 2


async def test_without_a_retry_queue_records_go_back_from_the_first_undelivered() -> None:
    """A client that fails for ever at the third record hands back the third and the fourth, in time."""

    def fails_at_3(connection_id: str, message: Message) -> Reply:
        return Reply(500) if (connection_id, message.sequence) == ("sick=", "3") else OK

    stage = Stage(fails_at_3, ["sick=", *names("c", 20)], retry=False)
    assert await stage.stream(*records(4), seconds=15) == back(3, 4)
    assert stage.got("sick=") == ["1", "2"]
    assert stage.got("c0=") == ["1", "2", "3", "4"]


async def test_refused_messages_without_dead_letters_go_back() -> None:
    """400 for one record, and no queue for it: that record comes back and no other."""
    stage = Stage(lambda _id, message: Reply(400) if message.sequence == "2" else OK, ["c="], letters=False)
    assert await stage.stream(*records(3)) == back(2)
    assert stage.got("c=") == ["1", "3"]


async def test_too_large_for_everybody_is_one_letter() -> None:
    """413 from everybody for one record: one dead letter, some posts, and the rest of the batch for all."""
    stage = Stage(lambda _id, message: Reply(413) if message.sequence == "2" else OK, names("c", 300), bound=10)
    assert await stage.stream(*records(3)) == back()
    assert stage.reasons() == [("too_large", "2")]
    assert all(stage.got(each) == ["1", "3"] for each in names("c", 300))
    assert stage.figures[0]["rejected"] < 20


@pytest.mark.parametrize("fanout", [False, True])
async def test_refused_by_everybody_is_one_letter(fanout: bool) -> None:
    """400 from everybody for one record: one dead letter a job, to its part of the table, and the rest for all."""
    stage = Stage(lambda _id, message: Reply(400 if message.sequence == "2" else 200), names("c", 300), fanout=fanout)
    if fanout:
        assert await stage.jobs(fifo(0, 1, 3), fifo(1, 1, 3)) == back()
    else:
        assert await stage.stream(*records(3)) == back()
    assert stage.reasons() == [("refused", "2")] * (2 if fanout else 1)
    assert all("clients" not in letter and letter["shard"] for letter in stage.dead_letters())
    assert all(stage.got(each) == ["1", "3"] for each in names("c", 300))


async def test_refused_by_some_names_them() -> None:
    """400 from two of many: one letter with the two, and the message that was refused."""
    stage = Stage(only("odd", Reply(400)), [*names("odd", 2), *names("c", 20)])
    assert await stage.stream(*records(1)) == back()
    (letter,) = stage.dead_letters()
    assert letter["deadLetter"]["reason"] == "refused"
    assert sorted(client["connectionId"] for client in letter["clients"]) == names("odd", 2)
    assert [message["sequence"] for message in letter["messages"]] == ["1"]
    assert stage.store.deleted == []


async def test_a_queue_that_refuses_hands_the_records_back() -> None:
    """What the retry queue or the dead letters do not take comes back, and nothing else does."""

    def shaky(connection_id: str, message: Message) -> Reply:
        if connection_id == "sick=" and message.sequence == "3":
            return Reply(500)
        return Reply(400) if connection_id == "odd=" and message.sequence == "2" else OK

    for retry, letters, expected in ((True, False, [3, 4]), (False, True, [2]), (True, True, [2, 3, 4])):
        stage = Stage(shaky, ["sick=", "odd=", "c="])
        assert stage.retry
        assert stage.letters
        stage.retry.refuses = lambda _entry, refuses=retry: refuses  # type: ignore[misc]
        stage.letters.refuses = lambda _entry, refuses=letters: refuses  # type: ignore[misc]
        assert await stage.stream(*records(4)) == back(*expected)


async def test_a_queue_that_refuses_one_entry_hands_back_what_that_one_held() -> None:
    """A partial failure of a send costs only the records of what was refused."""
    stage = Stage(lambda _id, message: Reply(400) if int(message.sequence) % 2 else OK, ["c="])
    assert stage.letters
    stage.letters.refuses = lambda entry: '"sequence":"3"' in entry.body
    assert await stage.stream(*records(6)) == back(3)
    assert [sequence for _, sequence in stage.reasons()] == ["1", "5"]


class SlowQueue(MemoryQueue):
    """Takes longer than any invocation has."""

    async def send(self, entries: Sequence[Entry]) -> None:
        await asyncio.sleep(100)
        await super().send(entries)


async def test_a_queue_that_hangs_hands_the_records_back_in_time() -> None:
    """A queue that does not answer ends neither the invocation's time nor the records."""
    stage = Stage(only("sick", Reply(500)), ["sick=", "c="])
    stage.relay._outbox.queues = Queues(SlowQueue(), stage.letters)
    assert await stage.stream(*records(2), seconds=10) == back(1, 2)
    assert 9 <= stage.took <= 10


async def test_time_is_kept_back_for_queues_that_were_never_used() -> None:
    """Posts that hang are cut a second before the deadline, so that a first send has the time to connect."""
    stage = Stage(only("", Reply(200, NEVER, arrives=False)), names("hang", 30))
    assert stage.retry
    stage.retry.delay = 0.9
    assert await stage.stream(*records(1), seconds=6) == back()
    assert sorted(client.connection_id for job, _ in stage.requeued() for client in job.clients) == sorted(
        names("hang", 30)
    )


async def test_time_is_kept_back_for_a_queue_that_was_slow_before() -> None:
    """After a send that took two seconds the next broadcast ends four seconds before its deadline."""
    stage = Stage(only("sick", Reply(500)), ["sick="])
    assert stage.retry
    stage.retry.delay = 2.0
    await stage.stream(*records(1))
    stage.transport.script = lambda _id, _message: Reply(200, 0.9)
    stage.store.add(*names("c", 2_000))
    assert await stage.stream(*records(1), seconds=20) == back()
    assert stage.took < 20
    assert len(stage.retry.entries) > 1


async def test_only_the_newest_state_is_sent_where_that_is_wanted() -> None:
    """With coalescing, a client gets the last state of an incident and every remediation log."""
    batch = [
        record(incident(1), sequence="1"),
        record(remediation(1), sequence="2"),
        record(incident(1, status="CLOSED"), sequence="3", name="MODIFY"),
    ]
    stage = Stage(
        lambda _id, message: Reply(500) if message.sequence == "3" else OK, ["c="], retry=False, coalesce=True
    )
    assert await stage.stream(*batch, seconds=10) == back(3)
    assert stage.got("c=") == ["2"]


# ── jobs ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("base", "delays"), [(5, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]), (0, [0] * 10), (700, [700] + [900] * 9)]
)
async def test_the_retry_queues_delay_doubles(base: float, delays: list[int]) -> None:
    """Each attempt waits twice as long as the one before, at most 900 s; a base of 0 waits not at all."""
    stage = Stage(only("", Reply(500)), ["sick="], policy=RequeuePolicy(base, 10))
    await stage.stream(*records(1))
    assert stage.retry
    seen = []
    while entries := stage.retry.take():
        seen += [entry.delay for entry in entries]
        assert await stage.jobs(*entries) == back()
    assert seen == delays


async def test_after_the_last_attempt_a_job_is_a_dead_letter() -> None:
    """Client, messages, last error, first and last time: what an operator needs to know."""
    stage = Stage(only("", Reply(500)), ["sick="], policy=RequeuePolicy(5, 2))
    await asyncio.sleep(1)
    await stage.stream(*records(2))
    assert stage.retry
    for _ in range(2):
        await asyncio.sleep(5)
        assert await stage.jobs(*stage.retry.take()) == back()
    assert stage.retry.entries == []
    (letter,) = stage.dead_letters()
    assert letter["deadLetter"]["reason"] == "attempts_exhausted"
    assert "2 attempts" in letter["deadLetter"]["detail"]
    assert "HTTP 500" in letter["deadLetter"]["detail"]
    assert letter["clients"] == [{"connectionId": "sick="}]
    assert [message["sequence"] for message in letter["messages"]] == ["1", "2"]
    assert letter["reason"] == "server_error"
    assert NOW_MS + 1_000 <= letter["firstAt"] < NOW_MS + 3_500
    assert letter["deadLetter"]["lastAt"] >= letter["firstAt"] + 10_000
    assert letter["attempt"] == 2


async def test_a_job_that_may_not_become_a_dead_letter_goes_back() -> None:
    """Exhausted, and no dead-letter queue: the message stays in its queue."""
    stage = Stage(only("sick", Reply(500)), letters=False, policy=RequeuePolicy(5, 2))
    job = Job(messages(1), (Client("sick="),), attempt=2)
    assert await stage.jobs(replace(job, clients=(Client("c="),)), job) == back("m1")


async def test_only_what_still_fails_is_requeued_again() -> None:
    """A job's clients that are served, or gone, end there; the others keep what they lack."""

    def mixed(connection_id: str, message: Message) -> Reply:
        if connection_id == "sick=" and message.sequence == "2":
            return Reply(500)
        return Reply(410) if connection_id == "gone=" else OK

    stage = Stage(mixed, ["gone="])
    job = Job(messages(3), (Client("c="), Client("gone="), Client("sick="), Client("most=", skip=2)), attempt=1)
    assert await stage.jobs(job) == back()
    ((requeued, delay),) = stage.requeued()
    assert requeued.clients == (Client("sick="),)
    assert [message.sequence for message in requeued.messages] == ["2", "3"]
    assert (requeued.attempt, delay) == (2, 10)
    assert stage.store.deleted == ["gone="]
    assert stage.dead_letters() == []
    assert stage.got("most=") == ["3"]


async def test_a_job_nobody_can_read_is_a_dead_letter() -> None:
    """An unreadable body does not poison the queue, nor take the others with it."""
    stage = Stage()
    assert await stage.jobs("not json", Job(messages(1), (Client("c="),)), '{"job": 2}') == back()
    assert [reason for reason, _ in stage.reasons()] == ["unreadable_job"] * 2
    assert stage.dead_letters()[0]["body"] == "not json"
    assert stage.got("c=") == ["1"]
    without = Stage(letters=False)
    assert await without.jobs("not json", Job(messages(1), (Client("c="),))) == back("m0")
    assert stage.letters
    stage.letters.refuses = lambda _entry: True
    assert await stage.jobs("not json") == back("m0")


async def test_one_forbidden_client_of_a_retry_job_is_not_everybody() -> None:
    """A client known to be forbidden alone goes on to its next attempt, and the other jobs are settled."""
    stage = Stage(only("no", Reply(403)))
    job = Job(messages(1), (Client("no="),), attempt=1, reason="forbidden")
    assert await stage.jobs(job) == back()
    assert stage.requeued()[0][0].attempt == 2


async def test_jobs_nobody_can_serve_go_back() -> None:
    """With the endpoint down every job stays in its queue, attempts uncounted."""
    stage = Stage(only("", Reply(-1)))
    jobs = [Job(messages(1), (Client(each),), attempt=1) for each in names("c", 12)]
    assert await stage.jobs(*jobs) == back(*(f"m{number}" for number in range(12)))
    assert (stage.requeued(), stage.dead_letters()) == ([], [])


async def test_a_refused_park_hands_back_that_job_only() -> None:
    """Where the retry queue refuses one job's rest, that job is not acknowledged and the others are."""
    stage = Stage(only("sick", Reply(500)))
    assert stage.retry
    stage.retry.refuses = lambda entry: "sick1=" in entry.body
    jobs = [Job(messages(1), (Client(each),), attempt=1) for each in names("sick", 3)]
    assert await stage.jobs(*jobs) == back("m1")
    assert len(stage.retry.entries) == 2


async def test_no_time_hands_every_job_back() -> None:
    """With less than half a second left nothing is begun."""
    stage = Stage(fanout=True)
    assert await stage.jobs(Job(messages(1), (Client("c="),)), fifo(0, 1), seconds=0.4) == back("m0", "m1")
    assert stage.transport.posts.total() == 0


async def test_thousands_of_undelivered_clients_are_few_messages() -> None:
    """5,000 clients that fail are a few jobs of at most 256 KiB, and none is forgotten."""
    everybody = names("a-rather-long-connection-id", 5_000)
    stage = Stage(only("", Reply(500)), everybody, bound=500)
    assert await stage.stream(*records(3)) == back()
    assert stage.retry
    assert len(stage.retry.entries) < 10
    assert all(len(entry.body.encode()) <= MAX_QUEUE_BODY_BYTES for entry in stage.retry.entries)
    assert sorted(client.connection_id for job, _ in stage.requeued() for client in job.clients) == sorted(everybody)


async def test_a_young_client_is_requeued_with_its_age_and_forgotten_once_it_is_old() -> None:
    """The grace goes on in the queue: the row goes only once it is old and the client still gone."""
    stage = Stage(only("", Reply(410)), ["new="])
    stage.store.rows["new="] = {"createdAt": NOW_MS}
    assert await stage.stream(*records(1)) == back()
    assert stage.store.deleted == []
    assert stage.requeued()[0][0].clients == (Client("new=", NOW_MS),)
    await asyncio.sleep(10)
    assert stage.retry
    assert await stage.jobs(*stage.retry.take()) == back()
    assert stage.store.deleted == ["new="]
    assert (stage.requeued(), stage.dead_letters()) == ([], [])


async def test_an_endpoint_that_may_be_another_apis_is_one_error(caplog: pytest.LogCaptureFixture) -> None:
    """410 from everybody and not one 200 is a success for the batch, a figure, and one line that names WS_ENDPOINT."""
    stage = Stage(only("", Reply(410)), names("c", 5_000))
    assert await stage.stream(*records(2)) == back()
    assert (stage.figures[0]["unproven"], stage.figures[0]["undeleted"], stage.figures[0]["gone"]) == (4_975, 0, 5_000)
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert errors == [
        "4975 clients answered 410 and nobody 200: their rows stay, since WS_ENDPOINT may be another API's"
    ]
    stage.transport.script = only("c1", Reply(410))
    assert await stage.stream(*records(1)) == back()
    assert stage.figures[1]["unproven"] == 0
    assert not any(each.startswith("c1") for each in stage.store.rows)


# ── the fan-out ─────────────────────────────────────────────────────────────────────────────────


def fifo(shard: int, first: int, count: int = 1, *, of: int = 2, **more: Any) -> Entry:
    """A job of some records for one shard, as the dispatcher sends it."""
    job = Job(messages(count, first), shard=Shard(shard, of), **more)
    return Entry(job.encode(), group=str(shard), deduplication_id=job.deduplication_id(0))


async def test_a_batch_is_dispatched_and_served_once() -> None:
    """1,000 clients, 8 shards, 3 records: the dispatcher posts nothing, and each client gets each record once."""
    stage = Stage(clients=names("c", 1_000), fanout=True)
    assert stage.fanout
    assert await stage.stream(*records(3)) == back()
    assert stage.transport.posts.total() == stage.store.reads == 0
    assert [entry.group for entry in stage.fanout.entries] == [str(shard) for shard in range(8)]
    assert await stage.stream(*records(3)) == back()
    entries = stage.fanout.take()
    assert len(entries) == 8
    assert await stage.jobs(*entries) == back()
    assert all(stage.got(each) == ["1", "2", "3"] for each in names("c", 1_000))
    assert not stage.fanout.entries


async def test_a_large_batch_is_split_in_order() -> None:
    """Records of 600 KB in all make several jobs a shard, each at most 256 KiB, parts in order."""
    batch = [record(incident(number, arn="x" * 60_000), sequence=str(number)) for number in range(1, 11)]
    stage = Stage(clients=names("c", 40), fanout=True, shards=3)
    assert stage.fanout
    assert await stage.stream(*batch) == back()
    assert all(len(entry.body.encode()) <= MAX_QUEUE_BODY_BYTES for entry in stage.fanout.entries)
    assert len({entry.deduplication_id for entry in stage.fanout.entries}) == len(stage.fanout.entries) > 8
    assert await stage.jobs(*stage.fanout.take()) == back()
    assert all(stage.got(each) == [str(number) for number in range(1, 11)] for each in names("c", 40))


async def test_a_dispatched_job_fits_whatever_the_shards_are_called() -> None:
    """The number of a shard may be long, and still no job is over 256 KiB."""
    batch = [record(incident(number, arn="x" * 80_000), sequence=str(number)) for number in range(1, 4)]
    found = tuple(message for each in batch if (message := read_record(each).message))
    spare = MAX_QUEUE_BODY_BYTES - len(Job(found, shard=Shard(), first_at=NOW_MS).encode().encode())
    batch[2] = record(incident(3, arn="x" * (80_000 + spare)), sequence="3")
    stage = Stage(fanout=True, shards=101)
    assert stage.fanout
    assert await stage.stream(*batch) == back()
    assert max(len(entry.body.encode()) for entry in stage.fanout.entries) <= MAX_QUEUE_BODY_BYTES


async def test_what_the_fifo_queue_refuses_goes_back() -> None:
    """A shard whose job is refused hands the records back; what was taken is not taken again."""
    stage = Stage(clients=names("c", 40), fanout=True, shards=4)
    assert stage.fanout
    stage.fanout.refuses = lambda entry: entry.group == "2"
    assert await stage.stream(*records(3)) == back(1, 2, 3)
    stage.fanout.refuses = lambda _entry: False
    assert await stage.stream(*records(3)) == back()
    assert await stage.jobs(*stage.fanout.take()) == back()
    assert all(stage.got(each) == ["1", "2", "3"] for each in names("c", 40))


async def test_a_refused_part_keeps_the_parts_behind_it() -> None:
    """Where an early part is refused no later one is sent, and the batch comes back from there on."""
    batch = [record(incident(number, arn="x" * 60_000), sequence=str(number)) for number in range(1, 11)]
    stage = Stage(fanout=True, shards=2)
    assert stage.fanout
    stage.fanout.refuses = lambda entry: entry.group == "1" and '"sequence":"5"' in entry.body
    failures = await stage.stream(*batch)
    lowest = min(int(each["itemIdentifier"]) for each in failures["batchItemFailures"])
    assert lowest in (4, 5)
    sent = [message.sequence for entry in stage.fanout.entries for message in Job.decode(entry.body).messages]
    assert Counter(sent)["1"] == 2
    assert max(map(int, sent)) < 10


async def test_bad_records_are_dead_letters_of_the_dispatcher() -> None:
    """Undecodable records never reach a worker."""
    stage = Stage(fanout=True)
    assert stage.fanout
    assert await stage.stream(*records(1), {"eventID": "e2", "dynamodb": {"SequenceNumber": "2"}}) == back()
    assert stage.reasons() == [("undecodable", "2")]
    assert all(len(Job.decode(entry.body).messages) == 1 for entry in stage.fanout.entries)


async def test_jobs_of_one_shard_share_a_read() -> None:
    """Consecutive jobs of one shard in one batch are one pass over the table, in order."""
    stage = Stage(clients=names("c", 30), fanout=True)
    assert await stage.jobs(*(fifo(0, number) for number in range(1, 6)), fifo(1, 1, 5)) == back()
    assert stage.store.reads == 2
    assert all(stage.got(each) == ["1", "2", "3", "4", "5"] for each in names("c", 30))


async def test_a_group_stops_at_its_first_failure() -> None:
    """A job that cannot be settled goes back with all behind it, and other groups go on."""
    stage = Stage(clients=names("c", 30), letters=False, fanout=True)
    stage.transport.script = lambda _id, message: Reply(400) if message.sequence == "2" else OK
    entries = [fifo(0, 1), fifo(0, 2), fifo(0, 3), fifo(1, 1)]
    assert await stage.jobs(*entries) == back("m1", "m2")
    cursors = [fifo(0, 2), fifo(0, 1, cursor={"position": 0}, continuation=1), fifo(0, 3), fifo(1, 3)]
    assert await stage.jobs(*cursors) == back("m0", "m1", "m2")


async def test_a_workers_continuation_goes_back_to_its_group() -> None:
    """The unread part goes behind its group with an id of its own; undelivered clients are requeued."""
    stage = Stage(lambda _id, _message: Reply(200, 0.1), names("c", 6_000), fanout=True, bound=5, page_size=100)
    assert stage.fanout
    entry = fifo(1, 1, 2)
    assert await stage.jobs(entry, seconds=5) == back()
    (continuation,) = stage.fanout.entries
    job = Job.decode(continuation.body)
    assert continuation.group == "1"
    assert continuation.deduplication_id != entry.deduplication_id
    assert (job.continuation, job.attempt, job.shard) == (1, 0, Shard(1, 2))
    assert job.cursor is not None
    assert all(delay == 0 and requeued.attempt == 0 for requeued, delay in stage.requeued())


async def test_a_continuation_that_got_no_further_is_no_repeat_of_itself() -> None:
    """A table too slow to give one page is tried again and again, each time under another id."""
    stage = Stage(clients=names("c", 4), fanout=True)
    assert stage.fanout
    stage.store.delay = 100
    entry = fifo(0, 1, of=1)
    identifiers = {entry.deduplication_id}
    for hop in range(1, 5):
        assert await stage.jobs(entry, seconds=5) == back()
        (entry,) = stage.fanout.take()
        assert Job.decode(entry.body).continuation == hop
        identifiers.add(entry.deduplication_id)
    assert len(identifiers) == 5
    stage.store.delay = 0
    assert await stage.jobs(entry, seconds=5) == back()
    assert all(stage.got(each) == ["1"] for each in names("c", 4))


async def test_a_refused_continuation_hands_its_jobs_back() -> None:
    """Where the group's queue takes no continuation the whole read goes back."""
    stage = Stage(lambda _id, _message: Reply(200, 0.1), names("c", 6_000), fanout=True, bound=5, page_size=100)
    assert stage.fanout
    stage.fanout.refuses = lambda _entry: True
    assert await stage.jobs(fifo(1, 1), fifo(1, 2), seconds=5) == back("m0", "m1")


async def test_auto_counts_the_clients() -> None:
    """Below the threshold one function serves everybody; from it on, and down to half of it, the shards do."""
    stage = Stage(clients=names("c", 50), fanout=True, auto_clients=60)
    assert stage.fanout
    dispatched = []
    for clients in (50, 60, 40, 20, 40, 70):
        stage.store.rows = {each: {} for each in names("c", clients)}
        assert await stage.stream(*records(1)) == back()
        dispatched.append(bool(stage.fanout.take()))
        stage.fanout._seen.clear()
        await asyncio.sleep(61)
    assert dispatched == [False, True, True, False, False, True]


async def test_a_count_that_fails_changes_nothing() -> None:
    """With the table down the mode stays what it was: many, as long as nobody knows better."""
    stage = Stage(clients=names("c", 5), fanout=True, auto_clients=60)
    assert stage.fanout
    stage.store.down = True
    assert await stage.stream(*records(1)) == back()
    assert len(stage.fanout.entries) == 8


async def test_a_count_that_hangs_does_not_eat_the_deadline() -> None:
    """A table that does not answer is not waited for longer than there is time to dispatch."""
    stage = Stage(clients=names("c", 5), fanout=True, auto_clients=60)
    assert stage.fanout
    stage.store.delay = 100
    assert await stage.stream(*records(1), seconds=8) == back()
    assert len(stage.fanout.entries) == 8


async def test_a_dispatched_job_says_what_part_it_is_for_and_since_when() -> None:
    """The kind of its shard, which of how many, and the time of the dispatch in milliseconds."""
    stage = Stage(fanout=True, shards=3, shard_kind=ShardKind.PARTITION)
    assert stage.fanout
    await asyncio.sleep(2)
    assert await stage.stream(*records(1)) == back()
    jobs = [Job.decode(entry.body) for entry in stage.fanout.entries]
    assert [job.shard for job in jobs] == [Shard(at, 3, ShardKind.PARTITION) for at in range(3)]
    assert {job.first_at for job in jobs} == {NOW_MS + 2_000}
    assert len({entry.deduplication_id for entry in stage.fanout.entries}) == 3


async def test_parts_that_are_alike_are_dispatched_all() -> None:
    """A formatter that leaves out what tells records apart: SQS must not take the second part for the first again."""
    stage = Stage(clients=["c="], fanout=True, shards=1, formatter=lambda *_: {"pad": "x" * 100_000})
    assert stage.fanout
    assert await stage.stream(*records(4)) == back()
    assert len(stage.fanout.entries) > 1
    assert await stage.jobs(*stage.fanout.take()) == back()
    assert stage.transport.arrivals["c="] == 4


async def test_every_shard_is_dispatched_to_whichever_other_was_refused() -> None:
    """Of 120 shards one early one is refused: the others have their job, and the batch comes back for that one."""
    stage = Stage(fanout=True, shards=120)
    assert stage.fanout
    stage.fanout.refuses = lambda entry: entry.group == "3"
    assert await stage.stream(*records(2)) == back(1, 2)
    assert [entry.group for entry in stage.fanout.entries] == [str(shard) for shard in range(120) if shard != 3]


async def test_a_refused_later_part_gives_back_its_own_records_and_those_behind() -> None:
    """What the parts before it held is dispatched for good."""
    batch = [record(incident(number, arn="x" * 60_000), sequence=str(number)) for number in range(1, 11)]
    stage = Stage(fanout=True, shards=2)
    assert stage.fanout
    await stage.stream(*batch)
    parts = [[each.sequence for each in Job.decode(entry.body).messages] for entry in stage.fanout.take()][::2]
    assert len(parts) > 2
    stage = Stage(fanout=True, shards=2)
    assert stage.fanout
    stage.fanout.refuses = lambda entry: f'"sequence":"{parts[1][0]}"' in entry.body
    assert await stage.stream(*batch) == back(*(each for part in parts[1:] for each in part))


async def test_the_clients_are_counted_once_a_minute() -> None:
    """A count reads the table: the next batches go by it, and one that failed is made again with the next batch."""
    counts: list[float] = []

    class Counting(MemoryStore):
        async def count(self, enough: int) -> int:
            counts.append(asyncio.get_running_loop().time())
            return await super().count(enough)

    store = Counting(names("c", 60))
    stage = Stage(store=store, fanout=True, auto_clients=60)
    start = asyncio.get_running_loop().time()
    store.down = True
    await stage.stream(*records(1))
    store.down = False
    for _ in range(13):
        await stage.stream(*records(1))
        await asyncio.sleep(10)
    assert [round(at - start) for at in counts] == [0, 0, 70]


# ── the log and the figures ─────────────────────────────────────────────────────────────────────


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What operators read since the last time, without what only a debugger sees."""
    lines = [f"{each.levelname} {each.getMessage()}" for each in caplog.records if each.levelname != "DEBUG"]
    caplog.clear()
    return lines


async def test_an_outage_is_one_error_with_its_reason_and_a_figure(caplog: pytest.LogCaptureFixture) -> None:
    """And how many records or jobs went back of how many."""
    stage = Stage(only("", Reply(403)), names("c", 30))
    gone = record(incident(1), sequence="1", name="REMOVE")
    assert await stage.stream(gone, *records(2, first=2)) == back(2, 3)
    assert said(caplog) == ["ERROR nobody can be served: HTTP 403", "WARNING 2 of 3 records handed back"]
    assert stage.figures[0]["systemic"] == 1
    stage.transport.script = only("", Reply(-1))
    stage.relay._outbox.queues = Queues(stage.retry, None)
    assert await stage.jobs(Job(messages(1), (Client("c0="),)), "no job") == back("m0", "m1")
    assert said(caplog) == [
        "ERROR message m1 is not a job: the body is not JSON",
        "ERROR nobody can be served: nothing listens",
        "WARNING 2 of 2 jobs handed back",
    ]


async def test_a_dead_letter_is_one_error_that_tells_nothing_of_its_messages(caplog: pytest.LogCaptureFixture) -> None:
    """The reason and the answer; and none where there is no queue for letters and the record comes back."""
    stage = Stage(only("odd", Reply(400)), ["odd=", "c="])
    assert await stage.stream(*records(1)) == back()
    assert said(caplog) == ["ERROR a message cannot be delivered: refused, 1 clients answered HTTP 400"]
    stage = Stage(only("odd", Reply(400)), ["odd=", "c="], letters=False)
    assert await stage.stream(*records(1)) == back(1)
    assert said(caplog) == ["WARNING 1 of 1 records handed back"]


async def test_a_table_that_stops_answering_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    """After how many pages, and what it said."""
    stage = Stage(clients=names("c", 30), page_size=10)
    stage.store.throttles = iter([False, False, True]).__next__
    assert await stage.stream(*records(1)) == back()
    assert said(caplog) == ["WARNING the table stopped answering after 2 pages: the table does not answer"]
    assert len(stage.requeued()) == 1


async def test_a_formatter_of_ones_own_makes_the_messages() -> None:
    """The relay sends what it returns."""
    stage = Stage(clients=["c="], formatter=lambda item, _event_id, _sequence: {"only": item["incident_id"]})
    assert await stage.stream(*records(1)) == back()
    assert json.loads(stage.transport.received["c="][0].body)["only"] == "inc-1"


@pytest.mark.parametrize("seconds", [0.9, 2.0])
async def test_with_little_time_left_some_of_it_is_for_the_clients(seconds: float) -> None:
    """The queues keep a quarter of it, and not the second they would like to have."""
    stage = Stage(lambda _id, _message: Reply(200, 0.1), names("c", 20), bound=5)
    assert await stage.stream(*records(1), seconds=seconds) == back()
    assert set(stage.transport.received) == set(names("c", 20))


# ── the age of what is delivered ────────────────────────────────────────────────────────────────


def ages(stage: Stage) -> list[float | None]:
    """The age of each broadcast, in seconds, to the tenth in which it is measured."""
    return [round(figures["age"], 1) if "age" in figures else None for figures in stage.figures]


async def test_the_age_is_from_the_writing_until_the_last_client_was_served() -> None:
    """To a tenth of a second; a client that hangs delays nobody, so it makes nobody's message older."""

    def hanging(connection_id: str, _message: Message) -> Reply:
        return Reply(delay=NEVER) if connection_id == "c0=" else Reply(delay=0.5)

    stage = Stage(hanging, names("c", 3))
    await asyncio.sleep(20)  # records are of the first second
    assert await stage.stream(*records(1)) == back()
    assert stage.took > 5
    assert ages(stage) == [pytest.approx(20.5, abs=0.11)]


async def test_a_broadcast_of_a_moment_has_an_age() -> None:
    """Also where it is over before anybody looked at the clock."""
    stage = Stage(clients=names("c", 3))
    await asyncio.sleep(20)
    await stage.stream(*records(1))
    assert ages(stage) == [20]


async def test_what_a_deadline_leaves_is_as_old_as_the_batch() -> None:
    """The continuation's age counts the wait in the queue; a retried client's job has none."""
    stage = Stage(
        lambda connection_id, _message: Reply(500) if connection_id == "c3=" else Reply(delay=1.0),
        names("c", 8),
        bound=1,
        page_size=2,
    )
    assert await stage.stream(*records(1), seconds=6) == back()
    left = [job for job, _ in stage.requeued()]
    assert {job.written_at for job in left} == {NOW_MS}
    await asyncio.sleep(100)
    for job in left:
        await stage.jobs(job)
    known = [age for age in ages(stage)[1:] if age is not None]
    assert known
    assert min(known) > 100
    retried = replace(left[0], attempt=1)
    await stage.jobs(retried)
    assert ages(stage)[-1] is None


async def test_workers_know_how_old_a_batch_is() -> None:
    """A job of the fan-out says when the batch was written."""
    stage = Stage(fanout=True)
    assert await stage.stream(*records(2)) == back()
    assert stage.fanout is not None
    assert {Job.decode(entry.body).written_at for entry in stage.fanout.entries} == {NOW_MS}
