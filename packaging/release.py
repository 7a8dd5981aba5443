#!/usr/bin/env python3
"""Makes a release in ``dist/``: the zip, a template that names it, a wheel, what is in the zip, and the sums of all.

    async-relay-N.zip          of packaging/build.py, for arm64 and x86_64
    async-relay-N.yaml         the template, with that zip beside it for its code, and the facts a repository asks for
    async_relay-N-….whl        the package with its command and its doubles, for pip
    async-relay-N.cdx.json     what is in the zip, as CycloneDX
    SHA256SUMS                 of the four above, as sha256sum writes and checks them

Rules
- The same commit gives the same bytes, by the same versions of Python and of the extra ``release``: the zip's
  dependencies are locked, and every time is the commit's (``SOURCE_DATE_EPOCH``, unless that is given).
- A release is of a commit: with changes that are not committed there is none. Nor is there one without bytecode.
- The sums come last. Where they are not there, or another's, the release is not whole.
- An error is one sentence.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUMS = "SHA256SUMS"
_PACKED = ("async_relay", "handler.py")
_GLOBAL_CODE = re.compile(r"^ {4}CodeUri: \.\n", re.MULTILINE)
_BUILT_BY_MAKE = re.compile(r"^ {4}Metadata: \{ BuildMethod: makefile \}\n {4}Properties:\n", re.MULTILINE)
_FUNCTION = re.compile(r"^ {4}Type: AWS::Serverless::Function$", re.MULTILINE)
_METADATA = re.compile(r"^Metadata:\n", re.MULTILINE)


class ReleaseError(Exception):
    """The reason why there is no release, in one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the release; the exit status."""
    parser = argparse.ArgumentParser(description="Makes a release.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
    options = parser.parse_args(arguments)
    try:
        release(options.output, epoch())
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    print((options.output / SUMS).read_text(), end="")
    return 0


def epoch() -> str:
    """``SOURCE_DATE_EPOCH``, or the time of the commit that is checked out, with nothing else in the checkout."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    git = ("git", "-C", str(ROOT))
    if _checked("The checkout's state is not known", *git, "status", "--porcelain", "--untracked-files=no"):
        raise ReleaseError("There are changes that are not committed; a release is of a commit.")
    # The zip and the wheel take whatever lies in the package.
    others = _checked("The checkout's state is not known", *git, "ls-files", "--others", "--exclude-standard", *_PACKED)
    if others:
        raise ReleaseError(f"{others.splitlines()[0]} is not committed, and would be in it; a release is of a commit.")
    return _checked("The commit's time is not known", *git, "log", "-1", "--format=%ct").strip()


def release(output: Path, seconds: str, zip_file: Path | None = None) -> None:
    """Make it in that folder, of that time; of a zip that is there, if one is named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"{project['name']}-{project['version']}"
    with tempfile.TemporaryDirectory(prefix="async-relay-release-") as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        zipped = made / f"{name}.zip"
        if zip_file:
            shutil.copy(zip_file, zipped)
        else:
            _checked("The zip was not made", sys.executable, str(ROOT / "packaging/build.py"), "--output", str(zipped))
        check_bytecode(zipped)
        (made / f"{name}.yaml").write_text(packaged((ROOT / "template.yaml").read_text(), zipped.name, project))
        times = {"SOURCE_DATE_EPOCH": seconds}
        build = (sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(made), str(ROOT))
        _checked("The wheel was not made", *build, **times)
        list_contents(zipped, made / f"{name}.cdx.json", Path(scratch, "zip"), times)
        hand_over(made, output)


def check_bytecode(zip_file: Path) -> None:
    """``ReleaseError`` for a zip that every cold start would have to compile."""
    if not any(name.endswith(".pyc") for name in zipfile.ZipFile(zip_file).namelist()):
        raise ReleaseError(
            "The zip has no bytecode, since there is no Python of Lambda's version here; put one on PATH, "
            "or name it as in: make release PYTHON=python3.13"
        )


def packaged(template: str, zip_name: str, project: Mapping[str, str]) -> str:
    """The template with that zip for the code of each function, and nothing left for ``sam build`` to do.

    Each function names it, and not the globals: ``aws cloudformation package`` does not look there.
    """
    functions = len(_FUNCTION.findall(template))
    text, in_globals = _GLOBAL_CODE.subn("", template)
    text, in_functions = _BUILT_BY_MAKE.subn(f"    Properties:\n      CodeUri: {zip_name}\n", text)
    text, metadata = _METADATA.subn(lambda found: found[0] + _application(project), text)
    if (in_globals, in_functions, metadata) != (1, functions, 1):
        raise ReleaseError("The template does not say as it did where the code is; packaging/release.py must follow.")
    return text


def _application(project: Mapping[str, str]) -> str:
    """What the Serverless Application Repository asks for, as YAML, of which JSON's strings are a part."""
    facts = {
        "Name": project["name"],
        "Description": project["description"],
        "Author": project["name"],
        "SemanticVersion": project["version"],
    }
    lines = [f"    {name}: {json.dumps(text)}\n" for name, text in facts.items()]
    return "".join(["  AWS::ServerlessRepo::Application:\n", *lines])


def list_contents(zip_file: Path, bill: Path, scratch: Path, times: Mapping[str, str]) -> None:
    """Write down which versions of what are in the zip, as they say it themselves there."""
    venv.create(scratch, with_pip=False)
    site = next(scratch.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(zip_file) as archive:
        archive.extractall(site, [name for name in archive.namelist() if ".dist-info/" in name])
    # Not validated: that takes four seconds, to find whether the tool's own model writes its own format.
    words = ("environment", "--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--no-validate")
    command = (sys.executable, "-P", "-m", "cyclonedx_py", *words, "--output-file", str(bill), str(scratch))
    _checked("The contents of the zip were not listed", *command, **times)


def hand_over(made: Path, output: Path) -> None:
    """Put the files where they are wanted, and their sums last."""
    sums = output / SUMS
    try:
        output.mkdir(parents=True, exist_ok=True)
        sums.unlink(missing_ok=True)
        files = sorted(made.iterdir())
        lines = [f"{hashlib.sha256(each.read_bytes()).hexdigest()}  {each.name}\n" for each in files]
        for each in files:
            shutil.copyfile(each, output / each.name)
        sums.write_text("".join(lines))
    except OSError as error:
        raise ReleaseError(f"{output} could not be written: {error.strerror}.") from error


def _checked(problem: str, *command: str, **variables: str) -> str:
    """What the command said, or ``ReleaseError`` with its last line."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603 our own words, no shell
    except OSError as error:
        raise ReleaseError(f"{problem}: {command[0]}: {error.strerror}.") from error
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise ReleaseError(f"{problem}: {lines[-1].rstrip('.')}.")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
