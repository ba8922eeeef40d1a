"""Which job a stack, a greenlet or a thread runs.

Nothing is recorded while jobs run: a job in flight pays nothing for being found. The job is read off the stack when
somebody asks, from the frame that called its function. A coroutine leaves no such frame below it, so who runs one sets
`async_job` in its context.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar
from types import CodeType, FrameType
from typing import Final

from geard.worker.job import Job

async_job: Final[ContextVar[Job | None]] = ContextVar("async_job", default=None)
"""The job of a coroutine, and of the tasks that it starts: to be set in the context that it is run in."""

_runners: Final[set[CodeType]] = set()


def runs_jobs(code: CodeType) -> None:
    """Frames of this code run the job in their local variable `job`."""
    _runners.add(code)


def current_job() -> Job | None:
    """The job that the calling greenlet, thread or coroutine runs; None outside of a job.

    Greenlets and threads that a job has started are not its own: hand the job to them."""
    return job_of(sys._getframe(1)) or async_job.get()


def job_of(frame: FrameType | None) -> Job | None:
    """The job that the stack ending in `frame` runs; None for geard's own and for the user's other greenlets."""
    while frame is not None:
        if frame.f_code in _runners:
            job = frame.f_locals.get("job")
            return job if isinstance(job, Job) else None
        frame = frame.f_back
    return None
