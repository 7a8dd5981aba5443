"""What an operator reads."""

from __future__ import annotations

import json
import re
import subprocess
import sys

ENVIRONMENT = {
    "WS_ENDPOINT": "https://abc.execute-api.eu-west-1.amazonaws.com/prod",
    "CONNECTIONS_TABLE": "connections",
}


def run(code: str) -> str:
    """What a fresh process with the handler in it prints."""
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", f"import sys, logging, json, handler\n{code}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


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


def test_a_cold_start_loads_neither_the_sdk_nor_what_writes_logs() -> None:
    """The settings are checked first; what takes long is loaded when it is needed."""
    loaded = run('print([name for name in ("aioboto3", "botocore", "aws_lambda_powertools") if name in sys.modules])')
    assert loaded == "[]\n"
