"""When ^C may interrupt: not between the start of a process and our knowing it, nor in the middle of cleaning up."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from geard.interrupt import Interrupt

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def one_interrupt() -> Iterator[None]:
    """Within, TERM and HUP (the terminal was closed) are a KeyboardInterrupt, as INT is. From the first of them on, all
    are ignored to the end of the process: nothing interrupts the cleaning up."""
    interrupted = False

    def interrupt(number: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        for each in INTERRUPTS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    yield
    if not interrupted:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def no_interrupts() -> Iterator[None]:
    """Within, what would interrupt waits. One that came interrupts at the end."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        handler = before[signal.Signals(came[0])]
        if callable(handler):  # as if it came now: of `one_interrupt`, it sees to it that no other comes
            handler(came[0], None)
        raise Interrupt
