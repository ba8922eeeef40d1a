"""fork in a capability: in the child nothing of geard runs.

Rules for the child, which has a copy of everything:
- Its copies of geard's sockets are closed without a word on the wire: the parent goes on with them.
- None of the parent's greenlets ever runs in it. It has a hub of its own, with a loop that knows of nothing, and the
  old one is kept, unused and uncollected: a greenlet that is collected runs its `finally` blocks.
- It has the signal dispositions of a fresh process, where geard had set others.
- It dies with its parent: the kernel sends it SIGKILL when the parent's end of a pipe is closed. PR_SET_PDEATHSIG would
  come when the *thread* that forked ends, and would follow the child through an exec.
- When the user's function returns in it, or raises, it ends: see forked.py.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import gevent
import gevent.subprocess
from gevent import socket
from gevent._hub_local import get_hub_if_exists, set_hub
from gevent.hub import Hub
from greenlet import getcurrent, greenlet
from setproctitle import setproctitle

from geard import native
from geard.messages import STACKS_SIGNAL
from geard.worker.forked import STATE, end
from geard.worker.pool import WorkerPool

IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1)
"""The signals that a worker process leaves to the supervisor."""

_turn: Final = native.allocate_lock()


class Forks:
    """What the children of this process must let go of: its link to its parent, and its `pool`, once there is one."""

    def __init__(self, link: socket.socket | BinaryIO) -> None:
        self.pool: WorkerPool | None = None
        self.name = "geard: forked by a worker process"
        self._link = link
        self._alive, self._life = os.pipe()  # the end of the second is the end of this process
        self._kept: list[object] = []

    def install(self) -> None:
        """Before user code is imported."""
        os.register_at_fork(after_in_child=self._in_child)
        os.fork, os.forkpty = fork, forkpty
        gevent.subprocess.fork = fork  # type: ignore[attr-defined]

    def _in_child(self) -> None:
        if not STATE.forked:  # else a child's child: this is done
            STATE.forked = True
            self._let_go()
            self._restore_signals()
            setproctitle(self.name)
        self._leave_greenlets()
        die_at_end_of(self._alive)

    def _let_go(self) -> None:
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

        def release(descriptor: int) -> None:
            # Not closed: the objects that know this number must not close somebody else's file one day.
            if descriptor >= 0:
                os.dup2(null, descriptor, inheritable=False)

        release(self._link.fileno())
        release(self._life)
        if self.pool:
            for channel in self.pool.channels:
                channel.forked(release, end)
        os.closerange(null, null + 1)

    def _restore_signals(self) -> None:
        for number in IGNORED:
            if signal.getsignal(number) is signal.SIG_IGN:
                default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
                signal.signal(number, default)
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # Python does not know of gevent's handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        faulthandler.unregister(STACKS_SIGNAL)

    def _leave_greenlets(self) -> None:
        self._kept.append(get_hub_if_exists())
        gc.freeze()
        current = root = getcurrent()
        while root.parent is not None:
            root = root.parent
        if current is not root:
            current.parent = greenlet(_at_end, root)  # not the old hub, which would run
        set_hub(Hub(default=False))
        asyncio = sys.modules.get("asyncio")
        loop = asyncio and asyncio._get_running_loop()
        if asyncio and loop:  # forked by a coroutine: the others' steps must not run here
            loop._ready.clear()
            loop._scheduled.clear()
            asyncio._set_running_loop(None)


def die_at_end_of(pipe: int) -> None:
    """Have the kernel kill this process when the writing end of a pipe is closed, that is when its owner dies."""
    # A description of its own, since the kernel notes for each one whom to tell.
    own = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(own, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(own, fcntl.F_SETFL, fcntl.FASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        os.read(own, 1)  # its end: it died before
        os.kill(os.getpid(), signal.SIGKILL)


def fork() -> int:
    """os.fork in a worker process, in any of its threads."""
    return _one_at_a_time(native.fork)  # type: ignore[no-any-return]


def forkpty() -> tuple[int, int]:
    """os.forkpty in a worker process, in any of its threads."""
    return _one_at_a_time(native.forkpty)  # type: ignore[no-any-return]


def _one_at_a_time(forking: Callable[[], Any]) -> Any:
    # Python takes locks around a fork, logging's among them, which are gevent's here; native threads that wait for one
    # of those at once may wait for ever.
    with _turn, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are other threads: see this module's rules
        # A signal for the child waits until it has dispositions of its own: a terminate() right after start() counts.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, *IGNORED))
        try:
            return forking()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _at_end(*outcome: object) -> None:
    end()
