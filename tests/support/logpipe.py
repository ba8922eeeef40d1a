"""What a process under test says on stderr, read from a pipe.

A file would be behind: geard leaves writing to a file to a native thread, and a job's caller may hear of it first. Into
a pipe it writes before it goes on, and `text` reads all that is in it: what happened before is there.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress


class LogPipe:
    """One pipe for a process and all that is started after it. Its `fileno` is the end to write to."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._lock = threading.Lock()
        self._data = bytearray()
        self._closed = False
        threading.Thread(target=self._keep_reading, daemon=True).start()  # a full pipe would be a stalled log

    def fileno(self) -> int:
        return self._writer

    @property
    def text(self) -> str:
        """All that was said until now."""
        with self._lock:
            self._read()
            return self._data.decode(errors="replace")

    def close(self) -> None:
        """Read no more. What was read stays."""
        with self._lock:
            if not self._closed:
                self._read()
                self._closed = True
                os.close(self._writer)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while not self._closed and (data := os.read(self._reader, 8192)):
                self._data += data

    def _keep_reading(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        while not self._closed:
            if poll.poll(1000):
                with self._lock:
                    self._read()
        os.close(self._reader)
