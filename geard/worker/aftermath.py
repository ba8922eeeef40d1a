"""What becomes of a job that failed, where its capability has a policy: again, later, or never.

Rules:
- Nothing is lost on the way. A job that a client waits for, or of which nobody can tell, is parked here, and stays the
  job server's. A background job is submitted again as a delayed one to the same job server, and only when that has
  acknowledged it is the first one ended: a crash between the two runs it twice, never nought times.
- Who waits for a job is asked only when one has failed, over connections of their own: nothing of this touches the path
  of a job that succeeds.
- A letter is on the disk before its job is ended. Where it cannot be kept, the log has the whole job.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from geard.config.model import JobServer
from geard.deadletters.letter import DeadLetter
from geard.errors import GeardError
from geard.stats.failures import MAX_TRACEBACK_BYTES, cut, cut_middle
from geard.worker import attempts
from geard.worker.attempts import Attempt
from geard.worker.job import Job, RetriedJob
from geard.worker.parking import Parking
from geard.worker.policy import Again, Policy, decide
from geard.worker.run import about, failure, label
from geard.worker.words import encodable, traceback_of

if TYPE_CHECKING:
    from geard.client import Client

PARK_SECONDS: Final = 2.0
"""A shorter wait is always spent here: a delayed job is due at a whole second."""
ASK_SECONDS: Final = 5.0
MAX_ERROR_BYTES: Final = 8 * 1024
"""Of the text of a letter's error: a page lists hundreds of letters, and an exception may have any text."""

log = logging.getLogger("geard.worker")


class Aftermath:
    """See the module. One for a process; `after(policy, job, error)` is asked after each failure."""

    def __init__(
        self,
        keep: Callable[[DeadLetter], None] | None,
        *,
        random: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`keep` keeps a dead letter, and raises when it cannot; None where none are kept."""
        self._keep = keep
        self._random = random
        self._clock = clock
        self._clients: dict[JobServer, Client] = {}
        self.parking = Parking(resume)

    def close(self) -> list[Job]:
        """Run nothing again any more. The jobs that are parked, which closing their connections hands back."""
        left = self.parking.close()
        for client in self._clients.values():
            client.close()
        return left

    def after(self, policy: Policy, job: Job, error: BaseException) -> bool:
        """Decide, and do it. True when the job needs no answer: it will run again."""
        if job.session.lost:
            return True  # it has been handed to another worker, whose attempt counts
        attempt = job.attempts
        decision = decide(policy, attempt.number, error, self._random)
        if isinstance(decision, Again) and self._again(job, attempt, decision.wait_seconds):
            left = policy.most_attempts - attempt.number
            text, wait = failure(error), decision.wait_seconds
            tries = "try" if left == 1 else "tries"
            log.warning(
                "%s: attempt %d failed: %s; again in %.1f s, %d %s left", label(job), attempt.number, text, wait, left,
                tries, extra=about(job) | {"attempt": attempt.number})  # fmt: skip
            return True
        if policy.dead_letter if isinstance(decision, Again) else decision.dead_letter:
            self._bury(job, attempt, error)
        return False

    # --- again ----------------------------------------------------------------------------------------------------

    def _again(self, job: Job, attempt: Attempt, wait_seconds: float) -> bool:
        first = attempt.first_failed_at or int(self._clock())
        following = Attempt(attempt.number + 1, first, attempt.unique)
        in_background = self._is_in_background(job) if wait_seconds >= PARK_SECONDS or self.parking.is_full else None
        if in_background and self._submit(job, following, wait_seconds):
            return True
        if job.has_sent_data and not in_background:
            log.warning("%s cannot run again: its client has data of it already", label(job), extra=about(job))
            return False
        return self.parking.park(RetriedJob.of(job, following), wait_seconds)

    def _is_in_background(self, job: Job) -> bool | None:
        """Whether nobody waits for the job; None where the job server cannot tell."""
        if not job.raw_unique:
            return None
        try:
            state = self._client(job.session.connection.server).status_unique(job.raw_unique.decode())
        except (GeardError, UnicodeError) as error:
            log.warning("%s: cannot find out who waits for it: %s", label(job), error)
            return None
        return state.clients == 0 if state.known else None

    def _submit(self, job: Job, attempt: Attempt, wait_seconds: float) -> bool:
        """As a delayed job, and end this one."""
        try:
            self._client(job.session.connection.server).submit_background(
                job.function,
                job.workload,
                unique=attempts.write(attempt).decode(),
                at=datetime.fromtimestamp(self._clock() + wait_seconds, UTC),
            )
        except (
            GeardError,
            ValueError,
            OverflowError,
        ) as error:  # the latter two: it is due after the end of the calendar
            log.warning("%s cannot be submitted again, so it waits here: %s", label(job), error)
            return False
        job.fail()
        return True

    def _client(self, server: JobServer) -> Client:
        client = self._clients.get(server)
        if client is None:
            from geard.client import Client  # for those whose jobs fail

            client = Client(
                server, encoding="bytes", connect_timeout_seconds=ASK_SECONDS, answer_timeout_seconds=ASK_SECONDS
            )
            self._clients[server] = client
        return client

    # --- never ----------------------------------------------------------------------------------------------------

    def _bury(self, job: Job, attempt: Attempt, error: BaseException) -> None:
        if self._keep is None:
            log.error("%s is not kept: there is no `dead_letters` in the config", label(job), extra=about(job))
            return
        try:
            self._keep(letter_of(job, attempt, error, self._clock()))
        except Exception as reason:  # whatever it is: nobody else has the job any more
            log.error(
                "%s is not kept: %s; its workload: %r",
                label(job),
                reason,
                job.workload,
                extra=about(job) | {"whole": True},
            )


def letter_of(job: Job, attempt: Attempt, error: BaseException, now: float) -> DeadLetter:
    """What is kept of a job whose last attempt ended with `error`; `now` in Unix seconds."""
    return DeadLetter(
        function=job.function,
        workload=job.workload,
        unique=attempt.unique.decode(errors="replace"),
        handle=job.handle,
        server=job.server,
        attempts=attempt.number,
        first_at=float(attempt.first_failed_at or now),
        last_at=now,
        error=cut(encodable(failure(error)), MAX_ERROR_BYTES),
        traceback=cut_middle(encodable(traceback_of(error)), MAX_TRACEBACK_BYTES),
    )


def resume(job: Job) -> None:
    """Have a parked job run again: its channel takes it, if its connection is still there."""
    job.session.resume(job)
