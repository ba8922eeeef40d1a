"""What there is to see of a daemon at one moment, and the thread that looks again and again.

Rule: the thread may wait for the supervisor; whoever draws never does, and reads the last Look.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from geard.errors import GeardError
from geard.monitor.daemons import Daemon, Source
from geard.monitor.jobservers import JobServerView
from geard.monitor.problems import Finding, findings
from geard.stats.snapshot import ServerStats, Snapshot
from geard.stats.totals import RATE_SECONDS
from geard.supervisor.answers import JobPage, Request

NO_JOBS: Final = JobPage(0, ())


class Look(NamedTuple):
    """One look. `error`: why nothing in it is new. `problems`: worst first."""

    now: Snapshot | None = None
    before: Snapshot | None = None  # an earlier one, to tell rates by
    jobs: JobPage = NO_JOBS
    problems: tuple[Finding, ...] = ()
    error: str = ""


class Watcher:
    """Looks at one daemon. `news` is called after each look, from the thread."""

    def __init__(self, source: Source, *, interval_seconds: float, news: Callable[[], object]) -> None:
        self.last = Look()
        self.most_jobs = 100  # how many running jobs to ask for
        self._daemon = Daemon("", source)
        self._interval_seconds = interval_seconds
        self._news = news
        self._seen: deque[Snapshot] = deque(maxlen=100)

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._watch, name="watches", daemon=True).start()

    def look(self) -> Look:
        """Ask the supervisor now."""
        daemon = self._daemon
        daemon.poll()
        jobs, now = self.last.jobs, daemon.snapshot
        if daemon.is_heard:
            try:
                jobs = daemon.source.jobs(Request("", limit=self.most_jobs))
            except GeardError as error:
                daemon.error = str(error)
        problems = findings([daemon], _views(now.servers if now else {}), {}, now.functions if now else {})
        before = self._before(now) if now else None
        self.last = Look(now, before, jobs, tuple(problems), daemon.error)
        return self.last

    def _before(self, now: Snapshot) -> Snapshot | None:
        """The newest that is as old as rates want it, of the same daemon."""
        if self._seen and self._seen[-1].pid != now.pid:
            self._seen.clear()
        found = None
        for each in self._seen:
            if each.time <= now.time - RATE_SECONDS + 0.5:
                found = each
        if not self._seen or self._seen[-1] is not now:
            self._seen.append(now)
        return found

    def _watch(self) -> None:
        while True:
            next_time = time.monotonic() + self._interval_seconds
            self.look()
            self._news()
            time.sleep(max(next_time - time.monotonic(), 0.1))


def _views(servers: Mapping[str, ServerStats]) -> list[JobServerView]:
    """The job servers as the worker processes see them; not those of which no process has said anything yet."""
    reason = "no worker process is connected to it"
    return [
        JobServerView(name, up=server.connected > 0, error="" if server.connected else reason)
        for name, server in servers.items()
        if server.connected or server.disconnected
    ]
