"""What crosses a queue comes back as it was, fits, and is told from what is not ours."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from records import incident, record

from async_relay.errors import UnreadableJob
from async_relay.wire.audience import Access
from async_relay.wire.jobs import Client, DeadLetter, Job, Shard, ShardKind, shard_of
from async_relay.wire.messages import Message

PROPERTY = settings(deadline=None, max_examples=80)
LIMIT = 262_144
NOT_IN_SQS = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from('\0\x1f\x7f\u2028\ufffe\uffff"\\\U0001f6a8')))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
MESSAGES = st.lists(st.dictionaries(TEXT, JSON, max_size=4).map(Message.encode), min_size=1, max_size=4).map(tuple)
TIMES = st.integers(0, 10**15)
COUNTS = st.integers(0, 50)
IDS = TEXT.filter(bool)
SHARDS = st.integers(1, 100).flatmap(lambda count: st.builds(Shard, st.integers(0, count - 1), st.just(count)))
CURSORS = st.one_of(st.none(), st.fixed_dictionaries({"connectionId": st.fixed_dictionaries({"S": IDS})}))


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    messages = draw(MESSAGES)
    common: dict[str, Any] = {
        "attempt": draw(COUNTS),
        "first_at": draw(TIMES),
        "written_at": draw(TIMES),
        "reason": draw(st.sampled_from(["", "throttled", "server_error"])),
    }
    if draw(st.booleans()):
        return Job(messages, shard=draw(SHARDS), cursor=draw(CURSORS), continuation=draw(COUNTS), **common)
    skips = st.integers(0, len(messages) - 1)
    created = st.one_of(st.none(), st.integers(-10, 10**15))
    clients = st.builds(Client, IDS, created, skips, st.none(), st.none(), st.just(False))
    return Job(messages, tuple(draw(st.lists(clients, min_size=1, max_size=4))), **common)


def message(number: int, size: int = 100, letter: str = "x") -> Message:
    """A message of an incident whose body has about ``size`` bytes."""
    return Message.encode({"incident_id": number, "event_id": f"e{number}", "note": letter * (size - 50)})


def bytes_of(job: Job | DeadLetter) -> int:
    return len(job.encode().encode())


# -- there and back


@PROPERTY
@given(jobs())
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    """Hostile ids and payloads included, a body read back is the job, each payload byte for byte."""
    back = Job.decode(job.encode())
    assert back == job
    assert [message.body for message in back.messages] == [message.body for message in job.messages]
    assert back.encode() == job.encode()


@PROPERTY
@given(jobs())
def test_a_body_holds_only_what_sqs_takes(job: Job) -> None:
    """SQS takes the characters of XML 1.0 and nothing else; the others are escaped."""
    for body in (job.encode(), DeadLetter("refused", "x", job, 1).encode()):
        assert not NOT_IN_SQS.search(body)


def test_a_body_is_json_that_an_operator_can_read() -> None:
    """Clients stand by their ids and messages by their keys, without what is not known."""
    clients = (Client("Zx="), Client("Ay=", 1_700_000_000_000, 1))
    job = Job((message(1), message(2)), clients, attempt=2, first_at=5, reason="server_error")
    fields = json.loads(job.encode())
    assert fields == {
        "job": 1,
        "attempt": 2,
        "firstAt": 5,
        "reason": "server_error",
        "clients": [{"connectionId": "Zx="}, {"connectionId": "Ay=", "skip": 1, "createdAt": 1_700_000_000_000}],
        "messages": [json.loads(message(1).body), json.loads(message(2).body)],
    }
    assert list(fields) == ["job", "attempt", "firstAt", "reason", "clients", "messages"]
    assert ": " not in job.encode()


def test_a_body_says_when_the_oldest_record_was_written() -> None:
    """Where that is known; each part of a job that is split says it as well."""
    unknown = Job(tuple(map(message, range(3))), (Client("a="),))
    assert "writtenAt" not in json.loads(unknown.encode())
    job = replace(unknown, written_at=1_700_000_000_000)
    assert json.loads(job.encode())["writtenAt"] == 1_700_000_000_000
    parts = Job(tuple(message(at, 100_000) for at in range(3)), (Client("a="),), written_at=7).split()
    assert {Job.decode(part.encode()).written_at for part in parts} == {7}
    assert len(parts) > 1


def test_a_job_says_nothing_that_the_rows_say() -> None:
    """Until when its clients may stay, what they may have and how they read it is asked of the table each time."""
    client = Client("Zx=", None, 0, 1_700_000_000, Access(frozenset({"acme"})), frames=True)
    body = Job((message(1),), (client,)).encode()
    assert body == Job((message(1),), (Client("Zx="),)).encode()
    assert Job.decode(body).clients == (Client("Zx="),)


def test_a_shards_body_has_its_place_in_the_table_instead_of_clients() -> None:
    """A part of the table is told by its shard, its cursor and how often it was continued."""
    cursor = {"connectionId": {"S": "Zx="}}
    job = Job((message(1),), shard=Shard(1, 8), cursor=cursor, continuation=3)
    fields = json.loads(job.encode())
    assert (fields["shard"], fields["cursor"], fields["hop"]) == (
        {"index": 1, "count": 8, "kind": "segment"},
        cursor,
        3,
    )
    assert "clients" not in fields
    assert "reason" not in fields
    assert json.loads(replace(job, cursor=None).encode())["cursor"] is None


@pytest.mark.parametrize("kind", ShardKind)
def test_a_job_says_which_kind_of_part_it_is_for(kind: ShardKind) -> None:
    """A segment and a partition of the same number are different clients, so the kind survives the queue."""
    job = Job((message(1),), shard=Shard(1, 8, kind))
    assert Job.decode(job.encode()).shard == Shard(1, 8, kind)


@pytest.mark.parametrize("kind", ["sweep", "", None, 1, ["segment"]])
def test_a_kind_nobody_knows_is_unreadable(kind: Any) -> None:
    """Guessing would serve the wrong clients."""
    body = {"job": 1, "messages": [{"a": 1}], "shard": {"index": 0, "count": 2, "kind": kind}}
    with pytest.raises(UnreadableJob, match="a shard's kind is segment or partition"):
        Job.decode(json.dumps(body))


def test_what_a_body_may_leave_out() -> None:
    """Counts default to 0, a shard to a segment that is the whole table, and a cursor, a reason and a time to none."""
    body = {"job": 1, "messages": [{"a": 1}]}
    job = Job.decode(json.dumps(body | {"clients": [{"connectionId": "x"}]}))
    assert job == Job((Message.encode({"a": 1}),), (Client("x"),))
    assert Job.decode(json.dumps(body | {"shard": {}})).shard == Shard(0, 1)
    assert Job.decode(json.dumps(body | {"shard": {}, "clients": "ignored"})).clients == ()
    assert Job.decode(json.dumps(WHOLE | {"cursor": {"a": {"S": "x"}}, "hop": 3})) == job
    odd = {"clients": [{"connectionId": "x", "skip": 0, "createdAt": None}], "shard": None, "cursor": None, "reason": 5}
    assert Job.decode(json.dumps(body | odd)) == job


@pytest.mark.parametrize("created_at", ["soon", 1.5, True, 10**30, -(10**30), [], {}])
def test_a_client_without_a_sensible_time_counts_as_old(created_at: Any) -> None:
    """A time nobody can use does not make a job unreadable: rows written by others may have one."""
    body = {"job": 1, "messages": [{}], "clients": [{"connectionId": "x", "createdAt": created_at}]}
    assert Job.decode(json.dumps(body)).clients == (Client("x"),)


# -- what is not ours

WHOLE: dict[str, Any] = {"job": 1, "clients": [{"connectionId": "x"}], "messages": [{"a": 1}]}
PART: dict[str, Any] = {"job": 1, "shard": {"index": 0, "count": 2}, "messages": [{"a": 1}]}
NO_JOB = 'the body is not a job: it has no "job": 1'
NOBODY = "the job has no messages or nobody to send them to"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (None, NO_JOB),
        ([], NO_JOB),
        ("job", NO_JOB),
        ({}, NO_JOB),
        (WHOLE | {"job": 2}, NO_JOB),
        (WHOLE | {"job": "1"}, NO_JOB),
        (WHOLE | {"job": True}, NO_JOB),
        ({"job": True}, NO_JOB),
        ({"job": 1, "messages": [{}]}, "clients is not a list"),
        (WHOLE | {"clients": {}}, "clients is not a list"),
        ({"job": 1, "shard": {}}, "messages is not a list"),
        (WHOLE | {"messages": {"a": 1}}, "messages is not a list"),
        (WHOLE | {"clients": []}, NOBODY),
        (WHOLE | {"messages": []}, NOBODY),
        (PART | {"messages": []}, NOBODY),
        (WHOLE | {"clients": ["x"]}, "a client has no connectionId"),
        (WHOLE | {"clients": [{}]}, "a client has no connectionId"),
        (WHOLE | {"clients": [{"connectionId": 5}]}, "a client has no connectionId"),
        (WHOLE | {"clients": [{"connectionId": ""}]}, "a client has no connectionId"),
        (WHOLE | {"clients": [{"connectionId": "a\ud800"}]}, "a client has no connectionId"),
        (WHOLE | {"clients": [{"connectionId": "x", "skip": -1}]}, "skip is not a whole number from 0 up"),
        (WHOLE | {"clients": [{"connectionId": "x", "skip": True}]}, "skip is not a whole number from 0 up"),
        (WHOLE | {"clients": [{"connectionId": "x", "skip": 1}]}, "a client is to skip every message"),
        (WHOLE | {"messages": ["text"]}, "a message is not a map"),
        (WHOLE | {"messages": [{}, None]}, "a message is not a map"),
        (WHOLE | {"messages": [{"a": float("nan")}]}, "a message does not fit in UTF-8 JSON"),
        (WHOLE | {"messages": [{"a": "\udfff"}]}, "a message does not fit in UTF-8 JSON"),
        (WHOLE | {"attempt": -1}, "attempt is not a whole number from 0 up"),
        (WHOLE | {"attempt": 1.0}, "attempt is not a whole number from 0 up"),
        (WHOLE | {"attempt": None}, "attempt is not a whole number from 0 up"),
        (WHOLE | {"attempt": 2**63}, "attempt is not a whole number from 0 up"),
        (WHOLE | {"firstAt": "now"}, "firstAt is not a whole number from 0 up"),
        (PART | {"hop": False}, "hop is not a whole number from 0 up"),
        (PART | {"shard": []}, "shard is not a map"),
        (PART | {"shard": 3}, "shard is not a map"),
        (PART | {"shard": {"index": "0"}}, "index is not a whole number from 0 up"),
        (PART | {"shard": {"index": 0, "count": None}}, "count is not a whole number from 0 up"),
        (PART | {"shard": {"index": 2, "count": 2}}, "shard 2 of 2 does not exist"),
        (PART | {"shard": {"index": 0, "count": 0}}, "shard 0 of 0 does not exist"),
        (PART | {"cursor": "x"}, "cursor is not a map, or nests too deep"),
        (PART | {"cursor": []}, "cursor is not a map, or nests too deep"),
    ],
)
def test_what_is_not_a_job_is_refused_with_the_reason(fields: Any, problem: str) -> None:
    """A body that is no job of ours says in a sentence what is wrong with it."""
    with pytest.raises(UnreadableJob, match=f"^{re.escape(problem)}$") as error:
        Job.decode(json.dumps(fields))
    assert error.value.__cause__ is None


@pytest.mark.parametrize("body", ["", "text", "{", "'", '{"job":1}x', "[" * 100_000, f'{{"job":{"9" * 5_000}}}'])
def test_what_is_not_json_is_refused(body: str) -> None:
    """Text that is not JSON, or that no reader survives, is no job."""
    with pytest.raises(UnreadableJob, match=r"^the body is not JSON$"):
        Job.decode(body)


def nested(levels: int, innermost: str = "1") -> str:
    return '{"a":' * levels + innermost + "}" * levels


def test_nesting_is_bounded() -> None:
    """What nests deeper than could be written again is no job, wherever it stands; 150 levels are one."""
    clients = '"clients":[{"connectionId":"x"}]'
    assert Job.decode(f'{{"job":1,{clients},"messages":[{nested(150)}]}}').messages[0].body == nested(150).encode()
    assert Job.decode(f'{{"job":1,"shard":{{}},"cursor":{nested(150)},"messages":[{{}}]}}').cursor
    with pytest.raises(UnreadableJob, match=r"^a message nests deeper than 150 levels$"):
        Job.decode(f'{{"job":1,{clients},"messages":[{nested(151)}]}}')
    for levels in (151, *range(900, 1_000)):
        for body in (
            f'{{"job":1,{clients},"messages":[{nested(levels)}]}}',
            f'{{"job":1,{clients},"messages":[{nested(1, "[" * levels + "]" * levels)}]}}',
            f'{{"job":1,"shard":{{}},"cursor":{nested(levels)},"messages":[{{}}]}}',
        ):
            with pytest.raises(UnreadableJob):
                Job.decode(body)


ANY_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["connectionId", "skip", "createdAt", "index", "count", "a"]), inner, max_size=3
        ),
    ),
    max_leaves=6,
)
NEARLY = st.dictionaries(
    st.sampled_from(["clients", "messages", "shard", "cursor", "attempt", "firstAt", "reason", "hop"]), ANY_JSON
)


@settings(deadline=None, max_examples=250)
@given(st.one_of(st.text(), ANY_JSON.map(json.dumps), NEARLY.map(lambda fields: json.dumps(WHOLE | fields))))
@example('{"job":1,"clients":[{"connectionId":"x"}],"messages":[{"a":1e999}]}')
def test_any_body_is_a_job_or_unreadable(body: str) -> None:
    """Reading gives a job that can be written again, or UnreadableJob, and nothing else."""
    try:
        job = Job.decode(body)
    except UnreadableJob:
        return
    assert Job.decode(job.encode()) == job
    assert all(client.skip < len(job.messages) for client in job.clients)


# -- splitting


def replayed(parts: list[Job]) -> dict[str, list[bytes]]:
    """What each client gets if the parts are served one after the other."""
    got: dict[str, list[bytes]] = {}
    for part in parts:
        for client in part.clients:
            got.setdefault(client.connection_id, []).extend(each.body for each in part.messages[client.skip :])
    return got


SIZES = st.lists(st.sampled_from([60, 1_000, 30_000, 69_000, 100_000, 131_072]), min_size=1, max_size=7)


@settings(deadline=None, max_examples=15)
@given(SIZES, st.sampled_from([1, 2, 50, 1_500]), st.randoms(use_true_random=False), st.sampled_from('x\uffff"é'))
def test_a_split_job_serves_everybody_the_same(sizes: list[int], count: int, random: Random, letter: str) -> None:
    """Each part fits into a queue message, and replayed they give each client what it lacked, once and in order."""
    characters = {"x": 1, "\uffff": 6, '"': 2, "é": 2}[letter]
    messages = tuple(message(at, 50 + size // characters, letter) for at, size in enumerate(sizes))
    ids = [f"{random.getrandbits(random.choice([8, 90])):x}-{at}=" for at in range(count)]
    clients = tuple(
        Client(name, random.choice([None, 1_700_000_000_000]), random.randrange(len(messages))) for name in ids
    )
    job = Job(messages, clients, attempt=3, first_at=5, reason="throttled")
    parts = job.split()
    assert max(map(bytes_of, parts)) <= LIMIT
    assert replayed(parts) == {
        client.connection_id: [each.body for each in messages[client.skip :]] for client in clients
    }
    created = {client.connection_id: client.created_at for client in clients}
    for part in parts:
        assert (part.attempt, part.first_at, part.reason) == (3, 5, "throttled")
        assert all(client.created_at == created[client.connection_id] for client in part.clients)
        assert Job.decode(part.encode()) == part


@settings(deadline=None, max_examples=30)
@given(SIZES, CURSORS, SHARDS)
def test_a_split_shard_keeps_its_place_in_the_table(sizes: list[int], cursor: Any, shard: Shard) -> None:
    """The parts of a shard's job have its messages in order, each for the same part of the table."""
    job = Job(tuple(message(at, size) for at, size in enumerate(sizes)), shard=shard, cursor=cursor, continuation=2)
    parts = job.split()
    assert max(map(bytes_of, parts)) <= LIMIT
    assert tuple(each for part in parts for each in part.messages) == job.messages
    assert {(part.shard, part.continuation, str(part.cursor)) for part in parts} == {(shard, 2, str(cursor))}


def test_a_job_that_fits_stays_whole() -> None:
    """A job of exactly 256 KiB is one queue message; one byte more makes two."""
    room = LIMIT - bytes_of(Job((message(1, 131_072), message(2, 100)), (Client("x"),)))
    whole = Job((message(1, 131_072), message(2, 100 + room)), (Client("x"),))
    assert bytes_of(whole) == LIMIT
    assert whole.split() == [whole]
    more = Job((message(1, 131_072), message(2, 101 + room)), (Client("x"),))
    assert [part.messages for part in more.split()] == [more.messages[:1], more.messages[1:]]


def test_many_clients_need_few_queue_messages() -> None:
    """Thousands of clients that lack one message fill their queue messages: no part but the last has room left."""
    for count, width in [(20_000, 15), (1_000, 900)]:
        clients = tuple(Client(f"{at:0{width}d}=") for at in range(count))
        parts = Job((message(1, 10_000),), clients).split()
        assert tuple(client for part in parts for client in part.clients) == clients
        assert LIMIT - 200 - width < min(bytes_of(part) for part in parts[:-1])
        assert max(bytes_of(part) for part in parts) <= LIMIT


def test_many_messages_need_few_queue_messages() -> None:
    """Messages go together as long as half of the room is left to the clients."""
    parts = Job(tuple(message(at, 10_000) for at in range(60)), (Client("x"),)).split()
    assert [len(part.messages) for part in parts] == [14, 14, 14, 14, 4]


def test_a_message_of_any_size_is_in_one_part() -> None:
    """A message larger than any that is posted still makes one part by itself, and none without messages."""
    messages = (message(1, 200_000), message(2, 150_000))
    for job in (Job(messages, (Client("x"),)), Job(messages, shard=Shard())):
        assert [part.messages for part in job.split()] == [messages[:1], messages[1:]]


def test_who_has_a_parts_messages_is_not_in_it() -> None:
    """A client that already has all of a part's messages is only in the parts after it."""
    messages = tuple(message(at, 100_000) for at in range(4))
    parts = Job(messages, (Client("new"), Client("half", 7, 2), Client("last", None, 3))).split()
    assert [part.clients for part in parts] == [
        (Client("new"),),
        (Client("new"),),
        (Client("new"), Client("half", 7)),
        (Client("new"), Client("half", 7), Client("last")),
    ]


def test_a_smaller_room_makes_smaller_parts() -> None:
    """The room may be less than a queue message has, for who wraps the parts in something."""
    clients = tuple(Client(f"{at:015d}=") for at in range(500))
    parts = Job((message(1),), clients).split(5_000)
    assert max(map(bytes_of, parts)) <= 5_000
    assert min(bytes_of(part) for part in parts[:-1]) > 4_800
    assert tuple(client for part in parts for client in part.clients) == clients


# -- shards


@pytest.mark.parametrize(
    ("connection_id", "shards"),
    [
        ("L0SM9cOFvHcCIhw=", (0, 2, 714)),
        ("Zx=", (1, 3, 971)),
        ("", (0, 0, 0)),
        ("größer", (0, 0, 576)),
    ],
)
def test_a_connections_shard_never_changes(connection_id: str, shards: tuple[int, int, int]) -> None:
    """The shard of an id is a fixed value: rows written by one release are read by the next."""
    assert (shard_of(connection_id, 2), shard_of(connection_id, 8), shard_of(connection_id, 1_000)) == shards


@pytest.mark.parametrize("count", [1, 2, 8, 50])
def test_shards_are_even(count: int) -> None:
    """Connections spread evenly over the shards."""
    random = Random(3)
    ids = [f"{random.getrandbits(88):022x}=" for _ in range(400 * count)]
    sizes = [0] * count
    for connection_id in ids:
        sizes[shard_of(connection_id, count)] += 1
    assert min(sizes) > 300
    assert max(sizes) < 500


# -- deduplication

JOB = Job((message(1), message(2)), shard=Shard(1, 8), cursor={"connectionId": {"S": "a"}}, continuation=1)


def test_a_retried_dispatch_has_the_same_deduplication_id() -> None:
    """The id follows from the records, not from when or how often they are sent, and never changes."""
    again = replace(JOB, attempt=3, first_at=99, reason="throttled")
    assert JOB.deduplication_id(0) == again.deduplication_id(0)
    assert Job.decode(JOB.encode()).deduplication_id(0) == JOB.deduplication_id(0)
    assert JOB.deduplication_id(0) == "5d0e5c4c41cf450b273fc8a1e0f4ae9e60a4e487c0bd026dd4f2b78b36679aaa"
    assert re.fullmatch("[0-9a-f]{64}", JOB.deduplication_id(0))


def test_whatever_makes_it_another_job_makes_another_deduplication_id() -> None:
    """Other records, another order, shard, number or kind of shards, cursor, continuation or part is another id."""
    jobs = [
        JOB,
        replace(JOB, messages=JOB.messages[:1]),
        replace(JOB, messages=JOB.messages[::-1]),
        replace(JOB, messages=(message(1), message(3))),
        replace(JOB, shard=Shard(2, 8)),
        replace(JOB, shard=Shard(1, 9)),
        replace(JOB, shard=Shard(1, 8, ShardKind.PARTITION)),
        replace(JOB, cursor=None),
        replace(JOB, cursor={"connectionId": {"S": "b"}}),
        replace(JOB, continuation=2),
    ]
    assert len({job.deduplication_id(part) for job in jobs for part in range(3)}) == 3 * len(jobs)


@pytest.mark.parametrize("event_id", ["the item's own", None])
def test_an_event_id_of_the_formatters_own_does_not_make_two_jobs_one(event_id: str | None) -> None:
    """Read back from a queue, messages have the id of their payload, which says nothing about the record."""
    jobs = [
        Job.decode(
            Job((Message.encode({"event_id": event_id, "n": n}, event_id=f"record {n}"),), shard=Shard()).encode()
        )
        for n in range(2)
    ]
    assert len({job.deduplication_id(0) for job in jobs}) == 2


def test_messages_without_an_event_id_are_told_apart_by_their_content() -> None:
    """Where there is no eventID the digest stands for it."""
    ids = {Job((Message.encode({"a": at}),), shard=Shard()).deduplication_id(0) for at in range(5)}
    assert len(ids) == 5


# -- dead letters


@PROPERTY
@given(jobs())
def test_a_dead_letter_can_be_sent_back_as_the_job_it_was(job: Job) -> None:
    """The body of a dead-lettered job reads as that job, so that it can be redriven."""
    body = DeadLetter("attempts_exhausted", "given up", job, 7, "event", "42").encode()
    assert Job.decode(body) == job
    assert json.loads(body)["deadLetter"] == {
        "reason": "attempts_exhausted",
        "detail": "given up",
        "eventID": "event",
        "sequence": "42",
        "lastAt": 7,
    }


def test_a_dead_letter_holds_the_record_or_the_body_it_was() -> None:
    """An undecodable record is in its letter whole, and so is a body nobody could read."""
    raw = record(incident())
    assert json.loads(DeadLetter("undecodable", "why", raw, 7).encode())["record"] == raw
    assert json.loads(DeadLetter("unreadable_job", "why", "not {json", 7).encode())["body"] == "not {json"


def test_a_letter_of_256_kib_is_whole() -> None:
    """A letter of exactly 256 KiB is kept whole, one byte more is cut."""
    room = LIMIT - bytes_of(DeadLetter("r", "d", "", 1))
    fits = DeadLetter("r", "d", "x" * room, 1).encode()
    assert len(fits) == LIMIT
    assert "truncated" not in json.loads(fits)
    assert json.loads(DeadLetter("r", "d", "x" * (room + 1), 1).encode())["truncated"] is True


def test_a_letter_that_is_too_large_keeps_what_names_it() -> None:
    """Reason, detail, eventID, sequence, keys and the first 100 KB of the content stay."""
    raw = record(incident(1, status="é" * 200_000), sequence="42")
    letter = DeadLetter("too_large", "why", raw, 7, "event", "42", raw["dynamodb"]["Keys"])
    cut = json.loads(letter.encode())
    whole = json.dumps({"record": raw}, ensure_ascii=False, separators=(",", ":"))
    assert cut["deadLetter"] == {
        "reason": "too_large",
        "detail": "why",
        "eventID": "event",
        "sequence": "42",
        "lastAt": 7,
        "keys": {"incident_id": {"S": "inc-1"}},
    }
    assert cut["truncated"] is True
    assert whole.startswith(cut["head"])
    assert 99_990 < len(cut["head"].encode()) <= 100_000
    assert set(cut) == {"deadLetter", "truncated", "head"}


@pytest.mark.parametrize("where", ["content", "keys", "detail", "event_id", "sequence"])
@pytest.mark.parametrize("letter", list('xé"\\\0\x1f\ud800\udfff\ufffe\uffff\U0001f6a8'))
def test_every_letter_fits_and_holds_only_what_sqs_takes(where: str, letter: str) -> None:
    """Whatever is long or strange in a letter, its body is at most 256 KiB of characters that SQS takes."""
    text = letter * (LIMIT // len(letter.encode(errors="replace")) + 1)
    parts: dict[str, Any] = {"detail": "d", "content": {"record": "x" * LIMIT}, "keys": {"k": {"S": "v"}}}
    parts |= {where: {"k": {"S": text}} if where in ("content", "keys") else text}
    body = DeadLetter(reason="r", last_at=1, **parts).encode()
    assert len(body.encode()) <= LIMIT
    assert not NOT_IN_SQS.search(body)
    found = json.loads(body)
    assert found["deadLetter"]["detail"] == parts["detail"][:2_000]
    assert found["truncated"] is True


def test_keys_that_dynamodb_could_not_have_are_left_out() -> None:
    """Keys of 20 KB are ten times what DynamoDB allows: a letter that is cut anyway does without them."""
    letters = [DeadLetter("r", "d", "x" * LIMIT, 1, keys={"k": {"S": "v" * size}}) for size in (19_986, 19_987)]
    kept = [json.loads(letter.encode())["deadLetter"]["keys"] for letter in letters]
    assert kept == [{"k": {"S": "v" * 19_986}}, {}]


def test_ids_that_dynamodb_could_not_have_are_cut() -> None:
    """An eventID has 32 characters and a SequenceNumber 40 at most; 200 of what a forged record has are kept."""
    letter = json.loads(DeadLetter("r", "d", "x", 1, event_id="e" * 201, sequence="1" * 201).encode())["deadLetter"]
    assert (letter["eventID"], letter["sequence"]) == ("e" * 200, "1" * 200)


def test_what_is_no_json_in_a_record_is_written_as_text() -> None:
    """A record that holds something else than JSON still gets its letter."""
    assert json.loads(DeadLetter("r", "d", {"when": b"x"}, 1).encode())["record"] == {"when": "b'x'"}
