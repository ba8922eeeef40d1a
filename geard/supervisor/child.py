"""One worker process as the supervisor sees it: what it last said, what it was told, when it will be killed.

Rules:
- starting -> ready -> draining -> gone, never back. A starting child has no jobs, so to drain one is to kill it.
- Once a kill is due (`kill_at`), nothing puts it off; a shorter deadline brings it forward.
- The process itself is handed in, so that all of this runs against a fake one.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Final, Protocol

from geard import __version__
from geard.errors import Problem
from geard.messages import (
    HEARTBEAT_SECONDS,
    STACKS_SIGNAL,
    Blocked,
    CannotStart,
    Drain,
    Drained,
    FromChild,
    Heartbeat,
    Jobs,
    Ready,
    RunningJob,
    ToChild,
    how_it_ended,
)
from geard.presence import JobKey, Seat
from geard.printable import printable
from geard.stats import totals
from geard.supervisor.answers import ProcessView
from geard.supervisor.decisions import ProcessGroup, count_jobs, name_jobs

KILL_GRACE_SECONDS: Final = 2.0
"""What a process gets beyond the deadline of its drain: to close its connections and say what it abandoned."""
LATE_SECONDS: Final = 1.5 * HEARTBEAT_SECONDS
"""A process silent for so long may be stuck."""
STACKS_GRACE_SECONDS: Final = 1.0
"""Between asking a stuck process for its stacks and killing it."""

log = logging.getLogger(__name__)


class Process(Protocol):
    """A running worker process."""

    pid: int

    @property
    def carried(self) -> tuple[int, bytes]:
        """The descriptor of its socket, and what was received of a line that is not whole."""

    def send(self, message: ToChild) -> None:
        """Queue a message; never blocks, and says nothing when the process is gone."""

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is still there."""

    def kill(self) -> None:
        """SIGKILL to it and all it started."""


class Phase(Enum):
    """Where a worker process is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"


class Child:
    """A worker process of a generation. `number` is its place in it, kept by the process that replaces it."""

    def __init__(
        self, number: int, generation: int, group: ProcessGroup, *, jitter: float, now: float, start_by: float
    ) -> None:
        self.number = number
        self.generation = generation
        self.group = group
        self.jitter = jitter
        self.process: Process | None = None
        self.phase = Phase.STARTING
        self.started_at = now
        self.fresh_bytes = 0  # the memory it used before its first job
        self.ready_at: float | None = None
        self.heard_at = now
        self.heartbeat: Heartbeat | None = None
        self.connected: tuple[str, ...] = ()  # the job servers that it has registered with
        self.disconnected: tuple[str, ...] = ()
        self.jobs: tuple[RunningJob, ...] = ()  # the last we heard of
        self.jobs_at = now
        self.blocked_by = ""  # the job that holds its loop, if it could still say so
        self.problems: tuple[Problem, ...] = ()
        self.exit_code: int | None = None  # that it gave with its problems
        self.incompatible = False  # it could not start under a supervisor of our version
        self.version = __version__
        self.drained: Drained | None = None
        self.kill_at: float | None = start_by
        self.kill_reason = "it did not become ready in time"
        self.killed = False
        self.sharers = 1  # of a rate, itself included, when it was started
        self.excused = False  # its end is no sign that one of its jobs killed it
        self.seat: Seat | None = None  # in the memory where it notes its jobs
        self._stacks_asked = False

    def __repr__(self) -> str:
        pid = self.process.pid if self.process else "?"
        beat = self.heartbeat
        running = f" {beat.running}/{beat.greenlets} running" if beat else ""
        return f"<Child {self.number} pid={pid} generation={self.generation} {self.phase.value}{running}>"

    def __str__(self) -> str:
        pid = self.process.pid if self.process else "?"
        own = f" for {self.group.name}" if self.group.name else ""
        return f"worker {self.number}{own} (generation {self.generation}, pid {pid})"

    @property
    def running(self) -> int:
        """Jobs in flight, as of its last heartbeat."""
        return self.heartbeat.running if self.heartbeat else 0

    def received(self, message: FromChild, now: float) -> None:
        """Take in what it said."""
        if isinstance(message, Blocked):  # by a thread beside the loop; who held it before has let go of it
            self.heard_at = max(self.heard_at, now - message.seconds)
        else:
            self.heard_at = now
        match message:
            case Ready(registered=registered, unreachable=unreachable):
                self.fresh_bytes = message.memory_bytes
                self.version = message.version
                self._ready(registered, unreachable, now)
            case CannotStart(problems=problems, exit_code=exit_code):
                self.problems, self.exit_code, self.incompatible = problems, exit_code, message.incompatible
            case Heartbeat():
                self.heartbeat = message
                self.connected, self.disconnected = message.connected, message.disconnected
                self.jobs, self.jobs_at, self.blocked_by = message.jobs, now, ""
            case Jobs(jobs=jobs):
                self.jobs, self.jobs_at = jobs, now
            case Blocked():
                self.blocked_by = printable(f"{message.function} {message.handle}".strip())  # its own log has the stack
            case Drained():
                self.drained = message

    def drain(self, timeout_seconds: float | None, now: float) -> None:
        """Let it finish within the timeout (None: as long as it takes). A later call may shorten it."""
        if self.phase is Phase.GONE:
            return
        if self.phase is Phase.STARTING:
            self.kill("it was still starting")
            return
        self.phase = Phase.DRAINING
        self.send(Drain(timeout_seconds))
        if timeout_seconds is not None:
            self._kill_at(now + timeout_seconds + KILL_GRACE_SECONDS, "it did not finish its drain in time")

    def send(self, message: ToChild) -> None:
        """Queue a message to it."""
        if self.process:
            self.process.send(message)

    def kill(self, reason: str) -> None:
        """SIGKILL, now. Idempotent."""
        if self.killed:
            return
        if not self._stacks_asked:  # else one of its jobs is behind it
            self.excuse()
        log.log(logging.INFO if self.phase is Phase.STARTING else logging.WARNING, "killing %s: %s", self, reason)
        self.kill_at, self.killed = None, True
        if self.process:
            self.process.kill()

    def excuse(self) -> None:
        """Its end will be no sign that one of its jobs killed it."""
        self.excused = True
        if self.seat:
            self.seat.excuse()

    def tick(self, now: float, hang_timeout_seconds: float) -> None:
        """See whether it is stuck, and kill it when that is due."""
        if self.kill_at is not None and now >= self.kill_at:
            self.kill(self.kill_reason)
        elif self.is_silent(now, hang_timeout_seconds) and self.process and not (self._stacks_asked or self.killed):
            self._stacks_asked = True
            held_by = f", held by {self.blocked_by}" if self.blocked_by else ""
            log.error("%s has been silent for %.0f s%s; its stacks follow", self, now - self.heard_at, held_by)
            self.process.signal(STACKS_SIGNAL)
            self._kill_at(now + STACKS_GRACE_SECONDS, f"it is stuck{held_by} (hang_timeout)")

    def is_calm(self, now: float) -> bool:
        """Whether it serves and is heard of, so that nothing will soon be due."""
        return self.phase is Phase.READY and self.kill_at is None and not self.is_silent(now, LATE_SECONDS)

    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether a process that should send heartbeats has not for so long."""
        return self.phase in (Phase.READY, Phase.DRAINING) and now - self.heard_at >= seconds

    def exited(self, status: int, now: float) -> None:
        """It is gone. Log how, and which jobs go to other workers."""
        was, self.phase, self.kill_at = self.phase, Phase.GONE, None
        abandoned = self.abandoned
        known = f"as known {max(now - self.jobs_at, 0):.1f} s before"
        if was is Phase.DRAINING and status == 0:
            took = self.drained.seconds if self.drained else 0.0
            log.info("%s drained in %.1f s", self, took)
        elif not self.problems:
            level = logging.INFO if was is Phase.STARTING and self.killed else logging.ERROR
            log.log(level, "%s %s after %.0f s", self, how_it_ended(status), now - self.started_at)
        if abandoned:
            count, text = count_jobs(self.abandoned_count), name_jobs(abandoned, self.abandoned_count)
            log.warning("%s left %s to other workers%s: %s", self, count, "" if self.drained else f", {known}", text)
        elif not self.drained and not self.seat and was in (Phase.READY, Phase.DRAINING):
            log.warning("%s had no job, %s; what it took since goes to other workers", self, known)

    @property
    def died_by_itself(self) -> bool:
        """Whether its end, which has come, may be the work of one of its jobs."""
        return not self.excused and not self.drained

    @property
    def suspects(self) -> set[JobKey]:
        """The jobs that may have killed it."""
        return self.seat.jobs() if self.seat else {(job.server, job.handle.encode()) for job in self.jobs}

    @property
    def abandoned(self) -> tuple[RunningJob, ...]:
        """The jobs it did not finish, once it is gone: its own word, or the last we knew."""
        if self.phase is not Phase.GONE:
            return ()
        return self.drained.abandoned if self.drained else self.jobs

    @property
    def abandoned_count(self) -> int:
        """How many jobs it did not finish, once it is gone. More than `abandoned` when it could not name all."""
        if self.phase is not Phase.GONE or self.drained:
            return len(self.abandoned)
        return max(self.running, len(self.jobs))

    def end_reason(self, status: int) -> str:
        """How it ends (one of stats.totals.ENDS) with this exit status. Ask before `exited`."""
        if self.phase is Phase.DRAINING:
            return totals.DRAINED if status == 0 else totals.OVERTIME
        if self.phase is Phase.STARTING:
            return totals.NOT_STARTED
        return totals.STUCK if self.killed else totals.CRASHED

    def view(self, now: float) -> ProcessView:
        """For `geard ps`."""
        beat = self.heartbeat or Heartbeat(0, 0, 0, 0, (), (), 0)
        return ProcessView(
            pid=self.process.pid if self.process else 0,
            number=self.number,
            state=self.phase.value,
            capability=self.group.name,
            age_seconds=now - self.started_at,
            heard_seconds=now - self.heard_at,
            held_by=self.blocked_by,
            memory_bytes=beat.memory_bytes,
            running=beat.running,
            greenlets=beat.greenlets,
            done=beat.done,
            failed=beat.failed,
            connected=self.connected,
            disconnected=self.disconnected,
            jobs=self.jobs,
        )

    def _ready(self, registered: tuple[str, ...], unreachable: tuple[str, ...], now: float) -> None:
        if self.phase is not Phase.STARTING:
            return
        self.phase, self.ready_at, self.kill_at = Phase.READY, now, None
        self.connected, self.disconnected = registered, unreachable
        log.info(
            "%s is ready after %.1f s, registered with %s", self, now - self.started_at, ", ".join(registered) or "none"
        )
        if unreachable:
            log.warning("%s could not reach %s yet and goes on trying", self, ", ".join(unreachable))

    def _kill_at(self, deadline: float, reason: str) -> None:
        if self.kill_at is None or deadline < self.kill_at:
            self.kill_at, self.kill_reason = deadline, reason
