"""What the supervisor tells the world as it goes: the service manager, and whoever looks at the process title.

Rule: WATCHDOG=1 goes out from the supervisor's own loop and only while its remedies for stuck processes work, so a
service manager that hears it knows that jobs are being run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from geard.supervisor import sd_notify
from geard.supervisor.child import Child

TELL_SECONDS: Final = 1.0
EXTEND_SECONDS: Final = 15.0
"""Starting, reloading and stopping go on as long as this process says so, at least once within this time."""
NEVER: Final = float("-inf")
STUCK_SECONDS: Final = 10.0
"""A process silent for so long beyond `hang_timeout` could not even be killed: only a restart of all may help."""


class Notify(Protocol):
    """The service manager, as SdNotify reaches it."""

    watchdog_seconds: float | None

    def send(self, *assignments: str) -> None:
        """Send these assignments in one message."""


class Report:
    """Tells each change at once, and once a second how things are, in the words of `status_line` and `title`."""

    def __init__(
        self,
        notify: Notify,
        set_title: Callable[[str], None],
        *,
        status_line: Callable[[], str],
        title: Callable[[], str],
    ) -> None:
        self._notify = notify
        self._set_title = set_title
        self._status_line = status_line
        self._title = title
        self._told_at = self._watchdog_at = NEVER

    def reloading(self) -> None:
        """A reload begins."""
        self._notify.send(*sd_notify.reloading(), sd_notify.status("reloading"))
        self._told_at = NEVER

    def ready(self) -> None:
        """The daemon serves, after its start or after a reload, whatever its outcome."""
        self._notify.send(sd_notify.READY, sd_notify.status(self._status_line()))
        self._told_at = NEVER

    def stopping(self) -> None:
        """The daemon has begun to stop."""
        self._notify.send(sd_notify.STOPPING)
        self._told_at = NEVER

    def last_words(self, text: str) -> None:
        """How the daemon has ended: what the service manager goes on showing."""
        self._notify.send(sd_notify.status(text))

    def can_wait(self, seconds: float) -> bool:
        """Whether the service manager will not miss us when we look at the clock only so often."""
        watchdog = self._notify.watchdog_seconds
        return watchdog is None or watchdog / 4 >= seconds

    def is_due(self, now: float) -> bool:
        """Whether a second has passed since `how_it_is`, or something has changed."""
        return now - self._told_at >= TELL_SECONDS

    def how_it_is(self, now: float, *, goes_on: bool) -> None:
        """Status line and title. `goes_on`: it is starting, reloading or stopping, and needs more time for that."""
        self._told_at = now
        going_on = [sd_notify.extend_timeout(EXTEND_SECONDS)] if goes_on else []
        self._notify.send(sd_notify.status(self._status_line()), *going_on)
        self._set_title(self._title())

    def alive(self, children: Sequence[Child], hang_timeout_seconds: float, now: float) -> None:
        """The loop turns; say so if the children make progress too."""
        watchdog = self._notify.watchdog_seconds
        if watchdog is None or now - self._watchdog_at < watchdog / 4:
            return
        if not any(child.is_silent(now, hang_timeout_seconds + STUCK_SECONDS) for child in children):
            self._watchdog_at = now
            self._notify.send(sd_notify.WATCHDOG)
