"""The Lambda entry points: settings at cold start, one event loop and its sockets for the sandbox's life.

An unusable setting ends the cold start with one sentence. Nothing runs between two invocations.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from async_relay.clients.connect import Answer
from async_relay.delivery.relay import Failures
from async_relay.logs import configure
from async_relay.metrics import emit
from async_relay.preload import preload
from async_relay.sandbox import Sandbox, new_event_loop
from async_relay.services import AwsServices
from async_relay.settings import Settings

settings = Settings.from_env(os.environ)
configure()
preload(os.environ)
_runner = asyncio.Runner(loop_factory=new_event_loop)
_sandbox = Sandbox(settings, AwsServices(settings), emit_metrics=emit)


def lambda_handler(event: Any, context: Any = None) -> Failures:
    """DynamoDB Stream of the Incident table: every change to every client."""
    return _runner.run(_sandbox.on_stream(event, context))


def deliver_handler(event: Any, context: Any = None) -> Failures:
    """SQS: what is left of earlier broadcasts, and the shards of the fan-out."""
    return _runner.run(_sandbox.on_jobs(event, context))


def authorize_handler(event: Any, context: Any = None) -> Answer:
    """WebSocket $connect, REQUEST authorizer: let in who has a good token."""
    return _runner.run(_sandbox.on_authorize(event, context))


def connect_handler(event: Any, context: Any = None) -> Answer:
    """WebSocket $connect: write the client's row."""
    return _runner.run(_sandbox.on_connect(event, context))


def default_handler(event: Any, context: Any = None) -> Answer:
    """WebSocket $default: answer what a client asks for."""
    return _runner.run(_sandbox.on_request(event, context))


def heartbeat_handler(event: Any, context: Any = None) -> Answer:
    """A schedule: a ping to everybody, which finds those that are gone or whose time is over."""
    return _runner.run(_sandbox.on_heartbeat(event, context))


def disconnect_handler(event: Any, context: Any = None) -> Answer:
    """WebSocket $disconnect: delete the client's row."""
    return _runner.run(_sandbox.on_disconnect(event, context))
