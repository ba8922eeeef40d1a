"""The processes beside the workers, as the config wants them: the scheduler, and the keeper of dead letters.

Rules:
- The scheduler goes by the config in effect, never by one that only came and was refused.
- Once it has run, each goes on to the end: worker processes that drain may have letters to be kept, and what waits for
  schedules that are no more is to be cancelled.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial

from geard import interpreter
from geard.config.model import Config, DeadLetterFile
from geard.deadletters.keep import Keep
from geard.deadletters.keep import dump as dump_keep
from geard.scheduler import states
from geard.scheduler.states import Plan, States
from geard.supervisor.beside import Beside
from geard.supervisor.signals import Handler


class Companions:
    """See the module. Each of them is told the config whenever it starts, and again when another one takes effect."""

    def __init__(
        self, config: Config, *, scheduled: Callable[[States], None], verbose: bool, dead_letters_address: str = ""
    ) -> None:
        """`scheduled` is told how the schedules stand; `dead_letters_address` is the one that worker processes know
        already."""
        self._config = config  # in effect
        self._letters = config.dead_letters  # kept so, also when there is no such config any more
        self._verbose = verbose
        own = f"\0geard-dead-letters-{os.getpid()}-{os.urandom(8).hex()}"
        self.dead_letters_address = dead_letters_address or own
        """Where worker processes send dead letters: an abstract Unix socket, with no file to be left behind."""
        self._scheduler = Beside(
            "scheduler",
            partial(interpreter.plain, "geard.scheduler.process"),
            first_line=self._plan,
            on_line=lambda line: scheduled(states.load_states(line)),
        )
        self._keeper = Beside(
            "keeper of dead letters",
            partial(interpreter.plain, "geard.deadletters.process"),
            first_line=self._keep,
            on_line=lambda line: None,
        )
        self._all = (self._scheduler, self._keeper)
        self._to_resume: list[Beside] = []
        self.paused = False
        self._reopen_log = Handler(signal.SIGUSR1, partial(self._signal, signal.SIGUSR1))

    def needed_by(self, config: Config) -> None:
        """A worker process is about to start with this config: have what it needs."""
        if config.dead_letters:
            if self._config.dead_letters is None:
                self._let_keep(config.dead_letters)
            self._keeper.start()

    def configured(self, config: Config) -> None:
        """This config has taken effect."""
        self._config = config
        self._scheduler.send_line(self._plan())  # nothing to one that does not run
        if config.schedules:
            self._scheduler.start()
        if config.dead_letters:
            self._let_keep(config.dead_letters)

    def pause(self) -> None:
        """End all of them, and wait for that, until `resume`."""
        self.paused = True
        self._to_resume = [each for each in self._all if each.pid]
        for each in self._to_resume:
            each.stop()
        for each in self._to_resume:
            each.close()

    def resume(self) -> None:
        """Have those run again that ran before `pause`."""
        if self.paused:
            self.paused = False
            for each in self._to_resume:
                each.start()

    def close(self) -> None:
        """End all of them, and wait for that."""
        self._reopen_log.cancel()
        for each in self._all:
            each.stop()
        for each in self._all:
            each.close()

    def _plan(self) -> bytes:
        return states.dump(Plan(self._config, self._verbose))

    def _keep(self) -> bytes:
        assert self._letters  # else the keeper has never been started
        return dump_keep(Keep(self._letters, self.dead_letters_address, self._config.logging, self._verbose))

    def _let_keep(self, letters: DeadLetterFile) -> None:
        self._letters = letters
        self._keeper.send_line(self._keep())

    def _signal(self, number: int) -> None:
        for each in self._all:
            each.signal(number)
