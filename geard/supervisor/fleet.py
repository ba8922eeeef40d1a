"""All generations at once: the current one, the one that is coming, and those that drain.

Rules: at most one serves and at most one is coming; any number may drain. A generation that gave up its start drains
like an old one, for its ready processes may have jobs.
"""

from __future__ import annotations

from collections.abc import Callable

from geard.config.load import Source
from geard.messages import FromChild, ToChild
from geard.supervisor.child import Child, Phase
from geard.supervisor.generation import Generation, Stage
from geard.supervisor.pauses import Pauses


class Fleet:
    """See the module. `spawn` starts the process of a child."""

    def __init__(self, spawn: Callable[[Child], None]) -> None:
        self.spawn = spawn
        self._last_number = 0
        self._done_by_gone = self._failed_by_gone = 0
        self.current: Generation | None = None
        self.incoming: Generation | None = None
        self.draining: list[Generation] = []

    def __repr__(self) -> str:
        return f"<Fleet {self.generations}>"

    @property
    def generations(self) -> list[Generation]:
        """Oldest first."""
        living = [*self.draining, *filter(None, (self.current, self.incoming))]
        return sorted(living, key=lambda generation: generation.number)  # one that gave up is younger than the current

    @property
    def children(self) -> list[Child]:
        """Every worker process that is not gone."""
        return [child for generation in self.generations for child in generation.children]

    @property
    def number(self) -> int:
        """The current generation's, or that of the first while it is coming."""
        return self.current.number if self.current else self._last_number

    @property
    def gone(self) -> tuple[int, int, int]:
        """The number of the last generation, and the jobs (done, failed) of processes that are gone."""
        return self._last_number, self._done_by_gone, self._failed_by_gone

    @gone.setter
    def gone(self, gone: tuple[int, int, int]) -> None:
        self._last_number, self._done_by_gone, self._failed_by_gone = gone

    def restore(self, generation: Generation) -> None:
        """Go on with a generation that serves or drains."""
        if generation.stage is Stage.CURRENT:
            self.current = generation
        else:
            self.draining.append(generation)

    @property
    def is_served(self) -> bool:
        """Whether any worker process is ready, or finishes jobs."""
        return any(child.phase in (Phase.READY, Phase.DRAINING) for child in self.children)

    def is_calm(self, now: float) -> bool:
        """Whether one generation serves, no other comes or drains, and nothing is under way in it."""
        return not self.incoming and not self.draining and bool(self.current and self.current.is_calm(now))

    @property
    def counters(self) -> tuple[int, int]:
        """Jobs (done, failed) since the start, by processes that are gone too."""
        beats = [child.heartbeat for child in self.children if child.heartbeat]
        done = self._done_by_gone + sum(beat.done for beat in beats)
        return done, self._failed_by_gone + sum(beat.failed for beat in beats)

    def begin(self, source: Source, paused: Pauses, now: float) -> Generation:
        """Start a generation from this config, without what is paused. It comes; the current one stays."""
        self._last_number += 1
        self.incoming = Generation(self._last_number, source, self.spawn, paused=paused)
        self.incoming.start(now)
        return self.incoming

    def take_over(self, incoming: Generation, now: float) -> None:
        """The generation that was coming is the current one; the old one drains."""
        old, self.current, self.incoming = self.current, incoming, None
        incoming.stage = Stage.CURRENT
        if old:
            old.drain(incoming.config.drain_timeout_seconds, now)
            self.draining.append(old)

    def give_up(self, incoming: Generation, now: float) -> None:
        """The generation that was coming will not be; its ready processes finish their jobs."""
        self.incoming = None
        incoming.drain(incoming.config.drain_timeout_seconds, now)
        self.draining.append(incoming)

    def received(self, child: Child, message: FromChild, now: float) -> None:
        """A process said something."""
        generation = self._generation_of(child)
        if generation:
            generation.received(child, message, now)

    def exited(self, child: Child, status: int, now: float) -> None:
        """A process ended."""
        generation = self._generation_of(child)
        if generation:
            generation.exited(child, status, now)
        if child.heartbeat:
            self._done_by_gone += child.heartbeat.done
            self._failed_by_gone += child.heartbeat.failed

    def tick(self, now: float) -> None:
        """Do what is due in each generation; forget those that are gone."""
        for generation in self.generations:
            generation.tick(now)
        self.draining = [generation for generation in self.draining if generation.children]

    def forgive_silence(self, seconds: float) -> None:
        """We were not there to listen for so long."""
        for child in self.children:
            child.heard_at += seconds

    def drain(self, timeout_seconds: float, now: float) -> None:
        """Every process finishes its jobs, within the timeout. May be called again with a shorter one."""
        for generation in self.generations:
            generation.drain(timeout_seconds, now)

    def broadcast(self, message: ToChild) -> list[Child]:
        """Send to each process that listens, and say which these are."""
        return [child for generation in self.generations for child in generation.broadcast(message)]

    def tell_all(self, message: ToChild) -> None:
        """Send to each process, also to those that do not listen yet."""
        for child in self.children:
            child.send(message)

    def find(self, pid: int) -> Child | None:
        """The worker process with this pid, if there is one."""
        return next((child for child in self.children if child.process and child.process.pid == pid), None)

    def _generation_of(self, child: Child) -> Generation | None:
        return next((each for each in self.generations if each.number == child.generation), None)
