"""Capabilities that do to their process what no try block can catch, and some that only look like it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator

from geard.worker import Job


def dies(workload: str) -> str:
    """In the way that the workload names."""
    DEATHS[workload]()
    return "alive"


DEATHS: dict[str, Callable[[], object]] = {
    "exit": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "not at all": lambda: None,
}


def answers_and_dies(job: Job, workload: str) -> None:
    job.complete("answered")
    os._exit(3)


def process_id(workload: str) -> str:
    return str(os.getpid())


def talks(job: Job, workload: str) -> Iterator[str]:
    """Everything that a job can say."""
    job.status(1, 2)
    job.warning("careful ☃")
    yield f"{job.handle} {job.unique} {job.function} {job.server} "
    yield workload


def raises(workload: str) -> None:
    raise ValueError(workload)


def forks(workload: str) -> str:
    """The child goes on as if it were the job."""
    pid = os.fork()
    if not pid:
        return "the child's"
    _, status = os.waitpid(pid, 0)
    return f"the parent's, after {os.waitstatus_to_exitcode(status)}"


def holds_the_loop(workload: str) -> str:
    """As C code would that never yields."""
    end = time.monotonic() + float(workload)
    while time.monotonic() < end:
        pass
    return "done"


def kills_at_import() -> None:
    """An on_start that does not survive itself."""
    os._exit(9)


async def asynchronous(workload: str) -> AsyncIterator[str]:
    """Says much more than fits into a socket at once, from the asyncio loop's thread."""
    for number in range(20):
        yield f"{number:06d}" * 10_000
