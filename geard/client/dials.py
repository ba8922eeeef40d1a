"""Dials: the attempts to connect to many job servers, and who waits for their ends.

Rules:
- An attempt is made in a thread (a greenlet where threads are those), at most PLACES at a time, so that a list of
  hundreds that refuse, or are mute, is no burst of threads and connections. Others wait for a place.
- A mute one holds up nobody: where many are to be dialled, each gets a moment at first. Who needs more waits for one of
  the LONG places, where an attempt may take all its time; the other places are for those that were not tried yet.
- Whoever is waited for by a caller goes before those that are dialled in passing.
- Callers may be interrupted anywhere. What belongs together is done by one call of C code, or again by the next caller.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geard.client.exchange import RECHECK_SECONDS
from geard.errors import CannotConnect, ConnectionLost, InvalidRequest

if TYPE_CHECKING:
    from geard.client.member import Member

PLACES: Final = 64
"""Attempts under way at a time, of one client."""

LONG: Final = 32
"""Of these, how many may take as long as they may; where no more are wanted, all do."""

MOMENT_SECONDS: Final = 0.5
"""What an attempt gets at first where more are wanted."""

SPARE_SECONDS: Final = 5.0
"""A thread that has not begun after so long never will: its caller was interrupted."""


class Attempt:
    """To connect to one job server, once, in one go or two."""

    __slots__ = ("begun_at", "cut", "urgent")

    def __init__(self) -> None:
        self.begun_at: float | None = None  # by time.monotonic()
        self.cut = False  # whether it has had its moment, and needs more
        self.urgent = False  # whether a caller waits for it


class Dials:
    """See the module. An attempt takes `seconds` at most; `ended` is told of its end, in the attempt's thread."""

    def __init__(self, seconds: float, ended: Callable[[Member], None]) -> None:
        self.seconds = seconds
        self.closed = False
        self._ended = ended
        self.forked()

    def __repr__(self) -> str:
        waiting = len(self._waiting) + len(self._cut)
        return f"<Dials {len(self._attempts) - waiting} under way, {waiting} waiting>"

    def forked(self) -> None:
        """This is a child process: what the parent dials, and who waits there, is the parent's."""
        self._attempts: dict[Member, Attempt] = {}  # that are not over
        self._waiting: OrderedDict[Member, Attempt] = OrderedDict()  # those without a place, who is next first
        self._cut: OrderedDict[Member, Attempt] = OrderedDict()  # likewise, for one of the LONG places
        self._long: dict[Attempt, None] = {}  # under way, with all their time
        self._threads: dict[threading.Thread, float] = {}  # one has a place; when it got it, by time.monotonic()
        self.bells: dict[queue.SimpleQueue[None], None] = {}
        """Rung at the end of each attempt."""

    def close(self) -> None:
        """Begin no more attempts, and tell those who wait. Idempotent."""
        self.closed = True
        self._waiting.clear()
        self._cut.clear()
        self.ring()

    def has(self, member: Member) -> bool:
        """Whether an attempt is under way, or waits for its place."""
        return not self.closed and member in self._attempts

    def begun_at(self, member: Member) -> float | None:
        """When the attempt that is under way began, by time.monotonic(); None where it waits for its place."""
        attempt = self._attempts.get(member)
        return None if attempt is None else attempt.begun_at

    def want(self, *members: Member, urgent: bool = False) -> None:
        """Begin an attempt to connect to each, unless there is one. Does not wait. `urgent`: a caller waits for it."""
        for member in members:
            if self.closed:
                return
            if member.up:
                continue
            attempt = self._attempts.setdefault(member, Attempt())
            attempt.urgent = attempt.urgent or urgent
            if attempt.begun_at is None:
                self._waiting.setdefault(member, attempt)
            if urgent:
                self._put_first(member)
        self._fill()

    def _put_first(self, member: Member) -> None:
        for line in (self._waiting, self._cut):
            with contextlib.suppress(KeyError):  # where it does not wait
                line.move_to_end(member, last=False)

    # --- places --------------------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Begin what there is a place for."""
        threads = self._threads
        while (self._waiting or (self._cut and len(self._long) < LONG)) and not self.closed:
            if len(threads) >= PLACES:
                self._forget_those_never_begun()
                if len(threads) >= PLACES:
                    return
            thread = threading.Thread(target=self._serve, args=(threads,), name="dial job servers", daemon=True)
            threads[thread] = time.monotonic()
            try:
                thread.start()
            except RuntimeError as error:  # no more threads are to be had
                threads.pop(thread, None)
                if not threads:
                    self._give_up(error)
                return

    def _forget_those_never_begun(self) -> None:
        now = time.monotonic()
        for thread, begun in list(self._threads.items()):
            if now - begun > SPARE_SECONDS and not thread.is_alive():
                self._threads.pop(thread, None)

    def _give_up(self, error: RuntimeError) -> None:
        for member, attempt in list(self._attempts.items()):
            self._waiting.pop(member, None)
            self._cut.pop(member, None)
            self._over(member, attempt, CannotConnect(f"cannot connect to {member.address}: {error}"))

    def _serve(self, threads: dict[threading.Thread, float]) -> None:
        """One place: attempt after attempt, as long as there are some."""
        try:
            while threads is self._threads and (next_one := self._next()) is not None:
                self._dial(*next_one)
        finally:
            threads.pop(threading.current_thread(), None)
            self._fill()  # look again: whoever came meanwhile has seen no place

    def _next(self) -> tuple[Member, Attempt, bool] | None:
        """Who is next, and whether it has all its time."""
        with contextlib.suppress(KeyError):
            member, attempt = self._waiting.popitem(last=False)
            long = len(self._attempts) <= LONG or self.seconds <= MOMENT_SECONDS
            return member, attempt, long
        if len(self._long) < LONG:
            with contextlib.suppress(KeyError):
                member, attempt = self._cut.popitem(last=False)
                return member, attempt, True
        return None

    def _dial(self, member: Member, attempt: Attempt, long: bool) -> None:
        attempt.begun_at = attempt.begun_at or time.monotonic()
        failure: ConnectionLost | None = CannotConnect(f"cannot connect to {member.address}: interrupted")
        until = None if long else time.monotonic() + MOMENT_SECONDS
        try:
            if long:
                self._long[attempt] = None
            member.conversation.exchange(until)
            failure = None
        except ConnectionLost as error:
            failure = error
            attempt.cut = until is not None and time.monotonic() >= until
        except InvalidRequest:  # closed meanwhile
            failure = None
        finally:
            self._long.pop(attempt, None)
            if until is None or not attempt.cut:
                self._over(member, attempt, failure)
            elif self._attempts.get(member) is attempt:
                self._cut[member] = attempt
                if attempt.urgent:
                    self._put_first(member)

    def _over(self, member: Member, attempt: Attempt, failure: ConnectionLost | None) -> None:
        if self._attempts.get(member) is not attempt:
            return  # a fork has made it another process's
        if failure is None:
            member.came_up()
        else:
            member.fail(failure)
        member.tried_at = time.monotonic()
        self._attempts.pop(member, None)
        self._ended(member)
        self.ring()

    # --- waiting -------------------------------------------------------------------------------------------------

    def wait(self, happened: Callable[[], object], until: float | None) -> None:
        """Wait until `happened()`, which the end of an attempt can make true, or until then."""
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self.bells[bell] = None
            while not happened():
                left = RECHECK_SECONDS if until is None else min(until - time.monotonic(), RECHECK_SECONDS)
                if left <= 0:
                    return
                with contextlib.suppress(queue.Empty):
                    bell.get(timeout=left)
        finally:
            self.bells.pop(bell, None)

    def ring(self) -> None:
        """Whoever waits looks again."""
        for bell in tuple(self.bells):
            bell.put(None)
