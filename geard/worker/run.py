"""Run one job and answer it, whatever its function does.

Rule: nothing that user code raises gets past `run`, BaseExceptions included: the job gets WORK_EXCEPTION and the
greenlet goes on to the next. A greenlet that user code killed would be missing for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from geard.errors import JobTimeout, ProcessKilled
from geard.printable import printable
from geard.protocol import Command, Oversized, Packet, request
from geard.worker.capability import BoundCapability
from geard.worker.current import runs_jobs
from geard.worker.forked import end_if_forked
from geard.worker.job import Job
from geard.worker.policy import FailedElsewhere
from geard.worker.words import is_a, message_of, name_of

log = logging.getLogger("geard.worker")

SAY_IT_ALL: Final = (JobTimeout, ProcessKilled)
"""Errors of geard's own, whose text needs neither type nor traceback."""


def run(job: Job) -> None:
    """Run the job's function and send what it returned, unless it has answered itself."""
    try:
        result = job.capability.invoke(job)
        if not job.answered:
            job.finish(result)
    except BaseException as error:
        ended_badly(job, error)


runs_jobs(run.__code__)


def ended_badly(job: Job, error: BaseException) -> None:
    """Decide what becomes of a job that ended with this error, answer it if it does not run again, and log it."""
    end_if_forked(error)
    # `failure`: the log writes the same one whole once, and counts the others.
    extra = about(job) | {"failure": name_of(error)}
    if job.answered:
        text = f"{printable(job.function)} raised after it had answered"
        log.error("%s: %s", label(job), text, exc_info=error, extra=extra)
        return
    after_failure = job.capability.after_failure
    if after_failure is not None and _runs_again(after_failure, job, error):
        job.error, job.failed = error, True
        return
    says_it_all = is_a(error, SAY_IT_ALL)
    text = failure(error)
    try:
        job.exception(text)
    finally:  # a log handler of user code may do anything: the job has been answered
        job.error = error
        shown = None if says_it_all else error  # for anything else the traceback shows where
        log.error("%s: job failed: %s", label(job), printable(text), exc_info=shown, extra=extra)


def _runs_again(after_failure: Callable[[Job, BaseException], bool], job: Job, error: BaseException) -> bool:
    try:
        return after_failure(job, error)
    except BaseException:  # the time limit of a job, say, that struck late: it must not cost the job its answer
        log.exception("%s: what was to become of it after its failure failed too", label(job), extra=about(job))
        return job.answered


def failure(error: BaseException) -> str:
    """What client, log and dead letter are told of what a job ended with."""
    return str(error) if is_a(error, (*SAY_IT_ALL, FailedElsewhere)) else describe(error)


def about(job: Job) -> dict[str, str]:
    """The fields of a line about a job."""
    return {"function": job.function, "handle": job.handle, "unique": job.unique, "server": job.server}


def label(job: Job) -> str:
    """`reverse H:host:7 (unique u-1)`: what every line about a job begins with."""
    unique = f" (unique {job.unique})" if job.unique else ""
    return printable(f"{job.function} {job.handle}{unique}")


def late_text(job: Job, seconds: float) -> str:
    """What client and log are told of a job that ran over its time limit."""
    return f"{printable(job.function)} ran longer than its timeout of {seconds:g} s"


def refuse(capability: BoundCapability | None, packet: Packet) -> tuple[str, bytes]:
    """Why the job that this packet assigns fails before it begins, which is logged, and the packet that ends it."""
    handle, function = packet.fields[:2]
    if capability and isinstance(packet, Oversized):
        reason = f"too large for this worker: {packet.text} (max_packet)"
        answer = capability.work_failed(handle, reason.encode())
    else:
        reason = "no such function here"
        answer = request(Command.WORK_FAIL, handle)
    names = {"function": function.decode(errors="replace"), "handle": handle.decode(errors="replace")}
    text = printable("{function} {handle}".format_map(names))
    log.error("%s: %s: failed", text, reason, extra=names | {"failure": "refused"})
    return reason, answer


_LOOP_TAKEN: Final = (
    "asyncio.run() cannot be called from a running event loop",
    "Cannot run the event loop while another loop is running",
    "This event loop is already running",
)
_ONE_A_THREAD: Final = ": another job runs one in this thread. Make the function `async def`, or set `thread: true`"


def describe(error: BaseException) -> str:
    """`ValueError: message`, as clients get to see it."""
    text = message_of(error)
    if is_a(error, RuntimeError) and text in _LOOP_TAKEN:
        text += _ONE_A_THREAD
    return f"{name_of(error)}: {text}" if text else name_of(error)
