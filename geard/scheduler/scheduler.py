"""The scheduler's turns: what the plan calls for goes to the job servers, what they acknowledge back to the plan."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from geard.config.units import format_moment
from geard.errors import GeardError
from geard.scheduler.link import Link, links_of
from geard.scheduler.memory import Memory, MemoryFile
from geard.scheduler.plan import Cancellation, Planner, Submission
from geard.scheduler.states import Plan, States

TURN_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 4.0
"""How long the first turn waits for the job servers' first answers: who is chosen depends on who answers."""
WRITE_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class Scheduler:
    """See the module. `turn` it about twice a second, in one thread; `replace` and `close` from any."""

    def __init__(
        self,
        plan: Plan,
        memory: MemoryFile,
        tell: Callable[[States], None],
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._tell = tell
        self._file = memory
        self._plan = plan
        self._planner = Planner(plan.config.schedules)
        self._lock = threading.Lock()  # the planner is told from here and from `replace`
        self._acknowledged: queue.SimpleQueue[tuple[Submission, str]] = queue.SimpleQueue()
        self._links: dict[str, Link] = {}
        self._began_at = monotonic()
        self._written_at = 0.0
        self._remembered = memory.read()
        self._settled = False
        now = wall()
        self._open_links(plan)
        self._cancel(self._planner.restore(self._remembered.schedules, now, monotonic()))

    def replace(self, plan: Plan) -> None:
        """A new config. Its schedules count from now on."""
        with self._lock:
            if (plan.config.job_servers, plan.config.encoding) != (
                self._plan.config.job_servers,
                self._plan.config.encoding,
            ):
                self._cancel(self._planner.replace({}))  # the encoding of a workload may be the config's
                old, self._links = self._links, {}
                for link in old.values():
                    link.close()
                self._open_links(plan)
            self._cancel(self._planner.replace(plan.config.schedules))
            self._plan = plan
        log.info("schedules: %s", ", ".join(plan.config.schedules) or "none")

    def turn(self) -> None:
        """Do what is due."""
        with self._lock:
            self._hear()
            wall, monotonic = self._wall(), self._monotonic()
            if not self._settle(monotonic):
                return
            answering = [address for address, link in self._links.items() if link.answers]
            for submission in self._planner.due(wall, monotonic, answering):
                self._submit(submission, wall, monotonic)
            states = States(self._planner.states(wall), tuple(answering))
            if monotonic - self._written_at >= WRITE_SECONDS:
                self._written_at = monotonic
                self._file.write(Memory(wall, self._planner.remembered(wall, monotonic)))
        self._tell(states)

    def close(self) -> None:
        """Hang up. What waits on the job servers stays there."""
        with self._lock:
            self._hear()
            if self._settled:
                self._file.write(Memory(self._wall(), self._planner.remembered(self._wall(), self._monotonic())))
            for link in self._links.values():
                link.close()

    def _open_links(self, plan: Plan) -> None:
        self._links = links_of(
            plan.config.job_servers,
            encoding=plan.config.encoding,
            wanted=self._planner.wants,
            acknowledged=lambda submission, handle: self._acknowledged.put((submission, handle)),
        )
        for link in self._links.values():
            link.start()

    def _settle(self, monotonic: float) -> bool:
        if not self._settled:
            tried = all(link.tried.is_set() for link in self._links.values())
            self._settled = tried or monotonic - self._began_at >= SETTLE_SECONDS
            if self._settled:
                self._catch_up(monotonic)
        return self._settled

    def _catch_up(self, monotonic: float) -> None:
        """Make up for what was missed, unless another scheduler was there all the time."""
        seen_at, wall = self._remembered.seen_at, self._wall()
        answering = [address for address, link in self._links.items() if link.answers]
        if seen_at is None or not answering:
            return
        for name in self._plan.config.schedules:
            submission = self._planner.missed(name, seen_at, wall, answering)
            if submission is None:
                continue
            try:
                others = self._links[submission.server].others()
            except GeardError as error:
                log.warning("%s: what was missed is not made up for: %s", name, error)
                continue
            if others:
                log.info("%s was not missed: %s has been there", name, ", ".join(others))
                continue
            missed, due = format_moment(submission.time), format_moment(submission.at)
            log.warning("%s was missed at %s; it runs at %s", name, missed, due)
            self._submit(submission, wall, monotonic)

    def _submit(self, submission: Submission, wall: float, monotonic: float) -> None:
        self._planner.sent(submission, wall, monotonic)
        self._links[submission.server].ask(submission)

    def _hear(self) -> None:
        while not self._acknowledged.empty():
            submission, handle = self._acknowledged.get_nowait()
            self._cancel(self._planner.acknowledged(submission, handle, self._wall()))

    def _cancel(self, cancellations: list[Cancellation]) -> None:
        for cancellation in cancellations:
            link = self._links.get(cancellation.server)
            if link:
                link.ask(cancellation)
