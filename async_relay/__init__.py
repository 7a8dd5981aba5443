"""Broadcasts DynamoDB Stream changes to every WebSocket client of an API Gateway API.

    handler.py                 the Lambda functions, a line each
    sandbox                    keeps the relay for the life of a Lambda sandbox, and sets deadlines
    services                   where a sandbox gets the table, the transport and the queues from
    clients                    one client at a time: $connect and $disconnect
    aws                        the table and the queues in AWS, and the SDK; the only package that knows botocore
    delivery                   the core: who gets which message when, and where the rest goes; no sockets, no AWS
    settings  logs  metrics    the environment variables; log lines; figures for CloudWatch
    http                       signed requests over keep-alive sockets
    wire                       pure: stream records in, messages out, jobs across queues
    errors                     everything that can go wrong, by name

    testing                    an API Gateway that answers by script, and doubles in memory
    cli  planning              for operators: dead letters, replay, plan and more

Each of these imports only those below it, and ``testing``, ``cli`` and ``planning`` are imported by none of the
others. Importing ``async_relay`` loads no AWS code.

The names below are enough to broadcast without Lambda, over any transport and any table that keep to the
protocols ``Transport`` and ``ConnectionStore``::

    import asyncio
    import time
    from random import Random

    from async_relay import Broadcaster, Client, Job, Limits, Message, Rate, Shard
    from async_relay.testing.memory import MemoryStore, MemoryTransport

    async def main() -> None:
        transport, store = MemoryTransport(), MemoryStore(["a=", "b=", "c="])
        broadcaster = Broadcaster(transport, store, Limits(max_concurrency=10), Rate(), Random(), time.time)
        hello, bye = Message.encode({"text": "hello"}), Message.encode({"text": "bye"})
        jobs = [Job((hello,), shard=Shard()), Job((bye,), clients=(Client("c="),))]
        report = await broadcaster.broadcast(jobs, seconds=30)
        print(report.posts, "posts:", [sum(outcome.delivered) for outcome in report.outcomes])

    asyncio.run(main())
"""

from .delivery.broadcaster import Broadcaster, Limits
from .delivery.protocols import ConnectionStore, Page, Transport
from .delivery.rate import Rate
from .delivery.report import Outcome, Report
from .errors import RelayError, SettingsError
from .settings import Settings
from .wire.jobs import Client, DeadLetter, Job, Shard
from .wire.messages import Message

__all__ = [
    "Broadcaster",
    "Client",
    "ConnectionStore",
    "DeadLetter",
    "Job",
    "Limits",
    "Message",
    "Outcome",
    "Page",
    "Rate",
    "RelayError",
    "Report",
    "Settings",
    "SettingsError",
    "Shard",
    "Transport",
]
