"""How long to wait before the next attempt to connect: pure decisions.

Rules: the wait doubles from 0.1 s and is jittered, so that a thousand workers do not come back in step. It is capped
at 0.8 s, so that work flows within a second of a job server's return, however often it was away. Only failures of a
costly kind count towards a longer wait, up to 10 s: a server that sends rubbish, or that cannot be reached and does not
refuse either (a time limit, a name, TLS). A failure is news when its reason differs from the last one's, or the
connection had worked between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geard.errors import CannotConnect, ConnectionLost, ProtocolError

FIRST_SECONDS: Final = 0.1
CAP_SECONDS: Final = 0.8
COSTLY_CAP_SECONDS: Final = 10.0


class Backoff:
    """The failures since a connection has last proved itself."""

    def __init__(self) -> None:
        self._failures = 0
        self._costly = 0  # how many of them
        self._last_was_costly = False
        self._told = ""

    def __repr__(self) -> str:
        return f"<Backoff {self._failures} failures, {self._costly} costly>"

    def wait_seconds(self, random: Callable[[], float]) -> float:
        """How long to wait now: nothing before the first attempt, else half to all of the step."""
        if not self._failures:
            return 0.0
        step = min(doubled(self._failures), CAP_SECONDS)
        if self._last_was_costly:
            step = max(step, min(doubled(self._costly), COSTLY_CAP_SECONDS))
        return step * (0.5 + random() / 2)

    def failed(self, error: ConnectionLost) -> bool:
        """Count a failure. True when it is news, to be logged."""
        self._failures += 1
        self._last_was_costly = is_costly(error)
        self._costly += self._last_was_costly
        told, self._told = self._told, str(error)
        return told != self._told

    def connected(self) -> None:
        """The job server answered: whatever goes wrong next is news."""
        self._told = ""

    def succeeded(self) -> None:
        """The connection has proved itself: the next failure is the first. Not to be said of one that has just begun,
        or a job server that answers once and then sends rubbish would be asked ten times a second."""
        self._failures = self._costly = 0


def is_costly(error: ConnectionLost) -> bool:
    """Whether asking again soon after this failure would cost somebody something. Hardly any restart looks like it."""
    return isinstance(error, ProtocolError) or (isinstance(error, CannotConnect) and not error.refused)


def doubled(failures: int) -> float:
    """The step after so many failures, without its cap."""
    return float(FIRST_SECONDS * 2 ** min(failures - 1, 20))
