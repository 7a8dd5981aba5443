"""docs/wire: the schemas say what the code does, no less and no more; the documents beside them are made of these."""

from __future__ import annotations

import ast
import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from deployment import Context
from door import asking
from hypothesis import given
from hypothesis import strategies as st
from lambda_models import EPOCH, virtual_time, wall_clock
from records import event, incident, record, remediation
from servers import NODE_SERVERS, installed, pinned, program
from test_docs import blocks
from wire_documents import WATCH, WIRE, Watch, document, problem_of, schema, watching

import async_relay
from async_relay.cli.parsing import Form, parse_dead_letter
from async_relay.cli.redrive import Resend, redrive
from async_relay.clients.requests import _ACTIONS
from async_relay.errors import PostError, UnreadableJob
from async_relay.sandbox import Sandbox
from async_relay.settings import Settings
from async_relay.testing.memory import MemoryServices, MemoryStore, MemoryTransport, Reply
from async_relay.wire.audience import INTEREST_KEYS
from async_relay.wire.feed import publish
from async_relay.wire.formatter import load_formatter, with_tenant
from async_relay.wire.incidents import format_item
from async_relay.wire.jobs import Job, ShardKind
from async_relay.wire.messages import Message
from async_relay.wire.streams import read_records

ROOT = WIRE.parents[1]
SCHEMAS = ("to-client.json", "from-client.json", "job.json", "dead-letter.json")
PLACES = [f"{name}#/$defs/{each}" for name in SCHEMAS for each in document(name)["$defs"]]
ASYNCAPI = document("asyncapi.json")
RETRY = "https://sqs.eu-west-1.amazonaws.com/123456789012/retry"
POSITION = "0miks1olc00k3f"


def contents(place: str) -> Any:
    """What stands at a place of a file."""
    name, _, key = place.partition("#/$defs/")
    return document(name)["$defs"][key]


def examples(place: str) -> list[Any]:
    found: list[Any] = contents(place).get("examples", [])
    return found


def in_draft_07(place: str) -> jsonschema_rs.Draft7Validator:
    """The same place for a reader that knows nothing newer."""
    older = {"$schema": "http://json-schema.org/draft-07/schema#"}
    return jsonschema_rs.Draft7Validator(
        {"$ref": f"file:///{place}"}, retriever=lambda uri: document(uri.removeprefix("file:///")) | older
    )


def words_of(contents: Any, key: str) -> Iterator[Any]:
    """The values that schemas allow for a property, wherever it is spelt out."""
    if isinstance(contents, dict):
        allowed = contents.get("properties", {}).get(key, {})
        yield from [allowed["const"]] if "const" in allowed else allowed.get("enum", [])
        for name, inner in contents.items():
            yield from words_of(inner, key) if name != "examples" else ()
    elif isinstance(contents, list):
        for inner in contents:
            yield from words_of(inner, key)


# ── the schemas by themselves ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("place", PLACES)
def test_every_example_is_valid_and_everything_has_one(place: str) -> None:
    """What only names others has theirs."""
    assert [problem for each in examples(place) if (problem := problem_of(place, each))] == []
    assert all(in_draft_07(place).is_valid(each) for each in examples(place))
    assert examples(place) or {"anyOf", "$ref"} & set(contents(place))


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_use_words_that_mean_the_same_in_draft_07(name: str) -> None:
    """So tools that know nothing newer, AsyncAPI's among them, read them right; there a $ref stands alone."""
    words = {"$ref", "additionalProperties", "anyOf", "const", "description", "enum", "examples", "items", "not"}
    words |= {f"{bound}{what}" for bound in ("min", "max") for what in ("Length", "Items", "Properties", "imum")}
    words |= {"pattern", "properties", "required", "title", "type"}

    def look(contents: dict[str, Any]) -> None:
        assert set(contents) <= words
        assert "$ref" not in contents or set(contents) <= {"$ref", "title"}
        inner = [*contents.get("properties", {}).values(), *contents.get("anyOf", ())]
        for each in inner + [contents[key] for key in ("items", "not") if key in contents]:
            look(each)

    whole = document(name)
    assert whole.pop("$schema") == "https://json-schema.org/draft/2020-12/schema"
    for each in whole.pop("$defs").values():
        look(each)
    look(whole)


INCIDENT = examples("to-client.json#/$defs/incident_update")[0]
REMEDIATION = examples("to-client.json#/$defs/remediation")[0]
HISTORY = examples("to-client.json#/$defs/incident_history")[0]
(PAGE,) = examples("to-client.json#/$defs/replay_page")
(END,) = examples("to-client.json#/$defs/replay_end")
(FOR_CLIENTS,) = examples("job.json#/$defs/for_clients")
CLIENT = {"connectionId": "Zx0aBcPLDoECJXg="}
(FOR_A_SHARD,) = examples("job.json#/$defs/for_a_shard")
(OF_A_RECORD,) = examples("dead-letter.json#/$defs/of_a_record")


def without(whole: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if key not in keys}


def changed(whole: dict[str, Any], **values: Sequence[Any]) -> list[dict[str, Any]]:
    """The whole with another value of one key, for each value of each key."""
    return [whole | {key: value} for key, each in values.items() for value in each]


BAD: dict[str, list[Any]] = {
    "to-client.json": [
        *(without(INCIDENT, key) for key in ("kind", "incident_id", "status", "resource", "event_id", "sequence")),
        *(without(REMEDIATION, key) for key in ("kind", "action", "event_id", "sequence")),
        *changed(INCIDENT, **dict.fromkeys(INCIDENT, (None,))),
        *changed(INCIDENT, action=["x"], type=["ping"], note=[1], kind=["incident"], incident_id=["", [], {}]),
        *changed(INCIDENT, position=["", "p1", POSITION.upper(), POSITION + "0", POSITION[1:], 5]),
        *changed(INCIDENT, sequence=["", "12a", "-1", "1.0", " 1", 5], event_id=["", "a b", 5]),
        *changed(INCIDENT, tenant=["", 1.5, True, ["a"]]),
        [],
        [INCIDENT],
        [INCIDENT, END],
        [INCIDENT, {"type": "ping", "timestamp": 1}],
        {"type": "ping"},
        *changed({"type": "ping", "timestamp": 1}, timestamp=["1", -1], more=[1]),
        *changed({"type": "pong"}, timestamp=[None, "1" * 1025], more=[1]),
        *(without(HISTORY, key) for key in ("incidents", "nextCursor")),
        *changed(HISTORY, complete=[True], again=[1], nextCursor=[""], incidents=[[INCIDENT] * 201, [1], {}]),
        *changed(PAGE, more=[False], recovered=[False]),
        *changed(END, more=[True], messages=[[without(INCIDENT, "position")]]),
        {"kind": "replay", "recovered": False, "messages": []},
        {"kind": "replay", "recovered": True},
        *changed({"kind": "refreshed"}, expiresAt=[-1, 1.5, "1", None, 253_402_300_800]),
        *changed({"kind": "error"}, message=["", "no", "No", None]),
        {"message": "Internal server error", "connectionId": "a="},
        {"kind": "order"},
        *({}, "pong", None, 1),
    ],
    "from-client.json": [
        *changed({}, action=["", "Ping", None, 1, ["ping"], "publish"]),
        {"action": None, "type": "ping"},
        *changed({"action": "subscribe"}, limit=[0, 201, 1.5, "5", None, True], cursor=["", 1, "a=", "ä", "a" * 201]),
        *changed({"action": "subscribe"}, severity=[1, {}, [1], "x" * 257, ["x" * 257], ["x"] * 51], status=[1]),
        *({}, [], [{"action": "ping"}], "ping", None),
    ],
    "job.json": [
        *(without(FOR_CLIENTS, key) for key in without(FOR_CLIENTS, "reason")),
        *(without(FOR_A_SHARD, key) for key in FOR_A_SHARD),
        *changed(FOR_CLIENTS, job=[2, "1", None], attempt=[-1, None, 2**63, "1"], reason=["", "tired"]),
        *changed(FOR_CLIENTS, clients=[[]], shard=[None], cursor=[None], messages=[[], [1], [[INCIDENT]], {}]),
        *changed(FOR_CLIENTS, clients=[[each] for each in ({}, {"connectionId": ""}, "a=")]),
        *changed(
            FOR_CLIENTS, clients=[[each] for each in changed(CLIENT, skip=[0, None], createdAt=[None], frames=[1])]
        ),
        *changed(FOR_A_SHARD, shard=changed(FOR_A_SHARD["shard"], kind=["sweep"], count=[0], more=[1]), clients=[[]]),
    ],
    "dead-letter.json": [
        *changed(
            OF_A_RECORD, deadLetter=[without(OF_A_RECORD["deadLetter"], key) for key in OF_A_RECORD["deadLetter"]]
        ),
        *changed(OF_A_RECORD, deadLetter=changed(OF_A_RECORD["deadLetter"], reason=["", "tired", None], more=[1])),
        *(OF_A_RECORD | more for more in ({"body": "x"}, {"truncated": True}, FOR_CLIENTS)),
        without(OF_A_RECORD, "record"),
        FOR_CLIENTS,
    ],
    "job.json#/$defs/accepted": [
        *(without(FOR_CLIENTS, key) for key in ("job", "clients", "messages")),
        *(without(FOR_A_SHARD, key) for key in ("job", "shard", "messages")),
        *changed(FOR_A_SHARD, shard=[None, [], {"kind": None}, {"index": "0"}, {"count": 0}], cursor=["x", []]),
        *changed(FOR_CLIENTS, clients=[{}, [], ["x"], [{}], [{"connectionId": 5}]]),
        *changed(FOR_CLIENTS, **dict.fromkeys(("job", "attempt", "firstAt", "messages"), (None,))),
    ],
}


@pytest.mark.parametrize("place", BAD)
def test_bad_ones_are_refused(place: str) -> None:
    """A schema that takes anything would prove nothing; who reads it as draft-07 refuses them too."""
    assert [each for each in BAD[place] if schema(place).is_valid(each)] == []
    assert [each for each in BAD[place] if in_draft_07(place).is_valid(each)] == []


def test_what_is_no_job_to_the_schema_is_none_to_the_code() -> None:
    """The list above is about what is read, not about taste."""
    for each in BAD["job.json#/$defs/accepted"]:
        with pytest.raises(UnreadableJob):
            Job.from_fields(each)


# ── the schemas and the code ────────────────────────────────────────────────────────────────────


def test_every_kind_and_type_in_the_code_is_in_the_schemas() -> None:
    """Whatever the relay writes as a kind or a type, by name or by constant; and no schema has another."""
    written: dict[str, set[str]] = {"kind": set(), "type": set()}
    for wing in ("wire", "clients", "delivery"):
        for path in (Path(async_relay.__file__).parent / wing).glob("*.py"):
            tree = ast.parse(path.read_text())
            names = {
                node.targets[0].id: node.value.value
                for node in tree.body
                if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.Constant)
            }
            for node in ast.walk(tree):
                for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
                    if isinstance(key, ast.Constant) and key.value in written:
                        word = names.get(value.id) if isinstance(value, ast.Name) else getattr(value, "value", None)
                        written[key.value] |= {word} if isinstance(word, str) else set()
    to_client = document("to-client.json")
    assert {key: set(words_of(to_client, key)) for key in written} == written
    assert len(written["kind"]) >= 6


def test_every_action_reason_and_shard_is_in_the_schemas() -> None:
    """Those that the code knows, and no others."""
    assert set(words_of(document("from-client.json"), "action")) == set(_ACTIONS)
    assert set(words_of(document("job.json"), "kind")) == set(ShardKind)
    reasons = {each.reason for each in PostError.__subclasses__()}
    assert set(document("job.json")["$defs"]["reason"]["enum"]) == reasons
    letters = set(document("dead-letter.json")["$defs"]["letter"]["properties"]["reason"]["enum"])
    forms = re.findall(r"^\| `(job|record|body)` (.*)$", (ROOT / "docs" / "dead-letters.md").read_text(), re.MULTILINE)
    assert {word for _, row in forms for word in re.findall(r"`([a-z_]+)`", row)} == letters
    assert {each.reason for each in PostError.__subclasses__() if not each.temporary} - letters == {"gone"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("OPEN"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
NAMES = (
    "incident_id action status severity event_type type arn resource sg created_at updated_at target timestamp other"
)
ITEMS = st.dictionaries(st.sampled_from(NAMES.split()), VALUES)


@given(ITEMS, st.sampled_from([None, "acme", "", 7, 1.5, True]))
def test_whatever_the_item_its_message_fits(item: dict[str, Any], tenant: Any) -> None:
    """Values of any type, tenants that are none, and a position of the feed."""
    payload = with_tenant(format_item, "tenant")(item | {"tenant": tenant}, "e-1", "100")
    if payload is not None:
        (published,), _ = publish([Message.encode(payload)], EPOCH * 1000, random.Random(1))
        assert problem_of("to-client.json#/$defs/message", payload) is None
        assert problem_of("to-client.json#/$defs/message", published.payload) is None


@pytest.mark.parametrize(
    ("place", "form", "again"),
    [
        ("of_clients", Form.JOB, True),
        ("of_a_shard", Form.JOB, True),
        ("of_a_record", Form.RECORD, False),
        ("of_a_body", Form.BODY, False),
        ("truncated", Form.TRUNCATED, False),
        ("stream_note", Form.LAMBDA, False),
    ],
)
def test_letters_are_what_the_command_takes_them_for(place: str, form: Form, again: bool) -> None:
    """The examples, read by ``async-relay dead-letters``; what it sends again is a job of the schema."""
    for each in examples(f"dead-letter.json#/$defs/{place}"):
        letter = parse_dead_letter("m-1", json.dumps(each))
        sent = redrive(letter)
        assert (letter.form, isinstance(sent, Resend)) == (form, again)
        for body in sent.bodies if isinstance(sent, Resend) else ():
            assert problem_of("job.json", json.loads(body)) is None


def test_what_both_clients_are_to_send_fits() -> None:
    """The scripts of client/conformance.json hold the one in JavaScript to it, too."""
    scenarios = json.loads((ROOT / "client" / "conformance.json").read_text())["scenarios"]
    expected = [step.get("expect", {}) for each in scenarios for step in each["steps"]]
    sent = [frame for each in expected for _, frame in each.get("sent", [])]
    assert [problem for each in sent if (problem := problem_of("from-client.json", each))] == []
    assert {each["action"] for each in sent} == set(_ACTIONS)


# ── the watch ───────────────────────────────────────────────────────────────────────────────────


@virtual_time
async def test_everything_that_crosses_the_wire_is_looked_at() -> None:
    """A batch with bad records to clients of both sorts, one of them sick; requests; jobs; a heartbeat."""
    settings = Settings.from_env(
        {
            "WS_ENDPOINT": "https://ws.example.com/prod",
            "CONNECTIONS_TABLE": "connections",
            "FEED_TABLE": "feed",
            "RETRY_QUEUE_URL": RETRY,
            "DEAD_LETTER_QUEUE_URL": "https://sqs.eu-west-1.amazonaws.com/123456789012/letters",
        }
    )
    rows = MemoryStore(["sick="], index=False)
    rows.add("reads-arrays=", frames="array")
    services = MemoryServices(rows, MemoryTransport(lambda name, _: Reply(500 if name == "sick=" else 200)))
    sandbox = Sandbox(settings, services, wall_clock=wall_clock)
    with watching() as watch:
        bad = without(record(incident(3), sequence="102"), "dynamodb")
        batch = event(record(incident()), record(remediation(), sequence="101"), bad)
        await sandbox.on_stream(batch, Context())
        for entry in services.queues[RETRY].take():
            await sandbox.on_jobs({"Records": [{"messageId": "m-1", "body": entry.body}]}, Context())
        await sandbox.on_heartbeat({}, Context())
        await sandbox.on_request(asking({"action": "ping"}), Context())
    await sandbox.close()
    assert watch.problems == []
    assert watch.asked == {
        "to-client.json",
        "from-client.json",
        "job.json",
        "job.json#/$defs/accepted",
        "dead-letter.json",
        *(f"to-client.json#/$defs/{each}" for each in ("message", "published_message", "own_array", "ping")),
    }


def test_a_watch_notes_what_does_not_fit() -> None:
    """Once asked it forgets; and it keeps few, since one mistake shows a hundred times."""
    watch = Watch()
    watch.expect("to-client.json#/$defs/ping", {"type": "ping", "timestamp": 1})
    assert watch.taken() == []
    for _ in range(9):
        watch.expect("to-client.json#/$defs/ping", {"type": "ping"})
    (first, *rest), again = watch.taken(), watch.taken()
    assert first.startswith('to-client.json#/$defs/ping: "timestamp" is a required property in')
    assert (len(rest), again) == (2, [])


@pytest.mark.parametrize(
    ("fields", "refusal", "agree"),
    [
        ({"action": "ping"}, None, True),
        ({"action": "ping"}, "The action must be one of nothing.", False),
        ({"action": "dance"}, None, False),
        ({"action": "dance"}, "The action must be one of ping.", True),
        ({"action": "subscribe", "limit": 50.0}, "The limit must be a whole number from 1 to 200.", True),
    ],
)
def test_a_watch_notes_where_code_and_schema_disagree(fields: Any, refusal: str | None, agree: bool) -> None:
    """Both ways; only what no schema can say is left to the code."""
    watch = Watch()
    watch.judge("from-client.json", fields, refusal)
    assert (watch.taken() == []) is agree


def test_a_test_in_which_something_does_not_fit_fails(request: pytest.FixtureRequest) -> None:
    """By the hook around every test, which is put around this one once more."""
    # Not by import: there are several modules of the name conftest.
    plugins = request.config.pluginmanager.get_plugins()
    (ours,) = (each for each in plugins if hasattr(each, "the_wire_is_as_documented"))
    call = ours.pytest_runtest_call(request.node)
    next(call)
    request.config.stash[WATCH].expect("to-client.json#/$defs/ping", {"type": "ping"})
    with pytest.raises(pytest.fail.Exception, match="docs/wire does not allow this"):
        next(call)


# ── the documents ───────────────────────────────────────────────────────────────────────────────


def test_the_conversation_in_the_readme_is_made_of_examples() -> None:
    """Each line is an example of the schemas, of its side."""
    told = [line.split(" ", 1) for block in blocks(WIRE / "README.md", "wire") for line in block.splitlines()]
    for side, name in (("client", "from-client.json"), ("server", "to-client.json")):
        known = [each for place in PLACES if place.startswith(name) for each in examples(place)]
        spoken = [json.loads(text) for speaker, text in told if speaker == side]
        assert [each for each in spoken if each not in known] == []
        assert [each for each in spoken if not schema(name).is_valid(each)] == []
        assert len(spoken) > 5
    assert {speaker for speaker, _ in told} == {"client", "server"}


def test_cloudevents_are_a_formatter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the README, with a tenant and a position: every name is one that CloudEvents allows."""
    (code,) = blocks(WIRE / "README.md", "python")
    (tmp_path / "cloud_events.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        formatter = with_tenant(load_formatter("cloud_events:format_event"), "tenant")
    finally:
        sys.modules.pop("cloud_events", None)
    (read, other) = read_records(event(record(incident(tenant="acme")), record({"note": "x"})), formatter)
    assert read.message is not None
    assert other.message is None
    (published,), _ = publish([read.message], EPOCH * 1000, random.Random(1))
    cloud_event = published.payload
    assert {"specversion": "1.0", "id": "event-100", "tenant": "acme", "sequence": "100"}.items() <= cloud_event.items()
    assert {"id", "source", "specversion", "type"} <= set(cloud_event)
    assert all(re.fullmatch("[a-z0-9]+", name) for name in cloud_event)
    assert "position" in cloud_event


def pointed(pointer: str) -> Any:
    """What a reference in asyncapi.json leads to."""
    name, _, path = pointer.partition("#/")
    found = document(name) if name else ASYNCAPI
    for part in path.split("/"):
        found = found[part]
    return found


def references(contents: Any) -> Iterator[str]:
    if isinstance(contents, dict):
        yield from [contents["$ref"]] if "$ref" in contents else []
    for each in contents.values() if isinstance(contents, dict) else contents if isinstance(contents, list) else ():
        yield from references(each)


def test_the_asyncapi_document_names_every_frame() -> None:
    """Its references lead somewhere; whatever may be alone in a frame or a body is a message of it, with its title."""
    for each in set(references(ASYNCAPI)):
        assert pointed(each)
    payloads = {each["payload"]["$ref"] for each in ASYNCAPI["components"]["messages"].values()}
    for name in SCHEMAS:
        assert {name + each for each in references(document(name)["anyOf"])} - payloads <= {
            "to-client.json#/$defs/message"
        }
    assert {f"to-client.json#/$defs/{each}" for each in ("incident_update", "remediation", "own_message")} <= payloads
    assert "job.json#/$defs/accepted" in payloads
    for each in ASYNCAPI["components"]["messages"].values():
        assert each["title"] == pointed(each["payload"]["$ref"])["title"]


def test_every_message_of_the_asyncapi_document_is_in_an_operation() -> None:
    used = [
        each["$ref"]
        for operation in ASYNCAPI["operations"].values()
        for each in operation["messages"] + operation.get("reply", {}).get("messages", [])
    ]
    named = {pointed(each)["$ref"].rpartition("/")[2] for each in used}
    assert named == set(ASYNCAPI["components"]["messages"])


def test_the_asyncapi_document_says_how_to_connect() -> None:
    """The version is the package's, and the query's parameters are those that are read."""
    assert ASYNCAPI["info"]["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    query = ASYNCAPI["channels"]["client"]["bindings"]["ws"]["query"]["properties"]
    assert set(query) == {"protocol", "access_token", "clientId", *INTEREST_KEYS}


def test_the_asyncapi_document_is_one() -> None:
    """By the meta schema of AsyncAPI 3, which refuses what it does not know."""
    if program("node") is None:
        pytest.skip("the meta schema comes with npm, which neither the dev extra nor this machine has")
    if installed("@asyncapi/specs") != pinned()["@asyncapi/specs"]:
        pytest.fail("@asyncapi/specs is not installed: run `npm ci --prefix tests/node`")
    path = NODE_SERVERS / "node_modules" / "@asyncapi" / "specs" / "schemas" / f"{ASYNCAPI['asyncapi']}.json"
    meta = jsonschema_rs.validator_for(json.loads(path.read_text()))
    assert [error.message for error in meta.iter_errors(ASYNCAPI)] == []
    assert not meta.is_valid(ASYNCAPI | {"chanels": {}})
