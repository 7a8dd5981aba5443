"""The demo's pages: what is served, to whom, under which policy, and what the panel's page asks for."""

from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from demo import page
from demo.errors import DemoError
from demo.page import Site, served

ROOT = Path(__file__).parent.parent
URL = "wss://abc.example:8443/prod"


class Buttons:
    """A panel with one button."""

    def __init__(self) -> None:
        self.pressed: list[str] = []

    def state(self) -> Mapping[str, Any]:
        return {"pressed": len(self.pressed)}

    def press(self, name: str) -> bool:
        if name != "write":
            return False
        self.pressed.append(name)
        return True


def ask(address: str, method: str = "GET", **headers: str) -> tuple[int, Any, str]:
    request = urllib.request.Request(address, method=method, headers=headers)  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - as above
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def test_the_dashboard_is_served_as_it_is_but_for_its_config() -> None:
    """Each file whole, never kept, as what it is; the config leads to this stack, with an id for the page."""
    with served(Site(URL, str), 0) as address:
        status, headers, html = ask(f"{address}/?status=OPEN")
        assert (status, html) == (200, (ROOT / "dashboard" / "index.html").read_text())
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
        for name in ("app.js", "async-relay.js", "vendor/preact.js", "words.js"):
            _, headers, text = ask(f"{address}/{name}")
            assert text == (ROOT / "dashboard" / name).read_text()
            assert headers["Content-Type"] == "text/javascript; charset=utf-8"
            assert int(headers["Content-Length"]) == len(text.encode())
        config = ask(f"{address}/config.js")[2]
        assert f'export const url = "{URL}?clientId={page.CLIENT_ID}";' in config
        assert 'export { history, resolved, token } from "./shipped-config.js";' in config
        assert ask(f"{address}/shipped-config.js")[2] == (ROOT / "dashboard" / "config.js").read_text()


def test_whatever_else_there_is_is_not_served() -> None:
    with served(Site(URL, str), 0) as address:
        paths = ("/page.py", "/../page.py", "/README.md", "/vendor", "/demo.html", "/state", "/press/write")
        assert [ask(f"{address}{path}")[0] for path in paths] == [404] * len(paths)
        assert ask(f"{address}/press/write", "POST")[0] == 404


def test_each_request_for_a_token_gets_a_new_one() -> None:
    """The one of before may have ended, which is why the page asks."""
    tokens = map("token-{}".format, count())
    with served(Site(URL, lambda: next(tokens)), 0) as address:
        assert [ask(f"{address}/token")[2] for _ in range(2)] == ["token-0", "token-1"]


def test_a_page_may_run_only_what_is_served_and_talk_only_to_the_api() -> None:
    assert page.policy("ws://127.0.0.1:4566/_aws/execute-api/abc/prod").split("; ") == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self' ws://127.0.0.1:4566",
        "frame-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    ]
    with served(Site(URL, str, Buttons()), 0) as address:
        for path in ("/", "/app.js", page.PANEL, "/token", "/nowhere"):
            assert ask(f"{address}{path}")[1]["Content-Security-Policy"] == page.policy(URL)


def test_a_button_is_pressed_by_a_post_and_the_state_shows_it() -> None:
    panel = Buttons()
    with served(Site(URL, str, panel), 0) as address:
        assert ask(f"{address}/press/write")[0] == 404
        assert [ask(f"{address}/press/{name}", "POST")[0] for name in ("write", "nothing", "")] == [204, 404, 404]
        assert json.loads(ask(f"{address}/state")[2]) == {"pressed": 1}
    assert panel.pressed == ["write"]


@pytest.mark.parametrize(
    "stranger",
    [{"Host": "evil.example"}, {"Host": ""}, {"Host": "["}, {"Origin": "https://evil.example"}, {"Origin": "null"}],
)
def test_a_page_from_elsewhere_gets_no_token_and_presses_no_button(stranger: dict[str, str]) -> None:
    """Nor does one whose name was made to lead here."""
    panel = Buttons()
    with served(Site(URL, lambda: "secret", panel), 0) as address:
        assert [ask(f"{address}{path}", **stranger)[::2] for path in ("/token", "/state", "/")] == [(403, "")] * 3
        assert ask(f"{address}/press/write", "POST", **stranger)[0] == 403
        assert ask(f"{address}/press/write", "POST", Origin=address)[0] == 204
    assert panel.pressed == ["write"]


def test_this_machine_alone_can_have_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[Any] = []
    monkeypatch.setattr(page, "_Server", lambda where, _handler: bound.append(where))
    page._bind(0, BaseHTTPRequestHandler)
    assert bound == [("127.0.0.1", 0)]


def test_a_port_that_is_taken_is_an_error_only_where_it_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever named none has another; whoever named one wants that."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(page, "_PREFERRED_PORT", port)
        with served(Site(URL, str), None) as address:
            assert urlsplit(address).port != port
        with pytest.raises(DemoError, match=f"at port {port}"), served(Site(URL, str), port):
            pass


def test_the_panels_page_runs_nothing_inline_and_makes_no_markup_of_what_it_gets() -> None:
    html, script = ((page._PANEL / f"demo.{kind}").read_text() for kind in ("html", "js"))
    assert re.findall(r"<script(?! src=)|<style|\bon\w+=|\bstyle=", html) == []
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(")
    assert [word for word in forbidden if word in script] == []
    assert set(re.findall(r'element\("(\w+)"\)', script)) <= set(re.findall(r'\bid="(\w+)"', html))
