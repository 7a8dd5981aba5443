"""The metrics CloudWatch sees."""

from __future__ import annotations

import json
import sys

import pytest

from async_relay.metrics import NAMESPACE, emit


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


@pytest.mark.parametrize(
    ("name", "service"), [(None, "async-relay"), (" ", "async-relay"), ("relay-of-two", "relay-of-two")]
)
def test_the_figures_bear_the_services_name(
    name: str | None, service: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stack's, so that two of them do not mix; ours where none is given, not Powertools' default."""
    if name is not None:
        monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", name)
    emit({"posts": 1})
    fields = json.loads(capsys.readouterr().out)
    assert (fields["service"], NAMESPACE) == (service, "AsyncRelay")
    assert fields["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [["service"]]


def test_where_powertools_cannot_be_loaded_there_are_no_metrics_and_a_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was delivered is delivered: nothing is raised, and the log says what is missing."""
    monkeypatch.setitem(sys.modules, "aws_lambda_powertools.metrics", None)
    emit({"posts": 1})
    assert capsys.readouterr().out == ""
    assert [each.getMessage() for each in caplog.records] == ["no metrics: Powertools cannot be loaded"]


def test_an_age_is_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a dashboard writes it as a time."""
    emit({"age": 1.5})
    (metric,) = json.loads(capsys.readouterr().out)["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    assert metric == {"Name": "Age", "Unit": "Seconds"}
