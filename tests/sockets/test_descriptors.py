"""A process with few file descriptors: fewer sockets, the same posts, and always some left for everything else."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, ECONNREFUSED, EMFILE, ENFILE
from pathlib import Path

import pytest
from transports import CREDENTIALS, opened, post_all

from async_relay.http.descriptors import MOST_IN_A_LAMBDA, RESERVED, exhausted, lacks_descriptors, sockets_at_most
from async_relay.http.direct import DirectTransport
from async_relay.testing import gateway_process


@contextmanager
def limited(count: int) -> Iterator[None]:
    """No more than ``count`` descriptors for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def in_use() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def all_but(count: int) -> Iterator[list[int]]:
    """Take every descriptor but ``count``."""
    taken: list[int] = []
    with limited(in_use() + 60):
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for _ in range(count):
            os.close(taken.pop())
        try:
            yield taken
        finally:
            for each in taken:
                os.close(each)


def test_sockets_leave_a_reserve_for_everything_else() -> None:
    """A Lambda's 1,024 are 900 for posts; little is halved; one there always is."""
    with limited(1_024):
        assert sockets_at_most(100) == 100
        assert sockets_at_most(10_000) == MOST_IN_A_LAMBDA == 900
    with limited(RESERVED + 100):
        assert sockets_at_most(10_000) == (RESERVED + 100) // 2
        assert sockets_at_most(1) == 1


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10_000),
        ((1_024, 500_000), 900),
        ((1, 1), 1),
        ((0, 0), 1),
    ],
    ids=["no limit", "the hard limit is larger", "one", "none"],
)
def test_the_soft_limit_counts(limits: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit as many as are wanted, and never no socket."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits)
    assert sockets_at_most(10_000) == most


@pytest.mark.parametrize(("number", "lacks"), [(EMFILE, True), (ENFILE, True), (EACCES, False), (ECONNREFUSED, False)])
def test_the_process_or_the_machine_may_lack_descriptors(number: int, *, lacks: bool) -> None:
    """Other errors have other causes."""
    assert lacks_descriptors(OSError(number, "no")) == lacks


def test_a_process_without_descriptors_knows_it() -> None:
    """Exhausted with none left, and not with one."""
    with all_but(0):
        assert exhausted()
    with all_but(1):
        assert not exhausted()


async def test_more_posts_than_descriptors_are_all_delivered_and_some_stay_free() -> None:
    """Five hundred posts at once where 224 descriptors are allowed: each arrives, and the reserve is not touched."""
    with (
        gateway_process(credentials=CREDENTIALS, region="us-east-1") as gateway,
        limited(RESERVED + 100),
    ):
        async with opened("direct", gateway.endpoint, "", max_sockets=10_000, timeout=5) as transport:
            assert await post_all(transport, [(f"{number}=", b"{}") for number in range(500)]) == [None] * 500
            assert isinstance(transport, DirectTransport)
            assert transport.pool.opened <= (RESERVED + 100) // 2
            assert not exhausted()


async def test_posts_go_on_over_the_sockets_there_are() -> None:
    """Descriptors for three sockets only: sixty posts at once are all delivered over those."""
    with gateway_process(credentials=CREDENTIALS, region="us-east-1", latency=0.005) as gateway:
        async with opened("direct", gateway.endpoint, "", max_sockets=50, timeout=5) as transport:
            with all_but(3):
                assert await post_all(transport, [(f"{number}=", b"{}") for number in range(60)]) == [None] * 60
        assert gateway.counters().sockets_opened <= 3


@pytest.mark.parametrize("tls", [False, True])
async def test_idle_sockets_are_given_back_where_they_are_needed(*, tls: bool) -> None:
    """One pool's idle sockets hold the last descriptors: another pool's post is delivered with one of those."""
    with gateway_process(credentials=CREDENTIALS, region="us-east-1", tls=tls) as gateway:
        async with (
            opened("direct", gateway.endpoint, gateway.ca_file, max_sockets=20, timeout=5) as rich,
            opened("direct", gateway.endpoint, gateway.ca_file, max_sockets=5, timeout=5) as poor,
        ):
            await post_all(rich, [(f"{number}=", b"{}") for number in range(20)])
            await rich.end()
            with all_but(0):
                assert await post_all(poor, [(f"{number}=", b"{}") for number in range(20)]) == [None] * 20
            assert "0 busy, 0 idle" in repr(rich)
            assert await post_all(rich, [("a=", b"{}")]) == [None]
