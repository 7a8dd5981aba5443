"""What reaches an operator's terminal: no control character, and a sentence for each refusal."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from async_relay.cli import screen
from async_relay.cli.aws_errors import aws_errors
from async_relay.cli.failure import CommandError
from async_relay.cli.parsing import parse_dead_letter


def test_json_for_a_terminal_has_no_control_character() -> None:
    """DEL neither; read back, it is what it was."""
    reason = "a\x1b[31m\x7fb\u202e"
    text = screen.as_json([parse_dead_letter("m", json.dumps({"deadLetter": {"reason": reason}}))])
    assert all(char == "\n" or " " <= char <= "~" for char in text)
    assert json.loads(text)[0]["reason"] == reason


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "UnrecognizedClientException"])
def test_keys_that_aws_does_not_know_are_to_be_checked(code: str) -> None:
    """Whichever way a service says so."""
    with pytest.raises(CommandError, match="AWS does not know the access key") as caught, aws_errors("https://sqs/x"):
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "ReceiveMessage")
    assert "refused" not in str(caught.value)


@pytest.mark.parametrize(("length", "shown"), [(64, "x" * 64), (65, "x" * 63 + "…"), (9_999, "x" * 63 + "…")])
def test_a_cell_has_sixty_four_characters_at_most(length: int, shown: str) -> None:
    assert screen.cut("x" * length) == shown
