"""The rules of a job server: who gets which job, who hears what, and what happens when a peer goes.

Pure: no socket, clock, store or gevent. The time is handed in; what is to be sent is left in the peers' outboxes,
which the caller empties at the end of a turn (`unsent` names those that have something).

Rules:
- A job is assigned to one worker at a time, and only that worker's result counts.
- A job that is handed back (its worker went, gave up the function, or ran over CAN_DO_TIMEOUT) is queued again at the
  end of its queue, until `job_retries` times; then its clients get WORK_FAIL.
- A background job ends only when it was done, cancelled, or handed back too often. A foreground job also ends when
  its last client goes, at once if it waits, and instead of being queued again if it runs.
- A second job with the same function and unique is the first: its client joins those who wait. One of them in the
  background makes the job a background job.
- Sleepers hear NOOP once, whenever a job that they could grab becomes ready; also when a delayed job falls due.
- With `durable`, a background job is staged: no worker sees it until the caller has stored it and says `admit`, or
  could not and says `refuse`, which turns the JOB_CREATED in the outbox into an ERROR.
"""

from __future__ import annotations

import heapq
from typing import Final

from geard.jobserver import answers
from geard.jobserver.state import DELAYED, GONE, QUEUED, RUNNING, STAGED, UNLIMITED, Function, Job, Peer, Priority
from geard.protocol import Command

TICK_SECONDS: Final = 0.25
"""How often jobs are looked at that run under a CAN_DO_TIMEOUT."""

MAX_UNIQUE_BYTES: Final = 64


class Rules:
    """The state of a job server and everything that may happen to it."""

    def __init__(
        self,
        handle_prefix: bytes = b"H:localhost:",
        *,
        max_queue: int = 0,
        job_retries: int = 0,
        durable: bool = False,
        first_number: int = 1,
    ) -> None:
        self.handle_prefix = handle_prefix
        self.default_limits = (max_queue, max_queue, max_queue)
        self.limits: dict[bytes, tuple[int, int, int]] = {}  # of admin `maxqueue`
        self.job_retries = job_retries  # 0: no limit
        self.durable = durable
        self.next_number = first_number
        self.functions: dict[bytes, Function] = {}
        self.jobs: dict[bytes, Job] = {}  # by handle
        self.unsent: list[Peer] = []  # peers with something in the outbox
        self.staged: list[tuple[Peer, int, Job]] = []  # a submission: where its JOB_CREATED is, and the job
        self.ended: list[int] = []  # numbers of stored jobs that ended
        self._delayed: list[tuple[float, int, Job]] = []  # a heap by due time
        self._timed: dict[Job, None] = {}  # running jobs that have a deadline

    def __repr__(self) -> str:
        return f"<Rules {len(self.jobs)} jobs {len(self.functions)} functions>"

    @property
    def running(self) -> int:
        """How many jobs workers have."""
        return sum(function.running for function in self.functions.values())

    def send(self, peer: Peer, packet: bytes) -> None:
        """Leave a packet in the outbox of a peer."""
        if not peer.outbox:
            self.unsent.append(peer)
        peer.outbox.append(packet)

    def function(self, name: bytes) -> Function:
        """The function of this name, made when it is first named."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(name, self.limits.get(name, self.default_limits))
        return function

    # --- clients --------------------------------------------------------------------------------------------------

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
        function = self.functions.get(name) or self.function(name)
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
            else:
                self._schedule(job)
        if not background:
            if job.clients is None:
                job.clients = []
            job.clients.append(peer)
            peer.waits_for.add(job)
        elif not job.background and not self.durable:
            job.background = True
        if not peer.outbox:
            self.unsent.append(peer)
        peer.outbox.append(answers.job_created(job.handle))
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
                job.stored = job.background = True
                if job.state is STAGED:
                    self._schedule(job)

    def refuse(self, reason: str) -> None:
        """Nothing of what was staged could be stored: each of its submissions gets an ERROR instead."""
        staged, self.staged = self.staged, []
        for peer, place, job in staged:
            peer.outbox[place] = answers.error("QUEUE_ERROR", reason)
            if job.state is STAGED:
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
        return next((f.by_unique[unique] for f in self.functions.values() if unique in f.by_unique), None)

    def cancel(self, handle: bytes) -> bool:
        """End a job, if there is one: its clients get WORK_FAIL; the worker that has it may finish in vain."""
        job = self.jobs.get(handle)
        if job is None:
            return False
        self._tell(job, answers.answer(Command.WORK_FAIL, handle))
        self._end(job)
        return True

    def limit(self, name: bytes, limits: tuple[int, int, int]) -> None:
        """Limit the queue of a function, by priority; also of one that is not there yet."""
        self.limits[name] = limits
        if name in self.functions:
            self.functions[name].limits = limits

    # --- workers --------------------------------------------------------------------------------------------------

    def can_do(self, peer: Peer, name: bytes, timeout_seconds: float = 0.0) -> None:
        """A worker offers a function; its jobs go back to the queue after the timeout, if there is one."""
        function = self.function(name)
        function.workers += 1
        peer.abilities = (function, *peer.abilities)
        if timeout_seconds > 0:
            peer.timeouts = {**(peer.timeouts or {}), function: timeout_seconds}
        elif peer.timeouts:
            peer.timeouts.pop(function, None)
        if peer.sleeping:
            self.sleep(peer)

    def cant_do(self, peer: Peer, name: bytes) -> None:
        """A worker takes back a function. Its jobs of it go to others."""
        self._give_up(peer, [f for f in peer.abilities if f.name == name])

    def reset_abilities(self, peer: Peer) -> None:
        """A worker takes back all of its functions."""
        self._give_up(peer, list(peer.abilities))

    def sleep(self, peer: Peer) -> None:
        """PRE_SLEEP: NOOP at once if there is a job for it, else when there is."""
        for function in peer.abilities:
            if function.ready:
                self._wake(peer)
                self.send(peer, answers.NOOP)
                return
        peer.sleeping = True
        for function in peer.abilities:
            function.sleepers[peer] = None

    def grab(self, peer: Peer, now: float) -> Job | None:
        """The next job for a worker, which has it from now on. The caller sends it, or NO_JOB."""
        if peer.sleeping:
            self._wake(peer)
        for function in peer.abilities:
            if function.ready:
                job = function.pop()
                function.running += 1
                job.state = RUNNING
                job.worker = peer
                peer.assigned[job.handle] = job
                if peer.timeouts and function in peer.timeouts:
                    job.deadline = now + peer.timeouts[function]
                    self._timed[job] = None
                return job
        return None

    def report(self, peer: Peer, command: Command, fields: list[bytes], missing: bytes) -> Job | None:
        """WORK_STATUS, WORK_DATA or WORK_WARNING: pass it on. `missing` answers for a job that the worker has not."""
        job = peer.assigned.get(fields[0])
        if job is None:
            self.send(peer, missing)
        elif job.clients:
            self._tell(job, answers.answer(command, *fields))
        return job

    def finish(self, peer: Peer, command: Command, fields: list[bytes], missing: bytes) -> None:
        """WORK_COMPLETE, WORK_FAIL or WORK_EXCEPTION: pass it on, and the job is done."""
        job = peer.assigned.pop(fields[0], None)
        if job is None:
            self.send(peer, missing)
            return
        if job.state is GONE:  # cancelled while it ran
            return
        if job.clients:
            if command is Command.WORK_EXCEPTION:
                self._tell_exception(job, fields)
            else:
                self._tell(job, answers.answer(command, *fields))
        self._end(job)

    # --- time and departures --------------------------------------------------------------------------------------

    def next_due(self, now: float) -> float | None:
        """When `tick` is wanted next; None: not before something else happens."""
        due = self._delayed[0][0] if self._delayed else None
        if self._timed:
            return min(due, now + TICK_SECONDS) if due else now + TICK_SECONDS
        return due

    def tick(self, now: float) -> None:
        """Time has passed: delayed jobs fall due, and jobs that ran over their CAN_DO_TIMEOUT are handed back."""
        while self._delayed and self._delayed[0][0] <= now:
            job = heapq.heappop(self._delayed)[2]
            if job.state is DELAYED:
                self._enqueue(job)
        for job in [job for job in self._timed if job.deadline <= now]:
            if job.worker:
                del job.worker.assigned[job.handle]
            self._hand_back(job)

    def depart(self, peer: Peer) -> None:
        """A connection ended: its jobs go to others, and what only it waited for need not run."""
        self.reset_abilities(peer)
        for job in list(peer.assigned.values()):  # of functions that it had given up before: none, but be sure
            self._hand_back(job)
        peer.assigned.clear()
        waits_for, peer.waits_for = peer.waits_for, set()
        for job in waits_for:
            job.clients = [client for client in job.clients or () if client is not peer]
            if not job.clients and not job.background and job.state is not RUNNING:
                self._end(job)
        peer.outbox.clear()

    # --- within ---------------------------------------------------------------------------------------------------

    def _same(self, function: Function, unique: bytes, workload: bytes) -> Job | None:
        if unique == b"-":
            return function.by_workload.get(workload) if workload else None
        return function.by_unique.get(unique)

    def _index(self, job: Job) -> None:
        self.jobs[job.handle] = job
        job.function.total += 1
        if job.unique == b"-":
            job.function.by_workload.setdefault(job.workload, job)
        elif job.unique:
            job.function.by_unique.setdefault(job.unique, job)

    def _schedule(self, job: Job) -> None:
        if job.due:
            job.state = DELAYED
            heapq.heappush(self._delayed, (job.due, job.number, job))
        else:
            self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        function = job.function
        function.push(job)
        if function.sleepers:
            for peer in list(function.sleepers):
                self._wake(peer)
                self.send(peer, answers.NOOP)

    def _wake(self, peer: Peer) -> None:
        if peer.sleeping:
            peer.sleeping = False
            for function in peer.abilities:
                function.sleepers.pop(peer, None)

    def _tell(self, job: Job, packet: bytes) -> None:
        for client in job.clients or ():
            self.send(client, packet)

    def _tell_exception(self, job: Job, fields: list[bytes]) -> None:
        exception = answers.answer(Command.WORK_EXCEPTION, *fields)
        failure = answers.answer(Command.WORK_FAIL, fields[0])
        for client in job.clients or ():
            self.send(client, exception if client.exceptions else failure)

    def _give_up(self, peer: Peer, functions: list[Function]) -> None:
        for function in functions:
            function.workers -= 1
            function.sleepers.pop(peer, None)
        peer.abilities = tuple(f for f in peer.abilities if f not in functions)
        for job in [job for job in peer.assigned.values() if job.function in functions]:
            del peer.assigned[job.handle]
            self._hand_back(job)

    def _hand_back(self, job: Job) -> None:
        if job.state is not RUNNING:
            return
        self._stop(job)
        job.numerator = job.denominator = 0
        job.retries += 1
        if job.retries == self.job_retries:
            self._tell(job, answers.answer(Command.WORK_FAIL, job.handle))
            self._end(job)
        elif not job.background and not job.clients:
            self._end(job)
        else:
            self._enqueue(job)

    def _stop(self, job: Job) -> None:
        job.state = DELAYED  # neither running nor queued, until the caller says
        job.worker = None
        job.function.running -= 1
        if job.deadline:
            job.deadline = 0.0
            self._timed.pop(job, None)

    def _end(self, job: Job) -> None:
        function, unique, state = job.function, job.unique, job.state
        if state is RUNNING:
            self._stop(job)
        job.state = GONE
        function.total -= 1
        del self.jobs[job.handle]
        if unique:
            index, key = (function.by_workload, job.workload) if unique == b"-" else (function.by_unique, unique)
            if index.get(key) is job:
                del index[key]
        if state is QUEUED:
            function.forget_queued(job)
        if job.clients:
            for client in job.clients:
                client.waits_for.discard(job)
            job.clients = None
        if job.stored:
            self.ended.append(job.number)
