"""The supervisor: one loop over one queue of events, and the table of what each of them does.

Rules:
- No handler blocks or waits; it changes state, tells worker processes, and returns. So a TERM in the middle of a
  reload is just the next event.
- The old generation drains only once the whole new one is ready. Whatever goes wrong before that leaves the old one
  running, and says why.
- It ends only when no worker process is left.
- All that touches the system is handed in; time is what `clock` says.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

from setproctitle import setproctitle

from geard import __version__, exits, logs
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import ConfigError, InvalidRequest, Problem
from geard.messages import DumpStacks, Heartbeat, Jobs, ReopenLog, Stack, Suspect, Suspects
from geard.stats.totals import Totals
from geard.supervisor import answers, summary
from geard.supervisor.answers import Answer, Request
from geard.supervisor.child import Child
from geard.supervisor.decisions import count_jobs
from geard.supervisor.events import Asked, Event, Exited, Loaded, Received, Scheduled, Signalled, SourcesChanged
from geard.supervisor.fleet import Fleet
from geard.supervisor.generation import Generation
from geard.supervisor.pauses import NOTHING, Change, Pauses, apply_all
from geard.supervisor.questions import Questions
from geard.supervisor.report import Notify, Report
from geard.supervisor.state import REFUSED, ChildState, State, capture, not_now, restore
from geard.supervisor.summary import About
from geard.supervisor.suspects import SuspectList
from geard.supervisor.waiting import Reloads, Reply, answer_all

TURN_SECONDS: Final = 0.25
"""How late what is due by the clock alone may be: killing the stuck, starting again, telling systemd."""
CALM_TURN_SECONDS: Final = 0.6
"""The same while nothing is under way. There is one such turn between two heartbeats of a process, not two."""
PAUSE_SECONDS: Final = 1.0
"""Longer than this between two turns of the loop means that we were held up; the silence was not the children's."""
STOPPING: Final = Answer(exits.FAILED, "not reloaded: the supervisor is stopping")

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
        self._source = source
        self._load = load
        self._upgrade = upgraded
        self._configured = configured
        self._clock = clock
        self._report = Report(notify, set_title)
        self._fleet = Fleet(spawn)
        self.suspects = SuspectList()
        """The jobs that a new worker process must set apart."""
        self._reloads = Reloads()
        self._first_pauses = paused
        self._remember = remember
        self._reads = True  # the generation that is coming is from a new reading of the config
        self._wall_clock = wall_clock
        self._totals = Totals()
        self._questions = Questions(self._fleet, self._totals, self._about, clock)
        self._state: Literal["starting", "running", "reloading", "stopping"] = "starting"
        self._refusal = ""  # why the last reload, or the start, was refused
        self._started_at = self._last_turn = self._stop_at = clock()
        self._stops: list[Reply] = []  # wait for our end
        self._finished_jobs = self._abandoned_jobs = 0  # while stopping
        self._start_failure = exits.DONE
        self.start_problems: tuple[Problem, ...] = ()
        """Why the daemon could not start, when that is why it ends."""
        self.exit_code: int | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self._state} {self._fleet}>"

    # --- events ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first generation."""
        self._begin(self._source)
        self.tick()

    def resume(self, state: State, adopt: Callable[[Child, ChildState], None]) -> None:
        """Go on where the supervisor before us in this process has left off."""
        self._totals.go_on_from(restore(state, self._fleet, adopt))
        self._started_at, self._refusal = state.started_at, state.refusal
        self.suspects.learn(state.suspects, self._clock())
        self._state = "running"
        self._configured(self._source.config)
        log.info("upgraded from geard %s, with %s", state.version, summary.processes(len(self._fleet.children)))
        self._report.ready(self._status_line)

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
        self._report.ready(self._status_line)

    @property
    def children(self) -> list[Child]:
        """Every worker process that is not gone."""
        return self._fleet.children

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
                    REQUESTS[request.command](self, reply)
                elif request.command == answers.REPLACE:
                    self._replace(request, reply)
                elif request.command in (answers.PAUSE, answers.RESUME):
                    self._pause(Change(request.functions, request.command == answers.PAUSE), reply)
                elif not self._questions.asked(request, reply):
                    reply(Answer(exits.USAGE, f"this supervisor does not know {request.command!r}"))
            case Loaded(outcome=outcome):
                self._loaded(outcome)
            case Scheduled(states=states):
                self._questions.scheduled(states)
            case SourcesChanged(paths=paths):
                log.info("changed: %s", ", ".join(paths))
                self._reload()

    def tick(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        if now - self._last_turn > PAUSE_SECONDS:
            self._fleet.forgive_silence(now - self._last_turn)
        self._last_turn = now
        self._fleet.tick(now)
        self._settle_incoming(now)
        self._questions.tick(now)
        self._totals.tick(self._wall_clock())
        self._tell_suspects(self.suspects.forget_old(now))
        if self._state == "stopping" and not self._fleet.children:
            self._end()
        self._report.alive(self._fleet.children, self._source.config.hang_timeout_seconds, now)
        if self.exit_code is None and self._report.is_due(now):
            goes_on = self._state != "running"
            self._report.how_it_is(self._status_line, summary.title(self._fleet, self._state), now, goes_on=goes_on)

    def _exited(self, child: Child, status: int) -> None:
        self._totals.gone(child, child.end_reason(status), self._wall_clock())
        self._fleet.exited(child, status, self._clock())
        if child.died_by_itself:
            suspects = self.suspects.died_with(child.suspects, self._clock())
            self._tell_suspects(suspects)
            if suspects:
                log.warning(
                    "what was in flight in %s runs with nothing else in its process from now on: %s at most",
                    child,
                    count_jobs(len(suspects)),
                )
        self._questions.jobs_listed(child)
        if child.incompatible and self._state == "running" and not self._fleet.is_served:
            self._cannot_go_on(child)
        if self._state == "stopping":
            self._finished_jobs += child.drained.finished if child.drained else 0
            self._abandoned_jobs += child.abandoned_count

    def _tell_suspects(self, suspects: tuple[Suspect, ...]) -> None:
        if suspects:
            self._fleet.tell_all(Suspects(suspects))

    # --- start and reload -----------------------------------------------------------------------------------------

    def _reload(self, reply: Reply | None = None) -> None:
        if self._state == "stopping":
            log.warning("no reload: the supervisor is stopping")
            answer_all([reply] if reply else [], STOPPING)
        elif self._state == "running":
            self._start_over(reply, reads=True)
        else:
            self._reloads.want_another(reply, reads=True)

    def _pause(self, change: Change, reply: Reply) -> None:
        try:
            change.check(self._source.config, self._pauses)
        except InvalidRequest as error:
            reply(Answer(exits.USAGE, str(error)))
            return
        log.info("asked to be %s", change.text)
        said = partial(_say_paused, reply, change)
        if self._state == "stopping":
            reply(Answer(exits.FAILED, f"not {change.text}; the supervisor is stopping"))
        elif self._state != "running":
            self._reloads.change(change)
            self._reloads.want_another(said, reads=False)
        elif change.applied(self._pauses) == self._pauses:
            reply(Answer(exits.DONE, f"already {change.text}"))
        else:
            self._reloads.change(change)
            self._start_over(said, reads=False)

    @property
    def _pauses(self) -> Pauses:
        """The paused functions, those that the config does not have too."""
        return self._fleet.current.paused if self._fleet.current else self._first_pauses

    def _start_over(self, reply: Reply | None, *, reads: bool) -> None:
        """Have a new generation, from the config as it is now or, unless this `reads`, as it was read."""
        self._state, self._reads = "reloading", reads
        self._reloads.begin(reply)
        self._report.reloading()
        if reads:
            self._load()
        else:
            self._begin(self._source)

    def _loaded(self, outcome: Source | ConfigError) -> None:
        if self._state != "reloading":
            return  # a stop came between
        if isinstance(outcome, ConfigError):
            self._refuse(outcome.problems)
        else:
            self._begin(outcome)

    def _begin(self, source: Source) -> None:
        paused = apply_all(self._reloads.changes, self._pauses)
        incoming = self._fleet.begin(source, paused, self._clock())
        log.info("starting generation %d: %s", incoming.number, summary.processes(len(incoming.slots)))

    def _settle_incoming(self, now: float) -> None:
        """See whether the generation that is coming is ready, or has failed."""
        incoming = self._fleet.incoming
        if not incoming or self._state == "stopping":
            return
        if incoming.has_failed and incoming.verdict_is_in:
            self._fleet.give_up(incoming, now)
            if self._state == "starting":
                self._cannot_start(incoming)
            else:
                self._refuse(incoming.problems)
        elif incoming.is_ready:
            self._fleet.take_over(incoming, now)
            self._take_over(incoming)

    def _take_over(self, incoming: Generation) -> None:
        if self._reads:
            self._configured(incoming.config)
            if self._state == "reloading":
                self._totals.reloaded("done", self._wall_clock())
            else:
                self._totals.last_reload_time = self._wall_clock()
            self._refusal = ""
        self._source = incoming.source
        if self._reloads.changes:
            self._remember(incoming.paused)
        log.info("generation %d serves: %s", incoming.number, summary.offer(incoming.config, incoming.paused))
        self._reload_is_over(Answer(exits.DONE, f"generation {incoming.number} serves"))

    def _refuse(self, problems: Sequence[Problem]) -> None:
        what = "reload refused" if self._reads else "nothing paused or resumed"
        text = f"{what}, generation {self._fleet.number} goes on:\n" + "\n".join(map(str, problems))
        log.error("%s", text)
        if self._reads:
            self._totals.reloaded("refused", self._wall_clock())
            self._refusal = f"reload refused at {time.strftime('%H:%M:%S')}: {summary.first(problems)}"
        self._reload_is_over(Answer(exits.CONFIG, text))

    def _reload_is_over(self, answer: Answer) -> None:
        self._state = "running"
        self._report.ready(self._status_line)
        self._reloads.finish(answer)
        if self._reloads.another_is_wanted:
            self._start_over(None, reads=self._reloads.another_reads)

    def _cannot_start(self, incoming: Generation) -> None:
        self.start_problems = tuple(incoming.problems)
        self._start_failure = exits.FAILED if incoming.exit_code is None else incoming.exit_code
        log.error("cannot start:\n%s", "\n".join(map(str, incoming.problems)))
        self._refusal = f"cannot start: {summary.first(incoming.problems)}"
        self._stop(self._source.config.shutdown_timeout_seconds)

    def _cannot_go_on(self, child: Child) -> None:
        """No worker process is left, and none of the version that is installed now can work under us."""
        log.critical("stopping, for there will be no worker process any more:\n%s", "\n".join(map(str, child.problems)))
        self.start_problems = child.problems
        self._start_failure = exits.FAILED
        self._refusal = summary.first(child.problems)
        self._stop(self._source.config.shutdown_timeout_seconds)

    # --- stop -----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """TERM and INT: the first lets the jobs finish, the second does not wait for them."""
        self._stop(0.0 if self._state == "stopping" else self._source.config.shutdown_timeout_seconds)

    def _abandon(self) -> None:
        """Close the connections now: the job servers give the jobs to other workers."""
        self._stop(0.0)

    def _stop(self, timeout_seconds: float) -> None:
        now = self._clock()
        if self._state != "stopping":
            self._state, self._stop_at = "stopping", now
            self._report.stopping()
            self._reloads.cancel(STOPPING)
        running = sum(child.running for child in self._fleet.children)
        log.info("stopping within %.1f s, %s running", timeout_seconds, count_jobs(running))
        self._fleet.drain(timeout_seconds, now)

    def _end(self) -> None:
        self.exit_code = self._start_failure or (exits.LEFT_JOBS if self._abandoned_jobs else exits.DONE)
        finished, abandoned = self._finished_jobs, self._abandoned_jobs
        took = self._clock() - self._stop_at
        text = f"stopped in {took:.2f} s: {finished} of {finished + abandoned} jobs in flight finished"
        text += f", {abandoned} left to other workers" if abandoned else ""
        log.log(logging.WARNING if abandoned else logging.INFO, text)
        self._report.last_words(self._refusal if self._start_failure else text)
        answer_all(self._stops, Answer(self.exit_code, text))

    # --- what else can be asked for -------------------------------------------------------------------------------

    def _resize(self, by: int) -> None:
        current = self._fleet.current
        if self._state == "stopping" or not current:
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

    def _upgrade_asked(self, reply: Reply) -> None:
        if self._upgrade is None or self.not_at_rest:
            reply(Answer(exits.TIMED_OUT, f"{REFUSED}: {self.not_at_rest}; try again"))
        else:
            self._upgrade(reply)

    def _stop_asked(self, reply: Reply) -> None:
        self._stops.append(reply)
        if self._state != "stopping":
            self._drain()

    def _stop_now_asked(self, reply: Reply) -> None:
        self._stops.append(reply)
        self._abandon()

    def _replace(self, request: Request, reply: Reply) -> None:
        child, current = self._fleet.find(request.pid), self._fleet.current
        if child and current and self._state != "stopping" and current.replace(child, self._clock()):
            log.info("replacing %s, as asked", child)
            reply(Answer(exits.DONE, f"{child} is replaced: it finishes its jobs once the new one is ready"))
        else:
            reply(Answer(exits.FAILED, f"pid {request.pid} is no worker process that can be replaced now"))

    # --- what it says of itself -----------------------------------------------------------------------------------

    def _about(self) -> About:
        age_seconds = self._clock() - self._started_at
        return About(self._source, self._state, age_seconds, self._refusal, self._wall_clock())

    @property
    def _status_line(self) -> str:
        return summary.status_line(self._fleet, self._state, self._refusal)


def _say_paused(reply: Reply, change: Change, outcome: Answer) -> None:
    """The outcome of a reload that was to pause or resume functions."""
    said = change.text if outcome.exit_code == exits.DONE else f"not {change.text}"
    reply(Answer(outcome.exit_code, f"{said}; {outcome.message}"))


SIGNALS: Final[dict[int, tuple[str, Callable[[Supervisor], None]]]] = {
    signal.SIGTERM: ("drain", Supervisor._drain),
    signal.SIGINT: ("drain", Supervisor._drain),
    signal.SIGQUIT: ("stop at once", Supervisor._abandon),
    signal.SIGHUP: ("reload", Supervisor._reload),
    signal.SIGTTIN: ("one worker process more", lambda supervisor: supervisor._resize(1)),
    signal.SIGTTOU: ("one worker process fewer", lambda supervisor: supervisor._resize(-1)),
    signal.SIGUSR1: ("reopen the log files", Supervisor._reopen_log),
    signal.SIGUSR2: ("log the stack of each busy greenlet", Supervisor._dump_stacks),
}
REQUESTS: Final[dict[str, Callable[[Supervisor, Reply], None]]] = {
    answers.RELOAD: Supervisor._reload,
    answers.STOP: Supervisor._stop_asked,
    answers.UPGRADE: Supervisor._upgrade_asked,
    answers.STOP_NOW: Supervisor._stop_now_asked,
}
