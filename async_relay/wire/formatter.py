"""The formatter: the function that makes a plain item a payload. The built-in one, or the owner's own.

    def format_order(item, event_id, sequence):     -> a dict to send, or None: nothing to send

Rules
- ``MESSAGE_FORMATTER=package.module:function`` names the owner's. It is loaded once, with the
  settings, and one that cannot be had ends the cold start.
- Whatever it raises, and whatever it returns that is no JSON object, makes that record undecodable;
  the other records of the batch go on.
- The sentence about it names the exception and the line, never the exception's text: it may quote
  the item, and logs hold no payload.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from pathlib import PurePath
from typing import Any, cast

from ..errors import UndecodableRecord
from .audience import tenant_of
from .messages import MAX_DEPTH, Message, is_shallow

#: (plain item, event_id, sequence) -> payload, or None where there is nothing to send.
Formatter = Callable[[dict[str, Any], str, str], dict[str, Any] | None]

_EXPECTED = "a function, as package.module:function"


def load_formatter(name: str) -> Formatter:
    """The function of that name; raises ``ValueError`` with what it must be and why this is not it."""
    module_name, _, function_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise ValueError(_EXPECTED)
    function = getattr(_import(module_name), function_name, None)
    if function is None:
        raise ValueError(f"{_EXPECTED}, and {module_name} has no {function_name}")
    if problem := _unfit(function):
        raise ValueError(f"{_EXPECTED}, and {function_name} {problem}")
    return cast("Formatter", function)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise ValueError(f"{_EXPECTED}, and there is no module {error.name}") from None
        raise ValueError(f"{_EXPECTED}, and {name} needs a module that is not there, {error.name}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 the owner's code may raise anything
        reason = f"{type(error).__name__} {error}".split("\n", maxsplit=1)[0].strip()
        raise ValueError(f"{_EXPECTED}, and {name} cannot be imported: {reason}") from None


def _unfit(function: Any) -> str:
    """Why every record would be undecodable with it; empty where it may serve."""
    if not callable(function):
        return f"is no function but {function!r:.40}"
    if any(_answers_later(each) for each in (function, type(function).__call__)):
        return "is async or a generator, whose result nobody waits for"
    try:
        signature(function).bind({}, "", "")
    except TypeError:
        return "does not take (item, event_id, sequence)"
    except ValueError:
        return ""  # some written in C do not say what they take
    return ""


def _answers_later(function: Any) -> bool:
    return iscoroutinefunction(function) or isgeneratorfunction(function) or isasyncgenfunction(function)


def with_tenant(formatter: Formatter, attribute: str | None) -> Formatter:
    """The same formatter, whose payloads carry this attribute of their item as ``tenant``; None: no tenants.

    The item alone says whose it is: a ``tenant`` the formatter wrote is replaced, or removed where the item has none.
    """
    if attribute is None:
        return formatter

    def format_with_tenant(item: dict[str, Any], event_id: str, sequence: str) -> dict[str, Any] | None:
        # Before the formatter, which may change the item.
        tenant = item.get(attribute)
        payload = formatter(item, event_id, sequence)
        if not isinstance(payload, dict):
            return payload
        rest = {key: value for key, value in payload.items() if key != "tenant"}
        return rest | {"tenant": tenant} if tenant_of({"tenant": tenant}) is not None else rest

    return format_with_tenant


def format_message(formatter: Formatter, item: dict[str, Any], event_id: str, sequence: str) -> Message | None:
    """The message the formatter makes of an item; raises ``UndecodableRecord``, and nothing but that."""
    try:
        payload = formatter(item, event_id, sequence)
    except (Exception, SystemExit) as error:  # noqa: BLE001 the owner's code may raise anything
        raise UndecodableRecord(f"its formatter failed: {_named(error)}") from None
    if payload is None:
        return None
    if not isinstance(payload, dict):
        raise UndecodableRecord(f"its formatter returned {type(payload).__name__}, not a dict or None")
    try:
        if is_shallow(payload):
            return Message.encode(payload, event_id=event_id, sequence=sequence)
    except Exception as error:  # noqa: BLE001 a dict of the owner's own class may raise anything
        raise UndecodableRecord(f"its message does not fit in JSON: {type(error).__name__}") from None
    raise UndecodableRecord(f"its message nests deeper than {MAX_DEPTH} levels")


def _named(error: BaseException) -> str:
    """The exception's type, and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None, "it was raised"
    return f"{type(error).__name__} in {PurePath(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
