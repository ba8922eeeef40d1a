"""The jobs that were in flight when a worker process died, as the supervisor remembers them for all worker processes.

Rules:
- Only a death that nobody asked for makes suspects. Where the supervisor ends a process that is stuck and knows the job
  that holds it, that job alone is one.
- Each is told to every worker process: in its Start, or at once. It is forgotten when a worker process says that it has
  ended well, after KEPT_SECONDS, and when there are too many, the oldest first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from geard.messages import Suspect, Suspects
from geard.supervisor.child import Child
from geard.supervisor.decisions import count_jobs

MOST_SUSPECTS: Final = 100_000
KEPT_SECONDS: Final = 24 * 3600.0
"""A job may wait so long in its queue for another worker."""

log = logging.getLogger(__name__)


class SuspectList:
    """See the module. `tell` tells every worker process. Times are the supervisor's."""

    def __init__(self, tell: Callable[[Suspects], None]) -> None:
        self._tell = tell
        self._known: dict[tuple[str, str], tuple[Suspect, float]] = {}  # oldest first

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Suspect]:
        return (suspect for suspect, _ in self._known.values())

    def exited(self, child: Child, now: float) -> None:
        """A worker process ended: what was in flight in it when it died is suspect."""
        if not child.died_by_itself:
            return
        found = [Suspect(server, handle.decode("latin-1"), 1) for server, handle in child.suspects]
        new = tuple(suspect for suspect in found if (suspect.server, suspect.handle) not in self._known)
        self.learn(new, now)
        if new:
            self._tell(Suspects(new))
            log.warning(
                "what was in flight in %s runs with nothing else in its process from now on: %s at most",
                child,
                count_jobs(len(new)),
            )

    def learn(self, suspects: Iterable[Suspect], now: float) -> None:
        """What a worker process has found out."""
        for suspect in suspects:
            key = suspect.server, suspect.handle
            self._known.pop(key, None)
            if suspect.deaths:
                self._known[key] = suspect, now
        while len(self._known) > MOST_SUSPECTS:
            del self._known[next(iter(self._known))]

    def tick(self, now: float) -> None:
        """Forget those that have been known for too long."""
        old = []
        for key, (suspect, since) in self._known.items():
            if now - since < KEPT_SECONDS:
                break
            old.append((key, suspect))
        for key, _ in old:
            del self._known[key]
        if old:
            self._tell(Suspects(tuple(Suspect(suspect.server, suspect.handle, 0) for _, suspect in old)))
