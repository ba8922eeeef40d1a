"""What workers ask for: jobs, each assigned to one worker at a time, and handed back when that worker cannot do it.

Rules:
- Only the result of the worker that has a job counts.
- A worker gets jobs of high priority before those of normal and low, whatever their function; its functions take
  turns.
- A job that is handed back (its worker went, gave up the function, or ran over CAN_DO_TIMEOUT) is queued again at the
  end of its queue, until `job_retries` times; then its clients get WORK_FAIL.
- A worker that ran over CAN_DO_TIMEOUT may still answer, until another has the job. PRE_SLEEP ends the deadlines of the
  jobs that it has, as in gearmand: it means to do other things beside them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Final

from geard.jobserver import answers
from geard.jobserver.queues import SEND_COST, Queues
from geard.jobserver.state import GONE, QUEUED, RUNNING, Ability, Function, Job, Peer
from geard.protocol import Command

MAX_ABILITIES: Final = 100_000
"""Functions that one worker may offer; gearmand takes any number."""
STEP: Final = 256
"""Jobs or functions that are dealt with before others get their turn."""
_WHOLE_TURN: Final = 1 << 30
_DONE: Final = object()


class Assignments(Queues):
    """The workers' half of the rules."""

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
            self.spent += len(peer.assigned) * SEND_COST
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
        job = peer.assigned.get(fields[0])
        if job is None and peer.late is not None:
            job = peer.late.get(fields[0])
        if job is None:
            self.send(peer, missing)
            return
        if job.clients:
            if command is Command.WORK_EXCEPTION:
                self._tell_exception(job, fields)
            else:
                self._tell(job, answers.answer(command, *fields))
        peer.assigned.pop(fields[0], None)  # not before: there may be no memory for the answer
        if job.state is not GONE:  # cancelled while it ran
            self._end(job)

    # --- within ---------------------------------------------------------------------------------------------------

    def _tell_exception(self, job: Job, fields: list[bytes]) -> None:
        exception = answers.answer(Command.WORK_EXCEPTION, *fields)
        failure = answers.answer(Command.WORK_FAIL, fields[0])
        for client, times in (job.clients or {}).items():
            self._send_times(client, exception if client.exceptions else failure, times)

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

    def _forget_deadlines(self, peer: Peer) -> None:
        peer.timed = False
        self.spent += len(peer.assigned) * SEND_COST
        for job in peer.assigned.values():
            if job.deadline:
                job.deadline = 0.0
                del self._timed[job]
