"""Broadcast DynamoDB Stream changes to every WebSocket client of an API Gateway API.

    errors                     what can go wrong, by name
    wire                       pure: stream records in, messages out, jobs across queues
    settings  logs  metrics    the environment variables; what operators see
    http                       signed posts on keep-alive sockets
    delivery                   the core: who gets what when, and where the rest goes; no sockets, no AWS
    aws                        tables and queues; the one place that knows botocore
    sandbox                    all of it put together for a Lambda sandbox; handler.py calls it

    testing                    an API Gateway that answers by script, and doubles in memory
    cli  planning              for operators: dead letters, backfill, plan

Arrows run downwards only, and importing the package loads no AWS code.
"""

from .delivery.broadcaster import Broadcaster
from .delivery.report import Outcome, Report
from .errors import RelayError, SettingsError
from .settings import Settings
from .wire.jobs import DeadLetter, Job, Shard
from .wire.messages import Message

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
