"""The input of a plan, the plan, and the numbers it takes for granted. Plain data.

Times are seconds, sizes bytes. A constant without a source is an assumption, and docs/scaling.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, inf

from ..settings import POSTS_IN_FLIGHT
from ..wire.frames import FRAME_BYTES

DIRECT, FANOUT, AUTO = "direct", "fanout", "auto"
#: What is recommended where no mode keeps up.
NEITHER = "neither"

#: Lambda asks a stream's shard for records four times a second (Lambda Developer Guide, DynamoDB Streams).
POLL = 0.25
#: The template's StreamBatchSize; of the fan-out queue's see ``queue_batch``.
STREAM_BATCH = 100
#: Entries of one SendMessageBatch (SQS quotas).
SEND_BATCH = 10
#: The template's Timeout, less what the relay keeps for its queues and the last posts.
INVOCATION = 60.0
USABLE = 56.0
#: The template's MemorySize, which is one whole vCPU, and its RetryWorkers.
MEMORY_GB = 1769 / 1024
RETRY_WORKERS = 5
#: SendMessageBatch and its ten entries, a job from the queue to its function, an invocation's own time.
SEND_SECONDS = 0.015
HOP_SECONDS = 0.06
INVOKE_SECONDS = 0.02
#: Scan and Query read up to 1 MB a page, counted before projection; sizes of a connection's row.
PAGE_BYTES = 1_000_000
PAGE_SECONDS = 0.06
ROW_BYTES = 100
INDEX_ROW_BYTES = 60
#: A read unit is 4 KB (DynamoDB Developer Guide, "Read consistency").
READ_UNIT_BYTES = 4096
#: A write unit is 1 KB of an item (the same). An entry of the feed, and what it and each of its messages have besides.
WRITE_UNIT_BYTES = 1024
ENTRY_BYTES = 60_000
ENTRY_ROOM = 60
#: Fanning out is another queue and another function: it should save the last client this much.
WORTH = 1.0
#: The share of a limit, or of the time, from which on queues grow quickly and advice is due.
BUSY = 0.7
#: The most that the template takes as MaxConcurrency.
MOST_IN_FLIGHT = 900
#: Above it the template wants FanoutMode=fanout, and all that it takes as StreamBatchSize.
DIRECT_BATCH = 500
STREAM_BATCHES = (1, 10, 100, 500, 2_000, 10_000)
#: The spread of one post's latency around its median (log-normal).
SIGMA = 0.5
#: How many of those deviations the slowest of about a hundred posts lies out.
TAIL = 2.3

#: The largest message of SQS the relay writes, and the units in which requests and messages are billed: of SQS, of
#: API Gateway, of AppSync Events and IoT Core (the sources are in ``prices``).
JOB_BYTES = 262_144
SQS_CHUNK = 65_536
POST_CHUNK = 32_768
SMALL_CHUNK = 5_120
#: The CPU time of each further message of a frame, as a part of a post's: a post of 50 messages took 112 and 142 us
#: where one of a single message took 91 (docs/performance.md, "Frames").
FRAMED_MESSAGE_CPU = (127 / 91 - 1) / 49
#: The WebSocket frame, TLS and TCP around a post on its way out; the log of one invocation.
POST_ROOM = 60
LOG_BYTES = 1_200
#: One $connect or $disconnect, in functions with the template's 512 MB.
CONNECT_SECONDS = 0.03
CONNECT_GB = 0.5

#: Defaults of the account (API Gateway, Lambda, SQS and DynamoDB quotas; the table's from memory).
NEW_CONNECTIONS = 500.0
FIFO_CALLS = 300.0
TABLE_READS = 40_000.0
PARTITION_READS = 3_000.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The messages to be sent: ``burst`` messages come at once, ``messages_per_second`` on average.

    ``frames`` is the share of the clients that read arrays.
    """

    clients: int
    messages_per_second: float = 1.0
    burst: int = 1
    payload: int = 600
    latency: float = 0.02
    session: float = 7200.0
    frames: float = 0.0

    @property
    def deliveries_per_second(self) -> float:
        """Every message to every client."""
        return self.clients * self.messages_per_second

    @property
    def bursts_per_second(self) -> float:
        """How often messages come."""
        return self.messages_per_second / self.burst

    @property
    def connects_per_second(self) -> float:
        """Each connection ends after ``session`` seconds and is made again."""
        return self.clients / self.session


@dataclass(frozen=True, slots=True)
class Setup:
    """The account and the stack; ``others`` is the part of the quota that other APIs use.

    ``batch`` records of the stream are served together at most, and wait ``window`` seconds for each other.
    """

    quota: float = 10_000.0
    others: float = 0.0
    shards: int = 8
    workers: int = 8
    concurrency: int = POSTS_IN_FLIGHT
    cpu_per_post: float = 25e-6
    index: bool = False
    sweep: bool = True
    auto_clients: int | None = None
    stream_shards: int = 1
    lambda_concurrency: int = 1_000
    groups_per_batch: int = 1
    feed: bool = False
    batch: int = STREAM_BATCH
    window: float = 0.0
    frame_bytes: int = FRAME_BYTES

    @property
    def allowed(self) -> float:
        """Posts per second the account leaves us."""
        return max(1.0, self.quota - self.others)

    def share(self, mode: str) -> float:
        """The ceiling of one function that posts: the template divides by its parameters, whoever is busy."""
        return self.quota / self.workers if mode == FANOUT else self.allowed / self.stream_shards

    @property
    def functions(self) -> int:
        """Workers that post at once: a shard is served by one, and one may be handed several."""
        return min(self.workers, ceil(self.shards / self.groups_per_batch))


@dataclass(frozen=True, slots=True)
class Packing:
    """What is served together: ``messages``, of which the first waits ``held`` seconds for the others.

    A client gets them in ``posts``, metered as ``metered``: both on average of those who read arrays and those who do
    not. They come in ``batches`` of the stream; ``waited`` says that a backlog gathered them.
    """

    messages: float
    held: float
    posts: float
    metered: float
    batches: int
    waited: bool = False


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast a mode is: ``functions`` at ``each`` posts per second, ``rate`` together; ``pace`` is what limits it.

    Its times are of what ``packing`` brings together.
    """

    mode: str
    packing: Packing
    functions: int
    each: float
    rate: float
    pace: str
    start: float
    first: float
    work: float
    hops: int
    utilisation: float
    wait: float
    last: float

    def until(self, part: float) -> float:
        """Seconds until this part of the clients has a burst, into an idle relay."""
        return self.start + self.first + part * (self.work - self.first) + self.hops * part * HOP_SECONDS


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: how much of it is used, and what to raise."""

    name: str
    used: float
    available: float
    unit: str
    advice: str

    @property
    def share(self) -> float:
        """1 is all of it."""
        return self.used / self.available


@dataclass(frozen=True, slots=True)
class Load:
    """The load of the services, per second; ``metered``: the posts as API Gateway bills them."""

    deliveries: float
    posts: float
    metered: float
    passes: float
    jobs: float
    invocations: float
    function_seconds: float
    sqs_requests: float
    dynamodb_requests: float
    dynamodb_read_units: float
    dynamodb_write_units: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about one mode."""

    traffic: Traffic
    setup: Setup
    speed: Speed
    load: Load
    limits: tuple[Limit, ...]
    costs: Mapping[str, float]

    @property
    def keeps_up(self) -> bool:
        """Whether messages are served as fast as they come."""
        return self.speed.utilisation < 1

    def used(self, name: str) -> float:
        """The share of this limit that is used; infinite where the mode has none of that name."""
        return next((limit.share for limit in self.limits if limit.name == name), inf)

    @property
    def first(self) -> Limit:
        """The limit that binds first."""
        return max(self.limits, key=lambda limit: limit.share)


@dataclass(frozen=True, slots=True)
class Advice:
    """Which mode, from how many clients on fanning out pays, and why."""

    mode: str
    break_even: int | None
    why: str
    next: str


def queue_batch(groups_per_batch: int) -> int:
    """BatchSize of the fan-out queue's mapping: 1 in the template; to hold several groups it must be larger, say 10."""
    return 1 if groups_per_batch == 1 else 10
