"""When jobs that never wait give up the loop, for heartbeats, timers and the other channels.

Rule: between two jobs that held the loop for long it has its turn, whichever greenlets run them: who finds a breath
`due` does not begin a job before it has seen the loop go round since.
"""

from __future__ import annotations

import time
from typing import Final

BREATH_SECONDS: Final = 0.01
"""The loop has its turn after so long at most, between jobs."""

_AT_ONCE: Final = 1e-6
"""A timer that is due at once. sleep(0) is not enough: gevent goes on with it before it looks at timers and sockets."""


class Breath:
    """See the module. Shared by the channels of a pool, whose greenlets all hold the same loop."""

    __slots__ = ("at", "due")

    def __init__(self) -> None:
        self.at = 0.0  # when it last was due
        self.due = 0.0  # since when it is; 0 when it is not

    def draw(self, now: float, held: bool) -> None:
        """Give up the loop once; or, if the job that ends `now` has held it for long, until it has had its turn."""
        self.at = now
        if held:
            self.due = now
            self.take()
        else:
            self.pause()

    def pause(self) -> None:
        """Give up the loop once."""
        time.sleep(_AT_ONCE)

    def take(self) -> None:
        """Give up the loop until it has had its turn since the last long job."""
        while since := self.due:
            time.sleep(_AT_ONCE)
            if self.due == since:  # no other job has held the loop since this greenlet gave it up
                self.due = 0.0
