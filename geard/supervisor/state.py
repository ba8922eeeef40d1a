"""The supervisor's state as one struct, which a new supervisor in the same process goes on from (`geard upgrade`).

Rules:
- State is all that passes from the old code to the new. Who adds a part to the supervisor that must survive adds a
  field with a default, fills it in `capture` and reads it in `restore` or where it belongs.
- Times are of the monotonic clock, which goes on.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from geard import __version__
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import GeardError
from geard.messages import PROTOCOL, Drained, Heartbeat, RunningJob, Suspect
from geard.stats.totals import Totals
from geard.supervisor.child import Child, Phase
from geard.supervisor.decisions import process_groups
from geard.supervisor.fleet import Fleet
from geard.supervisor.generation import Generation, Slot, Stage
from geard.supervisor.pauses import Pauses

CARRIED: Final = (
    "sharers",
    "fresh_bytes",
    "ready_at",
    "heard_at",
    "heartbeat",
    "connected",
    "disconnected",
    "jobs",
    "jobs_at",
    "drained",
    "kill_at",
    "kill_reason",
    "killed",
    "excused",
    "version",
)
"""The attributes of a Child that a ChildState has as they are."""
FORMAT: Final = 1
"""Raised when a State is understood no more by older or newer code."""
REFUSED: Final = "not upgraded, all goes on as it was"


class CannotUpgrade(GeardError):
    """The state cannot be taken over by the code that is installed now."""


class ChildState(Struct, frozen=True):
    """A worker process, and the supervisor's end of its socket pair."""

    pid: int
    descriptor: int
    received: bytes  # the beginning of a line that has not arrived whole
    number: int
    generation: int
    group: str
    jitter: float
    phase: str
    started_at: float
    ready_at: float | None
    heard_at: float
    heartbeat: Heartbeat | None
    connected: tuple[str, ...]
    disconnected: tuple[str, ...]
    jobs: tuple[RunningJob, ...]
    jobs_at: float
    drained: Drained | None
    kill_at: float | None
    kill_reason: str
    killed: bool
    excused: bool
    version: str
    seat: int | None
    fresh_bytes: int = 0
    sharers: int = 1


class SlotState(Struct, frozen=True):
    """A place for a worker process; `serving` is its pid."""

    number: int
    group: str
    serving: int | None
    was_ready: bool
    crashes: int
    start_at: float


class GenerationState(Struct, frozen=True):
    """A generation that serves or drains; `leaving` are pids."""

    number: int
    state: str
    config: Config
    slots: tuple[SlotState, ...]
    leaving: tuple[int, ...]
    paused: tuple[str, ...] = ()


class State(Struct, frozen=True, kw_only=True):
    """Everything."""

    format: int = FORMAT
    version: str = __version__  # of the old supervisor
    protocol: int = PROTOCOL  # what its worker processes speak
    config_file: str
    started_at: float
    refusal: str
    last_number: int
    done_by_gone: int
    failed_by_gone: int
    generations: tuple[GenerationState, ...]
    children: tuple[ChildState, ...]
    suspects: tuple[Suspect, ...]
    totals: bytes  # pickled, processes by their pid
    listener: int | None = None  # of the control socket
    socket_path: str = ""  # where that is
    presence: int | None = None
    signals: int | None = None  # where those wait that nobody was told of
    dead_letters_address: str = ""

    @property
    def source(self) -> Source:
        """The config that is in effect, as it was read then."""
        config = next(each.config for each in self.generations if each.state == Stage.CURRENT.value)
        return Source(self.config_file, config, (), {})


# --- capture -----------------------------------------------------------------------------------------------------


def not_now(fleet: Fleet) -> str:
    """Why a daemon that serves is not at rest; "" when it is."""
    if fleet.incoming or not fleet.current:
        return "a generation is starting"
    starting = [child for child in fleet.children if child.phase is Phase.STARTING]
    return f"{starting[0]} is starting" if starting else ""


def capture(
    fleet: Fleet, totals: Totals, *, config_file: str, started_at: float, refusal: str, suspects: tuple[Suspect, ...]
) -> State:
    """The state of a supervisor at rest."""
    last_number, done, failed = fleet.gone
    return State(
        config_file=os.path.abspath(config_file),
        started_at=started_at,
        refusal=refusal,
        last_number=last_number,
        done_by_gone=done,
        failed_by_gone=failed,
        generations=tuple(map(_generation, fleet.generations)),
        children=tuple(map(_child, fleet.children)),
        suspects=suspects,
        totals=pickle.dumps(totals.with_processes(lambda child: child.process.pid)),
    )


def _generation(generation: Generation) -> GenerationState:
    slots = tuple(
        SlotState(
            slot.number,
            slot.group.name,
            _pid(slot.serving) if slot.serving else None,
            slot.was_ready,
            slot.crashes,
            slot.start_at,
        )
        for slot in generation.slots
    )
    leaving = tuple(map(_pid, generation.leaving))
    return GenerationState(
        generation.number, generation.stage.value, generation.config, slots, leaving, tuple(generation.paused)
    )


def _child(child: Child) -> ChildState:
    assert child.process
    descriptor, received = child.process.carried
    carried = {name: getattr(child, name) for name in CARRIED}
    if child.heartbeat:
        carried["heartbeat"] = msgspec.structs.replace(child.heartbeat, counted=None)  # it has been counted
    return ChildState(
        pid=child.process.pid,
        descriptor=descriptor,
        received=received,
        number=child.number,
        generation=child.generation,
        group=child.group.name,
        jitter=child.jitter,
        phase=child.phase.value,
        started_at=child.started_at,
        seat=child.seat.number if child.seat else None,
        **carried,
    )


def _pid(child: Child) -> int:
    assert child.process
    return child.process.pid


# --- restore -----------------------------------------------------------------------------------------------------


def restore(state: State, fleet: Fleet, adopt: Callable[[Child, ChildState], None]) -> Totals:
    """Fill an empty fleet with what there is; `adopt` gives a child its process. The totals with it."""
    children: dict[int, Child] = {}
    for known in state.generations:
        groups = {group.name: group for group in process_groups(known.config, known.paused)}
        source = Source(state.config_file, known.config, (), {})
        generation = Generation(
            known.number, source, fleet.spawn, stage=Stage(known.state), paused=Pauses(known.paused)
        )
        for each in state.children:
            if each.generation == known.number:
                children[each.pid] = _restored(
                    each,
                    Child(
                        each.number,
                        known.number,
                        groups[each.group],
                        jitter=each.jitter,
                        now=each.started_at,
                        start_by=each.started_at,
                    ),
                )
                adopt(children[each.pid], each)
        generation.slots = [
            Slot(
                slot.number,
                groups[slot.group],
                children[slot.serving] if slot.serving is not None else None,
                was_ready=slot.was_ready,
                crashes=slot.crashes,
                start_at=slot.start_at,
            )
            for slot in known.slots
        ]
        generation.leaving = [children[pid] for pid in known.leaving]
        fleet.restore(generation)
    fleet.gone = state.last_number, state.done_by_gone, state.failed_by_gone
    totals: Totals = pickle.loads(state.totals)  # noqa: S301 - our own, of a moment ago, from memory of ours
    return totals.with_processes(lambda pid: children[pid])


def _restored(state: ChildState, child: Child) -> Child:
    child.phase = Phase(state.phase)
    for name in CARRIED:
        setattr(child, name, getattr(state, name))
    return child


# --- what other code has left ------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(State)


def load(data: bytes) -> State:
    """A state that other code has left. Raises CannotUpgrade."""
    try:
        state = _decoder.decode(data)
        if state.format != FORMAT:
            raise CannotUpgrade(f"geard {__version__} does not know the state of geard {state.version}: restart it")
        if state.protocol != PROTOCOL:
            raise CannotUpgrade(f"geard {__version__} cannot talk to workers of geard {state.version}: restart it")
        restore(state, Fleet(lambda child: None), lambda child, known: None)  # every part of it, for nothing
    except CannotUpgrade:
        raise
    except Exception as error:
        raise CannotUpgrade(f"geard {__version__} cannot read the state of the supervisor: {error!r}") from error
    return state
