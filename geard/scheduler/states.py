"""What the scheduler and its supervisor say to each other, one JSON object a line over a socket pair."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from geard.config.model import Config


class ScheduleState(Struct, frozen=True):
    """One schedule at one moment. Times are Unix seconds."""

    name: str
    function: str
    when: str  # as the config has it
    next_at: float | None
    last_at: float | None
    submitted_at: float | None  # when one of its times was last submitted, by this scheduler
    waiting: int  # times that wait on a job server


class Plan(Struct, frozen=True, tag=True):
    """To the scheduler: go by the schedules and job servers of this config."""

    config: Config
    verbose: bool = False


class States(Struct, frozen=True, tag=True):
    """From the scheduler: how its schedules stand, and which job servers answer it."""

    schedules: tuple[ScheduleState, ...]
    answering: tuple[str, ...]


_encoder = msgspec.json.Encoder()
_plans = msgspec.json.Decoder(Plan)
_states = msgspec.json.Decoder(States)


def dump(message: Plan | States) -> bytes:
    """One message as a line."""
    return _encoder.encode(message) + b"\n"


def load_plan(line: bytes) -> Plan:
    """A line that the supervisor sent."""
    return _plans.decode(line)


def load_states(line: bytes) -> States:
    """A line that the scheduler sent."""
    return _states.decode(line)
