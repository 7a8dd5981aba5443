"""The figures of each broadcast as CloudWatch metrics, in one line of Embedded Metric Format."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from .logs import service

_log = logging.getLogger("async_relay")

NAMESPACE = "AsyncRelay"
_UNITS = {"most_in_flight": "None", "rate_limit": "Count/Second", "age": "Seconds"}


def name_of(figure: str) -> str:
    """The name of a figure's metric: the figure's own in CamelCase."""
    return figure.title().replace("_", "")


def emit(figures: Mapping[str, float]) -> None:
    """Print one line; CloudWatch makes the metrics of it, named like the figures in CamelCase."""
    # After the first broadcast, not before it: the import would delay the first post by 40 ms.
    try:
        from aws_lambda_powertools.metrics import EphemeralMetrics
    except Exception:  # noqa: BLE001 - what was delivered is delivered, whether it can be counted or not
        _log.exception("no metrics: Powertools cannot be loaded")
        return

    metrics = EphemeralMetrics(namespace=NAMESPACE, service=service())
    for name, value in figures.items():
        metrics.add_metric(name_of(name), unit=_UNITS.get(name, "Count"), value=value)
    metrics.flush_metrics()
