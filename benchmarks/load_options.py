"""The options of a load test: as values, in words, and checked against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .command import CommandError
from .crowd import KINDS, Latency
from .stage import least_body

_KINDS_IN_WORDS = {
    "gone": "clients that have gone (410)",
    "throttled": "clients with full buffers (429)",
    "erring": "clients that answer 500 or cut",
    "hanging": "clients that do not answer at first",
    "slow": "clients that take a second longer",
}


class Carrier(StrEnum):
    """The transport of the posts: one of the relay's two transports, or the in-memory one of the tests."""

    DIRECT = "direct"
    SDK = "sdk"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    clients: int
    messages: int
    payload: int
    lag: Latency
    shares: Mapping[str, float]
    account_limit: float | None
    duration: float
    churn: float
    concurrency: int
    transport: Carrier
    seed: int
    arrays: float = 0.0
    retry_backoff: float = 1.0
    endpoint: str = ""
    table: str = ""


def in_words(options: Options) -> dict[str, str]:
    """Each option and its value, for people."""
    return dict(_words(options))


def _words(options: Options) -> Iterator[tuple[str, str]]:
    if options.endpoint:
        yield "posts for real to", f"{options.endpoint}, clients of the table {options.table}"
    else:
        yield "clients", f"{options.clients:,}"
        yield "answers after", str(options.lag)
        for kind, share in options.shares.items():
            yield _KINDS_IN_WORDS[kind], f"{share * 100:.4g} %"
        yield "clients that read arrays", f"{options.arrays * 100:.4g} %"
        yield "clients that come or go", f"{options.churn:g} a second"
        yield "the account's limit", f"{options.account_limit:,g} posts a second" if options.account_limit else "none"
        yield "seed", str(options.seed)
    yield "messages a batch", f"{options.messages:,}"
    yield "bytes a message", f"{options.payload:,}"
    yield "batches", f"one after the other for {options.duration:g} s" if options.duration else "one"
    yield "posts in flight at most", str(options.concurrency)
    yield "transport", options.transport.value


def check(options: Options) -> None:
    """Check options against each other; raises ``CommandError``."""
    if options.payload < least_body():
        raise CommandError(f"--payload is {options.payload}; the smallest message has {least_body()} bytes")
    if sum(options.shares.values()) > 1:
        raise CommandError(f"--{', --'.join(KINDS[1:])} are shares of the clients; together they must be at most 1")
    if options.transport is Carrier.MEMORY and options.account_limit:
        raise CommandError("--account-limit is the gateway's, and --transport memory has none: say --account-limit 0")
    if bool(options.endpoint) != bool(options.table):
        raise CommandError("--endpoint and --table belong together: whom to post to stands in the table")
    mocked = any(options.shares.values()) or options.churn or options.account_limit or options.arrays
    if options.endpoint and (mocked or options.transport is Carrier.MEMORY):
        raise CommandError(
            "shares, frames, churn, limits and memory belong to mocked clients; with --endpoint they are real"
        )
