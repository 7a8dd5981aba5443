"""Clients that are cut beside one that never is: their lines, what tells them apart, and a short soak."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from relay_with_feed import Relay, running

from async_relay.wire.incidents import format_item
from demo import comparison as module
from demo import watchers
from demo.comparison import STEADY, Comparison, comparison, differences, faults
from demo.cuts import Line, line_to
from demo.errors import DemoError
from demo.feed import EVERY_TENANT, TENANTS, Change, Clock, Marker, changes
from demo.issuer import Issuer
from demo.ledger import Ledger
from demo.watchers import Watcher, node


async def publish(relay: Relay, ledger: Ledger, change: Change) -> None:
    """Note that it is written, and send what the relay would make of it."""
    ledger.wrote(change, [], 0.0)
    payload = format_item(change.item, event_id=f"event-{len(ledger.writes)}", sequence=str(len(ledger.writes)))
    assert payload is not None
    await relay.publish(**payload)


@asynccontextmanager
async def compared(*, soak: bool = False) -> AsyncIterator[tuple[Relay, Ledger, Comparison]]:
    async with (
        running() as (relay, url),
        comparison(url, Issuer("http://127.0.0.1:1"), random.Random(1), [EVERY_TENANT] * 2, soak=soak) as clients,
    ):
        yield relay, Ledger(), clients


async def test_a_short_soak_tells_nobody_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Python, and in Node where there is one; they are cut in handshakes and while they catch up too."""
    monkeypatch.setattr(module, "_MEAN_SECONDS", 0.7)
    async with compared(soak=True) as (relay, ledger, clients):
        clients.cut_all()
        async with clients.being_cut():
            for change in islice(changes(1, Clock()), 120):
                await publish(relay, ledger, change)
                await asyncio.sleep(0.02)
        assert await clients.complaints(ledger) == []
        assert {watcher.name for watcher in clients.cut} >= {"cut-client-1", "cut-client-2"}
        assert (node() is not None) == ("cut-client-in-node" in clients.names)
        assert sum(watcher.caught_up for watcher in clients.cut) > 0
        assert len(clients.cut[0].got) == len(clients.steady.got) == 120


async def test_what_the_feed_loses_or_has_twice_is_a_complaint_about_those_who_were_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so is a state that is not the one everybody else has."""
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 2.0)
    first, *rest = islice((each for each in changes(1, Clock()) if "action" in each.item), 3)
    incident = next(each for each in changes(2, Clock()) if "incident_id" in each.item)
    async with compared() as (relay, ledger, clients):
        await publish(relay, ledger, first)
        clients.cut_all()
        for change in (*rest, incident):
            await publish(relay, ledger, change)
        relay.messages[1] = relay.messages[0] | {"event_id": "another"}
        relay.messages[3] |= {"resource": "another"}
        problems = await clients.complaints(ledger)
        for name in ("cut-client-1", "cut-client-2"):
            about = [each.removeprefix(f"{name} ") for each in problems if each.startswith(f"{name} ")]
            assert about == [
                f"lacks 1 of 4 messages, the first of them {rest[0].marker}",
                f"got {first.marker} 2 times",
            ]
            [other] = [each for each in problems if each.startswith(f"{name}, which was cut, shows 1 incidents")]
            assert f"otherwise than {STEADY}" in other
        assert len(problems) == 6


async def test_a_client_that_was_never_cut_proves_nothing() -> None:
    """It is named."""
    async with compared() as (relay, ledger, clients):
        for change in islice(changes(1, Clock()), 3):
            await publish(relay, ledger, change)
        clients.cut[0].line.cut()  # type: ignore[union-attr]
        assert await clients.complaints(ledger) == ["cut-client-2 was never cut, so this says nothing about it"]


async def test_handshakes_are_spared_where_they_should_be() -> None:
    """A client that has no connection is not cut."""
    line = Line("127.0.0.1", 9, random.Random(1))
    cut: list[str] = []
    line.cut = lambda: cut.append(watcher.state)  # type: ignore[method-assign]
    watcher = Watcher("a", EVERY_TENANT, line)
    for state in ("connecting", "offline", "catching up", "live"):
        watcher.is_now(state)
        Comparison(watcher, [watcher], random.Random(1), anytime=False).cut_all()
    assert cut == ["catching up", "live"]
    watcher.is_now("connecting")
    Comparison(watcher, [watcher], random.Random(1), anytime=True).cut_all()
    assert cut[2:] == ["connecting"]


def live(*got: Marker, tenant: str = EVERY_TENANT) -> Watcher:
    watcher = Watcher("a", tenant, got=list(got))
    watcher.is_now("live")
    return watcher


A, B = Marker("INC-1", "OPEN", "1"), Marker("INC-1", "RESOLVED", "2")


def test_who_has_all_and_is_live_has_no_fault() -> None:
    """Whatever the order: what was missed comes after what is live, from another shard of the stream."""
    assert list(faults(live(B, A), [A, B])) == []


def test_who_is_away_refused_or_lost_its_place_is_at_fault() -> None:
    """Even with all messages."""
    watcher = live(A)
    watcher.gaps = 2
    assert list(faults(watcher, [A])) == ["a was told 2 times that what it missed can no longer be had"]
    watcher.gaps = 0
    watcher.is_now("refused", "there is no token")
    assert list(faults(watcher, [A])) == ["a did not come back: it is refused there is no token"]


def test_of_pictures_every_state_counts() -> None:
    """One that is missing, one too many and one that differs."""
    reference = {"INC-1": {"status": "OPEN"}, "INC-2": {"status": "OPEN"}}
    assert list(differences(live(), reference, reference)) == []
    [other] = differences(live(), {"INC-2": {"status": "RESOLVED"}, "INC-3": {}}, reference)
    assert other.startswith(
        f"a, which was cut, shows 3 incidents otherwise than {STEADY}, which was not: INC-1 is missing"
    )


def test_a_tenants_client_is_held_to_its_tenants_part() -> None:
    """Of the messages and of the picture."""
    ledger, written = Ledger(), list(islice(changes(3, Clock()), 40))
    for change in written:
        ledger.wrote(change, [], 0.0)
    watcher = Watcher("a", TENANTS[0])
    own = [change for change in written if change.tenant == TENANTS[0]]
    assert 0 < len(own) < len(written)
    assert module._expected(watcher, ledger) == [change.marker for change in own]
    picture = {change.item["incident_id"]: change.item for change in written if "incident_id" in change.item}
    assert set(module._as_seen_by(watcher, picture, ledger)) == {
        change.item["incident_id"] for change in own if "incident_id" in change.item
    }


def test_what_came_while_catching_up_is_counted() -> None:
    """By the state that the client is in."""
    watcher = Watcher("a", EVERY_TENANT)
    for state in ("catching up", "live", "catching up"):
        watcher.is_now(state)
        watcher.told({"kind": "remediation"})
    assert (len(watcher.got), watcher.caught_up) == (3, 2)


def test_the_lines_of_one_client_and_of_many() -> None:
    """How it stands, and what it comes to."""
    line = Line("127.0.0.1", 9, random.Random(1))
    line.cuts = 1
    watcher = Watcher("a", EVERY_TENANT, line)
    one = Comparison(live(A, B), [watcher], random.Random(1), anytime=False)
    watcher.told({})
    assert one.in_words() == (
        "A client cut every few seconds: 1 cuts so far, now connecting; 1 messages, 0 of them while catching up "
        "(2 came to the one that is never cut)"
    )
    assert one.in_one_sentence().startswith("A client that was cut once came back without help")
    line.cuts = 1_200
    many = Comparison(live(A, B), [watcher, live(A)], random.Random(1), anytime=False)
    assert "2 clients cut every few seconds: 1,200 cuts so far, now 1 of them live; 2 messages" in many.in_words()
    assert many.in_one_sentence().startswith("2 clients that were cut 1,200 times came back")


async def test_who_never_gets_through_ends_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one sentence."""
    monkeypatch.setattr(watchers, "_LIVE_SECONDS", 0.01)
    with pytest.raises(DemoError, match=r"a did not get through in 0\.01 seconds: it is connecting"):
        await Watcher("a", EVERY_TENANT).until_live()


async def test_without_a_node_that_is_new_enough_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An old one, and one that says nothing, are none."""
    for version, found in (("v20.1.0", False), ("", False), ("v22.0.0", True)):
        program = tmp_path / "node"
        program.write_text(f"#!/bin/sh\necho {version}\n")
        program.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", "/nowhere:/bin")
        assert (await asyncio.to_thread(node) == program) is found


class Server:
    """Answers each line with the same line, and notes when a client has gone."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(line)
        except OSError:
            pass
        finally:
            self.gone.set()
            writer.close()


@asynccontextmanager
async def on_a_line() -> AsyncIterator[tuple[Server, Line, str]]:
    server = Server()
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with line_to(f"ws://127.0.0.1:{port}/prod?clientId=a", random.Random(1)) as (url, line):
            assert url.startswith("ws://127.0.0.1:")
            assert url.endswith("/prod?clientId=a")
            yield server, line, url


def port_of(url: str) -> int:
    found = urlsplit(url).port
    assert found is not None
    return found


async def test_a_line_carries_both_ways_until_it_is_cut() -> None:
    """The client is reset at once, and the server hears of it later."""
    async with on_a_line() as (server, line, url):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
        line.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert not server.gone.is_set()
        await asyncio.wait_for(server.gone.wait(), 5)
        writer.close()
        assert line.cuts == 1


async def test_a_line_without_a_connection_cannot_be_cut() -> None:
    """It is not counted."""
    async with on_a_line() as (server, line, url):
        line.cut()
        _reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        writer.write(b"hello\n")
        writer.close()
        await asyncio.wait_for(server.gone.wait(), 5)
        assert line.cuts == 0


async def test_a_line_to_nobody_ends_its_clients() -> None:
    """And nothing is left of it."""
    before = asyncio.all_tasks()
    async with line_to("ws://127.0.0.1:9/prod", random.Random(1)) as (url, _line):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        assert await reader.read() == b""
        writer.close()
    async with on_a_line() as (server, _line, url):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(url))
        writer.write(b"hello\n")
        assert await reader.readline() == b"hello\n"
    await asyncio.wait_for(server.gone.wait(), 5)
    writer.close()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
