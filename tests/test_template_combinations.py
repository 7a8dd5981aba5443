"""Every stack that the parameters of ``template.yaml`` can make: transformed as SAM would, whole, and linted.

There are too many of them to try each, so each claim is proved by what it depends on.

- *SAM takes every one, and makes the same of it.* Its transform is watched: it looks at no value of a parameter that
  steers conditions or rules, so that one run stands for all. It passes on what is not its own as it is.
- *Every one is whole.* Wherever a resource or an output names another resource, the conditions under which it does
  are tried with every combination of the parameters that these conditions name: the other resource is there in each.
  No other parameter has a say in it, so this is said of every combination, whether a rule refuses it or not.
- *cfn-lint has nothing to say.* It takes a second a stack, so it gets a choice of stacks in which every pair of values
  occurs that the rules allow. It looks at one resource or at two that refer to each other; three parameters at once
  never decide about such a pair. What no condition names decides nothing and is a text in its place, so each of its
  values occurs. A resource that was looked at already, as it is, is not looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations, product
from types import SimpleNamespace
from typing import Any

import pytest
from cfnlint.api import lint  # type: ignore[import-untyped]  # it ships no types
from cfnlint.core import get_rules  # type: ignore[import-untyped]
from cloudformation import GIVEN, PSEUDO, Stack, template
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
    "StreamBatchSize": ["100", "1", "10", "500", "2000", "10000"],
    "FanoutMode": ["direct", "fanout", "auto"],
    "StreamFailureDestination": ["bucket", "queue"],
    "Alarms": ["true", "false"],
    "MetricsDashboard": ["on", "off"],
    "AlarmTopicArn": ["", "arn:aws:sns:eu-west-1:123456789012:oncall"],
    "LocalEndpoint": ["", "http://127.0.0.1:4566"],
    "AuthMode": ["none", "jwt", "iam"],
    "AuthIssuer": ["", "https://issuer.example.com"],
    "AuthAudience": ["", "relay"],
    "AuthScope": ["", "incidents"],
    "AuthOrigins": ["", "https://app.example.com"],
    "AuthQueryToken": ["off", "on"],
    "AuthorizerArn": ["", "arn:aws:lambda:eu-west-1:123456789012:function:door"],
    "TenantAttribute": ["", "tenant"],
    "TenantClaim": ["", "tenants"],
    "DoorConcurrency": ["0", "50"],
    "Feed": ["on", "off"],
    "History": ["table", "feed"],
    "IncidentIndex": ["", "by-time"],
    "HeartbeatMinutes": ["0", "1", "2", "5", "8"],
    "AccessLogs": ["off", "on"],
    "PermissionsBoundaryArn": ["", "arn:aws:iam::123456789012:policy/boundary"],
    "KmsKeyArn": ["", "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"],
    "Revision": ["", "v1.2.0"],
    "Rollout": ["AllAtOnce", "Canary10Percent5Minutes", "Canary10Percent30Minutes"],
    "SnapStart": ["off", "on"],
    "ProvisionedRelays": ["0", "4"],
    "ProvisionedDoor": ["0", "20"],
}

Parameters = dict[str, str]
#: Conditions, and what each of them must be.
Guard = frozenset[tuple[str, bool]]


class Watched(dict[str, Any]):
    """Parameters that note whose value was looked at, in every copy."""

    def __init__(self, values: Mapping[str, Any], read: set[str]) -> None:
        super().__init__(values)
        self._read = read

    def __deepcopy__(self, _memo: Any) -> Watched:
        return Watched(self, self._read)

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self._read.add(name)
        return super().get(name, default)

    def items(self) -> Any:
        self._read.update(self)
        return super().items()

    def values(self) -> Any:
        self._read.update(self)
        return super().values()


def transformed(source: dict[str, Any], read: set[str]) -> dict[str, Any]:
    """What CloudFormation gets from SAM's transform, in this process, and which parameters' values that depends on."""
    source["Globals"]["Function"]["CodeUri"] = "s3://bucket/async-relay.zip"
    for each in source["Resources"].values():
        each.get("Metadata", {}).pop("BuildMethod", None)
    values = {name: each.get("Default", GIVEN.get(name)) for name, each in source["Parameters"].items()}
    done: dict[str, Any] = transform(source, Watched(values, read), SimpleNamespace(load=dict))
    return done


def source() -> dict[str, Any]:
    """The template, without cfn-lint's notes of line numbers."""
    loaded: dict[str, Any] = json.loads(json.dumps(template()))
    return loaded


@cache
def made_by_sam() -> dict[str, Any]:
    return transformed(source(), set())


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
        assert choices[0] == parameter.get("Default", GIVEN.get(name))
        if "AllowedValues" in parameter:
            assert set(choices) == set(parameter["AllowedValues"]), name
        else:
            assert all(re.fullmatch(parameter["AllowedPattern"], each) for each in choices), name


def test_sam_passes_on_what_is_not_its_own() -> None:
    """Rules, conditions, mappings and each resource of CloudFormation's own types come out as they went in."""
    before, after = source(), made_by_sam()
    for section in ("Parameters", "Rules", "Conditions", "Mappings", "Outputs"):
        assert after[section] == before[section], section
    for name, each in before["Resources"].items():
        if not each["Type"].startswith("AWS::Serverless::"):
            assert after["Resources"][name] == each, name


def test_sam_looks_at_no_parameter_that_steers() -> None:
    """So it makes the same of every combination: the conditions stay CloudFormation's."""
    read: set[str] = set()
    assert transformed(source(), read) == made_by_sam()
    assert not read & CHOICES.keys()


def test_what_sam_looks_at_is_seen() -> None:
    """Were a steering parameter's value to decide what SAM makes, the test above would say so."""
    looked_at, read = source(), set[str]()
    looked_at["Resources"]["RelayFunction"]["Properties"]["AutoPublishAlias"] = {"Ref": "FanoutMode"}
    assert "RelayFunctionAliasdirect" in transformed(looked_at, read)["Resources"]
    assert "FanoutMode" in read


def test_sam_would_publish_nothing_for_another_parameter() -> None:
    """Why the versions are the template's own: SAM makes another where the text of a function is another."""
    versions = set()
    for value in ("300", "200"):
        changed = source()
        changed["Parameters"]["MaxConcurrency"]["Default"] = value
        changed["Resources"]["RelayFunction"]["Properties"] |= {
            "AutoPublishAlias": "live",
            "AutoPublishAliasAllProperties": True,
        }
        made = transformed(changed, set())["Resources"]
        versions |= {name for name in made if name.startswith("RelayFunctionVersion")}
    assert len(versions) == 1


def guarded(value: Any, guard: Guard) -> Iterator[tuple[str, Guard]]:
    """Every parameter, mapping and resource that is named in it, each with what must hold for it to be named."""
    if isinstance(value, list):
        for each in value:
            yield from guarded(each, guard)
    elif isinstance(value, dict) and value.keys() == {"Fn::If"}:
        condition, yes, no = value["Fn::If"]
        yield from guarded(yes, guard | {(condition, True)})
        yield from guarded(no, guard | {(condition, False)})
    elif isinstance(value, dict):
        for function, argument in value.items():
            if function != "Condition":
                yield from ((name, guard) for name in named_by(function, argument))
                yield from guarded(argument, guard)


def references() -> set[tuple[str, str, Guard]]:
    """Who names which resource, and when."""
    known = {*template()["Parameters"], *template()["Mappings"], *PSEUDO, "AWS::NoValue"}
    found = set()
    for section in ("Resources", "Outputs"):
        for name, each in made_by_sam()[section].items():
            own: Guard = frozenset({(each["Condition"], True)} if "Condition" in each else ())
            found |= {(name, named, guard) for named, guard in guarded(each, own) if named not in known}
    return found


def parameters_of(*conditions: str) -> list[str]:
    """The parameters that these conditions name, and those that they name by another condition."""
    named = set(named_in([template()["Conditions"][name] for name in conditions]))
    others = named & template()["Conditions"].keys()
    return sorted((named & CHOICES.keys()) | set(parameters_of(*others) if others else []))


def missing(guard: Guard, condition: str | None) -> list[Parameters]:
    """The combinations under which something is named that has this condition, and is not there."""
    if condition is None:
        return []
    names = parameters_of(condition, *(name for name, _ in guard))
    return [
        parameters
        for values in product(*(CHOICES[name] for name in names))
        for parameters in [dict(zip(names, values, strict=True))]
        for stack in [Stack(**parameters)]
        if not stack.holds(condition) and all(stack.holds(name) is outcome for name, outcome in guard)
    ]


def test_every_combination_is_whole() -> None:
    """No resource and no output of any stack names what that stack does not have."""
    resources = made_by_sam()["Resources"]
    assert {named for _, named, _ in references()} <= resources.keys()
    conditions = {(guard, resources[named].get("Condition")) for _, named, guard in references()}
    dangling = {each: missing(*each) for each in conditions}
    for name, named, guard in references():
        assert not dangling[guard, resources[named].get("Condition")], (name, named)


def test_what_is_not_there_is_missed() -> None:
    """Were a part for all stacks to name what some lack, the test above would say with which parameters."""
    assert missing(frozenset(), "FansOut") == [{"FanoutMode": "direct"}]
    assert missing(frozenset({("FansOut", True)}), "FansOut") == []
    assert missing(frozenset({("FansOut", False)}), "FailuresToQueue")
    found = dict(guarded({"Fn::If": ["FansOut", {"Fn::Sub": "${A}"}, {"Fn::GetAtt": "B.Arn"}]}, frozenset()))
    assert found == {"A": frozenset({("FansOut", True)}), "B": frozenset({("FansOut", False)})}


@cache
def bounds() -> list[tuple[list[str], set[tuple[str, ...]]]]:
    """Of each assertion of a rule, the parameters it is about, and the values it lets them have."""
    found = []
    for rule in template()["Rules"].values():
        for assertion in rule["Assertions"]:
            asserted = {"Fn::Or": [{"Fn::Not": [rule["RuleCondition"]]}, assertion["Assert"]]}
            names = sorted(set(named_in(asserted)) & CHOICES.keys())
            every = product(*(CHOICES[name] for name in names))
            found.append(
                (names, {values for values in every if Stack(**dict(zip(names, values, strict=True))).keeps(asserted)})
            )
    return found


def allowed(parameters: Parameters) -> bool:
    """Whether each rule by itself can still be kept, whatever the other parameters have to be for it."""
    return all(
        any(
            all(parameters.get(name, value) == value for name, value in zip(names, kept, strict=True))
            for kept in values
        )
        for names, values in bounds()
        if not parameters.keys().isdisjoint(names)
    )


@cache
def most_bound_first() -> list[str]:
    """The parameters, those first of which the most rules speak: what no rule speaks of fits at the end as it is."""
    return sorted(CHOICES, key=lambda name: -sum(name in names for names, _ in bounds()))


def completed(parameters: Parameters, wanted: set[frozenset[tuple[str, str]]]) -> Parameters | None:
    """A stack of these parameters that no rule refuses, with as many of the wanted pairs as each choice brings."""
    name = next((name for name in most_bound_first() if name not in parameters), None)
    if name is None:
        return parameters

    def brings(value: str) -> int:
        known = [(name, value), *parameters.items()]
        return sum(frozenset({(name, value), other}) in wanted for other in known)

    for value in sorted(CHOICES[name], key=brings, reverse=True):
        tried = parameters | {name: value}
        whole = completed(tried, wanted) if allowed(tried) else None
        if whole is not None:
            return whole
    return None


@cache
def pairwise() -> list[Parameters]:
    """Stacks in which every pair of values occurs of two parameters that conditions name, and each value of the others.

    But for those that a rule forbids.
    """
    deciding = parameters_of(*template()["Conditions"])
    values = [(name, value) for name, choices in CHOICES.items() for value in choices]
    wanted = {
        frozenset({one, other})
        for one, other in combinations([each for each in values if each[0] in deciding], 2)
        if one[0] != other[0]
    } | {frozenset({each}) for each in values}
    chosen = []
    for pair in sorted(wanted, key=lambda pair: (-len(pair), sorted(pair))):
        if pair in wanted:
            stack = completed(dict(pair), wanted) if allowed(dict(pair)) else None
            if stack is not None:
                wanted -= {frozenset(each) for each in product(stack.items(), repeat=2)}
                chosen.append(stack)
    # Their conditions take four parameters together and more, so that no pair brings them about.
    authorizer = {"AuthMode": "jwt", "AuthorizerArn": "", "LocalEndpoint": ""}
    rolled_out = authorizer | {"Revision": "v1.2.0", "Rollout": "Canary10Percent5Minutes"}
    rare = [completed(parameters, set()) for parameters in (authorizer, rolled_out)]
    return chosen + [stack for stack in rare if stack is not None]


def test_the_chosen_stacks_are_made_and_differ_in_every_condition() -> None:
    """No rule refuses one of them; each condition holds in some and not in others; and none names what it lacks."""
    known = {*template()["Parameters"], *template()["Mappings"], *PSEUDO}
    seen = set()
    assert {each for parameters in pairwise() for each in parameters.items()} == {
        (name, value) for name, choices in CHOICES.items() for value in choices
    }
    for parameters in pairwise():
        assert Stack(**parameters).refused == []
        holds = held(parameters)
        seen |= set(holds.items())
        made = only_kept(made_by_sam(), holds)
        assert set(named_in(list(made.values()))) - known <= made["Resources"].keys(), parameters
    assert seen == {(name, outcome) for name in template()["Conditions"] for outcome in (True, False)}


def held(parameters: Parameters) -> dict[str, bool]:
    """Every condition, and whether it holds."""
    stack = Stack(**parameters)
    return {name: stack.holds(name) for name in template()["Conditions"]}


def lintable(parameters: Parameters, seen: set[str]) -> str:
    """What is new in a stack, as a template with no condition left, its parameters' values as their defaults.

    What the new resources name comes with them, with what that names: but for the policies of roles seen before,
    which name most of what there is, and nobody looks into from outside.
    """
    whole = only_kept(made_by_sam(), held(parameters))
    new = {
        section: {name for name, each in whole[section].items() if is_new(name, each, parameters, seen)}
        for section in whole
    }
    outputs = {name: whole["Outputs"][name] for name in new["Outputs"]}
    resources: dict[str, Any] = {}
    names = [*new["Resources"], *named_in(outputs)]
    while names:
        name = names.pop()
        if name in whole["Resources"].keys() - resources.keys():
            resources[name] = whole["Resources"][name]
            if name not in new["Resources"] and resources[name]["Type"] == "AWS::IAM::Role":
                trust = resources[name]["Properties"]["AssumeRolePolicyDocument"]
                resources[name] = resources[name] | {"Properties": {"AssumeRolePolicyDocument": trust}}
            names += named_in(resources[name])
    made = {"Resources": resources, "Outputs": outputs}
    used = set(named_in(list(made.values())))
    for section in ("Parameters", "Mappings"):
        made[section] = {name: each for name, each in source()[section].items() if name in used}
    for name in parameters.keys() & used:
        made["Parameters"][name]["Default"] = parameters[name]
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09"} | {name: each for name, each in made.items() if each})


def is_new(name: str, each: Any, parameters: Parameters, seen: set[str]) -> bool:
    """Whether it was not seen before as it is, with these values of the parameters that it names."""
    values = {name: parameters[name] for name in sorted(set(named_in(each)) & parameters.keys())}
    form = json.dumps([name, each, values])
    known = form in seen
    seen.add(form)
    return not known


@pytest.mark.timeout(240)
def test_cfn_lint_has_nothing_to_say_of_any_pair() -> None:
    """Of the stacks in which every pair of values occurs, warnings included.

    But for W2530, which wants the version of a function beside it, though that may be none of what is new.
    """
    rules, seen = get_rules([], ["W2530"], ["W", "E"]), set[str]()
    for stack in pairwise():
        new = lintable(stack, seen)
        if "Resources" in json.loads(new):
            assert [str(each) for each in lint(new, rules, ["eu-west-1"])] == [], stack
