"""The figures of each broadcast as CloudWatch metrics, in one line of Embedded Metric Format."""

from __future__ import annotations

from collections.abc import Mapping

from .logs import SERVICE

NAMESPACE = "AsyncRelay"
_UNITS = {"most_in_flight": "None", "rate_limit": "Count/Second"}


def emit(figures: Mapping[str, float]) -> None:
    """Print one line; CloudWatch makes the metrics of it, named like the figures in CamelCase."""
    # After the first broadcast, not before it: the import would delay the first post by 40 ms.
    from aws_lambda_powertools.metrics import EphemeralMetrics

    metrics = EphemeralMetrics(namespace=NAMESPACE, service=SERVICE)
    for name, value in figures.items():
        metrics.add_metric(name.title().replace("_", ""), unit=_UNITS.get(name, "Count"), value=value)
    metrics.flush_metrics()
