"""Admin: what a job server holds, and the commands that change it.

    with Admin("localhost:4730") as admin:
        for row in admin.status():
            print(row.function, row.total)

Rules: one request at a time, in order; an answer that does not come whole closes the connection, for what comes next
could belong to it. The next call connects again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from geard.client import fork
from geard.client.turn import Turn
from geard.config import JobServer, parse_address
from geard.connection import Connection
from geard.errors import InvalidRequest, ProtocolError, ServerTimeout
from geard.protocol import admin as text
from geard.protocol.admin import DelayedStatus, FunctionStatus, JobStatus, PriorityStatus, WorkerStatus

__all__ = ["Admin", "DelayedStatus", "FunctionStatus", "JobStatus", "PriorityStatus", "WorkerStatus"]

ANSWER_TIMEOUT_SECONDS: Final = 10.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024

T = TypeVar("T")


class Admin:
    """The admin side of one job server. Connects when first used; threads and greenlets may share it.

    Every method raises ConnectionLost (CannotConnect, ServerTimeout, ProtocolError) when the job server cannot be
    asked, and ServerError when it refuses. `timeout_seconds` bounds each call, connecting and waiting for its turn
    included. In a child that was forked it connects anew."""

    def __init__(self, server: str | JobServer, *, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        self.server = parse_address(server) if isinstance(server, str) else server
        self.timeout_seconds = timeout_seconds
        self._connection: Connection | None = None
        self._turn = Turn()
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<Admin {self.server}{'' if self._connection else ' not connected'}>"

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Idempotent; the next call connects again."""
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def status(self) -> list[FunctionStatus]:
        """Each function's jobs and workers."""
        return self._rows(FunctionStatus.parse_list, "status")

    def priority_status(self) -> list[PriorityStatus]:
        """Each function's waiting jobs by priority, and its workers."""
        return self._rows(PriorityStatus.parse_list, "prioritystatus")

    def delayed_status(self) -> list[DelayedStatus]:
        """Each function's waiting jobs that are not due yet. gearmand cannot tell: ServerError."""
        return self._rows(DelayedStatus.parse_list, "delayedstatus")

    def workers(self) -> list[WorkerStatus]:
        """Every connection to the job server; those with functions are workers."""
        return self._rows(WorkerStatus.parse_list, "workers")

    def show_jobs(self) -> list[JobStatus]:
        """Every job that the job server holds."""
        return self._rows(JobStatus.parse_list, "show", "jobs")

    def show_unique_jobs(self) -> list[str]:
        """The unique of every job that the job server holds; empty for a job without."""
        return self._rows(text.uniques, "show", "unique", "jobs")

    def version(self) -> str:
        """The job server's version, as it calls it."""
        return self._line("version")

    def getpid(self) -> int:
        """The job server's process id."""
        answer = self._line("getpid")
        if not answer.isdecimal():
            raise ProtocolError(f"{self.server}: expected a process id, got {answer!r}")
        return int(answer)

    def verbose(self) -> str:
        """The job server's log level, as it calls it."""
        return self._line("verbose")

    def max_queue(self, function: str, *limits: int) -> None:
        """Limit how many jobs may wait for a function that the job server knows: one limit for each priority, or
        three, for high, normal and low. 0 is no limit, and so is to give none."""
        if len(limits) not in (0, 1, 3) or any(limit < 0 for limit in limits):
            raise InvalidRequest(f"max_queue takes one limit, or three (high, normal, low), from 0 up; not {limits}")
        self._line("maxqueue", function, *map(str, limits))

    def create_function(self, function: str) -> None:
        """Make a function known to the job server before any worker or job names it."""
        self._line("create", "function", function)

    def drop_function(self, function: str) -> None:
        """Make the job server forget a function and its waiting jobs. ServerError while it has workers or runs."""
        self._line("drop", "function", function)

    def cancel_job(self, handle: str) -> None:
        """Drop a job that waits; one that runs goes on, and nobody hears of it. ServerError for one unknown."""
        self._line("cancel", "job", handle)

    def _line(self, *words: str) -> str:
        with self._named():
            line = self._ask(words, lambda data: data if data.endswith(b"\n") else None)
            return text.answer_line(line).decode(errors="backslashreplace")

    def _rows(self, parse: Callable[[list[bytes]], list[T]], *words: str) -> list[T]:
        with self._named():
            return parse(self._ask(words, text.answer_to_list))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Whoever asks several job servers wants to know which of them it was."""
        try:
            yield
        except ProtocolError as error:
            raise type(error)(f"{self.server}: {error}") from error

    def _ask(self, words: tuple[str, ...], complete: Callable[[bytes], T | None]) -> T:
        request = text.request(*words)
        deadline = time.monotonic() + self.timeout_seconds
        turn, taken = self._turn, list[bool]()  # a fork replaces the turn
        whole = False
        try:
            if not turn.take(taken, deadline):
                raise ServerTimeout(
                    f"{self.server} is still busy with others' requests after {self.timeout_seconds:g} s"
                )
            connection = self._connection = self._connection or Connection.dial(
                self.server, timeout_seconds=max(deadline - time.monotonic(), 0.001)
            )
            if not connection.send(request, deadline):
                raise self._silent()
            answer = self._receive(connection, deadline, complete)
            whole = True
            return answer
        finally:
            try:
                if taken and taken[0] and not whole:
                    self.close()
            finally:
                if taken and taken[0]:
                    taken[0] = False  # at once
                    turn.lock.release()
                turn.forget(taken)

    def forked(self, parent: int) -> None:
        """This is a child of the process that has the connection: make another when it is needed."""
        connection, self._connection = self._connection, None
        self._turn = Turn()
        if connection:
            connection.leave()

    def _silent(self) -> ServerTimeout:
        return ServerTimeout(f"{self.server} did not answer within {self.timeout_seconds:g} s")

    def _receive(self, connection: Connection, deadline: float, complete: Callable[[bytes], T | None]) -> T:
        received = bytearray()
        while (left := deadline - time.monotonic()) > 0:
            data = connection.receive(left)
            if data is None:
                break
            received += data
            if data.endswith(b"\n"):
                answer = complete(bytes(received))
                if answer is not None:
                    return answer
            if len(received) > MAX_ANSWER_BYTES:
                raise ProtocolError(f"over {MAX_ANSWER_BYTES} bytes as one answer")
        raise self._silent()
