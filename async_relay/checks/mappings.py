"""The stream, and what makes Lambda read it and the queues: the event source mappings. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .deployment import DELIVER, RELAY, Deployment, Function, NotCheckedError, Unknown, asked, known
from .findings import Finding, note, ok, unchecked, wrong

STREAM, MAPPING = "stream", "mapping"
_SENT = ("INSERT", "MODIFY")
_VIEWS = ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")
_ON_THE_WAY = ("Creating", "Enabling", "Updating")
#: More than this one function could not write down in time who still lacks what (the template's own rule).
_MOST_AT_ONCE = 500
_AGAIN = "Deploy the stack again: the template sets it."


def stream(deployment: Deployment) -> Iterator[Finding]:
    """It is enabled, and has the new images."""
    described = known(deployment.stream)
    if described is None:
        yield wrong(
            STREAM,
            "The stream that the relay function is to read is gone.",
            "No change reaches the relay, so nobody gets anything.",
            "Give the table's LatestStreamArn as IncidentStreamArn: a stream that was turned off and on has a new one.",
        )
        return
    status, view = described["StreamStatus"], described["StreamViewType"]
    if status not in ("ENABLED", "ENABLING"):
        yield wrong(
            STREAM,
            f"It is {status}.",
            "No change that is made from now on reaches anybody.",
            "Turn the table's stream on (docs/deploy.md#with-what-exists-already) and give its new ARN as "
            "IncidentStreamArn.",
        )
    if view not in _VIEWS:
        yield wrong(
            STREAM,
            f"Its view type is {view}.",
            "Records bring no new image, so each becomes a dead letter and nobody gets a message.",
            "Make the stream anew with NEW_IMAGE (docs/deploy.md#with-what-exists-already) and give its ARN as "
            "IncidentStreamArn.",
        )
    if status in ("ENABLED", "ENABLING") and view in _VIEWS:
        yield ok(STREAM, f"It is on, with {view}.")
    yield from _other_readers(deployment)


def _other_readers(deployment: Deployment) -> Iterator[Finding]:
    """A predecessor may run beside the relay for a while, and then has to be switched off."""
    if isinstance(deployment.readers, Unknown):
        yield unchecked(STREAM, f"who else reads it: {deployment.readers.reason}")
        return
    ours = {
        mapping["UUID"]
        for function in deployment.functions
        if isinstance(function.mappings, tuple)
        for mapping in function.mappings
    }
    others = [each for each in deployment.readers if each["UUID"] not in ours and each["State"] != "Disabled"]
    if others:
        names = ", ".join(each["FunctionArn"].partition(":function:")[2] for each in others)
        yield note(
            STREAM,
            f"{names} {'reads' if len(others) == 1 else 'read'} it too: where that posts as well, clients get every "
            "change twice (docs/operations.md#repeated).",
        )


def mappings(deployment: Deployment) -> Iterator[Finding]:
    """Of the relay's stream, and of each worker's queue: there, on, and as the functions count on it."""
    readers = [each for each in deployment.functions if each.handler in (RELAY, DELIVER)]
    if not readers:
        raise NotCheckedError("no function is known that reads a stream or a queue: give --stack")
    for function in readers:
        about, found = f"{MAPPING} of {function.name}", asked(function.mappings)
        if not found:
            yield wrong(
                about,
                "Nothing makes Lambda run this function.",
                f"What waits for it is not sent: {'the changes' if function.handler == RELAY else 'the jobs'}.",
                "Deploy the stack again, or make its event source mapping again.",
            )
        for mapping in found:
            faults = [
                *_state(about, mapping),
                *_answers(about, mapping),
                *_of_its_kind(about, deployment, function, mapping),
            ]
            yield from faults or [
                ok(about, f"It is {mapping['State']}, up to {mapping['BatchSize']} a batch; {_last(mapping)}.")
            ]
            yield from _notes(about, function, mapping)


def _last(mapping: Mapping[str, Any]) -> str:
    result = mapping.get("LastProcessingResult")
    return f"the last result: {result}" if result else "no result is told"


def _state(about: str, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    state, result = mapping["State"], str(mapping.get("LastProcessingResult", ""))
    if state != "Enabled" and state not in _ON_THE_WAY:
        yield wrong(
            about,
            f"It is {state}.",
            "What comes in waits, and is lost once the stream or queue forgets it.",
            f"Enable it, with aws lambda update-event-source-mapping --uuid {mapping['UUID']} --enabled or by hand.",
        )
    if result.startswith("PROBLEM"):
        yield wrong(
            about,
            f"Its last result is {result!r}.",
            "What comes in is not served, and waits or is tried again.",
            "Read the function's log and its role's permissions, as in docs/operations.md#an-outage.",
        )


def _answers(about: str, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", ()):
        yield wrong(
            about,
            "ReportBatchItemFailures is not set.",
            "Lambda takes a batch that was handed back for done, so records that nobody got are lost.",
            _AGAIN,
        )


def _of_its_kind(
    about: str, deployment: Deployment, function: Function, mapping: Mapping[str, Any]
) -> Iterator[Finding]:
    if function.handler == RELAY:
        yield from _of_the_stream(about, deployment, mapping)
    elif not deployment.parameters.get("LocalEndpoint"):
        yield from _of_a_queue(about, function, mapping)


def _of_the_stream(about: str, deployment: Deployment, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    if mapping.get("BisectBatchOnFunctionError") is not True:
        yield wrong(
            about,
            "BisectBatchOnFunctionError is off.",
            "A record that kills the function takes its whole batch with it, and nobody gets the others.",
            _AGAIN,
        )
    side_by_side = mapping.get("ParallelizationFactor", 1)
    if side_by_side != 1:
        yield wrong(
            about,
            f"ParallelizationFactor is {side_by_side}.",
            f"Each shard has {side_by_side} functions that post, where StreamShards counts one: some posts get a 429.",
            "Set it to 1 again: deploying the stack does.",
        )
    if mapping["BatchSize"] > _MOST_AT_ONCE and deployment.setting("fanout_mode") != "fanout":
        yield wrong(
            about,
            f"BatchSize is {mapping['BatchSize']:,}, and one function posts it all.",
            "It may run out of time before it has written down who lacks what, and everybody gets the batch again.",
            "Set StreamBatchSize to 500 or less, or FanoutMode=fanout.",
        )
    if not mapping.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"):
        yield wrong(
            about,
            "It has no destination for what Lambda gives up.",
            "Records that are given up are lost, and no alarm on them rings.",
            "Deploy the stack again: StreamFailureDestination names one.",
        )


def _of_a_queue(about: str, function: Function, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    url = function.has("fanout_queue_url") if function.serves_shards else function.has("retry_queue_url")
    read, told = mapping["EventSourceArn"].rpartition(":")[2], (url or "").rpartition("/")[2]
    if told and read != told:
        yield wrong(
            about,
            f"It reads {read}, and the functions send to {told}.",
            "What is sent there is never fetched, so clients that lack a message do not get it.",
            _AGAIN,
        )
    if not mapping.get("ScalingConfig", {}).get("MaximumConcurrency"):
        yield wrong(
            about,
            "It has no maximum concurrency.",
            "More functions may post side by side than share AccountPostsPerSecond, so posts are refused (429).",
            f"Deploy the stack again: {'FanoutWorkers' if function.serves_shards else 'RetryWorkers'} sets it.",
        )


def _notes(about: str, function: Function, mapping: Mapping[str, Any]) -> Iterator[Finding]:
    if function.handler == RELAY and mapping.get("MaximumRetryAttempts", -1) != -1:
        yield note(
            about,
            f"It gives a batch up after {mapping['MaximumRetryAttempts']} tries, however soon those are over: set "
            "StreamRetryAttempts back to -1 once what is stuck is gone (docs/operations.md#an-outage).",
        )
    filters = [each["Pattern"] for each in mapping.get("FilterCriteria", {}).get("Filters", ())]
    if filters and not any(_lets_all_through(each, function) for each in filters):
        yield note(about, f"What its filter leaves out is never sent: {', '.join(filters)}.")
    if function.serves_shards and mapping["BatchSize"] != 1:
        yield note(
            about, f"A worker takes {mapping['BatchSize']} jobs at once, of several shards, with one worker's share."
        )


def _lets_all_through(pattern: str, function: Function) -> bool:
    """Whether Lambda leaves out nothing that the function would send."""
    wanted = json.loads(pattern)
    names = wanted.pop("eventName", _SENT) if function.handler == RELAY else _SENT
    return not wanted and all(each in names for each in _SENT)
