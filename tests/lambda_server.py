"""AWS Lambda's Invoke over HTTP: functions by name, each a Python function of the event."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Function = Callable[[Any], Any]


class Failed(Exception):
    """What a function raises to fail as Lambda reports it: its type and its message."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.answer = {"errorType": kind, "errorMessage": message}


class QuietHandler(BaseHTTPRequestHandler):
    """One that writes no log."""

    def log_message(self, *_arguments: Any) -> None:
        """Nothing: the tests' output is theirs."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The URL of a server on this machine, which answers as the handler does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def lambda_server(**functions: Function) -> Iterator[str]:
    """The URL of a server that has these functions."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            function = functions.get(self.path.split("/")[3])
            if function is None:
                self._answer(404, {"Message": "Function not found"}, {"x-amzn-ErrorType": "ResourceNotFoundException"})
                return
            try:
                self._answer(200, function(event), {})
            except Failed as failure:
                self._answer(200, failure.answer, {"X-Amz-Function-Error": "Unhandled"})

        def _answer(self, status: int, value: Any, headers: dict[str, str]) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as url:
        yield url
