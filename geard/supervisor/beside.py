"""A process beside the workers: started, watched, and started again when it ends.

Rules:
- None of them can harm the work: nothing here waits for one, and what it says is an event like any other.
- One that dies is started again at once; one that keeps dying is made to wait, as a worker process is.
- Told to stop, it has STOP_SECONDS to end by itself.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

import gevent

from geard.messages import how_it_ended
from geard.supervisor.decisions import crashes_in_a_row, restart_delay_seconds
from geard.supervisor.process import LinkedProcess

STOP_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class Beside:
    """See the module. `first_line` is what a new process is told, whenever one starts."""

    def __init__(
        self,
        name: str,
        command: Callable[[int], Sequence[str]],
        *,
        first_line: Callable[[], bytes],
        on_line: Callable[[bytes], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._command = command
        self._first_line = first_line
        self._on_line = on_line
        self._jitter = jitter
        self._process: LinkedProcess | None = None
        self._wanted = False
        self._started_at = 0.0
        self._crashes = 0
        self._restart: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Beside {self.name} pid={self._process.pid if self._process else None}>"

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Have it run. Idempotent."""
        if not self._wanted:
            self._wanted = True
            self._start()

    def send_line(self, line: bytes) -> None:
        """Tell it something; nothing when it does not run: it will be told `first_line` when it does."""
        if self._process:
            self._process.send_line(line)

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process:
            self._process.signal(number)

    def stop(self) -> None:
        """Have it end, and see to it. Returns at once. Idempotent."""
        self._wanted = False
        if self._restart:
            self._restart.kill(block=False)
        process = self._process
        if process:
            process.hang_up()
            gevent.spawn_later(STOP_SECONDS, process.kill)

    def close(self) -> None:
        """Stop it and wait for its end."""
        self.stop()
        while self._process:
            gevent.sleep(0.01)

    def _start(self) -> None:
        self._started_at = time.monotonic()
        try:
            self._process = LinkedProcess(self._command, self._on_line, self._ended)
        except OSError as error:
            log.error("cannot start the %s: %s", self.name, error)
            self._start_again_later()
        else:
            self._process.send_line(self._first_line())
            log.info("the %s runs, pid %d", self.name, self._process.pid)

    def _ended(self, status: int) -> None:
        pid, self._process = self.pid, None
        if self._wanted:
            log.error("the %s (pid %s) %s", self.name, pid, how_it_ended(status))
            self._start_again_later()

    def _start_again_later(self) -> None:
        self._crashes = crashes_in_a_row(self._crashes, time.monotonic() - self._started_at)
        delay_seconds = restart_delay_seconds(self._crashes, self._jitter())
        self._restart = gevent.spawn_later(delay_seconds, self._start)
