"""Log lines as JSON, by Powertools for AWS Lambda, which is loaded when there is a first line to write.

A cold start that has nothing to say does not wait for it. The times are RFC 3339: in Lambda's JSON log format a
line with any other time counts as INFO, whatever its level (Lambda Developer Guide, "Log levels and JSON").
"""

from __future__ import annotations

import logging
import os
import sys

_OURS = "async_relay"


def service() -> str:
    """What log lines and metrics are said to be of: POWERTOOLS_SERVICE_NAME, which the template sets to its stack."""
    return os.environ.get("POWERTOOLS_SERVICE_NAME", "").strip() or "async-relay"


class PowertoolsHandler(logging.Handler):
    """Gives the package's logger to Powertools at its first line, and that line with it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Configure, and write the line; to stderr as it is, where Powertools cannot be loaded."""
        try:
            from aws_lambda_powertools import Logger
            from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
        except Exception:  # noqa: BLE001 - no file descriptor left, say: what the line is about matters more than its form
            print(self.format(record), file=sys.stderr)
            return
        logger = logging.getLogger(_OURS)
        logger.removeHandler(self)
        copy_config_to_registered_loggers(Logger(service=service(), use_rfc3339=True), include={_OURS})
        logger.handle(record)


def configure() -> None:
    """For the life of the process; POWERTOOLS_LOG_LEVEL says from which level on."""
    logger = logging.getLogger(_OURS)
    logger.handlers = [PowertoolsHandler()]
    logger.setLevel(os.environ.get("POWERTOOLS_LOG_LEVEL", "INFO").upper())
    logger.propagate = False
