"""Dollars per month: the relay by service, and other ways to send the same. Pure."""

from __future__ import annotations

from math import ceil

from .packing import message_bytes
from .prices import (
    BALANCER_CONNECTIONS,
    BALANCER_NEW,
    CENTRIFUGO_CONNECTIONS,
    CENTRIFUGO_MESSAGES,
    GB,
    HOURS_A_MONTH,
    PRICES,
    SECONDS_A_MONTH,
)
from .values import (
    CONNECT_GB,
    CONNECT_SECONDS,
    LOG_BYTES,
    MEMORY_GB,
    POLL,
    POST_ROOM,
    SMALL_CHUNK,
    Load,
    Setup,
    Traffic,
)


def costs(traffic: Traffic, setup: Setup, sent: Load) -> dict[str, float]:
    """Dollars per month by service."""
    connects = traffic.connects_per_second * SECONDS_A_MONTH
    seconds = sent.function_seconds * SECONDS_A_MONTH * MEMORY_GB + 2 * connects * CONNECT_SECONDS * CONNECT_GB
    invocations = sent.invocations * SECONDS_A_MONTH + 2 * connects
    return {
        "API Gateway messages": _price("api gateway message", sent.metered * SECONDS_A_MONTH),
        "API Gateway connections": _price("api gateway minute", _minutes(traffic)),
        "Lambda": _price("lambda request", invocations) + _price("lambda gb-second", seconds),
        "DynamoDB": _price("dynamodb read", sent.dynamodb_read_units * SECONDS_A_MONTH)
        + _price("dynamodb write", sent.dynamodb_write_units * SECONDS_A_MONTH),
        "DynamoDB stream": _price("dynamodb stream read", setup.stream_shards * SECONDS_A_MONTH / POLL),
        "SQS": _price("sqs fifo request", sent.sqs_requests * SECONDS_A_MONTH),
        "CloudWatch logs": _price("logs gb", invocations * LOG_BYTES / GB),
        "Data transfer": _transfer(traffic, message_bytes(traffic, setup), sent.posts),
    }


def alternatives(traffic: Traffic) -> dict[str, dict[str, float]]:
    """Dollars per month of other ways to send the same; each needs a publisher instead of the relay."""
    return {"AppSync Events": _appsync(traffic), "IoT Core": _iot(traffic), "Centrifugo": _centrifugo(traffic)}


def _appsync(traffic: Traffic) -> dict[str, float]:
    chunks = ceil(traffic.payload / SMALL_CHUNK)
    operations = (
        traffic.deliveries_per_second + traffic.messages_per_second
    ) * chunks + 2 * traffic.connects_per_second
    return {
        "operations": _price("appsync operation", operations * SECONDS_A_MONTH),
        "connections": _price("appsync minute", _minutes(traffic)),
        "publishing": _publishing(traffic),
        "data transfer": _transfer(traffic, traffic.payload, traffic.deliveries_per_second),
    }


def _iot(traffic: Traffic) -> dict[str, float]:
    chunks = ceil(traffic.payload / SMALL_CHUNK)
    messages = (traffic.deliveries_per_second + traffic.messages_per_second) * chunks + 2 * traffic.connects_per_second
    return {
        "messages": _price("iot message", messages * SECONDS_A_MONTH),
        "connections": _price("iot minute", _minutes(traffic)),
        "publishing": _publishing(traffic),
        "data transfer": _transfer(traffic, traffic.payload, traffic.deliveries_per_second),
    }


def _centrifugo(traffic: Traffic) -> dict[str, float]:
    """Two machines at least, so that one may fail, and one with Redis between them."""
    peak = max(traffic.deliveries_per_second, traffic.clients * traffic.burst)
    nodes = max(2, ceil(traffic.clients / CENTRIFUGO_CONNECTIONS), ceil(peak / CENTRIFUGO_MESSAGES))
    gigabytes = traffic.deliveries_per_second * (traffic.payload + POST_ROOM) * 3600 / GB
    units = max(traffic.clients / BALANCER_CONNECTIONS, traffic.connects_per_second / BALANCER_NEW, gigabytes)
    return {
        "machines": _price("machine hour", (nodes + 1) * HOURS_A_MONTH),
        "load balancer": _price("balancer hour", HOURS_A_MONTH) + _price("balancer unit hour", units * HOURS_A_MONTH),
        "publishing": _publishing(traffic),
        "data transfer": _transfer(traffic, traffic.payload, traffic.deliveries_per_second),
    }


def _publishing(traffic: Traffic) -> float:
    """A small function on the stream that publishes each burst."""
    invocations = traffic.bursts_per_second * SECONDS_A_MONTH
    return _price("lambda request", invocations) + _price("lambda gb-second", invocations * 0.05 * CONNECT_GB)


def _minutes(traffic: Traffic) -> float:
    return traffic.clients * HOURS_A_MONTH * 60


def _transfer(traffic: Traffic, size: int, posts: float) -> float:
    """Every message, and what is around each post."""
    sent = (traffic.deliveries_per_second * size + posts * POST_ROOM) * SECONDS_A_MONTH
    return _price("transfer gb", sent / GB)


def _price(name: str, quantity: float) -> float:
    return PRICES[name].of(quantity)
