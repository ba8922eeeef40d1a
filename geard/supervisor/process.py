"""A process of the daemon for real: a fresh interpreter behind a socket pair, over which both sides talk in lines.

A worker process is patched before anything else is imported.

Rules:
- It leads a session of its own: a terminal's ^C reaches the supervisor alone, and SIGKILL reaches all that it started.
- Sending never blocks the caller. What the process said is reported in order, its end last of all.
- It inherits nothing of systemd's protocol (NOTIFY_SOCKET, WATCHDOG_*): only the supervisor speaks it.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, cast

import gevent
import msgspec
from gevent import socket
from gevent.event import AsyncResult
from gevent.queue import Queue
from gevent.subprocess import DEVNULL, Popen

from geard import interpreter, messages
from geard.messages import FromChild, Start, ToChild

LAST_WORDS_SECONDS: Final = 1.0
"""How long after its end to go on reading, where something that it forked keeps the socket open."""
WORKER: Final = partial(interpreter.patched, "geard.worker.process")
"""How to start a worker process that talks over an inherited descriptor."""
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError)

log = logging.getLogger(__name__)


class LinkedProcess:
    """A running process and the lines that it says.

    `on_line` and `on_exit` are called from a greenlet and must not block. When `on_line` raises one of UNREADABLE, the
    process is killed."""

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        on_line: Callable[[bytes], None],
        on_exit: Callable[[int], None],
        *,
        inherited: Sequence[int] = (),
    ) -> None:
        """Start one, which has the `inherited` descriptors by the same numbers. Raises OSError when there are no more
        processes or descriptors to be had."""
        self._on_line = on_line
        self._on_exit = on_exit
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._popen: Popen[bytes] | Adopted = Popen(
                    command(theirs.fileno()),
                    stdin=DEVNULL,
                    pass_fds=(theirs.fileno(), *inherited),
                    start_new_session=True,
                    env=interpreter.environment(),
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        self._received = b""
        self._begin()

    def _begin(self) -> None:
        self.pid: int = self._popen.pid
        self._outbox: Queue[bytes] = Queue()
        self._sending = False
        self.resume()

    def resume(self) -> None:
        """Listen and speak, as from the start, or after `pause`."""
        self._writer = gevent.spawn(self._write)
        self._reader = gevent.spawn(self._read)
        self._waiter = gevent.spawn(self._wait)

    @property
    def is_at_rest(self) -> bool:
        """Whether it lives and all that it was told is on its way."""
        return not self._sending and self._outbox.empty() and self._popen.poll() is None

    def pause(self) -> None:
        """Listen and speak no more, so that another supervisor can go on. Only when it is at rest."""
        gevent.killall([self._writer, self._reader, self._waiter])

    @property
    def carried(self) -> tuple[int, bytes]:
        """The descriptor of its socket, and what was received of a line that is not whole."""
        return self._socket.fileno(), self._received

    def send_line(self, line: bytes) -> None:
        """Queue a line, its end included; never blocks, and says nothing when the process is gone."""
        self._outbox.put(line)

    def hang_up(self) -> None:
        """End the conversation: the process reads the end of the socket, as if the supervisor were gone."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

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
        for line in self._outbox:
            self._sending = True
            try:
                self._socket.sendall(line)
            except OSError:
                return  # it is gone, or closed its end: the reader and hang_timeout see to it
            self._sending = False

    def _read(self) -> None:
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return
            if not data:
                return
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                try:
                    self._on_line(line)
                except UNREADABLE as error:
                    log.error("killing pid %d: it sent what the supervisor cannot read: %s", self.pid, error)
                    self.kill()
                    return

    def _wait(self) -> None:
        status: int = self._popen.wait()
        self._reader.join(LAST_WORDS_SECONDS)
        gevent.killall([self._reader, self._writer])
        self._socket.close()
        if status != 0:
            self._kill_session()  # what its jobs had started must not go on beside their second run
        self._on_exit(status)


class Adopted:
    """As much of a Popen as is needed for a child that other code has started in this process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended: AsyncResult[int] = AsyncResult()
        self._watcher = gevent.get_hub().loop.child(pid, ref=False)
        self._watcher.start(self._has_ended)

    def poll(self) -> int | None:
        """Its exit code, or minus its signal, once it has ended."""
        return self._ended.value if self._ended.ready() else None

    def wait(self) -> int:
        """The same, when it has ended."""
        return cast("int", self._ended.get())

    def _has_ended(self) -> None:
        self._watcher.stop()
        self._ended.set(os.waitstatus_to_exitcode(self._watcher.rstatus))


class WorkerProcess(LinkedProcess):
    """A running worker process."""

    def __init__(
        self,
        start: Start,
        on_message: Callable[[FromChild], None],
        on_exit: Callable[[int], None],
        *,
        command: Callable[[int], Sequence[str]] = WORKER,
    ) -> None:
        """Start one. Raises OSError when there are no more processes or descriptors to be had."""
        inherited = () if start.presence is None else (start.presence,)
        super().__init__(command, lambda line: on_message(messages.load_from_child(line)), on_exit, inherited=inherited)
        self.send(start)

    @classmethod
    def adopt(
        cls,
        pid: int,
        carried: tuple[int, bytes],
        on_message: Callable[[FromChild], None],
        on_exit: Callable[[int], None],
    ) -> WorkerProcess:
        """Go on with one that the supervisor before us in this process has started."""
        process = cls.__new__(cls)
        process._on_line = lambda line: on_message(messages.load_from_child(line))
        process._on_exit = on_exit
        process._popen = Adopted(pid)
        descriptor, process._received = carried
        os.set_inheritable(descriptor, False)
        process._socket = socket.socket(fileno=descriptor)
        process._begin()
        return process

    def send(self, message: ToChild) -> None:
        """Queue a message; never blocks, and says nothing when the process is gone."""
        self.send_line(messages.dump(message))
