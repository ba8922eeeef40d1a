"""Counting in a worker process: plain attributes to add to, and `take` for what was added since the last time.

Rule: what happens for every job is an addition to an attribute or a list item of a FunctionCounter, nothing else.
`take` runs once a second. It does not lock: in threads (WorkerPool without gevent) a count may be off by a race.
"""

from __future__ import annotations

from typing import Final

from geard.stats.diff import FunctionDiff
from geard.stats.failures import Failure
from geard.stats.histogram import BUCKETS, sparse

FAILURES_AT_A_TIME: Final = 20
"""A heartbeat carries so many failures; of a flood, the first."""


class FunctionCounter:
    """One function's counters. `durations[bucket_of(us)] += 1; duration_us += us` and so on for each job."""

    __slots__ = (
        "bytes_in", "bytes_out", "done", "duration_us", "durations", "failed", "timed_out", "wait_us", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """All zero."""
        self.done = self.failed = self.timed_out = 0
        self.durations, self.duration_us = [0] * BUCKETS, 0
        self.waits, self.wait_us = [0] * BUCKETS, 0
        self.bytes_in = self.bytes_out = 0

    def take(self, running: int) -> FunctionDiff | None:
        """What was added since the last time, and now counts as told; None when there is nothing to tell."""
        if not (running or self.done or self.failed or self.timed_out or self.bytes_out):
            return None
        diff = FunctionDiff(
            done=self.done,
            failed=self.failed,
            timed_out=self.timed_out,
            durations=sparse(self.durations),
            duration_us=self.duration_us,
            waits=sparse(self.waits),
            wait_us=self.wait_us,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            running=running,
        )
        self.clear()
        return diff


class NewFailures:
    """Failures since the last heartbeat. Ask `has_room` before making a traceback into text: that is what costs."""

    def __init__(self, most: int = FAILURES_AT_A_TIME) -> None:
        self._most = most
        self._failures: list[Failure] = []

    @property
    def has_room(self) -> bool:
        """Whether one more will be told."""
        return len(self._failures) < self._most

    def add(self, failure: Failure) -> None:
        """Tell this one with the next heartbeat, if there is room."""
        if self.has_room:
            self._failures.append(failure.bounded())

    def take(self) -> tuple[Failure, ...]:
        """What there is, which is then told."""
        failures, self._failures = tuple(self._failures), []
        return failures
