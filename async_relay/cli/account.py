"""Which account and Region a command talks to: its --region and --profile, else the environment's.

Rules
- What is given on the command line counts before what the environment says; a profile that is given counts before
  access keys in the environment, as in the AWS CLI.
- A Region that a URL names counts before the environment's: a queue is where its URL says.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import botocore.session
import typer

from async_relay.aws.foreign import refuse_foreign_answers

from .failure import USAGE, CommandError

if TYPE_CHECKING:
    from botocore.config import Config

_REGION = "AWS Region; else AWS_REGION or the profile's."
Profile = Annotated[
    str | None, typer.Option("--profile", metavar="NAME", help="Profile of the AWS configuration; else AWS_PROFILE.")
]


class Account(NamedTuple):
    """What the command line says; None: the environment decides."""

    region: str | None = None
    profile: str | None = None


_ENVIRONMENTS = Account()
_account: ContextVar[Account] = ContextVar("account", default=_ENVIRONMENTS)


def with_account(command: Callable[..., None], *, region_help: str = _REGION) -> Callable[..., None]:
    """The command with two options more, which every client made during it keeps to."""

    @wraps(command)
    def run(*args: Any, region: str | None = None, profile: str | None = None, **kwargs: Any) -> None:
        for option, value in (("--region", region), ("--profile", profile)):
            if value is not None and not value.strip():
                raise CommandError(f"{option} is empty: name one, or leave it out", USAGE)
        token = _account.set(Account(region, profile))
        try:
            command(*args, **kwargs)
        finally:
            _account.reset(token)

    region_option = Annotated[str | None, typer.Option("--region", metavar="NAME", help=region_help)]
    signature = inspect.signature(command, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in (("region", region_option), ("profile", Profile))
    ]
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what typer reads
        parameters=[*signature.parameters.values(), *more]
    )
    return run


def session() -> Any:
    """A session of botocore with the profile that is chosen. Call this, and the next ones, within ``aws_errors``."""
    made = botocore.session.Session(profile=_account.get().profile)
    refuse_foreign_answers(made)
    return made


def region(of: Any, named: str | None = None) -> str | None:
    """The Region of a session; ``named`` is the one that a URL names."""
    return _account.get().region or named or os.environ.get("AWS_REGION") or of.get_config_variable("region")


def client(service: str, config: Config, *, named: str | None = None, **options: Any) -> Any:
    """A client of botocore in that Region."""
    of = session()
    return of.create_client(service, region_name=region(of, named), config=config, **options)
