"""Counting in a worker process: plain attributes to add to, and `take` for what was added since the last time.

Rule: what happens for every job is an append to two lists and an addition to two attributes of a FunctionCounter,
nothing else. The lists become histograms a thousand values at a time, in C. `take` runs once a second. It does not
lock: in threads (WorkerPool without gevent) a count may be off by a race.
"""

from __future__ import annotations

from typing import Final

from geard.stats.diff import FunctionDiff
from geard.stats.failures import Failure
from geard.stats.histogram import count_values

FAILURES_AT_A_TIME: Final = 20
"""A heartbeat carries so many failures; of a flood, the first."""
MOST_VALUES: Final = 1000
"""Call `fold` when the lists are longer than this: they hold 64 bytes for each job."""


class FunctionCounter:
    """One function's counters.

    Each job that ends appends its microseconds to `durations` and to `waits`, and adds to `bytes_in` and `bytes_out`.
    One that failed or ran out of time adds to `failed` or `timed_out` as well; the others are done."""

    __slots__ = (
        "_duration_counts", "_duration_us", "_ended", "_told_ended", "_told_failed", "_wait_counts", "_wait_us",
        "bytes_in", "bytes_out", "durations", "failed", "timed_out", "waits",
    )  # fmt: skip

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.waits: list[float] = []
        self._told_ended = self._told_failed = 0  # by earlier calls of take
        self.clear()

    @property
    def all_done(self) -> int:
        """Jobs done since the beginning."""
        return self._told_ended + self._ended + len(self.durations) - self.all_failed

    @property
    def all_failed(self) -> int:
        """Jobs that failed or ran out of time since the beginning."""
        return self._told_failed + self.failed + self.timed_out

    def clear(self) -> None:
        """All that `take` tells is zero."""
        self.failed = self.timed_out = 0
        self.bytes_in = self.bytes_out = 0
        self.durations.clear()
        self.waits.clear()
        self._ended = self._duration_us = self._wait_us = 0
        self._duration_counts: dict[int, int] = {}
        self._wait_counts: dict[int, int] = {}

    def fold(self) -> None:
        """Make histograms of the lists' values."""
        self._ended += len(self.durations)
        self._duration_us += count_values(self._duration_counts, self.durations)
        self._wait_us += count_values(self._wait_counts, self.waits)
        self.durations.clear()
        self.waits.clear()

    def take(self, running: int) -> FunctionDiff | None:
        """What was added since the last time, and now counts as told; None when there is nothing to tell."""
        self.fold()
        if not (running or self._ended or self.bytes_out):
            return None
        diff = FunctionDiff(
            done=self._ended - self.failed - self.timed_out,
            failed=self.failed,
            timed_out=self.timed_out,
            durations=self._duration_counts,
            duration_us=self._duration_us,
            waits=self._wait_counts,
            wait_us=self._wait_us,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            running=running,
        )
        self._told_ended += self._ended
        self._told_failed += self.failed + self.timed_out
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
