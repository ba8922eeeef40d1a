"""What whoever checks a config and the interpreter that imports its capabilities for that say to each other."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from geard.errors import Problem

IMPORT_TIMEOUT_SECONDS: Final = 60.0
"""Imports that take longer are taken to hang: their stack goes to stderr, and who waits gives up a little later."""


class Served(Struct, frozen=True):
    """A capability that would run."""

    name: str
    convention: str
    encoding: str


class Blocking(Struct, frozen=True):
    """A library whose calls hold up all other jobs of the process, and the capability whose module imports it; "" where
    that is not known."""

    capability: str
    library: str
    asynchronous: bool = False  # the capability is


class Findings(Struct, frozen=True):
    """What the imports showed. `imported_early` are modules that took hold of blocking functions before they were
    patched: jobs that use them would hold up all others."""

    served: tuple[Served, ...]
    problems: tuple[Problem, ...]
    imported_early: tuple[str, ...]
    blocking: tuple[Blocking, ...] = ()
