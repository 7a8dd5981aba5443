"""What SQS is asked: which entries share a call, and what each of them says."""

from __future__ import annotations

from typing import Any

import pytest
from aws_server import Answering

from async_relay.aws import SqsQueue
from async_relay.delivery.protocols import Entry
from async_relay.errors import QueueUnavailable, Unavailable
from async_relay.wire.jobs import MAX_QUEUE_BODY_BYTES

URL = "https://sqs.eu-west-1.amazonaws.com/1/retry"
KB = 1_000


def took_all(request: Any) -> Any:
    return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]]}


async def asked(*entries: Entry) -> list[list[dict[str, Any]]]:
    """The entries of each call."""
    service = Answering(took_all)
    await SqsQueue(service, URL).send(entries)
    assert all(request["QueueUrl"] == URL for request in service.requests)
    return [request["Entries"] for request in service.requests]


async def test_an_entry_says_what_it_was_given() -> None:
    """Its delay in seconds, its group and its deduplication id, and nothing that it lacks."""
    ((plain, late, grouped),) = await asked(
        Entry("a"), Entry("b", delay=900), Entry("c", group="7", deduplication_id="once")
    )
    assert plain == {"Id": "0", "MessageBody": "a"}
    assert late == {"Id": "1", "MessageBody": "b", "DelaySeconds": 900}
    assert grouped == {"Id": "2", "MessageBody": "c", "MessageGroupId": "7", "MessageDeduplicationId": "once"}


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([100 * KB] * 5, [2, 2, 1]),
        ([200 * KB, 200 * KB], [1, 1]),
        ([MAX_QUEUE_BODY_BYTES, 1, MAX_QUEUE_BODY_BYTES - 1, 1], [1, 2, 1]),
        ([MAX_QUEUE_BODY_BYTES // 2, MAX_QUEUE_BODY_BYTES // 2], [2]),
        ([1] * 10, [10]),
        ([1] * 23, [10, 10, 3]),
        ([1] * 9 + [MAX_QUEUE_BODY_BYTES] + [1] * 9, [9, 1, 9]),
        ([], []),
    ],
)
@pytest.mark.parametrize("letter", ["x", "☃"], ids=["of one byte", "of three bytes"])
async def test_a_call_is_as_full_as_sqs_takes(sizes: list[int], calls: list[int], letter: str) -> None:
    """Ten entries, or 256 KiB of UTF-8, and every entry in its place."""
    width = len(letter.encode())
    bodies = [letter * (size // width) + "x" * (size % width) for size in sizes]
    found = await asked(*map(Entry, bodies))
    assert [len(each) for each in found] == calls
    assert [entry["MessageBody"] for each in found for entry in each] == bodies
    assert [entry["Id"] for each in found for entry in each] == [str(at) for at in range(len(sizes))]


@pytest.mark.parametrize("error", [Unavailable("busy"), AttributeError("odd")], ids=["refused", "unreadable"])
@pytest.mark.parametrize("bad", [{0}, {1}, {0, 2}, {1, 2}, {0, 1, 2}])
async def test_each_batch_has_its_own_end(bad: set[int], error: Exception) -> None:
    """Of three batches some fail: all are tried, and just the entries of those have failed, with their reason."""
    turns = iter(range(3))

    def answer(request: Any) -> Any:
        if next(turns) in bad:
            raise error
        return took_all(request)

    service = Answering(answer)
    with pytest.raises(QueueUnavailable, match=str(error)) as caught:
        await SqsQueue(service, URL).send([Entry(f"{at}") for at in range(30)])
    assert len(service.requests) == 3
    assert caught.value.failed == {at for at in range(30) if at // 10 in bad}
