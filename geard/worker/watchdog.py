"""The watchdog: a native thread that notices when a capability does not yield, and names it.

The thread looks a few times a second. A loop that waits for something to happen holds nobody up, and is left asleep.
Any other is asked for a sign of life; until that comes, the loop is held, and the thread reads off the main thread's
stack which job holds it, and tells the supervisor for how long it has. So one long job after another, with no turn of
the loop between, is not taken for one that hangs. C code that holds the interpreter lock as well stops this thread too:
then the supervisor hears nothing at all, and `hang_timeout` is the remedy.

Rules:
- Nothing is done for any job, and an idle loop is never woken.
- The seconds that a job is said to hold the loop for are never more than it has: they count from when it was seen.
- Who has held the loop is let go of in the loop: what ends with a greenlet, its watchers say, must not end in a thread.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import gevent

from geard import native
from geard.messages import Blocked
from geard.printable import printable
from geard.worker.current import job_of
from geard.worker.job import Job
from geard.worker.stacks import root_of, text_of

log = logging.getLogger("geard.worker")

LONGEST_LOOK_SECONDS: Final = 0.25
"""Between two looks at least, and twice that while the loop waits: who holds it must be seen in time for any
`hang_timeout`."""
TELL_SECONDS: Final = 0.5
"""The supervisor is told so often who holds the loop."""


class Watchdog:
    """Warns once for each job that holds the loop longer than `warning_seconds`."""

    def __init__(self, warning_seconds: float, report: Callable[[Blocked], object]) -> None:
        self._warning_seconds = warning_seconds
        self._look_seconds = min(warning_seconds / 4, LONGEST_LOOK_SECONDS)
        self._report = report
        self._asked_at = self._alive_at = time.monotonic()
        self._holders: list[Job | FrameType | None] = []  # who has been seen to hold the loop since it was asked
        self._longest_hold_seconds = 0.0
        self._lag_seconds = 0.0
        self._watched_thread = 0

    def start(self) -> None:
        """Begin to watch the calling thread's loop."""
        self._watched_thread = native.get_ident()  # threading's ident is a greenlet's in a patched process
        hub: Any = gevent.get_hub()
        self._loop = hub.loop
        self._waiting_code = hub.run.__code__
        self._question = self._loop.async_(priority=self._loop.MAXPRI)
        self._question.start(self._sign_of_life)
        native.start_new_thread(self._watch, ())

    def take_longest_hold(self) -> float:
        """The longest that one job was seen to hold the loop, in seconds, since this was last asked."""
        longest, self._longest_hold_seconds = self._longest_hold_seconds, 0.0
        return longest

    def take_lag(self) -> float:
        """The longest that the loop was late, in seconds, since this was last asked."""
        lag, self._lag_seconds = self._lag_seconds, 0.0
        return lag

    def late(self, seconds: float) -> None:
        """The loop did something so much later than it should have."""
        self._lag_seconds = max(self._lag_seconds, seconds)

    def _sign_of_life(self) -> None:
        self._alive_at = time.monotonic()
        self.late(self._alive_at - self._asked_at)
        self._holders.clear()

    def _watch(self) -> None:
        while True:
            if self._loop_waits():
                native.sleep(2 * self._look_seconds)
            else:
                self._watch_hold()

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._watched_thread)

    def _loop_waits(self) -> bool:
        """Whether it waits for something to happen. Between two of the things that have happened it is busy."""
        frame = self._frame()
        return frame is not None and frame.f_code is self._waiting_code and not self._loop.pendingcnt

    def _watch_hold(self) -> None:
        """Ask the loop for a sign of life, and follow who holds it until that has come."""
        self._asked_at = asked_at = since = told_at = time.monotonic()
        self._question.send()
        warned = warned_of_any = False
        while self._alive_at < asked_at:
            now = time.monotonic()
            frame = self._frame()
            job = job_of(frame)
            holder = job or root_of(frame)
            if not self._holders or holder is not self._holders[-1]:
                self._holders.append(holder)
                since, warned = now, False
            held_seconds = now - since
            self._longest_hold_seconds = max(self._longest_hold_seconds, held_seconds)
            if held_seconds >= self._warning_seconds and not warned:
                warned = warned_of_any = True
                self._warn(job, held_seconds, frame)
            if now - told_at >= TELL_SECONDS:
                told_at = now
                self._report(_blocked(job, held_seconds))
            del frame, job, holder
            native.sleep(self._look_seconds)
        if warned_of_any:
            log.warning("the loop is free again; it was held for %.1f s", self._alive_at - asked_at)

    def _warn(self, job: Job | None, held_seconds: float, frame: FrameType | None) -> None:
        what = printable(f"{job.function} ({job.handle})") if job else "something that is not a job"
        log.warning("%s holds the loop for %.1f s without yielding:\n%s", what, held_seconds, text_of(frame))
        self._report(_blocked(job, held_seconds))


def _blocked(job: Job | None, held_seconds: float) -> Blocked:
    if job is None:
        return Blocked(held_seconds, "", "", "")
    return Blocked(held_seconds, job.function, job.handle, job.unique)
