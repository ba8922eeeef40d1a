"""What is queued and known: the jobs by handle and unique, the functions, and who is told when something is ready.

Rules:
- A job is in all indexes from its submission to its end, and in none after. Only `_index` and `_end` change them.
- Sleepers hear NOOP once, whenever a job that they could grab becomes ready; also when a delayed job falls due.
- A function that nobody has a job, a worker or a limit for is forgotten.
- What one request may cost is added up in `spent`; what takes longer than that is done in steps, with others between.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from typing import Final

from geard.jobserver import answers
from geard.jobserver.state import DELAYED, GONE, NO_JOBS, QUEUED, RUNNING, Function, Job, Peer

MAX_NAME_BYTES: Final = 4096
"""Of a function name or client id; gearmand takes any."""
SEND_COST: Final = 64
"""What a packet costs beside its bytes."""


class Queues:
    """The state of a job server, and what submissions and workers both do to it."""

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
        self.spent += len(packet) + SEND_COST

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

    # --- within ---------------------------------------------------------------------------------------------------

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

    def _tell(self, job: Job, packet: bytes) -> None:
        for client, times in (job.clients or {}).items():
            self._send_times(client, packet, times)

    def _send_times(self, peer: Peer, packet: bytes, times: int) -> None:
        if not peer.gone:
            self.send(peer, packet)
            if times > 1:  # the same object, whatever its size
                peer.outbox.extend(repeat(packet, times - 1))
                self.spent += times * SEND_COST

    def _too_late(self, job: Job) -> None:
        """What the worker that ran over its time says of the job does not count any more."""
        if job.late_worker is not None and job.late_worker.late is not None:
            del job.late_worker.late[job.handle]
        job.late_worker = None

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
