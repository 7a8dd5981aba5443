"""Six hours in which nobody can be served, under the mapping and the queues as ``template.yaml`` makes them.

AWS does not say how soon a mapping tries again, so the model does it at once, every time.
"""

from __future__ import annotations

import asyncio
import logging

import pytest
from cloudformation import Stack
from lambda_models import Sqs, run_virtually
from test_mappings import Deployed, good, names
from test_template import FANOUT

from async_relay.testing.memory import OK, Reply, Script
from async_relay.wire.messages import Message

#: Ten minutes less than the six hours after which the template gives records up.
BACK_AFTER = 6 * 3600 - 600
#: One wait of five seconds after the other, and the shorter ones at its beginning.
MOST_INVOCATIONS = BACK_AFTER / 5 + 20
CLIENTS = 4
#: Long enough for an invocation to give a client up, and for its job not to be tried before.
SICK_UNTIL = 4.0
STACK = Stack(**FANOUT)


def down() -> bool:
    return asyncio.get_running_loop().time() < BACK_AFTER


def forbidden_while_down(_connection_id: str, _message: Message) -> Reply:
    return Reply(403) if down() else OK


def unreachable_while_down(_connection_id: str, _message: Message) -> Reply:
    return Reply(-1) if down() else OK


def deployed(script: Script = lambda _id, _message: OK, *, fanout: int = 0) -> Deployed:
    """The relay under a mapping and queues with the template's figures."""
    read = STACK.mappings()["RelayFunctionStream"]
    world = Deployed(
        script,
        clients=CLIENTS,
        fanout=fanout,
        max_retries=int(read["MaximumRetryAttempts"]),
        max_age=float(read["MaximumRecordAgeInSeconds"]),
        batch_size=int(read["BatchSize"]),
        backoff=0.0,
    )
    for queue, name in ((world.retry, "RetryQueue"), (world.fanout, "FanoutQueue")):
        properties = STACK.properties(name)
        queue.visibility = properties["VisibilityTimeout"]
        queue.max_receives = properties["RedrivePolicy"]["maxReceiveCount"]
    return world


async def outlive(world: Deployed) -> None:
    """Records at the start, in the middle and near the end of the outage; then an hour in which all is well."""
    world.stream.put(good(1)[0])

    async def publish() -> None:
        for number, at in ((2, 1.0), (3, 10_000.0), (4, BACK_AFTER - 1.0), (5, BACK_AFTER + 1_000.0)):
            await asyncio.sleep(at - asyncio.get_running_loop().time())
            world.stream.put(good(number)[0])

    publishing = asyncio.create_task(publish())
    await world.live(seconds=BACK_AFTER + 3_600)
    await publishing
    assert all(world.got(each) == [1, 2, 3, 4, 5] for each in names(CLIENTS))
    assert (world.stream.discarded, world.letters.messages) == ([], [])
    assert (world.store.deleted, redriven(world.retry, world.fanout)) == ([], 0)


def redriven(*queues: Sqs) -> int:
    return sum(len(queue.redriven) for queue in queues)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("async_relay"), "disabled", True)  # pytest keeps every line


@pytest.mark.parametrize("script", [forbidden_while_down, unreachable_while_down])
def test_an_endpoint_that_is_down_for_six_hours_loses_nothing(script: Script) -> None:
    """Everybody gets every record, once and in order, and the relay was invoked every few seconds and no more."""

    async def history() -> None:
        world = deployed(script)
        await outlive(world)
        assert world.stream.function.invocations < MOST_INVOCATIONS

    run_virtually(history())


def test_a_table_that_is_down_for_six_hours_loses_nothing() -> None:
    """The same holds where the connections cannot be read."""

    async def history() -> None:
        world = deployed()
        world.store.down = True
        asyncio.get_running_loop().call_at(BACK_AFTER, setattr, world.store, "down", False)
        await outlive(world)
        assert world.stream.function.invocations < MOST_INVOCATIONS

    run_virtually(history())


def test_fan_out_jobs_outlive_six_hours_as_well() -> None:
    """A job waits in its queue as long as a record waits in the stream, and SQS redrives none."""

    async def history() -> None:
        world = deployed(forbidden_while_down, fanout=2)
        await outlive(world)
        assert world.worker.invocations < 2 * (BACK_AFTER / 360 + 20)

    run_virtually(history())


def test_what_is_requeued_outlives_six_hours_as_well() -> None:
    """A client's job that was requeued before the outage waits it out in the retry queue."""

    def sick_then_down(connection_id: str, _message: Message) -> Reply:
        if asyncio.get_running_loop().time() < SICK_UNTIL:
            return Reply(500) if connection_id == "c3=" else OK
        return Reply(-1) if down() else OK

    async def history() -> None:
        world = deployed(sick_then_down)
        await world.live(*good(1), seconds=BACK_AFTER + 3_600)
        assert world.worker.invocations > 50
        assert all(world.got(each) == [1] for each in names(CLIENTS))
        assert (redriven(world.retry), world.letters.messages) == (0, [])

    run_virtually(history())
