"""Questions: requests over the control socket that only look, and change nothing.

Rules:
- None of them waits for a worker process in the loop; what needs its word is answered when that has come, or when it
  has taken too long.
- However often JOBS and STACK are asked, a worker process lists its jobs once in LISTED_SECONDS, and shows a stack once
  in SHOWN_SECONDS: questions must not cost the jobs anything. PS, which people ask, always has the jobs of now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geard import exits
from geard.messages import ListJobs, ShowStack, Stack
from geard.scheduler.states import ScheduleState, States
from geard.stats.totals import Totals
from geard.supervisor import answers, stats, summary
from geard.supervisor.answers import Answer, JobView, Reply, Request
from geard.supervisor.child import Child
from geard.supervisor.fleet import Fleet
from geard.supervisor.summary import About
from geard.supervisor.waiting import Listings, Stacks

LISTED_SECONDS: Final = 1.0
SHOWN_SECONDS: Final = 0.5


class Questions:
    """See the module. `about` says what the supervisor is doing."""

    def __init__(self, fleet: Fleet, totals: Totals, about: Callable[[], About], clock: Callable[[], float]) -> None:
        self._fleet = fleet
        self._totals = totals
        self._listings = Listings()
        self._stacks = Stacks()
        self._schedules: tuple[ScheduleState, ...] = ()  # as the scheduler last told
        self._about = about
        self._clock = clock
        self._running: list[JobView] = []  # as last listed
        self._listing = False
        self._listed_at = float("-inf")
        self._want_jobs: list[tuple[Request, Reply]] = []
        self._shown_at: dict[int, float] = {}

    @property
    def are_answered(self) -> bool:
        """Whether none waits for what a worker process says."""
        return self._listings.is_empty and self._stacks.is_empty

    def asked(self, request: Request, reply: Reply) -> bool:
        """Answer now or later. False when this is no question."""
        question = _QUESTIONS.get(request.command)
        if question:
            question(self, request, reply)
        return question is not None

    def jobs_listed(self, child: Child) -> None:
        """A worker process has listed its jobs, or is gone."""
        self._listings.heard(child)

    def stack_shown(self, child: Child, stack: Stack) -> None:
        """A worker process said where a job is."""
        self._stacks.heard(child, stack)

    def scheduled(self, states: States) -> None:
        """The scheduler said how its schedules stand."""
        self._schedules = states.schedules

    def tick(self, now: float) -> None:
        """Answer those that have waited long enough."""
        for answer in self._listings.pop_due(now):
            answer()
        self._stacks.tick(now)

    def _ps(self, _request: Request, reply: Reply) -> None:
        def listed() -> None:
            reply(Answer(exits.DONE, overview=summary.overview(self._fleet, self._about(), self._clock())))

        self._listings.add(listed, self._fleet.broadcast(ListJobs()), self._clock())

    def _stats(self, _request: Request, reply: Reply) -> None:
        reply(Answer(exits.DONE, snapshot=stats.snapshot(self._fleet, self._totals, self._about(), self._clock())))

    def _failures(self, request: Request, reply: Reply) -> None:
        found = self._totals.failures.newest(max(request.limit, 0), function=request.function, after=request.after)
        reply(Answer(exits.DONE, failures=tuple(found)))

    def _history(self, request: Request, reply: Reply) -> None:
        rings = self._totals.history.minutes if request.minutes else self._totals.history.seconds
        reply(Answer(exits.DONE, history=rings.history(request.function, max(request.limit, 0))))

    def _schedule(self, _request: Request, reply: Reply) -> None:
        schedules = self._about().source.config.schedules
        told = {state.name: state for state in self._schedules}
        if schedules.keys() <= told.keys():
            reply(Answer(exits.DONE, schedules=tuple(told[name] for name in schedules)))
        else:
            reply(Answer(exits.TIMED_OUT, "the scheduler has not told yet how its schedules stand: ask again"))

    def _jobs(self, request: Request, reply: Reply) -> None:
        self._want_jobs.append((request, reply))
        now = self._clock()
        if self._listing:
            return  # all who want them get what is being listed
        if now - self._listed_at < LISTED_SECONDS:
            self._tell_jobs()
            return
        self._listing, self._listed_at = True, now
        self._listings.add(self._listed, self._fleet.broadcast(ListJobs()), now)

    def _listed(self) -> None:
        self._listing, self._running = False, stats.running_jobs(self._fleet)
        self._tell_jobs()

    def _tell_jobs(self) -> None:
        wanted, self._want_jobs = self._want_jobs, []
        for request, reply in wanted:
            reply(Answer(exits.DONE, jobs=stats.page(self._running, request)))

    def _stack(self, request: Request, reply: Reply) -> None:
        child, now = self._fleet.find(request.pid), self._clock()
        if child is None:
            reply(Answer(exits.FAILED, f"there is no worker process {request.pid}"))
        elif now - self._shown_at.get(request.pid, now - SHOWN_SECONDS) < SHOWN_SECONDS:
            reply(Answer(exits.FAILED, f"{child} has shown a stack a moment ago: ask again"))
        else:
            self._shown_at = {pid: at for pid, at in self._shown_at.items() if now - at < SHOWN_SECONDS}
            self._shown_at[request.pid] = now
            child.send(ShowStack(request.handle))
            self._stacks.add(reply, child, request.handle, now)


_QUESTIONS: Final[dict[str, Callable[[Questions, Request, Reply], None]]] = {
    answers.PS: Questions._ps,
    answers.STATS: Questions._stats,
    answers.FAILURES: Questions._failures,
    answers.HISTORY: Questions._history,
    answers.SCHEDULES: Questions._schedule,
    answers.JOBS: Questions._jobs,
    answers.STACK: Questions._stack,
}
