"""How many messages meet, and in how many posts a client gets them. Pure.

Rules
- A client that reads arrays gets as many messages in a post as fit ``frame_bytes``; any other gets one.
- Messages meet in a batch of the stream: those of a burst, with those that come while the window is open, up to the
  batch's size. A message alone is a post, whoever reads it.
- A function that posts by itself takes whatever waits on the stream meanwhile: behind, it gathers more, and catches up
  where fuller posts suffice. Workers do not: each batch was handed to them as a job of its own.
- API Gateway meters a post by 32 KB.
"""

from __future__ import annotations

from math import ceil

from ..wire.feed import POSITION_BYTES
from .values import FRAMED_MESSAGE_CPU, POST_CHUNK, Packing, Setup, Traffic

# What is a whole number but for the last bits of a float.
_EXACT = 1e-9
# As much more than just enough: by a thousandth it is not idle for less than nothing.
_MORE = 1.001


def message_bytes(traffic: Traffic, setup: Setup) -> int:
    """The size of a message as it is sent: with its position where there is a feed."""
    return traffic.payload + (POSITION_BYTES if setup.feed else 0)


def in_a_frame(traffic: Traffic, setup: Setup) -> int:
    """How many messages fit one post: each has a comma behind it or the end, and all of them the beginning."""
    return max(1, (setup.frame_bytes - 1) // (message_bytes(traffic, setup) + 1))


def most_in_a_post(traffic: Traffic, setup: Setup) -> int:
    """The same, of one batch."""
    return min(setup.batch, in_a_frame(traffic, setup))


def packed(traffic: Traffic, setup: Setup, messages: float, *, held: float = 0.0, waited: bool = False) -> Packing:
    """So many messages that are served together."""
    full, rest = divmod(messages, setup.batch)
    rest = rest if rest > _EXACT else 0.0
    posts, metered = _framed(traffic, setup, min(messages, float(setup.batch)))
    if full and rest:
        last_posts, last_metered = _framed(traffic, setup, rest)
        posts, metered = full * posts + last_posts, full * metered + last_metered
    elif full:
        posts, metered = full * posts, full * metered
    objects = messages * ceil(message_bytes(traffic, setup) / POST_CHUNK)
    share = traffic.frames
    return Packing(
        messages,
        held,
        share * posts + (1 - share) * messages,
        share * metered + (1 - share) * objects,
        int(full) + bool(rest),
        waited,
    )


def _framed(traffic: Traffic, setup: Setup, messages: float) -> tuple[float, float]:
    """Posts of one batch to a client that reads arrays, and as how many they are metered."""
    most = in_a_frame(traffic, setup)
    full, rest = divmod(messages, most)
    rest = rest if rest > _EXACT else 0.0
    size = message_bytes(traffic, setup)
    metered = full * _metered(size, most) + (_metered(size, ceil(rest)) if rest else 0)
    posts = full + bool(rest)
    # Two and a half messages on average are never three posts.
    return min(posts, messages), metered * min(1.0, messages / posts)


def _metered(size: int, messages: int) -> int:
    return ceil((size if messages == 1 else messages * (size + 1) + 1) / POST_CHUNK)


def gathered(traffic: Traffic, setup: Setup) -> Packing:
    """What a burst and the window bring together: a batch that is full does not wait any longer."""
    if traffic.burst >= setup.batch or not setup.window:
        return packed(traffic, setup, traffic.burst)
    rate = traffic.messages_per_second / setup.stream_shards
    held = min(setup.window, (setup.batch - traffic.burst) / rate)
    return packed(traffic, setup, min(float(setup.batch), traffic.burst + held * rate), held=held)


def behind(traffic: Traffic, setup: Setup, rate: float) -> Packing | None:
    """What a function that posts itself, ``rate`` posts per second at most, gathers while it is behind.

    As many as come while it posts, so that it is never idle; None where no number lets it keep up.
    """
    arrays = traffic.frames * traffic.clients * traffic.messages_per_second
    objects = traffic.deliveries_per_second - arrays
    if not arrays or objects >= rate:
        return None
    # A post of m messages for each client that reads arrays: arrays / m + objects posts per second, less than the rate.
    messages = arrays / (rate - objects) * _MORE
    if messages > most_in_a_post(traffic, setup):
        return None
    already = gathered(traffic, setup)
    return packed(traffic, setup, max(messages, already.messages), held=already.held, waited=True)


def cpu_per_post(setup: Setup, packing: Packing) -> float:
    """CPU time of one post, of as many messages as there are in one on average."""
    more = max(0.0, packing.messages / packing.posts - 1)
    return setup.cpu_per_post * (1 + FRAMED_MESSAGE_CPU * more)
