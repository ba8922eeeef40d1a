"""multiprocessing in a patched process: its waits let other greenlets run.

What gevent does not know of: semaphores are waited for in C, and pipes are read and written by os.read and os.write.
Pools have threads for both, which are greenlets here, so one that waited so would hold up the whole process, itself
included. Queues, pools and executors are built from these two, and need no more.
"""

from __future__ import annotations

import os
import select
import threading
import time
from importlib import import_module
from multiprocessing import connection, forkserver, popen_fork
from typing import TYPE_CHECKING, Any, Final

from geard.worker.forked import STATE

SHORT_SECONDS: Final = 0.0005
LONG_SECONDS: Final = 0.02
"""A semaphore of another process is looked at again after so long: at first, and in the end."""

REAPED_SECONDS: Final = 1.0
"""How long to wait for the exit code of a process that another thread has reaped."""

ATOMIC_BYTES: Final = select.PIPE_BUF
"""What a pipe that can be written to takes without blocking."""

_RECURSIVE: Final = 0
_c_module: Final = import_module("_multiprocessing")
if TYPE_CHECKING:

    class CSemLock:
        kind: int

        def acquire(self, block: bool = True, timeout: float | None = None) -> bool: ...

        def _is_mine(self) -> bool: ...

else:
    CSemLock = _c_module.SemLock


class SemLock(CSemLock):
    """A semaphore shared by processes, waited for by looking again and again."""

    _holder: int | None = None  # the greenlet that has it; C knows only threads

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """As multiprocessing's."""
        if block and STATE.forked and threading.active_count() == 1:  # nothing else could run here
            return super().acquire(block, timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = SHORT_SECONDS
        while not self._try():
            if not block or (deadline is not None and time.monotonic() >= deadline):
                return False
            time.sleep(pause if deadline is None else max(min(pause, deadline - time.monotonic()), 0))
            pause = min(pause * 2, LONG_SECONDS)
        return True

    def _try(self) -> bool:
        me = threading.get_ident()
        if self.kind == _RECURSIVE and self._is_mine() and self._holder != me:
            return False
        taken = super().acquire(False)
        if taken:
            self._holder = me
        return taken

    def __enter__(self) -> bool:
        return self.acquire()


def read(descriptor: int, size: int) -> bytes:
    """os.read that waits without holding up others."""
    _wait(descriptor, select.POLLIN)
    return os.read(descriptor, size)


def write(descriptor: int, data: Any) -> int:
    """os.write that waits without holding up others. Writes no more than surely fits."""
    _wait(descriptor, select.POLLOUT)
    return os.write(descriptor, memoryview(data)[:ATOMIC_BYTES])


def install() -> None:
    """Before user code is imported: use all this."""
    pipe: Any = connection.Connection
    server: Any = forkserver
    _c_module.SemLock = SemLock  # type: ignore[attr-defined]
    pipe._recv.__defaults__ = (read,)
    pipe._send.__defaults__ = (write,)
    read_signed = server.read_signed

    def read_signed_later(descriptor: int) -> Any:
        _wait(descriptor, select.POLLIN)
        return read_signed(descriptor)

    server.read_signed = read_signed_later
    _wait_for_who_reaped()


def _wait_for_who_reaped() -> None:
    """Whoever starts a process looks at all others, and may reap one that another native thread waits for. The waiting
    thread finds it gone a moment before its exit code is there."""
    poll = popen_fork.Popen.poll

    def poll_again(popen: Any, flag: int = os.WNOHANG) -> int | None:
        code: int | None = poll(popen, flag)
        deadline = time.monotonic() + REAPED_SECONDS
        while code is None and not flag & os.WNOHANG and time.monotonic() < deadline:
            time.sleep(SHORT_SECONDS)
            code = popen.returncode
        return code

    popen_fork.Popen.poll = poll_again  # type: ignore[method-assign, assignment]


def _wait(descriptor: int, events: int) -> None:
    poll = select.poll()
    poll.register(descriptor, events)
    poll.poll()
