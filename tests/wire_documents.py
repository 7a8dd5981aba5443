"""The schemas of docs/wire, and a watch over everything that crosses the wire while a test runs.

    schema("to-client.json#/$defs/ping").is_valid({"type": "ping"})

Rules
- What the relay made is looked at where it is made, by the schema that is strict about it: messages, arrays, answers,
  pings, bodies of queues, requests of the Python client. So a test may still hand anything at all to a double.
- What the relay read is looked at together with what it thought of it: the schema takes a request or a job if the
  code does, and the other way round. ``_BEYOND_SCHEMAS`` are the few rules that no schema can state.
- Everything is looked at, at some microseconds each. A test in which something does not fit fails, whatever the code
  under test made of it.
- Only this process is watched: what a test starts as a program of its own is not.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from async_relay.client import session
from async_relay.clients import answers, requests
from async_relay.delivery import heartbeat, protocols, publishing
from async_relay.errors import UnreadableJob
from async_relay.wire import frames, jobs, streams
from async_relay.wire.incidents import format_item

WIRE = Path(__file__).parents[1] / "docs" / "wire"
_BASE = "file:///wire/"
# Enough to see what is wrong: a property of hypothesis fails a hundred times at once.
_MOST_PROBLEMS = 3
# Sentences of refusals about what JSON Schema cannot compare, or sees no difference in.
_BEYOND_SCHEMAS = re.compile(
    r"shard \d+ of \d+ does not exist"  # an index and a count
    r"|a client is to skip every message"  # a number and a length
    r"|.*nests (too )?deep|a message does not fit in UTF-8 JSON|a client has no connectionId"  # lone surrogates
    r"|.* is not a whole number from 0 up"  # 1.0 is one, to a schema
    r"|The limit must be a whole number"  # the same
    r"|The cursor is none of ours"  # what it decodes to
)
_OF_FORM = re.compile(r"A request must|The (action|limit|severity|status) must|The cursor is")


def document(name: str) -> Any:
    """A file of docs/wire, parsed."""
    return json.loads((WIRE / name).read_text())


@functools.cache
def schema(place: str) -> jsonschema_rs.Draft202012Validator:
    """The validator of a place in a file of docs/wire."""
    return jsonschema_rs.Draft202012Validator(
        {"$ref": _BASE + place}, retriever=lambda uri: document(uri.removeprefix(_BASE))
    )


def problem_of(place: str, value: Any) -> str | None:
    """Why the schema refuses a value; None where it takes it."""
    error = next(schema(place).iter_errors(value), None)
    return None if error is None else f"{place}: {error.message[:300]} in {json.dumps(value, default=str)[:600]}"


class Watch:
    """What did not fit since somebody last asked."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        #: The places whose schemas were asked.
        self.asked: set[str] = set()

    def expect(self, place: str, value: Any) -> None:
        """The relay made this value."""
        self.asked.add(place)
        if not schema(place).is_valid(value):
            self._note(problem_of(place, value) or place)

    def judge(self, place: str, value: Any, refusal: str | None) -> None:
        """The relay read this value, and took it, or refused it with a sentence."""
        self.asked.add(place)
        if refusal is not None and _BEYOND_SCHEMAS.match(refusal):
            return
        if schema(place).is_valid(value) is (refusal is not None):
            code = f"the code refuses it, {refusal!r}" if refusal else "the code takes it"
            self._note(f"{place}: {code}, the schema does not agree: {json.dumps(value, default=str)[:600]}")

    def taken(self) -> list[str]:
        """The problems, which are forgotten."""
        problems, self.problems = self.problems, []
        return problems

    def _note(self, problem: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(problem)


#: Where pytest keeps the watch of its run.
WATCH = pytest.StashKey[Watch]()


@contextmanager
def watching() -> Iterator[Watch]:
    """Look at everything that is made or read meanwhile."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, wrap in _SEAMS:
            patch.setattr(owner, name, wrap(watch, getattr(owner, name)))
        yield watch


def _formatted(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def format_message(formatter: Any, *rest: Any) -> Any:
        message = original(formatter, *rest)
        if message is not None:
            # ``with_tenant`` holds the formatter it is around.
            around = [cell.cell_contents for cell in getattr(formatter, "__closure__", None) or ()]
            ours = formatter is format_item or format_item in around
            watch.expect(f"to-client.json#/$defs/{'message' if ours else 'own_message'}", message.payload)
        return message

    return format_message


def _published(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def publish(*given: Any) -> Any:
        messages, entries = original(*given)
        for message in messages:
            watch.expect("to-client.json#/$defs/published_message", message.payload)
        return messages, entries

    return publish


def _array(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def make(self: frames.Frames, inside: int) -> frames.Frame:
        frame: frames.Frame = original(self, inside)
        if len(frame.positions) > 1:
            watch.expect("to-client.json#/$defs/own_array", frame.post.payload)
        return frame

    return make


def _pinged(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def ping(self: heartbeat.Heartbeat) -> Any:
        message = original(self)
        watch.expect("to-client.json#/$defs/ping", message.payload)
        return message

    return ping


def _answered(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    async def post(self: answers.Answers, payload: Mapping[str, Any]) -> Any:
        watch.expect("to-client.json", json.loads(json.dumps(payload)))
        return await original(self, payload)

    return post


def _asked(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: requests.Request) -> Any:
        given = await original(request)
        sentence = given["message"] if given.get("kind") == "error" else None
        # Where nobody can answer now, or not here, the form was not looked at.
        if sentence is None or _OF_FORM.match(sentence):
            watch.judge("from-client.json", request.fields, sentence)
        return given

    return answer


def _queued(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def new(cls: type[protocols.Entry], body: str, *rest: Any, **more: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("async_relay."):
            fields = json.loads(body)
            watch.expect("dead-letter.json" if "deadLetter" in fields else "job.json", fields)
        return original(cls, body, *rest, **more)

    return new


def _read(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def from_fields(_cls: type[jobs.Job], fields: Any) -> Any:
        try:
            job = original(fields)
        except UnreadableJob as error:
            watch.judge("job.json#/$defs/accepted", fields, str(error))
            raise
        watch.judge("job.json#/$defs/accepted", fields, None)
        return job

    return classmethod(from_fields)  # type: ignore[return-value] # it is put in a classmethod's place


def _sent(watch: Watch, original: Callable[..., Any]) -> Callable[..., Any]:
    def send(self: session.Session, link: Any, words: Any) -> None:
        watch.expect("from-client.json", words)
        original(self, link, words)

    return send


#: Where something is made or read, by name, and what is put around it.
_SEAMS: tuple[tuple[Any, str, Callable[[Watch, Callable[..., Any]], Callable[..., Any]]], ...] = (
    (streams, "format_message", _formatted),
    (publishing, "publish", _published),
    (frames.Frames, "make", _array),
    (heartbeat.Heartbeat, "_ping", _pinged),
    (answers.Answers, "post", _answered),
    (requests, "_answer", _asked),
    (protocols.Entry, "__new__", _queued),
    (jobs.Job, "from_fields", _read),
    (session.Session, "send", _sent),
)
