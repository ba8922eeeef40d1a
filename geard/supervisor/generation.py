"""A generation: the worker processes started from one reading of the config, a slot for each that is wanted.

Rules:
- starting -> current -> draining. A generation starts whole or not at all: a process that cannot start, or dies
  before it was ever ready, fails it. Once a slot has been served, a death is a crash and the slot is served again.
- A process that is due for recycling serves until its replacement is ready; one slot of a group at a time.
- Only a current or starting generation starts processes. Only `spawn` touches the system.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from geard.config.load import Source, by_place
from geard.config.model import Config
from geard.config.units import mebibytes
from geard.errors import Problem
from geard.messages import CannotStart, FromChild, OverMemory, Ready, Sharers, ToChild, how_it_ended
from geard.supervisor.answers import GenerationView
from geard.supervisor.child import Child, Phase
from geard.supervisor.decisions import (
    ProcessGroup,
    crashes_in_a_row,
    process_groups,
    recycle_reason,
    restart_delay_seconds,
)
from geard.supervisor.pauses import NOTHING, Pauses

START_TIMEOUT_SECONDS: Final = 300.0
"""A worker process that is not ready after so long is given up: imports and `on_start` included."""
VERDICT_SECONDS: Final = 5.0
"""After the first failure of a start, how long the others may take to report theirs too."""

log = logging.getLogger(__name__)


class Stage(Enum):
    """Where a generation is in its life."""

    STARTING = "starting"
    CURRENT = "current"
    DRAINING = "draining"


@dataclass
class Slot:
    """A place for one worker process: the one that serves it, and the one that is to take over."""

    number: int
    group: ProcessGroup
    serving: Child | None = None
    replacement: Child | None = None
    was_ready: bool = False
    crashes: int = 0  # in a row
    start_at: float = 0.0


@dataclass
class Generation:
    """See the module. `spawn` starts the process of a Child and gives it to the child; it raises OSError."""

    number: int
    source: Source
    spawn: Callable[[Child], None]
    jitter: Callable[[], float] = random.random
    stage: Stage = Stage.STARTING
    paused: Pauses = NOTHING
    problems: list[Problem] = field(default_factory=list)
    exit_code: int | None = None  # of the first process that could not start and said why
    slots: list[Slot] = field(default_factory=list)
    leaving: list[Child] = field(default_factory=list)  # draining, no longer in a slot

    def __repr__(self) -> str:
        return f"<Generation {self.number} {self.stage.value} {len(self.children)} processes>"

    @property
    def config(self) -> Config:
        """What its processes run."""
        return self.source.config

    def start(self, now: float) -> None:
        """Start a process for each slot."""
        for group in process_groups(self.config, self.paused):
            for _ in range(group.processes):
                self._add_slot(group)
        for slot in self.slots:
            slot.serving = self._start_child(slot, now)

    @property
    def children(self) -> list[Child]:
        """All processes that are not gone, by number, those leaving last."""
        serving = [child for slot in self.slots for child in (slot.serving, slot.replacement) if child]
        return [*serving, *self.leaving]

    def is_calm(self, now: float) -> bool:
        """Whether each slot is served and nothing is under way in any process."""
        return all(slot.serving for slot in self.slots) and all(child.is_calm(now) for child in self.children)

    @property
    def is_ready(self) -> bool:
        """Whether each slot has been served, so that the generation can take over."""
        return all(slot.was_ready for slot in self.slots) and not self.has_failed

    @property
    def has_failed(self) -> bool:
        """Whether a process of a starting generation could not start."""
        return self.stage is Stage.STARTING and bool(self.problems)

    @property
    def verdict_is_in(self) -> bool:
        """Whether no process can add to what went wrong."""
        return not any(child.phase is Phase.STARTING for child in self.children)

    def received(self, child: Child, message: FromChild, now: float) -> None:
        """A process said something."""
        child.received(message, now)
        if isinstance(message, Ready):
            self._became_ready(child, now)
        elif isinstance(message, CannotStart):
            self._could_not_start(child, message, now)
        elif isinstance(message, OverMemory):
            self._over_memory(child, message, now)

    def exited(self, child: Child, status: int, now: float) -> None:
        """A process ended. If it still served a slot, see to the next."""
        before = child.phase
        child.exited(status, now)
        if child in self.leaving:
            self.leaving.remove(child)
        for slot in self.slots:
            if slot.replacement is child:
                slot.replacement = None
                self._retry_later(slot, child, now)
            elif slot.serving is child:
                slot.serving, slot.replacement = slot.replacement, None
                if self.stage is Stage.STARTING and not slot.was_ready:
                    if not child.problems and not child.killed:
                        self._fail(Problem(f"{child} {how_it_ended(status)} before it was ready"), now=now)
                elif before is not Phase.DRAINING:
                    self._retry_later(slot, child, now)

    def tick(self, now: float) -> None:
        """Do what is due: kill, start again, recycle."""
        for child in self.children:
            if child.kill_at is not None and now >= child.kill_at and self._awaits(child) and not self.problems:
                self._fail(Problem(f"{child} was not ready after {now - child.started_at:.0f} s"), now=now)
            child.tick(now, self.config.hang_timeout_seconds)
        if self.stage is Stage.DRAINING:
            return
        for slot in self.slots:
            if slot.serving is None and now >= slot.start_at and (slot.was_ready or self.stage is Stage.CURRENT):
                slot.serving = self._start_child(slot, now)
        if self.stage is Stage.CURRENT:
            for slot in self._due_for_recycling(now):
                slot.replacement = self._start_child(slot, now)

    def drain(self, timeout_seconds: float | None, now: float) -> None:
        """Grab no more; those in flight finish within the timeout (None: as long as they take). May be called again."""
        self.stage = Stage.DRAINING
        for child in self.children:
            child.drain(timeout_seconds, now)

    def resize(self, by: int, now: float) -> bool:
        """One common worker process more or less. False when there is no such, or it would be the last."""
        common = [slot for slot in self.slots if slot.group.is_common]
        if not common or len(common) + by < 1:
            return False
        if by > 0:
            slot = self._add_slot(common[0].group)
            slot.was_ready = True  # it is no part of the start
            self._tell_sharers(slot.group)
            slot.serving = self._start_child(slot, now)
            return True
        slot = common[-1]
        self.slots.remove(slot)
        for child in filter(None, (slot.serving, slot.replacement)):
            self._leave(child, now)
        self._tell_sharers(slot.group)
        return True

    def replace(self, child: Child, now: float) -> bool:
        """Start another in its place; it drains once that is ready. False when it serves no slot, or was replaced."""
        for slot in self.slots:
            if slot.serving is child and not slot.replacement and self.stage is Stage.CURRENT:
                slot.replacement = self._start_child(slot, now)
                return slot.replacement is not None
        return False

    def broadcast(self, message: ToChild) -> list[Child]:
        """Send to each process that listens, and say which these are."""
        listening = [child for child in self.children if child.phase is not Phase.STARTING]
        for child in listening:
            child.send(message)
        return listening

    def view(self, now: float) -> GenerationView:
        """For `geard ps`."""
        return GenerationView(self.number, self.stage.value, tuple(child.view(now) for child in self.children))

    def _sharers(self, group: ProcessGroup) -> int:
        return sum(slot.group.name == group.name for slot in self.slots)

    def _tell_sharers(self, group: ProcessGroup) -> None:
        """The processes of this group have become more, or fewer."""
        for slot in self.slots:
            if slot.group.name == group.name:
                for child in filter(None, (slot.serving, slot.replacement)):
                    child.send(Sharers(self._sharers(group)))

    def _add_slot(self, group: ProcessGroup) -> Slot:
        used = {slot.number for slot in self.slots}
        slot = Slot(next(n for n in range(1, len(used) + 2) if n not in used), group)
        self.slots.append(slot)
        return slot

    def _start_child(self, slot: Slot, now: float) -> Child | None:
        start_by = now + START_TIMEOUT_SECONDS
        child = Child(slot.number, self.number, slot.group, jitter=self.jitter(), now=now, start_by=start_by)
        child.sharers = self._sharers(slot.group)
        try:
            self.spawn(child)
        except OSError as error:
            log.error("cannot start %s: %s", child, error)
            if self.stage is Stage.STARTING and not slot.was_ready:
                self._fail(Problem(f"cannot start a worker process: {error}"), now=now)
            self._retry_later(slot, child, now)
            return None
        return child

    def _became_ready(self, child: Child, now: float) -> None:
        for slot in self.slots:
            if slot.serving is child:
                slot.was_ready = True
            elif slot.replacement is child:
                old, slot.serving, slot.replacement = slot.serving, child, None
                if old:
                    self._leave(old, now)

    def _over_memory(self, child: Child, message: OverMemory, now: float) -> None:
        """It drains already. What serves its slot next waits as after a death, should this happen again and again."""
        for slot in self.slots:
            if slot.serving is child and self.stage is not Stage.DRAINING:
                log.warning("replacing %s: it uses %s (max_memory_hard)", child, mebibytes(message.memory_bytes))
                slot.serving, slot.replacement = slot.replacement, None
                self._retry_later(slot, child, now)
                self._leave(child, now)

    def _could_not_start(self, child: Child, message: CannotStart, now: float) -> None:
        if self.stage is Stage.STARTING and not self._slot_was_ready(child):
            if self.exit_code is None:
                self.exit_code = message.exit_code
            self._fail(*map(self.source.locate, message.problems), now=now)
        else:
            log.error("%s cannot start:\n%s", child, "\n".join(map(str, map(self.source.locate, message.problems))))

    def _awaits(self, child: Child) -> bool:
        return self.stage is Stage.STARTING and child.phase is Phase.STARTING and not self._slot_was_ready(child)

    def _slot_was_ready(self, child: Child) -> bool:
        return any(slot.was_ready for slot in self.slots if slot.serving is child)

    def _fail(self, *problems: Problem, now: float) -> None:
        self.problems.extend(problem for problem in problems if problem not in self.problems)
        self.problems.sort(key=by_place)
        for child in self.children:
            if child.phase is Phase.STARTING and child.kill_at is not None:
                child.kill_at = min(child.kill_at, now + VERDICT_SECONDS)

    def _leave(self, child: Child, now: float) -> None:
        self.leaving.append(child)
        child.drain(self.config.drain_timeout_seconds, now)

    def _retry_later(self, slot: Slot, child: Child, now: float) -> None:
        ready_seconds = None if child.ready_at is None else now - child.ready_at
        slot.crashes = crashes_in_a_row(slot.crashes, ready_seconds)
        delay = restart_delay_seconds(slot.crashes, self.jitter())
        slot.start_at = now + delay
        if delay and self.stage is Stage.CURRENT:
            log.warning(
                "worker %d has ended %d times in a row; starting it again in %.1f s", slot.number, slot.crashes, delay
            )

    def _due_for_recycling(self, now: float) -> Iterator[Slot]:
        busy = {slot.group.name for slot in self.slots if slot.replacement}
        for slot in self.slots:
            child = slot.serving
            if not child or child.phase is not Phase.READY or slot.group.name in busy or now < slot.start_at:
                continue
            reason = recycle_reason(
                self.config, child.heartbeat, now - child.started_at, child.jitter, child.fresh_bytes
            )
            if reason:
                log.info("replacing %s: %s", child, reason)
                busy.add(slot.group.name)
                yield slot
