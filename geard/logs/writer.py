"""Hands records to a destination and never waits for it.

Rules:
- `hand` returns at once, whatever the destination does, from any thread and greenlet, and from within itself (a
  finaliser or a signal handler that logs). The lock is held for a few instructions, and never over a write.
- While the destination takes what it is given, a record is written before `hand` returns: a process that is killed
  right after has logged it. Where it would have to wait (and always for a file), the rest is left to a native thread.
- What waits is bounded. What does not fit, or cannot be written, is counted, and the count is written before the next
  record, or as soon as the destination takes something again.
- A record of which a part is written is finished before anything else is written there.
- A forked child has no thread: it writes what it can at once, and counts the rest.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from geard import native
from geard.logs.destination import Destination

WAITING_BYTES: Final = 4 * 1024 * 1024
"""How much may wait for a destination that is stalled. One record is always taken."""


class _Record(NamedTuple):
    data: bytes
    counts: int = 1  # how many are lost with it
    begun: bool = False  # a part of it is written


class _Reached(NamedTuple):
    lock: Any  # released when all that was handed over before is written


class _Move(NamedTuple):
    to: Destination | None  # None: the end


class Writer:
    """Writes to one destination after the other. `note(count)` is the record that says how many were lost."""

    def __init__(self, destination: Destination, note: Callable[[int], bytes]) -> None:
        self.note = note
        self._destination = destination
        self._mutex = native.RLock()
        self._wake = native.allocate_lock()
        self._wake.acquire()
        self._waiting: deque[_Record | _Reached | _Move] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._failing = False  # the last write was an error: the note waits for the next record
        self._cut = b""  # what is missing of a record that an error cut
        self._writing = False  # somebody is in _write, or the thread is about to be
        self._has_thread = False
        self._closed = False
        self._forked = False
        _writers.add(self)

    def __repr__(self) -> str:
        return f"<Writer {len(self._waiting)} waiting, {self._lost} lost>"

    def hand(self, data: bytes) -> None:
        """Take a whole record, with its line break."""
        with self._mutex:
            if self._waiting_bytes and self._waiting_bytes + len(data) > WAITING_BYTES:
                self._lost += 1
                return
            self._append_note()
            self._append(_Record(data))
        self._go_on()

    def move(self, destination: Destination) -> None:
        """What is handed over from here on goes there; the one so far is closed once it has the rest."""
        self._command(_Move(destination))

    def close(self) -> None:
        """Write the rest and close the destination. Nothing may be handed over after this. Does not wait."""
        self._command(_Move(None))

    def flush(self, seconds: float) -> bool:
        """Wait until what was handed over is written, or lost, at most so long. Whether it is."""
        lock = native.allocate_lock()
        lock.acquire()
        self._command(_Reached(lock))
        return bool(lock.acquire(True, seconds))

    def _command(self, command: _Reached | _Move) -> None:
        with self._mutex:
            self._waiting.append(command)
        self._go_on()

    def _append(self, record: _Record) -> None:
        self._waiting.append(record)
        self._waiting_bytes += len(record.data)

    def _append_note(self) -> None:
        lost, self._lost = self._lost, 0
        if lost:
            self._append(_Record(self.note(lost), counts=lost))

    def _go_on(self) -> None:
        with self._mutex:
            if self._writing:
                return  # who writes goes on to it
            self._writing = True
        if not self._write(wait=False):
            self._leave_to_thread()
        elif self._closed and self._has_thread:
            self._has_thread = False
            self._wake.release()  # for it to end

    def _write(self, *, wait: bool) -> bool:
        """Write until nothing is left. False where it would have to wait and must not: `_writing` is still set then."""
        while True:
            with self._mutex:
                if not self._waiting and not self._failing:
                    self._append_note()
                if not self._waiting:
                    self._writing = False
                    return True
                item = self._waiting.popleft()
                if isinstance(item, _Record):
                    self._waiting_bytes -= len(item.data)
            if isinstance(item, _Record):
                if not self._put(item, wait=wait):
                    return False
            elif isinstance(item, _Reached):
                item.lock.release()
            else:
                self._change(item.to)

    def _put(self, record: _Record, *, wait: bool) -> bool:
        rest, begun = self._cut + record.data, record.begun
        write = self._destination.write if wait else self._destination.write_now
        try:
            while rest:
                before, rest = rest, write(rest)
                begun = begun or len(rest) < len(before)
        except BlockingIOError:
            with self._mutex:
                self._cut = b""
                self._waiting.appendleft(_Record(rest, record.counts, begun))
                self._waiting_bytes += len(rest)
            return False
        except Exception:  # a full disk, a reader that is gone
            self._failing = True
            if begun:
                self._cut = rest  # which is finished before anything else is written there
            else:
                with self._mutex:
                    self._lost += record.counts
        else:
            self._failing, self._cut = False, b""
        return True

    def _change(self, destination: Destination | None) -> None:
        self._destination.close()
        self._cut = b""
        if destination is None:
            self._closed = True
        else:
            self._destination = destination

    def _leave_to_thread(self) -> None:
        """Have the native thread go on from here; a forked child has none, and waits for no peer."""
        if self._forked and not self._destination.stalls:
            self._write(wait=True)
        elif self._forked or not self._start_thread():
            self._lose()
        else:
            self._wake.release()

    def _start_thread(self) -> bool:
        if not self._has_thread:
            try:
                native.start_new_thread(self._serve, ())
            except RuntimeError:  # there are no more threads to be had
                return False
            self._has_thread = True
        return True

    def _serve(self) -> None:
        """The native thread's life."""
        while not self._closed:
            self._wake.acquire()
            self._write(wait=True)

    def _lose(self) -> None:
        with self._mutex:
            waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
            self._writing = False
        for item in waiting:
            if isinstance(item, _Record):
                self._lost += item.counts
            elif isinstance(item, _Reached):
                item.lock.release()
            else:
                self._change(item.to)

    def _after_fork_in_child(self) -> None:
        # Another thread may have held the lock, and what waits is the parent's to write.
        self._mutex = native.RLock()
        self._waiting.clear()
        self._waiting_bytes = self._lost = 0
        self._cut, self._writing, self._forked = b"", False, True


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for writer in _writers:
        writer._after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
