"""Capabilities: from the dotted path in a config to something that runs a job.

Rules: everything that can be decided before the first job is decided here, once: the callable, how it is called (by
its number of required positional arguments), its encoding, its time limit, its thread. What is wrong with one
capability is told as a Problem and does not hide what is wrong with the next.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from importlib import import_module
from traceback import extract_tb
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from geard.codec import Codec, codec_for
from geard.config import Capability, Config
from geard.errors import CapabilityError, InvalidRequest, Problem
from geard.stats.counters import FunctionCounter
from geard.worker.policy import policy_of

if TYPE_CHECKING:  # a job knows its capability; a capability only calls with a job
    from geard.worker.job import Job

Invoke = Callable[["Job"], Any]
Begin = Callable[["Job"], Coroutine[Any, Any, Any]]

BEHIND_SECONDS: Final = 0.01
"""How often an async generator looks whether a connection that is far behind has caught up."""


@dataclass(frozen=True)
class Runtime:
    """What differs between plain threads and a gevent process, handed in by whoever knows which it is.

    `limit(job, seconds)` is entered around a function with a timeout; it ends the job when time is up. `in_thread`
    runs a call in a native thread and waits for it; `in_loop` does so with a coroutine on the asyncio loop, with its
    time limit."""

    limit: Callable[[Job, float], AbstractContextManager[object]]
    in_thread: Callable[[Invoke, Job], Any]
    in_loop: Callable[[Begin, Job, float | None], Any]


class BoundCapability:
    """A capability with its callable: `invoke(job)`, once prepared, runs the function and returns what it returned."""

    __slots__ = (
        "add_duration",
        "add_wait",
        "after_failure",
        "asynchronous",
        "codec",
        "counter",
        "function",
        "hands_on",
        "invoke",
        "name",
        "policy",
        "quick",
        "raw_name",
        "spec",
    )

    def __init__(self, name: str, spec: Capability, function: Callable[..., Any], codec: Codec) -> None:
        self.name = name
        self.raw_name = name.encode()
        self.spec = spec
        self.function = function
        self.hands_on = required_arguments(function) == 2
        self.asynchronous = is_asynchronous(function)
        self.codec = codec
        self.invoke: Invoke = self._plain()
        self.counter = FunctionCounter()
        self.add_duration = self.counter.durations.append  # the hot path's, looked up once
        self.add_wait = self.counter.waits.append
        self.policy = policy_of(spec)
        self.after_failure: Callable[[Job, BaseException], bool] | None = None
        """Decides what becomes of a job that failed, and whether it will run again; None: it has failed."""
        self.quick = False  # its last run left the loop to others within a millisecond; kept by the channel

    def __repr__(self) -> str:
        return f"<{self.name} served by {path_of(self.function)}>"

    def prepare(self, runtime: Runtime) -> None:
        """Wrap the call in the capability's time limit and thread, or hand it to the asyncio loop."""
        invoke, seconds = self._plain(), self.spec.timeout_seconds
        if self.asynchronous:
            begin, in_loop = self._coroutine(), runtime.in_loop
            self.invoke = lambda job: in_loop(begin, job, seconds)
            return
        if self.spec.thread:
            inner = invoke

            def invoke(job: Job) -> Any:
                return runtime.in_thread(inner, job)

        if seconds is not None:
            self.invoke = self._limited(invoke, runtime, seconds)
        else:
            self.invoke = invoke

    def _plain(self) -> Invoke:
        function, decode = self.function, self.codec.decode

        def call(job: Job) -> Any:
            result = function(decode(job.workload))
            return job.stream(result) if type(result) is GeneratorType else result

        def call_hands_on(job: Job) -> Any:
            result = function(job, decode(job.workload))
            return job.stream(result) if type(result) is GeneratorType else result

        return call_hands_on if self.hands_on else call

    def _coroutine(self) -> Begin:
        function, decode, hands_on = self.function, self.codec.decode, self.hands_on

        async def begin(job: Job) -> Any:
            workload = decode(job.workload)
            result = function(job, workload) if hands_on else function(workload)
            return await (stream(job, result) if isinstance(result, AsyncGenerator) else result)

        return begin

    @staticmethod
    def _limited(invoke: Invoke, runtime: Runtime, seconds: float) -> Invoke:
        def limited(job: Job) -> Any:
            with runtime.limit(job, seconds):
                return invoke(job)

        return limited


async def stream(job: Job, pieces: AsyncGenerator[Any, None]) -> None:
    """Send each item as WORK_DATA, waiting while the connection is far behind."""
    import asyncio  # for those who use it

    async with aclosing(pieces):
        async for piece in pieces:
            job.data(piece)
            while job.session.behind:
                await asyncio.sleep(BEHIND_SECONDS)


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether it is an `async def`, a generator or not, or an object that is called so."""
    return any(
        inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
        for called in (function, type(function).__dict__.get("__call__"))
    )


def resolve_all(config: Config) -> tuple[list[BoundCapability], list[Problem]]:
    """Every capability of the config that can run, and a Problem for each that cannot (key `capabilities.NAME`)."""
    bound, problems = [], []
    for name, spec in config.capabilities.items():
        try:
            bound.append(bind(name, spec, config.encoding))
        except CapabilityError as error:
            message, _, hint = str(error).partition("\n")
            problems.append(Problem(message, key=f"capabilities.{name}", hint=hint))
    return bound, problems


def bind(name: str, spec: Capability, encoding: str) -> BoundCapability:
    """One capability with its callable. Raises CapabilityError."""
    function = spec.function if callable(spec.function) else import_path(spec.function)
    try:
        codec = codec_for(spec.encoding or encoding, "result")
    except InvalidRequest as error:
        raise CapabilityError(str(error)) from None
    bound = BoundCapability(name, spec, function, codec)
    if bound.asynchronous and spec.thread:
        raise CapabilityError(f"{path_of(function)} is async, and runs on the asyncio loop\ndrop `thread: true`")
    return bound


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


def required_arguments(function: Callable[..., Any]) -> int:
    """How many positional arguments it must have: 1 (workload) or 2 (job, workload). Raises CapabilityError."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1  # a C function that does not tell its signature
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    keywords = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    takes_more = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if keywords:
        raise CapabilityError(f"{path_of(function)} needs the keyword argument {keywords[0]!r}\n{_CONVENTIONS}")
    if len(required) in (1, 2):
        return len(required)
    if not required and (positional or takes_more):
        return 1
    raise CapabilityError(f"{path_of(function)} takes {len(required)} required arguments\n{_CONVENTIONS}")


def path_of(function: Callable[..., Any]) -> str:
    """`module.name` of a callable, for people."""
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


_CONVENTIONS = "expected function(workload) or function(job, workload)"


def _import_failure(module_name: str, error: BaseException) -> str:
    frames = [frame for frame in extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    else:
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else module_name
    return f"importing {module_name!r} failed: {type(error).__name__}: {error}\nat {place}"


def _near(owner: Any, attribute: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(attribute, dir(owner), 1)
    return f"\ndid you mean {near[0]!r}?" if near else ""
