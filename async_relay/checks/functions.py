"""The functions themselves: settings that let them start, their state, and a zip for their processor. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..settings import Settings
from .deployment import ENVIRONMENT, Deployment, Function, NotCheckedError, Unknown, known
from .findings import Finding, note, ok, unchecked_of, wrong

SETTINGS, FUNCTIONS, REVISION, ARCHITECTURE = "settings", "functions", "revision", "architecture"
_MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}
_SHARED = re.compile(r"\.cpython-(\d+)-(\w+?)-linux")
#: What all functions must mean alike: where they post, and whose rows they read.
_ALIKE = ("ws_endpoint", "connections_table", "auth_mode", "tenant_attribute")
#: What a version keeps of its function beside its variables, as far as a template can change it.
_KEPT = ("Architectures", "CodeSha256", "Handler", "MemorySize", "Role", "Runtime", "Timeout")


def settings(deployment: Deployment) -> Iterator[Finding]:
    """Each function's environment lets it start, and they agree about what they share."""
    faults, reasons = [], {}
    for each in deployment.functions:
        if isinstance(each.settings, Unknown):
            reasons[each.name] = each.settings.reason
        elif isinstance(each.settings, str):
            faults.append(
                wrong(
                    SETTINGS,
                    f"{_of(each)}{each.settings}.",
                    "The function ends at its cold start, and does nothing of what it is there for.",
                    "Correct the parameter of that name (docs/deploy.md#parameters) and deploy the stack again.",
                )
            )
    faults += list(_agreement(deployment))
    yield from unchecked_of(SETTINGS, reasons | _formatters(deployment))
    yield from faults
    if not faults and any(isinstance(each.settings, Settings) for each in deployment.functions):
        yield ok(SETTINGS, "They can be read.")


def _formatters(deployment: Deployment) -> dict[str, str]:
    """Who has a formatter of the owner's, which can be imported in the function alone."""
    told = {
        each.name: each.configuration.get("Environment", {}).get("Variables", {}).get("MESSAGE_FORMATTER")
        for each in deployment.functions
        if isinstance(each.configuration, Mapping)
    }
    return {
        name: f"only its cold start shows whether {formatter} is there" for name, formatter in told.items() if formatter
    }


def _of(function: Function) -> str:
    return "" if function.name == ENVIRONMENT else f"{function.name}: "


def _agreement(deployment: Deployment) -> Iterator[Finding]:
    readable = [each for each in deployment.functions if isinstance(each.settings, Settings)]
    for name in _ALIKE:
        values = {str(each.has(name)): each.name for each in readable}
        if len(values) > 1:
            told = ", ".join(f"{value} in {function}" for value, function in sorted(values.items()))
            yield wrong(
                SETTINGS,
                f"The functions do not agree about {name.upper()}: {told}.",
                "What one function writes or lets in another does not know, so clients are missed or refused.",
                "Deploy the stack again: it gives all functions the same.",
            )


def functions(deployment: Deployment) -> Iterator[Finding]:
    """Each function is there, ready, and may run."""
    faults, reasons = [], {}
    for each in deployment.functions:
        if each.name == ENVIRONMENT:
            raise NotCheckedError("settings alone do not say: give --stack")
        configuration = known(each.configuration)
        if configuration is None:
            faults.append(
                wrong(
                    FUNCTIONS,
                    f"{each.name} is gone, though the stack has it.",
                    "What it is there for is not done.",
                    "Deploy the stack again; if that changes nothing, delete it and make it anew.",
                )
            )
            continue
        if isinstance(each.reserved, Unknown):
            reasons[each.name] = f"whether it may run: {each.reserved.reason}"
        faults += _may_not_run(each, configuration)
    yield from unchecked_of(FUNCTIONS, reasons)
    yield from faults
    if not faults and not reasons:
        yield ok(FUNCTIONS, f"{len(deployment.functions)} are there and ready.")


def _may_not_run(function: Function, configuration: Mapping[str, Any]) -> Iterator[Finding]:
    if function.reserved == 0:
        yield wrong(
            FUNCTIONS,
            f"The reserved concurrency of {function.name} is 0.",
            "Lambda never runs it, and what is there for it waits until the stream or queue forgets it.",
            "Take the reservation away, with aws lambda delete-function-concurrency "
            f"--function-name {configuration['FunctionName']} or by hand.",
        )
    for name in ("State", "LastUpdateStatus"):
        if configuration.get(name) == "Failed":
            why = configuration.get("StateReason" if name == "State" else "LastUpdateStatusReason", "no reason is told")
            yield wrong(
                FUNCTIONS,
                f"{name} of {function.name} is Failed: {why}.",
                "It does not run, or runs what was deployed before.",
                "Mend what the reason says, and deploy the stack again.",
            )


def revision(deployment: Deployment) -> Iterator[Finding]:
    """The versions that the aliases lead to are what was deployed last, and all invocations go there."""
    findings: list[Finding] = []
    revisions = set()
    unpublished: dict[tuple[str, str, str], list[str]] = {}
    for each in deployment.functions:
        if each.published is None:
            continue
        configuration, latest, alias = (
            known(each.configuration),
            known(each.published.latest),
            known(each.published.alias),
        )
        if configuration is None or latest is None or alias is None:
            continue
        before, after = _revision(configuration), _revision(latest)
        revisions.add(configuration.get("Description", ""))
        weights = alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
        changed = _changed(configuration, latest)
        if changed and not (weights and before != after):
            unpublished.setdefault((before, after, ", ".join(changed)), []).append(each.name)
        for version, share in weights.items():
            findings.append(note(REVISION, f"{share:.0%} of {each.name}'s invocations go to version {version}."))
    findings += [_unpublished(names, *what, deployment.status) for what, names in unpublished.items()]
    if revisions and not findings:
        told = f"The functions are those of {' and '.join(sorted(revisions))}."
        findings.append(ok(REVISION, told) if len(revisions) == 1 else note(REVISION, told))
    yield from findings


def _unpublished(names: list[str], before: str, after: str, changed: str, status: str) -> Finding:
    """Of functions of which what was deployed last is not what the alias leads to."""
    told, were = ", ".join(names), "was" if len(names) == 1 else "were"
    if before == after:
        seen = f"{told} {were} deployed again under the same Revision, with another {changed}."
        effect = "Clients are served by what was deployed before: the alias leads to the version published then."
    else:
        seen = f"{told} {were} deployed as {after or 'no Revision'}, and clients are served by {before or 'none'}."
        effect = "What was deployed last serves nobody: an update broke off, or somebody moved the alias by hand."
        if status.endswith("_IN_PROGRESS"):
            return note(REVISION, f"{seen} The update is under way.")
    remedy = "Deploy the stack again with another Revision (docs/release.md#a-revision-and-its-rollout)."
    return wrong(REVISION, seen, effect, remedy)


def _changed(served: Mapping[str, Any], latest: Mapping[str, Any]) -> list[str]:
    """What differs between a version and what was deployed last; of the environment, the variables."""
    changed = [name for name in _KEPT if served.get(name) != latest.get(name)]
    if _snapshots(served) != _snapshots(latest):
        changed.append("SnapStart")
    before, after = (each.get("Environment", {}).get("Variables", {}) for each in (served, latest))
    return changed + sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _revision(configuration: Mapping[str, Any]) -> str:
    revision: str = configuration.get("Environment", {}).get("Variables", {}).get("REVISION", "")
    return revision


def _snapshots(configuration: Mapping[str, Any]) -> str:
    """Of what snapshots are to be taken; whether there is one, which is told too, differs from version to version."""
    applies: str = configuration.get("SnapStart", {}).get("ApplyOn", "None")
    return applies


def architecture(deployment: Deployment) -> Iterator[Finding]:
    """The zip has shared objects for the processor and the Python that the function runs on."""
    unfit: dict[str, list[str]] = {}
    fitting, reasons = [], {}
    for each in deployment.functions:
        configuration = known(each.configuration)
        if configuration is None:
            continue
        if isinstance(each.shared_objects, Unknown):
            reasons[each.name] = each.shared_objects.reason
            continue
        [processor] = configuration["Architectures"]
        runtime = configuration["Runtime"]
        wanted = (runtime.removeprefix("python").replace(".", ""), _MACHINES[processor])
        found = {match.groups() for name in each.shared_objects if (match := _SHARED.search(name))}
        if wanted in found:
            fitting.append(f"{processor} and {runtime}")
        elif not found:
            reasons[each.name] = "no file in its zip says what it was made for"
        else:
            held = ", ".join(sorted(f"{machine} with Python {version[0]}.{version[1:]}" for version, machine in found))
            unfit.setdefault(f"on {processor} with {runtime}, and the zip is for {held}", []).append(each.name)
    yield from unchecked_of(ARCHITECTURE, reasons)
    for how, names in unfit.items():
        yield wrong(
            ARCHITECTURE,
            f"{', '.join(names)} {'runs' if len(names) == 1 else 'run'} {how}.",
            "Such a function cannot load its libraries and ends at its cold start.",
            "Build the zip again (docs/deploy.md#packaging), or set Architecture to what it is for.",
        )
    if fitting and not unfit:
        yield ok(ARCHITECTURE, f"The zip is for {fitting[0]}, as the functions are.")
