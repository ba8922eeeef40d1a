"""Run one capability, in this process or in one as a worker process is, and see what its client would see.

Rule: nothing here stands in for what a worker does with a job. The capability is bound, run and answered by the
worker's own code, and its packets are read by the client's; only the connection between the two is missing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from geard.client import Status
from geard.client.reply import Submission
from geard.client.requests import encoded
from geard.client.results import Pieces, number, result_of, words
from geard.codec import Codec, codec_for
from geard.config import Capability, Config, JobServer, config_from
from geard.config.model import Retry
from geard.errors import CapabilityError, ConfigError, GeardError, InvalidRequest, ProcessKilled
from geard.messages import Start
from geard.protocol import REQUEST, Command, Decoder, Packet
from geard.testing.attempts import Attempts, RecordingClient, Submitted
from geard.worker.capability import bind
from geard.worker.isolation import IsolatedProcess, assignment
from geard.worker.job import Job
from geard.worker.middleware import resolve
from geard.worker.threads import THREADS

if TYPE_CHECKING:
    from geard.worker.session import Session

HANDLE: Final = b"H:test:1"


class Outcome:
    """What came of a job, as its client would see it.

    `statuses` are its updates (numerator, denominator), `data` the pieces that it sent on the way, `warnings` their
    texts, each in order. `failed` is whether it ended without a result, `exception` the text that clients get if it
    raised, None with `exceptions=False`. `packets` is all of it as it would go over the wire.

    `attempts` is how often it ran, `submissions` what it submitted with `job.client`, all attempts together, and
    `dead_letter` what would be kept of it, None if nothing."""

    def __init__(
        self,
        function: str,
        packets: list[Packet],
        encoding: str,
        attempts: Attempts | None = None,
        submissions: Sequence[Submitted] = (),
    ) -> None:
        self._function = function
        self.attempts = attempts.number if attempts else 1
        self.dead_letter = attempts.dead_letter if attempts else None
        self.submissions = list(submissions)
        self._codec: Codec = codec_for(encoding)
        self._submission = Submission()
        for packet in packets:
            if packet.command is Command.WORK_COMPLETE:
                self._submission.result = packet.fields[1]
            elif packet.command in _ENDS:
                self._submission.end = packet
            else:
                self._submission.news.append(packet)
        pieces = Pieces(self._codec)
        self.packets = packets
        self.statuses = [Status(*map(number, packet.fields[1:])) for packet in self._sent(Command.WORK_STATUS)]
        self.data = [pieces.decode(packet.fields[1], last=False) for packet in self._sent(Command.WORK_DATA)]
        self.warnings = [words(packet.fields[1], self._codec) for packet in self._sent(Command.WORK_WARNING)]
        self.exception = next(
            (words(packet.fields[1], self._codec) for packet in self._sent(Command.WORK_EXCEPTION)), None
        )
        self.failed = not self._sent(Command.WORK_COMPLETE)

    def __repr__(self) -> str:
        if self.failed:
            return f"<Outcome {self._function} failed{f': {self.exception}' if self.exception is not None else ''}>"
        return f"<Outcome {self._function} complete>"

    @property
    def result(self) -> Any:
        """The job's result: its data and what completed it, joined and decoded.

        Raises what Client.run would: JobException with the text of what the capability raised, JobFailed if it failed
        without a word, InvalidResult if this is no text or JSON in the encoding."""
        __tracebackhide__ = True  # pytest then points at the line of the test
        try:
            return result_of(self._submission, self._function, self._codec)
        except GeardError as error:
            raise error.with_traceback(None)  # noqa: B904 - it is the same error, without our own frames

    def _sent(self, command: Command) -> list[Packet]:
        return [packet for packet in self.packets if packet.command is command]


_ENDS: Final = (Command.WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_EXCEPTION)


def call(
    capability: str | Callable[..., Any],
    workload: Any = "",
    *,
    encoding: str = "utf-8",
    timeout: float | None = None,
    unique: str = "",
    isolated: bool = False,
    retry: int | Mapping[str, Any] | None = None,
    dead_letter: bool = False,
    exceptions: bool = True,
    middleware: Sequence[str | Callable[..., Any]] = (),
) -> Outcome:
    """Run a capability, by itself or by its dotted path, as a job with this workload.

        assert call("geard.examples.reverse", "hello").result == "olleh"

    `workload` is what a client would submit: str, or a value for `encoding="json"`; bytes are taken as they come over
    the wire, so that one that cannot be decoded can be tried too. `encoding` and `timeout` (seconds) are those of the
    config. With a timeout the capability runs in a thread of its own, which goes on if it is late; without one it runs
    in the caller's, so that debuggers, fixtures and database transactions see it. An `async def` runs on geard's
    loop, as in a worker, with or without one.

    With `isolated` it runs as in a worker process: in a fresh one, patched, in a greenlet, so that what this does to
    its imports, its threads and its forks shows in the test. It is imported there by its dotted path, and sees nothing
    that the test has set up in its own process. One that ends its process (os._exit, a crash of C code) raises
    ProcessKilled.

    `retry`, `dead_letter`, `exceptions` and `middleware` are as in the config. Attempts follow each other at once,
    whatever their `wait`, as those at a job that a client waits for:

        outcome = call(flaky, "x", retry={"times": 3, "on": ["OSError"]}, dead_letter=True)
        assert (outcome.attempts, outcome.dead_letter) == (2, None)

    What it submits in the background with `job.client` is in `outcome.submissions`; there is no job server to run
    anything else, which raises InvalidRequest. Neither retries nor a `job.client` go together with `isolated`.

    What the capability raises is in the Outcome, its traceback in the log ("geard.worker"), which pytest shows for a
    test that fails. Raises CapabilityError for one that no worker could serve, InvalidRequest for a workload that is
    not of the encoding, ConfigError for a `retry` that no config may have."""
    name = capability.rpartition(".")[2].rpartition(":")[2] if isinstance(capability, str) else _name_of(capability)
    if isolated:
        if retry is not None or dead_letter:
            raise InvalidRequest("isolated=True runs one attempt: without retry and dead_letter")
        return _call_isolated(name, capability, workload, encoding, timeout, unique, exceptions, middleware)
    spec = Capability(
        capability,
        timeout_seconds=timeout,
        retry=_retry_of(retry),
        dead_letter=dead_letter,
        exceptions=exceptions,
    )
    around, problems = resolve(middleware, "middleware")
    if problems:
        raise CapabilityError("\n".join(str(problem) for problem in problems))
    bound = bind(name, spec, encoding, around)
    wire = _Wire()
    attempts, client = Attempts(wire.answered), RecordingClient(encoding)
    bound.client = lambda: client
    if bound.policy:
        bound.after_failure = partial(attempts.after, bound.policy)
    # A time limit of plain functions is kept by `attempts`: a thread that is late can be answered for, not stopped.
    bound.prepare(THREADS if bound.asynchronous else replace(THREADS, limit=lambda job, seconds: nullcontext()))
    data = workload if isinstance(workload, bytes) else encoded(workload, codec_for(encoding, "workload"))
    job = Job(cast("Session", wire), bound, HANDLE, unique.encode(), data, time.monotonic())
    attempts.run(job, None if bound.asynchronous else timeout)
    return Outcome(name, wire.packets(), encoding, attempts, client.submissions)


def _retry_of(retry: int | Mapping[str, Any] | None) -> Retry | None:
    """As the config reads it. Raises ConfigError."""
    if retry is None:
        return None
    capabilities = config_from({"capabilities": {"f": {"function": "f.f", "retry": retry}}}).capabilities
    return capabilities["f"].retry


def _call_isolated(
    name: str,
    capability: str | Callable[..., Any],
    workload: Any,
    encoding: str,
    timeout: float | None,
    unique: str,
    exceptions: bool,
    middleware: Sequence[str | Callable[..., Any]],
) -> Outcome:
    __tracebackhide__ = True
    around = tuple(_path_of(one) for one in middleware)
    spec = Capability(
        _path_of(capability),
        encoding=encoding,
        timeout_seconds=timeout,
        exceptions=exceptions,
        middleware=around,
    )
    search = tuple(directory or "." for directory in sys.path)
    config = Config(job_servers=(JobServer(_Wire.address),), capabilities={name: spec}, python_path=search)
    data = workload if isinstance(workload, bytes) else encoded(workload, codec_for(encoding, "workload"))
    packets: list[Packet] = []
    try:
        process = IsolatedProcess(Start(config, number=0, generation=0))
    except ConfigError as error:
        raise CapabilityError("\n".join(problem.message for problem in error.problems)) from None
    try:
        ending = process.run(assignment(HANDLE, name.encode(), unique.encode(), data), packets.append)
    finally:
        process.close()
    if ending:
        raise ProcessKilled(f"the process that {name} ran in {ending}; in a worker process other jobs would be in it")
    return Outcome(name, packets, encoding)


def _path_of(capability: str | Callable[..., Any]) -> str:
    if isinstance(capability, str):
        return capability
    module, name = getattr(capability, "__module__", None), getattr(capability, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        raise InvalidRequest(f"{capability!r} cannot be imported in another process: put it at the top of a module")
    return f"{module}:{name}"


class _Wire:
    """As much of a Session as a Job asks for: what it sends stays here."""

    address = "geard.testing"
    behind = False

    def __init__(self) -> None:
        self._sent: list[bytes] = []
        self.answered = threading.Event()

    def send(self, packet: bytes) -> None:
        self._sent.append(packet)

    def answer(self, packet: bytes) -> bool:
        self._sent.append(packet)
        self.answered.set()
        return True

    def wake(self) -> None:
        """There is nobody to wake: nothing waits to be written."""

    def packets(self) -> list[Packet]:
        decoder = Decoder(REQUEST)
        decoder.feed(b"".join(self._sent))
        return list(decoder)


def _name_of(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
