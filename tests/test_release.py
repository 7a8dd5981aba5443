"""A release: what is in it, that it is the same each time, and what the scripts say when there is none."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from artefacts import ROOT, SECONDS, script
from cfnlint.api import lint  # type: ignore[import-untyped]  # it ships no types
from cfnlint.core import get_rules  # type: ignore[import-untyped]
from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]
from cloudformation import template
from packaging.requirements import Requirement

release, audit = script("release"), script("audit")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "packaging" / "requirements.lock").read_text()
VERSION = PROJECT["version"]
FILES = {
    "SHA256SUMS",
    f"async-relay-{VERSION}.cdx.json",
    f"async-relay-{VERSION}.yaml",
    f"async-relay-{VERSION}.zip",
    f"async_relay-{VERSION}-py3-none-any.whl",
}


def test_the_lock_is_of_the_projects_dependencies() -> None:
    """Each is there in a version that pyproject.toml allows; nothing is that none of them asks for."""
    versions = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE))
    wanted = {each.name: each for each in map(Requirement, PROJECT["dependencies"])}
    assert {name for name, each in wanted.items() if not each.specifier.contains(versions[name])} == set()
    asked_for = re.findall(r"^([a-z0-9-]+)==[^#]*# via((?:\n    #  |) .*(?:\n    #   .*)*)", LOCK, re.MULTILINE)
    assert len(asked_for) == len(versions)
    assert {name for name, via in asked_for if "async-relay (pyproject.toml)" in via} == wanted.keys()


def test_everything_in_the_lock_has_hashes_and_no_address() -> None:
    """So it says what to take, and not from where."""
    entries = re.split(r"^(?=[a-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert [each for each in entries if "--hash=sha256:" not in each] == []
    assert "://" not in LOCK
    assert not re.search(r"^(-|--)", LOCK, re.MULTILINE)


def test_a_release_is_whole(released: Path) -> None:
    """Zip, template, wheel and contents, and sums that sha256sum checks."""
    assert {each.name for each in released.iterdir()} == FILES
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"],  # noqa: S607 the system's
        cwd=released,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert len((released / "SHA256SUMS").read_text().splitlines()) == len(FILES) - 1


def test_the_same_commit_gives_the_same_bytes(native: Path, released: Path, tmp_path: Path) -> None:
    """Made again at another time in another place, over another release that was there."""
    (tmp_path / "SHA256SUMS").write_text("of another release")
    release.release(tmp_path, SECONDS, native)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        each.name: each.read_bytes() for each in released.iterdir()
    }


def test_the_contents_are_what_is_in_the_zip(released: Path, native: Path) -> None:
    """Each distribution of the zip, in its version, and no other; all of them are locked."""
    bill = json.loads((released / f"async-relay-{VERSION}.cdx.json").read_text())
    listed = {(each["name"], each["version"]) for each in bill["components"]}
    names = {name.split("/")[0] for name in zipfile.ZipFile(native).namelist() if ".dist-info/" in name}
    assert {f"{name.replace('-', '_').lower()}-{version}" for name, version in listed} == {
        name.removesuffix(".dist-info").lower() for name in names
    }
    locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", LOCK, re.MULTILINE))
    assert {(name.replace("_", "-").lower(), version) for name, version in listed} <= locked
    assert bill["bomFormat"] == "CycloneDX"
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == ("async-relay", VERSION)
    assert str(Path.home()) not in json.dumps(bill)


def test_the_wheel_has_the_package_and_its_extras(released: Path) -> None:
    """With the command, the doubles for tests and the handler, and nothing of the checkout beside them."""
    wheel = zipfile.ZipFile(released / f"async_relay-{VERSION}-py3-none-any.whl")
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"async_relay", "handler.py", f"async_relay-{VERSION}.dist-info"}
    assert {"async_relay/cli/__init__.py", "async_relay/testing/__init__.py"} <= set(wheel.namelist())
    metadata = wheel.read(f"async_relay-{VERSION}.dist-info/METADATA").decode()
    extras = set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.MULTILINE))
    assert extras == PROJECT["optional-dependencies"].keys()


def test_the_packaged_template_is_the_template_with_the_zip_beside_it(released: Path) -> None:
    """Only the code's place is another, and the repository's facts are there; cfn-lint has nothing to say."""
    path = released / f"async-relay-{VERSION}.yaml"
    packaged = cfn_yaml.load(str(path))
    facts = packaged["Metadata"].pop("AWS::ServerlessRepo::Application")
    assert facts == {
        "Name": "async-relay",
        "Description": PROJECT["description"],
        "Author": "async-relay",
        "SemanticVersion": VERSION,
    }
    before = json.loads(json.dumps(template()))
    assert before["Globals"]["Function"].pop("CodeUri") == "."
    for each in before["Resources"].values():
        if each["Type"] == "AWS::Serverless::Function":
            assert each.pop("Metadata") == {"BuildMethod": "makefile"}
            each["Properties"]["CodeUri"] = f"async-relay-{VERSION}.zip"
    assert json.loads(json.dumps(packaged)) == before
    ignored = packaged["Metadata"]["cfn-lint"]["config"]["ignore_checks"]
    rules = get_rules([], ignored, ["I", "W", "E"])
    assert [str(each) for each in lint(path.read_text(), rules, ["eu-west-1"])] == []


@pytest.mark.parametrize("gone", ["    CodeUri: .\n", "    Metadata: { BuildMethod: makefile }\n", "Metadata:\n"])
def test_a_template_that_says_it_otherwise_is_refused(gone: str) -> None:
    """Where the code is must not be guessed."""
    changed = (ROOT / "template.yaml").read_text().replace(gone, "", 1)
    with pytest.raises(release.ReleaseError, match=r"^The template does not say as it did where the code is"):
        release.packaged(changed, "relay.zip", PROJECT)


def test_a_zip_without_bytecode_is_no_release(tmp_path: Path) -> None:
    """Whoever makes one without Lambda's Python is told how to have it."""
    with zipfile.ZipFile(tmp_path / "relay.zip", "w") as archive:
        archive.writestr("handler.py", "")
    with pytest.raises(release.ReleaseError, match=r"no bytecode.*make release PYTHON=python3\.13"):
        release.release(tmp_path / "dist", SECONDS, tmp_path / "relay.zip")
    assert not (tmp_path / "dist").exists()


def test_a_release_has_the_time_of_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And there is none of what is not committed, or of no checkout, unless a time is given."""
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(release.ReleaseError, match=r"^The checkout's state is not known: .*not a git repository"):
        release.epoch()
    (tmp_path / "handler.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.com"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one", "--date", "@1600000000 +0000"]):
        monkeypatch.setenv("GIT_COMMITTER_DATE", "@1700000000 +0000")
        subprocess.run([*git, *words], check=True)  # noqa: S603 our own words, no shell
    assert release.epoch() == "1700000000"
    forgotten = tmp_path / "async_relay" / "forgotten.py"
    forgotten.parent.mkdir()
    forgotten.touch()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(release.ReleaseError, match=r"^async_relay/forgotten\.py is not committed, and would be in it"):
        release.epoch()
    forgotten.unlink()
    assert release.epoch() == "1700000000"
    (tmp_path / "handler.py").write_text("changed")
    with pytest.raises(release.ReleaseError, match=r"^There are changes that are not committed"):
        release.epoch()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "17")
    assert release.epoch() == "17"


def test_a_release_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the sums of an earlier release are gone by then, since they may be wrong for some files already."""
    made, output = tmp_path / "made", tmp_path / "dist"
    for folder in (made, output / "relay.zip"):
        folder.mkdir(parents=True)
    (made / "relay.zip").touch()
    (output / "SHA256SUMS").write_text("of an earlier release")
    monkeypatch.setattr(release, "epoch", lambda: SECONDS)
    monkeypatch.setattr(release, "release", lambda output, _seconds: release.hand_over(made, output))
    assert release.main(["--output", str(output)]) == 1
    assert capsys.readouterr().err == f"{output} could not be written: Is a directory.\n"
    assert [each.name for each in output.iterdir()] == ["relay.zip"]


def test_a_step_that_fails_is_one_sentence() -> None:
    """With the last line of what the program said."""
    with pytest.raises(release.ReleaseError, match=r"^Nothing was made: no, not so\.$"):
        release._checked("Nothing was made", sys.executable, "-c", "raise SystemExit('first\\nno, not so.')")
    with pytest.raises(release.ReleaseError, match=r"^Nothing was made: /nowhere: No such file or directory\.$"):
        release._checked("Nothing was made", "/nowhere")


def test_what_is_accepted_is_in_the_template_and_has_its_reason() -> None:
    """No finding is accepted of a resource that is not there, twice, or without a word."""
    entries = tomllib.loads((ROOT / "packaging" / "accepted.toml").read_text())["accepted"]
    pairs = [(each["check"], resource) for each in entries for resource in each["of"]]
    assert len(pairs) == len(set(pairs))
    assert {resource for _, resource in pairs} <= template()["Resources"].keys()
    assert all(each["why"].endswith(".") for each in entries)


def checked(check: str, resource: str) -> dict[str, Any]:
    return {"check_id": check, "resource": f"AWS::SQS::Queue.{resource}", "check_name": "Ensure it is"}


def test_a_finding_that_is_not_accepted_is_a_problem_and_so_is_one_that_is_gone() -> None:
    """As checkov reports them, of one framework or of several."""
    allowed = audit.accepted('[[accepted]]\ncheck = "A_1"\nof = ["Old", "Both"]\nwhy = "So."')
    failed = [checked("A_1", "Both"), checked("A_1", "New"), checked("A_2", "Both")]
    report = {"results": {"failed_checks": failed}}
    for each in (report, [report]):
        assert list(audit.unlike(audit.findings(each), allowed)) == [
            "checkov: A_1 of New is new: Ensure it is. Mend it, or accept it with its reason.",
            "checkov: A_2 of Both is new: Ensure it is. Mend it, or accept it with its reason.",
            "checkov: A_1 of Old is found no longer; take it out of packaging/accepted.toml.",
        ]


def tool(folder: Path, name: str, prints: str, *, complains: str = "", status: int = 0) -> None:
    program = folder / name / "bin" / name
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{prints}\nEND\necho '{complains}' >&2\nexit {status}\n")
    program.chmod(0o755)


def test_an_audit_says_what_is_wrong_and_what_nobody_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A vulnerability is a problem; a dependency that could not be looked up, and findings as accepted, are none."""
    entries = tomllib.loads((ROOT / "packaging" / "accepted.toml").read_text())["accepted"]
    failed = [checked(each["check"], resource) for each in entries for resource in each["of"]]
    tool(tmp_path, "checkov", json.dumps({"results": {"failed_checks": failed}}), status=1)
    unknown = {"name": "b", "skip_reason": "not found"}
    tool(tmp_path, "pip-audit", json.dumps({"dependencies": [unknown, {"name": "c", "version": "1", "vulns": []}]}))
    assert audit.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "pip-audit could not look up 1 of 2 dependencies: nothing is said of those.\n"
        "checkov and pip-audit found nothing else than what is accepted.\n"
    )
    known = {"id": "CVE-1", "fix_versions": ["1.1"]}
    assert audit.vulnerable([{"name": "a", "version": "1.0", "vulns": [known]}]) == [
        "pip-audit: a 1.0 has CVE-1; mended in 1.1. make lock UPGRADE=1 takes the newest versions."
    ]


def test_a_tool_that_does_not_report_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails the audit, and hides nothing that the other tool found."""
    tool(tmp_path, "pip-audit", "", complains="ERROR: the service did not answer", status=1)
    assert audit.main([str(tmp_path)]) == 1
    missing, silent = capsys.readouterr().out.splitlines()
    assert missing.startswith("checkov did not report: [Errno 2] No such file or directory")
    assert silent == "pip-audit did not report: ERROR: the service did not answer"
