"""Where a load test plays: behind real sockets in other processes, in memory, or at an endpoint of one's own.

Each world says how the relay is set up for it, lets clients come and go, and knows in the end what is missing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from async_relay.delivery.protocols import ConnectionStore, Transport
from async_relay.testing.memory import NEVER, MemoryStore, MemoryTransport, Reply
from async_relay.testing.process import RemoteObject
from async_relay.wire.messages import Message

from .crowd import CUT, HANGS, Crowd, Latency, reads_arrays
from .ledger import Shortfall, Tally
from .peers.worker import TABLE
from .stage import environment, take_over

_DAY_MS = 86_400_000
#: Where the in-process queues are said to be; nothing is ever sent there.
RETRY, DEAD_LETTERS = "https://in-process.invalid/0/retry", "https://in-process.invalid/0/dead-letters"


class World(Protocol):
    """See the module."""

    settings: Mapping[str, str]
    transport: Transport | None
    store: ConnectionStore | None

    async def join(self, count: int, first: int, *, old: bool) -> Sequence[str]:
        """So many clients come, who expect everything from message ``first`` on."""

    async def leave(self, ids: Sequence[str], last: int) -> None:
        """These hang up and their rows go; they need nothing after message ``last``."""

    async def tally(self) -> Tally | None:
        """The messages that arrived so far, where that can be known."""

    async def shortfall(self, last: int) -> Shortfall | None:
        """The messages that are missing in the end, where that can be known."""

    async def ghosts(self, last: int) -> int:
        """How many rows are left of clients that have gone and came before message ``last``."""

    def close(self) -> None:
        """End what was started."""


class Servers:
    """A gateway and a table, each in a process of its own."""

    transport: Transport | None = None
    store: ConnectionStore | None = None

    def __init__(
        self, shares: Mapping[str, float], seed: int, lag: Latency, account_limit: float | None, arrays: float = 0.0
    ) -> None:
        """``arrays`` is the share of the clients that read them."""
        self._arrays = arrays
        options = {"shares": shares, "seed": seed, "lag": lag, "account_limit": account_limit}
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(TemporaryDirectory(prefix="async-relay-")))
            crowd = RemoteObject("benchmarks.crowd", "CrowdGateway", options, environment())
            self._crowd = stack.enter_context(closing(crowd))
            self._table = stack.enter_context(closing(RemoteObject("benchmarks.table", "Table", {}, environment())))
            endpoint, ca_file = self._crowd.call("facts")
            table_url, pem = self._table.call("facts")
            bundle = scratch / "trusted.pem"
            bundle.write_bytes(Path(ca_file).read_bytes() + pem)
            take_over(environment(bundle, table_url))
            self.settings: Mapping[str, str] = {"WS_ENDPOINT": endpoint, "CONNECTIONS_TABLE": TABLE}
            self._stack = stack.pop_all()

    async def join(self, count: int, first: int, *, old: bool) -> Sequence[str]:
        """The crowd first: a post may come as soon as there is a row."""
        ids: list[str] = await asyncio.to_thread(self._crowd.call, "join", count, first)
        arrays = [each for each in ids if reads_arrays(each, self._arrays)]
        await asyncio.to_thread(self._table.call, "put", ids, _created_at(old=old), arrays)
        return ids

    async def leave(self, ids: Sequence[str], last: int) -> None:
        """Both sides."""
        await asyncio.to_thread(self._crowd.call, "leave", [int(each[1:10]) for each in ids], last)
        await asyncio.to_thread(self._table.call, "remove", ids)

    async def tally(self) -> Tally | None:
        """The crowd's."""
        tally: Tally = await asyncio.to_thread(self._crowd.call, "tally")
        return tally

    async def shortfall(self, last: int) -> Shortfall | None:
        """The crowd's."""
        shortfall: Shortfall = await asyncio.to_thread(self._crowd.call, "shortfall", last)
        return shortfall

    async def ghosts(self, last: int) -> int:
        """The rows there are of the clients that are gone."""
        gone = await asyncio.to_thread(self._crowd.call, "gone", last)
        return len(gone.intersection(await asyncio.to_thread(self._table.call, "ids")))

    def close(self) -> None:
        """End both processes."""
        self._stack.close()


class Memory:
    """No sockets: what the broadcaster itself can do, and a million clients."""

    settings: Mapping[str, str] = {"WS_ENDPOINT": "https://in-process.invalid/prod", "CONNECTIONS_TABLE": TABLE}

    def __init__(self, shares: Mapping[str, float], seed: int, lag: Latency, arrays: float = 0.0) -> None:
        """``arrays`` is the share of the clients that read them."""
        self._arrays = arrays
        self._crowd = Crowd(shares, seed)
        self._lag = lag
        self._random = Random(seed)
        self._rows = MemoryStore(page_size=5_000)
        self.transport: Transport | None = MemoryTransport(self._reply, keep=False)
        self.store: ConnectionStore | None = self._rows

    def _reply(self, connection_id: str, message: Message) -> Reply:
        status, delay = self._crowd.answer(connection_id, message.body)
        if status == HANGS:
            return Reply(200, NEVER, arrives=False)
        return Reply(0 if status == CUT else status, delay + self._lag(connection_id, self._random))

    async def join(self, count: int, first: int, *, old: bool) -> Sequence[str]:
        """The crowd first: a post may come as soon as there is a row."""
        ids = self._crowd.join(count, first)
        arrays = [each for each in ids if reads_arrays(each, self._arrays)]
        self._rows.add(*ids, createdAt=_created_at(old=old))
        self._rows.add(*arrays, createdAt=_created_at(old=old), frames="array")
        return ids

    async def leave(self, ids: Sequence[str], last: int) -> None:
        """Both sides."""
        self._crowd.leave([int(each[1:10]) for each in ids], last)
        await self._rows.delete(ids)

    async def tally(self) -> Tally | None:
        """The crowd's."""
        return self._crowd.ledger.tally()

    async def shortfall(self, last: int) -> Shortfall | None:
        """The crowd's."""
        return self._crowd.ledger.shortfall(last)

    async def ghosts(self, last: int) -> int:
        """The rows there are of the clients that are gone."""
        return len(self._crowd.gone(last).intersection(self._rows.rows))

    def close(self) -> None:
        """Nothing was started."""


class Endpoint:
    """A person's own, for real: only the relay's own account tells what was delivered."""

    transport: Transport | None = None
    store: ConnectionStore | None = None

    def __init__(self, url: str, table: str) -> None:
        self.settings: Mapping[str, str] = {"WS_ENDPOINT": url, "CONNECTIONS_TABLE": table}

    async def join(self, count: int, first: int, *, old: bool) -> Sequence[str]:  # noqa: ARG002 - nobody is mocked
        """Nobody is added to the clients that are connected."""
        return ()

    async def leave(self, ids: Sequence[str], last: int) -> None:
        """Nobody is sent away."""

    async def tally(self) -> Tally | None:
        """Only the clients know."""
        return None

    async def shortfall(self, last: int) -> Shortfall | None:  # noqa: ARG002 - see below
        """Only the clients know."""
        return None

    async def ghosts(self, last: int) -> int:  # noqa: ARG002 - see below
        """Only the gateway knows."""
        return 0

    def close(self) -> None:
        """Nothing was started."""


def _created_at(*, old: bool) -> int:
    return int(time.time() * 1000) - (_DAY_MS if old else 0)


def settings(world: World, chosen: Mapping[str, Any]) -> dict[str, str]:
    """The relay's environment there."""
    queues = {"RETRY_QUEUE_URL": RETRY, "DEAD_LETTER_QUEUE_URL": DEAD_LETTERS}
    return {**world.settings, **queues, **{name: str(value) for name, value in chosen.items()}}
