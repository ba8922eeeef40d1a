"""The rules of a job server: who gets which job, who hears what, and what happens when a peer goes.

Pure: no socket, clock, store or gevent. The time is handed in; what is to be sent is left in the peers' outboxes,
which the caller empties at the end of a turn (`unsent` names those that have something).

Rules:
- A job is assigned to one worker at a time, and only that worker's result counts.
- A worker gets jobs of high priority before those of normal and low, whatever their function; its functions take
  turns.
- A job that is handed back (its worker went, gave up the function, or ran over CAN_DO_TIMEOUT) is queued again at the
  end of its queue, until `job_retries` times; then its clients get WORK_FAIL.
- A worker that ran over CAN_DO_TIMEOUT may still answer, until another has the job. PRE_SLEEP ends the deadlines of the
  jobs that it has, as in gearmand: it means to do other things beside them.
- A background job ends only when it was done, cancelled, or handed back too often. A foreground job also ends when
  its last client goes, at once if it waits, and instead of being queued again if it runs.
- A second job with the same function and unique is the first: its client joins those who wait. One of them in the
  background makes the job a background job.
- A function that nobody has a job, a worker or a limit for is forgotten.
- What one request may cost is added up in `spent`; what takes longer than that is done in steps, with others between.
- Sleepers hear NOOP once, whenever a job that they could grab becomes ready; also when a delayed job falls due.
- With `durable`, a background job is staged: no worker sees it until the caller has stored it and says `admit`, or
  could not and says `refuse`, which turns the JOB_CREATED in the outbox into an ERROR.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Final

from geard.jobserver import answers
from geard.jobserver.state import (
    DELAYED,
    GONE,
    NO_JOBS,
    QUEUED,
    RUNNING,
    STAGED,
    UNLIMITED,
    Ability,
    Function,
    Job,
    Peer,
    Priority,
)
from geard.protocol import Command

TICK_SECONDS: Final = 0.25
"""How often jobs are looked at that run under a CAN_DO_TIMEOUT."""

MAX_UNIQUE_BYTES: Final = 64
MAX_NAME_BYTES: Final = 4096
"""Of a function name or client id; gearmand takes any."""
MAX_ABILITIES: Final = 100_000
"""Functions that one worker may offer; gearmand takes any number."""
STEP: Final = 256
"""Jobs or functions that are dealt with before others get their turn."""
_SEND_COST: Final = 64
"""What a packet costs beside its bytes."""
_WHOLE_TURN: Final = 1 << 30
_DONE: Final = object()


class Rules:
    """The state of a job server and everything that may happen to it."""

    def __init__(
        self,
        handle_prefix: bytes = b"H:localhost:",
        *,
        max_queue: int = 0,
        job_retries: int | None = None,
        durable: bool = False,
        first_number: int = 1,
    ) -> None:
        self.handle_prefix = handle_prefix
        self.default_limits = (max_queue, max_queue, max_queue)
        self.limits: dict[bytes, tuple[int, int, int]] = {}  # of admin `maxqueue`
        self.job_retries = job_retries  # None: no limit
        self.durable = durable
        self.next_number = first_number
        self.functions: dict[bytes, Function] = {}
        self.jobs: dict[bytes, Job] = {}  # by handle
        self.uniques: dict[bytes, Job] = {}  # a job with this unique, of whichever function
        self._more_uniques: dict[bytes, dict[Job, None]] = {}  # the others that have it, of other functions
        self.spent = 0  # about the bytes that were put into outboxes: only its growth means something
        self.errands: dict[Peer, Iterator[None]] = {}  # what a peer asked for that takes many steps: for the caller
        self.unsent: list[Peer] = []  # peers with something in the outbox
        self.staged: list[tuple[Peer, int, Job]] = []  # a submission: where its JOB_CREATED is, and the job
        self.ended: list[int] = []  # numbers of stored jobs that ended
        self._delayed: list[tuple[float, int, Job]] = []  # a heap by due time
        self._delayed_gone = 0  # jobs in there that are GONE
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
        self.spent += len(packet) + _SEND_COST

    def function(self, name: bytes) -> Function:
        """The function of this name, made when it is first named."""
        function = self.functions.get(name)
        if function is None:
            function = self.functions[name] = Function(name, self.limits.get(name, self.default_limits))
        return function

    def accepts(self, peer: Peer, name: bytes) -> bool:
        """Whether a new name is short enough; if not, the peer gets an ERROR."""
        if len(name) > MAX_NAME_BYTES:
            self.send(peer, answers.NAME_TOO_LARGE)
            return False
        return True

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
        elif not job.background and not self.durable:
            job.background = True
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
                job.stored = job.background = True
                if job.state is STAGED:
                    job.function.held[job.priority] -= 1
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
        return self.uniques.get(unique)

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
        if limits == self.default_limits:
            self.limits.pop(name, None)
        else:
            self.limits[name] = limits
        function = self.functions.get(name)
        if function is not None:
            function.limits = limits
            self._forget_if_idle(function)

    def create(self, name: bytes) -> None:
        """An operator wants the function to be known, with or without jobs and workers."""
        self.function(name).created = True

    def drop(self, name: bytes) -> bool:
        """Forget a function; False while it has workers or jobs. Raises KeyError when there is none."""
        function = self.functions[name]
        if function.workers or function.total:  # gearmand drops the queued jobs with it; we do not lose jobs
            return False
        del self.functions[name]
        return True

    # --- workers --------------------------------------------------------------------------------------------------

    def can_do(self, peer: Peer, name: bytes, timeout_seconds: float = 0.0) -> None:
        """A worker offers a function; its jobs go back to the queue after the timeout, if there is one."""
        if name not in self.functions and not self.accepts(peer, name):
            return
        function = self.function(name)
        ability = peer.abilities.get(function)
        if ability is None:
            if len(peer.abilities) >= MAX_ABILITIES:
                self._forget_if_idle(function)
                self.send(peer, answers.TOO_MANY_FUNCTIONS)
                return
            ability = peer.abilities[function] = Ability()
            self._look_for(peer, function)
        function.workers += 1
        ability.can_dos += 1
        ability.timeout_seconds = timeout_seconds
        peer.has_timeouts = peer.has_timeouts or timeout_seconds > 0

    def cant_do(self, peer: Peer, name: bytes) -> None:
        """A worker takes back a function. Its jobs of it go to others."""
        function = self.functions.get(name)
        if function is None or function not in peer.abilities:
            return
        if peer.assigned:
            self.spent += len(peer.assigned) * _SEND_COST
            for job in [job for job in peer.assigned.values() if job.function is function]:
                del peer.assigned[job.handle]
                self._hand_back(job)
        self._give_up(peer, function)

    def reset_abilities(self, peer: Peer) -> None:
        """A worker takes back all of its functions. Their jobs go to others. What is left to do is an errand."""
        steps = self._give_up_all(peer)
        for _ in range(4):
            if next(steps, _DONE) is _DONE:
                return
        self.errands[peer] = steps
        self.spent += _WHOLE_TURN

    def sleep(self, peer: Peer) -> None:
        """PRE_SLEEP: NOOP at once if there is a job for it, else when there is."""
        for priority, candidates in enumerate(peer.candidates):
            while candidates:
                function = next(iter(candidates))
                if function.queues[priority]:
                    peer.sleeping = False
                    self.send(peer, answers.NOOP)
                    return
                del candidates[function]
                function.waiting[priority][peer] = None
        peer.sleeping = True
        if peer.timed:
            self._forget_deadlines(peer)

    def grab(self, peer: Peer, now: float) -> Job | None:
        """The next job for a worker, which has it from now on. The caller sends it, or NO_JOB."""
        peer.sleeping = False
        for priority, candidates in enumerate(peer.candidates):
            while candidates:
                function = next(iter(candidates))
                if function.queues[priority]:
                    if len(candidates) > 1:
                        candidates.move_to_end(function)
                    job = function.queues[priority].popleft()
                    if function.gone[priority]:
                        function.clear_front(priority)
                    function.running += 1
                    job.state = RUNNING
                    job.worker = peer
                    peer.assigned[job.handle] = job
                    if job.late_worker is not None:
                        self._too_late(job)
                    if peer.has_timeouts and (timeout_seconds := peer.abilities[function].timeout_seconds) > 0:
                        job.deadline = now + timeout_seconds
                        self._timed[job] = None
                        peer.timed = True
                    return job
                del candidates[function]
                function.waiting[priority][peer] = None
        return None

    def report(self, peer: Peer, command: Command, fields: list[bytes], missing: bytes) -> Job | None:
        """WORK_STATUS, WORK_DATA or WORK_WARNING: pass it on. `missing` answers for a job that the worker has not."""
        job = peer.assigned.get(fields[0])
        if job is None and peer.late is not None:
            job = peer.late.get(fields[0])
        if job is None:
            self.send(peer, missing)
        elif job.clients:
            self._tell(job, answers.answer(command, *fields))
        return job

    def finish(self, peer: Peer, command: Command, fields: list[bytes], missing: bytes) -> None:
        """WORK_COMPLETE, WORK_FAIL or WORK_EXCEPTION: pass it on, and the job is done."""
        job = peer.assigned.pop(fields[0], None)
        if job is None and peer.late is not None:
            job = peer.late.get(fields[0])
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

    def tick(self, now: float) -> bool:
        """Time has passed: delayed jobs fall due, and jobs that ran over their CAN_DO_TIMEOUT are handed back. True if
        that was not all of them, and it is to be called again soon."""
        for _ in range(STEP):
            if not self._delayed or self._delayed[0][0] > now:
                break
            job = heapq.heappop(self._delayed)[2]
            if job.state is DELAYED:
                job.function.held[job.priority] -= 1
                self._enqueue(job)
            else:
                self._delayed_gone -= 1
        late = list(islice((job for job in self._timed if job.deadline <= now), STEP))
        for job in late:
            self._run_over(job)
        return len(late) == STEP or bool(self._delayed and self._delayed[0][0] <= now)

    def depart(self, peer: Peer) -> Iterator[None]:
        """A connection ended: its jobs go to others, and what only it waited for need not run. To be exhausted."""
        peer.gone = True
        peer.sleeping = False
        peer.outbox.clear()
        self.errands.pop(peer, None)
        for job in list((peer.late or {}).values()):
            self._too_late(job)
        yield from self._give_up_all(peer)
        while peer.waits_for:
            for job in [peer.waits_for.pop() for _ in range(min(STEP, len(peer.waits_for)))]:
                if job.clients is not None:
                    job.clients.pop(peer, None)
                if not job.clients and not job.background and job.state is not RUNNING:
                    self._end(job)
            yield

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
            if self.uniques.setdefault(job.unique, job) is not job:
                self._more_uniques.setdefault(job.unique, {})[job] = None

    def _schedule(self, job: Job) -> None:
        if job.due:
            job.state = DELAYED
            job.function.held[job.priority] += 1
            heapq.heappush(self._delayed, (job.due, job.number, job))
        else:
            self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """Put a job at the end of its queue, and tell those who look for one."""
        function, priority = job.function, job.priority
        job.state = QUEUED
        queue = function.queues[priority]
        if queue is NO_JOBS:
            queue = function.queues[priority] = deque()
        queue.append(job)
        waiting = function.waiting[priority]
        if waiting:
            for peer in waiting:
                peer.candidates[priority][function] = None
                if peer.sleeping:
                    peer.sleeping = False
                    self.send(peer, answers.NOOP)
            waiting.clear()

    def _look_for(self, peer: Peer, function: Function) -> None:
        """A peer that did not offer the function does now."""
        if len(peer.abilities) == 1:
            peer.candidates = (OrderedDict(), OrderedDict(), OrderedDict())
        for priority, candidates in enumerate(peer.candidates):
            if function.queues[priority]:
                candidates[function] = None
                candidates.move_to_end(function, last=False)  # gearmand begins with the last, too
                if peer.sleeping:
                    peer.sleeping = False
                    self.send(peer, answers.NOOP)
            else:
                function.waiting[priority][peer] = None

    def _tell(self, job: Job, packet: bytes) -> None:
        for client, times in (job.clients or {}).items():
            self._send_times(client, packet, times)

    def _tell_exception(self, job: Job, fields: list[bytes]) -> None:
        exception = answers.answer(Command.WORK_EXCEPTION, *fields)
        failure = answers.answer(Command.WORK_FAIL, fields[0])
        for client, times in (job.clients or {}).items():
            self._send_times(client, exception if client.exceptions else failure, times)

    def _send_times(self, peer: Peer, packet: bytes, times: int) -> None:
        if not peer.gone:
            self.send(peer, packet)
            if times > 1:  # the same object, whatever its size
                peer.outbox.extend(repeat(packet, times - 1))
                self.spent += times * _SEND_COST

    def _give_up(self, peer: Peer, function: Function) -> None:
        function.workers -= peer.abilities.pop(function).can_dos
        for priority, candidates in enumerate(peer.candidates):
            candidates.pop(function, None)
            function.waiting[priority].pop(peer, None)
        self._forget_if_idle(function)

    def _give_up_all(self, peer: Peer) -> Iterator[None]:
        jobs = iter(list(peer.assigned.values()))  # what is not handed back yet stays in there, whatever comes between
        while step := list(islice(jobs, STEP)):
            for job in step:
                if peer.assigned.pop(job.handle, None) is not None:
                    self._hand_back(job)
            yield
        while peer.abilities:
            for function in list(islice(peer.abilities, STEP)):
                self._give_up(peer, function)
            yield

    def _hand_back(self, job: Job) -> None:
        if job.state is not RUNNING:
            return
        job.numerator = job.denominator = 0
        job.retries += 1
        if self.job_retries is not None and job.retries >= self.job_retries:
            self._tell(job, answers.answer(Command.WORK_FAIL, job.handle))
            self._end(job)
        elif not job.background and not job.clients:
            self._end(job)
        else:
            self._stop(job)
            self._enqueue(job)

    def _run_over(self, job: Job) -> None:
        """The time of a job is up: its worker may still answer, until another has it."""
        worker = job.worker
        if worker is None or worker.gone:
            return  # it is being handed back
        del worker.assigned[job.handle]
        self._hand_back(job)
        if job.state is QUEUED:
            job.late_worker = worker
            if worker.late is None:
                worker.late = {}
            worker.late[job.handle] = job

    def _too_late(self, job: Job) -> None:
        """What the worker that ran over its time says of the job does not count any more."""
        if job.late_worker is not None and job.late_worker.late is not None:
            del job.late_worker.late[job.handle]
        job.late_worker = None

    def _forget_deadlines(self, peer: Peer) -> None:
        peer.timed = False
        self.spent += len(peer.assigned) * _SEND_COST
        for job in peer.assigned.values():
            if job.deadline:
                job.deadline = 0.0
                del self._timed[job]

    def _stop(self, job: Job) -> None:
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
            self._unindex(job)
        if state is not RUNNING:
            job.workload = b""  # it may lie in a queue for long
            if state is QUEUED:
                function.forget_queued(job)
            else:
                function.held[job.priority] -= 1
                if state is DELAYED:
                    self._sweep_delayed()
        if job.late_worker is not None:
            self._too_late(job)
        if job.clients:
            for client in job.clients:
                client.waits_for.discard(job)
            job.clients = None
        if job.stored:
            self.ended.append(job.number)
        if not function.total and not function.workers:
            self._forget_if_idle(function)

    def _unindex(self, job: Job) -> None:
        function, unique = job.function, job.unique
        if unique == b"-":
            if function.by_workload.get(job.workload) is job:
                del function.by_workload[job.workload]
            return
        if function.by_unique.get(unique) is job:
            del function.by_unique[unique]
        if not self._more_uniques or unique not in self._more_uniques:
            del self.uniques[unique]
            return
        more = self._more_uniques[unique]
        if self.uniques[unique] is job:
            self.uniques[unique] = more.popitem()[0]
        else:
            del more[job]
        if not more:
            del self._more_uniques[unique]

    def _sweep_delayed(self) -> None:
        """One of the delayed jobs is GONE: count it, and sweep when most of them are."""
        self._delayed_gone += 1
        if self._delayed_gone > 100 and self._delayed_gone > len(self._delayed) // 2:
            self._delayed = [entry for entry in self._delayed if entry[2].state is DELAYED]
            heapq.heapify(self._delayed)
            self._delayed_gone = 0

    def _forget_if_idle(self, function: Function) -> None:
        if not (function.total or function.workers or function.created or function.name in self.limits):
            self.functions.pop(function.name, None)
