"""The daemons that are shown: this one, over its control socket, and those of `peers`, over their monitors' API
(peers.py). Both answer the same questions.

Rules:
- Each is polled in a greenlet of its own, so one that is slow holds up nobody.
- One that left the last poll without an answer is asked nothing else until it answers one: each who looks would wait
  for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec
from msgspec import Struct

from geard.errors import GeardError
from geard.monitor.jobservers import JobServerView
from geard.stats.failures import Failure
from geard.stats.history import History
from geard.stats.snapshot import Snapshot
from geard.supervisor import answers
from geard.supervisor.answers import Answer, JobPage, Request
from geard.supervisor.ask import ask

POLL_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 3.0
RELOAD_SECONDS: Final = 330.0
"""How long an action may take: a reload waits for the new generation's imports."""
NOT_ASKED: Final = "not asked yet"


class DaemonState(Struct, frozen=True):
    """A daemon's own view, as its monitor tells it to others."""

    snapshot: Snapshot | None
    job_servers: tuple[JobServerView, ...]
    error: str = ""  # why there is no snapshot, or only an old one


class Source(Protocol):
    """Where a daemon's answers come from. All raise GeardError."""

    def state(self) -> Snapshot | DaemonState:
        """How it is."""

    def failures(self, request: Request) -> tuple[Failure, ...]:
        """Its last failures, newest first."""

    def history(self, request: Request) -> History | None:
        """The history of one function, or of all together."""

    def jobs(self, request: Request) -> JobPage:
        """Running jobs."""

    def stack(self, request: Request) -> str:
        """Where a job is."""


class ControlSocket:
    """This machine's daemon."""

    def __init__(self, path: str) -> None:
        self._path = path

    def state(self) -> Snapshot:
        snapshot = self.ask(Request(answers.STATS)).snapshot
        if snapshot is None:
            raise GeardError("the supervisor told nothing of its state")
        return snapshot

    def failures(self, request: Request) -> tuple[Failure, ...]:
        return self.ask(msgspec.structs.replace(request, command=answers.FAILURES)).failures or ()

    def history(self, request: Request) -> History | None:
        return self.ask(msgspec.structs.replace(request, command=answers.HISTORY)).history

    def jobs(self, request: Request) -> JobPage:
        return self.ask(msgspec.structs.replace(request, command=answers.JOBS)).jobs or JobPage(0, ())

    def stack(self, request: Request) -> str:
        answer = self.ask(msgspec.structs.replace(request, command=answers.STACK))
        return answer.stack or answer.message

    def ask(self, request: Request, timeout_seconds: float = ANSWER_SECONDS) -> Answer:
        """The supervisor's answer."""
        return ask(self._path, request, timeout_seconds=timeout_seconds)


class Daemon:
    """A daemon and the last that is known of it."""

    def __init__(self, name: str, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.source = source
        self.snapshot: Snapshot | None = None
        self.job_servers: tuple[JobServerView, ...] = ()
        self.error = NOT_ASKED
        self._clock = clock
        self._heard_at = clock()

    def __repr__(self) -> str:
        return f"<Daemon {self.name} {self.error or 'answers'}>"

    @property
    def silent_seconds(self) -> float:
        """Since its last answer."""
        return self._clock() - self._heard_at

    @property
    def is_heard(self) -> bool:
        """Whether the last that was asked has been answered."""
        return not self.error and self.snapshot is not None

    @property
    def is_silent(self) -> bool:
        """Whether the last that was asked has been left without an answer."""
        return self.error not in ("", NOT_ASKED)

    def poll(self) -> None:
        """Ask it how it is. Keeps the last answer when there is none."""
        try:
            state = self.source.state()
        except GeardError as error:
            self.error = str(error)
            return
        if isinstance(state, DaemonState):
            self.job_servers, self.error = state.job_servers, state.error
            if state.snapshot is None:
                return
            self.snapshot = state.snapshot
        else:
            self.snapshot, self.error = state, ""
        self._heard_at = self._clock()


def read_secret(path: str | None) -> str:
    """The password or token in a file: its first line. Raises OSError."""
    return Path(path).read_text().strip().split("\n")[0].strip() if path else ""
