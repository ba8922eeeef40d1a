"""The job servers, asked over their admin protocol: each in a greenlet of its own, with a short deadline.

Rules:
- One that is down, mute or slow costs its own greenlet's time and nobody else's.
- The lists of workers and of waiting jobs can be long, and are asked for only while somebody looks at them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from geard.client.admin import Admin
from geard.config.model import JobServer
from geard.errors import GeardError

POLL_SECONDS: Final = 1.0
SLOW_POLL_SECONDS: Final = 5.0
"""How often to ask one that did not answer."""
ANSWER_SECONDS: Final = 3.0
LOOKED_AT_SECONDS: Final = 10.0
LISTED_JOBS: Final = 1000


class Queue(Struct, frozen=True):
    """A function in a job server."""

    high: int  # waiting jobs by priority
    normal: int
    low: int
    running: int
    workers: int  # that can run it, on any machine

    @property
    def waiting(self) -> int:
        """Jobs that wait, of any priority."""
        return self.high + self.normal + self.low


class WaitingJob(Struct, frozen=True):
    """A job that waits in a job server, which does not say for which function."""

    handle: str
    retries: int


class JobServerView(Struct, frozen=True):
    """A job server as it was when it last answered; `error` says why that was not just now."""

    name: str
    up: bool
    error: str = ""
    version: str = ""
    heard_seconds: float = 0.0  # since its last answer
    answer_seconds: float = 0.0  # how long that took
    queues: dict[str, Queue] = {}
    connections: int | None = None  # of workers, clients and admins; None: nobody looked
    waiting: tuple[WaitingJob, ...] | None = None  # some of them; None: nobody looked
    machine: str = ""  # the daemon that asked it

    @property
    def waiting_count(self) -> int:
        """All jobs that wait there."""
        return sum(queue.waiting for queue in self.queues.values())

    @property
    def running_count(self) -> int:
        """All jobs that run, on any machine."""
        return sum(queue.running for queue in self.queues.values())


class JobServerWatch:
    """One job server, and what it last said."""

    def __init__(self, server: JobServer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = str(server)
        self._admin = Admin(server, timeout_seconds=ANSWER_SECONDS)
        self._clock = clock
        self._heard_at = clock()
        self._answer_seconds = 0.0
        self._looked_at = -LOOKED_AT_SECONDS
        self._error = "not asked yet"
        self._version = ""
        self._queues: dict[str, Queue] = {}
        self._connections: int | None = None
        self._waiting: tuple[WaitingJob, ...] | None = None

    def look(self) -> None:
        """Somebody wants the long lists too: ask for them for a while."""
        self._looked_at = self._clock()

    def poll(self) -> float:
        """Ask it. How long to wait before the next time."""
        begin = self._clock()
        try:
            self._ask()
        except GeardError as error:
            self._error, self._version = str(error), ""
            return SLOW_POLL_SECONDS
        self._error, self._heard_at = "", self._clock()
        self._answer_seconds = self._heard_at - begin
        return max(POLL_SECONDS, 10 * self._answer_seconds)  # one that is slow to answer is asked less

    def drop(self, handle: str) -> None:
        """Drop a job that waits. Raises GeardError. On a connection of its own: polls do not wait for it."""
        with Admin(self._admin.server, timeout_seconds=ANSWER_SECONDS) as admin:
            admin.cancel_job(handle)

    def view(self) -> JobServerView:
        """What is known by now."""
        return JobServerView(
            self.name,
            up=not self._error,
            error=self._error,
            version=self._version,
            heard_seconds=self._clock() - self._heard_at,
            answer_seconds=self._answer_seconds,
            queues=self._queues,
            connections=self._connections,
            waiting=self._waiting,
        )

    def _ask(self) -> None:
        if not self._version:
            self._version = self._admin.version()
        statuses = {row.function: row for row in self._admin.status()}
        self._queues = {
            row.function: Queue(row.high, row.normal, row.low, statuses[row.function].running, row.workers)
            for row in self._admin.priority_status()
            if row.function in statuses
        }
        if self._clock() - self._looked_at < LOOKED_AT_SECONDS:
            self._connections = len(self._admin.workers())
            waits = (WaitingJob(job.handle, job.retries) for job in self._admin.show_jobs() if job.queued)
            self._waiting = tuple(job for job, _ in zip(waits, range(LISTED_JOBS), strict=False))
        else:
            self._connections = self._waiting = None
