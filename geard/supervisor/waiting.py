"""Commands that wait for the word of worker processes: for the list of their jobs, or a stack.

Rule: nobody waits for what a stuck process would say longer than LISTING_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from geard import exits
from geard.messages import Stack
from geard.supervisor.answers import Answer, Reply
from geard.supervisor.child import Child

LISTING_SECONDS: Final = 1.0
JOB_IS_GONE: Final = "no such job runs here any more"


class Listing(Struct):
    """One who asked for the running jobs, and the processes whose jobs are waited for."""

    answer: Callable[[], None]
    missing: list[Child]
    deadline: float


class Listings:
    """Those who wait for the worker processes to list their jobs."""

    def __init__(self) -> None:
        self._listings: list[Listing] = []

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._listings

    def add(self, answer: Callable[[], None], asked: list[Child], now: float) -> None:
        """Wait for the jobs of those that were `asked`; then it is time to `answer`."""
        self._listings.append(Listing(answer, asked, now + LISTING_SECONDS))

    def heard(self, child: Child) -> None:
        """This process has listed its jobs, or never will."""
        for listing in self._listings:
            if child in listing.missing:
                listing.missing.remove(child)

    def pop_due(self, now: float) -> list[Callable[[], None]]:
        """What to call now."""
        due = [listing for listing in self._listings if not listing.missing or now >= listing.deadline]
        self._listings = [listing for listing in self._listings if listing not in due]
        return [listing.answer for listing in due]


class StackWaiter(Struct):
    """One who asked for the stack of a job."""

    reply: Reply
    child: Child
    handle: str
    deadline: float


class Stacks:
    """Those who wait for a worker process to show the stack of a job."""

    def __init__(self) -> None:
        self._waiting: list[StackWaiter] = []

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits."""
        return not self._waiting

    def add(self, reply: Reply, child: Child, handle: str, now: float) -> None:
        """Wait for the stack that this process was asked for."""
        self._waiting.append(StackWaiter(reply, child, handle, now + LISTING_SECONDS))

    def heard(self, child: Child, stack: Stack) -> None:
        """Here it is."""
        answer = Answer(exits.DONE, stack=stack.stack) if stack.stack else Answer(exits.FAILED, JOB_IS_GONE)
        self._finish(lambda waiter: waiter.child is child and waiter.handle == stack.handle, lambda _: answer)

    def tick(self, now: float) -> None:
        """Tell those that wait in vain."""
        self._finish(lambda waiter: now >= waiter.deadline, _no_stack)

    def _finish(self, is_over: Callable[[StackWaiter], bool], answer: Callable[[StackWaiter], Answer]) -> None:
        over = [waiter for waiter in self._waiting if is_over(waiter)]
        self._waiting = [waiter for waiter in self._waiting if waiter not in over]
        for waiter in over:
            waiter.reply(answer(waiter))


def _no_stack(waiter: StackWaiter) -> Answer:
    held_by = f": {waiter.child.blocked_by} holds its loop" if waiter.child.blocked_by else ""
    return Answer(exits.TIMED_OUT, f"{waiter.child} does not answer{held_by}")
