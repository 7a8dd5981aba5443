"""Opening a socket: what TLS is told, and what is done where no file descriptor is left."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from errno import ECONNREFUSED, EMFILE
from socket import gaierror, socket
from typing import Any

import pytest

from async_relay.http import opening
from async_relay.http.opening import Endpoint, open_socket

HTTPS = Endpoint.of("https://localhost:8443/prod", ssl.create_default_context())
HTTP = Endpoint.of("http://localhost:8080/prod", None)


class Pool:
    """A pool, as a holder of descriptors."""

    def __init__(self, loop: Any = None, *, serving: bool = False) -> None:
        self.loop = loop
        self.serving = serving
        self.asked = 0

    def give_back(self) -> int:
        self.asked += 1
        return 1


@pytest.fixture(autouse=True)
def no_other_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "holders", set())


@pytest.fixture
def connected() -> Iterator[socket]:
    with socket() as connection:
        yield connection


class Dialling:
    """Raises one after another, and then connects."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, connection: socket | None, *errors: OSError) -> None:
        self.calls = 0
        self._errors = list(errors)
        self._connection = connection
        monkeypatch.setattr(opening, "dial", self.dial)

    async def dial(self, _host: str, _port: int) -> socket | None:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0) if len(self._errors) > 1 or self._connection else self._errors[0]
        return self._connection


class Creating:
    """Notes what the loop is asked for, and raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.asked: dict[str, Any] = {}
        self._error = error
        monkeypatch.setattr(type(asyncio.get_running_loop()), "create_connection", self._create)

    async def _create(self, *_positional: Any, **options: Any) -> Any:
        self.asked = options
        raise self._error


@pytest.mark.parametrize(("endpoint", "name", "seconds"), [(HTTPS, "localhost", 1.5), (HTTP, None, None)])
async def test_a_handshake_has_a_name_and_an_end(
    monkeypatch: pytest.MonkeyPatch, connected: socket, endpoint: Endpoint, name: str | None, seconds: float | None
) -> None:
    """TLS checks the host's name without its port, and gives up when the post would; plain HTTP has neither."""
    Dialling(monkeypatch, connected)
    creating = Creating(monkeypatch, ConnectionResetError())
    with pytest.raises(ConnectionResetError):
        await open_socket(endpoint, asyncio.Protocol, 1.5, Pool())
    assert (creating.asked["server_hostname"], creating.asked["ssl_handshake_timeout"]) == (name, seconds)
    assert creating.asked["ssl"] is endpoint.tls


@pytest.mark.parametrize("error", [asyncio.CancelledError(), TimeoutError(), ssl.SSLError()])
async def test_a_connection_that_is_given_up_is_cut(
    monkeypatch: pytest.MonkeyPatch, connected: socket, error: BaseException
) -> None:
    """Where the handshake had just ended there is a transport already, and it is aborted."""

    class Transport:
        aborted = False

        def abort(self) -> None:
            self.aborted = True

    class Protocol(asyncio.Protocol):
        transport = Transport()

    Dialling(monkeypatch, connected)
    Creating(monkeypatch, error)
    with pytest.raises(type(error)):
        await open_socket(HTTPS, Protocol, 1.0, Pool())
    assert Protocol.transport.aborted


async def test_idle_sockets_of_this_loop_alone_are_closed(monkeypatch: pytest.MonkeyPatch, connected: socket) -> None:
    """Every pool of the loop gives its own back; another thread's must not be touched from here."""
    loop = asyncio.get_running_loop()
    ours, also_ours, anothers = Pool(loop), Pool(loop), Pool(object())
    opening.holders.update({ours, also_ours, anothers})
    dialling = Dialling(monkeypatch, connected, OSError(EMFILE, "too many open files"))
    assert await opening._dial(HTTP, Pool(loop)) is connected
    assert [each.asked for each in (ours, also_ours, anothers)] == [1, 1, 0]
    assert dialling.calls == 2


@pytest.mark.parametrize("lacking", [True, False])
async def test_a_name_that_cannot_be_looked_up_may_lack_a_descriptor(
    monkeypatch: pytest.MonkeyPatch, connected: socket, *, lacking: bool
) -> None:
    """The resolver does not say so: it is asked again, and nobody's idle sockets are closed for a wrong name."""
    monkeypatch.setattr(opening, "exhausted", lambda: lacking)
    loop = asyncio.get_running_loop()
    other = Pool(loop)
    opening.holders.add(other)
    dialling = Dialling(monkeypatch, connected, gaierror(-3, "Temporary failure in name resolution"))
    assert await opening._dial(HTTP, Pool(loop)) is connected
    assert (dialling.calls, other.asked) == (2, lacking)


async def test_a_name_that_nobody_knows_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """After five look-ups with descriptors free."""
    monkeypatch.setattr(opening, "exhausted", lambda: False)
    dialling = Dialling(monkeypatch, None, gaierror(-2, "Name or service not known"))
    with pytest.raises(gaierror, match="not known"):
        await asyncio.wait_for(opening._dial(HTTP, Pool()), 5)
    assert dialling.calls == 5


@pytest.mark.parametrize(("number", "serving"), [(EMFILE, True), (ECONNREFUSED, False)])
async def test_what_need_not_be_waited_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch, number: int, *, serving: bool
) -> None:
    """Other sockets serve, or it is not for want of descriptors."""
    dialling = Dialling(monkeypatch, None, OSError(number, "no"))
    with pytest.raises(OSError, match="no"):
        await asyncio.wait_for(opening._dial(HTTP, Pool(serving=serving)), 1)
    assert dialling.calls == 1


async def test_who_waits_for_a_descriptor_does_not_spin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tries a second at most, until the caller has had enough."""
    dialling = Dialling(monkeypatch, None, OSError(EMFILE, "too many open files"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(opening._dial(HTTP, Pool()), 0.1)
    assert 2 <= dialling.calls <= 12
