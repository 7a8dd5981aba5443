"""The ``dead-letters`` commands on FIFO queues, against two servers that have nothing in common.

What no server does on demand, such as ten minutes that pass, is done by a queue in memory.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from deployment import new_queue
from typer.testing import CliRunner

from async_relay.cli import dead_letters, queues, screen
from async_relay.cli.app import app
from async_relay.cli.failure import CommandError
from async_relay.wire.jobs import Client, Job, Shard
from async_relay.wire.messages import Message


class Fifo(NamedTuple):
    """A FIFO dead-letter queue, the fan-out queue it belongs to, and their server."""

    sqs: Any
    dead: str
    fanout: str

    def put(self, group: int, *numbers: int, body: str | None = None) -> None:
        for number in numbers:
            self.sqs.send_message(
                QueueUrl=self.dead,
                MessageBody=body or job(group, number),
                MessageGroupId=str(group),
                MessageDeduplicationId=f"{group}-{number}",
            )

    def left(self) -> dict[str, list[int]]:
        """What the dead-letter queue holds, which is empty then."""
        return self._emptied(self.dead)

    def arrived(self) -> dict[str, list[int]]:
        """What the fan-out queue holds, which is empty then."""
        return self._emptied(self.fanout)

    def _emptied(self, url: str) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        while batch := self.receive(url):
            for each in batch:
                numbers = found.setdefault(each["Attributes"]["MessageGroupId"], [])
                numbers.append(number_of(each["Body"]))
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
        return found

    def receive(self, url: str) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"], WaitTimeSeconds=0
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages


def job(group: int, number: int, **more: Any) -> str:
    message = Message.encode({"kind": "order", "event_id": f"ev{number}", "sequence": str(number), **more})
    return Job((message,), shard=Shard(group, 8), attempt=3, first_at=1_700_000_000_000, reason="throttled").encode()


def number_of(body: str) -> int:
    try:
        return int(Job.decode(body).messages[0].sequence)
    except ValueError:
        return -1


@pytest.fixture(params=["moto", "fauxqs"])
def fifo(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fifo]:
    url = request.getfixturevalue(f"{request.param}_url")
    dead, fanout = new_queue(url, fifo=True), new_queue(url, fifo=True)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_REGION": "eu-west-1",
        "DEAD_LETTER_QUEUE_URL": dead,
        "RETRY_QUEUE_URL": "http://127.0.0.1:9/1/not-this-one",
        "FANOUT_QUEUE_URL": fanout,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(queues, "WAIT_SECONDS", 0)
    sqs = boto3.client("sqs", endpoint_url=url)
    yield Fifo(sqs, dead, fanout)
    sqs.close()


class Answer(NamedTuple):
    code: int
    out: str
    err: str


def run(*args: str, answer: str = "") -> Answer:
    result = CliRunner().invoke(app, ["dead-letters", *args], input=answer, catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)


def listed() -> list[tuple[str, str]]:
    """The shard and the sequence of each dead letter in the list."""
    return [(each["shard"], each["events"][0]["sequence"]) for each in json.loads(run("list", "--json").out)]


def test_a_list_shows_the_front_of_each_group_and_says_what_waits(fifo: Fifo) -> None:
    """In the order of the group; twice the same, since all that was held is back in its place."""
    fifo.put(1, *range(23))
    fifo.put(2, *range(3))
    first = listed()
    for shard in (1, 2):
        front = [sequence for name, sequence in first if name == f"shard {shard} of 8"]
        assert front == [f"{at}" for at in range(len(front))]
    assert 0 < len(front) < 4
    answer = run("list")
    waiting = 26 - len(first)
    assert f"{len(first)} of the {len(first)} messages at the front of the queue's groups" in answer.out
    assert answer.err.startswith(f"About {waiting} more messages wait behind others of their FIFO groups")
    assert sorted(listed()) == sorted(first)
    assert fifo.left() == {"1": list(range(23)), "2": list(range(3))}


def test_a_short_queue_is_listed_whole(fifo: Fifo) -> None:
    """Nothing waits, so nothing is said of it; a letter is shown by the beginning of its id."""
    fifo.put(1, 7)
    answer = run("list")
    assert (answer.code, answer.err) == (0, "")
    assert "1 of the 1 messages in the queue" in answer.out
    (row,) = json.loads(run("list", "--json").out)
    assert "Redrive: sends 1 message to shard 1 of 8" in run("show", row["messageId"][:8]).out
    assert fifo.left() == {"1": [7]}


def test_a_redrive_moves_every_group_in_order(fifo: Fifo) -> None:
    """However many there are behind the first ten; each keeps its group, and is as if it had never been tried."""
    for group in range(3):
        fifo.put(group, *range(25 * group, 25 * group + 25))
    answer = run("redrive", "--all", answer="y\n")
    assert answer.code == 0
    assert ", and what waits behind, to http" in answer.err
    assert answer.out.endswith("Sent 75, failed 0, not tried 0, 0 cannot be sent.\n")
    body = fifo.receive(fifo.fanout)[0]["Body"]
    assert (Job.decode(body).attempt, Job.decode(body).reason) == (0, "")
    assert fifo.left() == {}


def test_a_redriven_group_arrives_in_order(fifo: Fifo) -> None:
    """Without a loss or a repeat."""
    fifo.put(1, *range(34))
    fifo.put(2, *range(5))
    assert run("redrive", "--all", "--yes").code == 0
    assert fifo.arrived() == {"1": list(range(34)), "2": list(range(5))}


def test_a_job_that_fails_again_at_once_is_no_duplicate(fifo: Fifo) -> None:
    """It is dispatched, moved by SQS, redriven, moved, and redriven again, all within the five minutes."""
    arn = fifo.sqs.get_queue_attributes(QueueUrl=fifo.dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1})
    fifo.sqs.set_queue_attributes(QueueUrl=fifo.fanout, Attributes={"RedrivePolicy": policy, "VisibilityTimeout": "0"})
    fifo.sqs.send_message(
        QueueUrl=fifo.fanout, MessageBody=job(1, 7), MessageGroupId="1", MessageDeduplicationId="the job's own"
    )
    for _ in range(3):
        until = time.monotonic() + 10
        while not listed() and time.monotonic() < until:
            fifo.receive(fifo.fanout)
        assert run("redrive", "--all", "--yes").out.endswith("Sent 1, failed 0, not tried 0, 0 cannot be sent.\n")
    assert fifo.arrived() == {"1": [7]}


def test_what_was_sent_and_not_deleted_is_not_there_twice(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redrive that ended between the two is repeated; the queue knows the job, and the order is kept."""
    fifo.put(1, *range(3))
    tried = len(listed())
    delete = queues.DeadLetterQueue.delete

    def refuse(*_: object) -> None:
        raise CommandError("no")

    monkeypatch.setattr(queues.DeadLetterQueue, "delete", refuse)
    answer = run("redrive", "--all", "--yes")
    assert (answer.code, answer.out.splitlines()[-1]) == (
        1,
        f"Sent 0, failed 1, not tried {tried - 1}, 0 cannot be sent.",
    )
    monkeypatch.setattr(queues.DeadLetterQueue, "delete", delete)
    assert run("redrive", "--all", "--yes").code == 0
    assert fifo.arrived() == {"1": [0, 1, 2]}


def test_behind_a_failure_nothing_of_its_group_is_sent(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nothing overtakes it; the other groups go on, and the next redrive finds all that is left in order."""
    fifo.put(1, *range(15))
    fifo.put(2, *range(15))
    send = queues.SendQueue.send

    def failing(queue: queues.SendQueue, body: str, *rest: str) -> None:
        if (Job.decode(body).shard, number_of(body)) == (Shard(1, 8), 4):
            raise CommandError("not this one")
        send(queue, body, *rest)

    monkeypatch.setattr(queues.SendQueue, "send", failing)
    answer = run("redrive", "--all", "--yes")
    assert answer.code == 1
    assert answer.out.count("failed: not this one") == 1
    assert "more messages wait behind others" in answer.err
    monkeypatch.setattr(queues.SendQueue, "send", send)
    assert run("redrive", "--all", "--yes").code == 0
    assert fifo.arrived() == {"1": list(range(15)), "2": list(range(15))}


def test_what_cannot_be_sent_stays_and_is_passed(fifo: Fifo) -> None:
    """It stands at the front then, and once it is discarded what waited behind it goes too."""
    fifo.put(1, 0, body="hello")
    fifo.put(1, *range(1, 15))
    answer = run("redrive", "--all", "--yes")
    assert answer.code == 1
    assert "stays: it is nothing of ours" in answer.out
    assert "more messages wait behind others of their FIFO groups" in answer.err
    assert run("discard", "--reason", "unknown", "--yes").code == 0
    assert run("redrive", "--all", "--yes").code == 0
    assert fifo.arrived() == {"1": list(range(1, 15))}


def test_a_job_of_several_bodies_arrives_whole(fifo: Fifo) -> None:
    """Each body has an id of its own: a queue that knows one takes the others."""
    clients = tuple(Client("C" * 30_000 + str(at)) for at in range(10))
    message = Message.encode({"kind": "order", "event_id": "ev0", "sequence": "0", "pad": "x" * 100_000})
    fifo.put(1, 0, body=Job((message,), clients).encode())
    assert "sent 1 message to 10 clients, in 2 jobs" in run("redrive", "--all", "--yes").out
    assert fifo.arrived() == {"1": [0, 0]}


def test_a_limit_counts_over_all_readings(fifo: Fifo) -> None:
    """The oldest of the group go, and no more than so many."""
    fifo.put(1, *range(30))
    answer = run("redrive", "--all", "--limit", "13", "--yes")
    assert answer.out.endswith("Sent 13, failed 0, not tried 0, 0 cannot be sent.\n")
    assert fifo.arrived() == {"1": list(range(13))}
    assert fifo.left() == {"1": list(range(13, 30))}


def test_a_dry_run_changes_nothing(fifo: Fifo) -> None:
    """It can speak of the front only, and says so."""
    fifo.put(1, *range(12))
    for command in ("redrive", "discard"):
        answer = run(command, "--all", "--dry-run")
        assert answer.code == 0
        assert "more messages wait behind" in answer.err
    assert fifo.left() == {"1": list(range(12))}


def test_one_that_is_chosen_goes_alone(fifo: Fifo) -> None:
    """By its id, though others may stand before it."""
    fifo.put(1, *range(12))
    rows = json.loads(run("list", "--json").out)
    chosen = len(rows) // 2
    assert run("redrive", rows[chosen]["messageId"], "--yes").code == 0
    assert fifo.arrived() == {"1": [chosen]}
    assert fifo.left() == {"1": [each for each in range(12) if each != chosen]}


def test_a_discard_goes_to_the_end_and_saves_all(fifo: Fifo, tmp_path: Path) -> None:
    """Bodies of later readings come behind the first in the same file."""
    fifo.put(1, *range(23))
    path = tmp_path / "letters.jsonl"
    answer = run("discard", "--all", "--save", str(path), answer="y\n")
    assert answer.out.endswith("Deleted 23, failed 0, not tried 0.\n")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [number_of(row["body"]) for row in rows] == list(range(23))
    assert fifo.left() == {}


def test_where_asking_is_forbidden_more_may_wait(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of messages is no secret the commands depend on."""
    fifo.put(1, 1)
    monkeypatch.setattr(queues.DeadLetterQueue, "behind", lambda _: None)
    assert run("list").err.startswith("More messages may wait behind others of their FIFO groups")
    assert run("redrive", "--all", "--yes").code == 0


def test_a_lost_answer_is_asked_for_again_by_the_same_name(fifo: Fifo, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQS gives the same messages to the same attempt only: under another name they would be hidden for ten minutes."""
    fifo.put(1, 0)
    attempts: list[str] = []
    connect = queues.connect

    def lose_the_first(request: Any, **_: object) -> None:
        attempts.append(json.loads(request.body)["ReceiveRequestAttemptId"])
        if len(attempts) == 1:
            raise ConnectionClosedError(endpoint_url=request.url)

    def connected(url: str) -> Any:
        client = connect(url)
        client.meta.events.register("before-send.sqs.ReceiveMessage", lose_the_first)
        return client

    monkeypatch.setattr(dead_letters, "connect", connected)
    assert listed() == [("shard 1 of 8", "0")]
    times = Counter(attempts)
    assert times.pop(attempts[0]) == 2
    assert times
    assert set(times.values()) == {1}


@dataclass
class Letter:
    """A message of the queue in memory."""

    group: str
    number: int
    until: float = 0.0
    handle: str = ""

    @property
    def message_id(self) -> str:
        return f"{self.group:>04}{self.number:04}-id"


@dataclass
class Memory:
    """A FIFO queue as the SQS guide describes it, with a clock of its own, and what was sent elsewhere."""

    letters: list[Letter] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)
    now: float = 1_000.0
    #: Called with the operation, the group and the number; may let time pass, or raise.
    before: Callable[[str, str, int], None] = lambda *_: None
    receipts: int = 0
    lock: Any = field(default_factory=threading.RLock)

    def put(self, group: int, *numbers: int) -> None:
        self.letters += [Letter(str(group), number) for number in numbers]

    def left(self, group: int) -> list[int]:
        return [each.number for each in self.letters if each.group == str(group)]

    def arrived(self, group: int) -> list[int]:
        return [number for name, number in self.sent if name == str(group)]

    def monotonic(self) -> float:
        return self.now

    def receive_message(self, **asked: Any) -> dict[str, Any]:
        with self.lock:
            self.before("receive", "", 0)
            locked = {each.group for each in self.letters if each.until > self.now}
            taken = [each for each in self.letters if each.group not in locked][:10]
            for each in taken:
                self.receipts += 1
                each.until, each.handle = self.now + asked["VisibilityTimeout"], str(self.receipts)
            return {"Messages": [_received(each) for each in taken]}

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        self.before("count", "", 0)
        visible = sum(each.until <= self.now for each in self.letters)
        return {"Attributes": {"ApproximateNumberOfMessages": str(visible), "QueueArn": "arn"}}

    def change_message_visibility(self, **asked: Any) -> None:
        with self.lock:
            self._held(asked["ReceiptHandle"]).until = self.now + asked["VisibilityTimeout"]

    def change_message_visibility_batch(self, **asked: Any) -> dict[str, Any]:
        with self.lock:
            for entry in asked["Entries"]:
                for each in self.letters:
                    if each.handle == entry["ReceiptHandle"] and each.until > self.now:
                        each.until = 0.0
        return {}

    def send_message(self, **asked: Any) -> None:
        group, number = asked["MessageGroupId"], number_of(asked["MessageBody"])
        self.before("send", group, number)
        self.sent.append((group, number))

    def delete_message(self, **asked: Any) -> None:
        with self.lock:
            letter = self._held(asked["ReceiptHandle"])
            self.before("delete", letter.group, letter.number)
            self.letters.remove(letter)

    def _held(self, handle: str) -> Letter:
        for each in self.letters:
            if each.handle == handle and each.until > self.now:
                return each
        raise refusal("ReceiptHandleIsInvalid", "ChangeMessageVisibility")


def _received(letter: Letter) -> dict[str, Any]:
    return {
        "MessageId": letter.message_id,
        "Body": job(int(letter.group) % 8, letter.number),
        "ReceiptHandle": letter.handle,
        "Attributes": {"SentTimestamp": "1", "MessageGroupId": letter.group},
    }


def refusal(code: str, operation: str = "SendMessage") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, operation)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    queue = Memory()
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/1/dead.fifo")
    monkeypatch.setenv("FANOUT_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/1/fanout.fifo")
    monkeypatch.setattr(dead_letters, "connect", lambda _: queue)
    monkeypatch.setattr(queues, "time", queue)
    return queue


@pytest.mark.parametrize("failing", ["send", "delete"])
def test_a_group_that_failed_is_left_alone_when_its_hold_is_over(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Another group takes longer than ten minutes, and SQS shows what comes after the failed letter."""
    monkeypatch.setattr(queues, "_THREADS", 1)
    memory.put(1, *range(30))
    memory.put(2, *range(40))

    def before(operation: str, group: str, number: int) -> None:
        if (operation, group, number) == (failing, "1", 9):
            raise refusal("Throttled")
        if (operation, group) == ("send", "2"):
            memory.now += 50

    memory.before = before
    answer = run("redrive", "--all", "--yes")
    assert answer.code == 1
    assert memory.arrived(2) == list(range(40))
    assert memory.left(1) == list(range(9, 30))
    assert memory.arrived(1) == list(range(9 if failing == "send" else 10))
    assert max(each.until for each in memory.letters) == 0
    assert answer.out.endswith("Sent 49, failed 1, not tried 9, 0 cannot be sent.\n")


def test_a_discard_leaves_a_group_that_failed_alone_too(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is read again."""
    monkeypatch.setattr(queues, "_THREADS", 1)
    memory.put(1, *range(30))
    memory.put(2, *range(40))

    def before(operation: str, group: str, number: int) -> None:
        if (operation, group, number) == ("delete", "1", 9):
            raise refusal("Throttled")
        if (operation, group) == ("delete", "2"):
            memory.now += 50

    memory.before = before
    assert run("discard", "--all", "--yes").out.endswith("Deleted 49, failed 1, not tried 9.\n")
    assert (memory.left(1), memory.left(2)) == (list(range(9, 30)), [])


def test_a_disk_that_fills_up_between_readings(memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was deleted is in the file, and neither the sentence nor the last line says otherwise."""
    memory.put(1, *range(25))
    path = tmp_path / "letters.jsonl"
    fsync = os.fsync

    def full(descriptor: int) -> None:
        if memory.letters[0].number:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    answer = run("discard", "--all", "--yes", "--save", str(path))
    assert answer.code == 1
    assert "cannot be written (No space left on device), so nothing more was deleted" in answer.err
    assert answer.out.endswith("Deleted 10, failed 0, not tried 10.\n")
    assert memory.left(1) == list(range(10, 25))
    saved = [number_of(json.loads(line)["body"]) for line in path.read_text().splitlines()]
    assert saved[:10] == list(range(10))


def test_nothing_is_deleted_before_it_is_on_the_disk(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A disk that is full from the start costs nothing."""
    memory.put(1, *range(3))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = run("discard", "--all", "--yes", "--save", str(tmp_path / "letters.jsonl"))
    assert answer.code == 1
    assert "so nothing was deleted" in answer.err
    assert memory.left(1) == [0, 1, 2]


def test_a_file_that_came_while_the_operator_thought_is_kept(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is not written over, and nothing is deleted."""
    memory.put(1, 0)
    path = tmp_path / "letters.jsonl"
    monkeypatch.setattr(screen, "confirm", lambda *_, **__: path.write_text("precious"))
    assert run("discard", "--all", "--save", str(path)).code == 1
    assert (path.read_text(), memory.left(1)) == ("precious", [0])


@pytest.mark.parametrize(
    ("command", "last"),
    [
        ("redrive", "Sent 10, failed 0, not tried 0, 0 cannot be sent.\n"),
        ("discard", "Deleted 10, failed 0, not tried 0.\n"),
    ],
)
def test_how_far_it_came_is_said_where_a_later_reading_fails(memory: Memory, command: str, last: str) -> None:
    """The error comes after it, and what is left is visible."""
    memory.put(1, *range(25))

    def before(operation: str, *_: object) -> None:
        if operation == "receive" and len(memory.letters) < 25:
            raise refusal("Throttled", "ReceiveMessage")

    memory.before = before
    answer = run(command, "--all", "--yes")
    assert (answer.code, answer.out.endswith(last)) == (1, True)
    assert answer.err.startswith("Error: ")
    assert memory.left(1) == list(range(10, 25))


def test_after_a_success_failures_do_not_stop_it(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many: they have not all one cause."""
    for group in range(60):
        memory.put(group, 0)
    said = threading.Event()
    say = screen.say

    def noted(text: str) -> None:
        say(text)
        said.set()

    def before(operation: str, group: str, _: int) -> None:
        if operation == "send" and group != "0":
            assert said.wait(10)
            time.sleep(0.01)
            raise refusal("Throttled")

    monkeypatch.setattr(screen, "say", noted)
    memory.before = before
    answer = run("redrive", "--all", "--yes")
    assert answer.out.endswith("Sent 1, failed 59, not tried 0, 0 cannot be sent.\n")


def test_who_may_not_count_may_still_list_and_send(memory: Memory) -> None:
    """Counting is another permission than receiving."""
    memory.put(1, *range(12))

    def before(operation: str, *_: object) -> None:
        if operation == "count":
            raise refusal("AccessDenied", "GetQueueAttributes")

    memory.before = before
    assert run("list").err.startswith("More messages may wait behind others")
    assert run("redrive", "--all", "--yes").code == 0
    assert memory.arrived(1) == list(range(12))
