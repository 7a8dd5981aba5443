"""A host whose first address is dead is reached by the next one, in a fraction of the timeout."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest
from transports import CREDENTIALS, opened, post_all

from async_relay.http import dialling
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


def address(family: int, name: str) -> dialling._Address:
    return dialling._Address(family, socket.SOCK_STREAM, 0, "", (name, 80))


def test_address_families_take_turns() -> None:
    """The resolver's first family first, and none of either is left out."""
    six, four = socket.AF_INET6, socket.AF_INET
    found = [address(six, "a"), address(six, "b"), address(six, "c"), address(four, "d"), address(four, "e")]
    assert [each.address[0] for each in dialling._families_in_turn(found)] == ["a", "d", "b", "e", "c"]
    assert dialling._families_in_turn([]) == []


async def test_of_two_that_answer_at_once_one_is_closed(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller has one connection, and the other is not left to the garbage collector."""
    resolve_to(monkeypatch, ALIVE, ALIVE)
    monkeypatch.setattr(dialling, "_HEAD_START", 0.0)
    made: list[socket.socket] = []
    both = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, both.set)

    async def attempt(_address: Any) -> socket.socket:
        await both.wait()
        made.append(socket.socket())
        return made[-1]

    monkeypatch.setattr(dialling, "_attempt", attempt)
    won = await dial("both", port_of(gateway))
    assert [each.fileno() for each in made if each is not won] == [-1]
    won.close()


async def test_a_connection_nobody_waits_for_any_more_is_closed(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while the other attempts are closed: the one that had won is closed as well."""
    resolve_to(monkeypatch, ALIVE, ALIVE)
    close, made = dialling._close, [socket.socket()]
    turns = iter([True])

    async def attempt(_address: Any) -> socket.socket:
        return made[0]

    async def cancelled(attempts: Any) -> None:
        if next(turns, False):
            raise asyncio.CancelledError
        await close(attempts)

    monkeypatch.setattr(dialling, "_attempt", attempt)
    monkeypatch.setattr(dialling, "_close", cancelled)
    with pytest.raises(asyncio.CancelledError):
        await dial("both", port_of(gateway))
    assert made[0].fileno() == -1


async def test_a_process_without_descriptors_hears_that(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several reasons it is the one that the process can do something about."""
    resolve_to(monkeypatch, ALSO_ALIVE, ALIVE)
    reasons = iter([OSError(errno.ECONNREFUSED, "refused"), OSError(errno.EMFILE, "too many open files")])

    async def attempt(_address: Any) -> socket.socket:
        raise next(reasons)

    monkeypatch.setattr(dialling, "_attempt", attempt)
    with pytest.raises(OSError, match="too many") as caught:
        await dial("both", port_of(gateway))
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (OSError(errno.EINVAL, "Invalid argument"), errno.EMFILE),
        (OSError(errno.EBUSY, "Device or resource busy"), errno.EMFILE),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), socket.EAI_NONAME),
    ],
)
async def test_a_look_up_that_the_system_fails_lacks_a_descriptor(
    monkeypatch: pytest.MonkeyPatch, failure: OSError, number: int
) -> None:
    """The resolver's errno is any without one, and another socket may have given its own back by then."""

    async def fails(*_arguments: Any, **_options: Any) -> Any:
        raise failure

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", fails)
    with pytest.raises(OSError, match=str(failure.strerror)) as raised:
        await dial("relay.example", 443)
    assert raised.value.errno == number
