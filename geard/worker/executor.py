"""Native threads for what a coroutine hands off: `asyncio.to_thread` and `loop.run_in_executor(None, …)`.

concurrent.futures' own threads would be greenlets in a patched process, and code that blocks would hold up the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from geard import native

THREADS: Final = min(32, (os.cpu_count() or 1) + 4)
"""As many as concurrent.futures has."""

P = ParamSpec("P")
T = TypeVar("T")
Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class NativeThreads(ThreadPoolExecutor):
    """Threads that are started when all others are busy, and live as long as the process."""

    def __init__(self) -> None:
        super().__init__(THREADS)
        self._native_queue = native.SimpleQueue()
        self._started = 0
        self._pending = 0  # handed in and not yet done
        self._counting = native.allocate_lock()

    def submit(self, function: Callable[P, T], /, *arguments: P.args, **keywords: P.kwargs) -> Future[T]:
        """Run the function in a thread."""
        future: Future[T] = Future()
        self._native_queue.put((future, function, arguments, keywords))
        with self._counting:
            self._pending += 1
            if self._pending > self._started and self._started < THREADS:
                self._started += 1
                native.start_new_thread(self._work, ())
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing: the threads end with the process."""

    def _work(self) -> None:
        while True:
            work: Work = self._native_queue.get()
            future, function, arguments, keywords = work
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments, **keywords))
                except BaseException as error:
                    future.set_exception(error)
            del work, future, function, arguments, keywords
            with self._counting:
                self._pending -= 1
