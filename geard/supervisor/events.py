"""What can happen to the supervisor. Everything that does is one of these, in one queue, handled one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from geard.config.load import Source
from geard.errors import ConfigError
from geard.messages import FromChild
from geard.scheduler.states import States
from geard.supervisor.answers import Reply, Request

if TYPE_CHECKING:
    from geard.supervisor.child import Child


class Signalled(Struct, frozen=True):
    """A signal arrived."""

    number: int


class Received(Struct, frozen=True):
    """A worker process said something."""

    child: Child
    message: FromChild


class Exited(Struct, frozen=True):
    """A worker process ended, and all it said has been received. `status` is its exit code or minus its signal."""

    child: Child
    status: int


class Loaded(Struct, frozen=True):
    """The config was read again for a reload, or cannot be used."""

    outcome: Source | ConfigError


class Asked(Struct, frozen=True):
    """A request from the control socket."""

    request: Request
    reply: Reply


class Scheduled(Struct, frozen=True):
    """The scheduler says how its schedules stand."""

    states: States


class SourcesChanged(Struct, frozen=True):
    """`--watch` saw these files change."""

    paths: tuple[str, ...]


Event = Signalled | Received | Exited | Loaded | Asked | Scheduled | SourcesChanged
