"""From a dotted path in a config to the callable that it names, and what there is to tell of a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from traceback import extract_tb
from typing import Any

from geard.errors import CapabilityError, Problem
from geard.worker.words import is_a, message_of, name_of


def import_path(path: str) -> Callable[..., Any]:
    """The callable that `module.attr` or `module:attr` names. Raises CapabilityError with the place of the fault."""
    module_name, colon, attributes = path.partition(":")
    if not colon:
        module_name, _, attributes = path.rpartition(".")
    if not module_name or not attributes:
        raise CapabilityError(f"{path!r} is not a dotted path: expected module.function or module:function")
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise CapabilityError(
                f"there is no module {error.name!r}\nis its directory in python_path, or its package installed?"
            ) from error
        raise CapabilityError(_import_failure(module_name, error)) from error
    except BaseException as error:  # user code: whatever it does on import is its capability's problem
        raise CapabilityError(_import_failure(module_name, error)) from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise CapabilityError(f"module {module_name!r} has no {attributes!r}{_near(found, attribute)}") from None
    if not callable(found):
        raise CapabilityError(f"{path!r} is of type {type(found).__name__}, and cannot be called")
    return found  # type: ignore[no-any-return]


def problem_of(error: CapabilityError, key: str) -> Problem:
    """The problem of a config at this key: its first line is what is wrong, the rest a hint."""
    message, _, hint = str(error).partition("\n")
    return Problem(message, key=key, hint=hint)


def path_of(function: Callable[..., Any]) -> str:
    """`module.name` of a callable, for people."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


def _import_failure(module_name: str, error: BaseException) -> str:
    frames = [frame for frame in extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if is_a(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else module_name
    return f"importing {module_name!r} failed: {name_of(error)}: {message_of(error)}\nat {place}"


def _near(owner: Any, attribute: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(attribute, dir(owner), 1)
    return f"\ndid you mean {near[0]!r}?" if near else ""


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether it is an `async def`, a generator or not, or an object that is called so."""
    return any(
        inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
        for called in (function, type(function).__dict__.get("__call__"))
    )
