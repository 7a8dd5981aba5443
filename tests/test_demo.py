"""The demo: its feed, its verdict, its page's policy; and the whole round on the deployed template."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import ClientConnection, connect

from async_relay.wire.incidents import format_item
from demo import page
from demo.__main__ import main
from demo.clients import Dashboard
from demo.deployment import TEMPLATE, door
from demo.deployment import released as released_artefacts
from demo.door import address, bad_tokens
from demo.errors import DemoError
from demo.feed import EVERY_TENANT, TENANT, TENANTS, Change, Clock, Marker, changes
from demo.installation import last_error
from demo.issuer import AUDIENCE, TENANTS_CLAIM, Issuer, issuing
from demo.ledger import Delivery, Ledger, percentile
from demo.verdict import complaints, faults

ROOT = Path(__file__).parent.parent


def feed(seed: int, count: int) -> list[Change]:
    ticks = map(str, itertools.count())
    return list(itertools.islice(changes(seed, lambda: next(ticks)), count))


def test_the_same_seed_makes_the_same_changes_and_another_seed_others() -> None:
    assert feed(1, 200) == feed(1, 200)
    assert feed(1, 200) != feed(2, 200)


def test_every_incident_goes_from_open_over_investigating_to_resolved() -> None:
    statuses = defaultdict(list)
    for change in feed(3, 400):
        if "incident_id" in change.item:
            statuses[change.item["incident_id"]].append(change.item["status"])
    story = ["OPEN", "INVESTIGATING", "RESOLVED"]
    assert len(statuses) > 40
    assert all(seen == story[: len(seen)] for seen in statuses.values())
    assert sum(seen == story for seen in statuses.values()) > 40


def test_only_the_first_state_of_an_incident_is_put_as_a_whole() -> None:
    for change in feed(3, 100):
        assert bool(change.updated) == (change.item.get("status") in ("INVESTIGATING", "RESOLVED"))


def test_a_change_and_the_message_the_relay_makes_of_it_have_the_same_marker_and_no_two_are_alike() -> None:
    written = feed(4, 300)
    for change in written:
        found = format_item(change.item, event_id="e", sequence="1")
        assert found is not None
        assert Marker.of(found) == change.marker
    assert len({change.marker for change in written}) == len(written)


def test_the_clock_never_says_the_same_twice() -> None:
    clock = Clock()
    times = [clock() for _ in range(1000)]
    assert times == sorted(set(times))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", times[0])


def test_an_incident_and_what_is_done_about_it_are_one_tenants() -> None:
    """By the resource that both name; and each tenant has some."""
    tenants = defaultdict(set)
    for change in feed(3, 400):
        item = change.item
        tenants[item.get("target") or item.get("arn") or item.get("resource") or item["sg"]].add(change.tenant)
    assert all(len(found) == 1 for found in tenants.values())
    assert set.union(*tenants.values()) == set(TENANTS)


def test_a_dashboard_may_have_its_own_tenants_changes_or_all() -> None:
    found = {
        tenant: [Dashboard.may_have(SimpleNamespace(tenant=tenant), each) for each in TENANTS]  # type: ignore[arg-type]
        for tenant in (*TENANTS, EVERY_TENANT, "another")
    }
    assert found == {
        TENANTS[0]: [True, False],
        TENANTS[1]: [False, True],
        EVERY_TENANT: [True, True],
        "another": [False, False],
    }


def verified(issuer: Issuer, token: str) -> dict[str, Any]:
    """The claims of a token, checked as any API would: by what the issuer serves."""
    discovery = requested(f"{issuer.url}/.well-known/openid-configuration")
    assert discovery["issuer"] == issuer.url
    (key,) = requested(discovery["jwks_uri"])["keys"]
    assert "d" not in key
    claims: dict[str, Any] = jwt.decode(
        token, jwt.PyJWK(key), algorithms=["ES256"], audience=AUDIENCE, issuer=issuer.url
    )
    return claims


def requested(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
        return json.load(answer)


def test_a_token_is_good_by_what_the_issuer_serves() -> None:
    """It names who has it, until when, and for which tenants."""
    with issuing() as issuer:
        claims = verified(issuer, issuer.token("dashboard-01", ["acme"]))
        assert (claims["sub"], claims[TENANTS_CLAIM]) == ("dashboard-01", ["acme"])
        assert 3_500 < claims["exp"] - time.time() <= 3_600
        assert requested_status(f"{issuer.url}/") == 404


def requested_status(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        requested(url)
    with refusal.value:
        return refusal.value.code


def test_what_strangers_bring_is_no_good_token() -> None:
    """None at all, one that has ended, and one that another key signed."""
    with issuing() as issuer:
        without, *others = bad_tokens(issuer).values()
        assert without is None
        assert others
        for token in others:
            assert token is not None
            with pytest.raises(jwt.InvalidTokenError):
                verified(issuer, token)


def test_a_client_brings_its_token_in_the_query() -> None:
    """The local AWS loses the subprotocol; who has no token brings none."""
    assert address("ws://x/prod", "a", "t.t.t") == "ws://x/prod?clientId=a&access_token=t.t.t"
    assert address("ws://x/prod", "a", None) == "ws://x/prod?clientId=a"


def test_the_stacks_door_is_closed_by_parameters_that_it_has() -> None:
    """Its tenants are the feed's attribute and the token's claim."""
    parameters = door(Issuer("http://127.0.0.1:1"))
    assert parameters["AuthMode"] == "jwt"
    assert (parameters["TenantAttribute"], parameters["TenantClaim"]) == (TENANT, TENANTS_CLAIM)
    assert all(re.search(rf"^  {name}:", TEMPLATE.read_text(), re.MULTILINE) for name in parameters)


def deliveries(*numbers: int) -> list[Delivery]:
    return [Delivery(marker(number), str(100 + number), f"event-{number}") for number in numbers]


def marker(number: int) -> Marker:
    return Marker(f"INC-{number}", "OPEN", str(number))


EXPECTED = [marker(number) for number in range(4)]


def test_everything_once_and_in_order_is_no_fault() -> None:
    assert list(faults(EXPECTED, deliveries(0, 1, 2, 3))) == []


@pytest.mark.parametrize("gone", range(4))
def test_a_missing_message_is_a_fault(gone: int) -> None:
    received = [delivery for number, delivery in enumerate(deliveries(0, 1, 2, 3)) if number != gone]
    assert list(faults(EXPECTED, received)) == [f"lacks 1 of 4 messages, the first of them INC-{gone} OPEN"]


def test_nothing_at_all_is_a_fault() -> None:
    assert list(faults(EXPECTED, [])) == ["lacks 4 of 4 messages, the first of them INC-0 OPEN"]


@pytest.mark.parametrize("order", [(0, 1, 1, 2, 3), (0, 1, 2, 3, 0)])
def test_a_repeated_message_is_a_fault(order: tuple[int, ...]) -> None:
    assert any(re.fullmatch(r"got INC-\d OPEN 2 times", fault) for fault in faults(EXPECTED, deliveries(*order)))


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(4)) if order != (0, 1, 2, 3)])
def test_every_other_order_is_a_fault(order: tuple[int, ...]) -> None:
    assert any("out of order" in fault for fault in faults(EXPECTED, deliveries(*order)))


def test_a_message_nobody_wrote_is_a_fault() -> None:
    assert list(faults(EXPECTED, deliveries(0, 1, 2, 3, 9))) == ["got what was not meant for it: INC-9 OPEN"]


@pytest.mark.parametrize(("sequence", "fault"), [("", "without a sequence"), ("7", "a lower sequence")])
def test_a_sequence_that_is_missing_or_falls_is_a_fault(sequence: str, fault: str) -> None:
    received = deliveries(0, 1, 2, 3)
    received[2] = Delivery(marker(2), sequence, "event-2")
    assert any(fault in found for found in faults(EXPECTED, received))


def test_who_had_left_before_a_change_need_not_have_it_and_who_was_there_must() -> None:
    ledger, (first, second) = Ledger(), feed(5, 2)
    ledger.wrote(first, ["a", "b"], 1.0)
    for client in "ab":
        ledger.got(client, payload(first, 1), 1.5)
    ledger.wrote(second, ["a"], 2.0)
    assert complaints(ledger) == [f"a lacks 1 of 2 messages, the first of them {second.marker}"]
    ledger.got("a", payload(second, 2), 2.25)
    assert complaints(ledger) == []
    assert ledger.latencies() == [0.25, 0.5, 0.5]
    ledger.got("b", payload(second, 2), 2.5)
    assert complaints(ledger) == [f"b got what was not meant for it: {second.marker}"]


def payload(change: Change, sequence: int) -> dict[str, object]:
    found = format_item(change.item, event_id=f"event-{sequence}", sequence=str(sequence))
    assert found is not None
    return found


def test_a_ledger_is_complete_once_everybody_has_everything() -> None:
    ledger, [change] = Ledger(), feed(5, 1)
    assert ledger.complete
    write = ledger.wrote(change, ["a", "b"], 1.0)
    progress = [write.complete]
    for client in "ab":
        ledger.got(client, payload(change, 1), 1.5)
        progress.append(ledger.complete)
    assert progress == [False, False, True]


def test_percentiles_are_values_that_were_measured() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert (percentile(ordered, 0.5), percentile(ordered, 0.95), percentile(ordered, 1)) == (50, 95, 100)
    assert percentile([7.0], 0.5) == 7
    assert percentile([], 0.5) is None


def test_a_busy_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(DemoError, match=f"The page cannot be served at port {port} .*PORT=8081"):
            page.check_port(port)


@pytest.mark.parametrize(
    "option", ["--port=http", "--port=0", "--port=65536", "--clients=3", "--clients=51", "--port=²", "--soak=0"]
)
def test_a_wrong_option_is_one_sentence(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", option])
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(SystemExit, match=r"^The demo cannot go on\. \w+ is '.*'; it must be a whole number from"):
        main()


def test_a_release_that_is_not_whole_is_one_sentence(tmp_path: Path) -> None:
    """No sums, a file that is not there, or one that was changed."""
    for written, problem in (
        ({}, "SHA256SUMS is not there"),
        ({"SHA256SUMS": f"{sha256(b'code').hexdigest()}  a.zip\n"}, "a.zip is not as"),
        ({"a.zip": "other code"}, "a.zip is not as"),
    ):
        for name, text in written.items():
            (tmp_path / name).write_text(text)
        with pytest.raises(DemoError, match=problem):
            released_artefacts(tmp_path)


def test_of_pips_output_the_error_is_shown() -> None:
    output = "WARNING: found in several places\nERROR: Could not find a version\nERROR: No matching distribution\n\n"
    assert last_error(output) == "No matching distribution"
    assert last_error("Traceback\nOSError: disk full\n") == "OSError: disk full"
    assert last_error("") == "it said nothing"


LEADS_ASTRAY = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_PROFILE": "nobody",
    "AWS_CA_BUNDLE": "/does/not/exist",
    "no_proxy": "",
}


def start(scratch: Path, *options: str) -> subprocess.Popen[str]:
    """The demo, in an environment that would lead an AWS client astray."""
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "demo", *options],
        cwd=ROOT,
        env=os.environ | LEADS_ASTRAY | {"TMPDIR": str(scratch)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(scratch: Path) -> list[str]:
    """Files in ``scratch``, and processes that were told of it."""
    processes = [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if knows(path, scratch)]
    return [*processes, *map(str, scratch.iterdir())]


def knows(environ: Path, scratch: Path) -> bool:
    try:
        return str(scratch).encode() in environ.read_bytes()
    except OSError:  # ended meanwhile, or somebody else's
        return False


@pytest.mark.end_to_end
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["release", "fanout"])
def test_one_round_on_the_deployed_template_reaches_everybody(mode: str, tmp_path: Path, released: Path) -> None:
    """In one function, which is a release's, or through the FIFO queue, of which the local AWS has one batch in flight
    and not one a group."""
    picture = tmp_path / "demo.svg"
    options = ["--fanout"] if mode == "fanout" else ["--release", str(released)]
    round_ = start(tmp_path, "--once", "--clients", "12", "--capture", str(picture), *options)
    output, _ = round_.communicate()
    assert round_.returncode == 0, output
    assert "reached every dashboard of its tenant, once and in order, and no other: 49 changes, 12 dashboards" in output
    assert len(re.findall(r"^A client (?:without a|with a) token.* was refused \(\d+.*\)$", output, re.MULTILINE)) == 3
    assert "The visitor's token ended after 5 s: it got nothing, and was disconnected" in output
    assert "23 changes were acme's, 26 changes were umbrella's" in output
    assert re.search(r"[1-9]\d* x 410", output)
    assert re.search(
        r"^A client that was cut (?:once|\d+ times) came back without help, and cannot be told from one that never "
        r"was: 49 messages, each once and none missing, [1-9]\d* of them by catching up, and the same picture$",
        output,
        re.MULTILINE,
    )
    assert "The connections table has 10 rows" in output
    assert bool(re.search(r"Invocations: .*\bfanout [1-9]", output)) == (mode == "fanout")
    assert left_behind(tmp_path) == [str(picture)]


@pytest.mark.end_to_end
@pytest.mark.timeout(300)
def test_a_short_soak_on_the_deployed_template_tells_nobody_apart(tmp_path: Path) -> None:
    """Of each tenant one client is cut at random, and where there is a Node one in it."""
    soak = start(tmp_path, "--soak", "8", "--clients", "4")
    output, _ = soak.communicate()
    assert soak.returncode == 0, output
    assert re.search(r"^[34] clients that were cut \d+ times came back without help", output, re.MULTILINE)
    assert left_behind(tmp_path) == []


@pytest.mark.end_to_end
@pytest.mark.timeout(300)
def test_it_leaves_nothing_running_however_it_ends(tmp_path: Path) -> None:
    """And before that its page is full, and its buttons do what they say."""
    for number in (signal.SIGINT, signal.SIGKILL):
        show = start(tmp_path, "--clients", "4")
        assert show.stdout is not None
        said = until_it_says(show, "4 dashboards are connected")
        if number == signal.SIGINT:
            buttons_do_what_they_say(re.findall(r"The demo is at (http://localhost:\d+)/demo.html", said)[0])
            the_doctor_finds_nothing(re.findall(r"^  export (.*)\n  (\S*async-relay doctor .*)", said, re.MULTILINE)[0])
        show.send_signal(number)
        output, _ = show.communicate(timeout=30)
        assert "Traceback" not in output
        assert ("Stopping ..." in output) == (number != signal.SIGKILL)
        assert show.returncode == (-number if number == signal.SIGKILL else 0), output
        deadline = time.monotonic() + 30
        while left_behind(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left_behind(tmp_path) == []


def until_it_says(show: subprocess.Popen[str], words: str) -> str:
    """All it said until then."""
    assert show.stdout is not None
    said = []
    for line in show.stdout:
        said.append(line)
        if words in line:
            return "".join(said)
    return pytest.fail("".join(said))


def the_doctor_finds_nothing(told: tuple[str, str]) -> None:
    """By the command that the demo tells; but that the zip is for the Python of these tests."""
    environment, command = told
    asked = subprocess.run(  # noqa: S603 - what the demo itself tells
        shlex.split(command),
        env={"PATH": os.environ["PATH"]} | dict(each.split("=", 1) for each in environment.split()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = set(re.findall(r"^Wrong: (.*)$", asked.stdout, re.MULTILINE))
    assert wrong <= ({"architecture"} if sys.version_info[:2] != (3, 13) else set()), asked.stdout
    assert asked.stderr == ""
    assert "async-relay-demo is CREATE_COMPLETE" in " ".join(asked.stdout.replace("│", " ").split())


def buttons_do_what_they_say(demo: str) -> None:
    """Seen by a client of our own on the page's line, and by the figures."""
    with connected(demo) as client:
        client.send(json.dumps({"action": "subscribe", "limit": 200}))
        assert len(next(each["incidents"] for each in received(client) if "incidents" in each)) == 200
        press(demo, "write")
        written = state(demo)["told"][-1][1].removesuffix(" was written")
        assert next(each["severity"] for each in received(client) if each.get("incident_id") == written) == "CRITICAL"
        press(demo, "cut")
        with pytest.raises(ConnectionClosedError):
            list(received(client))
    press(demo, "expire")
    with connected(demo) as client:
        press(demo, "kill")
        until(demo, lambda state: state["repeated"] > 0)
        press(demo, "throttle")
        until(demo, lambda state: state["retries"] > 0)
        with pytest.raises(ConnectionClosed):
            list(received(client))
    until(demo, lambda state: state["waiting"] == 0)


def connected(demo: str) -> ClientConnection:
    """As the page is: where its config says, with a token."""
    config, token = (read(f"{demo}/{name}") for name in ("config.js", "token"))
    where = re.findall(r'url = "(.+)"', config)[0]
    return connect(f"{where}&access_token={token}", proxy=None, open_timeout=60)


def received(client: ClientConnection) -> Iterator[dict[str, Any]]:
    while True:
        yield json.loads(client.recv(timeout=60))


def read(url: str, method: str = "GET") -> str:
    request = urllib.request.Request(url, method=method)  # noqa: S310 - our own server
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
        return str(answer.read().decode())


def press(demo: str, button: str) -> None:
    read(f"{demo}/press/{button}", "POST")


def state(demo: str) -> dict[str, Any]:
    return dict(json.loads(read(f"{demo}/state")))


def until(demo: str, is_so: Callable[[dict[str, Any]], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so(state(demo)):
        assert time.monotonic() < deadline, state(demo)
        time.sleep(0.1)
