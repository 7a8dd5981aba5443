"""Frames: each message once, in order, within the bytes; and made once for everybody in the same place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_relay.wire.frames import FRAME_BYTES, Frame, FrameCache, Frames
from async_relay.wire.messages import MAX_POST_BYTES, Message


def of_sizes(*sizes: int) -> tuple[Message, ...]:
    """Messages with bodies of exactly so many bytes (9 and more), each another."""
    return tuple(_of_size(at, size) for at, size in enumerate(sizes))


def _of_size(at: int, size: int) -> Message:
    message = Message.encode({"n": at, "x": ""})
    room = size - len(message.body)
    return Message.encode({"n": at, "x": "x" * room}) if room >= 0 else Message.encode({"n": at})


def everything(messages: Sequence[Message]) -> int:
    return (1 << len(messages)) - 1


def walk(frames: Frames, left: int) -> Iterator[Frame]:
    """All the frames of a client that takes each as it comes."""
    while left:
        frame = frames.next(left)
        yield frame
        left = left >> frame.end << frame.end


SIZES = st.lists(st.one_of(st.integers(14, 80), st.integers(14, 700)), min_size=1, max_size=30)


@given(SIZES, st.integers(0, 2**30 - 1), st.integers(2, 1_000))
def test_whatever_is_left_goes_out_once_in_order_within_the_bytes(sizes: list[int], some: int, most: int) -> None:
    """Whatever the sizes, the start, who may see what, and the bytes of a frame."""
    messages = of_sizes(*sizes)
    left = some & everything(messages)
    found = list(walk(Frames(messages, most), left))
    sent = [at for frame in found for at in frame.positions]
    assert sent == [at for at in range(len(messages)) if left >> at & 1]
    for frame in found:
        inside = [messages[at] for at in frame.positions]
        assert inside, "a frame is never empty"
        assert len(frame.post.body) <= most or len(inside) == 1
        payload = json.loads(frame.post.body)
        assert (payload if len(inside) > 1 else [payload]) == [message.payload for message in inside]
        assert frame.post.digest == sha256(frame.post.body).hexdigest()
    for frame, following in pairwise(found):
        more = [*frame.positions, following.positions[0]]
        assert len(messages_joined(messages, more)) > most, "there was no room for one more"


def messages_joined(messages: Sequence[Message], positions: Sequence[int]) -> bytes:
    return b"[" + b",".join(messages[at].body for at in positions) + b"]"


@given(SIZES, st.lists(st.integers(0, 2**30 - 1), min_size=1, max_size=8), st.integers(2, 1_000), st.integers(1, 9))
def test_a_small_cache_changes_nothing_but_what_is_made_twice(
    sizes: list[int], masks: list[int], most: int, kept: int
) -> None:
    """However few frames are remembered, everybody gets the same bytes."""
    messages = of_sizes(*sizes)
    roomy, narrow = Frames(messages, most), Frames(messages, most, FrameCache(300, kept))
    for mask in masks:
        left = mask & everything(messages)
        assert list(walk(roomy, left)) == list(walk(narrow, left))


def test_as_many_as_fit_to_the_byte() -> None:
    """Two messages with brackets and a comma fill a frame exactly; with one byte less there is room for one."""
    messages = of_sizes(20, 30, 40)
    size = len(messages_joined(messages, [0, 1]))
    assert size == 20 + 30 + 3
    assert Frames(messages, size).next(0b111).positions == (0, 1)
    assert Frames(messages, size).next(0b111).post.body == messages_joined(messages, [0, 1])
    assert Frames(messages, size - 1).next(0b111).positions == (0,)


@pytest.mark.parametrize("size", [20, 21, 500])
def test_a_single_message_goes_as_it_is(size: int) -> None:
    """The very object that goes to clients that take no frames: alone, without room for brackets, or too large."""
    messages = of_sizes(size, 20)
    frame = Frames(messages, 21).next(0b11)
    assert frame.post is messages[0]
    assert frame.end == 1
    assert Frames(messages, 1_000).next(0b10).post is messages[1]


def test_a_frame_leaves_out_what_its_client_does_not_get() -> None:
    """And its end is behind the last message in it: what follows is looked at when the next frame is made."""
    messages = of_sizes(*[20] * 6)
    frame = Frames(messages, 200).next(0b01011)
    assert frame.positions == (0, 1, 3)
    assert frame.end == 4


def test_everybody_in_the_same_place_gets_the_same_object() -> None:
    """Encoded and hashed once, whatever it was that led there."""
    messages = of_sizes(*[40] * 10)
    frames = Frames(messages, 130)
    first = frames.next(everything(messages))
    assert first.positions == (0, 1, 2)
    assert frames.next(everything(messages)) is first
    # Another client, who may see less behind this frame: nothing in it is different.
    assert frames.next(0b0000100111) is first
    assert frames.next(0b0000100111).post.body is first.post.body


def test_jobs_that_share_a_cache_get_their_own_messages() -> None:
    """The same positions of two jobs are not the same frame."""
    cache = FrameCache()
    one, other = of_sizes(30, 30), of_sizes(40, 40)
    first, second = Frames(one, 500, cache).next(0b11), Frames(other, 500, cache).next(0b11)
    assert first.post.body == messages_joined(one, [0, 1])
    assert second.post.body == messages_joined(other, [0, 1])
    assert repr(cache) == "<2 frames of 146 bytes>"


def test_what_is_remembered_is_bounded_in_bytes_and_in_number() -> None:
    """The frames made first are forgotten first, and a single message takes no bytes."""
    messages = of_sizes(*[50] * 8)
    cache = FrameCache(most_bytes=310, most_frames=4)
    frames = Frames(messages, 103, cache)
    made = list(walk(frames, everything(messages)))
    assert [frame.positions for frame in made] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert (cache.bytes, repr(cache)) == (309, "<3 frames of 309 bytes>")
    assert frames.next(0b11000000) is made[3]
    assert frames.next(0b11) is not made[0]
    for at in range(8):
        frames.next(1 << at)
    assert repr(cache) == "<4 frames of 0 bytes>"


def test_a_hundred_messages_of_600_bytes_are_two_posts() -> None:
    """The default frame: one unit of API Gateway's meter each."""
    messages = of_sizes(*[600] * 100)
    found = list(walk(Frames(messages), everything(messages)))
    assert [len(frame.positions) for frame in found] == [54, 46]
    assert all(len(frame.post.body) <= FRAME_BYTES for frame in found)


def test_a_full_frame_is_metered_as_one_post() -> None:
    """32 KB are 32,768 bytes to API Gateway, and it takes four times as much."""
    messages = of_sizes(*[1_000] * 31, FRAME_BYTES - 31 * 1_001 - 2)
    frame = Frames(messages).next(everything(messages))
    assert len(frame.post.body) == FRAME_BYTES == 32 * 1_024
    assert -(-len(frame.post.body) // (32 * 1_024)) == 1
    assert 4 * FRAME_BYTES == MAX_POST_BYTES


def test_as_many_tiny_messages_fit_as_their_bytes_say() -> None:
    """Thousands in a frame, each third one not for this client."""
    frames, wanted = Frames(of_sizes(*[20] * 10_000), MAX_POST_BYTES), [at for at in range(10_000) if at % 3]
    first, second = walk(frames, sum(1 << at for at in wanted))
    assert list(first.positions + second.positions) == wanted
    assert len(first.positions) == (MAX_POST_BYTES - 1) // 21


def test_frames_say_in_the_log_what_they_are() -> None:
    assert repr(Frames(of_sizes(20, 20))) == "<2 messages in frames of 32,768 bytes at most>"
