"""Serves ``page/index.html`` on localhost, one file with its script and style inside.

Rules
- The page's policy lets it run only its own script, by hash, and talk only to the deployed API: what
  comes in over the WebSocket is hostile until shown as text.
- Nothing but the page and its ``config.json`` is served, and only to this machine. ``config.json`` has the token, as a
  page's own server would give it to somebody who is signed in.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

from .door import address
from .errors import DemoError

_PAGE = Path(__file__).parent / "page" / "index.html"
CLIENT_ID = "page"
_PREFERRED_PORT = 8080


@contextmanager
def served(websocket_url: str, token: Callable[[], str], port: int | None) -> Iterator[str]:
    """Serve the page for as long as the block lasts, at ``port`` or else where there is room; its address.

    ``token`` makes what the page comes in with, anew whenever it connects.
    """
    server = _bind(port, _handler(websocket_url, token))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def check_port(port: int) -> None:
    """``DemoError`` where the page could not be served at ``port``; better known before a long start."""
    _bind(port, BaseHTTPRequestHandler).server_close()


def policy(html: str, websocket_url: str) -> str:
    """The Content-Security-Policy of a page that may run what it contains and talk to one host."""
    url = urlsplit(websocket_url)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes('script', html)}",
            f"style-src {_hashes('style', html)}",
            f"connect-src 'self' {url.scheme}://{url.netloc}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def _hashes(tag: str, html: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(sha256(block.encode()).digest()).decode()}'" for block in blocks)


def _bind(port: int | None, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    candidates = (_PREFERRED_PORT, 0) if port is None else (port,)
    for candidate in candidates:
        try:
            return ThreadingHTTPServer(("127.0.0.1", candidate), handler)
        except OSError as error:
            problem = error.strerror
    raise DemoError(f"The page cannot be served at port {port} ({problem}); name another with: make demo PORT=8081")


def _handler(websocket_url: str, token: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    html = _PAGE.read_text(encoding="utf-8")

    def config() -> str:
        return json.dumps({"url": address(websocket_url, CLIENT_ID, token())})

    files: dict[str, tuple[str, Callable[[], str]]] = {
        "/": ("text/html; charset=utf-8", lambda: html),
        "/config.json": ("application/json", config),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = files.get(urlsplit(self.path).path, ("text/plain", lambda: ""))
            text = content()
            self.send_response(200 if text else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text.encode())))
            self.send_header("Content-Security-Policy", policy(html, websocket_url))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing: the terminal belongs to the view."""

    return Handler
