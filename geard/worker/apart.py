"""Suspects: jobs that were in flight in a process that died. A worker process sets them apart from its other jobs.

Rules:
- A suspect runs in a process with nothing else (isolation.py). So it is known for certain whether it is the one, and
  those that are not are run a second time at most. When it ends well it is a suspect no more.
- Whose process a job has killed `poison_deaths` times, the last time alone in a fresh one, fails. The first of these
  deaths may have been that of a process with other jobs; however many such there are, they count as one.
- What is known about siblings is looked at after jobs have been read and before they run: see presence.py.
- A job that is no suspect pays nothing but its part of a record.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from geard.errors import ConfigError, InvalidRequest, ProcessKilled
from geard.messages import Start, Suspect
from geard.presence import Presence, Seat, record_of, records_of
from geard.printable import printable
from geard.protocol import Packet
from geard.worker.attempts import whole
from geard.worker.isolation import CannotIsolate, Failed, Isolation, assignment
from geard.worker.job import Job
from geard.worker.policy import FailedElsewhere
from geard.worker.run import label

MOST_SUSPECTS: Final = 100_000
RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 10.0)
"""Waits between attempts to start a process for a suspect; the last one repeats."""

log = logging.getLogger("geard.worker")


class Apart:
    """The suspects that one worker process knows of. `assigned` is told of the jobs of each read of a channel."""

    def __init__(
        self,
        start: Start,
        presence: Presence | None,
        *,
        in_flight: Callable[[], dict[str, list[bytes]]],
        tell: Callable[[Suspect], None],
    ) -> None:
        """`in_flight` gives the handles of all jobs by job server; `tell` tells the supervisor what became known."""
        self._presence = presence
        self._seat: Seat | None = None
        self._in_flight = in_flight
        self._tell = tell
        self._poison_deaths = start.config.poison_deaths
        self._isolation = Isolation(start)
        self._known: dict[str, dict[bytes, int]] = {}  # address -> handle -> deaths
        self._looked_at: set[tuple[int, int]] = set()  # (number, epoch) of seats
        self._seats = 0
        self._header = b""
        self.told(start.suspects)
        if presence and start.seat is not None:
            self._seat = presence.seat(start.seat)
            try:
                self._seat.occupy()
            except OSError as error:
                log.warning("should this process die, the others learn of it late: %s", error)

    def leave(self) -> None:
        """This process ends on purpose."""
        if self._seat:
            self._seat.excuse()

    def told(self, suspects: Iterable[Suspect]) -> None:
        """What others have found out."""
        for suspect in suspects:
            known = self._known.setdefault(suspect.server, {})
            handle = suspect.handle.encode("latin-1")
            if not suspect.deaths:
                known.pop(handle, None)
            elif len(known) < MOST_SUSPECTS:
                known[handle] = max(known.get(handle, 0), suspect.deaths)

    def assigned(self, jobs: deque[Job]) -> None:
        """These jobs, of one connection, have just come or are to run again, and none of them has begun."""
        if not jobs:
            return
        address = jobs[0].server
        handles = [job.raw_handle for job in jobs]
        if self._seat and not self._seat.add(record_of(address.encode(), handles)):
            self._seat.begin(self._records())
        if self._presence and self._presence.header(self._seats) != self._header:
            self._look(self._presence)
        known = self._known.get(address)
        if known and not known.keys().isdisjoint(handles):
            for job in jobs:
                if job.raw_handle in known:
                    self._set_apart(job)

    def _records(self) -> list[bytes]:
        in_flight = self._in_flight().items()
        return [record for server, handles in in_flight for record in records_of(server.encode(), handles)]

    def _look(self, presence: Presence) -> None:
        """Somebody has come or gone: see whether a sibling died, and what it had."""
        self._seats = presence.used
        self._header = presence.header(self._seats)  # first: what changes from here on is seen the next time
        for seat in presence.died():
            if (seat.number, seat.epoch) not in self._looked_at:
                self._looked_at.add((seat.number, seat.epoch))
                self.told(Suspect(server, handle.decode("latin-1"), 1) for server, handle in seat.jobs())

    # --- a suspect ------------------------------------------------------------------------------------------------

    def _set_apart(self, job: Job) -> None:
        """Have it run by itself: the greenlet that takes it finds another way to call its capability."""
        capability = copy.copy(job.capability)
        capability.quick = False
        capability.invoke = self._run
        job.capability = capability
        log.debug("%s: was in flight in a process that died: running it with nothing else", label(job))

    def _run(self, job: Job) -> None:
        """Run it to its end, in as many processes as that takes. Raises ProcessKilled, and FailedElsewhere where the
        function raised and the capability has a policy for that."""
        deaths = self._known.get(job.server, {}).get(job.raw_handle, 1)
        fresh = False
        failures = 0
        while True:
            try:
                ending, alone, failed = self._isolated(job, fresh)
            except (CannotIsolate, ConfigError) as error:
                log.error("%s: cannot run it with nothing else yet: %s", label(job), error)
                time.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
                failures += 1
                continue
            if not ending:
                self._known.get(job.server, {}).pop(job.raw_handle, None)
                self._tell(_suspect(job, 0))
                if failed:
                    raise FailedElsewhere(failed.text, failed.traceback, failed.judgement)
                return
            deaths, fresh = deaths + 1, True
            self._known.setdefault(job.server, {})[job.raw_handle] = deaths
            self._tell(_suspect(job, deaths))
            text = f"the process that it ran in {ending}, with nothing else in it"
            if alone and deaths >= self._poison_deaths:
                raise ProcessKilled(f"{printable(job.function)} was given up after {deaths} dead processes: {text}")
            log.error("%s: %s; that makes %d of %d (poison_deaths)", label(job), text, deaths, self._poison_deaths)
            if job.answered or job.session.lost:
                return  # it will not be assigned again, or has been already

    def _isolated(self, job: Job, fresh: bool) -> tuple[str, bool, Failed | None]:
        packet = assignment(job.raw_handle, job.capability.raw_name, whole(job.attempts), job.workload)

        def relay(answer: Packet) -> None:
            try:
                job.relay(answer)
            except InvalidRequest:
                log.error("%s: a second answer is dropped", label(job))

        return self._isolation.run(job.capability.name, job.server, packet, relay, fresh=fresh)


def _suspect(job: Job, deaths: int) -> Suspect:
    return Suspect(job.server, job.raw_handle.decode("latin-1"), deaths)
