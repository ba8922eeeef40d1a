"""The supervisor's signals, by way of a pipe that code executed in our place goes on reading.

Rule: a signal that has come is in the pipe, or blocked and pending, or has been told to those who listen: an upgrade
loses none, whichever thread the kernel has chosen to catch it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import gevent

MANY: Final = 4096
"""Signals that are read at once, a byte each."""


class Handler:
    """Has a function called for each signal of one number, from the hub: it must not block."""

    def __init__(self, number: int, call: Callable[[], object]) -> None:
        self._number = number
        self._call = call
        _pipe.add(number, call)

    def cancel(self) -> None:
        """Call it no more; the last to go leaves the signal to what it did before."""
        _pipe.remove(self._number, self._call)


def block(numbers: Iterable[int]) -> None:
    """Let those that come wait for `unblock`, in this process or in what is executed in its place."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def unblock(numbers: Iterable[int]) -> None:
    """Hear of those that have come meanwhile, and of all from now on."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def descriptor() -> int | None:
    """Where the signals can be read that nobody has been told of yet; for `take_over` in what is executed next."""
    return _pipe.reading


def take_over(reading: int) -> None:
    """Tell of the signals that the code before us in this process has left unread."""
    os.set_inheritable(reading, False)
    with suppress(BlockingIOError):
        _pipe.tell(os.read(reading, MANY))
    os.close(reading)


class _Pipe:
    """Python's own handlers write the numbers into it, from whichever thread they run in."""

    def __init__(self) -> None:
        self.reading: int | None = None
        self._listening: dict[int, list[Callable[[], object]]] = {}
        self._before: dict[int, object] = {}

    def add(self, number: int, call: Callable[[], object]) -> None:
        if self.reading is None:
            self._open()
        self._listening.setdefault(number, []).append(call)
        if number not in self._before:
            self._before[number] = signal.signal(number, lambda *_: None)

    def remove(self, number: int, call: Callable[[], object]) -> None:
        self._listening[number].remove(call)
        if not self._listening[number]:
            signal.signal(number, self._before.pop(number))  # type: ignore[arg-type]

    def tell(self, numbers: bytes) -> None:
        for number in numbers:
            for call in tuple(self._listening.get(number, ())):
                call()

    def _open(self) -> None:
        self.reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # A child that has not executed its program yet shares the pipe: what it gets is not for us.
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        self._watcher = gevent.get_hub().loop.io(self.reading, 1)
        self._watcher.start(self._read)

    def _read(self) -> None:
        assert self.reading is not None
        with suppress(BlockingIOError):
            self.tell(os.read(self.reading, MANY))


_pipe: Final = _Pipe()
