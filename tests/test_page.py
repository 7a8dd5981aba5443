"""The demo's page: what it shows of what it receives, how it connects again, and how it is served."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from servers import NODE_SERVERS, program

from demo import page
from demo.errors import DemoError

URL = "wss://abc.example:8443/prod"
Step = Mapping[str, Any]


def play(*steps: Step, chance: float = 1.0, shown: int = 1_000, refused: Sequence[int] = ()) -> list[dict[str, Any]]:
    """The page after each of the last ``shown`` steps.

    ``chance`` is what every random number is, ``refused`` which of its fetches of the config fail.
    """
    node = program("node")
    if node is None:
        pytest.skip("the page's script needs Node.js, which neither the dev extra nor this machine has")
    done = subprocess.run(  # noqa: S603 - our own command
        [node, NODE_SERVERS / "page.mjs", page._PAGE],
        input=json.dumps({"chance": chance, "shown": shown, "refused": refused, "steps": steps}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    states: list[dict[str, Any]] = json.loads(done.stdout)
    return states


def receive(message: Any) -> Step:
    return {"receive": message if isinstance(message, str) else json.dumps(message)}


def incident(name: Any, sequence: str, **more: Any) -> Step:
    return receive({"kind": "incident_update", "incident_id": name, "sequence": sequence, **more})


def remediation(action: str, sequence: str, **more: Any) -> Step:
    return receive({"kind": "remediation", "action": action, "sequence": sequence, **more})


def column(rows: Sequence[Sequence[Sequence[str]]], at: int) -> list[str]:
    return [row[at][0] for row in rows]


# ── messages ────────────────────────────────────────────────────────────────────────────────────


def test_an_incident_shows_its_newest_state_whatever_came_last() -> None:
    """By sequence, which has more digits than a number holds; what a message leaves out keeps its value."""
    long = "49600000000000000000000000000000000000"
    *_, before, older, newer = play(
        {"open": True},
        incident("i-1", f"{long}2", status="OPEN", resource="arn:x", updated_at="2026-01-01T10:11:12Z"),
        incident("i-1", f"{long}1", status="OLDER"),
        incident("i-1", f"{long}3", status="RESOLVED"),
    )
    assert before["incidents"] == older["incidents"]
    assert older["counts"] == "2 messages, 0 repeated, 1 older than what was shown"
    assert [cell[0] for cell in newer["incidents"][0]] == ["i-1", "RESOLVED", "", "", "arn:x", "10:11:12"]
    assert [cell[1] for cell in newer["incidents"][0]] == ["", "good", "", "", "", ""]


def test_the_incident_that_changed_last_is_on_top() -> None:
    *_, found = play(incident("a", "1"), incident("b", "2"), incident("c", "3"), incident("a", "4"))
    assert column(found["incidents"], 0) == ["a", "c", "b"]


def test_a_repeated_message_changes_nothing() -> None:
    """A retry may repeat one: it is counted, and shown once."""
    again = remediation("stop", "5", event_id="e-1")
    *_, found = play(again, again, remediation("stop", "6", event_id="e-2"), remediation("stop", "7", event_id=""))
    assert len(found["remediations"]) == 3
    assert found["counts"].startswith("4 messages, 1 repeated, 0 older")


def test_remediations_stand_newest_first_whatever_order_they_came_in() -> None:
    *_, found = play(*(remediation(name, name) for name in ("10", "9", "12", "11", "100")))
    assert column(found["remediations"], 1) == ["100", "12", "11", "10", "9"]


def test_the_page_keeps_the_newest_of_everything() -> None:
    """Five hundred incidents, two hundred remediations, and five thousand ids of events."""
    steps = [incident(f"i-{at}", f"{at}", event_id=f"i-{at}") for at in range(510)]
    steps += [remediation(f"r-{at}", f"{at}", event_id=f"r-{at}") for at in range(210)]
    steps += [receive({"kind": "other", "event_id": f"o-{at}"}) for at in range(5_000)]
    (found,) = play(*steps, shown=1)
    assert column(found["incidents"], 0) == [f"i-{at}" for at in reversed(range(10, 510))]
    assert column(found["remediations"], 1) == [f"r-{at}" for at in reversed(range(10, 210))]
    assert found["events"] == 5_000


@pytest.mark.parametrize(
    "frame", ["", "{", "null", "7", '"text"', "[]", "{}", '{"kind":"incident_update"}', "[[[[1]]]]"]
)
def test_an_odd_frame_stops_nothing(frame: str) -> None:
    """Whatever comes, the next message is shown."""
    odd, after = play(receive(frame), incident("i-1", "1"))
    assert (odd["error"], after["error"]) == (None, None)
    assert column(after["incidents"], 0)[0] == "i-1"


def test_what_is_received_is_text() -> None:
    """Markup, keys of every object's own, and texts without end are shown as text, and cut."""
    hostile = "<img src=x onerror=alert(1)>"
    (found,) = play(incident(hostile, "1", status="__proto__", severity={"a": [hostile]}, resource="x" * 9_999))
    (cells,) = found["incidents"]
    assert [cell[0] for cell in cells] == [
        hostile,
        "__proto__",
        json.dumps({"a": [hostile]}, separators=(",", ":")),
        "",
        "x" * 300,
        "",
    ]
    assert all(len(cell) < 3 or cell[2] is None for cell in cells)
    assert {cell[1] for cell in cells} == {""}


# ── the connection ──────────────────────────────────────────────────────────────────────────────

OPEN, CLOSE = {"open": True}, {"close": True}


def wait(seconds: float) -> Step:
    return {"wait": seconds}


def test_the_page_says_how_it_is_connected() -> None:
    """Connecting, live, waiting with the seconds that are left, and connecting again."""
    opened, closed, waited, again = play(OPEN, CLOSE, wait(0.5), wait(0.6))
    assert opened["status"] == ["live", "Live"]
    assert closed["status"] == ["waiting", "Disconnected; next try in 1 s"]
    assert waited["sockets"] == ["wss://api/config.json?token=1"]
    assert again["status"] == ["connecting", "Connecting"]


def test_the_page_comes_with_a_new_token_each_time() -> None:
    """The one of before may have ended, which is why the connection did."""
    *_, again = play(OPEN, CLOSE, wait(1.1))
    assert again["sockets"] == ["wss://api/config.json?token=1", "wss://api/config.json?token=2"]


def test_a_config_that_cannot_be_had_is_asked_for_again() -> None:
    """As long as a connection that failed would be waited for."""
    first, second, third = play(wait(0), wait(1.01), wait(2.01), refused=[1, 2])
    assert first["status"] == ["waiting", "Disconnected; next try in 1 s"]
    assert [len(state["sockets"]) for state in (first, second, third)] == [0, 0, 1]
    assert second["status"] == ["waiting", "Disconnected; next try in 2 s"]


def tries(*steps: Step, chance: float = 1.0) -> list[int]:
    return [len(state["sockets"]) for state in play(*steps, chance=chance)]


def test_the_pause_doubles_up_to_a_quarter_of_a_minute() -> None:
    """A second, two, four, eight, and then fifteen for ever, of which each page takes its own part by chance."""
    steps = [step for pause in (1, 2, 4, 8, 15, 15, 15) for step in (CLOSE, wait(pause - 0.01), wait(0.02))]
    found = tries(*steps)
    assert found == [count for at in range(7) for count in (at + 1, at + 1, at + 2)]
    assert tries(CLOSE, wait(0.24), wait(0.02), chance=0.25) == [1, 1, 2]


def test_a_connection_that_lasts_makes_the_next_pause_short_again() -> None:
    """After five seconds; one that ends before was none."""
    failing = [step for pause in (1, 2, 4) for step in (CLOSE, wait(pause + 0.01))]
    assert tries(*failing, OPEN, wait(6), CLOSE, wait(1.01))[-1] == 5
    assert tries(*failing, OPEN, wait(4), CLOSE, wait(7.9), wait(0.2))[-2:] == [4, 5]
    assert tries(*failing, OPEN, wait(4), CLOSE, wait(8.1), CLOSE, wait(14.9), wait(0.2))[-2:] == [5, 6]


# ── the server ──────────────────────────────────────────────────────────────────────────────────


def get(address: str) -> tuple[int, Any, str]:
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own server
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def test_the_page_and_its_config_are_all_that_is_served() -> None:
    """Whole, never kept, with a policy that lets the page talk to the API alone."""
    tokens = map("token-{}".format, count())
    with page.served(URL, lambda: next(tokens), 0) as address:
        status, headers, html = get(f"{address}/?from=a-bookmark")
        assert (status, html) == (200, page._PAGE.read_text(encoding="utf-8"))
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"] == page.policy(html, URL)
        assert "connect-src 'self' wss://abc.example:8443;" in headers["Content-Security-Policy"]
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        status, headers, config = get(f"{address}/config.json")
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert json.loads(config) == {"url": f"{URL}?clientId={page.CLIENT_ID}&access_token=token-0"}
        assert get(f"{address}/config.json")[2].endswith('&access_token=token-1"}')
        assert [get(f"{address}{path}")[0] for path in ("/page.py", "/index.html", "/../page.py")] == [404] * 3


def test_this_machine_alone_can_have_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[Any] = []
    monkeypatch.setattr(page, "ThreadingHTTPServer", lambda where, _handler: bound.append(where))
    page._bind(0, BaseHTTPRequestHandler)
    assert bound == [("127.0.0.1", 0)]


def test_a_port_that_is_taken_is_an_error_only_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever named none has another; whoever named one wants that."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(page, "_PREFERRED_PORT", port)
        with page.served(URL, str, None) as address:
            assert urlsplit(address).port != port
        with pytest.raises(DemoError, match=f"at port {port}"), page.served(URL, str, port):
            pass


def test_the_page_is_one_file() -> None:
    """Its script and style are inside, so that the hashes of the policy cover all that it runs."""
    html = Path(page._PAGE).read_text(encoding="utf-8")
    assert html.count("<script") == html.count("<script>") == 1
    assert " src=" not in html
