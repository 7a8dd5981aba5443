#!/usr/bin/env python3
"""Holds what checkov and pip-audit find against what is accepted: ``packaging/audit.py .venv/tools``, as `make audit`.

Rules
- checkov may find in ``template.yaml`` what ``accepted.toml`` names with its reason, and has to: an entry that is no
  longer found is a problem too, since nobody would miss it the day it comes back.
- pip-audit may find nothing in what is locked for the zip. Where it could not look something up, that is said, and is
  no problem: the network is not what is audited.
- A problem is one line. Whatever is wrong with the tools themselves is one sentence.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / "packaging" / "accepted.toml"
LOCK = ROOT / "packaging" / "requirements.lock"

#: A check, and the resource it is about.
Finding = tuple[str, str]


class AuditError(Exception):
    """The reason why a tool said nothing of use, in one sentence."""


def main(arguments: Sequence[str]) -> int:
    """Ask both tools of that folder; the exit status."""
    tools, problems = Path(arguments[0]), list[str]()
    for audit in (_by_checkov, _by_pip_audit):
        try:
            problems += audit(tools)
        except AuditError as error:
            problems.append(str(error))
    print("\n".join(problems or ["checkov and pip-audit found nothing else than what is accepted."]))
    return bool(problems)


def accepted(text: str) -> set[Finding]:
    """The findings of an ``accepted.toml``."""
    return {(each["check"], resource) for each in tomllib.loads(text)["accepted"] for resource in each["of"]}


def unlike(found: Mapping[Finding, str], allowed: set[Finding]) -> Iterator[str]:
    """What is found and not accepted, and what is accepted and not found."""
    for check, resource in sorted(found.keys() - allowed):
        yield f"checkov: {check} of {resource} is new: {found[check, resource]}. Mend it, or accept it with its reason."
    for check, resource in sorted(allowed - found.keys()):
        yield f"checkov: {check} of {resource} is found no longer; take it out of packaging/accepted.toml."


def findings(report: Any) -> dict[Finding, str]:
    """Of checkov's JSON, each check that failed, with its title."""
    return {
        (each["check_id"], each["resource"].rpartition(".")[2]): each["check_name"]
        for part in (report if isinstance(report, list) else [report])
        for each in part["results"]["failed_checks"]
    }


def vulnerable(dependencies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of pip-audit's JSON, each vulnerability that is known."""
    return [
        f"pip-audit: {each['name']} {each['version']} has {known['id']}; mended in "
        f"{', '.join(known['fix_versions']) or 'no version yet'}. make lock UPGRADE=1 takes the newest versions."
        for each in dependencies
        for known in each.get("vulns", [])
    ]


def not_looked_up(dependencies: Sequence[Mapping[str, Any]]) -> int:
    """How many pip-audit knows nothing of."""
    return sum("skip_reason" in each for each in dependencies)


def _by_checkov(tools: Path) -> list[str]:
    words = ("--file", str(ROOT / "template.yaml"), "--framework", "cloudformation", "--output", "json", "--quiet")
    found = findings(_said(str(tools / "checkov" / "bin" / "checkov"), *words))
    return list(unlike(found, accepted(ACCEPTED.read_text())))


def _by_pip_audit(tools: Path) -> list[str]:
    words = ("--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json")
    said = _said(str(tools / "pip-audit" / "bin" / "pip-audit"), *words, "--progress-spinner", "off")
    dependencies = said["dependencies"]
    if unknown := not_looked_up(dependencies):
        print(f"pip-audit could not look up {unknown} of {len(dependencies)} dependencies: nothing is said of those.")
    return vulnerable(dependencies)


def _said(*command: str) -> Any:
    """What a tool printed as JSON; its status says only whether it found anything."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 our own words, no shell
        return json.loads(done.stdout)
    except (OSError, ValueError) as error:
        lines = done.stderr.strip().splitlines() if isinstance(error, ValueError) else [str(error)]
        raise AuditError(f"{Path(command[0]).name} did not report: {(lines or ['it said nothing'])[-1]}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
