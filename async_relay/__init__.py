"""Broadcast DynamoDB Stream changes to every WebSocket client of an API Gateway API.

    errors  settings  messages        what things are called, and what is wrong with them
       streams  jobs  backoff  rate   pure: decoding, what crosses a queue, when to try again
       protocols                      Transport, ConnectionStore, Queue: what the core asks for
       broadcaster  leftovers         who gets what when, and where the rest goes
       relay                          one stream event, or one batch of jobs, from start to end
    http + sigv4   aws   memory       what answers to the protocols: sockets, aioboto3, doubles

Arrows run downwards only, and importing the package loads no AWS code.
"""

from .broadcaster import Broadcaster
from .errors import RelayError, SettingsError
from .jobs import DeadLetter, Job, Shard
from .messages import Message
from .report import Outcome, Report
from .settings import Settings

__all__ = [
    "Broadcaster",
    "DeadLetter",
    "Job",
    "Message",
    "Outcome",
    "RelayError",
    "Report",
    "Settings",
    "SettingsError",
    "Shard",
]
