"""Describes a deployment's functions: what Lambda tells of each, what is in its zip, and what IAM lets its role do.

Rules
- Where a function has an alias, what serves is the version that it leads to, and that is described.
- Functions with the same zip have it downloaded once.
"""

from __future__ import annotations

import http.client
import io
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.request import urlopen

from async_relay.checks.deployment import (
    HANDLERS,
    Absent,
    Answer,
    Decision,
    Deployment,
    Function,
    NotCheckedError,
    Published,
    Unknown,
)
from async_relay.checks.permissions import needs
from async_relay.errors import SettingsError
from async_relay.settings import Settings

from .asking import Aws, answered, part
from .probing import verifying

_ZIP_SECONDS = 30


def describe_functions(aws: Aws, found: Mapping[str, Mapping[str, Any]]) -> tuple[Function, ...]:
    """Those of the stack whose resources were ``found``, by logical name; an owner may have added others."""
    zips: dict[str, tuple[str, ...] | Unknown] = {}
    aliases = _aliases(found)
    described = (
        _function(aws, name, each.get("PhysicalResourceId", name), aliases, zips)
        for name, each in found.items()
        if each["ResourceType"] == "AWS::Lambda::Function"
    )
    return tuple(each for each in described if not each.handler or each.handler in HANDLERS)


def _aliases(found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Physical names of functions to the ARNs of their aliases, ``….:function:NAME:ALIAS``."""
    aliases = (each for each in found.values() if each["ResourceType"] == "AWS::Lambda::Alias")
    arns = [each["PhysicalResourceId"] for each in aliases if "PhysicalResourceId" in each]
    return {arn.split(":")[-2]: arn for arn in arns}


def _function(
    aws: Aws, name: str, physical: str, aliases: Mapping[str, str], zips: dict[str, tuple[str, ...] | Unknown]
) -> Function:
    """Of the version that its alias leads to, where it has one: that is what serves."""
    qualified = aliases.get(physical, physical)
    configuration = aws.ask("lambda", "get_function_configuration", FunctionName=qualified)
    if not isinstance(configuration, Mapping):
        reason = configuration if isinstance(configuration, Unknown) else Unknown("the function is gone")
        return Function(name, configuration, reason, reason, reason)
    environment = configuration.get("Environment", {})
    settings = (
        Unknown("Lambda does not show its environment, which a key of KMS guards")
        if "Error" in environment
        else read_settings({**environment.get("Variables", {}), "MESSAGE_FORMATTER": ""})
    )
    listed = aws.ask("lambda", "list_event_source_mappings", FunctionName=qualified)
    mappings = answered(listed, "EventSourceMappings")
    sha = configuration.get("CodeSha256", physical)
    answer = aws.ask("lambda", "get_function", FunctionName=qualified)
    if sha not in zips:
        zips[sha] = _shared_objects(answer)
    published = None
    if qualified != physical:
        answer = aws.ask("lambda", "get_function", FunctionName=physical)  # a version says nothing of concurrency
        alias = aws.ask("lambda", "get_alias", FunctionName=physical, Name=qualified.rpartition(":")[2])
        published = Published(alias, part(answer, "Configuration"))
    return Function(name, configuration, settings, mappings, zips[sha], reserved=_reserved(answer), published=published)


def _reserved(answer: Answer) -> int | Unknown | None:
    if not isinstance(answer, Mapping):
        return answer if isinstance(answer, Unknown) else None
    reserved: int | None = answer.get("Concurrency", {}).get("ReservedConcurrentExecutions")
    return reserved


def read_settings(environ: Mapping[str, str]) -> Settings | str:
    """The settings, or the sentence with which they end a cold start."""
    try:
        return Settings.from_env(environ)
    except SettingsError as error:
        return str(error)


def _shared_objects(answer: Answer) -> tuple[str, ...] | Unknown:
    """The names of the shared objects in a function's zip."""
    if not isinstance(answer, Mapping):
        return answer if isinstance(answer, Unknown) else Unknown("the function is gone")
    url = answer.get("Code", {}).get("Location", "")
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        return Unknown("Lambda says no address to fetch its zip from")
    try:
        context = verifying(url) if url.startswith("https:") else None
        with urlopen(url, timeout=_ZIP_SECONDS, context=context) as response:  # noqa: S310 - http only on this machine
            names = zipfile.ZipFile(io.BytesIO(response.read())).namelist()
    except (OSError, http.client.HTTPException, zipfile.BadZipFile) as error:
        return Unknown(f"its zip cannot be fetched: {error}")
    return tuple(name for name in names if name.endswith(".so"))


def with_decisions(aws: Aws, deployment: Deployment, function: Function) -> Function:
    """The function, with what IAM says of all that its role has to be allowed."""
    return replace(function, decisions=_decisions(aws, deployment, function))


def _decisions(aws: Aws, deployment: Deployment, function: Function) -> tuple[Decision, ...] | Unknown:
    if not isinstance(function.configuration, Mapping):
        return Unknown("the function cannot be read")
    try:
        wanted = needs(deployment, function)
    except (NotCheckedError, LookupError) as error:
        return Unknown(f"what it needs cannot be told: {error}")
    decisions: list[Decision] = []
    for actions, resource in wanted:
        answer = aws.ask(
            "iam",
            "simulate_principal_policy",
            PolicySourceArn=function.configuration.get("Role", ""),
            ActionNames=list(actions),
            ResourceArns=[resource],
        )
        if isinstance(answer, Absent):
            return Unknown("its role is gone")
        results = answered(answer, "EvaluationResults")
        if isinstance(results, Unknown):
            return results
        decided = {each.get("EvalActionName"): str(each.get("EvalDecision", "")) for each in results}
        for action in actions:
            if not decided.get(action):
                return Unknown(f"IAM's simulator says nothing of {action}")
            decisions.append(Decision(action, resource, decided[action]))
    return tuple(decisions)
