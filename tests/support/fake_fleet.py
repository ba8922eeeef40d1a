"""A supervisor whose worker processes, clock and config file are fake: histories of events run against it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from geard import exits
from geard.config.load import Source
from geard.config.model import Capability, Config
from geard.errors import ConfigError, Problem
from geard.messages import (
    CannotStart,
    Drain,
    Drained,
    FromChild,
    Heartbeat,
    Jobs,
    Ready,
    RunningJob,
    ToChild,
)
from geard.supervisor.answers import Answer, Request
from geard.supervisor.child import Child
from geard.supervisor.events import Asked, Event, Exited, Loaded, Received, Signalled
from geard.supervisor.supervisor import Supervisor

SERVER = "127.0.0.1:4730"
CAPABILITIES = {"reverse": Capability("geard.examples.reverse")}


def job(number: int, function: str = "reverse", seconds: float = 1.5) -> RunningJob:
    """A job in flight."""
    return RunningJob(function, f"H:host:{number}", f"unique-{number}", SERVER, seconds)


class FakeProcess:
    """A worker process that remembers what it was told."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.told: list[ToChild] = []
        self.signals: list[int] = []
        self.killed = False

    def send(self, message: ToChild) -> None:
        self.told.append(message)

    carried = (-1, b"")

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.killed = True

    @property
    def drains(self) -> list[float | None]:
        """The timeouts of the drains it was asked for."""
        return [message.timeout_seconds for message in self.told if isinstance(message, Drain)]


class FakeNotify:
    """A service manager that remembers what it heard."""

    watchdog_seconds: float | None = 10.0

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, *assignments: str) -> None:
        self.heard.extend(assignments)

    def count(self, assignment: str) -> int:
        return sum(heard.startswith(assignment) for heard in self.heard)

    @property
    def status(self) -> str:
        return next(heard for heard in reversed(self.heard) if heard.startswith("STATUS="))


class World:
    """The supervisor and all that is fake around it. Processes are named in the order of their start: 1, 2, …

    Each step settles before the next: fake processes die when they are killed, as real ones do."""

    def __init__(self, processes: int = 2, *, capabilities: dict[str, Capability] | None = None, **config: object):
        self.now = 1000.0
        self.children: list[Child] = []
        self.loads = 0
        self.no_more_processes = False
        self.obeys_kill = True
        self.notify = FakeNotify()
        self.configured: list[Config] = []
        self.titles: list[str] = []
        self.answers: list[Answer] = []
        self.config = Config(processes=processes, capabilities=capabilities or CAPABILITIES, **config)  # type: ignore[arg-type]
        self.supervisor = Supervisor(
            self.source(),
            spawn=self._spawn,
            load=self._load,
            notify=self.notify,
            configured=self.configured.append,
            clock=lambda: self.now,
            wall_clock=lambda: self.now,
            set_title=self.titles.append,
        )
        self.supervisor.start()

    def source(self) -> Source:
        return Source("geard.yaml", self.config, (), {})

    # --- what happens ---------------------------------------------------------------------------------------------

    def happens(self, event: Event) -> None:
        self.supervisor.handle(event)
        self.supervisor.tick()
        self._bury()

    def passes(self, seconds: float, *, beating: bool = True, step: float = 0.25) -> None:
        """Time passes; the worker processes send their heartbeats or do not."""
        for _ in range(round(seconds / step)):
            self.now += step
            if beating:
                for child in self.living:
                    child.heard_at = self.now
            self.supervisor.tick()
            self._bury()

    def ready(self, *numbers: int, memory: int = 0) -> None:
        for number in numbers:
            self.says(number, Ready((SERVER,), memory_bytes=memory))

    def says(self, number: int, message: FromChild) -> None:
        self.happens(Received(self.children[number - 1], message))

    def beats(
        self, number: int, *, running: int = 0, done: int = 0, memory: int = 0, jobs: Sequence[RunningJob] = ()
    ) -> None:
        self.says(number, Heartbeat(running, 50, done, 0, (SERVER,), (), memory, tuple(jobs)))

    def lists(self, number: int, *jobs: RunningJob) -> None:
        self.says(number, Jobs(jobs))

    def cannot_start(self, number: int, message: str = "no module named 'sums'") -> None:
        self.says(number, CannotStart((Problem(message, key="capabilities.add"),), exits.CONFIG))
        self.dies(number, exits.CONFIG)

    def dies(self, number: int, status: int = -signal.SIGSEGV) -> None:
        self.happens(Exited(self.children[number - 1], status))

    def drains(self, number: int, *, finished: int = 0, abandoned: Sequence[RunningJob] = ()) -> None:
        self.says(number, Drained(0.5, finished, tuple(abandoned)))
        self.dies(number, 0)

    def signal(self, number: int) -> None:
        self.happens(Signalled(number))

    def asks(self, command: str, **about: Any) -> None:
        self.happens(Asked(Request(command, **about), self.answers.append))

    def loaded(self, *problems: str) -> None:
        """The config has been read, and is as it was or has these problems."""
        outcome = ConfigError([Problem(each, "geard.yaml", 3) for each in problems]) if problems else self.source()
        self.happens(Loaded(outcome))

    # --- what is seen ---------------------------------------------------------------------------------------------

    def process(self, number: int) -> FakeProcess:
        process = self.children[number - 1].process
        assert isinstance(process, FakeProcess)
        return process

    @property
    def living(self) -> list[Child]:
        return [child for child in self.children if child.phase.value != "gone"]

    @property
    def picture(self) -> str:
        """What each living process does: `1:ready 3:starting`."""
        return " ".join(f"{self.children.index(child) + 1}:{child.phase.value}" for child in self.living)

    @property
    def exit_code(self) -> int | None:
        return self.supervisor.exit_code

    def _spawn(self, child: Child) -> None:
        if self.no_more_processes:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        self.children.append(child)
        child.process = FakeProcess(100 + len(self.children))

    def _load(self) -> None:
        self.loads += 1

    def _bury(self) -> None:
        for child in self.living:
            if isinstance(child.process, FakeProcess) and child.process.killed and self.obeys_kill:
                self.happens(Exited(child, -signal.SIGKILL))
