"""How many jobs to ask for: pure decisions, made from what the job server answered.

A quiet channel asks for one job and a busy one for as many as it can run; a channel whose jobs wait for a greenlet
asks for fewer, so that another worker process gets the next ones.
"""

from __future__ import annotations

from typing import Final

HOARD_SECONDS: Final = 0.005
"""A job that waited longer for a greenlet should have gone to another worker."""

MAX_WINDOW: Final = 64
"""Enough to keep both ends at work. More made a thousand jobs end and begin in step (measured: 1,000 greenlets sleeping
100 ms reach 95 to 96 % of the ideal with 64, 93 % with 1,000), and hoards more when jobs turn from quick to slow."""

GROWTH_PAUSE_SECONDS: Final = 1.0
MAX_PATIENCE: Final = 16


class GrabWindow:
    """How many jobs a channel may have asked for or hold unstarted, from 1 to `limit`.

    It doubles when as many jobs as it allows were assigned without a NO_JOB between, and halves on NO_JOB. Each growth
    that came too early asks for twice as many jobs before the next, so that jobs coming one at a time stay at 1."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 1
        self._credit = 0  # jobs assigned since the last change
        self._patience = 1
        self._paused_until = 0.0
        self._hoarded_at = 0.0

    def __repr__(self) -> str:
        return f"<GrabWindow {self.size}/{self.limit} patience={self._patience}>"

    def assigned(self, count: int, now: float) -> None:
        """So many jobs came, and no NO_JOB among them."""
        self._credit += count
        if self._credit < self.size * self._patience or now < self._paused_until:
            return
        if self.size > 1:
            self._patience = 1
        self.size = min(self.size * 2, self.limit)
        self._credit = 0

    def came_short(self) -> None:
        """The job server had fewer jobs than were asked for."""
        if self.size <= 2:
            self._patience = min(self._patience * 2, MAX_PATIENCE)
        self.size = max(self.size // 2, 1)
        self._credit = 0

    def hoarded(self, received: float, now: float) -> None:
        """A job that came at `received` waited over HOARD_SECONDS for a greenlet: ask for fewer, and not for more for
        a while. Jobs that were asked for before the last such halving have had their say in it."""
        if received < self._hoarded_at:
            return
        self._hoarded_at = now
        self.size = max(self.size // 2, 1)
        self._credit = 0
        self._paused_until = now + GROWTH_PAUSE_SECONDS

    def quiet(self) -> None:
        """Nothing has happened for a while: begin again at one."""
        self.size = 1
        self._credit = 0


def grabs_due(*, window: int, owed: int, queued: int, idle: int) -> int:
    """How many GRAB_JOB to send: never more than there are greenlets free to run what they bring.

    `owed` grabs are not answered yet, `queued` jobs wait for a greenlet, `idle` greenlets have no job at all."""
    return max(0, min(window - owed - queued, idle - owed))
