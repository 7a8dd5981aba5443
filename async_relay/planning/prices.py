"""Prices in US dollars: one table, for us-east-1, with the date and the source of each.

``checked`` says how far to trust a price:
- ``vendor``: on the vendor's own page or documentation, in a stored copy.
- ``others``: repeated by independent pages of this year; the vendor's page shows no number without scripts.
- ``memory``: from memory, check before relying on it.

No free tier is taken off, and no discount: the plan errs on the dear side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

#: When the table was last gone through.
DATED = "2026-11-23"
REGION = "us-east-1"

MILLION = 1e6
#: 8,760 hours of a year by twelve, as AWS's own calculator has it.
HOURS_A_MONTH = 730.0
SECONDS_A_MONTH = HOURS_A_MONTH * 3600


@dataclass(frozen=True, slots=True)
class Price:
    """So much for each ``unit``; ``tiers`` are (units up to which it holds, dollars for one), the last without end."""

    unit: str
    tiers: tuple[tuple[float, float], ...]
    source: str
    checked: str

    def of(self, quantity: float) -> float:
        """The cost of a month's quantity, in units."""
        total, start = 0.0, 0.0
        for end, dollars in self.tiers:
            total += max(0.0, min(quantity, end) - start) * dollars
            start = end
        return total


def _flat(unit: str, dollars: float, source: str, checked: str, units: float = 1.0) -> Price:
    return Price(unit, ((inf, dollars / units),), source, checked)


def _tiered(unit: str, tiers: tuple[tuple[float, float], ...], source: str, checked: str, units: float = 1.0) -> Price:
    return Price(unit, tuple((end, dollars / units) for end, dollars in tiers), source, checked)


_API_GATEWAY = "aws.amazon.com/api-gateway/pricing"
_LAMBDA = "aws.amazon.com/lambda/pricing"
_DYNAMODB = "aws.amazon.com/dynamodb/pricing/on-demand"
_SQS = "aws.amazon.com/sqs/pricing"
_IOT = "aws.amazon.com/iot-core/pricing"
_APPSYNC = "aws.amazon.com/appsync/pricing"

#: Keyed by what is counted. Millions are divided out: a price is for one unit.
PRICES: Mapping[str, Price] = {
    "api gateway message": _tiered(
        "message of up to 32 KB", ((1e9, 1.00), (inf, 0.80)), _API_GATEWAY, "others", MILLION
    ),
    "api gateway minute": _flat("connection minute", 0.25, _API_GATEWAY, "others", MILLION),
    "lambda request": _flat("request", 0.20, _LAMBDA, "others", MILLION),
    "lambda gb-second": _tiered(
        "GB-second, arm64",
        ((7.5e9, 0.0000133334), (18.75e9, 0.0000120001), (inf, 0.0000106667)),
        _LAMBDA,
        "others",
    ),
    "dynamodb read": _flat("read request unit, on demand", 0.125, _DYNAMODB, "others", MILLION),
    "dynamodb write": _flat("write request unit, on demand", 0.625, _DYNAMODB, "others", MILLION),
    # "Read requests made by AWS Lambda-based consumers of DynamoDB Streams are free."
    "dynamodb stream read": _flat(
        "GetRecords by Lambda",
        0.0,
        "docs.aws.amazon.com/amazondynamodb: CostOptimization_StreamsUsage",
        "vendor",
    ),
    "sqs fifo request": _flat("request of up to 64 KB", 0.50, _SQS, "others", MILLION),
    "logs gb": _flat("GB taken in", 0.50, "aws.amazon.com/cloudwatch/pricing", "others"),
    "transfer gb": _tiered(
        "GB out to the internet",
        ((10_240, 0.09), (51_200, 0.085), (153_600, 0.07), (inf, 0.05)),
        "aws.amazon.com/ec2/pricing/on-demand, Data Transfer",
        "others",
    ),
    "appsync operation": _flat("operation of up to 5 KB", 1.00, _APPSYNC, "others", MILLION),
    "appsync minute": _flat("connection minute", 0.08, _APPSYNC, "others", MILLION),
    "iot message": _tiered(
        "message of up to 5 KB",
        ((1e9, 1.00), (5e9, 0.80), (inf, 0.70)),
        f"{_IOT} (tiers from memory)",
        "others",
        MILLION,
    ),
    "iot minute": _flat("connection minute", 0.08, _IOT, "others", MILLION),
    "machine hour": _flat(
        "c7g.xlarge, 4 vCPU, 8 GB, on demand", 0.145, "aws.amazon.com/ec2/pricing/on-demand", "others"
    ),
    "balancer hour": _flat("Network Load Balancer", 0.0225, "aws.amazon.com/elasticloadbalancing/pricing", "memory"),
    "balancer unit hour": _flat(
        "NLCU: 100,000 TCP connections, 800 new ones a second or 1 GB an hour",
        0.006,
        "aws.amazon.com/elasticloadbalancing/pricing",
        "memory",
    ),
}

#: A GB as data transfer is counted.
GB = 2.0**30

#: Centrifugo served a million connections and 500,000 messages a second from 20 pods with Redis
#: (centrifugal.dev/blog/2020/02/10/million-connections-with-centrifugo). That one pod needs one
#: machine of the kind above is our assumption. The balancer's numbers are those of its unit, in the table above.
CENTRIFUGO_CONNECTIONS = 50_000
CENTRIFUGO_MESSAGES = 25_000.0
BALANCER_CONNECTIONS = 100_000
BALANCER_NEW = 800.0
