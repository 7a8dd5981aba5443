"""The scripted sequences of client/conformance.json, which the JavaScript client is held to as well."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from async_relay.client.options import Detail, History, Listener, Options, SocketListener, State
from async_relay.client.session import Session

CONFORMANCE = Path(__file__).parents[2] / "client" / "conformance.json"
SCENARIOS = [each for each in json.loads(CONFORMANCE.read_text())["scenarios"] if not each.get("browser")]
START_MS = 1_700_000_000_000


def token_until(seconds: float) -> str:
    payload = json.dumps({"exp": START_MS // 1_000 + seconds}, separators=(",", ":")).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.x"


def written(value: Any) -> Any:
    """A value of a script: ``{"exp": n}`` stands for a token that ends then."""
    if isinstance(value, dict):
        return token_until(value["exp"]) if "exp" in value else {name: written(each) for name, each in value.items()}
    return [written(each) for each in value] if isinstance(value, list) else value


class ScriptedSocket:
    def __init__(self, world: ScriptedWorld, listener: SocketListener) -> None:
        self.world, self.listener, self.ready = world, listener, 0

    def open(self) -> None:
        self.ready = 1
        self.listener.opened()

    def deliver(self, frame: Any) -> None:
        self.listener.heard(frame if isinstance(frame, str) else json.dumps(frame))

    def die(self) -> None:
        if self.ready < 3:
            self.ready = 3
            self.listener.closed(refused=True)

    def send(self, text: str) -> None:
        if self.ready == 1:
            self.world.sent.append([self.world.sockets.index(self) + 1, json.loads(text)])

    def close(self) -> None:
        self.ready = max(self.ready, 2)


class ScriptedTimer:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class ScriptedWorld:
    """Nothing happens in it by itself; its clock counts ms."""

    def __init__(self, chance: float, tokens: Sequence[Any]) -> None:
        self.ms = float(START_MS)
        self.chance, self.tokens = chance, list(tokens)
        self.timers: list[ScriptedTimer] = []
        self.sockets: list[ScriptedSocket] = []
        self.sent: list[Any] = []
        self.opened: list[tuple[str, list[str]]] = []

    def now(self) -> float:
        return self.ms / 1_000

    def random(self) -> float:
        return self.chance

    def call_later(self, seconds: float, call: Callable[[], None]) -> ScriptedTimer:
        self.timers.append(ScriptedTimer(self.ms + max(1.0, seconds * 1_000), call))
        return self.timers[-1]

    def fetch_token(self, got: Callable[[str | None], None], failed: Callable[[], None]) -> None:
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, dict) and "throws" in token:
            failed()
        else:
            got(token)

    def open(self, url: str, protocols: Sequence[str], listener: SocketListener) -> ScriptedSocket:
        if not all(re.fullmatch(r"[\w.!#$%&'*+^`|~-]+", each) for each in protocols):
            raise ValueError(protocols)
        self.opened.append((url, list(protocols)))
        self.sockets.append(ScriptedSocket(self, listener))
        return self.sockets[-1]

    def wait(self, seconds: float) -> None:
        end = self.ms + seconds * 1_000
        while True:
            self.timers = [each for each in self.timers if not each.cancelled]
            due = min((each for each in self.timers if each.at <= end), key=lambda each: each.at, default=None)
            if due is None:
                break
            self.timers.remove(due)
            self.ms = max(self.ms, due.at)
            due.call()
        self.ms = end


class Play:
    """One scenario: the client, its world, and what was seen of it since the script last asked."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        options = dict(scenario.get("options", {}))
        tokens = written(options.pop("tokens", []))
        self.world = ScriptedWorld(scenario.get("random", 0.5), tokens)
        self.seen: dict[str, list[Any]] = {name: [] for name in ("messages", "stale", "states", "history")}
        listener = Listener(self.message, self.stale, self.state, self.history)
        snake = {re.sub("([A-Z])", r"_\1", name).lower(): value for name, value in options.items()}
        settings = {"url": "wss://relay.example/prod", "has_token": bool(tokens), "renews": bool(tokens), **snake}
        self.session = Session(Options(**settings), listener, self.world)
        self.session.start()

    def message(self, message: Any) -> None:
        self.seen["messages"].append(message.get("event_id", message))

    def stale(self, message: Any) -> None:
        self.seen["stale"].append(message.get("event_id"))

    def state(self, state: State, detail: Detail) -> None:
        self.seen["states"].append(state.value if detail.retry_in is None else [state.value, detail.retry_in])

    def history(self, history: History) -> None:
        about = {"gap": history.gap, "complete": history.complete}
        self.seen["history"].append([[each["incident_id"] for each in history.incidents], about])

    def step(self, name: str, given: Any) -> None:
        match name:
            case "open":
                self.world.sockets[given - 1].open()
            case "send":
                for frame in given[1:]:
                    self.world.sockets[given[0] - 1].deliver(frame)
            case "die":
                self.world.sockets[given - 1].die()
            case "wait":
                self.world.wait(given)
            case "sleep":
                self.world.ms += given * 1_000
            case "close":
                self.session.close()
            case _:
                assert name == "expect"
                assert {each: self.look(each) for each in given} == given

    def look(self, name: str) -> Any:
        if name in self.seen:
            found, self.seen[name] = self.seen[name], []
            return found
        if name == "sent":
            sent, self.world.sent = self.world.sent, []
            return sent
        session, world = self.session, self.world
        looks: dict[str, Callable[[], Any]] = {
            "state": lambda: session.state.value,
            "position": lambda: session.position,
            "incidents": lambda: {key: dict(value) for key, value in session.picture.incidents.items()},
            "order": lambda: list(session.picture.incidents),
            "sockets": lambda: len(world.sockets),
            "closing": lambda: [number for number, each in enumerate(world.sockets, 1) if each.ready == 2],
            "url": lambda: world.opened[-1][0],
            "protocols": lambda: world.opened[-1][1],
        }
        return looks[name]()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["name"])
def test_the_client_in_python(scenario: dict[str, Any]) -> None:
    """What the server sends and what time passes, and what must be seen then."""
    play = Play(scenario)
    for number, step in enumerate(scenario["steps"], 1):
        ((name, given),) = step.items()
        try:
            play.step(name, written(given))
        except AssertionError as error:
            error.add_note(f"step {number}: {json.dumps(step)}")
            raise
