"""Turns: what is to be done and waits for no socket, a little of each at a time.

Rules:
- A turn of the loop spends no longer than a slice on each kind of work, and no single step of any takes more than a few
  milliseconds. What is left has its next turn after the sockets were looked at, so nobody waits longer for an answer
  than a few slices, whatever anybody else asked for.
- Who has waited longest is next.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from geard.jobserver.connection import Connection

SLICE_SECONDS: Final = 0.01
_DONE: Final = object()


class Turns:
    """The connections that want a turn, and the errands that nobody waits for."""

    def __init__(self, loop: Any, take: Callable[[Connection], None]) -> None:
        """`take` is called for a connection whose turn it is; it may ask for the next with `want`."""
        self._take = take
        self._line: deque[Connection] = deque()
        self._errands: deque[Iterator[None]] = deque()
        self._idle = loop.idle(ref=False)  # while it is started, the loop does not wait for its sockets
        self._idle_started = False

    def __repr__(self) -> str:
        return f"<Turns {len(self._line)} connections {len(self._errands)} errands>"

    def want(self, connection: Connection) -> None:
        """Let the connection have a turn. Idempotent."""
        if not connection.in_line:
            connection.in_line = True
            self._line.append(connection)

    def add_errand(self, steps: Iterator[None]) -> None:
        """Do this to its end, the first of it at once."""
        deadline = time.perf_counter() + SLICE_SECONDS / 4
        while next(steps, _DONE) is not _DONE:
            if time.perf_counter() > deadline:
                self._errands.append(steps)
                return

    def run(self) -> None:
        """A slice of each kind of work."""
        if self._line:
            deadline = time.perf_counter() + SLICE_SECONDS
            for _ in range(len(self._line)):
                connection = self._line.popleft()
                connection.in_line = False
                if not connection.gone:
                    self._take(connection)
                if time.perf_counter() > deadline:
                    break
        if self._errands:
            self._run_errands(time.perf_counter() + SLICE_SECONDS)

    def keep_awake(self, busy: bool) -> None:
        """Let the loop wait for its sockets, unless there is more to do: `busy`, or here."""
        wanted = busy or bool(self._line or self._errands)
        if wanted != self._idle_started:
            self._idle_started = wanted
            if wanted:
                self._idle.start(_nothing)
            else:
                self._idle.stop()

    def finish(self) -> None:
        """Do all errands to their end."""
        self._run_errands(float("inf"))

    def close(self) -> None:
        """No turns any more."""
        self._line.clear()
        self._idle.stop()
        self._idle.close()

    def _run_errands(self, deadline: float) -> None:
        while self._errands:
            steps = self._errands.popleft()
            if next(steps, _DONE) is not _DONE:
                self._errands.append(steps)
            if time.perf_counter() > deadline:
                break


def _nothing() -> None:
    """What the loop does while it does not wait."""
