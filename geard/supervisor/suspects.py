"""The jobs that were in flight when a worker process died, as the supervisor remembers them for all worker processes.

Rules:
- Only a death that nobody asked for makes suspects. Where the supervisor ends a process that is stuck and knows the job
  that holds it, that job alone is one.
- Each is told to every worker process: in its Start, or at once. It is forgotten when a worker process says that it has
  ended well, after KEPT_SECONDS, and when there are too many, the oldest first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from geard.messages import Suspect
from geard.presence import JobKey

MOST_SUSPECTS: Final = 100_000
KEPT_SECONDS: Final = 24 * 3600.0
"""A job may wait so long in its queue for another worker."""


class SuspectList:
    """See the module. Times are the supervisor's."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Suspect, float]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Suspect]:
        return (suspect for suspect, _ in self._known.values())

    def died_with(self, jobs: Iterable[JobKey], now: float) -> tuple[Suspect, ...]:
        """These were in flight in a process that died. Those that are new."""
        found = [Suspect(server, handle.decode("latin-1"), 1) for server, handle in jobs]
        new = tuple(suspect for suspect in found if (suspect.server, suspect.handle) not in self._known)
        self.learn(new, now)
        return new

    def learn(self, suspects: Iterable[Suspect], now: float) -> None:
        """What a worker process has found out."""
        for suspect in suspects:
            key = suspect.server, suspect.handle
            self._known.pop(key, None)
            if suspect.deaths:
                self._known[key] = suspect, now
        while len(self._known) > MOST_SUSPECTS:
            del self._known[next(iter(self._known))]

    def forget_old(self, now: float) -> tuple[Suspect, ...]:
        """Those that have been known for too long, as no suspects any more."""
        old = []
        for key, (suspect, since) in self._known.items():
            if now - since < KEPT_SECONDS:
                break
            old.append((key, suspect))
        for key, _ in old:
            del self._known[key]
        return tuple(Suspect(suspect.server, suspect.handle, 0) for _, suspect in old)
