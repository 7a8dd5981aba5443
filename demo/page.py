"""Serves the dashboard on localhost, and beside it the demo's panel with its buttons.

Rules
- The policy lets pages run only the files served here, and talk only to this server and to the deployed API: what comes
  in over the WebSocket is hostile until shown as text.
- Nothing but ``dashboard/`` with a ``config.js`` for this stack, the panel's page and its answers is served, and only
  to this machine, under its own name: a page from elsewhere can neither have a token nor press a button.
- ``/token`` gives a token, as a page's own server would give it to somebody who is signed in.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

from .door import address
from .errors import DemoError

_DASHBOARD = Path(__file__).parent.parent / "dashboard"
_PANEL = Path(__file__).parent / "page"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
#: Status, kind and body.
Answer = tuple[int, str, bytes]
_DONE: Answer = (204, "text/plain", b"")
_FORBIDDEN: Answer = (403, "text/plain", b"")
_NOT_FOUND: Answer = (404, "text/plain", b"")
_PRESS = "/press/"
_NAMES = ("localhost", "127.0.0.1")
CLIENT_ID = "page"
#: Where the panel is.
PANEL = "/demo.html"
_PREFERRED_PORT = 8080
_CONFIG = """\
export const url = {url};
export {{ history, resolved, token }} from "./shipped-config.js";
export const inUrl = true;  // the local AWS loses subprotocols
"""


class Panel(Protocol):
    """What is beside the dashboard."""

    def state(self) -> Mapping[str, Any]:
        """What to show now."""

    def press(self, name: str) -> bool:
        """Do what a button does; False where there is none of that name."""


class Site:
    """What is served: the dashboard of an API, what makes its tokens, and a panel or none."""

    def __init__(self, websocket_url: str, token: Callable[[], str], panel: Panel | None = None) -> None:
        self._token = token
        self._panel = panel
        self._files = files(websocket_url, _DASHBOARD, *([_PANEL] if panel else []))
        self.headers = _HEADERS | {"Content-Security-Policy": policy(websocket_url)}

    def get(self, path: str) -> Answer:
        """A file, a token or the panel's state."""
        if path == "/token":
            return 200, "text/plain", self._token().encode()
        if path == "/state" and self._panel:
            return 200, "application/json", json.dumps(self._panel.state()).encode()
        return (200, *self._files[path]) if path in self._files else _NOT_FOUND

    def post(self, path: str) -> Answer:
        """Press a button."""
        is_button = path.startswith(_PRESS) and self._panel and self._panel.press(path.removeprefix(_PRESS))
        return _DONE if is_button else _NOT_FOUND


@contextmanager
def served(site: Site, port: int | None) -> Iterator[str]:
    """Serve the pages for as long as the block lasts, at ``port`` or else where there is room; their address."""
    server = _bind(port, _handler(site))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def check_port(port: int) -> None:
    """``DemoError`` where the page could not be served at ``port``; better known before a long start."""
    _bind(port, BaseHTTPRequestHandler).server_close()


def policy(websocket_url: str) -> str:
    """The Content-Security-Policy of pages that may run what is beside them and talk to one host."""
    url = urlsplit(websocket_url)
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self' {url.scheme}://{url.netloc}",
            "frame-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'self'",
        ]
    )


def files(websocket_url: str, *folders: Path) -> dict[str, tuple[str, bytes]]:
    """Kind and content of each file that is served, by its path."""
    found = {
        f"/{path.relative_to(folder).as_posix()}": (_KINDS[path.suffix], path.read_bytes())
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in _KINDS
    }
    config = _CONFIG.format(url=json.dumps(address(websocket_url, CLIENT_ID, None)))
    found["/shipped-config.js"] = found["/config.js"]
    found["/config.js"] = (_KINDS[".js"], config.encode())
    found["/"] = found["/index.html"]
    return found


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that has left, or a demo that ends, is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _bind(port: int | None, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    candidates = (_PREFERRED_PORT, 0) if port is None else (port,)
    for candidate in candidates:
        try:
            return _Server(("127.0.0.1", candidate), handler)
        except OSError as error:
            problem = error.strerror
    raise DemoError(f"The page cannot be served at port {port} ({problem}); name another with: make demo PORT=8081")


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(site.get)

        def do_POST(self) -> None:
            self._answer(site.post)

        def _answer(self, find: Callable[[str], Answer]) -> None:
            status, kind, body = find(urlsplit(self.path).path) if is_from_here(self.headers) else _FORBIDDEN
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **site.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the view."""

    return Handler


def is_from_here(headers: Message) -> bool:
    """Whether a request is for this machine by name, and from a page of ours or from no page."""
    host = headers.get("Host", "")
    return host.partition(":")[0] in _NAMES and headers.get("Origin") in (None, f"http://{host}")
