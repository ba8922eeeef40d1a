"""What a worker process says to its supervisor: from its loop, and from its native watchdog thread.

Rules:
- A message is never cut. What the socket does not take stays here, and whoever sends next goes on from there.
- The loop waits until its message is sent. The thread never waits: while a message is under way it says nothing.
"""

from __future__ import annotations

import os

from gevent import socket
from gevent.lock import RLock

from geard import messages, native


class Sender:
    """The way to the supervisor over one end of the socket pair, which gevent has made non-blocking."""

    def __init__(self, supervisor: socket.socket) -> None:
        self._descriptor = supervisor.fileno()
        self._unsent = b""
        self._unsent_lock = native.allocate_lock()  # held for one write without waiting
        self._turn = RLock()  # the loop's greenlets, one message each

    def send(self, message: messages.FromChild) -> None:
        """Send from a greenlet of the loop. Says nothing when the supervisor is gone, whose listener notices."""
        with self._turn:
            try:
                self._write(messages.dump(message))
                while self._unsent:
                    socket.wait_write(self._descriptor)
                    self._write(b"")
            except OSError:
                self._unsent = b""

    def send_from_thread(self, message: messages.FromChild) -> bool:
        """Send from a native thread while the loop may be held. Whether it was sent or will be."""
        try:
            return self._write(messages.dump(message), only_if_free=True)
        except OSError:
            return False

    def _write(self, data: bytes, *, only_if_free: bool = False) -> bool:
        with self._unsent_lock:
            if only_if_free and self._unsent:
                return False
            self._unsent += data
            try:
                sent = os.write(self._descriptor, self._unsent)
            except BlockingIOError:
                sent = 0
            self._unsent = self._unsent[sent:]
            return True
