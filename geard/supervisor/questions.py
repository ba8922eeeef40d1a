"""Questions: requests over the control socket that only look, and change nothing.

Rule: none of them waits for a worker process in the loop; what needs its word is answered when that has come, or when
it has taken too long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geard import exits
from geard.messages import ListJobs, ShowStack, Stack
from geard.stats.totals import Totals
from geard.supervisor import answers, stats
from geard.supervisor.answers import Answer, Request
from geard.supervisor.child import Child
from geard.supervisor.fleet import Fleet
from geard.supervisor.stats import About
from geard.supervisor.waiting import Listings, Reply, Stacks


class Questions:
    """See the module. `about` says what the supervisor is doing."""

    def __init__(
        self, fleet: Fleet, totals: Totals, listings: Listings, about: Callable[[], About], clock: Callable[[], float]
    ) -> None:
        self._fleet = fleet
        self._totals = totals
        self._listings = listings
        self._stacks = Stacks()
        self._about = about
        self._clock = clock

    def asked(self, request: Request, reply: Reply) -> bool:
        """Answer now or later. False when this is no question."""
        question = _QUESTIONS.get(request.command)
        if question:
            question(self, request, reply)
        return question is not None

    def stack_shown(self, child: Child, stack: Stack) -> None:
        """A worker process said where a job is."""
        self._stacks.heard(child, stack)

    def tick(self, now: float) -> None:
        """Tell those that wait in vain."""
        self._stacks.tick(now)

    def _stats(self, _request: Request, reply: Reply) -> None:
        reply(Answer(exits.DONE, snapshot=stats.snapshot(self._fleet, self._totals, self._about(), self._clock())))

    def _failures(self, request: Request, reply: Reply) -> None:
        found = self._totals.failures.newest(max(request.limit, 0), function=request.function, after=request.after)
        reply(Answer(exits.DONE, failures=tuple(found)))

    def _history(self, request: Request, reply: Reply) -> None:
        rings = self._totals.history.minutes if request.minutes else self._totals.history.seconds
        reply(Answer(exits.DONE, history=rings.history(request.function, max(request.limit, 0))))

    def _jobs(self, request: Request, reply: Reply) -> None:
        def answer() -> None:
            reply(Answer(exits.DONE, jobs=stats.jobs(self._fleet, request)))

        self._listings.add(answer, self._fleet.broadcast(ListJobs()), self._clock())

    def _stack(self, request: Request, reply: Reply) -> None:
        child = self._fleet.find(request.pid)
        if child is None:
            reply(Answer(exits.FAILED, f"there is no worker process {request.pid}"))
        else:
            child.send(ShowStack(request.handle))
            self._stacks.add(reply, child, request.handle, self._clock())


_QUESTIONS: Final[dict[str, Callable[[Questions, Request, Reply], None]]] = {
    answers.STATS: Questions._stats,
    answers.FAILURES: Questions._failures,
    answers.HISTORY: Questions._history,
    answers.JOBS: Questions._jobs,
    answers.STACK: Questions._stack,
}
