"""What the job server remembers: jobs, functions and peers, as plain records.

Rules:
- Only `rules.Rules` changes these; the network reads a peer's outbox and empties it.
- A job that ended is `GONE` for good. It may still lie in a queue, which skips it: taking it out of the middle of a
  deque would cost as much as the queue is long.
- There may be hundreds of thousands of jobs and thousands of peers, so all have slots and no container that is empty
  most of the time.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import Final

UNLIMITED: Final = (0, 0, 0)
"""The queue limits of a function that has none."""


class Priority(enum.IntEnum):
    """The three queues of a function, in the order in which they are served."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class State(enum.Enum):
    """Where a job is."""

    STAGED = "staged"  # submitted, and waits for the store to take it
    DELAYED = "delayed"  # its time has not come
    QUEUED = "queued"  # a worker may have it
    RUNNING = "running"  # assigned to a worker
    GONE = "gone"  # ended, cancelled, or nobody wants it any more


STAGED: Final = State.STAGED  # by these names a third of the time: a member is looked up through the class's metaclass
DELAYED: Final = State.DELAYED
QUEUED: Final = State.QUEUED
RUNNING: Final = State.RUNNING
GONE: Final = State.GONE


class Job:
    """A job, from its submission until it is done."""

    __slots__ = (
        "background",
        "clients",
        "deadline",
        "denominator",
        "due",
        "function",
        "handle",
        "numerator",
        "priority",
        "reducer",
        "retries",
        "state",
        "stored",
        "unique",
        "worker",
        "workload",
    )

    def __init__(
        self,
        handle: bytes,
        function: Function,
        unique: bytes,
        workload: bytes,
        priority: int,
        background: bool,
        reducer: bytes = b"",
        due: float = 0.0,
    ) -> None:
        self.handle = handle
        self.function = function
        self.unique = unique
        self.workload = workload
        self.priority = priority
        self.background = background  # runs whether or not a client waits for it
        self.reducer = reducer
        self.due = due  # in seconds since the epoch, when a delayed job may run; 0: at once
        self.state: State = QUEUED
        self.clients: list[Peer] | None = None  # who hears of it; a client is in here once for each submission
        self.worker: Peer | None = None
        self.numerator = 0
        self.denominator = 0
        self.retries = 0  # how often it was handed back
        self.deadline = 0.0  # when CAN_DO_TIMEOUT takes it from its worker; 0: never
        self.stored = False  # in the queue file

    def __repr__(self) -> str:
        kind = "background" if self.background else "foreground"
        return f"<Job {self.handle.decode()} {self.function.name!r} {kind} {self.state.value}>"

    @property
    def number(self) -> int:
        """The number in its handle."""
        return int(self.handle.rpartition(b":")[2])


class Function:
    """A function name with its queues and its workers."""

    __slots__ = (
        "by_unique",
        "by_workload",
        "gone",
        "limits",
        "name",
        "queues",
        "ready",
        "running",
        "sleepers",
        "total",
        "workers",
    )

    def __init__(self, name: bytes, limits: tuple[int, int, int] = UNLIMITED) -> None:
        self.name = name
        self.limits = limits  # by priority: no new job when there are so many in all; 0: no limit
        self.queues: tuple[deque[Job], ...] = (deque(), deque(), deque())
        self.ready = 0  # jobs in the queues that a worker may have
        self.gone = 0  # jobs in the queues that are GONE
        self.running = 0
        self.total = 0  # ready, running, delayed and staged
        self.workers = 0  # CAN_DOs, as `status` counts them
        self.sleepers: dict[Peer, None] = {}  # a set that keeps its order
        self.by_unique: dict[bytes, Job] = {}
        self.by_workload: dict[bytes, Job] = {}  # jobs whose unique is "-": the workload tells them apart

    def __repr__(self) -> str:
        return f"<Function {self.name!r} {self.ready} ready {self.running} running {self.workers} workers>"

    def push(self, job: Job) -> None:
        """Put a job at the end of its queue."""
        job.state = QUEUED
        self.queues[job.priority].append(job)
        self.ready += 1

    def pop(self) -> Job:
        """The next job, by priority and then by age. Only when `ready` says that there is one."""
        for queue in self.queues:
            while queue:
                job = queue.popleft()
                if job.state is QUEUED:
                    self.ready -= 1
                    return job
                self.gone -= 1
        raise LookupError(f"{self!r} has no job")

    def forget_queued(self, job: Job) -> None:
        """A queued job is GONE: count it, free its workload, and sweep when most of the queue is like it."""
        self.ready -= 1
        self.gone += 1
        job.workload = b""
        if self.gone > 100 and self.gone > self.ready:
            self.queues = tuple(deque(job for job in queue if job.state is QUEUED) for queue in self.queues)
            self.gone = 0


class Peer:
    """A connection as the rules see it: client, worker or both."""

    __slots__ = (
        "abilities",
        "assigned",
        "client_id",
        "exceptions",
        "outbox",
        "sleeping",
        "timeouts",
        "waits_for",
    )

    def __init__(self) -> None:
        self.outbox: list[bytes] = []  # packets to send at the end of the turn
        self.abilities: tuple[Function, ...] = ()  # the last registered first, as they are served
        self.timeouts: dict[Function, float] | None = None  # of CAN_DO_TIMEOUT
        self.assigned: dict[bytes, Job] = {}  # by handle
        self.waits_for: set[Job] = set()
        self.sleeping = False
        self.exceptions = False  # asked for WORK_EXCEPTION
        self.client_id = b"-"

    def __repr__(self) -> str:
        kind = "asleep" if self.sleeping else "awake"
        return f"<Peer {self.client_id.decode(errors='replace')} {kind} {len(self.assigned)} jobs>"
