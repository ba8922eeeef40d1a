"""A job in the hands of a greenlet: what a hands-on function talks to.

Rules:
- A job's packets go out on the connection that assigned it, or not at all: gearmand answers JOB_NOT_FOUND on any
  other, and has already queued the job again. So a job holds its session, and never asks for another.
- A job is answered once. The first of complete, fail, exception and its time limit wins.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from geard.errors import InvalidRequest
from geard.printable import printable
from geard.protocol import Command, Packet, request
from geard.protocol.encode import work_complete
from geard.worker import attempts
from geard.worker.attempts import Attempt
from geard.worker.capability import BoundCapability
from geard.worker.policy import Again, decide
from geard.worker.session import Session

if TYPE_CHECKING:
    from geard.client import Client  # loaded for those who use it

log = logging.getLogger("geard.worker")


class Job(Struct, eq=False):
    """One job. `workload` is the raw bytes; `handle`, `unique` and `function` are text.

    A Struct, since one is made for every job: that costs a third of a class with an __init__."""

    session: Session
    """The connection's session that it belongs to."""
    capability: BoundCapability
    raw_handle: bytes
    raw_unique: bytes
    workload: bytes
    received: float
    """By the session's clock."""
    started: float = 0.0
    """0 while no greenlet has taken it."""
    answered: bool = False
    failed: bool = False
    """Answered with anything but a result."""
    error: BaseException | str | bytes = ""
    """Why it failed."""
    progress: tuple[int, int] | tuple[()] = ()
    """What it last said of how far it is."""
    has_sent_data: bool = False
    """Whether a piece of its result is with the client."""

    def __repr__(self) -> str:
        state = "failed" if self.failed else "answered" if self.answered else "running" if self.started else "waiting"
        return f"<Job {self.handle} {self.function} {state}>"

    @property
    def handle(self) -> str:
        """The job server's name for this job."""
        return self.raw_handle.decode(errors="replace")

    @property
    def unique(self) -> str:
        """The client's name for it; may be empty."""
        return attempts.read(self.raw_unique).unique.decode(errors="replace")

    @property
    def attempts(self) -> Attempt:
        """Which attempt at it this is, and since when it fails."""
        return attempts.read(self.raw_unique)

    @property
    def attempt(self) -> int:
        """Which attempt at it this is, from 1."""
        return self.attempts.number

    @property
    def is_last_attempt(self) -> bool:
        """Whether it will not run again if this fails."""
        policy = self.capability.policy
        return policy is None or self.attempt >= policy.most_attempts

    def will_retry(self, error: BaseException) -> bool:
        """Whether it will run again if this is what it ends with: for middleware, which sees the error first.

        What cannot be known yet is taken for granted: that there is room to wait, and that no client has data of it."""
        policy = self.capability.policy
        return policy is not None and isinstance(decide(policy, self.attempt, error, lambda: 0.0), Again)

    @property
    def client(self) -> Client:
        """The client of the process, to all job servers of its config, with the config's encoding; for further jobs:
        `job.client.submit_background("thumbnail", path)`. Closed when the process has no job any more.

        Calls block the greenlet or thread. In a coroutine: `await asyncio.to_thread(job.client.run, "f", "x")`.
        Raises InvalidRequest where the job came by none of geard's workers."""
        client = self.capability.client
        if client is None:
            raise InvalidRequest(f"{self.function} {self.handle} has no client: it is not run by a worker")
        return client()

    @property
    def function(self) -> str:
        """The function name it was submitted for."""
        return self.capability.name

    @property
    def server(self) -> str:
        """The address of the job server that assigned it."""
        return self.session.address

    # --- on the way -----------------------------------------------------------------------------------------------

    def status(self, numerator: float, denominator: float) -> None:
        """Tell clients how far it is: WORK_STATUS, in whole numbers, as the protocol has them."""
        done, whole = b"%d" % numerator, b"%d" % denominator
        self.progress = int(done), int(whole)  # what clients are told, and nothing that the supervisor could not read
        self.send(request(Command.WORK_STATUS, self.raw_handle, done, whole))

    def data(self, chunk: Any) -> None:
        """Send a piece of the result: WORK_DATA. Encoded as a result is."""
        data = self.capability.codec.encode(chunk)
        self.has_sent_data = True
        self.capability.counter.bytes_out += len(data)
        self.send(request(Command.WORK_DATA, self.raw_handle, data))

    def warning(self, text: Any) -> None:
        """Send a warning to clients: WORK_WARNING. Text is UTF-8; anything else is encoded as a result is."""
        data = text.encode() if isinstance(text, str) else self.capability.codec.encode(text)
        self.send(request(Command.WORK_WARNING, self.raw_handle, data))

    def send(self, packet: bytes) -> None:
        """Send a packet as it is (see geard.protocol.request). Waits while the connection is far behind."""
        self.session.send(packet)

    def stream(self, pieces: Generator[Any, Any, Any]) -> Any:
        """Send each item of a generator as WORK_DATA; its return value is returned."""
        while True:
            try:
                piece = next(pieces)
            except StopIteration as stop:
                return stop.value
            self.data(piece)

    # --- the answer -----------------------------------------------------------------------------------------------

    def complete(self, result: Any = None) -> None:
        """End the job with its result: WORK_COMPLETE. Raises what the encoding raises, and then is not answered."""
        self.finish(result)
        self.session.wake()  # the function may go on for long

    def finish(self, result: Any) -> None:
        """The same for who runs the job, and sees to it that the answer is sent."""
        capability = self.capability
        data = result if type(result) is capability.as_is else capability.codec.encode(result)
        packet = work_complete(self.raw_handle, data)  # or there is no memory for it, and the job is not answered
        # No call between read and write of the flag: in threads, only one of two answers can win.
        answered, self.answered = self.answered, True
        if answered or not self.session.answer(packet):
            self._came_late(answered)
        counter = capability.counter
        counter.bytes_in += len(self.workload)
        counter.bytes_out += len(data)

    def fail(self) -> None:
        """End the job as failed, without a reason: WORK_FAIL."""
        self._answer(request(Command.WORK_FAIL, self.raw_handle))
        self.error = ""
        self.failed = True
        self.session.wake()

    def exception(self, text: str | bytes) -> None:
        """End the job as failed, with a reason: WORK_EXCEPTION, or with `exceptions: false` in the config WORK_FAIL."""
        reason = text.encode(errors="replace") if isinstance(text, str) else bytes(memoryview(text))
        self._answer(self.capability.work_failed(self.raw_handle, reason))
        self.error = text if isinstance(text, str) else reason
        self.failed = True
        self.session.wake()

    def relay(self, packet: Packet) -> None:
        """Send what another process, which runs this job, has to say. Raises InvalidRequest for a second answer."""
        if packet.command is Command.WORK_EXCEPTION:
            self.exception(packet.data)
        elif packet.command is Command.WORK_FAIL:
            self.fail()
        elif packet.command is Command.WORK_COMPLETE:
            self._answer(request(packet.command, *packet.fields))
            self.session.wake()
        else:
            self.has_sent_data |= packet.command is Command.WORK_DATA
            self.send(request(packet.command, *packet.fields))

    def _answer(self, packet: bytes) -> None:
        answered, self.answered = self.answered, True  # as in finish
        if answered or not self.session.answer(packet):
            self._came_late(answered)

    def _came_late(self, answered: bool) -> None:
        """Nothing is sent: for another answer, or a connection that is gone."""
        if answered:
            raise InvalidRequest(f"{self.function} {self.handle} was answered before")
        dropped = printable(f"{self.function} {self.handle}")
        log.warning("result of %s dropped: the connection to %s is gone", dropped, self.server)


class RetriedJob(Job):
    """A job that failed and waited in this process to run again."""

    retried: Attempt | None = None

    @classmethod
    def of(cls, job: Job, attempt: Attempt) -> RetriedJob:
        """This attempt at it."""
        return cls(
            job.session, job.capability, job.raw_handle, job.raw_unique, job.workload, job.received, retried=attempt
        )

    @property
    def attempts(self) -> Attempt:
        return self.retried or super().attempts
