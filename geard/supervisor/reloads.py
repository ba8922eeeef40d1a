"""Reloads: from one generation to the next. The start is the first of them; one that pauses or resumes functions uses
the config as it was read.

Rules:
- There is one at a time. While it is under way, any number of further ones become a single one after it: the config may
  have changed since this one read it. Each asker gets the outcome of the reload that began after it asked.
- The old generation drains only once the whole new one is ready. Whatever goes wrong before that leaves the old one
  running, and says why.
- Once they are cancelled, because the daemon stops, there are none any more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from geard import exits
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import ConfigError, InvalidRequest, Problem
from geard.stats.totals import Totals
from geard.supervisor import summary
from geard.supervisor.answers import Answer, Reply, answer_all
from geard.supervisor.fleet import Fleet
from geard.supervisor.generation import Generation
from geard.supervisor.pauses import Change, Pauses, apply_all
from geard.supervisor.report import Report

STOPPING: Final = Answer(exits.FAILED, "the supervisor is stopping")

log = logging.getLogger(__name__)


@dataclass
class Wanted:
    """What is wanted of a reload, and who waits for its outcome."""

    reads: bool = False  # the config again
    changes: list[Change] = field(default_factory=list)  # of what is paused
    replies: list[Reply] = field(default_factory=list)


class Reloads:
    """See the module. The first is under way from the outset."""

    def __init__(
        self,
        fleet: Fleet,
        totals: Totals,
        report: Report,
        source: Source,
        paused: Pauses,
        *,
        load: Callable[[], None],
        configured: Callable[[Config], None],
        remember: Callable[[Pauses], None],
        cannot_start: Callable[[Generation], None],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """Begin with this `source`, and with these functions `paused`. `load` begins to read the config and leads to
        `loaded`; `configured` is told of each config that takes effect, `remember` of what is paused then;
        `cannot_start` of a first generation that is none."""
        self._fleet = fleet
        self._totals = totals
        self._report = report
        self._first_source = source
        self._first_paused = paused
        self._load = load
        self._configured = configured
        self._remember = remember
        self._cannot_start = cannot_start
        self._clock = clock
        self._wall_clock = wall_clock
        self.are_under_way = True
        self.refusal = ""
        """Why the last was refused; "" when it was not."""
        self._cancelled = False
        self._this = Wanted(reads=True)  # of the one under way
        self._next = Wanted()

    @property
    def source(self) -> Source:
        """The config in effect, or the one that is to be the first."""
        return self._fleet.current.source if self._fleet.current else self._first_source

    @property
    def _paused(self) -> Pauses:
        """The paused functions, those that the config does not have too."""
        return self._fleet.current.paused if self._fleet.current else self._first_paused

    def start(self) -> None:
        """Start the first generation."""
        self._start_generation(self._first_source)

    def resume(self, refusal: str) -> None:
        """There is a generation that serves, of the supervisor before us."""
        self.are_under_way, self.refusal = False, refusal
        self._configured(self.source.config)

    # --- what is asked for ----------------------------------------------------------------------------------------

    def reload(self, reply: Reply | None = None) -> None:
        """Read the config again, now or next."""
        if self._cancelled:
            log.warning("no reload: the supervisor is stopping")
            if reply:
                _say_reloaded(reply, STOPPING)
        else:
            self._next.reads = True
            self._want(partial(_say_reloaded, reply) if reply else None)

    def pause(self, change: Change, reply: Reply) -> None:
        """Pause or resume functions, now or next."""
        try:
            change.check(self.source.config, self._paused)
        except InvalidRequest as error:
            reply(Answer(exits.USAGE, str(error)))
            return
        log.info("asked to be %s", change.text)
        if self._cancelled:
            _say_paused(reply, change, STOPPING)
        elif not self.are_under_way and change.applied(self._paused) == self._paused:
            reply(Answer(exits.DONE, f"already {change.text}"))
        else:
            self._next.changes.append(change)
            self._want(partial(_say_paused, reply, change))

    def cancel(self) -> None:
        """The daemon stops: tell everybody, and have no more."""
        self._cancelled, self.are_under_way = True, False
        replies = [*self._this.replies, *self._next.replies]
        self._this, self._next = Wanted(), Wanted()
        answer_all(replies, STOPPING)

    def _want(self, reply: Reply | None) -> None:
        if reply:
            self._next.replies.append(reply)
        if not self.are_under_way:
            self._begin()

    # --- one of them ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Have a new generation, from the config as it is now or, unless this one reads it, as it was read."""
        self.are_under_way = True
        self._this, self._next = self._next, Wanted()
        self._report.reloading()
        if self._this.reads:
            self._load()
        else:
            self._start_generation(self.source)

    def loaded(self, outcome: Source | ConfigError) -> None:
        """The config has been read, or cannot be used."""
        if not self.are_under_way:
            return  # a stop came between
        if isinstance(outcome, ConfigError):
            self._refuse(outcome.problems)
        else:
            self._start_generation(outcome)

    def _start_generation(self, source: Source) -> None:
        incoming = self._fleet.begin(source, apply_all(self._this.changes, self._paused), self._clock())
        log.info("starting generation %d: %s", incoming.number, summary.processes(len(incoming.slots)))

    def tick(self, now: float) -> None:
        """See whether the generation that is coming is ready, or has failed."""
        incoming, is_first = self._fleet.incoming, self._fleet.current is None
        if not incoming or not self.are_under_way:
            return
        if incoming.has_failed and incoming.verdict_is_in:
            self._fleet.give_up(incoming, now)
            if is_first:
                self._cannot_start(incoming)
            else:
                self._refuse(incoming.problems)
        elif incoming.is_ready:
            self._fleet.take_over(incoming, now)
            self._succeed(incoming, is_first=is_first)

    def _succeed(self, serving: Generation, *, is_first: bool) -> None:
        if self._this.reads:
            self._configured(serving.config)
            if is_first:
                self._totals.last_reload_time = self._wall_clock()
            else:
                self._totals.reloaded("done", self._wall_clock())
            self.refusal = ""
        if self._this.changes:
            self._remember(serving.paused)
        log.info("generation %d serves: %s", serving.number, summary.offer(serving.config, serving.paused))
        self._end(Answer(exits.DONE, f"generation {serving.number} serves"))

    def _refuse(self, problems: Sequence[Problem]) -> None:
        what = "reload refused" if self._this.reads else "nothing paused or resumed"
        text = f"{what}, generation {self._fleet.number} goes on:\n" + "\n".join(map(str, problems))
        log.error("%s", text)
        if self._this.reads:
            self._totals.reloaded("refused", self._wall_clock())
            self.refusal = f"reload refused at {time.strftime('%H:%M:%S')}: {summary.first(problems)}"
        self._end(Answer(exits.CONFIG, text))

    def _end(self, answer: Answer) -> None:
        self.are_under_way = False
        self._report.ready()
        replies, self._this.replies = self._this.replies, []
        answer_all(replies, answer)
        if self._next.reads or self._next.changes:
            self._begin()


def _say_reloaded(reply: Reply, outcome: Answer) -> None:
    """The outcome of a reload that was to read the config."""
    reply(Answer(outcome.exit_code, f"not reloaded: {outcome.message}") if outcome is STOPPING else outcome)


def _say_paused(reply: Reply, change: Change, outcome: Answer) -> None:
    """The outcome of a reload that was to pause or resume functions."""
    said = change.text if outcome.exit_code == exits.DONE else f"not {change.text}"
    reply(Answer(outcome.exit_code, f"{said}; {outcome.message}"))
