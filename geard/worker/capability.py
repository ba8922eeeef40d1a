"""Capabilities: from the dotted path in a config to something that runs a job.

Rules: everything that can be decided before the first job is decided here, once: the callable, how it is called (by
its number of required positional arguments), its encoding, its time limit, its thread. What is wrong with one
capability is told as a Problem and does not hide what is wrong with the next.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Final

from geard.codec import BYTES, Codec, codec_for
from geard.config import Capability, Config
from geard.errors import CapabilityError, InvalidRequest, Problem
from geard.protocol import Command, request
from geard.stats.counters import FunctionCounter
from geard.worker.importing import import_path, is_asynchronous, path_of, problem_of
from geard.worker.middleware import Begin, Invoke, Layers, layers_of, resolve, resolve_common
from geard.worker.policy import policy_of

if TYPE_CHECKING:
    from geard.client import Client  # loaded for those who use it

    # A job knows its capability; a capability only calls with a job
    from geard.worker.job import Job

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
    whose: Callable[[], Hashable] = lambda: None
    """Which of those that may not share a connection the caller belongs to."""
    meaning: Callable[[BaseException, Job, float], BaseException] = lambda error, job, seconds: error
    """What a function within a limit has raised: JobTimeout for whatever the limit interrupted it with."""


class BoundCapability:
    """A capability with its callable: `invoke(job)`, once prepared, runs the function and returns what it returned."""

    __slots__ = (
        "after_failure",
        "as_is",
        "asynchronous",
        "client",
        "codec",
        "counter",
        "durations",
        "exceptions",
        "function",
        "hands_on",
        "invoke",
        "layers",
        "name",
        "policy",
        "quick",
        "raw_name",
        "spec",
        "waits",
    )

    def __init__(
        self,
        name: str,
        spec: Capability,
        function: Callable[..., Any],
        codec: Codec,
        middleware: Sequence[Callable[..., Any]] = (),
    ) -> None:
        self.name = name
        self.raw_name = name.encode()
        self.spec = spec
        self.function = function
        self.hands_on = required_arguments(function) == 2
        self.asynchronous = is_asynchronous(function)
        self.layers: Layers = layers_of(middleware, asynchronous=self.asynchronous)
        self.codec = codec
        self.exceptions = True
        """Whether job servers are told why a job has failed."""
        self.as_is = bytes if codec.name == BYTES else None
        """Results of this type go as they are."""
        self.invoke: Invoke = self._plain()
        self.counter = FunctionCounter()
        self.durations = self.counter.durations  # the hot path's, looked up once
        self.waits = self.counter.waits
        self.policy = policy_of(spec)
        self.after_failure: Callable[[Job, BaseException], bool] | None = None
        """Decides what becomes of a job that failed, and whether it will run again; None: it has failed."""
        self.client: Callable[[], Client] | None = None
        """Gives the client of the process for its jobs; None where there is none."""
        self.quick = False  # its last run left the loop to others within a millisecond; kept by the channel

    def __repr__(self) -> str:
        return f"<{self.name} served by {path_of(self.function)}>"

    def work_failed(self, handle: bytes, reason: bytes) -> bytes:
        """What ends a job that has failed: WORK_EXCEPTION, or without `exceptions` WORK_FAIL. One of them alone: for
        gearmand a job ends with either."""
        if self.exceptions:
            return request(Command.WORK_EXCEPTION, handle, reason)
        return request(Command.WORK_FAIL, handle)

    def prepare(self, runtime: Runtime) -> None:
        """Wrap the call in the capability's middleware, time limit and thread, or hand it to the asyncio loop."""
        invoke, seconds, layers = self._plain(), self.spec.timeout_seconds, self.layers
        if self.asynchronous:
            begin, in_loop = layers.around_coroutine(self._coroutine()), runtime.in_loop
            self.invoke = layers.around(lambda job: in_loop(begin, job, seconds))
            return
        if layers.plain and seconds is not None:
            invoke = self._with_meaning(invoke, runtime, seconds)
        invoke = layers.around(invoke)
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

        def call_raw(job: Job) -> Any:
            result = function(job.workload)
            return job.stream(result) if type(result) is GeneratorType else result

        def call(job: Job) -> Any:
            result = function(decode(job.workload))
            return job.stream(result) if type(result) is GeneratorType else result

        def call_hands_on(job: Job) -> Any:
            result = function(job, decode(job.workload))
            return job.stream(result) if type(result) is GeneratorType else result

        if self.hands_on:
            return call_hands_on
        return call_raw if self.codec.name == BYTES else call

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

    @staticmethod
    def _with_meaning(invoke: Invoke, runtime: Runtime, seconds: float) -> Invoke:
        def told(job: Job) -> Any:
            try:
                return invoke(job)
            except BaseException as error:
                meant = runtime.meaning(error, job, seconds)
                if meant is error:
                    raise
                raise meant from None

        return told


async def stream(job: Job, pieces: AsyncGenerator[Any, None]) -> None:
    """Send each item as WORK_DATA, waiting while the connection is far behind."""
    import asyncio  # for those who use it

    async with aclosing(pieces):
        async for piece in pieces:
            job.data(piece)
            while job.session.behind:
                await asyncio.sleep(BEHIND_SECONDS)


def resolve_all(config: Config) -> tuple[list[BoundCapability], list[Problem]]:
    """Every capability of the config that can run, and a Problem for each that cannot (key `capabilities.NAME`)."""
    bound = []
    common, problems = resolve_common(config)
    for name, spec in config.capabilities.items():
        own, wrong = resolve(spec.middleware, f"capabilities.{name}.middleware")
        problems += wrong
        try:
            bound.append(bind(name, spec, config.encoding, (*common, *own), exceptions=config.exceptions))
        except CapabilityError as error:
            problems.append(problem_of(error, f"capabilities.{name}"))
    return bound, problems


def bind(
    name: str,
    spec: Capability,
    encoding: str,
    middleware: Sequence[Callable[..., Any]] = (),
    *,
    exceptions: bool = True,
) -> BoundCapability:
    """One capability with its callable, and what is around it, outermost first. `encoding` and `exceptions` are for one
    that does not say. Raises CapabilityError."""
    function = spec.function if callable(spec.function) else import_path(spec.function)
    try:
        codec = codec_for(spec.encoding or encoding, "result")
    except InvalidRequest as error:
        raise CapabilityError(str(error)) from None
    bound = BoundCapability(name, spec, function, codec, middleware)
    bound.exceptions = exceptions if spec.exceptions is None else spec.exceptions
    if bound.asynchronous and spec.thread:
        raise CapabilityError(f"{path_of(function)} is async, and runs on the asyncio loop\ndrop `thread: true`")
    return bound


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


_CONVENTIONS = "expected function(workload) or function(job, workload)"
