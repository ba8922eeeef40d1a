"""The supervisor: one loop over one queue of events, and the table of what each of them does.

Rules:
- No handler blocks or waits; it changes state, tells worker processes, and returns. So a TERM in the middle of a
  reload is just the next event.
- What it is doing is read off the reload under way (reloads.py) and the stop that has begun (stop.py), where the rest
  of the promises is kept.
- It ends only when no worker process is left.
- All that touches the system is handed in; time is what `clock` says.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from typing import Final, Literal

from setproctitle import setproctitle

from geard import __version__, exits, logs
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import Problem
from geard.messages import DumpStacks, Heartbeat, Jobs, ReopenLog, Stack, Suspects
from geard.stats.totals import Totals
from geard.supervisor import answers, summary
from geard.supervisor.answers import Answer, Reply, Request
from geard.supervisor.child import Child
from geard.supervisor.events import Asked, Event, Exited, Loaded, Received, Scheduled, Signalled, SourcesChanged
from geard.supervisor.fleet import Fleet
from geard.supervisor.generation import Generation
from geard.supervisor.pauses import NOTHING, Change, Pauses
from geard.supervisor.questions import Questions
from geard.supervisor.reloads import Reloads
from geard.supervisor.report import Notify, Report
from geard.supervisor.state import REFUSED, ChildState, State, capture, not_now, restore
from geard.supervisor.stop import Stop
from geard.supervisor.summary import About
from geard.supervisor.suspects import SuspectList

TURN_SECONDS: Final = 0.25
"""How late what is due by the clock alone may be: killing the stuck, starting again, telling systemd."""
CALM_TURN_SECONDS: Final = 0.6
"""The same while nothing is under way. There is one such turn between two heartbeats of a process, not two."""
PAUSE_SECONDS: Final = 1.0
"""Longer than this between two turns of the loop means that we were held up; the silence was not the children's."""

log = logging.getLogger(__name__)


class Supervisor:
    """See the module. `handle` each event, `tick` after it and after `turn_seconds` without one, until there is an
    `exit_code`."""

    def __init__(
        self,
        source: Source,
        *,
        spawn: Callable[[Child], None],
        load: Callable[[], None],
        notify: Notify,
        configured: Callable[[Config], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        set_title: Callable[[str], None] = setproctitle,
        upgraded: Callable[[Reply], None] | None = None,
        paused: Pauses = NOTHING,
        remember: Callable[[Pauses], None] = lambda pauses: None,
    ) -> None:
        """`spawn` starts a child's process; `load` begins to read the config and leads to a Loaded event;
        `configured` is told of each config that takes effect; `upgraded` begins to execute the installed code in our
        place, and replies when that is refused; `paused` are the functions to begin without, and `remember` keeps which
        these are."""
        self._upgrade = upgraded
        self._clock = clock
        self._wall_clock = wall_clock
        self._started_at = self._last_turn = clock()
        self._report = Report(
            notify,
            set_title,
            status_line=lambda: summary.status_line(self._fleet, self._state, self._refusal),
            title=lambda: summary.title(self._fleet, self._state),
        )
        self._fleet = Fleet(spawn)
        self.suspects = SuspectList(self._fleet.tell_all)
        """The jobs that a new worker process must set apart."""
        self._totals = Totals()
        self._questions = Questions(self._fleet, self._totals, self._about, clock)
        self._reloads = Reloads(
            self._fleet,
            self._totals,
            self._report,
            source,
            paused,
            load=load,
            configured=configured,
            remember=remember,
            cannot_start=self._cannot_start,
            clock=clock,
            wall_clock=wall_clock,
        )
        self._stop = Stop(self._fleet, self._report, clock)
        self.exit_code: int | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self._state} {self._fleet}>"

    # --- events ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first generation."""
        self._reloads.start()
        self.tick()

    def resume(self, state: State, adopt: Callable[[Child, ChildState], None]) -> None:
        """Go on where the supervisor before us in this process has left off."""
        self._totals.go_on_from(restore(state, self._fleet, adopt))
        self._started_at = state.started_at
        self.suspects.learn(state.suspects, self._clock())
        self._reloads.resume(state.refusal)
        log.info("upgraded from geard %s, with %s", state.version, summary.processes(len(self._fleet.children)))
        self._report.ready()

    def capture(self) -> State:
        """What a supervisor after us needs to go on."""
        return capture(
            self._fleet,
            self._totals,
            config_file=self._source.file,
            started_at=self._started_at,
            refusal=self._refusal,
            suspects=tuple(self.suspects),
        )

    def upgrading(self) -> None:
        """The installed code is about to be executed in our place."""
        log.info("executing the installed geard in place of geard %s", __version__)
        self._report.reloading()

    def not_upgraded(self) -> None:
        """That did not come to be."""
        self._report.ready()

    @property
    def start_problems(self) -> tuple[Problem, ...]:
        """Why the daemon could not start, when that is why it ends."""
        return self._stop.problems

    @property
    def children(self) -> list[Child]:
        """Every worker process that is not gone."""
        return self._fleet.children

    @property
    def is_stopping(self) -> bool:
        """Whether its stop has begun, after which it does nothing else."""
        return self._stop.has_begun

    @property
    def not_at_rest(self) -> str:
        """Why this is no moment for an upgrade; "" when it is."""
        return f"the daemon is {self._state}" if self._state != "running" else not_now(self._fleet)

    @property
    def turn_seconds(self) -> float:
        """How long to wait for an event until the next `tick`."""
        return CALM_TURN_SECONDS if self._is_calm else TURN_SECONDS

    @property
    def _is_calm(self) -> bool:
        return (
            self._state == "running"
            and self._fleet.is_calm(self._clock())
            and self._questions.are_answered
            and self._report.can_wait(CALM_TURN_SECONDS)
        )

    def handle(self, event: Event) -> None:
        """Do what this event asks for."""
        match event:
            case Received(child=child, message=message):
                self._fleet.received(child, message, self._clock())
                if isinstance(message, Heartbeat) and message.counted:
                    self._totals.add(child, message.counted)
                elif isinstance(message, Suspects):
                    self.suspects.learn(message.suspects, self._clock())
                elif isinstance(message, Jobs):
                    self._questions.jobs_listed(child)
                elif isinstance(message, Stack):
                    self._questions.stack_shown(child, message)
            case Exited(child=child, status=status):
                self._exited(child, status)
            case Signalled(number=number):
                meaning, handler = SIGNALS[number]
                log.info("%s: %s", signal.Signals(number).name, meaning)
                handler(self)
            case Asked(request=request, reply=reply):
                if request.command in REQUESTS:
                    REQUESTS[request.command](self, request, reply)
                elif not self._questions.asked(request, reply):
                    reply(Answer(exits.USAGE, f"this supervisor does not know {request.command!r}"))
            case Loaded(outcome=outcome):
                self._reloads.loaded(outcome)
            case Scheduled(states=states):
                self._questions.scheduled(states)
            case SourcesChanged(paths=paths):
                log.info("changed: %s", ", ".join(paths))
                self._reloads.reload()

    def tick(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        if now - self._last_turn > PAUSE_SECONDS:
            self._fleet.forgive_silence(now - self._last_turn)
        self._last_turn = now
        self._fleet.tick(now)
        self._reloads.tick(now)
        self._questions.tick(now)
        self._totals.tick(self._wall_clock())
        self.suspects.tick(now)
        if self._stop.has_begun and not self._fleet.children:
            self.exit_code = self._stop.end()
        self._report.alive(self._fleet.children, self._source.config.hang_timeout_seconds, now)
        if self.exit_code is None and self._report.is_due(now):
            self._report.how_it_is(now, goes_on=self._state != "running")

    def _exited(self, child: Child, status: int) -> None:
        self._totals.gone(child, child.end_reason(status), self._wall_clock())
        self._fleet.exited(child, status, self._clock())
        self.suspects.exited(child, self._clock())
        self._questions.jobs_listed(child)
        if child.incompatible and self._state == "running" and not self._fleet.is_served:
            self._cannot_go_on(child)
        self._stop.exited(child)

    # --- start and stop -------------------------------------------------------------------------------------------

    def _cannot_start(self, incoming: Generation) -> None:
        log.error("cannot start:\n%s", "\n".join(map(str, incoming.problems)))
        exit_code = exits.FAILED if incoming.exit_code is None else incoming.exit_code
        self._stop.fail(exit_code, incoming.problems, f"cannot start: {summary.first(incoming.problems)}")
        self._drain()

    def _cannot_go_on(self, child: Child) -> None:
        """No worker process is left, and none of the version that is installed now can work under us."""
        log.critical("stopping, for there will be no worker process any more:\n%s", "\n".join(map(str, child.problems)))
        self._stop.fail(exits.FAILED, child.problems, summary.first(child.problems))
        self._drain()

    def _drain(self) -> None:
        """TERM and INT: the first lets the jobs finish, the second does not wait for them."""
        self._stop_within(0.0 if self._stop.has_begun else self._source.config.shutdown_timeout_seconds)

    def _abandon(self) -> None:
        """Close the connections now: the job servers give the jobs to other workers."""
        self._stop_within(0.0)

    def _stop_within(self, timeout_seconds: float) -> None:
        self._reloads.cancel()
        self._stop.within(timeout_seconds)

    # --- what else can be asked for -------------------------------------------------------------------------------

    def _resize(self, by: int) -> None:
        current = self._fleet.current
        if self._stop.has_begun or not current:
            log.warning("not now: the supervisor is %s", self._state)
        elif current.resize(by, self._clock()):
            log.info("now %s; a reload goes back to the config's", summary.processes(len(current.slots)))
        else:
            log.warning("nothing changes: there is no common worker process, or this one is the last")

    def _reopen_log(self) -> None:
        logs.reopen()
        self._fleet.broadcast(ReopenLog())

    def _dump_stacks(self) -> None:
        self._fleet.broadcast(DumpStacks())

    def _pause(self, request: Request, reply: Reply) -> None:
        self._reloads.pause(Change(request.functions, request.command == answers.PAUSE), reply)

    def _upgrade_asked(self, _request: Request, reply: Reply) -> None:
        if self._upgrade is None or self.not_at_rest:
            reply(Answer(exits.TIMED_OUT, f"{REFUSED}: {self.not_at_rest}; try again"))
        else:
            self._upgrade(reply)

    def _stop_asked(self, _request: Request, reply: Reply) -> None:
        self._stop.wait(reply)
        if not self._stop.has_begun:
            self._drain()

    def _stop_now_asked(self, _request: Request, reply: Reply) -> None:
        self._stop.wait(reply)
        self._abandon()

    def _replace(self, request: Request, reply: Reply) -> None:
        child, current = self._fleet.find(request.pid), self._fleet.current
        if child and current and not self._stop.has_begun and current.replace(child, self._clock()):
            log.info("replacing %s, as asked", child)
            reply(Answer(exits.DONE, f"{child} is replaced: it finishes its jobs once the new one is ready"))
        else:
            reply(Answer(exits.FAILED, f"pid {request.pid} is no worker process that can be replaced now"))

    # --- what it says of itself -----------------------------------------------------------------------------------

    def _about(self) -> About:
        age_seconds = self._clock() - self._started_at
        return About(self._source, self._state, age_seconds, self._refusal, self._wall_clock())

    @property
    def _source(self) -> Source:
        return self._reloads.source

    @property
    def _state(self) -> Literal["starting", "running", "reloading", "stopping"]:
        if self._stop.has_begun:
            return "stopping"
        if self._reloads.are_under_way:
            return "reloading" if self._fleet.current else "starting"
        return "running"

    @property
    def _refusal(self) -> str:
        """Why the last reload, or the start, was refused."""
        return self._stop.reason or self._reloads.refusal


SIGNALS: Final[dict[int, tuple[str, Callable[[Supervisor], None]]]] = {
    signal.SIGTERM: ("drain", Supervisor._drain),
    signal.SIGINT: ("drain", Supervisor._drain),
    signal.SIGQUIT: ("stop at once", Supervisor._abandon),
    signal.SIGHUP: ("reload", lambda supervisor: supervisor._reloads.reload()),
    signal.SIGTTIN: ("one worker process more", lambda supervisor: supervisor._resize(1)),
    signal.SIGTTOU: ("one worker process fewer", lambda supervisor: supervisor._resize(-1)),
    signal.SIGUSR1: ("reopen the log files", Supervisor._reopen_log),
    signal.SIGUSR2: ("log the stack of each busy greenlet", Supervisor._dump_stacks),
}
REQUESTS: Final[dict[str, Callable[[Supervisor, Request, Reply], None]]] = {
    answers.RELOAD: lambda supervisor, request, reply: supervisor._reloads.reload(reply),
    answers.PAUSE: Supervisor._pause,
    answers.RESUME: Supervisor._pause,
    answers.REPLACE: Supervisor._replace,
    answers.UPGRADE: Supervisor._upgrade_asked,
    answers.STOP: Supervisor._stop_asked,
    answers.STOP_NOW: Supervisor._stop_now_asked,
}
