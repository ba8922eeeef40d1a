"""The watchdog: a native thread that notices when a capability does not yield, and names it.

The loop shows a sign of life from a timer; the thread looks for it. While the loop is held, the thread reads off the
main thread's stack which job holds it, and tells the supervisor for how long it has. So one long job after another,
with no turn of the loop between, is not taken for one that hangs. C code that holds the interpreter lock as well stops
this thread too: then the supervisor hears nothing at all, and `hang_timeout` is the remedy.

Rule: the seconds that a job is said to hold the loop for are never more than it has: they count from when it was seen.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import gevent
from gevent.monkey import get_original

from geard.messages import Blocked
from geard.printable import printable
from geard.worker.current import job_of
from geard.worker.job import Job
from geard.worker.stacks import root_of, text_of

log = logging.getLogger("geard.worker")

LONGEST_LOOK_SECONDS: Final = 0.25
"""Between two looks at least: who holds the loop must be seen in time for any `hang_timeout`."""
TELL_SECONDS: Final = 0.5
"""The supervisor is told so often who holds the loop."""

_native_sleep: Final = get_original("time", "sleep")
_start_native_thread: Final = get_original("_thread", "start_new_thread")
_native_ident: Final = get_original("_thread", "get_ident")


class Watchdog:
    """Warns once for each job that holds the loop longer than `warning_seconds`."""

    def __init__(self, warning_seconds: float, report: Callable[[Blocked], object]) -> None:
        self._warning_seconds = warning_seconds
        self._look_seconds = min(warning_seconds / 4, LONGEST_LOOK_SECONDS)
        self._report = report
        self._alive_at = time.monotonic()
        self._longest_hold_seconds = 0.0
        self._lag_seconds = 0.0
        self._watched_thread = 0

    def start(self) -> None:
        """Begin to watch the calling thread's loop."""
        self._watched_thread = _native_ident()  # threading's ident is a greenlet's in a patched process
        loop: Any = gevent.get_hub().loop
        loop.timer(self._look_seconds, self._look_seconds, priority=loop.MAXPRI).start(self._sign_of_life)
        _start_native_thread(self._watch, ())

    def take_longest_hold(self) -> float:
        """The longest that one job was seen to hold the loop, in seconds, since this was last asked."""
        longest, self._longest_hold_seconds = self._longest_hold_seconds, 0.0
        return longest

    def take_lag(self) -> float:
        """The longest that the loop was late for a sign of life, in seconds, since this was last asked."""
        lag, self._lag_seconds = self._lag_seconds, 0.0
        return lag

    def _sign_of_life(self) -> None:
        now = time.monotonic()
        self._lag_seconds = max(self._lag_seconds, now - self._alive_at - self._look_seconds)
        self._alive_at = now

    def _watch(self) -> None:
        while True:
            _native_sleep(self._look_seconds)
            alive_at = self._alive_at
            if time.monotonic() - alive_at >= 2 * self._look_seconds:
                self._watch_hold(alive_at)

    def _watch_hold(self, alive_at: float) -> None:
        """Follow who holds the loop until it is free again."""
        holder: object = None
        since = alive_at + self._look_seconds  # by then it was held, or there would be another sign of life
        told_at = 0.0
        warned = warned_of_any = False
        while self._alive_at == alive_at:
            now = time.monotonic()
            frame = sys._current_frames().get(self._watched_thread)
            job = job_of(frame)
            seen = job if job is not None else root_of(frame)
            if seen is not holder:
                if holder is not None:
                    since, warned = now, False
                holder = seen
            held_seconds = now - since
            self._longest_hold_seconds = max(self._longest_hold_seconds, held_seconds)
            if held_seconds >= self._warning_seconds and not warned:
                warned = warned_of_any = True
                self._warn(job, held_seconds, frame)
            if now - told_at >= TELL_SECONDS:
                told_at = now
                self._report(_blocked(job, held_seconds))
            del frame  # or it would keep alive what the job has let go of
            _native_sleep(self._look_seconds)
        if warned_of_any:
            log.warning("the loop is free again; it was held for %.1f s", self._alive_at - alive_at)

    def _warn(self, job: Job | None, held_seconds: float, frame: FrameType | None) -> None:
        what = printable(f"{job.function} ({job.handle})") if job else "something that is not a job"
        log.warning("%s holds the loop for %.1f s without yielding:\n%s", what, held_seconds, text_of(frame))
        self._report(_blocked(job, held_seconds))


def _blocked(job: Job | None, held_seconds: float) -> Blocked:
    if job is None:
        return Blocked(held_seconds, "", "", "")
    return Blocked(held_seconds, job.function, job.handle, job.unique)
