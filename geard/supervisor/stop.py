"""The stop of the daemon: from the first word of it until no worker process is left, and what it came to.

Rules:
- Once it has begun there is no way back; who says it again gives another deadline.
- Its exit code is that of the failure that made the daemon stop, if one did; else it tells whether jobs were left.
- Who asks for it hears how it went, at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from geard import exits
from geard.errors import Problem
from geard.supervisor.answers import Answer, Reply, answer_all
from geard.supervisor.child import Child
from geard.supervisor.decisions import count_jobs
from geard.supervisor.fleet import Fleet
from geard.supervisor.report import Report

log = logging.getLogger(__name__)


class Stop:
    """See the module."""

    def __init__(self, fleet: Fleet, report: Report, clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._report = report
        self._clock = clock
        self.has_begun = False
        self.problems: tuple[Problem, ...] = ()
        """The failure that made the daemon stop, if one did."""
        self.reason = ""
        """The same in one line."""
        self._failure = exits.DONE
        self._begun_at = 0.0
        self._finished_jobs = self._abandoned_jobs = 0
        self._waiting: list[Reply] = []

    def fail(self, exit_code: int, problems: Sequence[Problem], reason: str) -> None:
        """The daemon cannot serve: why it will have stopped."""
        self._failure, self.problems, self.reason = exit_code, tuple(problems), reason

    def within(self, timeout_seconds: float) -> None:
        """Let the jobs in flight finish within the timeout, and the others go. May be called again."""
        now = self._clock()
        if not self.has_begun:
            self.has_begun, self._begun_at = True, now
            self._report.stopping()
        running = sum(child.running for child in self._fleet.children)
        log.info("stopping within %.1f s, %s running", timeout_seconds, count_jobs(running))
        self._fleet.drain(timeout_seconds, now)

    def wait(self, reply: Reply) -> None:
        """Have it told at the end."""
        self._waiting.append(reply)

    def exited(self, child: Child) -> None:
        """A worker process ended: count what became of its jobs."""
        if self.has_begun:
            self._finished_jobs += child.drained.finished if child.drained else 0
            self._abandoned_jobs += child.abandoned_count

    def end(self) -> int:
        """No worker process is left: say how it went. The daemon's exit code."""
        exit_code = self._failure or (exits.LEFT_JOBS if self._abandoned_jobs else exits.DONE)
        finished, abandoned = self._finished_jobs, self._abandoned_jobs
        took = self._clock() - self._begun_at
        text = f"stopped in {took:.2f} s: {finished} of {finished + abandoned} jobs in flight finished"
        text += f", {abandoned} left to other workers" if abandoned else ""
        log.log(logging.WARNING if abandoned else logging.INFO, text)
        self._report.last_words(self.reason if self._failure else text)
        answer_all(self._waiting, Answer(exit_code, text))
        return exit_code
