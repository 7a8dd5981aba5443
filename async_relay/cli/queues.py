"""SQS for the commands: read every message and give it back, send, delete.

botocore's synchronous client in a few threads, not aioboto3: a command has one user and no event
loop to share, and botocore is there anyway, below aioboto3.

Rules
- A message that was read is held: invisible to others for ``HOLD_SECONDS``. On the way out of the
  ``with`` block whatever was not deleted is made visible again, after an error, Ctrl-C or SIGTERM too.
- A FIFO queue shows nothing more of a group while a message of it is held: only the first ten or so of each
  group can be read, and the next ones once those are deleted. So who empties it reads it again and again.
- Messages of a FIFO group are acted on one after another, and never past one that failed. A group that failed is
  left alone from then on: once what is held of it is visible again, SQS would show what comes after the failed one.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple, Self
from uuid import uuid4

from botocore.config import Config

from . import account
from .aws_errors import aws_errors
from .failure import USAGE, CommandError

#: How long a message stays ours while we read and ask. SQS gives it back by itself after that.
HOLD_SECONDS = 600
#: One long poll asks every server behind a queue, so one that finds nothing means there is nothing more.
WAIT_SECONDS = 2
#: Calls to SQS at once: a redrive of thousands waits for round trips, not for this CPU.
_THREADS = 8
#: Long polls at once: each gets up to ten messages, from other servers behind the queue.
_READERS = 4
#: Give up reading when so many rounds in a row only repeat: more messages than can be held at once.
_REPEATS = 25
#: Signals that end a command: Ctrl-C, kill, and a terminal that is closed.
_ENDINGS = ("SIGINT", "SIGTERM", "SIGHUP")

_URL = re.compile(r"https?://[^\s/]+/\S+")
_URL_REGION = re.compile(r"https?://(?:[\w.-]+\.)?sqs(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d+)\.")


class Received(NamedTuple):
    """A message as SQS gave it."""

    message_id: str
    body: str
    sent_at: int | None
    group: str = ""


class _Held(NamedTuple):
    handle: str
    since: float
    group: str


def is_fifo(url: str) -> bool:
    """Whether the queue is a FIFO queue, which its name says."""
    return url.endswith(".fifo")


def check_url(name: str, url: str | None) -> str:
    """The URL of a queue; raises ``CommandError`` that names the option and the variable."""
    if not url or not url.strip():
        raise CommandError(f"no queue: give {name}", USAGE)
    url = url.strip()
    if not _URL.fullmatch(url):
        raise CommandError(f"{name} is {url!r}; it must be the URL of an SQS queue", USAGE)
    return url


def connect(url: str) -> Any:
    """A client for SQS in the region of the command line, else the one the URL names, else the environment's."""
    named = _URL_REGION.match(url)
    with aws_errors(url):
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 3},
            connect_timeout=5,
            read_timeout=WAIT_SECONDS + 20,
            max_pool_connections=_THREADS + 1,
        )
        return account.client("sqs", config, named=named[1] if named else None)


class SendQueue:
    """The queue a redrive sends to."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self.url = url

    def check(self) -> None:
        """Raise ``CommandError`` where the queue cannot be there; asking is not always allowed, and need not be."""
        with aws_errors(self.url, ignored="AccessDenied"):
            self._client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])

    def send(self, body: str, group: str, deduplication_id: str) -> None:
        """Send one body, at once; a FIFO queue puts it at the end of ``group``, unless it has had this id just now."""
        if is_fifo(self.url):
            options: dict[str, Any] = {"MessageGroupId": group, "MessageDeduplicationId": deduplication_id}
        else:
            options = {"DelaySeconds": 0}
        with aws_errors(self.url):
            self._client.send_message(QueueUrl=self.url, MessageBody=body, **options)


class DeadLetterQueue:
    """The dead-letter queue, and the messages of it that are held."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url
        self.fifo = is_fifo(url)
        self._seen: set[str] = set()
        self._held: dict[str, _Held] = {}
        self._failed: set[str] = set()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(_THREADS)
        #: Messages that could not be given back; SQS does it by itself within ``HOLD_SECONDS``.
        self.stranded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with on_ending(lambda: None):  # This is short, and what the ending would have to do itself.
            # A receive that Ctrl-C cut off from us may still take messages: wait for it, then give back.
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = ThreadPoolExecutor(_THREADS)
            self.release()
            self._pool.shutdown(wait=True)

    def read(self) -> Iterator[Received]:
        """Every message that can be received now and was not before; each is held."""
        repeats, more = 0, True
        while more and repeats < _REPEATS:
            # One reader of a FIFO queue: its answers, one after the other, are the order of each group. SQS locks a
            # group for the reader that has its front; others may hand the next messages to another one.
            receiving = [self._pool.submit(self._receive) for _ in range(1 if self.fifo else _READERS)]
            batches = [each.result() for each in receiving]
            more = all(batches)
            fresh = {each.message_id: each for batch in batches for each in batch if each.message_id not in self._seen}
            repeats = 0 if fresh else repeats + 1
            self._seen.update(fresh)
            yield from fresh.values()

    def _receive(self) -> list[Received]:
        # Where an answer is lost, the client asks again with the same id, and a FIFO queue gives the same messages.
        attempt = {"ReceiveRequestAttemptId": str(uuid4())} if self.fifo else {}
        with aws_errors(self._url):
            answer = self._client.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=10,
                VisibilityTimeout=HOLD_SECONDS,
                WaitTimeSeconds=WAIT_SECONDS,
                MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
                **attempt,
            )
        messages = answer.get("Messages", [])
        now = time.monotonic()
        received = [_received(message) for message in messages]
        for message, each in zip(messages, received, strict=True):
            self._held[each.message_id] = _Held(message["ReceiptHandle"], now, each.group)
        return received

    def behind(self) -> int | None:
        """About how many messages wait behind those that are held, in their groups; None where asking is forbidden."""
        if not self.fifo:
            return 0
        counts: list[int] = []
        with aws_errors(self._url, ignored="AccessDenied"):
            name = "ApproximateNumberOfMessages"
            answer = self._client.get_queue_attributes(QueueUrl=self._url, AttributeNames=[name])
            counts.append(int(answer["Attributes"][name]))
        return counts[0] if counts else None

    def group(self, message_id: str) -> str:
        """The group of a message that is held; empty in a standard queue."""
        return self._held[message_id].group

    def release(self, kept: Iterable[str] = ()) -> None:
        """Make what is held visible again, but for the ids in ``kept``."""
        keep = set(kept)
        # The last first, and in a FIFO queue in turn: SQS keeps a group's order in any case, others may not.
        ids = [each for each in reversed(self._held) if each not in keep]
        batches = [ids[at : at + 10] for at in range(0, len(ids), 10)]
        for _ in map(self._release, batches) if self.fifo else self._pool.map(self._release, batches):
            pass

    def _release(self, ids: list[str]) -> None:
        entries = [
            {"Id": str(at), "ReceiptHandle": self._held[each].handle, "VisibilityTimeout": 0}
            for at, each in enumerate(ids)
        ]
        try:
            with aws_errors(self._url):
                answer = self._client.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)
        except CommandError:
            self.stranded += len(ids)
        else:
            # A handle that is refused as the sender's fault is no longer ours: it is visible, held by another, or gone.
            self.stranded += sum(not failed["SenderFault"] for failed in answer.get("Failed", []))
        for each in ids:
            del self._held[each]

    def keep(self, message_id: str) -> None:
        """Hold a message on if its time is half over; raises ``CommandError`` if it is no longer ours."""
        held = self._held[message_id]
        if time.monotonic() - held.since < HOLD_SECONDS / 2:
            return
        with aws_errors(self._url):
            self._client.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=held.handle, VisibilityTimeout=HOLD_SECONDS
            )
        self._held[message_id] = held._replace(since=time.monotonic())

    def delete(self, message_id: str) -> None:
        """Delete one message that is held."""
        with aws_errors(self._url):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=self._held[message_id].handle)
        del self._held[message_id]

    def each(self, ids: Iterable[str], act: Callable[[str], None]) -> Iterator[tuple[str, CommandError | None]]:
        """Do ``act`` for every id, a few at a time; its error with each id, as they end, until ``stop``.

        Those of one FIFO group in turn, and none after one that failed, in this call or an earlier one.
        """

        def attempt(group: str, sequence: Sequence[str]) -> list[tuple[str, CommandError | None]]:
            outcomes: list[tuple[str, CommandError | None]] = []
            for message_id in sequence:
                if self._stopped.is_set() or group in self._failed:
                    break
                try:
                    act(message_id)
                except CommandError as error:
                    outcomes.append((message_id, error))
                    if self.fifo:
                        self._failed.add(group)
                else:
                    outcomes.append((message_id, None))
            return outcomes

        for future in as_completed([self._pool.submit(attempt, *each) for each in self._sequences(ids)]):
            yield from future.result()

    def _sequences(self, ids: Iterable[str]) -> Iterable[tuple[str, Sequence[str]]]:
        if not self.fifo:
            return [("", [each]) for each in ids]
        groups: dict[str, list[str]] = {}
        for each in ids:
            groups.setdefault(self.group(each), []).append(each)
        return groups.items()

    @property
    def stopped(self) -> bool:
        """True after ``stop``."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Let ``each`` finish what is under way, and begin nothing more."""
        self._stopped.set()


def _received(message: dict[str, Any]) -> Received:
    attributes = message.get("Attributes", {})
    sent_at = attributes.get("SentTimestamp", "")
    return Received(
        message["MessageId"],
        message.get("Body", ""),
        int(sent_at) if sent_at.isdigit() else None,
        attributes.get("MessageGroupId", ""),
    )


def interrupt() -> None:
    """Unwind the stack, as Ctrl-C does."""
    raise KeyboardInterrupt


@contextmanager
def on_ending(react: Callable[[], None]) -> Iterator[None]:
    """Within the block, Ctrl-C, SIGTERM and a closed terminal call ``react`` and do nothing else."""
    signals = [getattr(signal, name) for name in _ENDINGS if hasattr(signal, name)]
    before = [(each, signal.signal(each, lambda *_: react())) for each in signals]
    try:
        yield
    finally:
        for each, handler in before:
            signal.signal(each, handler)
