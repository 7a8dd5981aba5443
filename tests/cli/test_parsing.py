"""What a dead letter says of itself, where two of its fields could be taken for each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from async_relay.cli.parsing import Form, parse_dead_letter

SENT, LAST = 1_700_000_009_000, 1_700_000_005_000


def letter(envelope: dict[str, Any] | None = None, **fields: Any) -> str:
    return json.dumps({"deadLetter": {"reason": "gone", **(envelope or {})}, **fields})


@pytest.mark.parametrize(("said", "expected"), [({"lastAt": LAST}, LAST), ({}, SENT), ({"lastAt": -1}, SENT)])
def test_the_last_try_is_the_letters_own_word(said: dict[str, Any], expected: int) -> None:
    """A redrive that failed sends a letter again, later; only where it says nothing that time counts."""
    assert parse_dead_letter("m", letter(said, job=1, messages=[], clients=[]), SENT).last_at == expected


@pytest.mark.parametrize(("attempt", "expected"), [(3, 3), (0, 0), (True, None), ("3", None), (None, None)])
def test_an_attempt_is_a_whole_number(attempt: Any, expected: int | None) -> None:
    """True is none."""
    found = parse_dead_letter("m", letter(job=1, attempt=attempt, messages=[], clients=[]))
    assert (found.attempt, type(found.attempt)) == (expected, type(expected))


def image(name: str) -> dict[str, Any]:
    return {"incident_id": {"S": name}}


@pytest.mark.parametrize(
    ("change", "incident"),
    [
        ({"NewImage": image("new"), "Keys": image("key"), "OldImage": image("old")}, "new"),
        ({"Keys": image("key"), "OldImage": image("old")}, "key"),
        ({"OldImage": image("old")}, "old"),
    ],
)
def test_a_record_is_about_what_it_became(change: dict[str, Any], incident: str) -> None:
    """The new image before the keys, and the old one last."""
    found = parse_dead_letter("m", letter(record={"eventName": "MODIFY", "dynamodb": change}))
    assert (found.form, found.events[0].incident) == (Form.RECORD, incident)


@pytest.mark.parametrize("number", [True, 2, "1"])
@pytest.mark.parametrize("envelope", [{}, {"deadLetter": {"reason": "gone"}}])
def test_a_job_is_known_by_its_number(number: Any, envelope: dict[str, Any]) -> None:
    """The 1 of our own jobs: a body of somebody else's that says true is none, by itself or in a dead letter."""
    body = {"job": number, "messages": [{}], "clients": [{"connectionId": "x"}]}
    assert parse_dead_letter("m", json.dumps(envelope | body)).form is Form.OTHER


@pytest.mark.parametrize(("seconds", "expected"), [(1_700_000_000, 1_700_000_000_000), (True, None), ("1", None)])
def test_a_record_is_as_old_as_its_number_says(seconds: Any, expected: int | None) -> None:
    """True is no second of 1970."""
    change = {"NewImage": image("new"), "ApproximateCreationDateTime": seconds}
    found = parse_dead_letter("m", letter(record={"eventName": "MODIFY", "dynamodb": change}))
    assert found.first_at == expected
