"""What an operator reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

ENVIRONMENT = {
    "WS_ENDPOINT": "https://abc.execute-api.eu-west-1.amazonaws.com/prod",
    "CONNECTIONS_TABLE": "connections",
}


def streams(code: str, **environ: str) -> tuple[str, str]:
    """What a fresh process with the handler in it prints, and what it writes to stderr."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", f"import sys, logging, json, handler\n{code}"],
        env=ENVIRONMENT | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout, done.stderr


def run(code: str, **environ: str) -> str:
    """What a fresh process with the handler in it prints."""
    return streams(code, **environ)[0]


def test_a_log_line_is_one_line_of_json() -> None:
    """Level, message, service, an RFC 3339 time and extra keys stand in it; the second line is like the first."""
    code = """
for number in (1, 2):
    logging.getLogger("async_relay").warning("handed back %d", number, extra={"records": 3})
logging.getLogger("async_relay").debug("unheard")
"""
    first, second = run(code).splitlines()
    assert '"message":"handed back 1"' in first
    assert '"message":"handed back 2"' in second
    for line in (first, second):
        assert '"level":"WARNING"' in line
        assert '"records":3' in line
        assert '"service":"async-relay"' in line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)", json.loads(line)["timestamp"])


def test_a_log_line_bears_the_stacks_name() -> None:
    """Which the template gives as POWERTOOLS_SERVICE_NAME."""
    said = run('logging.getLogger("async_relay").error("lost")', POWERTOOLS_SERVICE_NAME="relay-of-two")
    assert json.loads(said)["service"] == "relay-of-two"


def test_a_cold_start_loads_neither_the_sdk_nor_what_writes_logs() -> None:
    """The settings are checked first; what takes long is loaded when it is needed."""
    loaded = run('print([name for name in ("aioboto3", "botocore", "aws_lambda_powertools") if name in sys.modules])')
    assert loaded == "[]\n"


@pytest.mark.parametrize(
    ("environ", "said"),
    [({}, ["INFO", "ERROR"]), ({"POWERTOOLS_LOG_LEVEL": "error"}, ["ERROR"])],
    ids=["by default", "as set"],
)
def test_the_environment_says_from_which_level_on(environ: dict[str, str], said: list[str]) -> None:
    """POWERTOOLS_LOG_LEVEL, in letters of any size; INFO where it is not set."""
    code = 'for level in (10, 20, 40): logging.getLogger("async_relay").log(level, "hm")'
    assert [json.loads(line)["level"] for line in run(code, **environ).splitlines()] == said


def test_a_line_is_written_once_and_other_loggers_are_left_alone() -> None:
    """Lambda's own handler on the root gets none of ours, and no other logger gets ours."""
    code = """
logging.basicConfig(stream=sys.stdout, format="root %(message)s")
other = logging.getLogger("other")
for number in (1, 2):
    logging.getLogger("async_relay").warning("ours %d", number)
other.warning("theirs")
print(other.handlers)
"""
    first, second, theirs, handlers = run(code).splitlines()
    assert [json.loads(line)["message"] for line in (first, second)] == ["ours 1", "ours 2"]
    assert (theirs, handlers) == ("root theirs", "[]")


def test_where_powertools_cannot_be_loaded_a_line_goes_to_stderr_as_it_is() -> None:
    """What it is about matters more than its form; nothing fails for it, and Lambda's handler does not repeat it."""
    code = """
sys.modules["aws_lambda_powertools"] = None
logging.basicConfig(stream=sys.stdout)
for number in (1, 2):
    logging.getLogger("async_relay").error("no descriptor left: %d", number)
"""
    assert streams(code) == ("", "no descriptor left: 1\nno descriptor left: 2\n")
