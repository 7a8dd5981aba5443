"""Loads at INIT what the first invocation would load, where a sandbox is made before anybody needs it.

Rules
- With SnapStart and provisioned concurrency only. On demand a client waits for INIT, so each module is loaded
  by the first invocation that needs it.
- Modules are loaded, and nothing else is done: all sandboxes that start from a snapshot share what is in it.
- A snapshot gets no aiohttp, whose import makes TLS contexts: each takes random numbers of OpenSSL's generator, which
  from then on would be in the same state in every sandbox.
- A module that cannot be loaded ends no cold start: the log says so, and whoever needs it tries again.

Source: Lambda Developer Guide, "Defined runtime environment variables", "Handling uniqueness with Lambda SnapStart".
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib import import_module

_log = logging.getLogger("async_relay")

_SNAPSTART = "snap-start"
_PROVISIONED = "provisioned-concurrency"
_EVERY_ENTRY_POINT = (
    "uvloop",
    # For the threads that read certificate authorities, and the look-up of host names.
    "concurrent.futures.thread",
    "encodings.idna",
    "aws_lambda_powertools.metrics",
    "aws_lambda_powertools.logging.utils",
)
_BESIDES = {
    "authorize_handler": ("async_relay.clients.authorize", "async_relay.clients.requests", "jwt"),
    "default_handler": ("async_relay.clients.requests",),
    "heartbeat_handler": ("async_relay.delivery.heartbeat",),
}


def preload(environ: Mapping[str, str]) -> None:
    """Load what the entry point in ``_HANDLER`` needs, if ``AWS_LAMBDA_INITIALIZATION_TYPE`` says it is made ahead."""
    for name in _modules(environ):
        try:
            import_module(name)
        except Exception:  # noqa: BLE001 - any file may be missing or broken, and perhaps nobody needs this one
            _log.warning("%s cannot be loaded ahead of the first invocation", name, exc_info=True)


def _modules(environ: Mapping[str, str]) -> Iterator[str]:
    kind = environ.get("AWS_LAMBDA_INITIALIZATION_TYPE")
    if kind not in (_SNAPSTART, _PROVISIONED):
        return
    yield from _EVERY_ENTRY_POINT
    entry_point = environ.get("_HANDLER", "").rpartition(".")[2]
    yield from _BESIDES.get(entry_point, ())
    if entry_point == "authorize_handler" and kind == _PROVISIONED:
        yield "aiohttp"
