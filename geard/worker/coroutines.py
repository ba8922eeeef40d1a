"""`async def` capabilities: the coroutines of all jobs of a process, on one asyncio loop in a native thread.

Who runs a job hands its coroutine over and waits for its end, as a greenlet or a thread does: the number of jobs at a
time, drains and counters are those of all jobs. Plain asyncio and threads: a worker process hands in how to start a
native thread, how a greenlet waits, and what its loop needs (see greenlets.py).

Rules:
- Nothing here blocks the loop, and nothing that a coroutine raises gets past its own job.
- A job that is late is cancelled where it awaits, and answered when it has ended; at the latest LATE_SECONDS later,
  since a coroutine may refuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any, Final, Protocol

from geard.errors import JobTimeout
from geard.worker.current import async_job
from geard.worker.forked import end_if_forked
from geard.worker.job import Job
from geard.worker.run import about, label

log = logging.getLogger("geard.worker")

LATE_SECONDS: Final = 1.0
"""How long a coroutine that was cancelled may take to end before its job is answered without it."""

Begin = Callable[[Job], Coroutine[Any, Any, Any]]


class Waiter(Protocol):
    """How one job's greenlet or thread waits: `set` is called once, by the loop's thread."""

    def set(self) -> None:
        """Wake who waits."""

    def wait(self) -> object:
        """Block until `set`."""


class Coroutines:
    """The loop, and the way there and back. Its thread starts at once and lives as long as the process."""

    def __init__(
        self,
        start_thread: Callable[[Callable[[], None]], object],
        waiter: Callable[[], Waiter],
        prepare: Callable[[asyncio.AbstractEventLoop], None] = lambda loop: None,
    ) -> None:
        self._waiter = waiter
        self._prepare = prepare
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: deque[Callable[[], None]] = deque()
        self._called = False  # the loop will look into the inbox
        start_thread(self._live)

    def run(self, begin: Begin, job: Job, late: Callable[[], str], seconds: float | None) -> Any:
        """Run the job's coroutine and return what it returned. Blocks the caller, and nobody else.

        Raises what it raised; JobTimeout with the text of `late` if it takes longer than `seconds`."""
        run = _Run(begin, job, late, seconds, self._waiter())
        self._call(run.start)
        try:
            run.waiter.wait()
        except BaseException:  # the caller was interrupted
            self._call(run.cancel)
            raise
        result, error = run.result, run.error
        if error is None:
            return result
        del run
        try:
            raise error
        finally:
            del error  # or it would hold this frame, and the frame it

    def _call(self, what: Callable[[], None]) -> None:
        self._inbox.append(what)
        if self._loop and not self._called:
            self._called = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._called = False  # before the look, or what comes meanwhile would be left
        while self._inbox:
            self._inbox.popleft()()

    def _live(self) -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._prepare(loop)
        loop.call_soon(self._take)
        self._loop = loop
        while True:
            try:
                loop.run_forever()
            except BaseException as error:  # SystemExit of a task that a job has started goes through the loop
                end_if_forked(error)
                log.warning("a task of an asyncio job ended with %r", error)


class _Run:
    """One job's coroutine. All but the making happens in the loop's thread, `result` and `error` when it has ended."""

    __slots__ = (
        "_begin",
        "_context",
        "_ended",
        "_late",
        "_seconds",
        "_task",
        "_timer",
        "error",
        "job",
        "result",
        "waiter",
    )

    def __init__(self, begin: Begin, job: Job, late: Callable[[], str], seconds: float | None, waiter: Waiter) -> None:
        self.job = job
        self.waiter = waiter
        self.result: Any = None
        self.error: BaseException | None = None
        self._begin = begin
        self._late = late
        self._seconds = seconds
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ended = False
        self._context = copy_context()  # the caller's: what middleware has set there

    def start(self) -> None:
        """Make the task."""
        loop = asyncio.get_running_loop()
        self._context.run(async_job.set, self.job)
        self._task = loop.create_task(self._whole(), context=self._context)
        if self._seconds is not None:
            self._timer = loop.call_later(self._seconds, self._be_late)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        if self._task:
            self._task.cancel()

    async def _whole(self) -> None:
        result = error = None
        try:
            result = await self._begin(self.job)
        except BaseException as raised:
            error = raised
        end_if_forked(error)
        if self._ended:
            log.warning("%s: ended, long after its timeout", label(self.job), extra=about(self.job))
            return
        self.result, self.error = result, self.error or error
        self._end()

    def _be_late(self) -> None:
        self.error = JobTimeout(self._late())
        self.cancel()
        self._timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        log.warning("%s: goes on, though it was cancelled", label(self.job), extra=about(self.job))
        self._end()

    def _end(self) -> None:
        self._ended = True
        if self._timer:
            self._timer.cancel()
        self.waiter.set()
