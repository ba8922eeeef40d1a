"""A worker process for real: a fresh interpreter, patched before anything else is imported, behind a socket pair.

Rules:
- It leads a session of its own: a terminal's ^C reaches the supervisor alone, and SIGKILL reaches all that it started.
- Sending never blocks the caller. What the process said is reported in order, its end last of all.
- It inherits nothing of systemd's protocol (NOTIFY_SOCKET, WATCHDOG_*): only the supervisor speaks it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

import gevent
import msgspec
from gevent import socket
from gevent.queue import Queue
from gevent.subprocess import DEVNULL, Popen

from geard import messages
from geard.messages import FromChild, Start, ToChild
from geard.supervisor.sd_notify import NOT_INHERITED

LAST_WORDS_SECONDS: Final = 1.0
"""How long after its end to go on reading, where something that it forked keeps the socket open."""
WORKER_MODULE: Final = "geard.worker.process"

log = logging.getLogger(__name__)


def worker_command(descriptor: int) -> list[str]:
    """How to start a worker process that talks over this inherited descriptor.

    -P: a file in the current directory, which may be called logging.py, must not stand in for Python's own."""
    return [sys.executable, "-P", "-m", "gevent.monkey", "--module", WORKER_MODULE, str(descriptor)]


class WorkerProcess:
    """A running worker process. `on_message` and `on_exit` are called from a greenlet and must not block."""

    def __init__(
        self,
        start: Start,
        on_message: Callable[[FromChild], None],
        on_exit: Callable[[int], None],
        *,
        command: Callable[[int], Sequence[str]] = worker_command,
    ) -> None:
        """Start one. Raises OSError when there are no more processes or descriptors to be had."""
        self._on_message = on_message
        self._on_exit = on_exit
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._popen = Popen(
                    command(theirs.fileno()),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env={name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
                )
            except BaseException:
                ours.close()
                raise
        self.pid: int = self._popen.pid
        self._socket = ours
        self._outbox: Queue[ToChild] = Queue()
        self._writer = gevent.spawn(self._write)
        self._reader = gevent.spawn(self._read)
        gevent.spawn(self._wait)
        self.send(start)

    def send(self, message: ToChild) -> None:
        """Queue a message; never blocks, and says nothing when the process is gone."""
        self._outbox.put(message)

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is still there."""
        if self._popen.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it and all it started."""
        if self._popen.poll() is None:
            self._kill_session()

    def _kill_session(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # nothing of it is left

    def _write(self) -> None:
        for message in self._outbox:
            try:
                self._socket.sendall(messages.dump(message))
            except OSError:
                return  # it is gone, or closed its end: the reader and hang_timeout see to it

    def _read(self) -> None:
        received = b""
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            *lines, received = (received + data).split(b"\n")
            for line in lines:
                try:
                    message = messages.load_from_child(line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    log.error("killing worker pid %d: it sent what the supervisor cannot read: %s", self.pid, error)
                    self.kill()
                    return
                self._on_message(message)

    def _wait(self) -> None:
        status: int = self._popen.wait()
        self._reader.join(LAST_WORDS_SECONDS)
        gevent.killall([self._reader, self._writer])
        self._socket.close()
        if status != 0:
            self._kill_session()  # what its jobs had started must not go on beside their second run
        self._on_exit(status)
