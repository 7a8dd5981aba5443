"""A formatter of the owner's own: named by a setting, loaded at the cold start, and never the end of a batch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from deployment import Deployed, payloads
from hypothesis import given, settings
from hypothesis import strategies as st
from records import event, record

from async_relay.cli.parsing import parse_dead_letter
from async_relay.cli.redrive import Resend, Stay, redrive
from async_relay.errors import SettingsError, UndecodableRecord
from async_relay.testing import Gateway
from async_relay.wire.formatter import Formatter, format_message, load_formatter
from async_relay.wire.jobs import DeadLetter, Job, Shard
from async_relay.wire.streams import read_record

PROPERTY = settings(deadline=None, max_examples=150)
A_FUNCTION = "a function, as package.module:function"

Write = Callable[[str], str]

ORDERS = """
    def format_order(item, event_id, sequence):
        if "orderId" not in item:
            return None
        return {"kind": "order", "order": item["orderId"], "total": item["total"], "event_id": event_id}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Makes a module ``orders`` that can be imported, as one beside handler.py can."""

    def write(source: str) -> str:
        (tmp_path / "orders.py").write_text(dedent(source))
        return "orders:format_order"

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    sys.modules.pop("orders", None)


def written(number: int, sequence: str, **more: Any) -> dict[str, Any]:
    return record({"orderId": f"o-{number}", "total": 5} | more, sequence=sequence)


def returning(payload: Any) -> Formatter:
    return lambda _item, _event_id, _sequence: payload


class TestLoading:
    def test_a_function_of_a_module(self, write: Write) -> None:
        """The name gives the function itself."""
        formatter = load_formatter(write(ORDERS))
        assert formatter({"orderId": 1, "total": 2}, "e", "7") == {
            "kind": "order",
            "order": 1,
            "total": 2,
            "event_id": "e",
        }

    def test_a_function_that_does_not_say_what_it_takes(self) -> None:
        """Some of those written in C do not: they are taken at their word."""
        formatter: object = load_formatter("builtins:dict")
        assert formatter is dict

    def test_an_object_that_can_be_called(self, write: Write) -> None:
        """A class instance or a partial serves as well as a function."""
        name = write("""
            from functools import partial
            format_order = partial(lambda shop, item, event_id, sequence: {"shop": shop}, "bakery")
        """)
        assert load_formatter(name)({}, "e", "7") == {"shop": "bakery"}

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            ("def another(): ...", "orders has no format_order"),
            ("format_order = 7", "format_order is no function but 7"),
            (
                "async def format_order(item, event_id, sequence): ...",
                "format_order is async or a generator, whose result nobody waits for",
            ),
            ("def format_order(item): ...", "format_order does not take (item, event_id, sequence)"),
            (
                "def format_order(*, item, event_id, sequence): ...",
                "format_order does not take (item, event_id, sequence)",
            ),
            ("import no_such.thing", "orders needs a module that is not there, no_such"),
            ("def format_order(", "orders cannot be imported: SyntaxError '(' was never closed (orders.py, line 1)"),
            ("raise RuntimeError('one\\ntwo')", "orders cannot be imported: RuntimeError one"),
            ("raise SystemExit(3)", "orders cannot be imported: SystemExit 3"),
        ],
    )
    def test_what_cannot_be_had_is_refused(self, write: Write, source: str, problem: str) -> None:
        """One sentence says what it must be and why this is not it, whatever the module does."""
        with pytest.raises(ValueError, match="a function") as error:
            load_formatter(write(source))
        assert str(error.value) == f"{A_FUNCTION}, and {problem}"


class TestFormatting:
    def test_the_payload_goes_out_as_it_is(self) -> None:
        """Nothing is added; the message has its record's ids all the same."""
        message = format_message(lambda item, _e, _s: {"n": item["n"]}, {"n": 1}, "e1", "42")
        assert message is not None
        assert (message.body, message.event_id, message.sequence) == (b'{"n":1}', "e1", "42")

    def test_none_is_nothing_to_send(self) -> None:
        """None ignores the record; an empty payload is one to send."""
        assert format_message(returning(None), {}, "e1", "42") is None
        message = format_message(returning({}), {}, "e1", "42")
        assert message is not None
        assert message.body == b"{}"

    @pytest.mark.parametrize(
        ("returned", "problem"),
        [
            ([1], "its formatter returned list, not a dict or None"),
            ("text", "its formatter returned str, not a dict or None"),
            (False, "its formatter returned bool, not a dict or None"),
            ({"when": Path()}, "its message does not fit in JSON: TypeError"),
            ({("a", "b"): 1}, "its message does not fit in JSON: TypeError"),
            ({"n": float("nan")}, "its message does not fit in JSON: ValueError"),
            ({"text": "\ud800"}, "its message does not fit in JSON: UnicodeEncodeError"),
        ],
    )
    def test_what_is_no_json_object_is_undecodable(self, returned: Any, problem: str) -> None:
        """The sentence says what came back instead."""
        with pytest.raises(UndecodableRecord) as error:
            format_message(returning(returned), {}, "e1", "42")
        assert str(error.value) == problem

    def test_a_payload_nests_as_deep_as_a_job_can_be_read(self) -> None:
        """What would be posted and could not be read back from the retry queue is undecodable at once."""
        payload: dict[str, Any] = {}
        for _ in range(150):
            payload = {"in": payload}
        message = format_message(returning(payload), {}, "e1", "42")
        assert message is not None
        for deeper in ({"in": payload}, {"in": (payload,)}):
            with pytest.raises(UndecodableRecord, match="nests deeper than 150 levels"):
                format_message(returning(deeper), {}, "e1", "42")

    def test_an_exception_is_named_and_not_quoted(self, write: Write) -> None:
        """Its type and line are said; its text, which may quote the item, is in no log."""
        formatter = load_formatter(
            write("""
            def format_order(item, event_id, sequence):
                raise ValueError(f"what is {item['secret']}?")
            """)
        )
        with pytest.raises(UndecodableRecord) as error:
            format_message(formatter, {"secret": "hunter2"}, "e1", "42")
        assert str(error.value) == "its formatter failed: ValueError in orders.py, line 3"

    @PROPERTY
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_whatever_it_returns_is_a_message_nothing_or_a_problem(self, returned: Any) -> None:
        """Reading a record never raises, and what comes out as a message comes back from a job byte for byte."""
        read = read_record(written(1, "42"), returning(returned))
        if returned is None:
            assert (read.message, read.problem) == (None, None)
        elif read.message is None:
            assert read.problem
        else:
            assert isinstance(returned, dict)
            assert json.loads(read.message.body) == read.message.payload

    @PROPERTY
    @given(
        st.sampled_from([ValueError, KeyError, RecursionError, StopIteration, UnicodeError, AssertionError, OSError])
    )
    def test_whatever_it_raises_is_that_records_problem(self, kind: type[Exception]) -> None:
        """The record is kept with the problem; nothing escapes."""

        def formatter(_item: dict[str, Any], _event_id: str, _sequence: str) -> None:
            raise kind

        read = read_record(written(1, "42"), formatter)
        assert read.message is None
        assert read.problem is not None
        assert read.problem.startswith(f"its formatter failed: {kind.__name__} in test_formatter.py, line ")


class TestHandler:
    async def test_every_client_gets_the_owners_messages(
        self, gateway: Gateway, with_queues: Deployed, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of four records two are sent, one is ignored, and the one that the formatter fails on is a dead letter."""
        monkeypatch.setenv("MESSAGE_FORMATTER", write(ORDERS))
        with_queues.fill("a=", "b=")
        bad = record({"orderId": "no total"}, sequence="103")
        batch = event(written(1, "101"), record({"incident_id": "i"}, sequence="102"), bad, written(2, "104", total=9))
        assert await with_queues.call("lambda_handler", batch) == {"batchItemFailures": []}
        expected = [
            {"kind": "order", "order": "o-1", "total": 5, "event_id": "event-101"},
            {"kind": "order", "order": "o-2", "total": 9, "event_id": "event-104"},
        ]
        assert payloads(gateway, "a=") == expected
        assert gateway.received["a="] == gateway.received["b="]
        (letter,) = with_queues.bodies(with_queues.letters)
        assert letter["deadLetter"]["reason"] == "undecodable"
        assert letter["deadLetter"]["detail"] == "its formatter failed: KeyError in orders.py, line 5"
        assert (letter["deadLetter"]["sequence"], letter["record"]) == ("103", bad)

    async def test_without_dead_letters_only_the_bad_record_comes_back(
        self, gateway: Gateway, deployed: Deployed, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the formatter returned is no JSON object: that record is handed back, the others are delivered."""
        source = "def format_order(item, event_id, sequence): return {'n': sequence} if item['total'] == 5 else [1]"
        monkeypatch.setenv("MESSAGE_FORMATTER", write(source))
        deployed.fill("a=")
        batch = event(written(1, "101"), written(2, "102", total=0), written(3, "103"))
        failures = await deployed.call("lambda_handler", batch)
        assert failures == {"batchItemFailures": [{"itemIdentifier": "102"}]}
        assert payloads(gateway, "a=") == [{"n": "101"}, {"n": "103"}]

    async def test_only_incident_updates_are_coalesced(
        self, gateway: Gateway, deployed: Deployed, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """COALESCE=latest knows an owner's incident_update by its incident_id; every other message is sent."""
        source = """
            def format_order(item, event_id, sequence):
                return {"kind": item["orderId"], "incident_id": 1, "n": sequence}
        """
        monkeypatch.setenv("MESSAGE_FORMATTER", write(source))
        monkeypatch.setenv("COALESCE", "latest")
        deployed.fill("a=")
        kinds = ["incident_update", "order", "order", "incident_update"]
        batch = event(*(written(0, f"10{at}", orderId=kind) for at, kind in enumerate(kinds)))
        assert await deployed.call("lambda_handler", batch) == {"batchItemFailures": []}
        assert [each["n"] for each in payloads(gateway, "a=")] == ["101", "102", "103"]

    async def test_one_that_cannot_be_had_ends_the_cold_start(
        self, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The variable and the module are named in one sentence."""
        monkeypatch.setenv("MESSAGE_FORMATTER", "no_orders:format_order")
        sentence = f"MESSAGE_FORMATTER is 'no_orders:format_order'; it must be {A_FUNCTION}, and there is no module"
        with pytest.raises(SettingsError, match=sentence):
            await deployed.call("lambda_handler", event())


def test_payloads_without_ids_are_told_apart_by_their_jobs() -> None:
    """The same payload in another batch is no repeat to the FIFO queue; the same job, read again, is."""
    message = format_message(returning({"reload": True}), {}, "", "42")
    assert message is not None
    first, second = (Job((message,), shard=Shard(), continuation=1, first_at=at) for at in (1, 2))
    assert first.deduplication_id(0) != second.deduplication_id(0)
    assert Job.decode(first.encode()).deduplication_id(0) == first.deduplication_id(0)


class TestRedrive:
    RECORD = written(1, "101")
    LETTER = parse_dead_letter("id", DeadLetter("undecodable", "x", RECORD, 1_700_000_000_000).encode())

    def test_a_record_is_formatted_by_the_owners(self, write: Write) -> None:
        """The redriven job holds the owner's message, and nothing is sent where the formatter returns None."""
        formatter = load_formatter(write(ORDERS))
        fate = redrive(self.LETTER, formatter)
        assert isinstance(fate, Resend)
        (message,) = Job.decode(fate.bodies[0]).messages
        assert message.payload == {"kind": "order", "order": "o-1", "total": 5, "event_id": "event-101"}
        ignored = redrive(self.LETTER, returning(None))
        assert ignored == Stay("nothing is sent for such a record: discard it")

    def test_a_formatter_that_still_fails_leaves_it_there(self) -> None:
        """The letter stays and says what failed."""
        fate = redrive(self.LETTER, lambda _i, _e, _s: {"x": 1 // 0})
        assert isinstance(fate, Stay)
        assert fate.why.startswith("the record still cannot be decoded: its formatter failed: ZeroDivisionError in")
