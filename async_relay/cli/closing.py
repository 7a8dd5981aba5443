"""Closes connections of an API and deletes their rows, side by side, and counts what came of it.

Rules
- A row is deleted once API Gateway has closed its connection (204). Where closing failed the row stays, since it is
  what finds the connection again.
- A 410 says that there is no such connection. As long as nobody is closed it may as well say that the endpoint is
  another API's, so those rows are deleted only after a 204; and never within the first seconds of a connection, whose
  handshake may not be over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import typer
from botocore.config import Config
from botocore.exceptions import ClientError

from async_relay.delivery.retry_policy import HANDSHAKE_MS
from async_relay.http.urls import endpoint_region

from . import account, screen, tables
from .aws_errors import aws_errors
from .failure import FAILED, CommandError
from .pacing import Pacer
from .queues import on_ending
from .tables import KEY

#: Closings side by side; --rate bounds them all together.
THREADS = 8
#: Stop after this many failures and no success: one cause, such as a missing permission, then fails them all.
_FAILURES_BEFORE_STOP = 10
_GONE = 410


class Found(NamedTuple):
    """A connection to close; the times are None where its row has none."""

    connection_id: str
    created_at: int | None = None
    expires_at: int | None = None

    @property
    def description(self) -> str:
        """What its row says of it, for a list."""
        since = f", connected {screen.clock(self.created_at)}" if self.created_at is not None else ""
        return since + (f", token until {screen.clock(self.expires_at * 1_000)}" if self.expires_at is not None else "")

    def is_young(self) -> bool:
        """Whether its handshake may not be over."""
        return self.created_at is not None and time.time() * 1_000 - self.created_at < HANDSHAKE_MS


class Outcome(NamedTuple):
    """What became of one connection; ``problem`` says what could not be done."""

    closed: bool = False
    gone: bool = False
    problem: str = ""


@dataclass(slots=True)
class Closing:
    """Closes connections and deletes their rows, and counts what came of it."""

    rows: Any
    table: str
    gateway: Any
    endpoint: str
    pacer: Pacer
    closed: int = 0
    failed: int = 0
    left: int = 0
    gone: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    interrupted: bool = False

    def close(self, found: Sequence[Found]) -> None:
        """Close all of them, several at a time; Ctrl-C, or failures and nothing else, leave the rest alone."""
        self.left = len(found)
        with (
            ThreadPoolExecutor(THREADS) as pool,
            screen.progress("Closing", len(found)) as advance,
            on_ending(self._interrupt),
        ):
            tries = {pool.submit(self._try, each): each.connection_id for each in found}
            for done in as_completed(tries):
                self._note(tries[done], done.result())
                advance()
            for connection_id in self.gone if self.closed else ():
                self._forget(connection_id)

    def _interrupt(self) -> None:
        self.interrupted = True
        self.stopped.set()

    def _try(self, each: Found) -> Outcome | None:
        """Close one and delete its row; None where it was not tried."""
        if self.stopped.is_set():
            return None
        self.pacer.wait()
        try:
            status = self._delete(each.connection_id)
        except CommandError as error:
            return Outcome(problem=str(error))
        if status != _GONE:
            return self._closed(each.connection_id)
        if each.is_young():
            return Outcome(problem="it may not be connected yet: run the command again in ten seconds")
        return Outcome(gone=True)

    def _closed(self, connection_id: str) -> Outcome:
        try:
            self._forget(connection_id)
        except CommandError as error:
            return Outcome(closed=True, problem=f"closed, but its row is still there: {error}")
        return Outcome(closed=True)

    def _delete(self, connection_id: str) -> int:
        """The status: 204, or 410; raises ``CommandError``."""
        with aws_errors(self.endpoint):
            try:
                answer = self.gateway.delete_connection(ConnectionId=connection_id)
            except ClientError as error:
                answer = error.response
                status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if status == _GONE:
                    return _GONE
                sentence = _SENTENCES.get(status)
                if sentence is None or answer.get("Error", {}).get("Code") in _SIGNATURE:
                    raise
                raise CommandError(sentence.format(endpoint=self.endpoint)) from None
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        return int(status)

    def _forget(self, connection_id: str) -> None:
        """Delete a row; one that is not there counts as deleted."""
        with tables.errors(self.table):
            self.rows.delete_item(TableName=self.table, Key={KEY: {"S": connection_id}})

    def _note(self, connection_id: str, outcome: Outcome | None) -> None:
        if outcome is None:
            return
        self.left -= 1
        self.closed += outcome.closed
        if outcome.gone:
            self.gone.append(connection_id)
        if outcome.problem:
            self.failed += 1
            screen.say(f"{connection_id}  failed: {outcome.problem}")
        if self.failed >= _FAILURES_BEFORE_STOP and not self.closed:
            self.stopped.set()

    def summary(self, total: int) -> str:
        """One line: how many of them were closed, and what became of the others."""
        return (
            f"Closed {self.closed:,} of {total:,}; {len(self.gone):,} were gone already, {self.failed:,} failed, "
            f"{self.left:,} not tried."
        )

    def check(self) -> None:
        """Raise what the exit code says, unless nobody is left who was meant."""
        if self.interrupted:
            raise KeyboardInterrupt
        if self.gone and not self.closed:
            raise CommandError(
                f"{self.endpoint} knows none of them, so it may be another API's: nothing was closed, and the rows are "
                "kept. If it is the right one they have all left, and ttl takes their rows"
            )
        if self.failed or self.left:
            raise typer.Exit(FAILED)


#: What an answer of the API means to whoever sits there; what is about the signature is in ``aws_errors``.
_SENTENCES = {
    400: "{endpoint} knows no such id: connection ids look like L0SM9cOFvHcCIhw=",
    403: (
        "the credentials may not close connections, or {endpoint} is not the API and stage: allow "
        "execute-api:ManageConnections on DELETE/@connections/*"
    ),
    429: "{endpoint} is too busy: run the command again with a lower --rate",
}
_SIGNATURE = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "ExpiredToken",
    "ExpiredTokenException",
)


def connect(endpoint: str) -> Any:
    """The client that closes connections there; raises ``CommandError``."""
    with aws_errors(endpoint):
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=5,
            read_timeout=10,
            max_pool_connections=THREADS,
        )
        named = endpoint_region(endpoint)
        return account.client("apigatewaymanagementapi", config, named=named, endpoint_url=endpoint)
