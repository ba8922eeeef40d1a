"""Commands that wait for an answer from the supervisor: for the outcome of a reload, or for the list of jobs.

Rules:
- While a reload is under way, any number of further ones become a single one after it: the config may have changed
  since this one read it. Each asker gets the outcome of the reload that began after it asked.
- A listing never waits for a stuck process longer than LISTING_SECONDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from geard.supervisor.answers import Answer
from geard.supervisor.child import Child

Reply = Callable[[Answer], None]

LISTING_SECONDS: Final = 1.0


class Reloads:
    """The reload under way and the one after it, and who waits for each."""

    def __init__(self) -> None:
        self.another_is_wanted = False
        self._waiting: list[Reply] = []
        self._waiting_for_next: list[Reply] = []

    def begin(self, reply: Reply | None) -> None:
        """A reload begins, asked for by `reply` and by all who wait for the next."""
        self._waiting = [*self._waiting_for_next, *([reply] if reply else [])]
        self._waiting_for_next, self.another_is_wanted = [], False

    def want_another(self, reply: Reply | None) -> None:
        """Another one is asked for while this one is under way."""
        self.another_is_wanted = True
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
    """One `geard ps`, and the processes whose jobs it waits for."""

    reply: Reply
    missing: list[Child]
    deadline: float


class Listings:
    """The `geard ps` that wait for the worker processes to list their jobs."""

    def __init__(self) -> None:
        self._listings: list[Listing] = []

    def add(self, reply: Reply, asked: list[Child], now: float) -> None:
        """Wait for the jobs of those that were `asked`."""
        self._listings.append(Listing(reply, asked, now + LISTING_SECONDS))

    def heard(self, child: Child) -> None:
        """This process has listed its jobs, or never will."""
        for listing in self._listings:
            if child in listing.missing:
                listing.missing.remove(child)

    def pop_due(self, now: float) -> list[Reply]:
        """Those to answer now."""
        due = [listing for listing in self._listings if not listing.missing or now >= listing.deadline]
        self._listings = [listing for listing in self._listings if listing not in due]
        return [listing.reply for listing in due]


def answer_all(replies: list[Reply], answer: Answer) -> None:
    """Give each of them the answer."""
    for reply in replies:
        reply(answer)
