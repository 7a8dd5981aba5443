"""The demo's story: what was there before, attacks, the figures, the buttons, and the gateway they command."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

from async_relay.wire.incidents import format_item
from demo import guarded_server, page
from demo.deliveries import figures
from demo.feed import TENANTS, Change, attack, history, numbers, one
from demo.guarded_server import Gateway
from demo.issuer import Issuer
from demo.ledger import Ledger
from demo.local_aws import LocalAws
from demo.panel import Panel, Tokens

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def past(seed: int = 1, incidents: int = 200) -> list[Change]:
    return list(history(seed, incidents, NOW, numbers(seed)))


def ticking() -> Any:
    ticks = itertools.count()
    return lambda: str(next(ticks))


# ── what happens ────────────────────────────────────────────────────────────────────────────────


def test_the_past_is_incidents_of_the_last_hours_each_in_its_last_state() -> None:
    """None is twice, none from the future, most are resolved and some are not; all are put whole."""
    incidents = [change.item for change in past() if "incident_id" in change.item]
    assert len({item["incident_id"] for item in incidents}) == len(incidents) == 200
    times = [datetime.fromisoformat(item[name]) for item in incidents for name in ("created_at", "updated_at")]
    assert all(NOW - timedelta(hours=7) < time < NOW for time in times)
    assert all(item["created_at"] <= item["updated_at"] for item in incidents)
    statuses = Counter(item["status"] for item in incidents)
    assert set(statuses) == {"OPEN", "INVESTIGATING", "RESOLVED"}
    assert statuses["RESOLVED"] > 150
    assert not any(change.updated for change in past())
    assert all(format_item(change.item, event_id="e", sequence="1") for change in past())


def test_the_past_is_denser_towards_now_and_has_what_was_done_of_late() -> None:
    began = [change.item["created_at"] for change in past() if "incident_id" in change.item]
    assert began == sorted(began)
    assert sum(time > "2026-03-01T11:00" for time in began) > 60
    targets = {change.item["target"] for change in past() if "action" in change.item}
    resources = [item.get("arn") or item.get("resource") or item.get("sg") for item in (c.item for c in past())]
    assert targets
    assert targets <= set(resources)


def test_an_attack_is_one_tenants_and_every_incident_of_it_is_answered_and_resolved() -> None:
    waves = list(attack(1, ticking(), numbers(1)))
    items = [change.item for wave in waves for change in wave]
    assert len({item["tenant"] for item in items}) == 1
    assert {change.item["status"] for change in waves[0]} == {"OPEN"}
    assert len(waves[0]) == 10
    states = Counter(item["status"] for item in items if "incident_id" in item)
    assert states == {"OPEN": 10, "INVESTIGATING": 10, "RESOLVED": 10}
    assert {item["status"] for item in items if "action" in item} >= {"STARTED", "SUCCEEDED"}
    assert {attack_tenant(seed) for seed in range(20)} == set(TENANTS)


def attack_tenant(seed: int) -> str:
    return next(attack(seed, ticking(), numbers(seed)))[0].tenant


def test_an_incident_written_by_hand_is_critical_and_comes_to_its_end() -> None:
    items = [change.item for change in one(3, ticking(), numbers(7))]
    assert (items[0]["severity"], items[0]["status"], items[0]["incident_id"]) == ("CRITICAL", "OPEN", "INC-007-0001")
    assert items[-1]["status"] == "RESOLVED"


# ── the figures ─────────────────────────────────────────────────────────────────────────────────


def test_the_figures_say_what_waits_and_how_long_the_last_deliveries_took() -> None:
    """A repeat is counted and is no second delivery; a delivery of long ago says nothing of now."""
    ledger, (old, new) = Ledger(), list(one(1, ticking(), numbers(1)))[:2]
    assert figures(ledger, 0.0)["p50"] is None
    ledger.wrote(old, ["a"], 10.0)
    ledger.got("a", payload(old), 19.0)
    ledger.wrote(new, ["a", "b", "c"], 98.0)
    ledger.got("a", payload(new), 98.02)
    ledger.got("a", payload(new), 98.5)
    ledger.got("b", payload(new), 98.04)
    assert figures(ledger, 100.0) == {
        "written": 2,
        "delivered": 4,
        "repeated": 1,
        "waiting": 1,
        "oldest": 2.0,
        "p50": 20,
        "p99": 40,
    }


def payload(change: Change) -> dict[str, object]:
    found = format_item(change.item, event_id="e", sequence="1")
    assert found is not None
    return found


# ── the buttons ─────────────────────────────────────────────────────────────────────────────────


def seconds_left(token: str) -> float:
    claims = jwt.decode(token, options={"verify_signature": False})
    return float(claims["exp"] - claims["iat"])


def test_only_the_next_token_is_short() -> None:
    tokens = Tokens(Issuer("http://127.0.0.1:1"), "page")
    tokens.shorten_next(8)
    assert [seconds_left(tokens()) for _ in range(2)] == [8, 3_600]


def test_the_panels_page_has_a_button_for_each_thing_that_can_be_done() -> None:
    """And one sentence for each that says what to look for."""
    html = (page._PANEL / "demo.html").read_text()
    nothing: Any = None
    panel = Panel(*[nothing] * 8)
    assert re.findall(r'data-press="(\w+)"', html) == list(panel.buttons)
    assert len(re.findall(r"</button>\s*<p>Look for [^<]+\.</p>", html)) == len(panel.buttons)


# ── the gateway ─────────────────────────────────────────────────────────────────────────────────

POST = {"type": "http", "method": "POST", "path": "/_aws/execute-api/abc/prod/@connections/xyz"}


async def statuses(gateway: Gateway, count: int, **more: str) -> list[int]:
    """What so many requests are answered."""
    found: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "more_body": False}

    async def send(event: dict[str, Any]) -> None:
        found.extend([event["status"]] if "status" in event else [])

    for _ in range(count):
        await gateway(POST | more, receive, send)
    return found


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    time = SimpleNamespace(now=1_000.0)
    time.monotonic = lambda: time.now
    monkeypatch.setattr(guarded_server, "time", time)
    return time


async def test_a_gateway_that_is_throttled_takes_so_many_posts_per_second_and_then_all(clock: SimpleNamespace) -> None:
    gateway = Gateway(app)
    gateway.throttle(10, 2)
    found = []
    for _ in range(20):
        clock.now += 0.1
        found += await statuses(gateway, 3)
    assert 18 <= found[:-3].count(200) <= 20
    assert found[-3:] == [200] * 3
    assert set(found) == {200, 429}


async def test_only_posts_to_connections_are_throttled(clock: SimpleNamespace) -> None:
    gateway = Gateway(app)
    gateway.throttle(1, 60)
    clock.now += 0.01
    assert await statuses(gateway, 1, path="/") == [200]
    assert await statuses(gateway, 1, method="DELETE") == [200]
    assert await statuses(gateway, 1, type="websocket") == [200]
    assert await statuses(gateway, 1) == [429]


async def test_the_tenth_post_kills_whom_it_is_told_to_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[str] = []

    def worker(name: str) -> SimpleNamespace:
        return SimpleNamespace(func_name=name, _proc=SimpleNamespace(kill=lambda: killed.append(name)))

    idle = SimpleNamespace(func_name="s-RelayFunction-3", _proc=None)
    workers = {"a": [worker("s-RelayFunction-1"), idle], "b": [worker("s-ConnectFunction-2")]}
    monkeypatch.setattr(guarded_server, "import_module", lambda _: SimpleNamespace(_workers=workers))
    gateway = Gateway(app)
    gateway.kill(["RelayFunction", "FanoutFunction"])
    assert await statuses(gateway, 9) == [200] * 9
    await statuses(gateway, 1, path="/")
    assert killed == []
    await statuses(gateway, 20)
    assert killed == ["s-RelayFunction-1"]


def test_the_demo_commands_the_gateway_in_words_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    gateway = SimpleNamespace(throttle=lambda *of: asked.append(of), kill=asked.append)
    monkeypatch.setattr("sys.stdin", iter(commands()))
    monkeypatch.setattr(guarded_server, "_end_with_the_demo", lambda: asked.append("end"))
    guarded_server._obey(gateway)  # type: ignore[arg-type] # what it needs of a gateway
    assert asked == [(60.0, 8.0), ["RelayFunction", "FanoutFunction"], "end"]


def commands() -> list[str]:
    """As the demo writes them."""
    lines: list[bytes] = []
    aws = LocalAws(1, orders=SimpleNamespace(write=lines.append))  # type: ignore[arg-type] # what it needs of a pipe
    aws.throttle(60, 8)
    aws.kill("RelayFunction", "FanoutFunction")
    return [line.decode() for line in lines]
