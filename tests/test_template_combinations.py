"""Every stack that the parameters of ``template.yaml`` can make: transformed as SAM would, whole, and linted.

- The transform runs for every combination of the parameters that reach what SAM rewrites (the functions); it
  passes all other resources on as they are, which a test says.
- For every combination that no rule refuses, the conditions are settled: nothing kept may lack what it names.
- cfn-lint takes seconds a stack, so it gets a choice in which every pair of values occurs. It looks at one
  resource or at two that refer to each other; three parameters at once never decide about such a pair.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from itertools import combinations, product
from types import SimpleNamespace
from typing import Any

import pytest
from cfnlint.api import lint  # type: ignore[import-untyped]  # it ships no types
from cfnlint.core import get_rules  # type: ignore[import-untyped]
from cloudformation import PSEUDO, Stack, template
from samtranslator.translator.transform import transform  # type: ignore[import-untyped]

#: The values of each parameter that steers conditions or rules; of free text, none and one.
CHOICES = {
    "IncidentStreamArn": [
        "",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/Incident/stream/2026-01-01T00:00:00.000",
    ],
    "ConnectionsTableName": ["", "WebSocketConnections"],
    "WebSocketApiId": ["", "kote8jrryb"],
    "WebSocketEndpoint": ["", "https://ws.example.com/live"],
    "ExecuteApiEndpoint": ["on", "off"],
    "IncidentTableProtection": ["off", "on"],
    "ConnectionsIndex": ["", "by-shard"],
    "ConnectionsIndexSweep": ["on", "off"],
    "FanoutMode": ["direct", "fanout", "auto"],
    "StreamFailureDestination": ["bucket", "queue"],
    "Alarms": ["true", "false"],
    "AlarmTopicArn": ["", "arn:aws:sns:eu-west-1:123456789012:oncall"],
    "LocalEndpoint": ["", "http://127.0.0.1:4566"],
}
#: What steers no function: SAM passes on what these decide about.
NOT_IN_FUNCTIONS = {"ExecuteApiEndpoint", "IncidentTableProtection", "Alarms", "AlarmTopicArn"}

Parameters = dict[str, str]


def settled_stacks(names: Sequence[str]) -> Iterator[Parameters]:
    """Every combination of those parameters that no rule refuses."""
    for values in product(*(CHOICES[name] for name in names)):
        parameters = dict(zip(names, values, strict=True))
        if not refused(parameters):
            yield parameters


def refused(parameters: Parameters) -> bool:
    return bool(Rules(**parameters).refused)


class Rules(Stack):
    """The rules alone, and the conditions: nothing is resolved that need not be."""

    def _kept(self, _section: str) -> dict[str, Any]:
        return {}

    def holds(self) -> dict[str, bool]:
        return {name: self._holds(name) for name in self._template["Conditions"]}


def transformed(parameters: Mapping[str, str]) -> dict[str, Any]:
    """What CloudFormation gets from SAM's transform, in this process."""
    source = plain(template())
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/async-relay.zip"
    for each in source["Resources"].values():
        each.get("Metadata", {}).pop("BuildMethod", None)
    done: dict[str, Any] = transform(source, dict(parameters), SimpleNamespace(load=dict))
    return done


def plain(value: Any) -> Any:
    """Without cfn-lint's notes of line numbers."""
    return json.loads(json.dumps(value))


@cache
def default_transformed() -> dict[str, Any]:
    return transformed({})


ABSENT = object()


def settled(value: Any, holds: Mapping[str, bool]) -> Any:
    """With every ``Fn::If`` decided, and nothing left out but what ``AWS::NoValue`` stands for."""
    if isinstance(value, list):
        return [each for each in (settled(each, holds) for each in value) if each is not ABSENT]
    if not isinstance(value, dict):
        return value
    if value == {"Ref": "AWS::NoValue"}:
        return ABSENT
    if value.keys() == {"Fn::If"}:
        condition, yes, no = value["Fn::If"]
        return settled(yes if holds[condition] else no, holds)
    decided = {name: settled(each, holds) for name, each in value.items()}
    return {name: each for name, each in decided.items() if each is not ABSENT}


def only_kept(whole: Mapping[str, Any], holds: Mapping[str, bool]) -> dict[str, Any]:
    """The transformed template with its conditions decided, and without them."""
    made: dict[str, Any] = {}
    for section in ("Resources", "Outputs"):
        made[section] = {}
        for name, each in whole[section].items():
            if holds.get(each.get("Condition", ""), True):
                bare = {key: part for key, part in each.items() if key != "Condition"}
                made[section][name] = settled(bare, holds)
    return made


def named_in(value: Any) -> Iterator[str]:
    """Every parameter, mapping and resource that is named in it."""
    if isinstance(value, list):
        for each in value:
            yield from named_in(each)
    elif isinstance(value, dict):
        for function, argument in value.items():
            yield from named_by(function, argument)
            yield from named_in(argument)


def named_by(function: str, argument: Any) -> list[str]:
    """What an intrinsic function, or DependsOn, names itself."""
    match function, argument:
        case ("Ref" | "Condition" | "DependsOn", str(name)):
            return [name]
        case ("DependsOn", list(names)):
            return names
        case ("Fn::GetAtt", str(name)):
            return [name.partition(".")[0]]
        case ("Fn::GetAtt" | "Fn::FindInMap", [str(name), *_]):
            return [name]
        case ("Fn::Sub", [str(text), dict(own)]):
            return [name for name in named_by("Fn::Sub", text) if name not in own]
        case ("Fn::Sub", str(text)):
            return [name.partition(".")[0] for name in re.findall(r"\$\{([\w:.]+)\}", text)]
    return []


def steering_parameters() -> set[str]:
    """Those named in conditions and rules."""
    named = set(named_in([template()["Conditions"], template()["Rules"]]))
    return named & set(template()["Parameters"])


def test_the_choices_are_all_there_are() -> None:
    """A new parameter that steers something, or a new value of an old one, is in the combinations."""
    assert CHOICES.keys() == steering_parameters()
    for name, choices in CHOICES.items():
        parameter = template()["Parameters"][name]
        assert choices[0] == parameter["Default"]
        if "AllowedValues" in parameter:
            assert set(choices) == set(parameter["AllowedValues"]), name
        else:
            assert all(re.fullmatch(parameter["AllowedPattern"], each) for each in choices), name


def test_sam_passes_on_what_is_not_its_own() -> None:
    """Rules, conditions, mappings and each resource of CloudFormation's own types come out as they went in."""
    before, after = plain(template()), default_transformed()
    for section in ("Parameters", "Rules", "Conditions", "Mappings", "Outputs"):
        assert after[section] == before[section], section
    for name, each in before["Resources"].items():
        if not each["Type"].startswith("AWS::Serverless::"):
            assert after["Resources"][name] == each, name
    functions = {
        name: each for name, each in before["Resources"].items() if each["Type"] == "AWS::Serverless::Function"
    }
    assert not NOT_IN_FUNCTIONS & set(named_in([before["Globals"], functions, conditions_of(functions)]))


def conditions_of(value: Any) -> list[Any]:
    """The conditions that are used in it, and those which these name."""
    names, found = {*re.findall(r'"(?:Fn::If": \[|Condition": )"(\w+)"', json.dumps(value))}, []
    for name in names & set(template()["Conditions"]):
        found += [template()["Conditions"][name], *conditions_of(template()["Conditions"][name])]
    return found


@pytest.mark.timeout(240)
def test_sam_transforms_every_combination() -> None:
    """Whatever reaches the functions, SAM takes it, and makes the same of it: the conditions stay CloudFormation's."""
    names = [name for name in CHOICES if name not in NOT_IN_FUNCTIONS]
    tried = 0
    for parameters in settled_stacks(names):
        assert transformed(parameters) == default_transformed(), parameters
        tried += 1
    assert tried == 2 * 3 * 2 * 3 * 3 * 2 * 2  # stream, table and API, domain, index and sweep, mode, failures, local


@pytest.mark.timeout(240)
def test_every_combination_is_whole() -> None:
    """No resource and no output of any stack names what that stack does not have."""
    seen: set[tuple[bool, ...]] = set()
    known = {*template()["Parameters"], *template()["Mappings"], *PSEUDO}
    for parameters in settled_stacks(list(CHOICES)):
        holds = Rules(**parameters).holds()
        outcome = tuple(holds.values())
        if outcome in seen:  # the same stack
            continue
        seen.add(outcome)
        made = only_kept(default_transformed(), holds)
        assert set(named_in(list(made.values()))) - known <= made["Resources"].keys(), parameters
    assert len(seen) > 500


def pairwise() -> list[Parameters]:
    """Stacks in which every pair of values of two parameters occurs, but for pairs that a rule forbids."""
    names = list(CHOICES)
    every = list(settled_stacks(names))
    wanted = {pair for stack in every for pair in combinations(stack.items(), 2)}
    chosen = []
    while wanted:
        best = max(every, key=lambda stack: len(wanted.intersection(combinations(stack.items(), 2))))
        wanted -= set(combinations(best.items(), 2))
        chosen.append(best)
    return chosen


def lintable(parameters: Parameters) -> str:
    """The stack as a template with no condition left, its parameters' values as their defaults."""
    whole = deepcopy(default_transformed())
    made: dict[str, Any] = {"AWSTemplateFormatVersion": "2010-09-09"}
    made |= only_kept(whole, Rules(**parameters).holds())
    used = set(named_in([made["Resources"], made["Outputs"]]))
    for section in ("Parameters", "Mappings"):
        made[section] = {name: each for name, each in whole[section].items() if name in used}
    for name in parameters.keys() & used:
        made["Parameters"][name]["Default"] = parameters[name]
    return json.dumps(made)


@pytest.mark.timeout(300)
def test_cfn_lint_has_nothing_to_say_of_any_pair() -> None:
    """Of the stacks in which every pair of values occurs, warnings included."""
    rules = get_rules([], [], ["W", "E"])
    for stack in pairwise():
        assert [str(each) for each in lint(lintable(stack), rules, ["eu-west-1"])] == [], stack
