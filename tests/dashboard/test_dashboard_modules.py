"""The dashboard's modules under Node's runner, and what a strict policy and its vendored libraries ask of its files."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from servers import program

DASHBOARD = Path(__file__).parents[2] / "dashboard"
VENDOR = DASHBOARD / "vendor"
HERE = Path(__file__).parent
#: Node's runner came of age with it.
_OLDEST = 20
_CLIENT = "async-relay.js"
_OWN = sorted(path for path in DASHBOARD.iterdir() if path.is_file() and path.name != _CLIENT)
_MODULES = [path for path in _OWN if path.suffix == ".js"]


def node() -> Path:
    """Node.js, where it is new enough."""
    found = program("node")
    if found is None:
        pytest.skip("the dashboard's tests need Node.js, which neither the dev extra nor this machine has")
    version = run(found, "--version").stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < _OLDEST:
        pytest.skip(f"the dashboard's tests need Node.js {_OLDEST} or newer, and this is {version}")
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # A zone that is not the server's, so that who mixes them up is found out.
    environment = os.environ | {"TZ": "Asia/Seoul"}
    return subprocess.run(  # noqa: S603 - our own
        command, capture_output=True, text=True, check=False, timeout=100, env=environment
    )


class Tags(HTMLParser):
    """The elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.lasttag in {"script", "style"} and data.strip():
            self.inline.append(data)


def page() -> Tags:
    return Tags((DASHBOARD / "index.html").read_text())


@pytest.mark.parametrize("path", sorted(HERE.glob("*.test.mjs")), ids=lambda path: path.name)
def test_the_dashboards_modules(path: Path) -> None:
    """What is pure, without a document: the picture, the view, times, words, frames."""
    done = run(node(), "--test", "--test-reporter", "tap", path)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.name)
def test_every_module_can_be_read(path: Path) -> None:
    """What only a browser runs is at least JavaScript, and imports nothing that is not beside it."""
    text = path.read_text()
    done = subprocess.run(  # noqa: S603 - our own
        [node(), "--input-type=module", "--check"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for imported in re.findall(r'(?:from|import\() ?"([^"]+)"', text):
        assert (path.parent / imported).exists(), imported


def test_the_policy_lets_nothing_run_but_what_is_served() -> None:
    """No inline script or style, no eval, nothing from elsewhere."""
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes in page().found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = {name: words for name, *words in (rule.split() for rule in policy.split(";"))}
    assert rules["default-src"] == ["'none'"]
    assert [rules[name] for name in ("script-src", "style-src", "img-src")] == [["'self'"]] * 3
    assert rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert "unsafe" not in policy
    assert {"'self'", "wss:", "https:"} <= set(rules["connect-src"])
    elsewhere = set(rules["connect-src"]) - {"'self'", "wss:", "https:"}
    assert all(re.fullmatch(r"(ws|http)://(localhost|127\.0\.0\.1):\*", each) for each in elsewhere)


def test_the_page_keeps_to_its_policy() -> None:
    """It would not run otherwise: no inline script, style or handler, and no file from elsewhere."""
    tags = page()
    assert tags.inline == []
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
        where = attributes.get("src") or attributes.get("href")
        assert where is None or (DASHBOARD / where).exists(), where


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: path.name)
def test_no_module_makes_markup_of_text(path: Path) -> None:
    """What came from outside becomes text and attributes alone, whatever it says."""
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|dangerously|\beval\b|new Function|srcdoc|javascript:",
        path.read_text(),
    )


def test_vendored_files_are_the_ones_that_are_named() -> None:
    """Each by its hash, and none beside them."""
    readme = (VENDOR / "README.md").read_text()
    named = dict(re.findall(r"^\| `([\w.]+)` \|.*\| `([0-9a-f]{64})` \|$", readme, re.MULTILINE))
    licences = set(re.findall(r"`(LICENSE-\w+)`", readme))
    assert {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in named} == named
    assert {path.name for path in VENDOR.iterdir()} == {*named, *licences, "README.md"}


def test_the_client_is_the_one_of_this_project() -> None:
    """A link, so that there is one client to look after."""
    assert (DASHBOARD / _CLIENT).read_bytes() == (DASHBOARD.parent / "client" / _CLIENT).read_bytes()


def test_every_text_is_said_somewhere() -> None:
    """And what a module says has its words; names made of parts count by their first one."""
    texts = {path.name: path.read_text() for path in _MODULES}
    english = texts.pop("words.js").partition("export const ko")[0].partition("export const en")[2]
    words = set(re.findall(r'(?:\s|, )"?([\w.]+)"?: "', english))
    source = "".join(texts.values())
    said = set(re.findall(r'\bsay\((?:[^"()]+ \? )?"([\w.]+)"', source))
    assert said - words == set()
    spans = {"seconds", "minutes", "hours"}  # words.js says these itself
    assert [name for name in words - spans if not re.search(rf'"({name}|{name.rpartition(".")[2]})"', source)] == []


def test_the_dashboard_stays_small() -> None:
    """Its own scripts, styles and page, as they are served: compressed, one by one."""
    assert sum(len(gzip.compress(path.read_bytes(), 9)) for path in _OWN) < 40 * 1024
