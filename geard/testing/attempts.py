"""A job that fails runs again by its capability's policy, here at once; and what jobs submit is recorded.

Rule: decided as in a worker (geard/worker/policy.py), for a job that a client waits for; only the waiting is left out.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from geard.client import Client, Priority, When, requests
from geard.client.line import Line
from geard.client.requests import encoded
from geard.deadletters.letter import DeadLetter
from geard.errors import InvalidRequest, JobTimeout
from geard.worker.aftermath import letter_of
from geard.worker.attempts import Attempt
from geard.worker.job import Job, RetriedJob
from geard.worker.policy import Again, Policy, decide
from geard.worker.run import about, label, late_text, run

log = logging.getLogger("geard.worker")


class Attempts:
    """The attempts at one job. `number` is how many there were, `dead_letter` what would be kept of it."""

    def __init__(self, news: threading.Event) -> None:
        """`news` is set when the job is answered."""
        self._news = news
        self.number = 0
        self.dead_letter: DeadLetter | None = None
        self._again: Job | None = None
        self._deciding = threading.Lock()

    def run(self, job: Job, seconds: float | None = None) -> None:
        """Run the job until it has ended, each attempt for at most so long: a function that is late goes on in its
        thread, and is answered for."""
        again: Job | None = job
        while again is not None:
            job, self._again = again, None
            self.number += 1
            job.started = time.monotonic()
            if seconds is None:
                run(job)
            else:
                self._within(job, seconds)
            again = self._again

    def after(self, policy: Policy, job: Job, error: BaseException) -> bool:
        """What becomes of the job: see BoundCapability.after_failure."""
        attempt = job.attempts
        with self._deciding:
            if attempt.number != self.number or self._again is not None:
                return True  # it was late, and that has been decided
            decision = decide(policy, attempt.number, error, random.random)
            if isinstance(decision, Again) and not job.has_sent_data:
                first = attempt.first_failed_at or int(time.time())
                self._again = RetriedJob.of(job, Attempt(attempt.number + 1, first, attempt.unique))
                return True
            if policy.dead_letter if isinstance(decision, Again) else decision.dead_letter:
                self.dead_letter = letter_of(job, attempt, error, time.time())
            return False

    def _within(self, job: Job, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        over: list[bool] = []

        def whole() -> None:
            run(job)
            over.append(True)
            self._news.set()

        threading.Thread(target=whole, name=f"geard.testing {job.function}", daemon=True).start()
        while not (over or job.answered):
            left = deadline - time.monotonic()
            if left <= 0:
                self._late(job, JobTimeout(late_text(job, seconds)))
                return
            self._news.wait(left)
            self._news.clear()  # it may have come from an earlier attempt that was late

    def _late(self, job: Job, error: JobTimeout) -> None:
        policy = job.capability.policy
        if policy and self.after(policy, job, error):
            job.answered = True  # whatever it returns, it is too late
            return
        with suppress(InvalidRequest):  # it was answered in the meantime
            job.exception(str(error))
            log.error("%s: job failed: %s", label(job), error, extra=about(job))


@dataclass(frozen=True)
class Submitted:
    """What a capability submitted with `job.client`, as it gave it. `handle` is what it got for it."""

    function: str
    workload: Any
    unique: str | None
    priority: Priority
    reducer: str | None
    at: When | None
    handle: str


NO_SERVER: Final = (
    "there is no job server in geard.testing.call: job.client submits background jobs here, and records them. "
    "The fixtures geard_worker and geard_client test the rest"
)


class RecordingClient(Client):
    """A client that submits background jobs to a list."""

    def __init__(self, encoding: str) -> None:
        super().__init__("geard.testing", encoding=encoding)
        self.submissions: list[Submitted] = []

    def __repr__(self) -> str:
        return f"<RecordingClient {len(self.submissions)} submitted>"

    def submit_background(
        self,
        function: str,
        workload: Any,
        *,
        unique: str | None = None,
        priority: Priority = "normal",
        reducer: str | None = None,
        at: When | None = None,
        encoding: str | None = None,
        timeout: float | None = None,
    ) -> str:
        """Record it. Raises what Client's does for a job that no job server would be asked to take."""
        data = encoded(workload, self._codec_for(encoding))
        requests.background_job(function, unique, data, priority, reducer, at, time.time)
        handle = f"H:test:{len(self.submissions) + 2}"
        self.submissions.append(Submitted(function, workload, unique, priority, reducer, at, handle))
        return handle

    def submit_many_background(
        self,
        function: str,
        workloads: Iterable[Any],
        *,
        unique: Literal["workload"] | None = None,
        priority: Priority = "normal",
        at: When | None = None,
        encoding: str | None = None,
        timeout: float | None = None,
    ) -> Iterator[str]:
        """Record each, as it is iterated."""
        return (
            self.submit_background(function, workload, unique=unique, priority=priority, at=at, encoding=encoding)
            for workload in workloads
        )

    def close(self) -> None:
        """There is nothing to close."""

    @property
    def _conversation(self) -> Line:
        raise InvalidRequest(NO_SERVER)
