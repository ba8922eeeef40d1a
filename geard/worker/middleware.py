"""Code around jobs: callables `(job, call) -> result`, the config's outermost, then the capability's.

Rules:
- They are imported, checked and put around the function once, before the first job. Without any, nothing is.
- A plain one around an `async def` runs where the job's greenlet waits for the loop. An async one runs on the loop,
  around async capabilities only, and so within the plain ones.
- They see what the function raises, a time limit as JobTimeout. What they raise is what the job ends with.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from geard.config import Config
from geard.errors import CapabilityError, Problem
from geard.worker.importing import import_path, is_asynchronous, path_of, problem_of

if TYPE_CHECKING:  # a job knows its capability, which knows what is around it
    from geard.worker.job import Job

Invoke = Callable[["Job"], Any]
Begin = Callable[["Job"], Coroutine[Any, Any, Any]]
Plain = Callable[["Job", Callable[[], Any]], Any]
Async = Callable[["Job", Callable[[], Awaitable[Any]]], Coroutine[Any, Any, Any]]

EXPECTED: Final = "expected middleware(job, call), which returns what call() returns"


@dataclass(frozen=True)
class Layers:
    """The middleware of one capability, outermost first: the plain ones, and within them the async ones."""

    plain: tuple[Plain, ...] = ()
    coroutines: tuple[Async, ...] = ()

    def around(self, invoke: Invoke) -> Invoke:
        """`invoke` within the plain ones."""
        for layer in reversed(self.plain):
            invoke = _plain(layer, invoke)
        return invoke

    def around_coroutine(self, begin: Begin) -> Begin:
        """`begin` within the async ones."""
        for layer in reversed(self.coroutines):
            begin = _async(layer, begin)
        return begin


def layers_of(middleware: Sequence[Any], *, asynchronous: bool) -> Layers:
    """Middleware, outermost first, around a capability that is `asynchronous` or not. Raises CapabilityError where the
    two do not go together."""
    plain: list[Plain] = []
    coroutines: list[Async] = []
    for one in middleware:
        if is_asynchronous(one):
            if not asynchronous:
                raise CapabilityError(f"its middleware {path_of(one)} is async, and the function is not")
            coroutines.append(one)
        elif coroutines:
            raise CapabilityError(
                f"its middleware {path_of(one)} is not async, and stands within {path_of(coroutines[-1])}, which is"
                "\nput those that are not async first"
            )
        else:
            plain.append(one)
    return Layers(tuple(plain), tuple(coroutines))


def resolve(paths: Sequence[Any], key: str) -> tuple[tuple[Callable[..., Any], ...], list[Problem]]:
    """The callables that a `middleware` at this key names, and what is wrong with it."""
    found, problems = [], []
    for index, path in enumerate(paths):
        try:
            found.append(checked(path if callable(path) else import_path(path)))
        except CapabilityError as error:
            problems.append(problem_of(error, f"{key}[{index}]"))
    return tuple(found), problems


def resolve_common(config: Config) -> tuple[tuple[Callable[..., Any], ...], list[Problem]]:
    """The middleware around all capabilities of a config, and what is wrong with it."""
    return resolve(config.middleware, "middleware")


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, if it can be middleware. Raises CapabilityError."""
    called = (function, type(function).__dict__.get("__call__"))
    if any(inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one) for one in called):
        raise CapabilityError(f"{path_of(function)} is a generator\n{EXPECTED}")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise CapabilityError(
            f"{path_of(function)} cannot be called with a job and a call: {error}\n{EXPECTED}"
        ) from None
    except ValueError:
        return function  # a C function that does not tell its signature
    return function


def _plain(layer: Plain, inner: Invoke) -> Invoke:
    return lambda job: layer(job, partial(inner, job))


def _async(layer: Async, inner: Begin) -> Begin:
    return lambda job: layer(job, partial(inner, job))
