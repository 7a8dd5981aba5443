"""From traffic and a setup to a plan: formulas only.

Rules
- A function posts at the least of its share of the account's quota, what its places in flight allow
  (Little's law) and what one vCPU can do; the last two meet softly (mean value analysis).
- What ``packing`` brings together goes to a client post by post, to different clients at once.
- The times are those of one burst into an idle relay, of its first message where a window gathers more; ``wait`` is
  what earlier bursts add on average (an M/D/1 queue). Where a function that posts itself is behind and gathers what
  waits, it is never idle, and a message finds half a pass before it.
- Nothing fails: no 429, no slow client, no cold start. The simulation has what the formulas leave out.
"""

from __future__ import annotations

from math import ceil, exp, inf

from .costs import costs
from .packing import behind, cpu_per_post, gathered, message_bytes, most_in_a_post, packed
from .values import (
    CONNECT_SECONDS,
    DIRECT,
    ENTRY_BYTES,
    ENTRY_ROOM,
    FANOUT,
    FIFO_CALLS,
    HOP_SECONDS,
    INDEX_ROW_BYTES,
    INVOKE_SECONDS,
    JOB_BYTES,
    MOST_IN_FLIGHT,
    NEW_CONNECTIONS,
    PAGE_BYTES,
    PAGE_SECONDS,
    PARTITION_READS,
    POLL,
    READ_UNIT_BYTES,
    RETRY_WORKERS,
    ROW_BYTES,
    SEND_BATCH,
    SEND_SECONDS,
    SIGMA,
    SQS_CHUNK,
    TABLE_READS,
    TAIL,
    USABLE,
    WRITE_UNIT_BYTES,
    Limit,
    Load,
    Packing,
    Plan,
    Setup,
    Speed,
    Traffic,
    queue_batch,
)

#: Where there are fewer parts of the table than workers.
MORE_SHARDS = "FanoutShards to as many as FanoutWorkers"


def closed_rate(places: int, latency: float, cpu: float) -> float:
    """Posts per second with ``places`` in flight, answers after ``latency``, and ``cpu`` of one CPU per post.

    Mean value analysis of a closed network (Reiser and Lavenberg, 1980): never above
    places / latency nor 1 / cpu, and a little below where the two meet.
    """
    rate, queued = 0.0, 0.0
    for place in range(1, places + 1):
        stay = cpu * (1 + queued)
        rate = place / (latency + stay)
        queued = rate * stay
    return rate


def engine_rate(traffic: Traffic, setup: Setup, clients: int, packing: Packing) -> float:
    """Posts per second of one function that serves so many clients, if there were no quota."""
    places = min(setup.concurrency, clients)
    return closed_rate(places, mean_latency(traffic.latency), cpu_per_post(setup, packing))


def mean_latency(median: float) -> float:
    """The mean of a log-normal latency."""
    return median * exp(SIGMA**2 / 2)


def speed(traffic: Traffic, setup: Setup, mode: str, packing: Packing | None = None) -> Speed:
    """How fast ``mode`` is, DIRECT or FANOUT, with what a burst and the window bring together, or with ``packing``."""
    packing = packing or gathered(traffic, setup)
    functions = setup.functions if mode == FANOUT else 1
    share = setup.share(mode)
    lanes = ceil(traffic.clients / functions)
    engine = engine_rate(traffic, setup, lanes, packing)
    each = min(engine, share, setup.allowed / functions)
    rate = each * functions
    work = lanes * packing.posts / each
    hops = _hops(packing, setup, work)
    start = POLL / 2 + packing.held + INVOKE_SECONDS + page_seconds(traffic, setup, mode)
    start += dispatch_seconds(setup) + HOP_SECONDS if mode == FANOUT else 0.0
    busy = posts_per_second(traffic, packing) / _together(setup, mode, rate)
    occupied = work + page_seconds(traffic, setup, mode) + INVOKE_SECONDS
    return Speed(
        mode,
        packing,
        functions,
        each,
        rate,
        _pace(traffic, setup, engine, each, functions, packing),
        start,
        first=min(work, packing.posts * mean_latency(traffic.latency)),
        work=work,
        hops=hops,
        utilisation=busy,
        wait=_wait(busy, occupied, gathers=mode == DIRECT and _gathers(traffic, setup, packing)),
        last=start + work + hops * HOP_SECONDS + traffic.latency * (exp(SIGMA * TAIL) - 1),
    )


def _longest(packing: Packing, setup: Setup, work: float) -> float:
    """Of ``work`` what one invocation has to do: each batch has one of its own."""
    return work * min(1.0, setup.batch / packing.messages)


def _hops(packing: Packing, setup: Setup, work: float) -> int:
    full, rest = divmod(packing.messages, setup.batch)
    each = work / packing.messages
    return int(full) * _continued(setup.batch * each) + _continued(rest * each)


def _continued(work: float) -> int:
    return max(0, ceil(work / USABLE) - 1)


def posts_per_second(traffic: Traffic, packing: Packing) -> float:
    """To all clients together."""
    return traffic.clients * packing.posts * traffic.messages_per_second / packing.messages


def _together(setup: Setup, mode: str, rate: float) -> float:
    """Posts per second of all that post: the workers, or a function for each shard of the stream."""
    return min(rate * (setup.stream_shards if mode == DIRECT else 1), setup.allowed)


def _gathers(traffic: Traffic, setup: Setup, packing: Packing) -> bool:
    """Whether what waits on the stream during a pass is one more pass, however much it is."""
    twice = 2 * packing.messages <= most_in_a_post(traffic, setup)
    return packing.waited or (traffic.frames == 1 and twice)


def _wait(busy: float, occupied: float, *, gathers: bool) -> float:
    if busy >= 1:
        return inf
    queued = busy * occupied / (2 * (1 - busy))
    return min(queued, occupied / 2) if gathers else queued


def _behind(traffic: Traffic, setup: Setup) -> Speed | None:
    """One function that keeps up by sending together what waits on the stream, if fuller posts suffice for it.

    In one invocation: what is continued elsewhere is no longer on the stream, and gathers nothing.
    """
    fullest = packed(traffic, setup, most_in_a_post(traffic, setup))
    least = _together(setup, DIRECT, speed(traffic, setup, DIRECT, fullest).rate)
    packing = behind(traffic, setup, least)
    found = None if packing is None else speed(traffic, setup, DIRECT, packing)
    return found if found is not None and not found.hops else None


def _pace(traffic: Traffic, setup: Setup, engine: float, each: float, functions: int, packing: Packing) -> str:
    if each < engine:
        return "account quota" if setup.allowed / functions <= each else "share of the quota"
    places = min(setup.concurrency, ceil(traffic.clients / functions))
    in_flight = places / mean_latency(traffic.latency)
    return "one vCPU" if cpu_per_post(setup, packing) * in_flight > 1 else "posts in flight"


def page_seconds(traffic: Traffic, setup: Setup, mode: str) -> float:
    """Until the first page of the table is there: a short one comes sooner."""
    rows = traffic.clients / (setup.shards if mode == FANOUT else 1)
    return PAGE_SECONDS * (0.2 + 0.8 * min(1.0, rows * ROW_BYTES / PAGE_BYTES))


def dispatch_seconds(setup: Setup) -> float:
    """One job per shard, ten to a call, call after call."""
    return ceil(setup.shards / SEND_BATCH) * SEND_SECONDS


def load(traffic: Traffic, setup: Setup, pace: Speed) -> Load:
    """The load of each service; bursts that come while others are served share a read of the table."""
    fans_out = pace.mode == FANOUT
    packing = pace.packing
    batches = _batches(traffic, packing)
    passes = _passes(traffic, setup, pace)
    fastest = max(1 / dispatch_seconds(setup), traffic.messages_per_second / setup.batch)
    dispatched = min(batches, fastest)
    parts = ceil(_of_a_batch(packing) * message_bytes(traffic, setup) / JOB_BYTES)
    jobs = dispatched * setup.shards * parts if fans_out else 0.0
    workers = passes * setup.shards / setup.groups_per_batch if fans_out else passes
    connects = traffic.connects_per_second
    readers = setup.shards if fans_out else 1
    requests, units = reads(traffic, setup, readers)
    if setup.auto_clients is not None:
        units += min(traffic.clients, setup.auto_clients) * ROW_BYTES / READ_UNIT_BYTES / 2 / 60 / max(passes, 1 / 60)
    entries, written = published(traffic, setup, packing) if setup.feed else (0.0, 0.0)
    own = INVOKE_SECONDS + page_seconds(traffic, setup, pace.mode)
    posts = posts_per_second(traffic, packing)
    served = min(posts, pace.rate if fans_out else pace.rate * setup.stream_shards)
    return Load(
        deliveries=traffic.deliveries_per_second,
        posts=posts,
        metered=posts * packing.metered / packing.posts,
        passes=passes,
        jobs=jobs,
        invocations=workers + (dispatched if fans_out else 0.0),
        function_seconds=served / pace.each
        + workers * own
        + (dispatched * (dispatch_seconds(setup) + INVOKE_SECONDS) if fans_out else 0.0),
        sqs_requests=_sqs(traffic, setup, packing, jobs, workers) if fans_out else 0.0,
        dynamodb_requests=passes * requests + 2 * connects + entries,
        dynamodb_read_units=passes * units,
        dynamodb_write_units=connects * (4 if setup.index else 2) + written,
    )


def _batches(traffic: Traffic, packing: Packing) -> float:
    """Batches of the stream per second."""
    return traffic.messages_per_second / packing.messages * packing.batches


def _of_a_batch(packing: Packing) -> float:
    """Messages of one batch: all but the last of a large burst are full."""
    return packing.messages / packing.batches


def published(traffic: Traffic, setup: Setup, packing: Packing) -> tuple[float, float]:
    """Entries of the feed and write units, per second: messages of one batch share entries."""
    message, inside = message_bytes(traffic, setup) + 1, _of_a_batch(packing)
    together = max(1, min(ceil(inside), ENTRY_BYTES // message))
    full, rest = divmod(inside, together)
    units = full * _write_units(together * message) + (_write_units(rest * message) if rest else 0)
    batches = _batches(traffic, packing)
    return batches * (full + bool(rest)), batches * units


def _write_units(size: float) -> int:
    return ceil((ENTRY_ROOM + size) / WRITE_UNIT_BYTES)


def _passes(traffic: Traffic, setup: Setup, pace: Speed) -> float:
    """Reads of the whole table per second: one per batch, fewer where bursts wait for each other."""
    packing = pace.packing
    batches = _batches(traffic, packing)
    if packing.waited:
        return batches
    own = INVOKE_SECONDS + page_seconds(traffic, setup, pace.mode)
    most = queue_batch(setup.groups_per_batch) * _of_a_batch(packing) if pace.mode == FANOUT else setup.batch
    idle = (1 - min(1.0, pace.utilisation)) / own
    served = traffic.messages_per_second / max(1.0, pace.utilisation)
    return min(batches, max(idle, served / most))


def reads(traffic: Traffic, setup: Setup, readers: int) -> tuple[float, float]:
    """Requests and read units of one pass over the table.

    A consistent Scan takes a unit for each 4 KB; a Query of the index, whose rows are smaller, half a unit
    (DynamoDB Developer Guide, "Read consistency"). While rows may lack their shard the index is not read.
    """
    queried = setup.index and not setup.sweep and readers > 1
    row, share = (INDEX_ROW_BYTES, 0.5) if queried else (ROW_BYTES, 1.0)
    each = traffic.clients * row / readers
    return readers * max(1, ceil(each / PAGE_BYTES)), readers * max(1, ceil(each / READ_UNIT_BYTES)) * share


def _sqs(traffic: Traffic, setup: Setup, packing: Packing, jobs: float, workers: float) -> float:
    """Requests as they are billed: each 64 KB is one; ten jobs to a send; a receive and a delete an invocation."""
    body = min(JOB_BYTES, _of_a_batch(packing) * message_bytes(traffic, setup))
    sends = max(jobs / min(SEND_BATCH, setup.shards), jobs * body / SQS_CHUNK)
    return sends + max(workers, jobs * body / SQS_CHUNK) + workers + 5 / 20


def limits(traffic: Traffic, setup: Setup, pace: Speed, sent: Load) -> tuple[Limit, ...]:
    """Every limit, used and available."""
    posters = pace.functions if pace.mode == FANOUT else setup.stream_shards
    each = sent.posts / posters
    more = "FanoutWorkers and FanoutShards" if pace.mode == FANOUT else "FanoutMode=fanout"
    busy = posters + setup.stream_shards + RETRY_WORKERS + traffic.connects_per_second * CONNECT_SECONDS
    found = [
        Limit(
            "account quota",
            sent.posts,
            setup.allowed,
            "posts/s",
            "the API Gateway quota (Service Quotas, throttle rate), or send less: Coalesce=latest, smaller audiences",
        ),
        Limit("one vCPU", each, 1 / cpu_per_post(setup, pace.packing), "posts/s a function", more),
        Limit(
            "posts in flight",
            each * mean_latency(traffic.latency),
            setup.concurrency,
            "in flight a function",
            f"MaxConcurrency (costs memory and sockets), or {more}",
        ),
        Limit("Lambda concurrency", busy, setup.lambda_concurrency, "functions", "the Lambda quota"),
        Limit(
            "one invocation",
            _longest(pace.packing, setup, pace.work),
            USABLE,
            "s a batch",
            f"{_quicker(traffic, setup, pace)}: until then continuations",
        ),
        Limit("new connections", traffic.connects_per_second, NEW_CONNECTIONS, "a second", "the API Gateway quota"),
        Limit("stream shards", *_stream(traffic, setup, pace), "records/s", "bursts into larger batches; see docs"),
        Limit("DynamoDB table", sent.dynamodb_read_units, TABLE_READS, "read units/s", "the table's read quota"),
    ]
    if pace.mode == FANOUT:
        found.append(
            Limit("FIFO group", sent.jobs / setup.shards, FIFO_CALLS, "jobs/s a group", "larger bursts: fewer jobs")
        )
        if setup.index and not setup.sweep:
            hot = sent.passes * reads(traffic, setup, setup.shards)[1] / setup.shards
            found.append(Limit("index partition", hot, PARTITION_READS, "read units/s", "FanoutShards"))
    return tuple(found)


def _quicker(traffic: Traffic, setup: Setup, pace: Speed) -> str:
    """What makes a burst sooner done: of workers only where they are quicker."""
    fans_out = pace.mode == FANOUT
    own = {
        "posts in flight": "MaxConcurrency" if setup.concurrency < MOST_IN_FLIGHT else "",
        "one vCPU": "",
        "share of the quota": MORE_SHARDS if fans_out else "the quota, StreamShards=1 for broadcasts that come alone",
    }.get(pace.pace, "the quota")
    workers = "" if fans_out or speed(traffic, setup, FANOUT).work >= pace.work else "FanoutMode=fanout"
    return " or ".join(filter(None, (own, workers))) or "FanoutWorkers and FanoutShards"


def _stream(traffic: Traffic, setup: Setup, pace: Speed) -> tuple[float, float]:
    """Records per second, and how many all shards could hand on, each one batch at a time, if posting took no time."""
    work = dispatch_seconds(setup) if pace.mode == FANOUT else page_seconds(traffic, setup, DIRECT)
    batch = INVOKE_SECONDS + work
    return traffic.messages_per_second, setup.stream_shards * setup.batch / batch


def plan(traffic: Traffic, setup: Setup, mode: str) -> Plan:
    """Everything about one mode, DIRECT or FANOUT."""
    pace = speed(traffic, setup, mode)
    if mode == DIRECT and pace.utilisation >= 1:
        pace = _behind(traffic, setup) or pace
    sent = load(traffic, setup, pace)
    return Plan(traffic, setup, pace, sent, limits(traffic, setup, pace, sent), costs(traffic, setup, sent))
