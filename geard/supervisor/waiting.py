"""Commands that wait for an answer from the supervisor: for the outcome of a reload, the list of jobs, or a stack.

Rules:
- While a reload is under way, any number of further ones become a single one after it: the config may have changed
  since this one read it. Each asker gets the outcome of the reload that began after it asked.
- Nobody waits for what a stuck process would say longer than LISTING_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from geard import exits
from geard.messages import Stack
from geard.supervisor.answers import Answer
from geard.supervisor.child import Child
from geard.supervisor.pauses import Change

Reply = Callable[[Answer], None]

LISTING_SECONDS: Final = 1.0
JOB_IS_GONE: Final = "no such job runs here any more"


class Reloads:
    """The reload under way and the one after it, and who waits for each. To pause or resume functions is a reload that
    need not read the config."""

    def __init__(self) -> None:
        self.another_is_wanted = False
        self.another_reads = False  # the config again
        self.changes: list[Change] = []  # of what is paused, by the one under way
        self._changes_of_next: list[Change] = []
        self._waiting: list[Reply] = []
        self._waiting_for_next: list[Reply] = []

    def begin(self, reply: Reply | None) -> None:
        """A reload begins, asked for by `reply` and by all who wait for the next."""
        self._waiting = [*self._waiting_for_next, *([reply] if reply else [])]
        self.changes, self._changes_of_next = self._changes_of_next, []
        self._waiting_for_next, self.another_is_wanted, self.another_reads = [], False, False

    def change(self, change: Change) -> None:
        """Have the next one pause or resume functions."""
        self._changes_of_next.append(change)

    def want_another(self, reply: Reply | None, *, reads: bool) -> None:
        """Another one is asked for while this one is under way."""
        self.another_is_wanted = True
        self.another_reads |= reads
        self._waiting_for_next += [reply] if reply else []

    def finish(self, answer: Answer) -> None:
        """The one under way is over: tell those who wait for it."""
        waiting, self._waiting = self._waiting, []
        answer_all(waiting, answer)

    def cancel(self, answer: Answer) -> None:
        """There will be none: tell everybody."""
        self.finish(answer)
        self.begin(None)
        self.finish(answer)


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


def answer_all(replies: list[Reply], answer: Answer) -> None:
    """Give each of them the answer."""
    for reply in replies:
        reply(answer)
