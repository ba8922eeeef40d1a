"""How long to wait before the next attempt to connect: pure decisions.

Rules: the wait doubles from 0.1 s and is jittered, so that a thousand workers do not come back in step. It is capped
at 10 s; where the server merely refuses, which costs nobody anything, at 0.8 s, so that work flows within a second of
its return. A failure is news when its reason differs from the last one's, or the connection had worked between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geard.errors import CannotConnect, ConnectionLost

FIRST_SECONDS: Final = 0.1
CAP_SECONDS: Final = 10.0
REFUSED_CAP_SECONDS: Final = 0.8


class Backoff:
    """The failures since a job server last worked."""

    def __init__(self) -> None:
        self._failures = 0
        self._cap_seconds = CAP_SECONDS
        self._told = ""

    def __repr__(self) -> str:
        return f"<Backoff {self._failures} failures>"

    def wait_seconds(self, random: Callable[[], float]) -> float:
        """How long to wait now: nothing before the first attempt, else half to all of the step."""
        if not self._failures:
            return 0.0
        step: float = min(FIRST_SECONDS * 2 ** min(self._failures - 1, 20), self._cap_seconds)
        return step * (0.5 + random() / 2)

    def failed(self, error: ConnectionLost) -> bool:
        """Count a failure. True when it is news, to be logged."""
        self._failures += 1
        refused = isinstance(error, CannotConnect) and error.refused
        self._cap_seconds = REFUSED_CAP_SECONDS if refused else CAP_SECONDS
        told, self._told = self._told, str(error)
        return told != self._told

    def connected(self) -> None:
        """The job server answered: whatever goes wrong next is news."""
        self._told = ""

    def succeeded(self) -> None:
        """The connection has proved itself: the next failure is the first. Not to be said of one that has just begun,
        or a job server that answers once and then sends rubbish would be asked ten times a second."""
        self._failures = 0
