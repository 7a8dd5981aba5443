"""What every command keeps to: --region and --profile, help at 80 columns with an example, errors in a sentence."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import typer
from botocore.config import Config
from lambda_server import QuietHandler, serving
from typer.testing import CliRunner

from async_relay.aws.foreign import ForeignAnswer
from async_relay.cli import account, dead_letter_views, queues, screen
from async_relay.cli.app import app
from async_relay.cli.failure import CommandError
from async_relay.cli.parsing import parse_dead_letter

#: The words that a command needs besides its name, and what it needs no AWS for.
_QUEUE = ["--queue-url", "https://sqs.eu-west-1.amazonaws.com/1/dead"]
_TABLE = ["--table", "connections"]
ASKING = {
    "dead-letters list": _QUEUE,
    "dead-letters show": [*_QUEUE, "5753b066"],
    "dead-letters redrive": [*_QUEUE, "--to", "https://sqs.eu-west-1.amazonaws.com/1/retry", "--all", "--yes"],
    "dead-letters discard": [*_QUEUE, "--all", "--yes"],
    "backfill": [*_TABLE, "--shards", "8"],
    "connections": _TABLE,
    "disconnect": [*_TABLE, "--endpoint", "https://a.execute-api.eu-west-1.amazonaws.com/prod", "--everybody", "--yes"],
    "doctor": ["--stack", "s"],
    "replay": ["--bucket", "kept", "--function", "relay", "--all", "--yes"],
}
OFFLINE = ["plan"]
#: It asks many services with one session, and that AWS does not answer is a finding of its own.
FINDING = "doctor"
CALLING = sorted({*ASKING} - {FINDING})


def groups_and_commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from groups_and_commands(each, f"{path} {name}".strip())


EVERYTHING = dict(groups_and_commands(typer.main.get_command(app)))
COMMANDS = {path: command for path, command in EVERYTHING.items() if not hasattr(command, "commands")}


def help_of(path: str) -> str:
    result = CliRunner().invoke(app, [*path.split(), "--help"], env={"COLUMNS": "80"}, prog_name="async-relay")
    assert result.exit_code == 0, result.output
    return str(result.output)


@pytest.mark.parametrize("path", EVERYTHING)
def test_help_is_whole_at_80_columns(path: str) -> None:
    """Nothing is wider, and no option's or command's words are cut."""
    shown = help_of(path)
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search(r"\w\.\.\.$", shown, re.MULTILINE)
    assert not re.search(r"\[\[|\.\.\..\.\.\.", shown)
    words = "".join(shown.split())
    for option in EVERYTHING[path].params:
        assert "".join((option.help or "").split()) in words


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_shows_an_example_that_it_takes(path: str) -> None:
    """The last line of its help; its options are there, and their values are of their kind."""
    example = help_of(path).splitlines()[-1].strip()
    assert example.startswith(f"Example: async-relay {path} ")
    words = shlex.split(example)[2 + len(path.split()) :]
    assert words
    with COMMANDS[path].make_context(path, words):
        pass


def test_what_asks_aws_takes_a_region_and_a_profile() -> None:
    """Every command, unless it is listed here as one that asks nobody."""
    options = {path: {name for each in command.params for name in each.opts} for path, command in COMMANDS.items()}
    assert {path for path, names in options.items() if {"--region", "--profile"} <= names} == set(ASKING)
    assert set(COMMANDS) == {*ASKING, *OFFLINE}


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"async-relay {version('async-relay')}\n"


def test_the_help_says_where_else_a_region_is_from() -> None:
    """The commands that are given a queue take its URL's before the environment's."""
    own = {
        path for path in ASKING if "AWS Region; else the one in the queue's URL, AWS" in " ".join(help_of(path).split())
    }
    assert own == {path for path in ASKING if path.startswith("dead-letters")}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Region and access key of the client that a command makes, which ends there."""
    found: list[Any] = []

    def client(*_given: Any, **options: Any) -> Any:
        of = real_session()
        found.append((account.region(of, options.get("named")), of.get_credentials().access_key))
        raise OSError("enough")

    real_session = account.session
    monkeypatch.setattr(account, "client", client)
    return found


@pytest.mark.parametrize("path", CALLING)
def test_the_options_count_before_the_environment(
    path: str, made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile before access keys, a Region before the profile's, the environment's and an address's."""
    config = tmp_path / "config"
    config.write_text("[profile staging]\naws_access_key_id = AKIDSTAGING\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    CliRunner().invoke(app, [*path.split(), *ASKING[path], "--profile", "staging", "--region", "us-east-2"])
    assert made[0] == ("us-east-2", "AKIDSTAGING")
    assert account._account.get() == account.Account()
    CliRunner().invoke(app, [*path.split(), *ASKING[path], "--profile", "staging"])
    assert made[1][1] == "AKIDSTAGING"
    CliRunner().invoke(app, [*path.split(), *ASKING[path]])
    assert made[2] == ("eu-west-1", "AKIDEXAMPLE")


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Something that is not AWS; its URL."""

    class Handler(QuietHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - the base class's names

    with serving(Handler) as url:
        yield url


@pytest.fixture(scope="module")
def loader() -> Any:
    """What knows the services' models, which take longer to read than all else."""
    return botocore.session.Session().get_component("data_loader")


@pytest.fixture
def impatient(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is tried once, and queues are asked without waiting."""
    client = account.client

    def once(service: str, config: Config, **options: Any) -> Any:
        return client(service, config.merge(Config(retries={"total_max_attempts": 1})), **options)

    def session() -> Any:
        of = make()
        of.register_component("data_loader", loader)
        return of

    make = account.session
    monkeypatch.setattr(account, "session", session)
    monkeypatch.setattr(account, "client", once)
    monkeypatch.setattr(queues, "WAIT_SECONDS", 0)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)


def run(path: str, *more: str) -> Any:
    return CliRunner().invoke(app, [*path.split(), *ASKING[path], *more])


def assert_one_sentence(result: Any, words: str = "") -> None:
    """An exit code, and on stderr one line that says what to do; nothing that Python printed."""
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "not foreseen" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert words in line


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("path", CALLING)
def test_odd_credentials_regions_and_endpoints_are_one_sentence(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each command: no credentials, an unknown profile, Regions that are none, an endpoint that is shut."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert_one_sentence(run(path), "no answer for")
    assert_one_sentence(run(path, "--profile", "nobody"), "The config profile (nobody) could not be found: check")
    assert_one_sentence(run(path, "--region", "x y"), "or --region and --profile")
    assert_one_sentence(run(path, "--region", " "), "--region is empty: name one, or leave it out")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "garbage")
    assert_one_sentence(run(path), "check AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert_one_sentence(run(path), "no AWS credentials: sign in")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<p>Sign in"), (200, b"<p>Sign in</p>"), (200, b""), (200, b"{}"), (503, b"busy"), (404, b"")],
)
@pytest.mark.parametrize("path", ["dead-letters list", "connections", "replay"])
def test_what_is_not_aws_is_one_sentence(path: str, status: int, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's page, an answer without content, an error that is none of AWS's."""
    with answering(status, body) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        result = run(path)
    if (path, body) == ("dead-letters list", b"{}"):  # A queue may be empty, and this says so.
        assert result.exit_code == 0
    else:
        assert_one_sentence(result)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("body", [b"<p>Sign in</p>", b"[]", b"7", b""])
def test_a_page_in_place_of_an_answer_sends_nothing(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redrive that took it for SQS's would go on to delete the letter."""
    with answering(200, body) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        queue = f"{url}/1/retry"
        with pytest.raises(CommandError, match=r"the answer to SendMessage is none of SQS's, but a page"):
            queues.SendQueue(queues.connect(queue), queue).send("{}", "", "")
        letters = queues.connect(queue)
        if body:  # SQS says nothing of a message that was deleted.
            with pytest.raises(ForeignAnswer):
                letters.delete_message(QueueUrl=queue, ReceiptHandle="r")


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "a\nb"),
        ("AWS_SESSION_TOKEN", "tökén\u2028"),
        ("AWS_RETRY_MODE", "often"),
        ("AWS_MAX_ATTEMPTS", "some"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AWS_REGION", "../../x"),
        ("AWS_CONFIG_FILE", __file__),
        ("AWS_USE_FIPS_ENDPOINT", "perhaps"),
    ],
)
def test_an_odd_setting_is_one_sentence(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else the SDK reads."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    assert_one_sentence(run("connections"))


def test_what_nobody_foresaw_is_one_sentence_too() -> None:
    """It says where, for whoever is to mend it."""
    own = typer.Typer()

    @own.command()
    @screen.report_errors
    def fail() -> None:
        raise KeyError("Table")

    result = CliRunner().invoke(own)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: this was not foreseen: KeyError: 'Table' \(test_commands\.py, line \d+\); please .*\n", result.stderr
    )


def test_the_table_of_dead_letters_is_whole_at_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells fold, and none is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    body = (
        '{"deadLetter": {"reason": "attempts_exhausted", "lastAt": 1700000000000}, "job": 1, "attempt": 6, "messages": '
        '[{"kind": "incident_update", "incident_id": "inc-20260131-000000000017", "event_id": "f07f8ca4b0b26cb9c4e5e7"'
        ', "sequence": "1405400000000002063282832"}], "clients": [{"connectionId": "L0SM9cOFvHcCIhw="}]}'
    )
    dead_letter_views.print_table(
        [parse_dead_letter("5753b066-0000-4000-8000-000000000000", body)], 8, 1, "in the queue"
    )
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


@pytest.mark.parametrize("more", [[], ["--simulate", "--clients", "1000"], ["--burst", "100", "--frames", "1"]])
def test_the_tables_of_a_plan_are_whole_at_80_columns(more: list[str]) -> None:
    """The sentences around them are not wrapped, so that they can be searched for."""
    result = CliRunner().invoke(app, ["plan", "--clients", "100k", *more], env={"COLUMNS": "80"})
    rows = [line for line in result.output.splitlines() if line and line[0] in "┏┡│└┃"]
    assert len(rows) > 20
    assert max(map(len, rows)) <= 80
    assert "…" not in result.output
