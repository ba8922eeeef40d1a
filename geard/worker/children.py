"""Child processes of a worker process: waited for by greenlets and by native threads alike.

gevent learns of the end of a child by SIGCHLD on the main thread's loop, and then reaps every child there is, also
those that others wait for; in any other thread it refuses. Rule here: a child is reaped by who waits for it, when its
pidfd says that it has ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import gevent
import gevent.os
from gevent.libev.corecext import loop as libev_loop

from geard import native

POLL_SECONDS: Final = 0.02
"""How often to look at a child that no pidfd tells of: another kind of wait, or a kernel before 5.3."""

_READ: Final = 1
_gevent_os: Final[Any] = gevent.os


class Loop(libev_loop):
    """libev's loop with child watchers that work in every native thread."""

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> ChildWatcher:  # type: ignore[override]
        """A watcher for the end of a child."""
        return ChildWatcher(self, pid, ref)

    def install_sigchld(self) -> None:
        """Not here: libev would reap the children of everybody."""


class ChildWatcher:
    """Calls back once the child has ended, with its wait status in `rstatus`. What gevent asks of a child watcher."""

    def __init__(self, loop: Loop, pid: int, ref: bool) -> None:
        self.loop = loop
        self.pid = self.rpid = pid
        self.rstatus = 0
        self._callback: Callable[..., object] | None = None
        self._arguments: tuple[Any, ...] = ()
        self._pidfd = _pidfd(pid)
        self._watcher: Any = (
            loop.timer(0.0, POLL_SECONDS, ref) if self._pidfd is None else loop.io(self._pidfd, _READ, ref)
        )

    def start(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Call back when the child has ended."""
        self._callback, self._arguments = callback, arguments
        self._watcher.start(self._look)

    def stop(self) -> None:
        """Call back no more."""
        self._callback = None
        self._watcher.stop()

    def close(self) -> None:
        """Stop, and let go of the pidfd."""
        self.stop()
        self._watcher.close()
        if self._pidfd is not None:
            _close(self._pidfd)
            self._pidfd = None

    def _look(self) -> None:
        try:
            pid, status = native.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has reaped it: its status is lost
            pid, status = self.pid, 0
        if pid:
            self.rstatus = status
            callback, arguments = self._callback, self._arguments
            self.stop()
            if callback:
                callback(*arguments)

    def __enter__(self) -> ChildWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """os.waitpid that lets others run meanwhile, in any thread."""
    while True:
        found = _ended(pid, options)
        if found[0] or options & os.WNOHANG:
            return found
        if pid > 0 and not options:
            _wait_for_end(pid)
        else:
            time.sleep(POLL_SECONDS)


def wait() -> tuple[int, int]:
    """os.wait that lets others run meanwhile."""
    return waitpid(-1, 0)


def install() -> None:
    """Before this process has any hub: use all this."""
    gevent.config.loop = Loop  # type: ignore[assignment]
    os.waitpid, os.wait = waitpid, wait
    for name in ("posix_spawn", "posix_spawnp"):  # gevent's watch the child, which is not wanted any more
        setattr(os, name, native.original("os", name))
    # gevent's, from 25.8 on, closes at the loop's next turn: who reads a pipe to its end and holds the loop would wait
    # for ever, a child forked meanwhile has the other end too, and two threads with one number trip over each other.
    os.close = native.original("os", "close")


def _ended(pid: int, options: int) -> tuple[int, int]:
    """(pid, status) of a child that has ended, (0, 0) if none has. Raises ChildProcessError when there is none."""
    watched: dict[int, Any] = _gevent_os._watched_children  # by gevent's Popen, which reaps its own
    for one in [pid] if pid > 0 else list(watched) if pid == -1 else []:
        found = watched.get(one)
        if isinstance(found, tuple):
            del watched[one]
            return found[0], found[1]
        if found is not None and pid > 0:
            return 0, 0
    ended: tuple[int, int] = native.waitpid(pid, options | os.WNOHANG)
    return ended


def _wait_for_end(pid: int) -> None:
    pidfd = _pidfd(pid)
    if pidfd is None:
        time.sleep(POLL_SECONDS)
        return
    try:
        hub: Any = gevent.get_hub()
        with hub.loop.io(pidfd, _READ) as watcher:
            hub.wait(watcher)
    finally:
        _close(pidfd)
    if pid in _gevent_os._watched_children:
        time.sleep(0.001)  # its watcher, which may be another thread's, has yet to take the status


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # gone, or too old a kernel
        return None


def _close(descriptor: int) -> None:
    # At once: gevent's os.close waits for a turn of the loop.
    os.closerange(descriptor, descriptor + 1)
