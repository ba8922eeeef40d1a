"""Paused functions: what the operator wants of them, and what is kept of it over a restart.

Rules:
- A generation is started with its pauses, and they are in effect once it has taken over; then they are kept.
- A pause of a function that the config no longer has is kept, for the config that has it again.
- A disk that fails costs the memory and nothing else. Without a state directory there is none.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from geard import statefile
from geard.config.model import Config, state_directory
from geard.errors import InvalidRequest
from geard.printable import printable

FILE_NAME: Final = "paused.json"

Pauses = frozenset[str]
NOTHING: Final[Pauses] = frozenset()

log = logging.getLogger(__name__)


class Change(Struct, frozen=True):
    """Functions to be paused, or resumed."""

    functions: tuple[str, ...]
    pause: bool

    def applied(self, pauses: Pauses) -> Pauses:
        """What is paused after it."""
        return pauses | set(self.functions) if self.pause else pauses - set(self.functions)

    def check(self, config: Config, pauses: Pauses) -> None:
        """Raises InvalidRequest for what the config does not have, nor a pause is kept of."""
        known: Collection[str] = config.capabilities if self.pause else {*config.capabilities, *pauses}
        unknown = [name for name in self.functions if name not in known]
        if unknown or not self.functions:
            have = f"this daemon has {listed(config.capabilities)}"
            raise InvalidRequest(f"no function {listed(unknown)}: {have}" if unknown else f"name a function: {have}")

    @property
    def text(self) -> str:
        """What it does, for people."""
        return f"{'paused' if self.pause else 'resumed'}: {listed(self.functions)}"


def apply_all(changes: Iterable[Change], pauses: Pauses) -> Pauses:
    """What is paused after all of them."""
    for change in changes:
        pauses = change.applied(pauses)
    return pauses


def in_config(pauses: Pauses, config: Config) -> tuple[str, ...]:
    """Those of the paused functions that this config has, in its order."""
    return tuple(name for name in config.capabilities if name in pauses)


def listed(names: Iterable[str] | Mapping[str, object]) -> str:
    """Function names for people."""
    return ", ".join(map(printable, names))


class PausesFile:
    """Reads and writes it. Neither raises. Written from several threads at once, it has the last in the end."""

    def __init__(self, directory: str | None) -> None:
        self._path = os.path.join(directory, FILE_NAME) if directory else None
        self._latest = NOTHING
        self._writing = threading.Lock()

    @classmethod
    def of(cls, config: Config) -> PausesFile:
        """In the config's state directory, or that of the service manager."""
        return cls(state_directory(config))

    def read(self) -> Pauses:
        """What an earlier supervisor wrote; nothing where there is nothing to be read."""
        if self._path is None:
            return NOTHING
        try:
            with open(self._path, "rb") as stream:
                return Pauses(msgspec.json.decode(stream.read(), type=list[str]))
        except FileNotFoundError:
            return NOTHING
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("cannot read %s: %s; nothing is paused", self._path, error)
            return NOTHING

    def set(self, pauses: Pauses) -> None:
        """What `write` writes."""
        self._latest = pauses

    def write(self) -> None:
        """Replace it, whole or not at all."""
        if self._path is None:
            return
        with self._writing:
            try:
                statefile.replace(self._path, msgspec.json.encode(sorted(self._latest)))
            except OSError as error:
                log.warning("cannot write %s: %s; what is paused is forgotten at a restart", self._path, error)
