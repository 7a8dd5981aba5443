"""The gateway's rules: the order in which a post is judged, and what is counted."""

from __future__ import annotations

import asyncio

import pytest
from transports import opened, post, post_all

from async_relay.errors import Gone, Throttled, TooLarge
from async_relay.testing import Answer, Gateway, RateLimit


async def test_the_accounts_limit_comes_before_the_clients_script() -> None:
    """Whatever a client would answer: beyond the rate it is 429, which costs it no turn; nothing arrives."""
    async with Gateway(rate_limit=RateLimit(rate=0.001, burst=1)) as gateway:
        gateway.play([410, 200], "gone=")
        async with opened("direct", gateway.endpoint, "") as transport:
            assert await post(transport, "a=") is None
            for connection_id in ("a=", "gone="):
                assert isinstance(await post(transport, connection_id), Throttled)
            gateway.limit(None)
            assert isinstance(await post(transport, "gone="), Gone)
        assert dict(gateway.received) == {"a=": [b"{}"]}
        assert gateway.counters().arrived == 1


async def test_a_message_that_is_too_large_costs_no_place_in_the_rate() -> None:
    """The size is looked at first; one of just the size passes."""
    async with Gateway(rate_limit=RateLimit(rate=0.001, burst=1), max_body=10) as gateway:
        async with opened("direct", gateway.endpoint, "") as transport:
            assert isinstance(await post(transport, "a=", b"x" * 11), TooLarge)
            assert await post(transport, "a=", b"x" * 10) is None
        assert gateway.received == {"a=": [b"x" * 10]}


async def test_clearing_keeps_the_posts_in_flight() -> None:
    """Three are under way when the numbers are cleared: they are in flight still, and the most so far."""
    async with Gateway(Answer(delay=0.2)) as gateway, opened("direct", gateway.endpoint, "") as transport:
        posts = asyncio.ensure_future(post_all(transport, [(f"{at}=", b"{}") for at in range(3)]))
        await asyncio.sleep(0.1)
        gateway.clear()
        assert (gateway.in_flight, gateway.most_in_flight) == (3, 3)
        assert await posts == [None] * 3
        assert (gateway.in_flight, gateway.most_in_flight) == (0, 3)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_says_no_length(status: int) -> None:
    """RFC 9110, 8.6: a 204 must not have one."""
    head = Answer(status).encode().lower()
    assert b"content-length" not in head
    assert head.endswith(b"\r\n\r\n")
