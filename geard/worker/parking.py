"""Jobs that wait in this process to run again, and hold no greenlet meanwhile.

Rules:
- One thread (in a worker process: one greenlet) wakes all of them, each when it is due. It is started for the first.
- The jobs are the job server's still: when their connection closes, it hands them to other workers.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Final

from geard.worker.job import Job

MOST: Final = 10_000


class Parking:
    """See the module. `resume` is called with each job when it is due, from the parking's own thread."""

    def __init__(self, resume: Callable[[Job], None], *, most: int = MOST) -> None:
        self._resume = resume
        self._most = most
        self._due: list[tuple[float, int, Job]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._runs = False

    def __len__(self) -> int:
        return len(self._due)

    @property
    def is_full(self) -> bool:
        """Whether no further job can be parked."""
        return len(self._due) >= self._most

    def park(self, job: Job, seconds: float) -> bool:
        """Have the job resumed after so long. False when there is no room.

        When nothing is resumed any more it is left as it is: its connection closes, and it is handed back."""
        with self._changed:
            if self._closed:
                return True
            if self.is_full:
                return False
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._numbers), job))
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._run, name="parking", daemon=True).start()
            self._changed.notify()
        return True

    def close(self) -> list[Job]:
        """Resume nothing any more. The jobs that are parked. Idempotent."""
        with self._changed:
            self._closed = True
            left, self._due = [job for _, _, job in self._due], []
            self._changed.notify()
        return left

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (not self._due or self._due[0][0] > time.monotonic()):
                    left = self._due[0][0] - time.monotonic() if self._due else threading.TIMEOUT_MAX
                    self._changed.wait(min(left, threading.TIMEOUT_MAX))
                if self._closed:
                    return
                job = heapq.heappop(self._due)[2]
            self._resume(job)
