"""What clients ask for: jobs, each once, and stored before they are acknowledged where there is a store.

Rules:
- A second job with the same function and unique is the first: its client joins those who wait. One of them in the
  background makes the job a background job.
- With `durable`, a background job is staged: no worker sees it until the caller has stored it and says `admit`, or
  could not and says `refuse`, which turns the JOB_CREATED in the outbox into an ERROR. Whatever the turn holds between:
  a job may end, and whoever submitted it may go.
"""

from __future__ import annotations

from typing import Final

from geard.jobserver import answers
from geard.jobserver.queues import Queues
from geard.jobserver.state import GONE, RUNNING, STAGED, UNLIMITED, Function, Job, Peer, Priority
from geard.protocol import Command

MAX_UNIQUE_BYTES: Final = 64


class Submissions(Queues):
    """The clients' half of the rules."""

    def submit(
        self,
        peer: Peer,
        name: bytes,
        unique: bytes,
        workload: bytes,
        *,
        priority: int = Priority.NORMAL,
        background: bool = False,
        reducer: bytes = b"",
        due: float = 0.0,
        now: float = 0.0,
    ) -> None:
        """A job is submitted: answer JOB_CREATED, or ERROR if the unique is too long or the queue is full."""
        if len(unique) > MAX_UNIQUE_BYTES:
            self.send(peer, answers.UNIQUE_TOO_LARGE)
            return
        function = self.functions.get(name)
        if function is None:
            if not self.accepts(peer, name):
                return
            function = self.function(name)
        job = self._same(function, unique, workload) if unique else None
        if job is None:
            if function.limits is not UNLIMITED and 0 < function.limits[priority] <= function.total:
                self.send(peer, answers.QUEUE_FULL)
                return
            handle = b"%b%d" % (self.handle_prefix, self.next_number)
            self.next_number += 1
            job = Job(handle, function, unique, workload, priority, background, reducer, due if due > now else 0.0)
            self._index(job)
            if background and self.durable:
                job.state = STAGED
                function.held[priority] += 1
            else:
                self._schedule(job)
        if not background:
            if job.clients is None:
                job.clients = {peer: 1}
            else:
                job.clients[peer] = job.clients.get(peer, 0) + 1
            peer.waits_for.add(job)
        else:
            job.background = True  # from now on: whom it was for may leave before it is stored
        if not peer.outbox:
            self.unsent.append(peer)
        packet = answers.job_created(job.handle)
        peer.outbox.append(packet)
        self.spent += len(packet)
        if self.durable and (job.state is STAGED or (background and not job.stored)):
            self.staged.append((peer, len(peer.outbox) - 1, job))

    def to_store(self) -> list[Job]:
        """The jobs that were staged, each once."""
        return list(dict.fromkeys(job for _, _, job in self.staged if job.state is not GONE))

    def admit(self) -> None:
        """All of `to_store` is stored: it may run."""
        staged, self.staged = self.staged, []
        for _, _, job in staged:
            if job.state is not GONE:
                job.stored = True
                if job.state is STAGED:
                    job.function.held[job.priority] -= 1
                    self._schedule(job)

    def refuse(self, reason: str) -> None:
        """Nothing of what was staged could be stored: each of its submissions gets an ERROR instead. A job that was
        there before is what it was: for those who wait for it."""
        staged, self.staged = self.staged, []
        for peer, place, job in staged:
            if not peer.gone:
                peer.outbox[place] = answers.error("QUEUE_ERROR", reason)
            if job.state is not GONE:
                job.background = False
                if (not job.clients and job.state is not RUNNING) or job.state is STAGED:
                    self._end(job)

    def restore(
        self, number: int, name: bytes, unique: bytes, workload: bytes, priority: int, reducer: bytes, due: float
    ) -> None:
        """A job comes from the store, with the handle that it had."""
        handle = b"%b%d" % (self.handle_prefix, number)
        job = Job(handle, self.function(name), unique, workload, priority, True, reducer, due)
        job.stored = True
        self._index(job)
        self._schedule(job)

    def find_unique(self, unique: bytes) -> Job | None:
        """The job with this unique, of whichever function."""
        return self.uniques.get(unique)

    def cancel(self, handle: bytes) -> bool:
        """End a job, if there is one: its clients get WORK_FAIL; the worker that has it may finish in vain."""
        job = self.jobs.get(handle)
        if job is None:
            return False
        self._tell(job, answers.answer(Command.WORK_FAIL, handle))
        self._end(job)
        return True

    def _same(self, function: Function, unique: bytes, workload: bytes) -> Job | None:
        if unique == b"-":
            return function.by_workload.get(workload) if workload else None
        return function.by_unique.get(unique)
