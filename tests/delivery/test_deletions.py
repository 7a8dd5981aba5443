"""Rows of gone clients: each deleted once, counted until it is known to be gone, and never waited for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from aws_server import Answering

from async_relay.aws import DynamoStore
from async_relay.delivery import deletions
from async_relay.delivery.broadcaster import Broadcaster, Limits
from async_relay.delivery.deletions import Deletions
from async_relay.delivery.outbox import Queues
from async_relay.delivery.rate import Rate
from async_relay.delivery.relay import Relay
from async_relay.delivery.settlement import RequeuePolicy
from async_relay.errors import StoreUnavailable, Unavailable
from async_relay.testing.memory import MemoryQueue, MemoryStore, MemoryTransport, Reply
from async_relay.wire.jobs import Client, Job
from async_relay.wire.messages import Message


class Asked(MemoryStore):
    """A table that remembers each call, and refuses the first ``refusals`` of them."""

    def __init__(self, *, refusals: int = 0) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.refusals = refusals

    async def delete(self, connection_ids: Sequence[str]) -> None:
        self.calls.append(list(connection_ids))
        await asyncio.sleep(0)
        if len(self.calls) <= self.refusals:
            raise StoreUnavailable("ProvisionedThroughputExceededException")


class Silent(MemoryStore):
    """A table that takes a deletion and never answers."""

    async def delete(self, _connection_ids: Sequence[str]) -> None:
        await asyncio.Event().wait()


async def test_a_row_asked_for_twice_is_deleted_once() -> None:
    """Before its call, during it and after it, the same row is asked of the table once only."""
    table = Asked()
    rows = Deletions(table)
    for _ in range(2):
        rows.add("a=")
        rows.add("b=")
    assert rows.undeleted == 2
    await asyncio.sleep(0)
    rows.add("a=")
    await rows.finish(5)
    rows.add("b=")
    await rows.finish(5)
    assert table.calls == [["a=", "b="]]
    assert rows.undeleted == 0


async def test_a_refused_row_counts_once_and_may_be_asked_for_again() -> None:
    """Refused it is one undeleted row, however often it is named; asked for again and deleted, it is none."""
    table = Asked(refusals=1)
    rows = Deletions(table)
    rows.add("a=")
    rows.add("a=")
    await rows.finish(5)
    assert rows.undeleted == 1
    rows.add("a=")
    assert rows.undeleted == 1
    await rows.finish(5)
    assert (table.calls, rows.undeleted) == ([["a="], ["a="]], 0)


async def test_a_deletion_that_hangs_is_waited_for_a_few_seconds_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much time there is, what is not deleted soon is left, and counted."""
    assert deletions._LAST_CALLS <= 5
    monkeypatch.setattr(deletions, "_LAST_CALLS", 0.05)
    rows = Deletions(Silent())
    rows.add("a=")
    async with asyncio.timeout(2):
        await rows.finish(600)
    await rows.cancel()
    assert rows.undeleted == 1


@pytest.mark.parametrize("clients", [1, 30])
async def test_two_jobs_that_name_the_same_gone_clients_delete_their_rows(clients: int) -> None:
    """DynamoDB refuses a call with the same row twice; both jobs are settled, and no row is left over."""
    deleted: list[str] = []

    def answer(request: Any) -> Any:
        if "Keys" in request.get("RequestItems", {}).get("connections", ()):
            return {"Responses": {}}
        requests = request.get("RequestItems", {}).get("connections") or [{"DeleteRequest": request}]
        rows = [each["DeleteRequest"]["Key"]["connectionId"]["S"] for each in requests]
        if len(set(rows)) < len(rows):
            return Unavailable("ValidationException: Provided list of item keys contains duplicates")
        deleted.extend(rows)
        return {"UnprocessedItems": {}}

    figures: list[Any] = []
    transport = MemoryTransport(lambda name, _message: Reply(200 if name == "well=" else 410))
    store = DynamoStore(Answering(answer), "connections")
    relay = Relay(
        Broadcaster(transport, store, Limits(100), Rate(), Random(1), time.time),
        Queues(MemoryQueue(), MemoryQueue()),
        RequeuePolicy(),
        wall_clock=time.time,
        emit_metrics=figures.append,
    )
    names = [f"{number}=" for number in range(clients)]
    body = Job((Message.encode({"kind": "remediation"}),), tuple(map(Client, ["well=", *names]))).encode()
    records = [{"messageId": f"{at}", "body": body} for at in range(2)]
    assert await relay.on_jobs({"Records": records}, 60) == {"batchItemFailures": []}
    assert sorted(deleted) == sorted(names)
    assert [each["undeleted"] for each in figures] == [0]


async def test_thousands_of_rows_are_calls_of_a_thousand_and_a_refused_one_ends_none_of_the_others() -> None:
    """A cancelled call leaves no more than that undone; the rows of the first stay, and all others go."""
    table = Asked(refusals=1)
    rows = Deletions(table)
    names = [f"{number}=" for number in range(2_500)]
    for each in names:
        rows.add(each)
    assert repr(rows) == "<2500 rows not deleted yet>"
    await rows.finish(5)
    assert table.calls == [names[:1_000], names[1_000:2_000], names[2_000:]]
    assert rows.undeleted == 1_000


async def test_a_bug_in_the_store_comes_out_at_the_end() -> None:
    """What is no refusal of the table's is raised, and not taken for one."""

    class Broken(MemoryStore):
        async def delete(self, _connection_ids: Sequence[str]) -> None:
            raise ZeroDivisionError

    rows = Deletions(Broken())
    rows.add("a=")
    with pytest.raises(ZeroDivisionError):
        await rows.finish(5)
    await rows.cancel()


async def test_cancelling_ends_the_call_under_way_before_it_returns() -> None:
    """Nothing of it runs on into the next broadcast, and its rows and those behind it count as there."""
    ended: list[str] = []

    class Slow(MemoryStore):
        async def delete(self, _connection_ids: Sequence[str]) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("the call")

    rows = Deletions(Slow())
    rows.add("a=")
    await asyncio.sleep(0)
    rows.add("b=")
    await rows.cancel()
    assert (ended, rows.undeleted) == (["the call"], 2)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_without_time_nothing_is_waited_for(seconds: float) -> None:
    """However long the last calls may take otherwise."""
    rows = Deletions(Silent())
    rows.add("a=")
    async with asyncio.timeout(1):
        await rows.finish(seconds)
    await rows.cancel()
