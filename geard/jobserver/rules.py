"""The rules of a job server: who gets which job, who hears what, and what happens when a peer goes.

Pure: no socket, clock, store or gevent. The time is handed in; what is to be sent is left in the peers' outboxes,
which the caller empties at the end of a turn (`unsent` names those that have something).

What clients ask is in `submissions`, what workers ask in `assignments`, and what both rest on in `queues`, each with
its rules. Here are the operators', the clock's and those of a departure:
- A background job ends only when it was done, cancelled, or handed back too often. A foreground job also ends when
  its last client goes, at once if it waits, and instead of being queued again if it runs.
- Delayed jobs fall due, and jobs that ran over their CAN_DO_TIMEOUT are handed back, a few at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import islice
from typing import Final

from geard.jobserver.assignments import STEP, Assignments
from geard.jobserver.state import DELAYED, RUNNING, Peer
from geard.jobserver.submissions import Submissions

TICK_SECONDS: Final = 0.25
"""How often jobs are looked at that run under a CAN_DO_TIMEOUT."""


class Rules(Submissions, Assignments):
    """The state of a job server and everything that may happen to it."""

    def limit(self, name: bytes, limits: tuple[int, int, int]) -> None:
        """Limit the queue of a function, by priority; also of one that is not there yet."""
        if limits == self.default_limits:
            self.limits.pop(name, None)
        else:
            self.limits[name] = limits
        function = self.functions.get(name)
        if function is not None:
            function.limits = limits
            self._forget_if_idle(function)

    def create(self, name: bytes) -> None:
        """An operator wants the function to be known, with or without jobs and workers."""
        self.function(name).created = True

    def drop(self, name: bytes) -> bool:
        """Forget a function; False while it has workers or jobs. Raises KeyError when there is none."""
        function = self.functions[name]
        if function.workers or function.total:  # gearmand drops the queued jobs with it; we do not lose jobs
            return False
        del self.functions[name]
        return True

    def next_due(self, now: float) -> float | None:
        """When `tick` is wanted next; None: not before something else happens."""
        due = self._delayed[0][0] if self._delayed else None
        if self._timed:
            return min(due, now + TICK_SECONDS) if due else now + TICK_SECONDS
        return due

    def tick(self, now: float) -> bool:
        """Time has passed: delayed jobs fall due, and jobs that ran over their CAN_DO_TIMEOUT are handed back. True if
        that was not all of them, and it is to be called again soon."""
        for _ in range(STEP):
            if not self._delayed or self._delayed[0][0] > now:
                break
            job = heapq.heappop(self._delayed)[2]
            if job.state is DELAYED:
                job.function.held[job.priority] -= 1
                self._enqueue(job)
            else:
                self._delayed_gone -= 1
        late = list(islice((job for job in self._timed if job.deadline <= now), STEP))
        for job in late:
            self._run_over(job)
        return len(late) == STEP or bool(self._delayed and self._delayed[0][0] <= now)

    def depart(self, peer: Peer) -> Iterator[None]:
        """A connection ended: its jobs go to others, and what only it waited for need not run. To be exhausted."""
        peer.gone = True
        peer.sleeping = False
        peer.outbox.clear()
        self.errands.pop(peer, None)
        for job in list((peer.late or {}).values()):
            self._too_late(job)
        yield from self._give_up_all(peer)
        while peer.waits_for:
            for job in [peer.waits_for.pop() for _ in range(min(STEP, len(peer.waits_for)))]:
                if job.clients is not None:
                    job.clients.pop(peer, None)
                if not job.clients and not job.background and job.state is not RUNNING:
                    self._end(job)
            yield
