"""Turn: a lock that is waited for by a deadline, and that tells a caller who has it already and would wait for himself.

Rules: an interrupt may strike anywhere (a signal handler that raises, or that calls into us again). So that a lock is
taken and that this is noted happen within one call of C code or between calls, never around one.
"""

from __future__ import annotations

import threading
import time

from geard.errors import InvalidRequest


class Turn:
    """One at a time.

        taken: list[bool] = []
        try:
            if turn.take(taken, deadline): ...
        finally:
            if taken and taken[0]:
                taken[0] = False  # at once
                turn.lock.release()
            turn.forget(taken)

    The release stands there, and not in a method: an interrupt may strike as a method begins, and nobody else would.

    Where there is no deadline, shorter: `with turn.lock: turn.holder = me`, and 0 before it is left."""

    __slots__ = ("holder", "lock", "takers")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holder = 0  # who has it by `with`: a threading.get_ident()
        self.takers: dict[int, tuple[list[bool], ...]] = {}  # what each caller has taken or waits for by `take`

    def held_by(self, me: int) -> bool:
        """Whether this thread or greenlet has it."""
        if self.holder == me:
            return True
        return bool(self.takers) and any(taken and taken[0] for taken in self.takers.get(me, ()))

    def take(self, taken: list[bool], deadline: float | None) -> bool:
        """Wait for the turn; False if the deadline (by time.monotonic()) came first. InvalidRequest if we have it.

        `taken` is for `forget`, which is due whatever comes of this."""
        me = threading.get_ident()
        if self.held_by(me):
            raise reentered()
        self.takers[me] = (*self.takers.get(me, ()), taken)
        left = -1 if deadline is None else max(deadline - time.monotonic(), 0)
        taken.extend(map(self.lock.acquire, (True,), (left,)))
        return taken[0]

    def forget(self, taken: list[bool]) -> None:
        """It is not taken any more, nor waited for."""
        taken[:] = (False,)  # until it is out of there
        me = threading.get_ident()
        # With those that an interrupt has left: they have had their turn, and have given it back.
        others = tuple(each for each in self.takers.get(me, ()) if each is not taken and each != [False])
        if others:
            self.takers[me] = others
        else:
            self.takers.pop(me, None)
        del taken[:]


def reentered() -> InvalidRequest:
    """What a call is told that has interrupted another of the same thread, and would wait for it for ever."""
    return InvalidRequest(
        "this call interrupts another call of the same thread and the same client, in a signal handler or a finalizer: "
        "let the handler set a flag or put into a queue.SimpleQueue, and call later, or use a client of its own"
    )
