"""A template resolved for given parameters, as CloudFormation would resolve it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # it ships no types

ROOT = Path(__file__).parent.parent
PSEUDO = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "relay",
    "AWS::StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/relay/5f3a7c10-0000-11f0-8000-000000000000",
}
#: What a parameter without a default is where a test says nothing.
GIVEN = {"AuthMode": "none"}
ABSENT = object()

#: What the Rules of a template may use; AWS refuses any other function there, Fn::If among them.
RULE_FUNCTIONS = {
    "Fn::And",
    "Fn::Contains",
    "Fn::EachMemberEquals",
    "Fn::EachMemberIn",
    "Fn::Equals",
    "Fn::Not",
    "Fn::Or",
    "Fn::RefAll",
    "Fn::ValueOf",
    "Fn::ValueOfAll",
    "Ref",
}


def functions_in(value: Any) -> set[str]:
    """The intrinsic functions that occur in it."""
    if isinstance(value, list):
        return set().union(*map(functions_in, value))
    if not isinstance(value, dict):
        return set()
    own = {name for name in value if name in {"Ref", "Condition"} or name.startswith("Fn::")}
    return own.union(*map(functions_in, value.values()))


@cache
def template() -> dict[str, Any]:
    """The template as it is written, in CloudFormation's JSON form."""
    loaded: dict[str, Any] = cfn_yaml.load(str(ROOT / "template.yaml"))
    return loaded


class Stack:
    """The template for these parameters: only what its conditions let through, no intrinsic function left."""

    def __init__(self, **parameters: str) -> None:
        self._template = template()
        defaults = {name: str(each.get("Default", "")) for name, each in self._template["Parameters"].items()}
        assert parameters.keys() <= defaults.keys()
        self._values = PSEUDO | defaults | GIVEN | parameters

    @cached_property
    def refused(self) -> list[str]:
        """The sentences with which CloudFormation would refuse these parameters."""
        return list(self._broken_rules())

    @cached_property
    def resources(self) -> dict[str, Any]:
        """What the stack makes."""
        return self._kept("Resources")

    @cached_property
    def outputs(self) -> dict[str, Any]:
        """What the stack says of itself."""
        return {name: each["Value"] for name, each in self._kept("Outputs").items()}

    def holds(self, condition: str) -> bool:
        """Whether a condition is true of these parameters."""
        return bool(self._resolve(self._template["Conditions"][condition]))

    def keeps(self, assertion: Any) -> bool:
        """Whether these parameters are as an assertion of a rule says."""
        return bool(self._resolve(assertion))

    def of(self, kind: str) -> dict[str, Any]:
        """The properties of the resources of a type, by name."""
        return {
            name: each.get("Properties", {}) for name, each in self.resources.items() if each["Type"] == f"AWS::{kind}"
        }

    def properties(self, name: str) -> Any:
        return self.resources[name]["Properties"]

    def functions(self) -> dict[str, Any]:
        """The functions with what ``Globals`` says of all of them."""
        shared = self._resolve(self._template["Globals"]["Function"])
        merged = {}
        for name, own in self.of("Serverless::Function").items():
            variables = shared["Environment"]["Variables"] | own.get("Environment", {}).get("Variables", {})
            merged[name] = shared | own | {"Environment": variables}
        return merged

    def mappings(self) -> dict[str, Any]:
        """Each event source mapping by its name."""
        return self.of("Lambda::EventSourceMapping")

    def statements(self, role: str) -> dict[tuple[str, ...], list[str]]:
        """What a role may do, to what: of statements with the same actions, the resources of all."""
        allowed: dict[tuple[str, ...], list[str]] = {}
        for policy in self.properties(role)["Policies"]:
            for statement in policy["PolicyDocument"]["Statement"]:
                assert statement["Effect"] == "Allow"
                resources = statement["Resource"]
                allowed.setdefault(tuple(statement["Action"]), []).extend(
                    resources if isinstance(resources, list) else [resources]
                )
        return allowed

    def parameter(self, name: str) -> str:
        """What a parameter is, its default where nothing was given."""
        return str(self._values[name])

    def _broken_rules(self) -> Iterator[str]:
        for rule in self._template.get("Rules", {}).values():
            assert functions_in(rule) <= RULE_FUNCTIONS
            if self._resolve(rule.get("RuleCondition", True)):
                for assertion in rule["Assertions"]:
                    if not self._resolve(assertion["Assert"]):
                        yield assertion["AssertDescription"]

    def _kept(self, section: str) -> dict[str, Any]:
        return {
            name: self._resolve(each)
            for name, each in self._template[section].items()
            if "Condition" not in each or self.holds(each["Condition"])
        }

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [each for each in map(self._resolve, value) if each is not ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            if name in {"Ref", "Condition"} or name.startswith("Fn::"):
                return getattr(self, "_" + name.removeprefix("Fn::").lower())(argument)
        resolved = {name: self._resolve(each) for name, each in value.items()}
        return {name: each for name, each in resolved.items() if each is not ABSENT}

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return ABSENT
        if name in self._values:
            return self._values[name]
        resource = self._template["Resources"][name]
        if resource["Type"] == "AWS::SQS::Queue":
            suffix = ".fifo" if resource["Properties"].get("FifoQueue") else ""
            return f"https://sqs.eu-west-1.amazonaws.com/123456789012/{name}{suffix}"
        return name

    def _condition(self, name: str) -> bool:
        return self.holds(name)

    def _getatt(self, path: list[str] | str) -> str:
        parts = path.split(".") if isinstance(path, str) else path
        assert parts[0] in self._template["Resources"]
        return ".".join(parts)

    def _sub(self, argument: Any) -> str:
        text, names = argument if isinstance(argument, list) else (argument, {})
        own = {name: self._resolve(each) for name, each in names.items()}

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name in own:
                return str(own[name])
            return self._getatt(name) if "." in name else str(self._ref(name))

        return re.sub(r"\$\{([\w:.]+)\}", value, text)

    def _if(self, argument: list[Any]) -> Any:
        condition, yes, no = argument
        return self._resolve(yes if self.holds(condition) else no)

    def _equals(self, argument: list[Any]) -> bool:
        one, other = map(self._resolve, argument)
        return bool(one == other)

    def _not(self, argument: list[Any]) -> bool:
        return not self._resolve(argument[0])

    def _and(self, argument: list[Any]) -> bool:
        return all(map(self._resolve, argument))

    def _or(self, argument: list[Any]) -> bool:
        return any(map(self._resolve, argument))

    def _contains(self, argument: list[Any]) -> bool:
        strings, value = map(self._resolve, argument)
        return value in strings

    def _findinmap(self, argument: list[Any]) -> Any:
        table, row, column = map(self._resolve, argument)
        return self._template["Mappings"][table][row][column]

    def _join(self, argument: list[Any]) -> str:
        delimiter, parts = argument
        return str(delimiter).join(self._resolve(parts))

    def _split(self, argument: list[Any]) -> list[str]:
        return str(self._resolve(argument[1])).split(argument[0])

    def _select(self, argument: list[Any]) -> Any:
        return self._resolve(argument[1])[int(argument[0])]
