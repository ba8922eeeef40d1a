"""The supervisor: one loop over one queue of events, and the table of what each of them does.

Rules:
- No handler blocks or waits; it changes state, tells worker processes, and returns. So a TERM in the middle of a
  reload is just the next event.
- The old generation drains only once the whole new one is ready. Whatever goes wrong before that leaves the old one
  running, and says why.
- While a reload is under way, any number of further ones become a single one after it.
- It ends only when no worker process is left.
- All that touches the system is handed in; time is what `clock` says.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

from setproctitle import setproctitle

from geard import exits, logs
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import ConfigError, Problem
from geard.messages import DumpStacks, Jobs, ListJobs, ReopenLog
from geard.supervisor import answers, summary
from geard.supervisor.answers import Answer, Overview
from geard.supervisor.child import Child
from geard.supervisor.events import Asked, Event, Exited, Loaded, Received, Signalled, SourcesChanged
from geard.supervisor.generation import Generation, State
from geard.supervisor.report import Notify, Report
from geard.supervisor.waiting import Listings, Reloads, Reply, answer_all

PAUSE_SECONDS: Final = 5.0
"""Longer than this between two turns of the loop means that we were stopped; the silence was not the children's."""

STOPPING: Final = Answer(exits.FAILED, "not reloaded: the supervisor is stopping")

log = logging.getLogger(__name__)


class Supervisor:
    """See the module. `handle` each event, `tick` after it and at least twice a second, until `exit_code` is there."""

    def __init__(
        self,
        source: Source,
        *,
        spawn: Callable[[Child], None],
        load: Callable[[], None],
        notify: Notify,
        configured: Callable[[Config], None],
        clock: Callable[[], float] = time.monotonic,
        set_title: Callable[[str], None] = setproctitle,
    ) -> None:
        """`spawn` starts a child's process; `load` begins to read the config and leads to a Loaded event;
        `configured` is told of each config that takes effect after the first."""
        self._source = source
        self._spawn = spawn
        self._load = load
        self._configured = configured
        self._clock = clock
        self._report = Report(notify, set_title)
        self._started_at = self._last_turn = clock()
        self._state = "starting"
        self._last_number = 0
        self._current: Generation | None = None
        self._incoming: Generation | None = None
        self._leaving: list[Generation] = []
        self._totals = summary.Totals()
        self._refusal = ""  # why the last reload was refused
        self._reloads = Reloads()
        self._listings = Listings()
        self._stops: list[Reply] = []  # wait for our end
        self._stop_at = 0.0
        self._finished_jobs = 0
        self._abandoned_jobs = 0
        self._failure = exits.DONE
        self.start_problems: tuple[Problem, ...] = ()
        """Why the daemon could not start, when that is why it ends."""
        self.exit_code: int | None = None

    def __repr__(self) -> str:
        return f"<Supervisor {self._state} {self._generations}>"

    # --- events ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the first generation."""
        self._begin_generation(self._source)
        self.tick()

    def handle(self, event: Event) -> None:
        """Do what this event asks for."""
        match event:
            case Received(child=child, message=message):
                generation = self._generation_of(child)
                if generation:
                    generation.received(child, message, self._clock())
                if isinstance(message, Jobs):
                    self._listings.heard(child)
            case Exited(child=child, status=status):
                self._exited(child, status)
            case Signalled(number=number):
                name = signal.Signals(number).name
                log.info("%s: %s", name, SIGNALS[number][0])
                SIGNALS[number][1](self)
            case Asked(command=command, reply=reply):
                if command in REQUESTS:
                    REQUESTS[command](self, reply)
                else:
                    reply(Answer(exits.USAGE, f"this supervisor does not know {command!r}"))
            case Loaded(outcome=outcome):
                self._loaded(outcome)
            case SourcesChanged(paths=paths):
                log.info("changed: %s", ", ".join(paths))
                self._reload()

    def tick(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        if now - self._last_turn > PAUSE_SECONDS:
            for child in self._children:
                child.heard_at += now - self._last_turn
        self._last_turn = now
        for generation in self._generations:
            generation.tick(now)
        answer_all(self._listings.pop_due(now), Answer(exits.DONE, overview=self._overview(now)))
        self._settle_incoming(now)
        self._leaving = [generation for generation in self._leaving if generation.children]
        if self._state == "stopping" and not self._children:
            self._end(now)
        self._tell(now)

    # --- reload ---------------------------------------------------------------------------------------------------

    def _reload(self, reply: Reply | None = None) -> None:
        if self._state == "stopping":
            answer_all([reply] if reply else [], STOPPING)
        elif self._state == "running":
            self._state = "reloading"
            self._reloads.begin(reply)
            self._report.reloading()
            self._load()
        else:
            self._reloads.want_another(reply)

    def _loaded(self, outcome: Source | ConfigError) -> None:
        if self._state != "reloading":
            return
        if isinstance(outcome, ConfigError):
            self._refuse(outcome.problems)
        else:
            self._begin_generation(outcome)

    def _begin_generation(self, source: Source) -> None:
        self._last_number += 1
        self._incoming = Generation(self._last_number, source, self._spawn)
        self._incoming.start(self._clock())
        log.info("starting generation %d: %s", self._last_number, _plural_processes(self._incoming))

    def _settle_incoming(self, now: float) -> None:
        """See whether the generation that starts is ready, or has failed."""
        incoming = self._incoming
        if not incoming or self._state == "stopping":
            return
        if incoming.has_failed and incoming.verdict_is_in:
            self._incoming = None
            problems = incoming.problems
            incoming.drain(incoming.config.drain_timeout_seconds, now)
            self._leaving.append(incoming)
            if self._state == "starting":
                self._cannot_start(problems, incoming.exit_code)
            else:
                self._refuse(problems)
        elif incoming.is_ready:
            self._incoming = None
            self._take_over(incoming, now)

    def _take_over(self, incoming: Generation, now: float) -> None:
        old, self._current = self._current, incoming
        incoming.state = State.CURRENT
        if old:
            old.drain(incoming.config.drain_timeout_seconds, now)
            self._leaving.append(old)
            self._configured(incoming.config)
        self._source, self._refusal = incoming.source, ""
        log.info("generation %d serves: %s", incoming.number, _describe(incoming.config))
        self._reload_is_over(Answer(exits.DONE, f"generation {incoming.number} serves"))

    def _refuse(self, problems: Sequence[Problem]) -> None:
        text = "\n".join(map(str, problems))
        current = self._current.number if self._current else 0
        log.error("reload refused, generation %d goes on:\n%s", current, text)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        self._refusal = f"reload refused at {time.strftime('%H:%M:%S')}: {problems[0]}{more}"
        self._reload_is_over(Answer(exits.CONFIG, f"reload refused, generation {current} goes on:\n{text}"))

    def _reload_is_over(self, answer: Answer) -> None:
        self._state = "running"
        self._report.ready(self._status_line())
        self._reloads.finish(answer)
        if self._reloads.another_is_wanted:
            self._reload()

    # --- stop -----------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """TERM and INT: the first lets the jobs finish, the second does not wait for them."""
        if self._state == "stopping":
            self._abandon()
        else:
            self._stop(self._source.config.shutdown_timeout_seconds)

    def _abandon(self) -> None:
        """Close the connections now: the job servers give the jobs to other workers."""
        self._stop(0.0)

    def _stop(self, timeout_seconds: float) -> None:
        now = self._clock()
        if self._state != "stopping":
            self._stop_at = now
            self._report.stopping()
            self._reloads.cancel(STOPPING)
        self._state = "stopping"
        running = sum(child.running for child in self._children)
        log.info("stopping, within %.1f s: %d jobs are running", timeout_seconds, running)
        for generation in self._generations:
            generation.drain(timeout_seconds, now)

    def _cannot_start(self, problems: Sequence[Problem], exit_code: int | None) -> None:
        self.start_problems = tuple(problems)
        self._failure = exits.FAILED if exit_code is None else exit_code
        log.error("cannot start:\n%s", "\n".join(map(str, problems)))
        self._report.failed(str(problems[0]))
        self._stop(self._source.config.shutdown_timeout_seconds)

    def _end(self, now: float) -> None:
        self.exit_code = self._failure or (exits.FAILED if self._abandoned_jobs else exits.DONE)
        finished, abandoned = self._finished_jobs, self._abandoned_jobs
        text = f"stopped in {now - self._stop_at:.2f} s: of {finished + abandoned} jobs in flight {finished} finished"
        text += f", {abandoned} were left to other workers" if abandoned else ""
        log.log(logging.WARNING if abandoned else logging.INFO, text)
        answer_all(self._stops, Answer(self.exit_code, text))

    def _exited(self, child: Child, status: int) -> None:
        generation = self._generation_of(child)
        if not generation:
            return
        self._totals.gone(child)
        generation.exited(child, status, self._clock())
        self._listings.heard(child)
        if self._state == "stopping":
            self._finished_jobs += child.drained.finished if child.drained else 0
            self._abandoned_jobs += child.abandoned_count

    # --- what else can be asked -----------------------------------------------------------------------------------

    def _more(self) -> None:
        self._resize(1)

    def _fewer(self) -> None:
        self._resize(-1)

    def _resize(self, by: int) -> None:
        if self._state == "stopping" or not self._current:
            log.warning("not now: the supervisor is %s", self._state)
        elif self._current.resize(by, self._clock()):
            log.info("now %s; a reload goes back to the config's", _plural_processes(self._current))
        else:
            log.warning("the common worker processes stay as they are: there are none, or this one is the last")

    def _reopen_log(self) -> None:
        logs.reopen()
        for generation in self._generations:
            generation.broadcast(ReopenLog())

    def _dump_stacks(self) -> None:
        for generation in self._generations:
            generation.broadcast(DumpStacks())

    def _ps(self, reply: Reply) -> None:
        asked = [child for generation in self._generations for child in generation.broadcast(ListJobs())]
        self._listings.add(reply, asked, self._clock())

    def _stop_asked(self, reply: Reply) -> None:
        self._stops.append(reply)
        if self._state != "stopping":
            self._drain()

    def _stop_now_asked(self, reply: Reply) -> None:
        self._stops.append(reply)
        self._abandon()

    # --- what it tells --------------------------------------------------------------------------------------------

    def _tell(self, now: float) -> None:
        self._report.alive(self._children, self._source.config.hang_timeout_seconds, now)
        if self._report.is_due(now):
            number = self._current.number if self._current else self._last_number
            title = summary.title(number, self._state, len(self._children))
            settled = self._state not in ("starting", "stopping")
            self._report.how_it_is(self._status_line(), title, settled=settled, now=now)

    def _status_line(self) -> str:
        return summary.status_line(self._state, self._current, self._children, self._totals, self._refusal)

    def _overview(self, now: float) -> Overview:
        return summary.overview(
            config_path=self._source.file,
            state=self._state,
            age_seconds=now - self._started_at,
            generations=self._generations,
            totals=self._totals,
            last_refusal=self._refusal,
            now=now,
        )

    @property
    def _generations(self) -> list[Generation]:
        return [*self._leaving, *filter(None, (self._current, self._incoming))]

    @property
    def _children(self) -> list[Child]:
        return [child for generation in self._generations for child in generation.children]

    def _generation_of(self, child: Child) -> Generation | None:
        return next((each for each in self._generations if each.number == child.generation), None)


SIGNALS: Final[dict[int, tuple[str, Callable[[Supervisor], None]]]] = {
    signal.SIGTERM: ("drain", Supervisor._drain),
    signal.SIGINT: ("drain", Supervisor._drain),
    signal.SIGQUIT: ("stop at once", Supervisor._abandon),
    signal.SIGHUP: ("reload", Supervisor._reload),
    signal.SIGTTIN: ("one worker process more", Supervisor._more),
    signal.SIGTTOU: ("one worker process fewer", Supervisor._fewer),
    signal.SIGUSR1: ("reopen the log files", Supervisor._reopen_log),
    signal.SIGUSR2: ("log the stack of each busy greenlet", Supervisor._dump_stacks),
}
REQUESTS: Final[dict[str, Callable[[Supervisor, Reply], None]]] = {
    answers.PS: Supervisor._ps,
    answers.RELOAD: Supervisor._reload,
    answers.STOP: Supervisor._stop_asked,
    answers.STOP_NOW: Supervisor._stop_now_asked,
}


def _plural_processes(generation: Generation) -> str:
    return summary.plural(len(generation.slots), "process", "processes")


def _describe(config: Config) -> str:
    servers = ", ".join(map(str, config.job_servers))
    return f"{', '.join(config.capabilities)} from {servers}, {config.greenlets_per_server} greenlets for each"
