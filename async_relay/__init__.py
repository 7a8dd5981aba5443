"""Broadcast DynamoDB Stream changes to every WebSocket client of an API Gateway API.

    errors  settings  messages            what things are called, and what is wrong with them
    streams  jobs  backoff  rate  sigv4   pure: decoding, what crosses a queue, when to try again
    protocols                             Transport, ConnectionStore, Queue: what the core asks for
    lanes  broadcaster                    who gets what when: what an answer means, and the bound
    evidence  deletions                   which rows of gone clients may go, and their going
    report  leftovers                     what came of it, and where the rest goes
    relay                                 one stream event, or one batch of jobs, from start to end
    pool + http   aws   memory            what answers to the protocols: sockets, tables and queues, doubles
    sandbox  logs  metrics                all of it put together for a Lambda sandbox; handler.py calls it

For people: ``cli`` (dead letters, plan, backfill), ``planning``, and ``testing``, a scripted API Gateway.

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
