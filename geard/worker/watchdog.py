"""The watchdog: a native thread that notices when a capability does not yield, and names it.

The loop shows a sign of life from a timer; the thread looks for it. While a function holds the loop, the thread reads
off the main thread's stack which job it is. C code that holds the interpreter lock as well stops this thread too: then
the supervisor misses the heartbeat, and `hang_timeout` is the remedy.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final

import gevent
from gevent.monkey import get_original

from geard.messages import Blocked
from geard.worker.stacks import job_of, text_of

log = logging.getLogger("geard.worker")

_native_sleep: Final = get_original("time", "sleep")
_start_native_thread: Final = get_original("_thread", "start_new_thread")
_native_ident: Final = get_original("_thread", "get_ident")


class Watchdog:
    """Warns once for each time that the loop is held longer than `warning_seconds`."""

    def __init__(self, warning_seconds: float, report: Callable[[Blocked], None]) -> None:
        self._warning_seconds = warning_seconds
        self._report = report
        self._alive_at = time.monotonic()
        self._watched_thread = 0

    def start(self) -> None:
        """Begin to watch the calling thread's loop."""
        self._watched_thread = _native_ident()  # threading's ident is a greenlet's in a patched process
        interval = self._warning_seconds / 4
        gevent.get_hub().loop.timer(interval, interval).start(self._sign_of_life)
        _start_native_thread(self._watch, ())

    def _sign_of_life(self) -> None:
        self._alive_at = time.monotonic()

    def _watch(self) -> None:
        while True:
            _native_sleep(self._warning_seconds / 4)
            alive_at = self._alive_at
            held_seconds = time.monotonic() - alive_at
            if held_seconds >= self._warning_seconds:
                self._warn(held_seconds)
                while self._alive_at == alive_at:
                    _native_sleep(self._warning_seconds / 4)
                log.warning("the loop is free again; it was held for %.1f s", self._alive_at - alive_at)

    def _warn(self, held_seconds: float) -> None:
        frame = sys._current_frames().get(self._watched_thread)
        job = job_of(frame)
        if job is None:
            what, blocked = "something that is not a job", Blocked(held_seconds, "", "", "")
        else:
            what = f"{job.function} ({job.handle})"
            blocked = Blocked(held_seconds, job.function, job.handle, job.unique)
        log.warning("%s holds the loop for %.1f s without yielding:\n%s", what, held_seconds, text_of(frame))
        self._report(blocked)
