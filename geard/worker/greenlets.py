"""gevent's way to do what the pool asks for: start greenlets, limit a job's time, run C code in native threads.

Only a worker process imports this; the pool itself is handed the functions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gevent
from gevent.hub import Waiter
from gevent.threadpool import ThreadPool

from geard import native
from geard.errors import JobTimeout
from geard.worker.capability import Runtime
from geard.worker.current import runs_jobs
from geard.worker.forked import end_if_forked
from geard.worker.job import Job
from geard.worker.middleware import Begin, Invoke
from geard.worker.run import late_text

if TYPE_CHECKING:
    from geard.worker.coroutines import Coroutines


def start_greenlet(target: Callable[[], None], name: str) -> gevent.Greenlet[..., None]:
    """Start a greenlet for the pool."""
    greenlet = gevent.spawn(target)
    greenlet.name = name
    return greenlet


def sleep_ahead(seconds: float) -> None:
    """Sleep, and go on before every other greenlet that the loop wakes in the same turn."""
    hub: Any = gevent.get_hub()
    with hub.loop.timer(seconds, priority=hub.loop.MAXPRI) as timer:
        hub.loop.update_now()
        hub.wait(timer)


class TimeUp(gevent.Timeout):
    """A job's time limit has struck."""


class Interrupt:
    """The time limit of one job: its greenlet gets a TimeUp where it waits, and JobTimeout comes out.

    The timeout is on while user code runs, and off before geard's own code goes on. A function that holds the loop is
    not interrupted until it yields: nothing inside the process could."""

    __slots__ = ("_job", "_seconds", "_timeout")

    def __init__(self, job: Job, seconds: float) -> None:
        self._job = job
        self._seconds = seconds

    def __enter__(self) -> None:
        self._timeout = TimeUp.start_new(self._seconds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timeout.close()
        if error is self._timeout:
            raise JobTimeout(late_text(self._job, self._seconds))


def meaning(error: BaseException, job: Job, seconds: float) -> BaseException:
    """What a function that was interrupted has raised, for the middleware around it."""
    return JobTimeout(late_text(job, seconds)) if isinstance(error, TimeUp) else error


def runtime(native_threads: int) -> Runtime:
    """How a worker process runs jobs: `native_threads` is how many `thread: true` jobs can run at once."""
    threads = ThreadPool(max(native_threads, 1))

    def in_thread(invoke: Invoke, job: Job) -> Any:
        result, error = threads.apply(_outcome, (invoke, job))
        if error is not None:
            raise error
        return result

    made: list[Coroutines] = []

    def in_loop(begin: Begin, job: Job, seconds: float | None) -> Any:
        if not made:
            made.append(coroutines())
        return made[0].run(begin, job, lambda: late_text(job, seconds or 0.0), seconds)

    return Runtime(limit=Interrupt, in_thread=in_thread, in_loop=in_loop, meaning=meaning, whose=gevent.get_hub)


def coroutines() -> Coroutines:
    """The asyncio loop of a worker process, in a native thread of its own.

    What is patched is cooperative in that thread too, by the thread's own hub, which runs while the loop waits: a
    library's sockets, locks and threads work there. Only the loop's executor has native threads, for code that blocks.
    """
    from geard.worker.coroutines import Coroutines  # asyncio is loaded for those who use it
    from geard.worker.executor import NativeThreads

    woken: deque[Waiter[None]] = deque()

    def wake() -> None:
        while woken:
            woken.popleft().switch(None)

    async_watcher = gevent.get_hub().loop.async_()
    async_watcher.start(wake)

    class GreenletWaiter:
        __slots__ = ("_waiter",)

        def __init__(self) -> None:
            self._waiter: Waiter[None] = Waiter()

        def set(self) -> None:
            woken.append(self._waiter)
            async_watcher.send()

        def wait(self) -> None:
            self._waiter.get()

    return Coroutines(
        lambda target: native.start_new_thread(target, ()),
        GreenletWaiter,
        lambda loop: loop.set_default_executor(NativeThreads()),
    )


def _outcome(invoke: Invoke, job: Job) -> tuple[Any, BaseException | None]:
    """What the call returned or raised. An error is handed over as a value: gevent would print it, and copy its
    traceback by recursion, which fails for a deep one and leaves the greenlet waiting for ever."""
    result, raised = None, None
    try:
        result = invoke(job)
    except BaseException as error:
        raised = error
    end_if_forked(raised)
    return result, raised


runs_jobs(_outcome.__code__)
