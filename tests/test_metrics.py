"""The metrics CloudWatch sees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from async_relay.metrics import NAMESPACE, emit

if TYPE_CHECKING:
    import pytest


def test_a_broadcast_is_one_line_of_embedded_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """Each figure is a metric of the namespace, and nothing is left for the next broadcast."""
    for posts in (7, 0):
        emit({"posts": posts, "left_over": 2, "most_in_flight": 5, "rate_limit": 400.5})
        (line,) = capsys.readouterr().out.splitlines()
        fields = json.loads(line)
        (directive,) = fields["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]} == {
            "Posts": "Count",
            "LeftOver": "Count",
            "MostInFlight": "None",
            "RateLimit": "Count/Second",
        }
        assert fields["Posts"] == [posts]
