"""threading.Lock between the native threads of a patched process.

A lock of gevent's belongs to the hub of the thread that holds it, and wakes who waits for it by that hub. The hub of a
native thread runs only while the thread waits for something, so who waits for a lock that such a thread held for a
moment (an import's, logging's) would wait until the thread's next job, or for ever.

Rule: a lock that another thread holds is asked for again and again; only greenlets of one thread queue for it.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any, Final

from gevent.hub import get_hub
from gevent.lock import BoundedSemaphore

from geard import native

SHORT_SECONDS: Final = 0.0002
LONG_SECONDS: Final = 0.01
"""How soon to ask again: at first, and in the end."""

LockType: Final[Any] = import_module("gevent.thread").LockType
_take: Final[Any] = BoundedSemaphore.acquire
_wait: Final = LockType.acquire


def install() -> None:
    """In the main thread, before user code is imported."""
    get_ident = native.get_ident
    main = get_ident()

    def acquire(self: Any, blocking: bool = True, timeout: float | None = -1) -> Any:
        if not blocking or timeout == 0:
            return (timeout == -1 and _take(self, False)) or _wait(self, blocking, timeout)
        pause, deadline = SHORT_SECONDS, 0.0
        while True:
            # Another thread must not come before greenlets that queue: its hub would be the one to wake them.
            if (get_ident() == main or not self.linkcount()) and _take(self, False):
                return True
            if self.hub is get_hub():
                return _wait(self, True, max(deadline - time.monotonic(), 0) if deadline else timeout)
            if timeout is not None and timeout > 0:
                deadline = deadline or time.monotonic() + timeout
                if time.monotonic() >= deadline:
                    return False
            time.sleep(pause)
            pause = min(pause * 2, LONG_SECONDS)

    LockType.acquire = acquire
