"""What the scheduler keeps over a restart, in a file of the state directory."""

from __future__ import annotations

import logging
import os
from typing import Final

import msgspec
from msgspec import Struct

from geard import statefile
from geard.scheduler.plan import Remembered

FILE_NAME: Final = "schedules.json"

log = logging.getLogger(__name__)


class Memory(Struct, frozen=True):
    """`seen_at`: when a scheduler last wrote this, in Unix seconds; None: never."""

    seen_at: float | None = None
    schedules: dict[str, Remembered] = {}


class MemoryFile:
    """Reads and writes it. A disk that fails costs the memory and nothing else. Without a directory there is none."""

    def __init__(self, directory: str | None) -> None:
        self._path = os.path.join(directory, FILE_NAME) if directory else None
        self._failed = False

    def read(self) -> Memory:
        """What an earlier scheduler wrote; an empty one where there is nothing to be read."""
        if self._path is None:
            return Memory()
        try:
            with open(self._path, "rb") as stream:
                return msgspec.json.decode(stream.read(), type=Memory)
        except FileNotFoundError:
            return Memory()
        except (OSError, msgspec.DecodeError) as error:
            log.warning("cannot read %s: %s; beginning anew", self._path, error)
            return Memory()

    def write(self, memory: Memory) -> None:
        """Replace it, whole or not at all. Says once that it cannot."""
        if self._path is None:
            return
        try:
            statefile.replace(self._path, msgspec.json.encode(memory))
        except OSError as error:
            if not self._failed:
                log.warning("cannot write %s: %s; what is missed now is not made up for", self._path, error)
            self._failed = True
        else:
            self._failed = False
