"""Where records go: a descriptor (stderr, a pipe, a terminal, a file). See geard/logs/journal.py for the other one.

Rule: `write_now` never waits, whatever the descriptor and whoever shares it. O_NONBLOCK belongs to the open file, which
other processes share with us, so it is never set on stderr itself: a pipe or a terminal is opened a second time, and a
socket is written to with MSG_DONTWAIT. A file may wait for its disk, so it is left to the thread.
"""

from __future__ import annotations

import _socket
import os
import stat
from contextlib import suppress
from typing import Final, Protocol

from geard import native

STDERR: Final = 2


class Destination(Protocol):
    """Takes records, one write for each."""

    stalls: bool
    """Whether someone else may keep it from taking anything: a reader, rather than a disk."""

    def write_now(self, data: bytes) -> bytes:
        """Write without waiting; what is left of `data`. Raises BlockingIOError where that cannot be, OSError."""

    def write(self, data: bytes) -> bytes:
        """The same, and wait as long as it takes."""

    def close(self) -> None:
        """Give back what it holds open."""


class Descriptor:
    """A file descriptor. `owned`: close it in the end."""

    def __init__(self, descriptor: int, *, owned: bool) -> None:
        self._descriptor = descriptor
        self._owned = owned
        self.stalls = False
        self._at_once: int | None = None  # the same open for writing without waiting
        self._socket: _socket.socket | None = None
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            return  # closed: each write says so
        self.stalls = not stat.S_ISREG(mode)
        if stat.S_ISSOCK(mode):
            self._socket = _socket.socket(fileno=os.dup(descriptor))
        else:
            self._at_once = open_again(descriptor)

    @classmethod
    def at(cls, path: str | None) -> Descriptor:
        """The file at `path`, or stderr. Raises OSError. A FIFO that nobody reads is an error, and no wait."""
        if path is None:
            return cls(STDERR, owned=False)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        return cls(os.open(path, flags, 0o640), owned=True)

    def write_now(self, data: bytes) -> bytes:
        if self._socket is not None:
            return data[self._socket.send(data, _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL) :]
        if self._at_once is None:
            raise BlockingIOError
        return data[os.write(self._at_once, data) :]

    def write(self, data: bytes) -> bytes:
        while True:
            try:
                if self._socket is None and self._at_once is None:
                    return data[os.write(self._descriptor, data) :]
                return self.write_now(data)
            except BlockingIOError:
                native.wait_until_writable(self._descriptor)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        if self._at_once is not None:
            os.close(self._at_once)
        if self._owned:
            os.close(self._descriptor)


def open_again(descriptor: int) -> int | None:
    """A descriptor for the same pipe or terminal whose O_NONBLOCK is our own; None where it cannot be had, and for a
    file, which would be written from its beginning."""
    with suppress(OSError):  # no /proc, or it belongs to another user
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISFIFO(mode) and not stat.S_ISCHR(mode):
            return None
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    return None
