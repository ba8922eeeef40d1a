"""Plain threads' way to do what the pool asks for: start threads, limit a job's time, run coroutines.

Rule: it is for a process that nothing has patched, which may be anybody's program: a thread cannot be interrupted, so a
job that is late is answered in time, and its thread comes back when its function does. See greenlets.py for the other
way.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Any, Final

from geard.errors import JobTimeout
from geard.worker.capability import Runtime
from geard.worker.job import Job
from geard.worker.middleware import Begin, Invoke
from geard.worker.run import about, ended_badly, label, late_text

if TYPE_CHECKING:
    from geard.worker.coroutines import Coroutines

log = logging.getLogger("geard.worker")


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Start what a channel needs."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


@contextmanager
def answer_when_late(job: Job, seconds: float) -> Iterator[None]:
    """The time limit where nothing can interrupt a function: the job is answered in time, or will run again, and its
    thread stays busy until the function returns."""
    timer = threading.Timer(seconds, _answer_late, (job, seconds))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _answer_late(job: Job, seconds: float) -> None:
    # No call between read and write of the flag, as in Job.finish: from here on its function's result comes too late.
    answered, job.answered = job.answered, True
    if answered:
        return
    error = JobTimeout(late_text(job, seconds))
    job.error, job.failed = error, True
    failed = copy(job)
    failed.answered = failed.failed = False
    ended_badly(failed, error)
    log.warning("%s: its thread is busy until the function returns", label(job), extra=about(job))


def call_here(invoke: Invoke, job: Job) -> Any:
    """`thread: true` where every job has a thread anyway."""
    return invoke(job)


_coroutines_lock: Final = threading.Lock()
_coroutines: list[Coroutines] = []


def run_in_loop(begin: Begin, job: Job, seconds: float | None) -> Any:
    """`async def` beside plain threads: one loop for the process, made for the first job that wants it."""
    from geard.worker.coroutines import Coroutines  # asyncio is loaded for those who use it

    with _coroutines_lock:
        if not _coroutines:
            _coroutines.append(Coroutines(lambda target: start_thread(target, "geard asyncio"), threading.Event))
    return _coroutines[0].run(begin, job, lambda: late_text(job, seconds or 0.0), seconds)


THREADS: Final = Runtime(limit=answer_when_late, in_thread=call_here, in_loop=run_in_loop)
