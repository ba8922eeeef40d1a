"""journald's native protocol: a datagram with fields for each record (see systemd's JOURNAL_NATIVE_PROTOCOL).

Rule: only where stderr is the journal already. A datagram is taken whole or not at all; one that is too long for a
datagram goes as a sealed memory file.
"""

from __future__ import annotations

import _socket
import array
import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from typing import Final

from geard import native
from geard.logs.destination import STDERR

SOCKET: Final = "/run/systemd/journal/socket"
_GONE: Final = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE)
_TOO_LONG: Final = (errno.EMSGSIZE, errno.ENOBUFS)
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def stderr_is_journal() -> bool:
    """Whether stderr goes straight to journald: JOURNAL_STREAM names its device and inode."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def connect(path: str = SOCKET) -> Journal | None:
    """journald's socket, where stderr is the journal and the socket is there."""
    if not stderr_is_journal() or not stat.S_ISSOCK(os.fstat(STDERR).st_mode):
        return None
    try:
        return Journal(path)
    except OSError:
        return None


class Journal:
    """A Destination that takes what `encode` makes. Raises OSError when the socket is not there."""

    stalls = True

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = self._connect()

    def _connect(self) -> _socket.socket:
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        return connection

    def write_now(self, data: bytes) -> bytes:
        try:
            self._send(data)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self._socket.close()  # another journald listens there now
            self._socket = self._connect()
            self._send(data)
        return b""

    def write(self, data: bytes) -> bytes:
        while True:
            try:
                return self.write_now(data)
            except BlockingIOError:
                native.wait_until_writable(self._socket.fileno())

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        flags = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL
        try:
            self._socket.send(data, flags)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            descriptor = _memory_file(data)
            try:
                rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", [descriptor]))
                self._socket.sendmsg([b""], [rights], flags)
            finally:
                os.close(descriptor)


def encode(fields: Mapping[str, str]) -> bytes:
    """The fields of one record. Names are capital letters, digits and underscores; empty values are left out."""
    parts = []
    for name, value in fields.items():
        data = value.encode(errors="backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
        elif data:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


def _memory_file(data: bytes) -> int:
    """A descriptor of `data` that nobody can change any more, as journald wants it."""
    descriptor = os.memfd_create("journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = data
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
