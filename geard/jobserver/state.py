"""What the job server remembers: jobs, functions and peers, as plain records.

Rules:
- Only `rules.Rules` and its bases change these; the network reads a peer's outbox and empties it.
- A job that ended is `GONE` for good. It may still lie in a queue, but never at its front: a queue that is not empty
  has a job for a worker. Taking one out of the middle of a deque would cost as much as the queue is long.
- A peer looks for jobs only where there may be some. A function that it offers is, for each priority, either among the
  peer's `candidates` or has the peer among its `waiting`: it goes there when the peer finds that queue empty, and back
  when a job is queued. So what a grab or a sleep costs does not grow with the functions that a worker offers.
- There may be hundreds of thousands of jobs and thousands of peers, so all have slots and no container that is empty
  most of the time.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from typing import Final

from geard.printable import printable

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
        "late_worker",
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
        self.clients: dict[Peer, int] | None = None  # who hears of it, and how often: once for each submission
        self.worker: Peer | None = None
        self.late_worker: Peer | None = None  # ran over its time, and may still answer while no other has the job
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
        "created",
        "gone",
        "held",
        "limits",
        "name",
        "queues",
        "running",
        "total",
        "waiting",
        "workers",
    )

    def __init__(self, name: bytes, limits: tuple[int, int, int] = UNLIMITED) -> None:
        self.name = name
        self.limits = limits  # by priority: no new job when there are so many in all; 0: no limit
        self.queues: list[deque[Job]] = [NO_JOBS, NO_JOBS, NO_JOBS]
        self.gone = [0, 0, 0]  # jobs in the queues that are GONE
        self.held = [0, 0, 0]  # delayed and staged jobs
        self.running = 0
        self.total = 0  # in the queues, running, delayed and staged
        self.workers = 0  # CAN_DOs, as `status` counts them
        self.created = False  # by an operator, who wants it known
        self.waiting: tuple[dict[Peer, None], ...] = ({}, {}, {})  # who is to be told of a job: a set that keeps order
        self.by_unique: dict[bytes, Job] = {}
        self.by_workload: dict[bytes, Job] = {}  # jobs whose unique is "-": the workload tells them apart

    def __repr__(self) -> str:
        return f"<Function {self.name!r} {self.total} jobs {self.running} running {self.workers} workers>"

    def queued(self, priority: int) -> int:
        """How many jobs of this priority a worker may have now."""
        return len(self.queues[priority]) - self.gone[priority]

    def forget_queued(self, job: Job) -> None:
        """A queued job is GONE: count it, and sweep when most of the queue is like it."""
        priority = job.priority
        self.gone[priority] += 1
        queue = self.queues[priority]
        if self.gone[priority] > 100 and self.gone[priority] > len(queue) // 2:
            live = [each for each in queue if each.state is QUEUED]
            queue.clear()
            queue.extend(live)
            self.gone[priority] = 0
        else:
            self.clear_front(priority)

    def clear_front(self, priority: int) -> None:
        """Take out jobs that are GONE, up to the first that is not."""
        queue = self.queues[priority]
        while queue and queue[0].state is not QUEUED:
            queue.popleft()
            self.gone[priority] -= 1


class Ability:
    """That a worker offers a function."""

    __slots__ = ("can_dos", "timeout_seconds")

    def __init__(self) -> None:
        self.can_dos = 0  # each counts as a worker in `status`
        self.timeout_seconds = 0.0  # of CAN_DO_TIMEOUT; 0: none


class Peer:
    """A connection as the rules see it: client, worker or both."""

    __slots__ = (
        "abilities",
        "assigned",
        "candidates",
        "client_id",
        "exceptions",
        "gone",
        "has_timeouts",
        "late",
        "outbox",
        "sleeping",
        "timed",
        "waits_for",
    )

    def __init__(self) -> None:
        self.outbox: list[bytes] = []  # packets to send at the end of the turn
        self.abilities: dict[Function, Ability] = {}  # in the order of their CAN_DO
        self.candidates: tuple[OrderedDict[Function, None], ...] = _NO_CANDIDATES  # by priority; whose turn is first
        self.has_timeouts = False  # has ever said CAN_DO_TIMEOUT
        self.timed = False  # has had a job with a deadline since it last slept
        self.assigned: dict[bytes, Job] = {}  # by handle
        self.late: dict[bytes, Job] | None = None  # queued again, but it may still answer: see Job.late_worker
        self.waits_for: set[Job] = set()
        self.sleeping = False
        self.gone = False  # departed: nothing is sent to it
        self.exceptions = False  # gets WORK_EXCEPTION
        self.client_id = b"-"

    def __repr__(self) -> str:
        kind = "asleep" if self.sleeping else "awake"
        return f"<Peer {printable(self.client_id.decode(errors='replace'))} {kind} {len(self.assigned)} jobs>"


NO_JOBS: Final[deque[Job]] = deque(maxlen=0)
"""The queue of every function that never had a job of that priority: deques take more than the rest. Never changed."""
_NO_CANDIDATES: Final[tuple[OrderedDict[Function, None], ...]] = (OrderedDict(), OrderedDict(), OrderedDict())
"""Of every peer that has offered nothing yet, which most clients never do. Never changed."""
