"""What ``template.yaml`` has people see: alarms that lead to the runbook, a dashboard, and what both cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from cloudformation import ROOT, Stack, template
from documented_commands import WRITTEN

from async_relay.delivery.report import Outcome, Report
from async_relay.metrics import NAMESPACE, name_of
from async_relay.planning.prices import MILLION, PRICES
from async_relay.wire.jobs import Job, Shard
from async_relay.wire.messages import Message

EXISTING = {
    "IncidentStreamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2026-01-01T00:00:00.000",
    "ConnectionsTableName": "WebSocketConnections",
    "WebSocketApiId": "kote8jrryb",
}
JWT = {"AuthMode": "jwt", "AuthIssuer": "https://issuer.example.com", "AuthAudience": "relay"}
MOST = JWT | {"FanoutMode": "fanout", "HeartbeatMinutes": "5"}
STACKS = {
    "least": {},
    "most": MOST,
    "queue": MOST | {"StreamFailureDestination": "queue"},
    "existing": EXISTING | {"FanoutMode": "auto"},
    "rolled out": MOST | {"Revision": "v1.2.0", "Rollout": "Canary10Percent5Minutes"},
}
each_stack = pytest.mark.parametrize("parameters", STACKS.values(), ids=STACKS)

WATCHING = ROOT / "docs" / "watching.md"

#: Dollars a month, as CloudWatch's price list has them for us-east-1; it bills by the hour in which there are data.
METRIC, ALARM, DASHBOARD = 0.30, 0.10, 3.00

#: What AWS documents, by namespace and dimensions: the developer guides of Lambda ("Types of metrics for Lambda
#: functions", "Event source mapping metrics"), SQS ("Available CloudWatch metrics") and API Gateway ("Monitor
#: WebSocket API execution").
OF_AWS: dict[tuple[str, tuple[str, ...]], set[str]] = {
    ("AWS/Lambda", ("FunctionName",)): {"Errors", "Throttles", "Duration", "Invocations", "IteratorAge"},
    ("AWS/Lambda", ("FunctionName", "Resource", "ExecutedVersion")): {"Errors", "Invocations"},
    ("AWS/Lambda", ("EventSourceMappingUUID",)): {"OnFailureDestinationDeliveredEventCount", "DroppedEventCount"},
    ("AWS/SQS", ("QueueName",)): {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesVisible",
    },
    ("AWS/ApiGateway", ("ApiId", "Stage")): {
        "ConnectCount",
        "MessageCount",
        "IntegrationError",
        "ClientError",
        "ExecutionError",
        "IntegrationLatency",
    },
}


def emitted() -> set[str]:
    """Every metric of the relay's own: those of a broadcast that has all figures, and the feed's."""
    job = Job((Message.encode({}),), shard=Shard(), written_at=1)
    report = Report((Outcome(job, [1]),), rate_limit=1.0, served_at=2)
    return {name_of(figure) for figure in [*report.figures(), "published"]}


def exists(namespace: str, metric: str, dimensions: dict[str, str]) -> bool:
    """Whether there is such a metric; the relay's bear the stack's name."""
    if namespace == NAMESPACE:
        return metric in emitted() and dimensions == {"service": "relay"}
    return metric in OF_AWS.get((namespace, tuple(dimensions)), ())


def alarms(**parameters: str) -> dict[str, Any]:
    return Stack(**parameters).of("CloudWatch::Alarm")


def metrics_of(alarm: Any) -> list[Any]:
    """What an alarm watches, each with namespace, name and dimensions; several where it reckons with them."""
    return [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", []) if "MetricStat" in each] or [alarm]


def dimensions_of(metric: Any) -> dict[str, str]:
    return {each["Name"]: each["Value"] for each in metric["Dimensions"]}


def anchors() -> set[str]:
    headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ── alarms ──────────────────────────────────────────────────────────────────────────────────────


@each_stack
def test_every_alarm_watches_a_metric_that_somebody_writes(parameters: dict[str, str]) -> None:
    """The relay, or AWS as it documents it: an alarm on a name that nobody writes is never heard."""
    for name, alarm in alarms(**parameters).items():
        for metric in metrics_of(alarm):
            assert exists(metric["Namespace"], metric["MetricName"], dimensions_of(metric)), name


@each_stack
def test_every_alarm_names_its_entry_of_the_runbook(parameters: dict[str, str]) -> None:
    """In the text that whoever is called reads first; and the table of alarms has the same entry."""
    table = dict(re.findall(r"^\| `(\w+)` \|.*\(operations\.md#([\w-]+)\) \|$", WATCHING.read_text(), re.MULTILINE))
    for name, alarm in alarms(**parameters).items():
        (anchor,) = re.findall(r"See docs/operations\.md#([\w-]+)$", alarm["AlarmDescription"])
        assert anchor in anchors(), name
        assert table[name] == anchor, name


@each_stack
def test_errors_and_throttles_of_every_function_ring(parameters: dict[str, str]) -> None:
    """Whatever the stack's parameters make: no function fails unheard."""
    stack = Stack(**parameters)
    watched = chain.from_iterable(map(metrics_of, alarms(**parameters).values()))
    heard = {(each["MetricName"], *dimensions_of(each).values()) for each in watched}
    for function in stack.functions():
        assert {("Errors", function), ("Throttles", function)} <= heard


def test_alarms_tell_the_topic() -> None:
    """Where there is one; without it they change colour."""
    topic = "arn:aws:sns:eu-west-1:123456789012:oncall"
    assert all(each["AlarmActions"] == [topic] for each in alarms(**MOST, AlarmTopicArn=topic).values())
    assert all("AlarmActions" not in each for each in alarms(**MOST).values())


def test_the_relays_own_metrics_are_of_this_stack_alone() -> None:
    """Their dimension is what the functions of this stack, and of no other, call themselves."""
    for function in Stack(**MOST).functions().values():
        assert function["Environment"]["POWERTOOLS_SERVICE_NAME"] == "relay"


def test_the_alarms_on_stream_failures() -> None:
    """A failure in the bucket rings for an hour, a queue as long as it holds one, and a loss rings for either."""
    for name in ("StreamFailureAlarm", "StreamLossAlarm"):
        alarm = alarms()[name]
        assert (alarm["DatapointsToAlarm"], alarm["EvaluationPeriods"] * alarm["Period"]) == (1, 3600)
    queue = alarms(StreamFailureDestination="queue")
    assert dimensions_of(queue["StreamFailureQueueAlarm"]) == {"QueueName": "StreamFailureQueue.QueueName"}
    assert "StreamLossAlarm" in queue
    assert "StreamFailureAlarm" not in queue


def test_who_waits_on_purpose_is_not_late() -> None:
    """LateSeconds, a whole number, moves every alarm on age with it; that of the stream counts milliseconds."""
    found = alarms(**MOST, StreamBatchingWindowSeconds="300", LateSeconds="400")
    late = {name: int(found[name]["Threshold"]) for name in ("LateAlarm", "FanoutAgeAlarm", "IteratorAgeAlarm")}
    assert late == {"LateAlarm": 400, "FanoutAgeAlarm": 400, "IteratorAgeAlarm": 400_000}


@pytest.mark.parametrize("minutes", template()["Parameters"]["HeartbeatMinutes"]["AllowedValues"][1:])
def test_what_runs_seldom_is_heard_when_it_fails_each_time(minutes: str) -> None:
    """A heartbeat at each of its minutes, and a job, or all of the fan-out, each time it is visible again."""
    stack = Stack(**MOST | {"HeartbeatMinutes": minutes})
    read = [each for each in stack.of("SQS::Queue").values() if "RedrivePolicy" in each]
    hidden = max(int(each["VisibilityTimeout"]) // 60 for each in read)
    apart = {"HeartbeatErrorsAlarm": int(minutes), "HeartbeatThrottlesAlarm": int(minutes)}
    apart |= dict.fromkeys(("DeliverErrorsAlarm", "FanoutErrorsAlarm", "SystemicAlarm"), hidden)
    for name, between in apart.items():
        alarm = stack.of("CloudWatch::Alarm")[name]
        looked_at, wanted = alarm["EvaluationPeriods"], alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
        assert alarm["Period"] == 60
        # A minute more: a queue's job comes a little after it is visible.
        assert len(range(0, looked_at - 1, between + (name[0] != "H"))) >= wanted, name


def hears(alarm: Any, minutes: set[int]) -> bool:
    """Whether it rings, where these minutes are above the threshold and the others are not, or have no data."""
    assert (alarm["Period"], alarm["TreatMissingData"]) == (60, "notBreaching")
    looked_at = alarm["EvaluationPeriods"]
    wanted = alarm.get("DatapointsToAlarm", looked_at)
    return any(len(minutes & set(range(last - looked_at + 1, last + 1))) >= wanted for last in minutes)


@pytest.mark.parametrize("between", range(1, 10))
def test_changes_that_are_late_are_heard_of_however_few_there_are(between: int) -> None:
    """Every few minutes one: the minutes without a change have no Age, and are not in time for it."""
    alarm = alarms()["LateAlarm"]
    assert hears(alarm, {0, between, 2 * between})
    assert not hears(alarm, {0})
    assert not hears(alarm, {0, between})


def test_a_job_that_comes_back_shows_in_other_alarms_than_that_on_age() -> None:
    """SQS leaves what was received three times out of its oldest age, which is before half an hour is over.

    Source: SQS Developer Guide, "Available CloudWatch metrics for Amazon SQS".
    """
    stack = Stack()
    queue, found = stack.properties("RetryQueue"), stack.of("CloudWatch::Alarm")
    counted = 900 + 2 * int(queue["VisibilityTimeout"])  # the longest delay, and until it is received a third time
    assert counted < int(found["RetryAgeAlarm"]["Threshold"])
    apart = int(queue["VisibilityTimeout"]) // 60 + 1
    for name in ("SystemicAlarm", "DeliverErrorsAlarm"):
        assert hears(found[name], {0, apart, 2 * apart}), name
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == "DeadLetterQueue.Arn"
    assert dimensions_of(found["DeadLetterAlarm"]) == {"QueueName": "DeadLetterQueue.QueueName"}
    text = " ".join(WATCHING.read_text().split("`RetryAgeAlarm` sees")[1].split("\n\n")[0].split())
    named = {"SystemicAlarm", "DeliverErrorsAlarm", "DeliverThrottlesAlarm", "DeadLetterAlarm"}
    assert set(re.findall(r"`(\w+Alarm)`", text)) == named
    hours = round(queue["RedrivePolicy"]["maxReceiveCount"] * int(queue["VisibilityTimeout"]) / 3600)
    assert (queue["RedrivePolicy"]["maxReceiveCount"], hours) == (60, 6)


def test_alarms_and_the_dashboard_can_be_left_out() -> None:
    """Each by its parameter; and a local AWS, which has not the metrics, gets neither."""
    assert not alarms(Alarms="false")
    assert Stack(Alarms="false").of("CloudWatch::Dashboard")
    without = Stack(MetricsDashboard="off")
    assert not without.of("CloudWatch::Dashboard")
    assert "MetricsDashboard" not in without.outputs
    assert without.of("CloudWatch::Alarm")
    local = Stack(LocalEndpoint="http://127.0.0.1:4566")
    assert not local.of("CloudWatch::Alarm") | local.of("CloudWatch::Dashboard")


# ── the dashboard ───────────────────────────────────────────────────────────────────────────────


def widgets(**parameters: str) -> list[Any]:
    (dashboard,) = Stack(**parameters).of("CloudWatch::Dashboard").values()
    assert dashboard["DashboardName"] == "relay-eu-west-1"
    found: list[Any] = json.loads(dashboard["DashboardBody"])["widgets"]
    return found


def rows(widget: Any) -> Iterator[tuple[str, str, dict[str, str]]]:
    """The metrics of a widget, with what "." and "..." stand for: the same as in the row before."""
    before: list[str] = []
    for row in widget["properties"]["metrics"]:
        words = [each for each in row if isinstance(each, str)]
        if not words:
            continue  # an expression
        if words[0] == "...":
            words = before[: len(before) - len(words) + 1] + words[1:]
        words = [before[at] if each == "." else each for at, each in enumerate(words)]
        before = words
        yield words[0], words[1], dict(zip(words[2::2], words[3::2], strict=True))


def shown(**parameters: str) -> list[tuple[str, str, dict[str, str]]]:
    return list(chain.from_iterable(rows(each) for each in widgets(**parameters) if each["type"] == "metric"))


@each_stack
def test_the_dashboard_shows_metrics_that_exist(parameters: dict[str, str]) -> None:
    """Its JSON is valid, each metric is one that somebody writes, and each resource one of this stack."""
    stack = Stack(**parameters)
    known = {*stack.functions(), *(f"{name}.QueueName" for name in stack.of("SQS::Queue"))}
    known |= {"relay", "prod", parameters.get("WebSocketApiId", "WebSocketApi")}
    for namespace, metric, dimensions in shown(**parameters):
        assert exists(namespace, metric, dimensions), (namespace, metric, dimensions)
        assert known.issuperset(dimensions.values()), dimensions


@each_stack
def test_the_dashboard_has_every_function_and_every_queue_with_what_nobody_got(parameters: dict[str, str]) -> None:
    """However many of them the stack has."""
    stack, seen = Stack(**parameters), shown(**parameters)
    for function in stack.functions():
        for metric in ("Errors", "Throttles", "Duration"):
            assert ("AWS/Lambda", metric, {"FunctionName": function}) in seen
    for queue in stack.of("SQS::Queue"):
        depth = ("AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": f"{queue}.QueueName"})
        age = ("AWS/SQS", "ApproximateAgeOfOldestMessage", {"QueueName": f"{queue}.QueueName"})
        assert depth in seen or age in seen, queue


def test_the_dashboard_answers_what_is_asked_first() -> None:
    """Systemic failures, 429 by kind, the rate limit, deliveries, gone, parked, age, and the age in the stream."""
    seen = {metric for _, metric, _ in shown()}
    assert seen >= {"Systemic", "Throttled", "AccountThrottled", "RateLimit", "Delivered", "Gone", "LeftOver", "Age"}
    assert seen >= {"IteratorAge", "IntegrationError", "ExecutionError"}
    (age,) = [each["properties"] for each in widgets() if each["properties"].get("title", "").startswith("Age")]
    assert [row[-1]["stat"] for row in age["metrics"]] == ["p50", "p99"]


def test_an_expression_names_what_its_widget_has() -> None:
    """By ids, each of which is there once."""
    for widget in widgets(**MOST):
        options = [each for row in widget["properties"].get("metrics", []) for each in row if isinstance(each, dict)]
        ids = [each["id"] for each in options if "id" in each]
        assert len(ids) == len(set(ids))
        for expression in (each["expression"] for each in options if "expression" in each):
            prefixes = re.findall(r'METRICS\("(\w+)"\)', expression)
            named = re.findall(r"\b[a-z]\w*", re.sub(r'"\w+"', "", expression))
            assert set(named) <= set(ids)
            assert all(any(each.startswith(prefix) for each in ids) for prefix in prefixes)
            assert prefixes or named


def test_the_widgets_fill_the_page_and_overlap_nowhere() -> None:
    """In a grid of 24 columns."""
    cells = [
        (x, y)
        for each in widgets(**MOST)
        for x in range(each["x"], each["x"] + each["width"])
        for y in range(each["y"], each["y"] + each["height"])
    ]
    assert len(cells) == len(set(cells)) == 24 * (1 + max(y for _, y in cells))


@each_stack
def test_the_cost_estimate_has_the_plans_prices(parameters: dict[str, str]) -> None:
    """A message of API Gateway's and a GB-second of the functions that post, which have the memory it says."""
    (cost,) = [each for each in widgets(**parameters) if each["properties"].get("title", "").startswith("Cost")]
    messages, time = [row[0]["expression"] for row in cost["properties"]["metrics"] if len(row) == 1]
    assert float(messages.split(" * ")[1]) == PRICES["api gateway message"].of(MILLION) / MILLION
    *_, memory, gb = re.findall(r"[\d.]+", time)[:-1]
    assert float(time.split(" * ")[-1]) == PRICES["lambda gb-second"].of(1)
    functions = Stack(**parameters).functions()
    timed = [dimensions["FunctionName"] for _, metric, dimensions in rows(cost) if metric == "Duration"]
    assert {functions[name]["MemorySize"] for name in timed} == {int(memory)}
    assert int(gb) == 1024
    posting = {"RelayFunction", "DeliverFunction", "FanoutFunction", "HeartbeatFunction"}
    assert set(timed) == posting & functions.keys()


# ── the costs of watching ───────────────────────────────────────────────────────────────────────


def test_the_document_names_every_metric() -> None:
    """Each that the relay writes stands in the table of metrics, and none that it does not."""
    text = WATCHING.read_text()
    section = text.split("\n## Metrics\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == emitted()


def test_the_document_says_what_watching_costs() -> None:
    """So many metrics, and alarms of the least and the most that a stack may have, by CloudWatch's prices."""
    text = " ".join(WATCHING.read_text().split())
    metrics, least, most = len(emitted()), len(alarms()), len(alarms(**MOST))
    every = {name: sum(len(metrics_of(alarm)) for alarm in alarms(**each).values()) for name, each in STACKS.items()}
    assert max(len(alarms(**parameters)) for name, parameters in STACKS.items() if name != "rolled out") == most
    assert f"{metrics} metrics at $0.30 are ${metrics * METRIC:.2f}" in text
    alone, together = (every[name] * ALARM for name in ("least", "most"))
    assert f"{least} to {most} alarms are ${alone:.2f} to ${together:.2f}, by $0.10 for each metric" in text
    assert f"a rollout's two up to ${(every['rolled out'] - every['most']) * ALARM:.2f} more" in text
    assert f"the dashboard is ${DASHBOARD:.0f}" in text


def test_no_document_names_an_alarm_that_is_not_there() -> None:
    """Nor is one of them left out of the tables."""
    every = set(chain.from_iterable(alarms(**parameters) for parameters in STACKS.values()))
    named = set(chain.from_iterable(re.findall(r"`(\w+Alarm)`", path.read_text()) for path in WRITTEN))
    assert named == every
