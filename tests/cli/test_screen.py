"""What reaches an operator's terminal: no control character, and a sentence for each refusal."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest
from botocore.exceptions import ClientError

from async_relay.cli import dead_letter_views, main, screen
from async_relay.cli.aws_errors import aws_errors
from async_relay.cli.failure import CommandError
from async_relay.cli.parsing import parse_dead_letter


def test_json_for_a_terminal_has_no_control_character() -> None:
    """DEL neither; read back, it is what it was."""
    reason = "a\x1b[31m\x7fb\u202e"
    text = dead_letter_views.as_json([parse_dead_letter("m", json.dumps({"deadLetter": {"reason": reason}}))])
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


_SENTENCE = "Recommended: neither, as it is: it would fall behind."


@pytest.mark.parametrize(("name", "write"), [("stdout", screen.say), ("stderr", screen.complain)])
def test_a_sentence_is_wrapped_between_words_on_a_terminal_alone(
    name: str, write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other lines are set in; a word that is longer stays whole, as an id that is copied must."""
    monkeypatch.setenv("COLUMNS", "20")
    shown, piped = Terminal(), io.StringIO()
    for stream in (shown, piped):
        monkeypatch.setattr(sys, name, stream)
        for text in (_SENTENCE, "a-connection-id-that-is-long=  would be closed", ""):
            write(text)
    assert shown.getvalue().splitlines() == [
        "Recommended:",
        "  neither, as it is:",
        "  it would fall",
        "  behind.",
        "a-connection-id-that-is-long=",
        "  would be closed",
        "",
    ]
    assert piped.getvalue().splitlines() == [_SENTENCE, "a-connection-id-that-is-long=  would be closed", ""]


@pytest.fixture(params=[False, True], ids=["buffered", "unbuffered"])
def unbuffered(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def end_of(words: list[str], output: IO[str] | None, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of the command, whose stdout this is."""
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "argv", ["async-relay", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


EVERY_WAY_TO_PRINT = pytest.mark.parametrize(
    "words",
    [
        ["plan", "--clients", "10k"],
        ["plan", "--clients", "10k", "--json"],
        ["--version"],
        ["--help"],
        ["plan", "--help"],
    ],
    ids=" ".join,
)


@EVERY_WAY_TO_PRINT
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
def test_a_full_disk_is_one_sentence(
    words: list[str], unbuffered: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), write_through=unbuffered)
    assert end_of(words, output, monkeypatch) == 1
    assert capsys.readouterr().err == "Error: stdout cannot be written: No space left on device\n"
    output.close()


@EVERY_WAY_TO_PRINT
def test_a_reader_that_has_left_is_no_error_to_speak_of(
    words: list[str], unbuffered: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ``| head -1``; that not all was told the exit code says."""
    reading, writing = os.pipe()
    os.close(reading)
    output = io.TextIOWrapper(os.fdopen(writing, "wb"), write_through=unbuffered)
    assert end_of(words, output, monkeypatch) == 1
    assert capsys.readouterr().err == ""
    with suppress(BrokenPipeError):
        output.close()  # typer hides it from the end of the process.


@EVERY_WAY_TO_PRINT
def test_a_stdout_that_is_closed_is_left_alone(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever closed it wants no word."""
    assert end_of(words, None, monkeypatch) == 0
    assert capsys.readouterr().err == ""
