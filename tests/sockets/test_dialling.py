"""A host whose first address is dead is reached by the next one, in a fraction of the timeout."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from transports import CREDENTIALS, opened, post_all

from async_relay.http.dialling import dial
from async_relay.testing.gateway import Gateway

DEAD, ALIVE, ALSO_ALIVE = "127.0.0.2", "127.0.0.1", "127.0.0.3"


@pytest.fixture
async def gateway() -> Any:
    async with Gateway(credentials=CREDENTIALS) as gateway:
        yield gateway


def port_of(gateway: Gateway) -> int:
    return int(gateway.endpoint.rpartition(":")[2].partition("/")[0])


@pytest.fixture
def dead_address(gateway: Gateway) -> Iterator[None]:
    """An address that answers nobody: what listens there has as many connections waiting as it takes."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((DEAD, port_of(gateway)))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex((DEAD, port_of(gateway)))
        yield


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    loop_class = type(asyncio.get_running_loop())
    resolve = loop_class.getaddrinfo

    async def getaddrinfo(loop: Any, host: Any, port: int, **more: Any) -> Sequence[Any]:
        if host not in ("localhost", "both"):
            found: Sequence[Any] = await resolve(loop, host, port, **more)
            return found
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (each, port)) for each in addresses]

    monkeypatch.setattr(loop_class, "getaddrinfo", getaddrinfo)


@pytest.mark.usefixtures("dead_address")
async def test_a_dead_first_address_costs_no_post_its_timeout(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name has a dead address and a live one: every post is delivered, well before the timeout."""
    resolve_to(monkeypatch, DEAD, ALIVE)
    async with opened("direct", gateway.endpoint, "", timeout=3) as transport:
        start = time.monotonic()
        assert await post_all(transport, [(f"{number}=", b"{}") for number in range(10)]) == [None] * 10
        assert time.monotonic() - start < 1.5


async def test_an_address_that_refuses_costs_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at the first address: the next is tried at once."""
    resolve_to(monkeypatch, ALSO_ALIVE, ALIVE)
    start = time.monotonic()
    (await dial("both", port_of(gateway))).close()
    assert time.monotonic() - start < 0.2


@pytest.mark.usefixtures("dead_address")
async def test_whoever_gives_up_leaves_no_socket_and_no_task(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled at any moment, before and after the second address is tried, nothing stays open."""
    resolve_to(monkeypatch, DEAD, DEAD)
    for seconds in (0.0, 0.01, 0.3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(dial("both", port_of(gateway)), seconds)
        assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()  # an open socket would warn, and a warning is an error


@pytest.mark.parametrize("addresses", [(ALSO_ALIVE,), (ALSO_ALIVE, ALSO_ALIVE), ()])
async def test_where_no_address_answers_the_reason_is_said(
    addresses: tuple[str, ...], gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All refuse, or there is none: an ``OSError`` with a reason, once."""
    resolve_to(monkeypatch, *addresses)
    with pytest.raises(OSError, match=r"refused|Connect call failed|no address") as caught:
        await dial("both", port_of(gateway))
    assert str(caught.value).count("127.0.0.3") <= 1
